//! Bad GGUF files, one test per row of the table of bad inputs.

mod gguf_support;

use candle_core::{DType, Device};
use gguf_support::{
    Gguf, TOKENS, array, array_claiming, bool, f32, i32, ints, open, string, strings, u8, u32, u64,
};
use lfm2_hub::gguf::GgufFile;
use lfm2_hub::{Error, ErrorKind, Limits, Mapping};

/// The error of opening `file`, or of building its tokenizer.
#[track_caller]
fn rejected(file: &Gguf) -> Error {
    rejected_bytes(file.build())
}

#[track_caller]
fn rejected_bytes(bytes: Vec<u8>) -> Error {
    open(bytes)
        .and_then(|file| file.tokenizer())
        .expect_err("the file was accepted")
}

/// Asserts kind and words of the error for a tiny model with one change.
#[track_caller]
fn refuse(change: impl FnOnce(&mut Gguf), kind: ErrorKind, words: &[&str]) {
    let mut file = Gguf::tiny();
    change(&mut file);
    let error = rejected(&file);
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[track_caller]
fn refuse_key(key: &str, value: gguf_support::Raw, words: &[&str]) {
    refuse(|file| file.set(key, value), ErrorKind::InvalidModel, words);
}

#[test]
fn the_tiny_model_is_valid() {
    let file = Gguf::tiny().open().unwrap();
    assert!(file.tokenizer().is_ok());
    assert_eq!(
        file.config()["layer_types"],
        serde_json::json!(["conv", "full_attention"])
    );
}

#[test]
fn gg_01_magic_and_version() {
    refuse(
        |file| file.magic = *b"GGML",
        ErrorKind::InvalidModel,
        &["not a GGUF file"],
    );
    for version in [0, 1, 4] {
        let text = version.to_string();
        refuse(
            |file| file.version = version,
            ErrorKind::Unsupported,
            &["version", &text],
        );
    }
    refuse(
        |file| file.version = 3 << 24,
        ErrorKind::Unsupported,
        &["big-endian"],
    );
    refuse(
        |file| file.magic = *b"FUGG",
        ErrorKind::Unsupported,
        &["big-endian"],
    );
    let mut file = Gguf::tiny();
    file.version = 2;
    assert_eq!(file.open().unwrap().version(), 2);
}

#[test]
fn gg_01_short_files() {
    let whole = Gguf::tiny().build();
    for length in 0..24 {
        let error = rejected_bytes(whole[..length].to_vec());
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        let is_foreign = error.to_string().contains("not a GGUF file");
        assert_eq!(is_foreign, length < 4, "{error}");
    }
    let text = rejected_bytes(b"hello\n".to_vec());
    assert!(text.to_string().contains("not a GGUF file"), "{text}");
}

#[test]
fn gg_02_counts_larger_than_the_file() {
    for count in [1 << 63, u64::MAX, 1 << 20] {
        refuse(
            |f| f.tensor_count = Some(count),
            ErrorKind::InvalidModel,
            &["tensors", "do not fit"],
        );
        refuse(
            |f| f.entry_count = Some(count),
            ErrorKind::InvalidModel,
            &["metadata", "do not fit"],
        );
    }
}

#[test]
fn gg_02_counts_over_the_limit() {
    let mut limits = Limits::default();
    limits.gguf_entries = 5;
    let error = GgufFile::from_bytes("model.gguf", Gguf::tiny().build(), &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    let mut limits = Limits::default();
    limits.tensors = 5;
    let error = GgufFile::from_bytes("model.gguf", Gguf::tiny().build(), &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
}

#[test]
fn gg_03_alignment_zero() {
    refuse_key(
        "general.alignment",
        u32(0),
        &["general.alignment", "power of two"],
    );
}

#[test]
fn gg_03_alignment_odd_huge_or_of_another_type() {
    for value in [u32(3), u32(1 << 30), u64(1 << 40)] {
        refuse_key(
            "general.alignment",
            value,
            &["general.alignment", "power of two"],
        );
    }
    for value in [i32(-32), string("32")] {
        refuse_key(
            "general.alignment",
            value,
            &["general.alignment", "expected U32"],
        );
    }
}

#[test]
fn gg_03_alignment_as_u64_is_read() {
    let mut file = Gguf::tiny();
    file.set("general.alignment", u64(32));
    assert!(file.open().is_ok());
}

#[test]
fn gg_03_data_aligned_to_one_byte_is_read() {
    // Each length puts the data at another address.
    for padding in ["", "x", "xx", "xxx"] {
        let mut file = Gguf::tiny();
        file.set("general.alignment", u32(1));
        file.alignment = 1;
        file.set("padding", string(padding));
        let tensors = file.open().unwrap().tensors();
        for name in tensors.names() {
            let tensor = tensors.dense(&name, DType::F32, &Device::Cpu).unwrap();
            assert_eq!(
                tensor.min_all().unwrap().to_scalar::<f32>().unwrap(),
                1.0,
                "{name}"
            );
            let _ = tensors.quantized(&name, &Device::Cpu).unwrap();
        }
    }
}

#[test]
fn gg_04_dimensions() {
    let name = "blk.0.ffn_up.weight";
    for dims in [
        vec![1 << 42, 1 << 42],
        vec![u64::MAX],
        vec![1 << 31, 1 << 31, 1 << 31],
    ] {
        refuse(
            |f| f.tensor(name).dims = dims,
            ErrorKind::InvalidModel,
            &[name],
        );
    }
    for dims in [vec![0], vec![32, 0], vec![], vec![1; 5]] {
        refuse(
            |f| f.tensor(name).dims = dims,
            ErrorKind::InvalidModel,
            &[name, "dimension"],
        );
    }
}

#[test]
fn gg_04_rows_that_are_no_whole_blocks() {
    let name = "blk.0.ffn_down.weight";
    refuse(
        |f| f.tensor(name).dims = vec![16, 128],
        ErrorKind::InvalidModel,
        &[name, "Q8_0", "16"],
    );
}

#[test]
fn gg_05_offsets() {
    let name = "blk.0.ffn_down.weight";
    refuse(
        |f| f.tensor(name).offset = Some(7),
        ErrorKind::InvalidModel,
        &[name, "aligned"],
    );
    refuse(
        |f| f.tensor(name).offset = Some(0),
        ErrorKind::InvalidModel,
        &[name, "overlap"],
    );
    for offset in [1 << 30, u64::MAX - 31] {
        refuse(
            |f| f.tensor(name).offset = Some(offset),
            ErrorKind::InvalidModel,
            &[name, "past the file"],
        );
    }
}

#[test]
fn gg_06_strings_and_arrays_longer_than_the_file() {
    let claim = |length: u64| gguf_support::Raw {
        kind: 8,
        bytes: length.to_le_bytes().to_vec(),
    };
    refuse_key(
        "tokenizer.chat_template",
        claim(1 << 40),
        &["chat_template", "bytes left"],
    );
    refuse_key(
        "tokenizer.chat_template",
        claim(u64::MAX),
        &["chat_template", "bytes left"],
    );
    for (kind, count) in [(4, 1 << 40), (8, 1 << 61), (12, u64::MAX), (9, 1 << 60)] {
        let value = array_claiming(kind, count, &[]);
        refuse_key("tokenizer.ggml.scores", value, &["scores", "do not fit"]);
    }
}

#[test]
fn gg_06_strings_and_arrays_over_the_limit() {
    let mut limits = Limits::default();
    limits.gguf_string_bytes = 3;
    let error = GgufFile::from_bytes("model.gguf", Gguf::tiny().build(), &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    let mut limits = Limits::default();
    limits.gguf_array_elements = 3;
    let error = GgufFile::from_bytes("model.gguf", Gguf::tiny().build(), &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
}

#[test]
fn gg_06_nested_arrays() {
    let nest = |depth: usize| (1..depth).fold(array(&[u8(1)]), |inner, _| array(&[inner]));
    refuse_key("deep", nest(100), &["deep", "nested"]);
    refuse_key("deep", nest(5), &["deep", "nested"]);
    let mut file = Gguf::tiny();
    file.set("deep", nest(4));
    assert!(file.open().is_ok());
}

#[test]
fn gg_06_text_and_types_that_do_not_exist() {
    let mut bytes = 2u64.to_le_bytes().to_vec();
    bytes.extend([0xFF, 0xFE]);
    refuse_key(
        "tokenizer.chat_template",
        gguf_support::Raw { kind: 8, bytes },
        &["utf-8"],
    );
    refuse_key(
        "odd",
        gguf_support::Raw {
            kind: 13,
            bytes: vec![0; 8],
        },
        &["odd", "unknown value type 13"],
    );
    refuse_key(
        "odd",
        gguf_support::Raw {
            kind: 7,
            bytes: vec![2],
        },
        &["odd", "boolean"],
    );
}

#[test]
fn gg_07_values_of_another_type() {
    let key = "lfm2.block_count";
    refuse_key(key, string("2"), &[key, "an integer", "String"]);
    let key = "tokenizer.ggml.tokens";
    refuse_key(
        key,
        array(&[u8(1), u8(2)]),
        &[key, "array of String", "array of U8"],
    );
    let key = "tokenizer.ggml.token_type";
    refuse_key(
        key,
        strings(&["a"; 8]),
        &[key, "array of integers", "array of String"],
    );
    let key = "lfm2.rope.freq_base";
    refuse_key(key, u32(1_000_000), &[key, "a float", "U32"]);
    let key = "tokenizer.ggml.add_bos_token";
    refuse_key(key, u32(1), &[key, "Bool", "U32"]);
    let key = "general.architecture";
    refuse_key(key, u32(1), &[key, "String", "U32"]);
}

#[test]
fn gg_07_scores_of_any_type_do_no_harm() {
    let mut file = Gguf::tiny();
    file.set(
        "tokenizer.ggml.scores",
        array(&[gguf_support::Raw {
            kind: 1,
            bytes: vec![0x80],
        }]),
    );
    assert!(file.open().unwrap().tokenizer().is_ok());
}

#[test]
fn gg_07_floats_have_to_be_finite() {
    for value in [f32::NAN, f32::INFINITY] {
        refuse_key(
            "lfm2.rope.freq_base",
            f32(value),
            &["freq_base", "not finite"],
        );
    }
}

#[test]
fn gg_08_duplicates() {
    refuse(
        |f| f.entries.push(("lfm2.block_count".to_owned(), u32(3))),
        ErrorKind::InvalidModel,
        &["lfm2.block_count", "twice"],
    );
    refuse(
        |f| f.tensors.push(f.tensors[3].clone()),
        ErrorKind::InvalidModel,
        &["blk.0.ffn_norm.weight", "twice"],
    );
    // Two spellings of the same tensor.
    refuse(
        |f| {
            let mut norm = f.tensor("token_embd_norm.weight").clone();
            norm.name = "output_norm.weight".to_owned();
            f.tensors.push(norm);
        },
        ErrorKind::InvalidModel,
        &["embedding_norm", "twice"],
    );
}

#[test]
fn gg_09_architecture() {
    for name in ["llama", "lfm3", "lfm2-bidir", ""] {
        refuse(
            |f| f.set("general.architecture", string(name)),
            ErrorKind::Unsupported,
            &["lfm2 and lfm2moe"],
        );
    }
    refuse(
        |f| f.remove("general.architecture"),
        ErrorKind::InvalidModel,
        &["general.architecture"],
    );
}

#[test]
fn gg_09_missing_keys_are_named() {
    for key in [
        "lfm2.block_count",
        "lfm2.embedding_length",
        "lfm2.feed_forward_length",
        "lfm2.attention.head_count",
        "lfm2.attention.head_count_kv",
        "lfm2.attention.layer_norm_rms_epsilon",
        "lfm2.rope.freq_base",
        "lfm2.shortconv.l_cache",
    ] {
        refuse(
            |f| f.remove(key),
            ErrorKind::InvalidModel,
            &[key, "missing"],
        );
    }
}

#[test]
fn gg_09_layers_that_contradict_each_other() {
    let key = "lfm2.attention.head_count_kv";
    refuse_key(key, ints(&[0, 1, 0]), &[key, "expected 2 values, found 3"]);
    refuse_key(key, ints(&[0, -1]), &[key, "-1"]);
    refuse_key(
        "lfm2.attention.head_count",
        u32(3),
        &["embedding_length", "head_count"],
    );
    refuse_key("lfm2.attention.head_count", u32(0), &["head_count"]);
    refuse(
        |f| f.set("lfm2.block_count", u32(u32::MAX)),
        ErrorKind::Limit,
        &["block_count"],
    );
    refuse(
        |f| f.set("lfm2.shortconv.l_cache", u32(1 << 30)),
        ErrorKind::Limit,
        &["kernel"],
    );
}

#[test]
fn gg_09_variants_that_would_change_the_result() {
    refuse(
        |f| f.set("lfm2.rope.scaling.type", string("yarn")),
        ErrorKind::Unsupported,
        &["yarn"],
    );
    refuse(
        |f| f.set("lfm2.attention.sliding_window", u32(256)),
        ErrorKind::Unsupported,
        &["sliding_window"],
    );
    refuse(
        |f| f.set("lfm2.rope.dimension_count", u32(8)),
        ErrorKind::Unsupported,
        &["dimension_count"],
    );
    let mut file = Gguf::tiny();
    file.set("lfm2.rope.scaling.type", string("none"));
    file.set("lfm2.rope.dimension_count", u32(16));
    assert!(file.open().is_ok());
}

#[test]
fn gg_10_unknown_pre_tokeniser() {
    for name in ["qwen2", "default", ""] {
        let hint = &["tokenizer.ggml.pre", "\"lfm2\""];
        refuse(
            |f| f.set("tokenizer.ggml.pre", string(name)),
            ErrorKind::Unsupported,
            hint,
        );
    }
    refuse(
        |f| f.remove("tokenizer.ggml.pre"),
        ErrorKind::InvalidModel,
        &["tokenizer.ggml.pre"],
    );
    refuse(
        |f| f.set("tokenizer.ggml.model", string("llama")),
        ErrorKind::Unsupported,
        &["\"llama\""],
    );
}

#[test]
fn gg_11_merges() {
    let key = "tokenizer.ggml.merges";
    refuse_key(key, strings(&["ab"]), &["merge 0", "no space"]);
    refuse_key(key, strings(&["a b", "a c"]), &["merge 1", "\"c\""]);
    refuse_key(key, strings(&["b a"]), &["merge 0", "\"ba\""]);
    // Longer than any token.
    refuse_key(key, strings(&["<pad> <bos>"]), &["merge 0", "<pad><bos>"]);
    refuse_key(key, strings(&[" "]), &["merge 0"]);
}

#[test]
fn gg_11_ids_out_of_range() {
    for key in [
        "bos_token_id",
        "eos_token_id",
        "padding_token_id",
        "eot_token_id",
    ] {
        let key = format!("tokenizer.ggml.{key}");
        refuse_key(&key, u32(8), &[&key, "8"]);
        refuse_key(&key, u64(1 << 40), &[&key]);
        refuse_key(&key, i32(-1), &[&key, "-1"]);
    }
    refuse(
        |f| f.remove("tokenizer.ggml.bos_token_id"),
        ErrorKind::InvalidModel,
        &["bos_token_id"],
    );
}

#[test]
fn gg_11_tokens_and_their_types() {
    let mut tokens = TOKENS;
    tokens[4] = "a";
    refuse_key(
        "tokenizer.ggml.tokens",
        strings(&tokens),
        &["tokens 3 and 4"],
    );
    tokens[4] = "<0x-1>";
    refuse(
        |f| {
            f.set("tokenizer.ggml.tokens", strings(&tokens));
            f.set("tokenizer.ggml.token_type", ints(&[3, 3, 3, 1, 6, 1, 1, 5]));
        },
        ErrorKind::InvalidModel,
        &["token 4", "<0x-1>", "byte"],
    );
    let key = "tokenizer.ggml.token_type";
    refuse_key(
        key,
        ints(&[3, 3, 3, 1, 1, 1, 1]),
        &[key, "expected 8 values, found 7"],
    );
    refuse_key(
        key,
        ints(&[3, 3, 3, 1, 1, 1, 1, 99]),
        &[key, "unknown type 99 of token 7"],
    );
    refuse_key(
        key,
        ints(&[3, 3, 3, 1, 1, 1, 1, -1]),
        &[key, "unknown type -1"],
    );
}

#[test]
fn gg_11_more_tokens_than_rows() {
    refuse(
        |f| {
            f.set("lfm2.vocab_size", u32(6));
            let embedding = f.tensor("token_embd.weight");
            embedding.dims = vec![32, 6];
            embedding.data.truncate(32 * 6 * 4);
        },
        ErrorKind::InvalidModel,
        &["7 tokens for 6 rows"],
    );
}

#[test]
fn gg_12_types_that_are_not_read() {
    let name = "blk.0.ffn_up.weight";
    for (kind, spelling) in [
        (10, "Q2_K"),
        (16, "IQ2_XXS"),
        (34, "TQ1_0"),
        (39, "MXFP4"),
        (24, "I8"),
        (4, "unknown"),
    ] {
        refuse(
            |f| f.tensor(name).kind = kind,
            ErrorKind::Unsupported,
            &[name, spelling, "Q4_0", "Q6_K"],
        );
    }
}

#[test]
fn gg_13_truncated_in_the_data() {
    let whole = Gguf::tiny().build();
    for length in [whole.len() - 1, whole.len() - 1000, whole.len() / 2] {
        let error = rejected_bytes(whole[..length].to_vec());
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
    }
    let error = rejected_bytes(whole[..whole.len() - 1].to_vec()).to_string();
    assert!(
        error.contains("truncated") && error.contains("download it again"),
        "{error}"
    );
}

#[test]
fn gg_13_truncated_on_disk_in_both_ways_of_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let whole = Gguf::tiny().build();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    for mapping in [Mapping::Map, Mapping::Read] {
        let error = GgufFile::open(&path, &Limits::default(), mapping).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        assert!(error.to_string().contains("model.gguf"));
    }
}

/// Cuts the tiny model into two files.
fn split_in_two(folder: &std::path::Path) -> [std::path::PathBuf; 2] {
    let mut first = Gguf::tiny();
    let mut second = Gguf::tiny();
    let total = first.tensors.len();
    second.tensors = first.tensors.split_off(5);
    second.entries.clear();
    let paths = [1, 2].map(|number| folder.join(format!("model-0000{number}-of-00002.gguf")));
    for (number, (file, path)) in [&mut first, &mut second]
        .into_iter()
        .zip(&paths)
        .enumerate()
    {
        file.set("split.no", u32(number as u32));
        file.set("split.count", u32(2));
        file.set("split.tensors.count", i32(total as i32));
        std::fs::write(path, file.build()).expect("a writable folder");
    }
    paths
}

#[test]
fn gg_14_split_files_are_one_model() {
    let folder = tempfile::tempdir().unwrap();
    for path in split_in_two(folder.path()) {
        let file = GgufFile::open(path, &Limits::default(), Mapping::Map).unwrap();
        assert_eq!(file.tensors().names().len(), Gguf::tiny().tensors.len());
        let last = file.tensors().dense(
            "model.layers.1.feed_forward.w2.weight",
            DType::F32,
            &Device::Cpu,
        );
        assert_eq!(last.unwrap().dims(), [32, 64]);
    }
}

#[test]
fn gg_14_a_missing_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = split_in_two(folder.path());
    std::fs::remove_file(second).unwrap();
    let error = GgufFile::open(&first, &Limits::default(), Mapping::Map).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("model-00002-of-00002.gguf"),
        "{error}"
    );
}

#[test]
fn gg_14_parts_that_do_not_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = split_in_two(folder.path());
    std::fs::copy(&first, &second).unwrap();
    let error = GgufFile::open(&first, &Limits::default(), Mapping::Map).unwrap_err();
    assert!(error.to_string().contains("split.no"), "{error}");
    let renamed = folder.path().join("renamed.gguf");
    std::fs::copy(&first, &renamed).unwrap();
    let error = GgufFile::open(&renamed, &Limits::default(), Mapping::Map).unwrap_err();
    assert!(error.to_string().contains("-of-00002.gguf"), "{error}");
}

#[test]
fn gg_15_shapes_that_contradict_the_metadata() {
    let mut file = Gguf::tiny();
    let tensor = file.tensor("blk.1.attn_k.weight");
    tensor.name = "blk.1.attn_q.weight.".to_owned();
    file.tensor("blk.1.attn_q.weight").name = "blk.1.attn_k.weight".to_owned();
    let error = rejected(&file);
    assert!(
        matches!(&error, Error::TensorShape { name, expected, found }
        if name.ends_with("k_proj.weight") && expected == &[16, 32] && found == &[32, 32]),
        "{error}"
    );

    let mut file = Gguf::tiny();
    file.tensor("blk.0.ffn_up.weight").dims = vec![64, 32];
    assert!(matches!(rejected(&file), Error::TensorShape { .. }));
}

#[test]
fn gg_15_a_missing_tensor_is_named_when_it_is_asked_for() {
    let mut file = Gguf::tiny();
    file.tensors
        .retain(|tensor| tensor.name != "token_embd_norm.weight");
    let tensors = file.open().unwrap().tensors();
    let error = tensors
        .dense("model.embedding_norm.weight", DType::F32, &Device::Cpu)
        .unwrap_err();
    assert!(
        matches!(error, Error::MissingTensor { name } if name == "model.embedding_norm.weight")
    );
}

#[test]
fn gg_16_scales_that_are_not_numbers_load() {
    let mut file = Gguf::tiny();
    file.tensor("blk.0.ffn_down.weight").data[..2].copy_from_slice(&[0x00, 0x7E]);
    let tensors = file.open().unwrap().tensors();
    let tensor = tensors
        .dense(
            "model.layers.0.feed_forward.w2.weight",
            DType::F32,
            &Device::Cpu,
        )
        .unwrap();
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(values[0].is_nan() && values[32] == 1.0);
}

#[test]
fn gg_16_a_template_over_the_limit_is_refused() {
    let mut file = Gguf::tiny();
    file.set(
        "tokenizer.chat_template",
        string(&"x".repeat((256 << 10) + 1)),
    );
    assert_eq!(
        file.open().unwrap().chat_template().unwrap_err().kind(),
        ErrorKind::Limit
    );
    let mut file = Gguf::tiny();
    file.set("tokenizer.chat_template", bool(true));
    assert_eq!(
        file.open().unwrap().chat_template().unwrap_err().kind(),
        ErrorKind::InvalidModel
    );
}
