//! What templates may call, with Python's meaning and bounded results.
//!
//! The engine's own filters are kept where they can only shrink or reorder their input. Those that
//! multiply it are replaced by bounded ones (`join`, `replace`, `indent`), or left out (`format`,
//! `batch`, `slice`, `pprint`), which no template of the family misses.

use std::time::{Duration, UNIX_EPOCH};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};
use minijinja_contrib::pycompat;

use super::TemplateLimits;
use super::clock::strftime;
use super::halt::Halt;
use super::protect::GENERATION_MARKS;
use super::python::{Characters, JsonStyle, Keys, to_json, to_str};
use super::rewrite::{GENERATION, GUARD_ADD, GUARD_CONCAT, GUARD_REPEAT};

/// The template variable with the time, in seconds since 1970. One rendering has one time, also
/// when it runs twice to find positions.
pub(super) const NOW: &str = "_lfm2_now";

/// Python lists more, but a template has no use for it.
const RANGE_ITEMS: i64 = 10_000;
/// All operands of `+` and `~` together may be so many times longer than the output. A loop that
/// builds the output piece by piece needs its square.
const JOINED_OUTPUTS: usize = 64;
/// What an item of a list counts as, in bytes.
const ITEM_BYTES: usize = 24;

/// Adds everything to an environment.
pub(super) fn install(env: &mut Environment<'static>, limits: &TemplateLimits) {
    let cap = limits.output_bytes;
    env.set_formatter(move |out, _, value| write_str(out, value, cap));
    env.set_unknown_method_callback(move |state, value, name, args| {
        method(state, value, name, args, cap)
    });
    for left_out in ["format", "batch", "slice", "pprint", "chain", "zip"] {
        env.remove_filter(left_out);
    }
    env.remove_global("debug");
    env.add_filter(
        "tojson",
        move |value: &Value, ascii: Option<bool>, kwargs: Kwargs| {
            tojson(value, ascii, &kwargs, cap)
        },
    );
    env.add_filter("string", move |value: &Value| to_str(value, cap));
    env.add_filter(
        "join",
        move |items: &Value, separator: Option<&str>, kwargs: Kwargs| {
            join_filter(items, separator, &kwargs, cap)
        },
    );
    env.add_filter("replace", move |text: &Value, from: &str, to: &str| {
        replace(&to_str(text, cap)?, from, to, None, cap)
    });
    env.add_filter(
        "indent",
        move |text: &str, width: Option<usize>, first: Option<bool>, kwargs: Kwargs| {
            indent(text, width, first, &kwargs, cap)
        },
    );
    env.add_filter(GUARD_ADD, move |state: &mut State<'_, '_>, value: Value| {
        guard(state, value, Operands::Lists, cap)
    });
    env.add_filter(
        GUARD_CONCAT,
        move |state: &mut State<'_, '_>, value: Value| {
            guard(state, value, Operands::Texts(cap), cap)
        },
    );
    env.add_filter(GUARD_REPEAT, guard_repeat);
    env.add_filter(GENERATION, generation);
    env.add_function(
        "raise_exception",
        move |message: &Value| -> Result<Value, Error> {
            Err(Halt::Raised(to_str(message, cap)?).into())
        },
    );
    env.add_function("strftime_now", strftime_now);
    env.add_function("range", range);
}

fn write_str(out: &mut Output<'_>, value: &Value, cap: usize) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text)?,
        None => out.write_str(&to_str(value, cap)?)?,
    }
    Ok(())
}

/// The methods of Python's values; those that multiply their input are ours.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
    cap: usize,
) -> Result<Value, Error> {
    match (value.as_str(), name) {
        (Some(separator), "join") => {
            let (items,): (&Value,) = minijinja::value::from_args(args)?;
            join(items.try_iter()?, separator, cap).map(Value::from)
        }
        (Some(text), "replace") => {
            let (from, to, count): (&str, &str, Option<i64>) = minijinja::value::from_args(args)?;
            // Negative means all of them.
            let count = count.and_then(|count| usize::try_from(count).ok());
            replace(text, from, to, count, cap).map(Value::from)
        }
        (Some(_), "format") => Err(Error::from(ErrorKind::UnknownMethod)),
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// `json.dumps` with the parameters that the reference gives to templates.
fn tojson(
    value: &Value,
    ascii: Option<bool>,
    kwargs: &Kwargs,
    cap: usize,
) -> Result<String, Error> {
    let mut style = JsonStyle::default();
    if ascii.or(kwargs.get("ensure_ascii")?) == Some(true) {
        style.characters = Characters::Escape;
    }
    if kwargs.get::<Option<bool>>("sort_keys")? == Some(true) {
        style.keys = Keys::Sorted;
    }
    if let Some(indent) = kwargs
        .get::<Option<Value>>("indent")?
        .filter(|indent| !indent.is_none())
    {
        style.indent = Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(indent)?.min(64)),
        });
        ",".clone_into(&mut style.item_separator);
    }
    if let Some(separators) = kwargs
        .get::<Option<Value>>("separators")?
        .filter(|s| !s.is_none())
    {
        let mut parts = separators.try_iter()?.map(|part| part.to_string());
        if let (Some(item), Some(key)) = (parts.next(), parts.next()) {
            (style.item_separator, style.key_separator) = (item, key);
        }
    }
    kwargs.assert_all_used()?;
    to_json(value, &style, cap)
}

