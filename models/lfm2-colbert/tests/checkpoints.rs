//! What folders of retrieval models may hold, and what is refused by name.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use std::collections::HashMap;

use lfm2_colbert::{ColbertModel, EmbeddingModel, Letters, RetrievalModel};
use lfm2_hub::{ErrorKind, MemoryFiles};
use lfm2_nn::{Device, Tensor};
use lfm2_text::LoadOptions;
use serde_json::{Value, json};
use support::{Recipe, Sight, change, checkpoint, difference, open, put, safetensors};

fn files() -> MemoryFiles {
    Recipe::new(Sight::Both, 3).files()
}

/// The message of a model that does not open.
fn refusal(files: MemoryFiles) -> (ErrorKind, String) {
    let error = open(files).unwrap_err();
    (error.kind(), error.to_string())
}

const DENSE: &str = "1_Dense/config.json";
const SETTINGS: &str = "config_sentence_transformers.json";

#[test]
fn a_trunk_may_be_nested_and_only_once() {
    let bare = Recipe::new(Sight::Both, 3);
    let expected = bare.model().encode_query("some words").unwrap();
    for prefix in ["lfm2.", "model."] {
        let nested = Recipe { prefix, ..bare };
        let found = nested.model().encode_query("some words").unwrap();
        assert!(
            difference(found.as_slice(), expected.as_slice()) < 1e-6,
            "{prefix}"
        );
    }
    let mut both = bare.tensors();
    both.extend(
        Recipe {
            prefix: "lfm2.",
            ..bare
        }
        .tensors(),
    );
    let mut files = bare.files();
    files.weights = safetensors(&both).into();
    let (kind, text) = refusal(files);
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(
        text.contains("lfm2.embed_tokens.weight") && text.contains("two backbones"),
        "{text}"
    );
}

#[test]
fn layers_that_are_not_known_are_refused_with_file_and_key() {
    let cases = [
        (
            json!({"activation_function": "torch.nn.modules.activation.ReLU"}),
            "activation_function",
        ),
        (json!({"activation_function": null}), "activation_function"),
        (json!({"use_residual": true}), "use_residual"),
        (
            json!({"module_input_name": "sentence_embedding"}),
            "module_input_name",
        ),
        (json!({"in_features": 31}), "in_features"),
        (json!({"in_features": null}), "in_features"),
        (json!({"out_features": 0}), "out_features"),
        (json!({"out_features": "16"}), "out_features"),
        (json!({"bias": "no"}), "bias"),
    ];
    for (changes, key) in cases {
        let mut files = files();
        change(&mut files, DENSE, &changes);
        let (kind, text) = refusal(files);
        assert!(text.contains(key) && text.contains("1_Dense"), "{text}");
        assert!(
            matches!(kind, ErrorKind::Unsupported | ErrorKind::InvalidModel),
            "{kind:?}"
        );
    }
}

#[test]
fn tensors_that_contradict_a_layer_are_named() {
    let mut narrow = files();
    change(&mut narrow, DENSE, &json!({"out_features": 15}));
    assert!(refusal(narrow).1.contains("1_Dense.linear.weight"));
    let mut bias = files();
    change(&mut bias, DENSE, &json!({"bias": true}));
    assert!(refusal(bias).1.contains("1_Dense.linear.bias"));
    let mut missing = files();
    missing.more.remove("1_Dense/model.safetensors");
    let (kind, text) = refusal(missing);
    assert!(
        kind == ErrorKind::NotFound && text.contains("1_Dense/model.safetensors"),
        "{text}"
    );
    let mut missing = files();
    missing.more.remove(DENSE);
    assert!(refusal(missing).1.contains(DENSE));
}

