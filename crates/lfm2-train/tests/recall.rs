//! The recall measurement with a model that knows the answers.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::Write;

use candle_core::{Device, Result, Tensor};
use lfm2_generate::{Cancel, ChatTemplate};
use lfm2_hub::{Bos, SpecialTokens, Tokenizer};
use lfm2_nn::{Cache, CacheLayout, CacheSpec, DType, Decoder, Input, Step, Want};
use lfm2_train::{
    Answerer, CHAT_TEMPLATE, EOS, Error, RecallOptions, RecallRow, read_recall, recall,
    train_tokenizer,
};

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

fn measure(
    batch: usize,
    cancel: &Cancel,
) -> lfm2_train::Result<(lfm2_train::RecallReport, Vec<String>)> {
    let (tokenizer, template) = (tokenizer(), ChatTemplate::new(CHAT_TEMPLATE).unwrap());
    let opening = tokenizer
        .encode(
            "<|startoftext|><|im_start|>user\n",
            SpecialTokens::Parse,
            Bos::Omit,
        )
        .unwrap();
    let model = Parrot {
        vocab: tokenizer.vocab_size(),
        word: opening.len(),
    };
    let answerer = Answerer {
        model: &model,
        tokenizer: &tokenizer,
        template: &template,
        stop_ids: &[EOS],
    };
    let mut options = RecallOptions::default();
    options.batch = batch;
    let mut outputs = Vec::new();
    let report = recall(&answerer, &rows(), &options, cancel, |outcome| {
        outputs.push(outcome.output.to_string());
    })?;
    Ok((report, outputs))
}

#[test]
fn answers_are_counted_and_do_not_depend_on_the_batch() {
    for batch in [1, 2, 16] {
        let (report, outputs) = measure(batch, &Cancel::new()).unwrap();
        assert_eq!(outputs, ["Fox", "Owl", "Fox"], "batch {batch}");
        assert_eq!(report.rows, 3);
        assert!((report.accuracy - 2.0 / 3.0).abs() < 1e-12);
    }
}

#[test]
fn measuring_can_be_cancelled_and_refuses_empty_batches() {
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(matches!(measure(2, &cancel), Err(Error::Cancelled { .. })));
    assert!(measure(0, &Cancel::new()).is_err());
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
    assert_eq!(read_recall(&plain).unwrap(), rows());
    assert_eq!(read_recall(&packed).unwrap(), rows());
    std::fs::write(&plain, "\n").unwrap();
    assert!(matches!(read_recall(&plain), Err(Error::EmptyData { .. })));
    std::fs::write(&plain, "{\"prompt\": 1}").unwrap();
    assert!(
        read_recall(&plain)
            .unwrap_err()
            .to_string()
            .contains("line 1")
    );
}
