//! Builds GGUF files byte by byte, valid ones and ones with any fault a test asks for.

#![allow(dead_code)] // Each test binary uses its part.

use lfm2_hub::gguf::GgufFile;
use lfm2_hub::{Limits, Result};

/// A metadata value: the number of its type, and its bytes.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) kind: u32,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn u8(value: u8) -> Raw {
    Raw {
        kind: 0,
        bytes: vec![value],
    }
}

pub(crate) fn u32(value: u32) -> Raw {
    Raw {
        kind: 4,
        bytes: value.to_le_bytes().to_vec(),
    }
}

pub(crate) fn i32(value: i32) -> Raw {
    Raw {
        kind: 5,
        bytes: value.to_le_bytes().to_vec(),
    }
}

pub(crate) fn u64(value: u64) -> Raw {
    Raw {
        kind: 10,
        bytes: value.to_le_bytes().to_vec(),
    }
}

pub(crate) fn f32(value: f32) -> Raw {
    Raw {
        kind: 6,
        bytes: value.to_le_bytes().to_vec(),
    }
}

pub(crate) fn bool(value: bool) -> Raw {
    Raw {
        kind: 7,
        bytes: vec![u8::from(value)],
    }
}

pub(crate) fn string(text: &str) -> Raw {
    Raw {
        kind: 8,
        bytes: string_bytes(text),
    }
}

/// An array; all items have to be of the type of the first.
pub(crate) fn array(items: &[Raw]) -> Raw {
    let kind = items.first().map_or(4, |item| item.kind);
    array_claiming(kind, items.len() as u64, items)
}

/// An array that says it has `count` elements of type `kind`, whatever the items are.
pub(crate) fn array_claiming(kind: u32, count: u64, items: &[Raw]) -> Raw {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(count.to_le_bytes());
    items.iter().for_each(|item| bytes.extend(&item.bytes));
    Raw { kind: 9, bytes }
}

pub(crate) fn strings(texts: &[&str]) -> Raw {
    array(&texts.iter().map(|text| string(text)).collect::<Vec<_>>())
}

pub(crate) fn ints(values: &[i32]) -> Raw {
    array(&values.iter().map(|value| i32(*value)).collect::<Vec<_>>())
}