#[test]
fn modules_of_newer_savers_and_layers_in_a_row() {
    let mut files = files();
    let modules = json!([
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.base.modules.dense.Dense"},
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
        {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]);
    put(&mut files, "modules.json", &modules);
    let dense = json!({"in_features": 16, "out_features": 4, "bias": true, "activation_function": "torch.nn.Identity"});
    put(&mut files, "2_Dense/config.json", &dense);
    let tensor = |values: usize, shape: &[usize]| {
        let values: Vec<f32> = (0..values).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let tensors = HashMap::from([
        ("linear.weight".to_owned(), tensor(64, &[4, 16])),
        ("linear.bias".to_owned(), tensor(4, &[4])),
    ]);
    files.more.insert(
        "2_Dense/model.safetensors".into(),
        safetensors(&tensors).into(),
    );
    let options = LoadOptions::default().strict();
    let model = ColbertModel::from_checkpoint(&checkpoint(files), &options).unwrap();
    assert_eq!(model.dim(), 4);
    assert_eq!(model.encode_query("ab").unwrap().dim(), 4);
}

#[test]
fn lists_of_modules_that_mean_something_else_are_refused() {
    let transformer =
        json!({"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"});
    let module = |path: &str, kind: &str| json!({"idx": 1, "path": path, "type": kind});
    let cases = [
        json!({}),
        json!([]),
        json!([1]),
        json!([module("", "x.Transformer"), {"idx": 2, "type": "x.Dense"}]),
        json!([module("0_Transformer", "x.Transformer")]),
        json!([module("", "x.CLIPModel")]),
        json!([
            transformer,
            module("1_LSTM", "sentence_transformers.models.LSTM")
        ]),
        json!([transformer, module("../1_Dense", "x.Dense")]),
        json!([transformer, module("a/b", "x.Dense")]),
    ];
    for modules in cases {
        let mut files = files();
        put(&mut files, "modules.json", &modules);
        let (kind, text) = refusal(files);
        assert!(
            matches!(
                kind,
                ErrorKind::Unsupported | ErrorKind::InvalidModel | ErrorKind::NotFound
            ),
            "{text}"
        );
    }
    let mut missing = files();
    missing.more.remove("modules.json");
    let (kind, text) = refusal(missing);
    assert!(
        kind == ErrorKind::NotFound && text.contains("modules.json"),
        "{text}"
    );
}

#[test]
fn settings_come_from_their_file_and_may_be_absent() {
    let mut changed = files();
    let changes = json!({"query_length": 7, "document_length": null, "skiplist_words": ["a"]});
    change(&mut changed, SETTINGS, &changes);
    let model = open(changed).unwrap();
    assert_eq!(
        (
            model.settings().query_length,
            model.settings().document_length
        ),
        (7, 180)
    );
    assert_eq!(model.encode_query("x").unwrap().rows(), 7);
    assert_eq!(model.encode_documents(&["axa"]).unwrap()[0].rows(), 3);
    let mut absent = files();
    absent.more.remove(SETTINGS);
    assert_eq!(open(absent).unwrap().settings().query_length, 32);
    let mut wrong = files();
    change(&mut wrong, SETTINGS, &json!({"query_prefix": "[X] "}));
    assert!(refusal(wrong).1.contains("[X] "));
}

#[test]
fn capitals_become_small_where_a_model_says_so() {
    let mut files = files();
    put(
        &mut files,
        "sentence_bert_config.json",
        &json!({"max_seq_length": 39, "do_lower_case": true}),
    );
    let model = open(files).unwrap();
    assert_eq!(model.settings().letters, Letters::Lower);
    let [big, small] = ["AB C", "ab c"].map(|text| model.encode_query(text).unwrap());
    assert_eq!(big, small);
}

#[test]
fn queries_are_filled_with_mask_else_end_else_padding() {
    let filler = |config: Value, tokenizer: Option<Value>, map: Option<Value>| {
        let recipe = Recipe::new(Sight::Both, 3);
        let mut files = recipe.files();
        let mut own = recipe.config();
        own["eos_token_id"] = Value::Null;
        for (key, value) in config.as_object().unwrap() {
            own[key] = value.clone();
        }
        files.config = own.to_string().into_bytes().into();
        if let Some(tokenizer) = tokenizer {
            put(&mut files, "tokenizer_config.json", &tokenizer);
        }
        if let Some(map) = map {
            put(&mut files, "special_tokens_map.json", &map);
        }
        open(files).map(|model| model.reader().filler())
    };
    let id = |token: &str| support::tokenizer().id_of(token);
    let named = json!({"mask_token": "!", "eos_token": {"content": "<e>"}, "pad_token": "#"});
    assert_eq!(filler(json!({}), Some(named), None).unwrap(), id("!"));
    let end = json!({"mask_token": null, "eos_token": {"content": "<e>"}, "pad_token": "#"});
    assert_eq!(
        filler(json!({}), Some(end.clone()), None).unwrap(),
        id("<e>")
    );
    let mask = json!({"mask_token": {"content": "%"}});
    assert_eq!(filler(json!({}), Some(end), Some(mask)).unwrap(), id("%"));
    assert_eq!(
        filler(json!({"eos_token_id": [5, 1]}), None, None).unwrap(),
        Some(5)
    );
    assert_eq!(
        filler(json!({"pad_token_id": 4}), None, None).unwrap(),
        Some(4)
    );
    assert!(filler(json!({}), None, None).is_err());
    let unknown = filler(json!({}), Some(json!({"mask_token": "<m>"})), None).unwrap_err();
    assert!(unknown.to_string().contains("mask_token"), "{unknown}");
}

#[test]
fn cf_06_a_tokenizer_with_more_tokens_than_rows_is_refused() {
    let recipe = Recipe::new(Sight::Both, 3);
    let mut config = recipe.config();
    config["vocab_size"] = 40.into();
    let mut files = recipe.files();
    files.config = config.to_string().into_bytes().into();
    let (kind, text) = refusal(files);
    assert!(
        kind == ErrorKind::InvalidModel && text.contains("tokenizer.json"),
        "{text}"
    );
}

#[test]
fn st_11_vectors_of_damaged_weights_are_an_error() {
    let recipe = Recipe::new(Sight::Both, 3);
    let mut tensors = recipe.tensors();
    let norm = Tensor::new(&[f32::NAN; 32], &Device::Cpu).unwrap();
    tensors.insert("embedding_norm.weight".to_owned(), norm);
    let mut files = recipe.files();
    files.weights = safetensors(&tensors).into();
    let model = open(files).unwrap();
    let error = model.encode_query("x").unwrap_err();
    assert!(error.to_string().contains("not a number"), "{error}");
    assert_eq!(model.stream(["a", "b"], Default::default()).count(), 1);
}

/// A model of one vector per text.
fn single(recipe: &Recipe, pooling: &Value) -> MemoryFiles {
    let mut files = recipe.files();
    let modules = json!([
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]);
    put(&mut files, "modules.json", &modules);
    put(&mut files, "1_Pooling/config.json", pooling);
    let settings =
        json!({"prompts": {"query": "q: ", "document": "d: "}, "similarity_fn_name": "cosine"});
    put(&mut files, SETTINGS, &settings);
    put(
        &mut files,
        "sentence_bert_config.json",
        &json!({"max_seq_length": 20}),
    );
    files
}

fn open_single(files: MemoryFiles) -> lfm2_colbert::Result<EmbeddingModel> {
    EmbeddingModel::from_checkpoint(&checkpoint(files), &LoadOptions::default())
}

#[test]
fn one_vector_per_text_is_the_state_of_its_beginning() {
    let recipe = Recipe::new(Sight::Both, 3);
    let files = single(
        &recipe,
        &json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}),
    );
    let model = open_single(files.clone()).unwrap();
    let long = "y".repeat(99);
    let texts = ["some words", " x ", long.as_str()];
    let found = model.encode_queries(&texts).unwrap();
    let bare = recipe.model();
    let settings = bare
        .settings()
        .clone()
        .with_query_prefix("")
        .with_query_length(20);
    let bare = bare
        .with_settings(settings.with_expansion(lfm2_colbert::Expansion::Off))
        .unwrap();
    for (text, found) in texts.iter().zip(&found) {
        let input = bare.reader().query(&format!("q: {text}")).unwrap();
        let hidden = bare.trunk_hidden(&[input]).unwrap();
        let first: Vec<f32> = hidden.get(0).unwrap().to_vec1().unwrap();
        assert!(difference(&first, found) < 1e-5);
    }
    let documents = model.encode_documents(&texts).unwrap();
    assert!(difference(&documents[0], &found[0]) > 1e-3);
    assert_eq!((model.dim(), documents.len()), (32, 3));

    let either = RetrievalModel::from_checkpoint(&checkpoint(files), &LoadOptions::default());
    assert!(matches!(either.unwrap(), RetrievalModel::SingleVector(_)));
    let late =
        RetrievalModel::from_checkpoint(&checkpoint(recipe.files()), &LoadOptions::default());
    assert!(matches!(late.unwrap(), RetrievalModel::LateInteraction(_)));
}

