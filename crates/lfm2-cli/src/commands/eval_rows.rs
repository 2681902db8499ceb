//! `lfm2 eval recall`, `choice`, `gsm8k` and `ifeval`: tests that consist of rows.

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use indicatif::ProgressBar;
use lfm2::TextModel;
use lfm2::hub::Checkpoint;
use lfm2_train::data::DataFile;
use lfm2_train::eval::{
    self, Answer, AnswerOptions, Answerer, ChoiceOptions, ChoiceReport, Frame, NumberReport,
    NumberRow, Question, RecallReport, RecallRow, RowLog, RuleReport, RuleRow, RuleScore,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::args::{
    ChoiceArgs, ChoiceFrame, DeviceArgs, Gsm8kArgs, IfevalArgs, ModelArgs, RecallArgs, RowArgs,
};
use crate::exit::Stopped;
use crate::ui::interrupt::Interrupt;
use crate::ui::{format, json_line, open, progress, screen};

/// How long files that were just written are waited for, until nobody can be changing them.
const SETTLING: Duration = Duration::from_secs(3);

/// What outcomes of one model can be told by from those of others.
pub(crate) struct Identity(Value);

impl Identity {
    pub(crate) fn of(checkpoint: &Checkpoint, device: &DeviceArgs) -> Result<Self> {
        let dtype = device.dtype.map(|dtype| format!("{:?}", dtype.dtype()));
        Ok(Self(json!({
            "origin": checkpoint.origin(),
            "weights": settled(&*checkpoint.tensors())?,
            "quantize": device.quantize.map(|kind| kind.to_string()),
            "dtype": dtype,
            "exact": device.exact,
        })))
    }

    /// The log of a test, in memory where no file is asked for.
    pub(crate) fn log<T: Serialize + DeserializeOwned>(
        &self,
        keep: Option<&Path>,
        test: &str,
        data_sha256: &str,
        settings: Value,
    ) -> Result<RowLog<T>> {
        let Some(path) = keep else {
            return Ok(RowLog::in_memory());
        };
        let mut measured = json!({"test": test, "data_sha256": data_sha256, "model": self.0});
        measured["settings"] = settings;
        Ok(RowLog::open(path, &measured)?)
    }
}

/// A text model that is measured.
pub(crate) struct Measured {
    pub(crate) model: TextModel,
    pub(crate) identity: Identity,
}

impl Measured {
    pub(crate) fn open(args: &ModelArgs) -> Result<Self> {
        let checkpoint = open::checkpoint(args)?;
        let model = TextModel::from_checkpoint(&checkpoint, &open::load(args.device)?)?;
        let identity = Identity::of(&checkpoint, &args.device)?;
        Ok(Self { model, identity })
    }

    fn answerer(&self) -> Result<Answerer<'_>> {
        Ok(Answerer {
            model: self.model.network(),
            tokenizer: self.model.tokenizer(),
            template: self.model.template()?,
            stop_ids: self.model.generator().stop_ids(),
        })
    }
}

