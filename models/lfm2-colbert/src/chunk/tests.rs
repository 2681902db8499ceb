use super::*;

use lfm2_hub::Limits;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A tokenizer with one token per byte: nothing cuts characters more often.
fn bytes() -> Tokenizer {
    let is_plain = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (plain, odd): (Vec<u8>, Vec<u8>) = (0..=u8::MAX).partition(is_plain);
    let plain = plain.into_iter().map(char::from);
    let odd = odd.iter().zip('\u{100}'..).map(|(_, letter)| letter);
    let letters = plain.chain(odd).zip(0..);
    let vocabulary: Map<String, Value> = letters
        .map(|(letter, id)| (letter.to_string(), Value::from(id)))
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let json = json!({
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        "pre_tokenizer": byte_level, "decoder": byte_level,
    });
    Tokenizer::from_bytes(json.to_string(), &Limits::default()).unwrap()
}

/// The same, but in small letters, and blind to white space.
fn lower_words() -> Tokenizer {
    let mut json: Value = serde_json::from_str(&bytes().to_json().unwrap()).unwrap();
    json["normalizer"] = json!({"type": "Lowercase"});
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\S+"}, "behavior": "Removed", "invert": true},
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false},
    ]});
    Tokenizer::from_bytes(json.to_string(), &Limits::default()).unwrap()
}

fn chunks(document: &TextDocument, max_tokens: usize, overlap: usize) -> Vec<Chunk> {
    chunks_with(bytes(), document, max_tokens, overlap)
}

fn chunks_with(
    tokenizer: Tokenizer,
    document: &TextDocument,
    max_tokens: usize,
    overlap: usize,
) -> Vec<Chunk> {
    let options = ChunkOptions::default()
        .with_max_tokens(max_tokens)
        .with_overlap(overlap);
    let chunker = Chunker::new(tokenizer, options).unwrap();
    chunker.chunks(document).unwrap()
}

#[test]
fn a_tokenizer_that_changes_text_counts_words() {
    let text = "The First sentence IS here. A SECOND one is there. And the Third one comes last.";
    let found = chunks_with(lower_words(), &TextDocument::new("x", "", text), 48, 0);
    let expected = [
        "The First sentence IS here. A SECOND one is",
        "there. And the Third one comes last.",
    ];
    assert_eq!(texts(&found), expected);
}

fn texts(chunks: &[Chunk]) -> Vec<&str> {
    chunks.iter().map(|chunk| chunk.text.as_str()).collect()
}

#[test]
fn a_short_text_is_one_piece_with_its_title() {
    let document = TextDocument::new("a/b.txt", "A title", "\n\n  One sentence. \n");
    let found = chunks(&document, 64, 8);
    assert_eq!(found.len(), 1);
    let chunk = &found[0];
    assert_eq!(
        (chunk.id.as_str(), chunk.line, chunk.bytes.clone()),
        ("a/b.txt#0", 3, 4..17)
    );
    assert_eq!(chunk.passage(), "A title\nOne sentence.");
    assert_eq!(chunk.id, Chunk::id_of("a/b.txt", 0));
}

#[test]
fn cb_01_blank_texts_have_no_pieces() {
    for text in ["", " \n\t ", "\u{a0}\u{3000}"] {
        assert_eq!(chunks(&TextDocument::new("x", "Title", text), 64, 8), []);
        assert_eq!(
            chunks(&TextDocument::markdown("x", format!("# T\n{text}")), 64, 8),
            []
        );
    }
}

#[test]
fn pieces_end_at_the_best_place_and_share_the_start_of_a_sentence() {
    let text = "The first sentence is here. Second one. Third sentence follows now. And a fourth.";
    let found = chunks(&TextDocument::new("x", "", text), 54, 13);
    assert_eq!(
        texts(&found),
        [
            "The first sentence is here. Second one.",
            "Second one. Third sentence follows now.",
            "follows now. And a fourth.",
        ]
    );
    // A paragraph is a better end than a sentence.
    let text =
        "One two three four five six seven eight.\n\nNine. Ten eleven twelve thirteen fourteen.";
    let found = chunks(&TextDocument::new("x", "", text), 56, 0);
    assert_eq!(found[0].text, "One two three four five six seven eight.");
    assert_eq!((found[1].line, &found[1].text[..5]), (3, "Nine."));
}

