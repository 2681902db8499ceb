//! [`Limits`]: how much a model file may ask for.

/// Upper bounds that every reader of this crate checks before it allocates or loops.
///
/// The defaults are far above any published model. Lower them for files of strangers, raise them
/// for a model that needs it; going over one is [`Error::Limit`](crate::Error::Limit), which names
/// the limit and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a safetensors header.
    pub safetensors_header_bytes: u64,
    /// Tensors in one checkpoint.
    pub tensors: usize,
    /// Safetensors files of one checkpoint.
    pub shards: usize,
    /// Bytes of a JSON config file.
    pub json_bytes: u64,
    /// Bytes of the index of a sharded checkpoint.
    pub index_bytes: u64,
    /// Nesting of a JSON file.
    pub json_depth: usize,
    /// Bytes of `tokenizer.json`.
    pub tokenizer_bytes: u64,
    /// Bytes of text that one call may tokenise.
    pub encode_bytes: usize,
    /// Bytes of a chat template.
    pub chat_template_bytes: u64,
    /// Bytes of one GGUF string value.
    pub gguf_string_bytes: u64,
    /// Bytes of one GGUF key or tensor name.
    pub gguf_key_bytes: u64,
    /// Metadata entries of a GGUF file.
    pub gguf_entries: u64,
    /// Elements of one GGUF array.
    pub gguf_array_elements: u64,
    /// How deep GGUF arrays may nest.
    pub gguf_nesting: usize,
    /// Dimensions of a GGUF tensor.
    pub gguf_dimensions: u32,
    /// Entries of a vocabulary.
    pub vocabulary: usize,
    /// Width of a model, and of anything in it that is given as one number.
    pub hidden_size: usize,
    /// Layers of a model.
    pub layers: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Experts of a layer.
    pub experts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            safetensors_header_bytes: 100_000_000,
            tensors: 100_000,
            shards: 1_000,
            json_bytes: 4 << 20,
            index_bytes: 64 << 20,
            json_depth: 64,
            tokenizer_bytes: 64 << 20,
            encode_bytes: 1 << 20,
            chat_template_bytes: 256 << 10,
            gguf_string_bytes: 16 << 20,
            gguf_key_bytes: 64 << 10,
            gguf_entries: 65_536,
            gguf_array_elements: 4 << 20,
            gguf_nesting: 4,
            gguf_dimensions: 4,
            vocabulary: 1 << 20,
            hidden_size: 65_536,
            layers: 1_024,
            heads: 1_024,
            experts: 1_024,
        }
    }
}
