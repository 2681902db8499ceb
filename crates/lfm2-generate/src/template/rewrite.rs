//! The source of a template as the engine gets it.
//!
//! Two changes, both inside tags and without moving lines:
//!
//! * `{% generation %}` ... `{% endgeneration %}` is a tag of the reference implementation that
//!   the engine does not know. It becomes a filter block in a scope of its own, so that
//!   assignments inside stay inside, as there.
//! * Both operands of `+`, `~` and `*` pass through a guard, a filter that returns its input or
//!   fails. Fuel bounds how many steps a template may take, but forty steps of `x = x ~ x` would
//!   fill any memory.

use super::lexer::{Piece, Tag, TagKind, Token, pieces, tokens};
use super::{Error, Result};

/// The filter around generated text.
pub(super) const GENERATION: &str = "_lfm2_generation";
/// The guard of `+`, for texts and lists.
pub(super) const GUARD_ADD: &str = "_lfm2_add";
/// The guard of `~`, for anything that has a text.
pub(super) const GUARD_CONCAT: &str = "_lfm2_concat";
/// The guard of `*`.
pub(super) const GUARD_REPEAT: &str = "_lfm2_repeat";

/// Words in one tag. The engine walks expressions recursively, so that long chains of operators
/// would exhaust the stack.
const TAG_WORDS: usize = 1024;
/// `elif` tags of one template; the engine nests each in the one before.
const BRANCHES: usize = 256;

/// A template for the engine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) source: String,
    /// Whether there was a `{% generation %}` tag.
    pub(super) marks_generation: bool,
}

/// Rewrites a template.
///
/// # Errors
/// [`Error::Limit`] for tags that are longer or more deeply nested than people write them.
pub(super) fn rewrite(source: &str) -> Result<Rewritten> {
    let mut out = String::with_capacity(source.len() + source.len() / 4);
    let mut marks_generation = false;
    let mut branches = 0_usize;
    for piece in pieces(source) {
        let tag = match piece {
            Piece::Verbatim(text) => {
                out.push_str(text);
                continue;
            }
            Piece::Tag(tag) => tag,
        };
        if tag.kind == TagKind::Statement && tag.body.trim_start().starts_with("elif") {
            branches += 1;
            Error::check_limit("elif tags of the chat template", BRANCHES, branches)?;
        }
        match (tag.kind, tag.body.trim()) {
            (TagKind::Statement, "generation") => {
                marks_generation = true;
                out.extend([tag.open, " with %}{% filter ", GENERATION, " ", tag.close]);
            }
            (TagKind::Statement, "endgeneration") => {
                out.extend([tag.open, " endfilter %}{% endwith ", tag.close]);
            }
            _ => guard(&tag, &mut out)?,
        }
    }
    Ok(Rewritten {
        source: out,
        marks_generation,
    })
}

/// Copies a tag, with guards behind the operands.
fn guard(tag: &Tag<'_>, out: &mut String) -> Result<()> {
    let words: Vec<Token<'_>> = tokens(tag.body).collect();
    let count = words
        .iter()
        .filter(|word| !matches!(word, Token::Blank(_)))
        .count();
    Error::check_limit("words in one tag of the chat template", TAG_WORDS, count)?;
    let mut guards: Vec<(usize, &str)> = Vec::new();
    let mut previous = None;
    for (index, word) in words.iter().enumerate() {
        let guard = match word {
            Token::Blank(_) => continue,
            Token::Operator("+") => Some(GUARD_ADD),
            Token::Operator("~") => Some(GUARD_CONCAT),
            Token::Operator("*") => Some(GUARD_REPEAT),
            _ => None,
        };
        if let (Some(guard), Some(left)) =
            (guard, previous.filter(|left| ends_operand(&words, *left)))
        {
            guards.push((left, guard));
            guards.extend(operand_end(&words, index + 1).map(|right| (right, guard)));
        }
        previous = Some(index);
    }
    guards.sort_unstable();
    guards.dedup();
    let mut guards = guards.into_iter().peekable();
    out.push_str(tag.open);
    for (index, word) in words.iter().enumerate() {
        out.push_str(word.source());
        while let Some((_, guard)) = guards.next_if(|(at, _)| *at == index) {
            // The blank keeps a sign from becoming part of the closing delimiter.
            out.extend(["|", guard, " "]);
        }
    }
    out.push_str(tag.close);
    Ok(())
}

