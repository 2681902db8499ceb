//! Measurements of models: answers of one that repeats, choices of a real one against the plain way.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::cell::RefCell;
use std::io::Write;
use std::path::Path;

use candle_core::{Device, Result, Tensor};
use lfm2_generate::{Cancel, ChatPrompt, ChatTemplate, Message, RenderOptions};
use lfm2_hub::{Bos, SpecialTokens, Tokenizer};
use lfm2_nn::{Cache, CacheLayout, CacheSpec, DType, Decoder, Input, Step, Want, Weights};
use lfm2_text::{TextConfig, TextModel};
use lfm2_train::data::{DataFile, Document, MicroBatch};
use lfm2_train::eval::{
    Answer, AnswerOptions, Answerer, ChoiceOptions, ChoiceReport, ChoiceRow, Frame,
    PerplexityOptions, RecallReport, RecallRow, RowLog, answer, choice, perplexity, read_rows,
};
use lfm2_train::{CHAT_TEMPLATE, EOS, Error, Init, Parameters, batch_loss, train_tokenizer};
use serde_json::json;

/// Repeats the first word of the user, then ends its turn.
struct Parrot {
    vocab: usize,
    /// Position of the word in the prompt.
    word: usize,
}

impl Decoder for Parrot {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn new_cache(&self, spec: CacheSpec) -> Cache {
        Cache::new(
            CacheLayout { layers: vec![] },
            spec,
            DType::F32,
            &Device::Cpu,
        )
    }

    fn forward(&self, input: Input<'_>, step: &Step, _: &mut Cache, _: Want) -> Result<Tensor> {
        let Input::Ids(ids) = input else {
            candle_core::bail!("ids expected")
        };
        let ids = ids.to_vec1::<u32>()?;
        let (mut start, mut logits) = (0, vec![0f32; step.segments().len() * self.vocab]);
        for (row, segment) in logits.chunks_mut(self.vocab).zip(step.segments()) {
            let own = &ids[start..start + segment.len];
            start += segment.len;
            let answer = if segment.len > 1 { own[self.word] } else { EOS };
            row[answer as usize] = 1.0;
        }
        Tensor::from_vec(logits, (step.segments().len(), self.vocab), &Device::Cpu)
    }

    fn rewind(&self, _: &mut Cache, _: usize, _: usize) -> Result<()> {
        Ok(())
    }
}

fn tokenizer() -> Tokenizer {
    let texts = [
        "Fox ran. Fox hid. Owl ran. Owl hid.",
        "Fox\nOwl\nFox\nOwl\nuser\nassistant",
    ];
    train_tokenizer(texts.into_iter().cycle().take(8), 400).unwrap()
}

fn rows() -> Vec<RecallRow> {
    let row = |prompt: &str, answer: &str| RecallRow {
        prompt: prompt.into(),
        answer: answer.into(),
    };
    vec![
        row("Fox ran.", "Fox"),
        row("Owl hid. Who?", "owl"),
        row("Fox hid.", "Owl"),
    ]
}

/// A parrot with its text side.
struct Cage {
    parrot: Parrot,
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

impl Cage {
    fn new() -> Self {
        let (tokenizer, template) = (tokenizer(), ChatTemplate::new(CHAT_TEMPLATE).unwrap());
        let opening = "<|startoftext|><|im_start|>user\n";
        let opening = tokenizer.encode(opening, SpecialTokens::Parse, Bos::Omit);
        let parrot = Parrot {
            vocab: tokenizer.vocab_size(),
            word: opening.unwrap().len(),
        };
        Self {
            parrot,
            tokenizer,
            template,
        }
    }

    fn answerer(&self) -> Answerer<'_> {
        Answerer {
            model: &self.parrot,
            tokenizer: &self.tokenizer,
            template: &self.template,
            stop_ids: &[EOS],
        }
    }

    /// Asks all rows; the new outputs come back with what is in the log.
    fn ask(
        &self,
        batch: usize,
        log: &mut RowLog<Answer<bool>>,
        cancel: &Cancel,
    ) -> lfm2_train::Result<Vec<String>> {
        let options = AnswerOptions::default().with_batch(batch);
        let mut outputs = Vec::new();
        let told = |_: &RecallRow, answer: &Answer<bool>| outputs.push(answer.output.clone());
        answer(&self.answerer(), &rows(), &options, log, cancel, told)?;
        Ok(outputs)
    }
}

#[test]
fn answers_are_counted_and_do_not_depend_on_the_batch() {
    let cage = Cage::new();
    for batch in [1, 2, 16] {
        let mut log = RowLog::in_memory();
        let outputs = cage.ask(batch, &mut log, &Cancel::new()).unwrap();
        assert_eq!(outputs, ["Fox", "Owl", "Fox"], "batch {batch}");
        let report = RecallReport::of(log.rows());
        assert_eq!(report.rows, 3);
        assert!((report.accuracy - 2.0 / 3.0).abs() < 1e-12);
    }
}

