//! Text that comes in pieces is the text that comes at once.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod common;

use common::{BYTES, VOCAB, byte_tokenizer};
use lfm2_generate::{GenerationOptions, SpecialText, StopRules, TextStream};
use lfm2_hub::Specials;
use proptest::prelude::*;

fn streamed(ids: &[u32], special: SpecialText) -> Vec<String> {
    let mut stream = TextStream::new(byte_tokenizer(), special);
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    pieces.push(stream.finish());
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_ids_stream_to_their_decoding(ids in prop::collection::vec(0..VOCAB as u32, 0..80)) {
        let tokenizer = byte_tokenizer();
        let hidden = streamed(&ids, SpecialText::Hidden).concat();
        prop_assert_eq!(hidden, tokenizer.decode(&ids, Specials::Skip).unwrap());
        let shown = streamed(&ids, SpecialText::Shown).concat();
        prop_assert_eq!(shown, tokenizer.decode(&ids, Specials::Keep).unwrap());
    }

    #[test]
    fn half_characters_are_never_sent(text in "\\PC{0,20}", cut in 0usize..4) {
        let bytes = &text.as_bytes()[..text.len().saturating_sub(cut)];
        let ids: Vec<u32> = bytes.iter().map(|b| BYTES + u32::from(*b)).collect();
        let pieces = streamed(&ids, SpecialText::Hidden);
        let (last, before) = pieces.split_last().unwrap();
        let whole = before.concat();
        prop_assert!(text.starts_with(&whole), "{whole:?} of {text:?}");
        prop_assert_eq!(whole + last, String::from_utf8_lossy(bytes));
    }

    #[test]
    fn stops_do_not_depend_on_the_pieces(
        text in "[ab€]{0,40}",
        stops in prop::collection::vec("[ab€]{1,4}", 1..4),
        sizes in prop::collection::vec(1usize..5, 1..40),
    ) {
        let options = stops.iter().fold(GenerationOptions::neutral(), |o, s| o.with_stop(s));
        let mut rules = StopRules::new(&options, &[]);
        let chars: Vec<char> = text.chars().collect();
        let mut sizes = sizes.into_iter().cycle();
        let (mut out, mut at, mut stopped) = (String::new(), 0, false);
        while at < chars.len() && !stopped {
            let end = chars.len().min(at + sizes.next().unwrap());
            let released = rules.push(&chars[at..end].iter().collect::<String>());
            out.push_str(&released.text);
            stopped = released.stopped_by.is_some();
            at = end;
        }
        if !stopped {
            out.push_str(&rules.finish());
        }
        // The definition: cut at the match that ends first, and of those at the one that starts first.
        let matches = stops.iter().filter_map(|s| text.find(s.as_str()).map(|start| (start + s.len(), start)));
        let expected = matches.min().map_or(text.as_str(), |(_, start)| &text[..start]);
        prop_assert_eq!(out, expected);
    }
}

#[test]
fn only_the_named_special_tokens_are_shown() {
    let ids = [6, BYTES + u32::from(b'x'), 10, 7];
    let only = SpecialText::Only([10].into());
    assert_eq!(streamed(&ids, only).concat(), "x<|tool_call_start|>");
}