/// What stands for the weights; nothing for those inside the program.
fn settled(tensors: &dyn lfm2::hub::TensorSource) -> Result<Option<String>> {
    let Some(fingerprint) = tensors.fingerprint()? else {
        return Ok(None);
    };
    let begun = Instant::now();
    loop {
        let id = fingerprint.settled_id();
        if id.is_some() || begun.elapsed() > SETTLING {
            return Ok(id);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

pub(crate) fn recall(args: &RecallArgs) -> Result<()> {
    let data = DataFile::read(&args.data)?;
    let rows: Vec<RecallRow> = eval::rows_of(&data)?;
    let test = Written {
        name: "recall",
        sha256: data.sha256(),
        max_new_tokens: args.max_new_tokens.into(),
        is_right: |right: &bool| *right,
    };
    let show = |row: &RecallRow| format!("{:?}", row.answer);
    test.run(&args.rows, &rows, show, |_, answers| {
        let report = RecallReport::of(answers);
        let text = right_of(report.accuracy, report.rows);
        (report, text)
    })
}

pub(crate) fn gsm8k(args: &Gsm8kArgs) -> Result<()> {
    let data = DataFile::read(&args.data)?;
    let rows: Vec<NumberRow> = eval::rows_of(&data)?;
    let test = Written {
        name: "gsm8k",
        sha256: data.sha256(),
        max_new_tokens: args.max_new_tokens.into(),
        is_right: |verdict: &eval::NumberVerdict| verdict.right,
    };
    let show = |row: &NumberRow| eval::last_number(&row.answer).unwrap_or_default();
    test.run(&args.rows, &rows, show, |_, answers| {
        let report = NumberReport::of(answers);
        let silent = report.without_number;
        let text = right_of(report.accuracy, report.rows) + &format!(", {silent} without a number");
        (report, text)
    })
}

pub(crate) fn ifeval(args: &IfevalArgs) -> Result<()> {
    let (rows, sha256) = match &args.data {
        Some(path) => {
            let data = DataFile::read(path)?;
            (eval::rows_of(&data)?, data.sha256().to_owned())
        }
        None => (RuleRow::built_in()?, "built in".to_owned()),
    };
    let test = Written {
        name: "ifeval",
        sha256: &sha256,
        max_new_tokens: args.max_new_tokens.into(),
        is_right: |verdict: &eval::RuleVerdict| verdict.strict.iter().all(|kept| *kept),
    };
    let show = |row: &RuleRow| format!("{:?}", row.rules);
    test.run(&args.rows, &rows, show, |rows, answers| {
        let report = RuleReport::of(rows, answers);
        let text = rules_table(&report);
        (report, text)
    })
}

/// A test that is answered in words.
struct Written<'a, V> {
    name: &'a str,
    sha256: &'a str,
    max_new_tokens: usize,
    is_right: fn(&V) -> bool,
}

impl<V> Written<'_, V> {
    /// Asks all rows, and prints what `report` makes of the answers. `expected` shows people what a right
    /// answer is.
    fn run<Q, R>(
        &self,
        args: &RowArgs,
        rows: &[Q],
        expected: impl Fn(&Q) -> String,
        report: impl FnOnce(&[Q], &[Answer<V>]) -> (R, String),
    ) -> Result<()>
    where
        Q: Question<Verdict = V>,
        V: Serialize + DeserializeOwned + Debug,
        R: Serialize,
    {
        let rows = limited(rows, args);
        let interrupt = Interrupt::install()?;
        let measured = Measured::open(&args.model)?;
        let settings = json!({"max_new_tokens": self.max_new_tokens});
        let mut log: RowLog<Answer<V>> =
            measured
                .identity
                .log(args.keep.as_deref(), self.name, self.sha256, settings)?;
        let options = AnswerOptions::default()
            .with_max_new_tokens(self.max_new_tokens)
            .with_batch(args.batch.into());
        let mut count = Count::new(
            rows.len(),
            log.rows().iter().map(|a| (self.is_right)(&a.verdict)),
        );
        let told = |row: &Q, answer: &Answer<V>| {
            let right = (self.is_right)(&answer.verdict);
            count.add(right);
            if args.verbose && !right {
                let (expected, output) = (expected(row), &answer.output);
                count.line(&format!("expected {expected}, found {output:?}"));
            }
        };
        let answerer = measured.answerer()?;
        eval::answer(
            &answerer,
            rows,
            &options,
            &mut log,
            &interrupt.watch(),
            told,
        )
        .map_err(|error| stopped(error, args.keep.as_deref()))?;
        count.bar.finish_and_clear();
        let answers = log.rows();
        let (report, text) = report(rows, answers.get(..rows.len()).unwrap_or(answers));
        print(args, &report, &text)
    }
}

pub(crate) fn choice(args: &ChoiceArgs) -> Result<()> {
    let data = DataFile::read(&args.data)?;
    let rows = eval::rows_of(&data)?;
    let rows: &[eval::ChoiceRow] = limited(&rows, &args.rows);
    let interrupt = Interrupt::install()?;
    let measured = Measured::open(&args.rows.model)?;
    let frame = match args.frame {
        ChoiceFrame::Chat => Frame::Chat,
        ChoiceFrame::Text => Frame::Text,
    };
    let (keep, settings) = (args.rows.keep.as_deref(), json!({"frame": frame}));
    let mut log = measured
        .identity
        .log(keep, "choice", data.sha256(), settings)?;
    let options = ChoiceOptions::default()
        .with_frame(frame)
        .with_batch(args.rows.batch.into());
    let is_right = |outcome: &eval::ChoiceOutcome| outcome.is_right(eval::ChoiceScore::per_token);
    let mut count = Count::new(rows.len(), log.rows().iter().map(is_right));
    let told = |row: &eval::ChoiceRow, outcome: &eval::ChoiceOutcome| {
        let right = is_right(outcome);
        count.add(right);
        if args.rows.verbose && !right {
            let expected = row.choices.get(row.answer);
            count.line(&format!(
                "{:?}: expected {expected:?}, found {:?}",
                row.prompt, outcome.scores
            ));
        }
    };
    let answerer = measured.answerer()?;
    eval::choice(
        &answerer,
        rows,
        &options,
        &mut log,
        &interrupt.watch(),
        told,
    )
    .map_err(|error| stopped(error, keep))?;
    count.bar.finish_and_clear();
    let outcomes = log.rows();
    let report = ChoiceReport::of(outcomes.get(..rows.len()).unwrap_or(outcomes));
    print(&args.rows, &report, &choice_table(&report))
}

fn limited<'a, R>(rows: &'a [R], args: &RowArgs) -> &'a [R] {
    let limit = args.limit.map_or(usize::MAX, usize::from);
    rows.get(..limit).unwrap_or(rows)
}

