//! From texts to ids, with a tokenizer of single characters.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod support;

use lfm2_colbert::{Expansion, Letters, OuterSpace, RetrievalSettings, TextReader};
use lfm2_hub::{Bos, SpecialTokens};
use support::tokenizer;

fn reader(settings: RetrievalSettings) -> TextReader {
    TextReader::new(tokenizer(), settings, Some(1)).unwrap()
}

fn settings() -> RetrievalSettings {
    RetrievalSettings::default().with_query_length(8)
}

fn id(token: &str) -> u32 {
    tokenizer().id_of(token).unwrap()
}

#[test]
fn a_query_has_beginning_prefix_text_and_filler() {
    let input = reader(settings()).query(" ab! ").unwrap();
    assert_eq!(input.ids(), [0, id("[Q] "), id("ab"), id("!"), 1, 1, 1, 1]);
    assert_eq!((input.attended(), input.kept().len()), (4, 8));
    assert!(!input.is_cut());
}

#[test]
fn cb_01_queries_are_cut_and_empty_ones_filled() {
    let reader = reader(settings());
    let long = reader.query("abcdefghijk").unwrap();
    assert_eq!(
        (long.ids().len(), long.attended(), long.is_cut()),
        (8, 8, true)
    );
    for text in ["", "   ", "\n\t"] {
        let empty = reader.query(text).unwrap();
        assert_eq!((empty.ids().len(), empty.attended()), (8, 2), "{text:?}");
    }
}

#[test]
fn without_expansion_a_query_is_its_text() {
    let with = |expansion| reader(settings().with_expansion(expansion));
    assert_eq!(with(Expansion::Off).query("ab").unwrap().kept(), [0, 1, 2]);
    assert_eq!(with(Expansion::Attended).query("ab").unwrap().attended(), 8);
    assert_eq!(
        with(Expansion::Off).query("").unwrap().ids(),
        [0, id("[Q] ")]
    );
}

#[test]
fn cb_01_documents_keep_all_but_bare_punctuation() {
    let input = reader(settings()).document("a, b.").unwrap();
    assert_eq!(input.kept(), [0, 1, 2, 4, 5]);
    assert_eq!(reader(settings()).document("?!").unwrap().kept(), [0, 1]);
    let bare = reader(settings().with_document_prefix(""));
    assert_eq!(bare.document("?!").unwrap().kept(), [0]);
    let all = reader(settings().with_skiplist_words(Vec::new()));
    assert_eq!(all.document("?!").unwrap().kept(), [0, 1, 2, 3]);
}

#[test]
fn a_prefix_in_the_text_is_that_token_and_the_own_one_is_inserted() {
    let input = reader(settings()).document("[D] a").unwrap();
    assert_eq!(input.ids(), [0, id("[D] "), id("[D] "), id("a")]);
    let kept = reader(settings().with_outer_space(OuterSpace::Keep));
    assert_eq!(
        kept.document(" a").unwrap().ids(),
        [0, id("[D] "), id("Ġ"), id("a")]
    );
}

#[test]
fn settings_that_the_tokenizer_lacks_are_named() {
    let new = |settings, filler| TextReader::new(tokenizer(), settings, filler);
    let error = new(settings().with_query_prefix("[X] "), Some(1)).unwrap_err();
    assert!(
        error.to_string().contains("query_prefix \"[X] \""),
        "{error}"
    );
    assert!(new(settings(), None).is_err());
    assert!(new(settings().with_expansion(Expansion::Off), None).is_ok());
    assert!(new(settings().with_document_length(1), Some(1)).is_err());
}

#[test]
fn places_are_bytes_of_the_text() {
    let reader = reader(settings());
    let text = "  ab, ä";
    let input = reader.document(text).unwrap();
    let places = reader.places(text, &input).unwrap();
    assert_eq!(places[..2], [None, None]);
    let bytes = |place: &Option<std::ops::Range<usize>>| &text.as_bytes()[place.clone().unwrap()];
    let words: Vec<&[u8]> = places[2..].iter().map(bytes).collect();
    assert_eq!(words.concat(), "ab, ä".as_bytes());
    let query = reader.query("ab").unwrap();
    let places = reader.places("ab", &query).unwrap();
    assert_eq!(places[2], Some(0..2));
    assert!(places[3..].iter().all(Option::is_none));
}

#[test]
fn small_letters_have_no_places_in_the_text() {
    let lower = reader(settings().with_letters(Letters::Lower));
    let input = lower.query("AB").unwrap();
    assert_eq!(input.ids()[2], id("ab"));
    assert!(
        lower
            .places("AB", &input)
            .unwrap()
            .iter()
            .all(Option::is_none)
    );
}

#[test]
fn the_beginning_of_a_long_text_gives_the_ids_of_the_whole() {
    let texts = [
        "ab [Q] ".repeat(900),
        "ab  ab\n ab! ".repeat(700),
        "a".repeat(9000),
        format!("{} b", " ".repeat(5000)),
    ];
    for text in texts {
        let text = text.trim();
        let whole = tokenizer()
            .encode(text, SpecialTokens::Parse, Bos::Add)
            .unwrap();
        for length in [1, 5, 200, 900] {
            let bare = settings()
                .with_document_prefix("")
                .with_document_length(length);
            let input = reader(bare).document(text).unwrap();
            assert_eq!(input.ids(), &whole[..length.min(whole.len())]);
            assert_eq!(input.is_cut(), whole.len() > length);
        }
    }
}

#[test]
fn tk_03_megabytes_are_read_for_their_beginning_alone() {
    let text = "words and words ".repeat(500_000);
    let input = reader(settings().with_document_length(512))
        .document(&text)
        .unwrap();
    assert_eq!((input.ids().len(), input.is_cut()), (512, true));
}