#[test]
fn a_module_that_normalises_gives_vectors_of_length_one() {
    let recipe = Recipe::new(Sight::Both, 3);
    let mut files = single(&recipe, &json!({"pooling_mode": "cls"}));
    let mut modules: Value = serde_json::from_slice(&files.more["modules.json"]).unwrap();
    let normalise =
        json!({"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"});
    modules.as_array_mut().unwrap().push(normalise);
    put(&mut files, "modules.json", &modules);
    let vector = open_single(files)
        .unwrap()
        .encode_queries(&["x"])
        .unwrap()
        .remove(0);
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() < 1e-5);
}

#[test]
fn other_poolings_and_the_wrong_door_are_refused() {
    let recipe = Recipe::new(Sight::Both, 3);
    for pooling in [
        json!({"pooling_mode_mean_tokens": true}),
        json!({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}),
        json!({"pooling_mode": "lasttoken"}),
        json!({}),
    ] {
        let error = open_single(single(&recipe, &pooling)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("1_Pooling"), "{error}");
    }
    let error = open(single(&recipe, &json!({"pooling_mode": "cls"}))).unwrap_err();
    assert!(error.to_string().contains("EmbeddingModel"), "{error}");
    let error = open_single(recipe.files()).unwrap_err();
    assert!(error.to_string().contains("ColbertModel"), "{error}");
}
