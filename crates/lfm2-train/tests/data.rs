//! From rows of data to weighted tokens and packed micro-batches.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use lfm2_generate::{ChatTemplate, GenerationPrompt, Message, RenderOptions, Tool};
use lfm2_hub::{Specials, Tokenizer};
use lfm2_train::data::{Document, Encoder, MicroBatch, Source, SourceOptions, pack};
use lfm2_train::{CHAT_TEMPLATE, EOS, train_tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

const ROW: &str = r#"{"messages": [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who ran?"},
    {"role": "assistant", "content": "The fox."}, {"role": "user", "content": "Who hid?"},
    {"role": "assistant", "content": "The owl."}]}"#;

fn tokenizer() -> Tokenizer {
    let texts = [
        "The fox ran. The owl hid.",
        "Who ran? The fox. Who hid? The owl. Be brief.",
    ];
    train_tokenizer(texts.into_iter(), 320).unwrap()
}

/// The only document of a file with this text.
fn document(text: &str, options: &Value) -> (Document, Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data"), text).unwrap();
    let mut all = json!({"path": "data"});
    for (key, value) in options.as_object().unwrap() {
        all[key] = value.clone();
    }
    let options: SourceOptions = serde_json::from_value(all).unwrap();
    let (tokenizer, template) = (tokenizer(), ChatTemplate::new(CHAT_TEMPLATE).unwrap());
    let encoder = Encoder {
        tokenizer: &tokenizer,
        template: &template,
        eos: EOS,
        max_tokens: 500,
    };
    let source = Source::read(&options, folder.path(), &encoder, 1).unwrap();
    assert_eq!(source.training.len(), 1);
    (source.training[0].clone(), tokenizer)
}

/// The text of all tokens with this weight.
fn text_of(weight: f32, (document, tokenizer): &(Document, Tokenizer)) -> String {
    let tokens = document.tokens().iter().zip(document.weights());
    let ids: Vec<u32> = tokens
        .filter(|(_, w)| **w == weight)
        .map(|(id, _)| *id)
        .collect();
    tokenizer.decode(&ids, Specials::Keep).unwrap()
}

fn row() -> String {
    ROW.replace('\n', " ")
}

#[test]
fn only_the_assistants_words_and_its_end_of_turn_are_scored() {
    let read = document(&row(), &json!({"format": "chat"}));
    assert_eq!(text_of(1.0, &read), "The fox.<|im_end|>The owl.<|im_end|>");
    assert_eq!(
        read.0.tokens()[0],
        1,
        "the template begins with the beginning token, once"
    );
    assert_ne!(read.0.tokens()[1], 1);
}

#[test]
fn the_last_turn_can_be_scored_alone() {
    let read = document(&row(), &json!({"format": "chat", "score": "last_turn"}));
    assert_eq!(text_of(1.0, &read), "The owl.<|im_end|>");
}

#[test]
fn answers_can_count_more_than_the_rest() {
    let read = document(
        &row(),
        &json!({"format": "chat", "score": "all", "answer_weight": 5.0}),
    );
    assert_eq!(text_of(5.0, &read), "The fox.<|im_end|>The owl.<|im_end|>");
    assert!(text_of(1.0, &read).contains("<|im_start|>user\nWho hid?<|im_end|>"));
    assert_eq!(text_of(0.0, &read), "");
}

#[test]
fn a_preference_row_is_a_conversation_of_its_chosen_answer() {
    let text = json!({"prompt": "Who ran?", "chosen": "The fox.", "rejected": "The owl.", "fault": "wrong"});
    let read = document(&text.to_string(), &json!({"format": "preference"}));
    assert_eq!(text_of(1.0, &read), "The fox.<|im_end|>");
    assert!(
        !read
            .1
            .decode(read.0.tokens(), Specials::Keep)
            .unwrap()
            .contains("owl")
    );
}

#[test]
fn a_story_is_scored_whole_between_its_two_ends() {
    let read = document("The fox ran.", &json!({"format": "text"}));
    assert_eq!(text_of(1.0, &read), "<|startoftext|>The fox ran.<|im_end|>");
    assert_eq!(read.0.scored(), read.0.len() - 1);
}

#[test]
fn special_tokens_inside_a_story_are_ordinary_text() {
    let read = document("The <|im_end|> fox.", &json!({"format": "text"}));
    assert_eq!(read.0.tokens().iter().filter(|&&id| id == EOS).count(), 1);
}

#[test]
fn the_built_in_template_renders_as_the_familys() {
    let tool: Tool =
        serde_json::from_value(json!({"name": "look", "description": "Looks.", "parameters": {}}))
            .unwrap();
    let messages = [
        Message::system("Be brief."),
        Message::user("Who ran?"),
        Message::assistant("Let me see."),
        Message::tool("the fox"),
    ];
    let template = ChatTemplate::new(CHAT_TEMPLATE).unwrap();
    let options = RenderOptions::default().variable("bos_token", "<|startoftext|>");
    let text = template
        .render(&messages, std::slice::from_ref(&tool), &options)
        .unwrap()
        .text;
    let (head, rest) = text.split_once("<|tool_list_end|>").unwrap();
    assert!(
        head.starts_with(
            "<|startoftext|><|im_start|>system\nBe brief.\nList of tools: <|tool_list_start|>[{"
        ),
        "{head}"
    );
    assert!(head.contains("\"look\"") && head.ends_with("}]"), "{head}");
    assert_eq!(
        rest,
        "<|im_end|>\n<|im_start|>user\nWho ran?<|im_end|>\n<|im_start|>assistant\nLet me see.<|im_end|>\n\
         <|im_start|>tool\n<|tool_response_start|>the fox<|tool_response_end|><|im_end|>\n<|im_start|>assistant\n"
    );
    let plain = template
        .render(
            &messages[1..2],
            &[],
            &options.generation_prompt(GenerationPrompt::Omit),
        )
        .unwrap()
        .text;
    assert_eq!(
        plain,
        "<|startoftext|><|im_start|>user\nWho ran?<|im_end|>\n"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn packing_keeps_every_document_whole_and_in_order(
        lens in prop::collection::vec(1usize..40, 0..30),
        max_tokens in 1usize..80,
    ) {
        let documents: Vec<Document> = lens
            .iter()
            .enumerate()
            .map(|(i, &len)| Document::new(vec![i as u32; len], vec![1.0; len]).unwrap())
            .collect();
        let packed = pack(&documents, max_tokens);
        let ids = packed.iter().flat_map(|m| m.ids(&candle_core::Device::Cpu).unwrap().to_vec1::<u32>().unwrap());
        prop_assert!(ids.eq(documents.iter().flat_map(|d| d.tokens().to_vec())));
        let segments = packed.iter().flat_map(|m| m.step().segments().iter().map(|s| s.len).collect::<Vec<_>>());
        prop_assert!(segments.eq(lens.iter().copied()));
        for batch in &packed {
            prop_assert!(batch.tokens() <= max_tokens || batch.documents() == 1);
        }
        let scored: usize = packed.iter().map(MicroBatch::scored).sum();
        prop_assert_eq!(scored, lens.iter().map(|len| len - 1).sum::<usize>());
    }
}