fn print(args: &RowArgs, report: &impl Serialize, text: &str) -> Result<()> {
    match args.json {
        true => json_line(report),
        false => Ok(screen::print(&format!("{}\n", text.trim_end()))?),
    }
}

/// Says how to go on when Ctrl-C was pressed.
pub(crate) fn stopped(error: lfm2_train::Error, keep: Option<&Path>) -> Error {
    let lfm2_train::Error::Cancelled { step } = error else {
        return error.into();
    };
    match keep {
        Some(_) => eprintln!("stopped after {step}; the same command goes on from there"),
        None => eprintln!("stopped after {step}; with --keep FILE the same command could go on"),
    }
    Stopped.into()
}

/// A bar over rows with the share that is right.
struct Count {
    bar: ProgressBar,
    done: usize,
    right: usize,
}

impl Count {
    /// Begins behind the outcomes that are there already.
    fn new(rows: usize, there: impl Iterator<Item = bool>) -> Self {
        let mut count = Self {
            bar: progress::bar(rows as u64, "rows"),
            done: 0,
            right: 0,
        };
        there.for_each(|right| count.add(right));
        count.bar.reset_eta();
        count
    }

    fn add(&mut self, right: bool) {
        self.done += 1;
        self.right += usize::from(right);
        let share = percent(self.right as f64 / self.done as f64);
        self.bar.set_position(self.done as u64);
        self.bar.set_message(format!("{share} right"));
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{}", screen::visible(text)));
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn right_of(accuracy: f64, rows: usize) -> String {
    let right = (accuracy * rows as f64).round();
    format!("{right} of {rows} rows right: {}", percent(accuracy))
}

fn choice_table(report: &ChoiceReport) -> String {
    let line = |name: &str, share: f64| vec![name.to_owned(), percent(share)];
    let rows = format::count(report.rows as u64);
    format::table(&[
        vec![format!("{rows} rows, likeliest"), "right".to_owned()],
        line("as a whole", report.by_sum),
        line("per token", report.by_token),
        line("per byte", report.by_byte),
        line("by chance", report.by_chance),
    ])
}

fn rules_table(report: &RuleReport) -> String {
    let line = |name: &str, score: &RuleScore| {
        vec![
            name.to_owned(),
            score.count.to_string(),
            percent(score.strict),
            percent(score.loose),
        ]
    };
    let mut rows = vec![
        ["kept", "of", "strictly", "loosely"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.push(line("prompts with all rules", &report.prompts));
    rows.push(line("rules", &report.rules));
    rows.extend(
        report
            .kinds
            .iter()
            .map(|(name, score)| line(&format!("  {name}"), score)),
    );
    format::table(&rows)
}