#[test]
fn measuring_can_be_cancelled_and_refuses_empty_batches() {
    let (cage, cancel) = (Cage::new(), Cancel::new());
    cancel.cancel();
    let mut log = RowLog::in_memory();
    let cancelled = cage.ask(2, &mut log, &cancel);
    assert!(matches!(cancelled, Err(Error::Cancelled { step: 0 })));
    assert!(cage.ask(0, &mut log, &Cancel::new()).is_err());
}

#[test]
fn a_measurement_that_was_stopped_goes_on_behind_what_is_in_the_log() {
    let (cage, folder) = (Cage::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("log");
    let open = || RowLog::open(&path, &json!({"model": "parrot"})).unwrap();
    let (cancel, options) = (Cancel::new(), AnswerOptions::default().with_batch(1));
    let stop = |_: &RecallRow, _: &Answer<bool>| cancel.cancel();
    let stopped = answer(
        &cage.answerer(),
        &rows(),
        &options,
        &mut open(),
        &cancel,
        stop,
    );
    assert!(matches!(stopped, Err(Error::Cancelled { step: 1 })));
    let mut log = open();
    let rest = cage.ask(2, &mut log, &Cancel::new()).unwrap();
    assert_eq!(rest, ["Owl", "Fox"]);
    let mut whole = RowLog::in_memory();
    cage.ask(2, &mut whole, &Cancel::new()).unwrap();
    assert_eq!(log.rows(), whole.rows());
    assert!(cage.ask(2, &mut open(), &Cancel::new()).unwrap().is_empty());
}

/// A model of random weights with the tokenizer of the parrot.
fn random_model(tokenizer: &Tokenizer) -> TextModel {
    let config = TextConfig::from_json(&json!({
        "model_type": "lfm2", "hidden_size": 16, "num_hidden_layers": 3,
        "layer_types": ["conv", "full_attention", "conv"], "vocab_size": tokenizer.vocab_size(),
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
        "block_auto_adjust_ff_dim": false, "conv_L_cache": 3, "norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "bos_token_id": 1, "eos_token_id": 7, "pad_token_id": 0,
    }))
    .unwrap();
    let init = Init { std: 0.5 };
    let parameters = Parameters::init(config.tensors(), config.layers.len(), init, 3).unwrap();
    let weights = Weights::new(std::sync::Arc::new(parameters), DType::F32, &Device::Cpu);
    TextModel::load(config, &weights).unwrap()
}

fn choices() -> Vec<ChoiceRow> {
    let row = |prompt: &str, choices: &[&str], answer: usize| ChoiceRow {
        prompt: prompt.into(),
        choices: choices.iter().map(|c| (*c).to_owned()).collect(),
        answer,
    };
    vec![
        row("Fox ran. Who ran?", &["Fox", "Owl hid. Fox hid.", "Owl"], 0),
        row("Owl", &[" hid.", " ran."], 1),
        row(
            "Fox ran. Fox hid. Owl ran.",
            &["Fox ran", "Owl", "Owl ran. Fox", "."],
            2,
        ),
    ]
}

/// The log-probability of `tail` behind `head`, in a pass of its own.
fn alone(model: &TextModel, head: &[u32], tail: &[u32]) -> f64 {
    let weights = [vec![0.0; head.len()], vec![1.0; tail.len()]].concat();
    let document = Document::new([head, tail].concat(), weights).unwrap();
    let mut batch = MicroBatch::default();
    batch.push(&document);
    let loss = batch_loss(model, &batch, 1.0).unwrap();
    -f64::from(loss.to_scalar::<f32>().unwrap())
}

#[test]
fn choices_have_the_likelihood_they_have_alone() {
    let cage = Cage::new();
    let model = random_model(&cage.tokenizer);
    let answerer = Answerer {
        model: &model,
        ..cage.answerer()
    };
    let plain = |text: &str| {
        cage.tokenizer
            .encode(text, SpecialTokens::Literal, Bos::Omit)
            .unwrap()
    };
    let special = |text: &str| {
        cage.tokenizer
            .encode(text, SpecialTokens::Parse, Bos::Omit)
            .unwrap()
    };
    for (frame, batch) in [(Frame::Chat, 1), (Frame::Chat, 8), (Frame::Text, 2)] {
        let options = ChoiceOptions::default().with_frame(frame).with_batch(batch);
        let mut log = RowLog::in_memory();
        choice(
            &answerer,
            &choices(),
            &options,
            &mut log,
            &Cancel::new(),
            |_, _| {},
        )
        .unwrap();
        for (row, outcome) in choices().iter().zip(log.rows()) {
            let (head, end) = match frame {
                Frame::Text => (
                    [special("<|startoftext|>"), plain(&row.prompt)].concat(),
                    vec![],
                ),
                Frame::Chat => {
                    let messages = [Message::user(row.prompt.as_str())];
                    let (text, how) = (&cage.tokenizer, RenderOptions::default());
                    let prompt = ChatPrompt::new(text, &cage.template, &messages, &[], &how);
                    (prompt.unwrap().ids().to_vec(), special("<|im_end|>"))
                }
            };
            for (text, score) in row.choices.iter().zip(&outcome.scores) {
                let tail = [plain(text), end.clone()].concat();
                let expected = alone(&model, &head, &tail);
                assert!(
                    (score.log_prob - expected).abs() < 1e-4,
                    "{frame:?} {text}: {score:?} {expected}"
                );
                assert_eq!((score.tokens, score.bytes), (tail.len(), text.len()));
            }
        }
        assert_eq!(ChoiceReport::of(log.rows()).rows, 3);
    }
}

#[test]
fn rows_that_are_no_choice_are_named() {
    let cage = Cage::new();
    let refused = |choices: &[&str], answer: usize| {
        let row = ChoiceRow {
            prompt: "Fox".into(),
            choices: choices.iter().map(|c| (*c).to_owned()).collect(),
            answer,
        };
        let rows = [self::choices()[0].clone(), row];
        let (options, mut log) = (ChoiceOptions::default(), RowLog::in_memory());
        let found = choice(
            &cage.answerer(),
            &rows,
            &options,
            &mut log,
            &Cancel::new(),
            |_, _| {},
        );
        assert!(
            log.rows().is_empty(),
            "nothing is measured before all rows are known to be good"
        );
        found.unwrap_err().to_string()
    };
    assert!(refused(&["a"], 0).starts_with("row 2: expected at least 2 choices"));
    assert!(refused(&["a", "b"], 2).contains("found 2 and 2"));
    assert!(refused(&["a", ""], 0).contains("empty"));
}

#[test]
fn perplexity_goes_on_where_it_was_stopped() {
    let cage = Cage::new();
    let (model, folder) = (random_model(&cage.tokenizer), tempfile::tempdir().unwrap());
    let path = folder.path().join("text");
    std::fs::write(
        &path,
        "Fox ran. Owl hid.\n\nOwl ran.\n\nFox hid. Fox ran. Owl ran.",
    )
    .unwrap();
    let data = DataFile::read(&path).unwrap();
    let mut options = PerplexityOptions::default();
    (options.context, options.batch_tokens) = (16, 16);
    let log = folder.path().join("log");
    let measure = |log: &Path, cancel: &Cancel, stop: bool| {
        let mut log = RowLog::open(log, &json!({})).unwrap();
        let calls = RefCell::new(0);
        let told = |_: usize, _: usize, _: f64| {
            *calls.borrow_mut() += 1;
            if stop {
                cancel.cancel();
            }
        };
        let keep = (&mut log, cancel);
        let report = perplexity(&model, &cage.tokenizer, &data, options, keep, told);
        (report, calls.into_inner())
    };
    let (stopped, calls) = measure(&log, &Cancel::new(), true);
    assert!(matches!(stopped, Err(Error::Cancelled { step: 1 })));
    assert_eq!(calls, 1);
    let (rest, after) = measure(&log, &Cancel::new(), false);
    let (whole, all) = measure(&folder.path().join("other"), &Cancel::new(), false);
    assert_eq!(rest.unwrap(), whole.unwrap());
    assert_eq!(calls + after, all);
}

#[test]
fn rows_are_read_plain_and_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = rows()
        .iter()
        .map(|row| serde_json::to_string(row).unwrap() + "\n")
        .collect();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, &text).unwrap();
    let packed = folder.path().join("packed");
    let mut encoder =
        flate2::write::GzEncoder::new(std::fs::File::create(&packed).unwrap(), Default::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap();
    assert_eq!(read_rows::<RecallRow>(&plain).unwrap(), rows());
    assert_eq!(read_rows::<RecallRow>(&packed).unwrap(), rows());
    std::fs::write(&plain, "\n").unwrap();
    assert!(matches!(
        read_rows::<RecallRow>(&plain),
        Err(Error::EmptyData { .. })
    ));
    std::fs::write(&plain, "{\"prompt\": 1}").unwrap();
    assert!(
        read_rows::<RecallRow>(&plain)
            .unwrap_err()
            .to_string()
            .contains("line 1")
    );
}