fn join_filter(
    items: &Value,
    separator: Option<&str>,
    kwargs: &Kwargs,
    cap: usize,
) -> Result<String, Error> {
    let named: Option<&str> = kwargs.get("d")?;
    let attribute: Option<&str> = kwargs.get("attribute")?;
    kwargs.assert_all_used()?;
    let separator = separator.or(named).unwrap_or_default();
    match attribute {
        None => join(items.try_iter()?, separator, cap),
        Some(name) => {
            let values: Result<Vec<Value>, Error> =
                items.try_iter()?.map(|item| item.get_attr(name)).collect();
            join(values?.into_iter(), separator, cap)
        }
    }
}

fn join(items: impl Iterator<Item = Value>, separator: &str, cap: usize) -> Result<String, Error> {
    let mut out = String::new();
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        match item.as_str() {
            Some(text) => out.push_str(text),
            None => out.push_str(&to_str(&item, cap)?),
        }
        Halt::check_text(out.len(), cap)?;
    }
    Ok(out)
}

fn replace(
    text: &str,
    from: &str,
    to: &str,
    count: Option<usize>,
    cap: usize,
) -> Result<String, Error> {
    let count = text.matches(from).count().min(count.unwrap_or(usize::MAX));
    Halt::check_text(
        text.len().saturating_add(count.saturating_mul(to.len())),
        cap,
    )?;
    Ok(text.replacen(from, to, count))
}

/// Jinja's `indent`: the first line and blank lines stay as they are unless asked for.
fn indent(
    text: &str,
    width: Option<usize>,
    first: Option<bool>,
    kwargs: &Kwargs,
    cap: usize,
) -> Result<String, Error> {
    let width = width.or(kwargs.get("width")?).unwrap_or(4);
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = kwargs.get::<Option<bool>>("blank")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let lines = text.split('\n').count();
    Halt::check_text(text.len().saturating_add(lines.saturating_mul(width)), cap)?;
    let indentation = " ".repeat(width);
    let mut out = String::new();
    for (index, line) in text.split('\n').enumerate() {
        out.push_str(if index > 0 { "\n" } else { "" });
        if (index > 0 || first) && (blank || !line.is_empty()) {
            out.push_str(&indentation);
        }
        out.push_str(line);
    }
    Ok(out)
}

/// Which operands a guard lets pass, besides texts.
#[derive(Debug, Clone, Copy)]
enum Operands {
    /// Lists, which `+` joins without writing them.
    Lists,
    /// Anything, which `~` writes as text of at most so many bytes.
    Texts(usize),
}

/// The bytes that went through `+` and `~` in one rendering.
#[derive(Debug, Default)]
struct Joined(usize);

/// Returns the operand, unless it or all of them together are too long.
fn guard(
    state: &mut State<'_, '_>,
    value: Value,
    operands: Operands,
    cap: usize,
) -> Result<Value, Error> {
    let bytes = match (value.kind(), operands) {
        (ValueKind::String, _) => value.as_str().map_or(0, str::len),
        (ValueKind::Seq | ValueKind::Iterable | ValueKind::Map, Operands::Texts(cap)) => {
            to_str(&value, cap)?.len()
        }
        (ValueKind::Seq | ValueKind::Iterable, Operands::Lists) => {
            value.len().unwrap_or_default().saturating_mul(ITEM_BYTES)
        }
        _ => return Ok(value),
    };
    Halt::check_text(bytes, cap)?;
    let joined = state.get_or_insert_extension(Joined::default());
    joined.0 = joined.0.saturating_add(bytes);
    let limit = cap.saturating_mul(JOINED_OUTPUTS);
    if joined.0 > limit {
        return Err(Halt::Limit {
            what: "bytes joined by the chat template",
            limit,
        }
        .into());
    }
    Ok(value)
}

/// Lets everything pass but lists, of which a repetition needs no memory until something asks for
/// all of it. The engine itself bounds repeated texts.
fn guard_repeat(value: Value) -> Result<Value, Error> {
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "lists cannot be repeated",
        ));
    }
    Ok(value)
}

/// Puts the marks of the current rendering, if it has any, around generated text.
fn generation(state: &State<'_, '_>, text: &str) -> String {
    let marks = state.lookup(GENERATION_MARKS);
    let mut marks = marks
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .chars();
    let mut out = String::with_capacity(text.len() + 8);
    out.extend(marks.next());
    out.push_str(text);
    out.extend(marks.next());
    out
}

fn strftime_now(state: &State<'_, '_>, format: &str) -> Result<String, Error> {
    let seconds = state
        .lookup(NOW)
        .and_then(|now| u64::try_from(now).ok())
        .unwrap_or_default();
    strftime(UNIX_EPOCH + Duration::from_secs(seconds), format).map_err(|directive| {
        let detail = format!("strftime_now: {directive} is not known");
        Error::new(ErrorKind::InvalidOperation, detail)
    })
}

fn range(start: i64, stop: Option<i64>, step: Option<i64>) -> Result<Vec<i64>, Error> {
    let (start, stop) = stop.map_or((0, start), |stop| (start, stop));
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "range: the step cannot be zero",
        ));
    }
    let distance = i128::from(stop) - i128::from(start);
    let count = (distance / i128::from(step)).max(0) + 1;
    if count > i128::from(RANGE_ITEMS) + 1 {
        let limit = usize::try_from(RANGE_ITEMS).unwrap_or_default();
        return Err(Halt::Limit {
            what: "items of a range in the chat template",
            limit,
        }
        .into());
    }
    let is_before = |at: &i64| if step > 0 { *at < stop } else { *at > stop };
    Ok(
        std::iter::successors(Some(start), |at| at.checked_add(step))
            .take_while(is_before)
            .collect(),
    )
}