/// Whether an operator after this word has it as the end of its left operand.
fn ends_operand(words: &[Token<'_>], at: usize) -> bool {
    const KEYWORDS: [&str; 9] = ["and", "do", "elif", "else", "if", "in", "is", "not", "or"];
    match words.get(at) {
        Some(Token::Name(name)) => !KEYWORDS.contains(name),
        Some(Token::Number(_) | Token::Text(_) | Token::Close(_)) => true,
        _ => false,
    }
}

/// The last word of the operand that begins at or after `from`: a name, a literal or something in
/// brackets, with the attributes, calls and filters behind it.
fn operand_end(words: &[Token<'_>], from: usize) -> Option<usize> {
    let next = |from: usize| {
        let blanks = words
            .iter()
            .skip(from)
            .take_while(|word| matches!(word, Token::Blank(_)));
        from + blanks.count()
    };
    let mut at = next(from);
    while matches!(
        words.get(at),
        Some(Token::Operator("-" | "+") | Token::Name("not"))
    ) {
        at = next(at + 1);
    }
    let mut end = match words.get(at)? {
        Token::Name(_) | Token::Number(_) | Token::Text(_) => at,
        Token::Open(_) => closing(words, at)?,
        Token::Blank(_) | Token::Close(_) | Token::Operator(_) => return None,
    };
    loop {
        at = next(end + 1);
        end = match words.get(at) {
            Some(Token::Open("(" | "[")) => closing(words, at)?,
            Some(Token::Operator("." | "|")) => {
                let name = next(at + 1);
                match words.get(name)? {
                    Token::Name(_) | Token::Number(_) => name,
                    _ => return None,
                }
            }
            _ => return Some(end),
        };
    }
}

/// The bracket that closes the one at `open`.
fn closing(words: &[Token<'_>], open: usize) -> Option<usize> {
    let mut nesting = 0_usize;
    words.iter().enumerate().skip(open).find_map(|(at, word)| {
        match word {
            Token::Open(_) => nesting += 1,
            Token::Close(_) => nesting = nesting.checked_sub(1)?,
            _ => {}
        }
        (nesting == 0).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(source: &str) -> String {
        rewrite(source).unwrap().source
    }

    #[test]
    fn ct_01_generation_tags_keep_their_whitespace_marks() {
        for (left, right) in [
            ("", ""),
            ("-", "-"),
            ("+", "+"),
            ("-", ""),
            ("", "-"),
            ("+", "-"),
        ] {
            let source =
                format!("a {{%{left} generation {right}%}} b {{%{left}endgeneration{right}%}} c");
            let expected = format!(
                "a {{%{left} with %}}{{% filter {GENERATION} {right}%}} b {{%{left} endfilter %}}{{% endwith {right}%}} c"
            );
            let result = rewrite(&source).unwrap();
            assert!(result.marks_generation);
            assert_eq!(result.source, expected);
        }
    }

    #[test]
    fn ct_01_generation_is_only_a_tag_where_it_is_one() {
        let sources = [
            "{% raw %}{% generation %}{% endgeneration %}{% endraw %}",
            "{# {% generation %} #}",
            "{{ '{% generation %}' }}",
            "{% set x = \"{%- endgeneration -%}\" %}",
            "generation {{ generation }} {% if generation %}{% endif %}",
        ];
        for source in sources {
            assert_eq!(
                rewrite(source).unwrap(),
                Rewritten {
                    source: source.into(),
                    marks_generation: false
                }
            );
        }
    }

    #[test]
    fn operands_are_guarded() {
        let cases = [
            ("{{ a + b ~ c }}", "{{ a|A  + b|A |C  ~ c|C  }}"),
            ("{{ (a) + x[1:].y(2) }}", "{{ (a)|A  + x[1:].y(2)|A  }}"),
            (
                "{%- set n.s = n.s+f(x)|g -%}",
                "{%- set n.s = n.s|A +f(x)|g|A  -%}",
            ),
            ("{{ 'x' * 9 }}", "{{ 'x'|R  * 9|R  }}"),
            ("{{ a if b else c ~ -d }}", "{{ a if b else c|C  ~ -d|C  }}"),
        ];
        let names = [
            ("|A", GUARD_ADD),
            ("|C", GUARD_CONCAT),
            ("|R", GUARD_REPEAT),
        ];
        for (source, expected) in cases {
            let expected = names
                .iter()
                .fold(expected.to_owned(), |text, (short, name)| {
                    text.replace(short, &format!("|{name}"))
                });
            assert_eq!(rewritten(source), expected);
        }
    }

    #[test]
    fn signs_powers_and_strings_are_left_alone() {
        for source in [
            "{{ +1 }}",
            "{{ f(*a, **b) }}",
            "{{ 2 ** 3 }}",
            "{{ 'a + b' }}",
            "{% if +x %}",
            "{{+ x +}}",
            "a + b",
        ] {
            assert_eq!(rewritten(source), source);
        }
    }
}
