//! A tokenizer of bytes and decoders without weights, for testing everything around a model.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "for tests, each of which uses another part"
)]

pub(crate) mod schedule;

use std::fmt::Write as _;
use std::sync::Mutex;

use candle_core::Result;
use lfm2_generate::Generator;
use lfm2_hub::Tokenizer;
use lfm2_nn::{Cache, CacheLayout, CacheSpec, DType, Decoder, Device, Input, Step, Tensor, Want};

pub(crate) const BOS: u32 = 1;
pub(crate) const END_OF_TEXT: u32 = 2;
pub(crate) const IM_START: u32 = 6;
pub(crate) const IM_END: u32 = 7;
/// Ids of the bytes start here.
pub(crate) const BYTES: u32 = 16;
pub(crate) const VOCAB: usize = 16 + 256;

const SPECIALS: [&str; 16] = [
    "<|pad|>",
    "<|startoftext|>",
    "<|endoftext|>",
    "<|fim_pre|>",
    "<|fim_mid|>",
    "<|fim_suf|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|tool_list_start|>",
    "<|tool_list_end|>",
    "<|tool_call_start|>",
    "<|tool_call_end|>",
    "<|tool_response_start|>",
    "<|tool_response_end|>",
    "<|cot_start|>",
    "<|cot_end|>",
];

/// One token per byte, and the special tokens of the family.
pub(crate) fn byte_tokenizer() -> Tokenizer {
    let mut vocab = String::new();
    let mut added = Vec::new();
    for (id, text) in SPECIALS.iter().enumerate() {
        write!(vocab, "{text:?}: {id}, ").unwrap();
        added.push(format!(
            r#"{{"id": {id}, "content": {text:?}, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}}"#
        ));
    }
    let mut others = 0x100..;
    for byte in 0..=255u8 {
        let code = match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => u32::from(byte),
            _ => others.next().unwrap(),
        };
        let comma = if byte == 255 { "" } else { ", " };
        write!(
            vocab,
            r#""\u{code:04x}": {}{comma}"#,
            BYTES + u32::from(byte)
        )
        .unwrap();
    }
    let json = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{}],
        "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}},
        "post_processor": {{"type": "TemplateProcessing",
            "single": [{{"SpecialToken": {{"id": "<|startoftext|>", "type_id": 0}}}}, {{"Sequence": {{"id": "A", "type_id": 0}}}}],
            "pair": [{{"Sequence": {{"id": "A", "type_id": 0}}}}, {{"Sequence": {{"id": "B", "type_id": 1}}}}],
            "special_tokens": {{"<|startoftext|>": {{"id": "<|startoftext|>", "ids": [1], "tokens": ["<|startoftext|>"]}}}}}},
        "decoder": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}},
        "model": {{"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {{{vocab}}}, "merges": []}}}}"#,
        added.join(", ")
    );
    Tokenizer::from_bytes(json, &Default::default()).unwrap()
}

/// The ids of plain text.
pub(crate) fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(|b| BYTES + u32::from(b)).collect()
}

type NextLogits = Box<dyn Fn(&[u32]) -> Vec<f32> + Send + Sync>;

/// A decoder that is a function from the whole sequence to the next logits, and writes down how it
/// was used. What it knows of a sequence is only what is in the cache.
pub(crate) struct MockDecoder {
    next: NextLogits,
    pub(crate) fed: Mutex<Vec<usize>>,
}

impl MockDecoder {
    pub(crate) fn new(next: impl Fn(&[u32]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        Self {
            next: Box::new(next),
            fed: Mutex::new(Vec::new()),
        }
    }

    /// Continues every sequence whose start it knows: behind `prompt`, writes `answer` and then ends.
    pub(crate) fn writes(prompt: Vec<u32>, answer: Vec<u32>) -> Self {
        Self::new(move |ids| one_hot(*answer.get(ids.len() - prompt.len()).unwrap_or(&IM_END)))
    }

    /// Depends on every token of the sequence; prefers letters and sometimes ends a turn.
    pub(crate) fn chaotic() -> Self {
        Self::new(|ids| {
            let hash = ids.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, id| {
                (h ^ u64::from(*id)).wrapping_mul(0x0100_0000_01b3)
            });
            let choices = b"abcdefghijklmnopqrstuvwxyz      ".map(|b| BYTES + u32::from(b));
            match (hash >> 32) % 40 {
                0 => one_hot(IM_END),
                n => one_hot(choices[n as usize % choices.len()]),
            }
        })
    }

    /// Writes the next of `answers` in every turn of the assistant, and ends it.
    pub(crate) fn talks(answers: Vec<Vec<u32>>) -> Self {
        let opening = [vec![IM_START], bytes("assistant\n")].concat();
        Self::new(move |ids| {
            let turns: Vec<usize> = (0..ids.len())
                .filter(|at| ids[*at..].starts_with(&opening))
                .collect();
            let written = ids.len() - turns.last().unwrap() - opening.len();
            one_hot(*answers[turns.len() - 1].get(written).unwrap_or(&IM_END))
        })
    }

    /// How many tokens were fed since the last call.
    pub(crate) fn take_fed(&self) -> usize {
        std::mem::take(&mut *self.fed.lock().unwrap()).iter().sum()
    }
}

/// Logits that leave no choice.
pub(crate) fn one_hot(id: u32) -> Vec<f32> {
    let mut logits = vec![-10.0; VOCAB];
    logits[id as usize] = 10.0;
    logits
}

impl Decoder for MockDecoder {
    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn new_cache(&self, spec: CacheSpec) -> Cache {
        Cache::new(
            CacheLayout { layers: Vec::new() },
            spec,
            DType::F32,
            &Device::Cpu,
        )
    }

    fn forward(
        &self,
        input: Input<'_>,
        step: &Step,
        cache: &mut Cache,
        want: Want,
    ) -> Result<Tensor> {
        let Input::Ids(ids) = input else {
            candle_core::bail!("ids only")
        };
        let ids = ids.to_vec1::<u32>()?;
        let mut start = 0;
        let mut logits = Vec::new();
        for segment in step.segments() {
            let before = cache.len(segment.row);
            cache.record_ids(segment.row, &ids[start..start + segment.len])?;
            start += segment.len;
            self.fed.lock().unwrap().push(segment.len);
            let sequence: Vec<u32> = cache.fed_ids(segment.row).into_iter().flatten().collect();
            let ends = match want {
                Want::AllLogits => before + 1..=sequence.len(),
                Want::LastLogits => sequence.len()..=sequence.len(),
                Want::Hidden => continue,
            };
            for end in ends {
                logits.extend((self.next)(&sequence[..end]));
            }
        }
        match want {
            Want::LastLogits => {
                Tensor::from_vec(logits, (step.segments().len(), VOCAB), &Device::Cpu)
            }
            Want::AllLogits => Tensor::from_vec(logits, (ids.len(), VOCAB), &Device::Cpu),
            Want::Hidden => Tensor::zeros((ids.len(), 1), DType::F32, &Device::Cpu),
        }
    }

    fn rewind(&self, cache: &mut Cache, row: usize, len: usize) -> Result<()> {
        cache.cut(row, len).map(drop)
    }
}

/// A generator that stops at the end of a turn and of the text.
pub(crate) fn generator(decoder: MockDecoder) -> (Generator, std::sync::Arc<MockDecoder>) {
    let decoder = std::sync::Arc::new(decoder);
    let generator =
        Generator::new(decoder.clone(), byte_tokenizer()).with_stop_ids(vec![IM_END, END_OF_TEXT]);
    (generator, decoder)
}