#[test]
fn headings_stay_with_their_text() {
    let text = "# Manual\nIntro.\n## Install\nRun it.\n### Windows\nClick it.\n";
    let found = chunks(&TextDocument::markdown("m.md", text), 96, 0);
    let passages: Vec<String> = found.iter().map(Chunk::passage).collect();
    assert_eq!(
        passages,
        [
            "Manual\nIntro.",
            "Manual\nInstall\nRun it.",
            "Manual\nInstall > Windows\nClick it.",
        ]
    );
    let places: Vec<_> = found.iter().map(|c| (c.id.as_str(), c.line)).collect();
    assert_eq!(places, [("m.md#0", 2), ("m.md#1", 4), ("m.md#2", 6)]);
}

#[test]
fn an_endless_title_leaves_room_for_the_text() {
    let title = "word ".repeat(10_000);
    let found = chunks(&TextDocument::new("x", title, "The text itself."), 60, 0);
    assert_eq!(found[0].text, "The text itself.");
    assert!(found[0].title.len() <= 20, "{}", found[0].title);
}

#[test]
fn a_text_of_a_megabyte_is_cut_whatever_it_is_made_of() {
    let odd = [
        "a",
        " ",
        "\u{301}",
        "\u{1F600}",
        "\n",
        "x                    ",
    ];
    let odd = odd.map(|unit| (unit, 1 << 16));
    for (unit, size) in odd.into_iter().chain([("word and word. ", 1 << 20)]) {
        let text = format!("x{}x", unit.repeat(size / unit.len()));
        let found = chunks(&TextDocument::new("x", "", text.as_str()), 512, 64);
        let (first, last) = (&found[0], &found[found.len() - 1]);
        assert_eq!(
            (first.bytes.start, last.bytes.end),
            (0, text.len()),
            "{unit:?}"
        );
    }
}

#[test]
fn senseless_options_are_refused() {
    let refused = |most, overlap| {
        let options = ChunkOptions::default()
            .with_max_tokens(most)
            .with_overlap(overlap);
        Chunker::new(bytes(), options).unwrap_err().to_string()
    };
    assert_eq!(refused(0, 0), "chunk tokens: expected at least 32, found 0");
    assert!(refused(100, 26).starts_with("chunk overlap: expected at most a quarter of the 100"));
}

/// Text with everything that cutting has to deal with.
fn any_text() -> impl Strategy<Value = String> {
    let unit = prop_oneof![
        Just("word ".to_owned()),
        Just("End. ".to_owned()),
        Just("\n".to_owned()),
        Just("\n\n".to_owned()),
        Just("# H\n".to_owned()),
        Just("```\n".to_owned()),
        Just("\u{1F600}".to_owned()),
        Just("文。".to_owned()),
        "\\PC{1,8}",
    ];
    prop::collection::vec(unit, 0..200).prop_map(|units| units.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_character_of_the_text_is_in_a_piece(
        text in any_text(), most in 32_usize..100, share in 0_usize..=4, markdown: bool,
    ) {
        let document = match markdown {
            true => TextDocument::markdown("x", text.as_str()),
            false => TextDocument::new("x", "title", text.as_str()),
        };
        let overlap = most * share / 16;
        let found = chunks(&document, most, overlap);
        let mut covered = vec![false; text.len()];
        for (number, chunk) in found.iter().enumerate() {
            prop_assert_eq!(&text[chunk.bytes.clone()], &chunk.text);
            prop_assert_eq!(&chunk.id, &format!("x#{number}"));
            prop_assert_eq!(chunk.line, 1 + text[..chunk.bytes.start].matches('\n').count());
            prop_assert!(chunk.passage().len() <= most, "{} bytes", chunk.passage().len());
            covered[chunk.bytes.clone()].fill(true);
        }
        for pair in found.windows(2) {
            prop_assert!(pair[0].bytes.start < pair[1].bytes.start);
            prop_assert!(pair[0].bytes.end < pair[1].bytes.end);
        }
        for section in document.outline().sections {
            for (at, c) in text[section.bytes.clone()].char_indices() {
                prop_assert!(c.is_whitespace() || covered[section.bytes.start + at], "{c:?} at {at}");
            }
        }
    }
}
