//! Results of the reference implementation: tokens, prompts, probabilities and tool calls.
//!
//! Reads every folder below `text` of `tests/golden`, and of the folder in `LFM2_GOLDEN` if set. A
//! folder takes part with the files it has; what they are called and hold is all that is fixed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use lfm2_generate::tools;
use lfm2_generate::{
    ChatTemplate, GenerationOptions, GenerationPrompt, Message, RenderOptions, Sampler, Tool,
    ToolCall, UserText,
};
use lfm2_hub::{Bos, Limits, SpecialTokens, Specials, Tokenizer};
use serde_json::{Map, Value};

/// All folders with cases, sorted.
fn folders() -> Vec<PathBuf> {
    let mut roots = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")];
    roots.extend(lfm2_golden::folder());
    let mut found = Vec::new();
    for root in roots {
        let entries = fs::read_dir(root.join("text"));
        let entries = entries.unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        found.extend(
            entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_dir()),
        );
    }
    found.sort();
    found
}

fn json(path: &Path) -> Option<Value> {
    let bytes = fs::read(path).ok()?;
    Some(serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// The records under `key` of a folder's `golden.json`.
fn records(folder: &Path, key: &str) -> Vec<Value> {
    let golden = json(&folder.join("golden.json")).unwrap_or_default();
    golden
        .get(key)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

fn tokenizer(folder: &Path) -> Tokenizer {
    Tokenizer::from_file(&folder.join("tokenizer.json"), &Limits::default()).unwrap()
}

fn parsed<T: serde::de::DeserializeOwned>(record: &Value, key: &str) -> T {
    let value = record.get(key).cloned().unwrap_or_default();
    serde_json::from_value(value).unwrap_or_else(|e| panic!("{key} of {record}: {e}"))
}

/// The conversation of a record, and the options to render it with.
fn conversation(
    record: &Value,
    variables: Map<String, Value>,
) -> (Vec<Message>, Vec<Tool>, RenderOptions) {
    let mut options = RenderOptions::default();
    for (name, value) in variables {
        options = match (name.as_str(), value) {
            ("add_generation_prompt", Value::Bool(true)) => {
                options.generation_prompt(GenerationPrompt::Add)
            }
            ("add_generation_prompt", _) => options.generation_prompt(GenerationPrompt::Omit),
            (_, value) => options.variable(name, value),
        };
    }
    let tools: Option<Vec<Tool>> = parsed(record, "tools");
    (
        parsed(record, "messages"),
        tools.unwrap_or_default(),
        options,
    )
}

#[test]
fn tokenizer_cases() {
    let mut count = 0;
    for folder in folders() {
        for case in records(&folder, "tokenizer") {
            let tokenizer = tokenizer(&folder);
            let text: String = parsed(&case, "text");
            let ids: Vec<u32> = parsed(&case, "ids");
            let bare: Vec<u32> = parsed(&case, "ids_no_special");
            assert_eq!(
                tokenizer
                    .encode(&text, SpecialTokens::Parse, Bos::Add)
                    .unwrap(),
                ids,
                "{text:?}"
            );
            assert_eq!(
                tokenizer
                    .encode(&text, SpecialTokens::Parse, Bos::Omit)
                    .unwrap(),
                bare,
                "{text:?}"
            );
            let decoded: String = parsed(&case, "decoded");
            let skipped: String = parsed(&case, "decoded_skip_special");
            assert_eq!(tokenizer.decode(&ids, Specials::Keep).unwrap(), decoded);
            assert_eq!(tokenizer.decode(&ids, Specials::Skip).unwrap(), skipped);
            count += 1;
        }
    }
    assert!(count > 0, "no case found");
}

#[test]
fn chat_cases() {
    let mut count = 0;
    for folder in folders() {
        for case in records(&folder, "chat") {
            let source = fs::read_to_string(folder.join("chat_template.jinja")).unwrap();
            let template = ChatTemplate::new(&source).unwrap();
            let tokenizer = tokenizer(&folder);
            let mut variables: Map<String, Value> = Map::new();
            for name in ["add_generation_prompt", "bos_token"] {
                variables.extend(case.get(name).map(|value| (name.to_owned(), value.clone())));
            }
            // The template writes what the tokenizer calls the beginning.
            variables.entry("bos_token").or_insert_with(|| {
                let first = tokenizer
                    .encode("", SpecialTokens::Parse, Bos::Add)
                    .unwrap();
                Value::from(tokenizer.decode(&first, Specials::Keep).unwrap())
            });
            let (messages, tools, options) = conversation(&case, variables);
            let ids: Vec<u32> = parsed(&case, "ids");
            for user_text in [UserText::Parsed, UserText::Literal] {
                let options = options.clone().user_text(user_text);
                let prompt = template.render(&messages, &tools, &options).unwrap();
                assert_eq!(
                    prompt.text,
                    parsed::<String>(&case, "prompt"),
                    "{user_text:?}"
                );
                assert_eq!(prompt.encode(&tokenizer).unwrap(), ids, "{user_text:?}");
            }
            count += 1;
        }
    }
    assert!(count > 0, "no case found");
}

#[test]
fn template_cases() {
    for folder in folders() {
        let cases = json(&folder.join("templates.json")).unwrap_or_default();
        for case in cases.as_array().into_iter().flatten() {
            let name: String = parsed(case, "template");
            let Some(source) = template_source(&folder, &name) else {
                println!("skipped: {name} is not beside {}", folder.display());
                continue;
            };
            let template = ChatTemplate::new(&source).unwrap();
            let (messages, tools, options) = conversation(case, parsed(case, "variables"));
            let prompt = template.render(&messages, &tools, &options);
            match case.get("prompt") {
                Some(expected) => {
                    assert_eq!(prompt.unwrap().text, expected.as_str().unwrap(), "{name}");
                }
                None => assert!(prompt.is_err(), "{name}: the reference refuses {case}"),
            }
        }
    }
}

/// A published template: beside the cases, or in the tokenizer material next to the goldens.
fn template_source(folder: &Path, name: &str) -> Option<String> {
    let material = fs::read_dir(folder.join("../../../tokenizer"))
        .into_iter()
        .flatten();
    let families = material.map(|entry| entry.unwrap().path().join("templates"));
    let places = [folder.join("templates"), folder.to_path_buf()];
    places
        .into_iter()
        .chain(families)
        .find_map(|place| fs::read_to_string(place.join(name)).ok())
}

#[test]
fn sampling_cases() {
    let mut count = 0;
    for folder in folders() {
        for case in records(&folder, "sampling") {
            let settings: Map<String, Value> = parsed(&case, "settings");
            let options =
                settings
                    .iter()
                    .fold(GenerationOptions::neutral(), |options, (name, value)| {
                        let number = value.as_f64().unwrap() as f32;
                        match name.as_str() {
                            "temperature" => options.with_temperature(number),
                            "top_k" => options
                                .with_top_k(usize::try_from(value.as_u64().unwrap()).unwrap()),
                            "top_p" => options.with_top_p(number),
                            "min_p" => options.with_min_p(number),
                            "repetition_penalty" => options.with_repetition_penalty(number),
                            name => panic!("{name} is not a known setting"),
                        }
                    });
            let mut logits: Vec<f32> = parsed(&case, "logits");
            let expected: Vec<f32> = parsed(&case, "probabilities");
            let mut sampler = Sampler::new(&options, logits.len()).unwrap();
            sampler.observe_prompt(&parsed::<Vec<u32>>(&case, "previous_tokens"));
            let mut found = vec![0.0_f32; expected.len()];
            for candidate in sampler.distribution(&mut logits).unwrap() {
                found[candidate.id as usize] = candidate.probability;
            }
            for (id, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(
                    (found - expected).abs() < 2e-5,
                    "{settings:?}, token {id}: {expected}, found {found}"
                );
            }
            let kept: usize = parsed(&case, "kept");
            assert_eq!(
                found.iter().filter(|p| **p > 0.0).count(),
                kept,
                "{settings:?}"
            );
            count += 1;
        }
    }
    assert!(count > 0, "no case found");
}

#[test]
fn tool_call_cases() {
    let mut count = 0;
    for folder in folders() {
        let cases = json(&folder.join("tool_calls.json")).unwrap_or_default();
        for case in cases.as_array().into_iter().flatten() {
            let output = tools::parse(&parsed::<String>(case, "text"));
            let calls: Vec<ToolCall> = parsed(case, "calls");
            assert_eq!(output.calls, calls, "{case}");
            assert_eq!(output.content, parsed::<String>(case, "content"), "{case}");
            count += 1;
        }
    }
    assert!(count > 0, "no case found");
}