fn string_bytes(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// A tensor as the file describes it.
#[derive(Clone)]
pub(crate) struct RawTensor {
    pub(crate) name: String,
    /// Innermost first, as in the file.
    pub(crate) dims: Vec<u64>,
    pub(crate) kind: u32,
    /// From the start of the data; `None` puts it after the tensor before.
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

/// A whole file.
#[derive(Clone)]
pub(crate) struct Gguf {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) entries: Vec<(String, Raw)>,
    pub(crate) tensors: Vec<RawTensor>,
    pub(crate) alignment: usize,
    /// Claims other counts than there are.
    pub(crate) tensor_count: Option<u64>,
    pub(crate) entry_count: Option<u64>,
}

/// The vocabulary of the tiny model.
pub(crate) const TOKENS: [&str; 8] = ["<pad>", "<bos>", "<eos>", "a", "b", "ab", "Ġ", "[PAD7]"];

impl Gguf {
    /// A valid model of two layers, with weights of one in `F32` and one matrix in `Q8_0`.
    pub(crate) fn tiny() -> Self {
        let mut file = Self {
            magic: *b"GGUF",
            version: 3,
            entries: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            tensor_count: None,
            entry_count: None,
        };
        file.set("general.architecture", string("lfm2"));
        for (key, value) in [
            ("block_count", 2),
            ("context_length", 64),
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("attention.head_count", 2),
            ("vocab_size", 8),
            ("shortconv.l_cache", 3),
        ] {
            file.set(&format!("lfm2.{key}"), u32(value));
        }
        file.set("lfm2.attention.head_count_kv", ints(&[0, 1]));
        file.set("lfm2.attention.layer_norm_rms_epsilon", f32(1e-5));
        file.set("lfm2.rope.freq_base", f32(1e6));
        file.set("tokenizer.ggml.model", string("gpt2"));
        file.set("tokenizer.ggml.pre", string("lfm2"));
        file.set("tokenizer.ggml.tokens", strings(&TOKENS));
        file.set("tokenizer.ggml.token_type", ints(&[3, 3, 3, 1, 1, 1, 1, 5]));
        file.set("tokenizer.ggml.merges", strings(&["a b"]));
        file.set("tokenizer.ggml.bos_token_id", u32(1));
        file.set("tokenizer.ggml.eos_token_id", u32(2));
        file.set("tokenizer.ggml.padding_token_id", u32(0));
        file.set("tokenizer.ggml.add_bos_token", bool(true));
        file.set("tokenizer.chat_template", string("{{ messages }}"));
        file.add_layers();
        file
    }

    fn add_layers(&mut self) {
        self.dense("token_embd.weight", &[32, 8]);
        self.dense("token_embd_norm.weight", &[32]);
        for layer in 0..2 {
            let name = |suffix: &str| format!("blk.{layer}.{suffix}.weight");
            self.dense(&name("attn_norm"), &[32]);
            self.dense(&name("ffn_norm"), &[32]);
            if layer == 0 {
                self.dense(&name("shortconv.conv"), &[3, 32]);
                self.dense(&name("shortconv.in_proj"), &[32, 96]);
                self.dense(&name("shortconv.out_proj"), &[32, 32]);
            } else {
                self.dense(&name("attn_q"), &[32, 32]);
                self.dense(&name("attn_k"), &[32, 16]);
                self.dense(&name("attn_v"), &[32, 16]);
                self.dense(&name("attn_output"), &[32, 32]);
                self.dense(&name("attn_q_norm"), &[16]);
                self.dense(&name("attn_k_norm"), &[16]);
            }
            self.dense(&name("ffn_gate"), &[32, 64]);
            self.dense(&name("ffn_up"), &[32, 64]);
            self.quantized(&name("ffn_down"), &[64, 32]);
        }
    }

    fn dense(&mut self, name: &str, dims: &[u64]) {
        let count = dims.iter().product::<u64>() as usize;
        self.add(name, dims, 0, 1f32.to_le_bytes().repeat(count));
    }

    fn quantized(&mut self, name: &str, dims: &[u64]) {
        let blocks = dims.iter().product::<u64>() as usize / 32;
        // A scale of one, then 32 weights of one.
        let block = [&[0x00, 0x3C][..], &[1; 32]].concat();
        self.add(name, dims, 8, block.repeat(blocks));
    }

    pub(crate) fn add(&mut self, name: &str, dims: &[u64], kind: u32, data: Vec<u8>) {
        let (name, dims) = (name.to_owned(), dims.to_vec());
        self.tensors.push(RawTensor {
            name,
            dims,
            kind,
            offset: None,
            data,
        });
    }

    /// Sets a metadata value, in place when the key is there.
    pub(crate) fn set(&mut self, key: &str, value: Raw) {
        match self.entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.entries.retain(|(name, _)| name != key);
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut RawTensor {
        self.tensors
            .iter_mut()
            .find(|tensor| tensor.name == name)
            .expect("no such tensor")
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        out.extend(
            self.entry_count
                .unwrap_or(self.entries.len() as u64)
                .to_le_bytes(),
        );
        for (key, value) in &self.entries {
            out.extend(string_bytes(key));
            out.extend(value.kind.to_le_bytes());
            out.extend(&value.bytes);
        }
        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            out.extend(string_bytes(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor
                .dims
                .iter()
                .for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(self.alignment), 0);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }

    pub(crate) fn open(&self) -> Result<GgufFile> {
        open(self.build())
    }
}

/// Opens bytes as a model.
pub(crate) fn open(bytes: Vec<u8>) -> Result<GgufFile> {
    GgufFile::from_bytes("model.gguf", bytes, &Limits::default())
}
