//! Any answer of a model is reasoning, content and calls, the same in pieces as whole, and calls
//! that were read can be written and read again.

#![no_main]

use lfm2_generate::{ToolCallStream, ToolOutput, tools, write_calls};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, u8)| {
    let (text, step) = input;
    let whole = tools::parse(text);
    let mut stream = ToolCallStream::new();
    let mut events = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut end = (usize::from(step) % 16 + 1).min(rest.len());
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        let (piece, after) = rest.split_at(end);
        events.extend(stream.push(piece));
        rest = after;
    }
    events.extend(stream.finish());
    let pieces: ToolOutput = events.into_iter().collect();
    assert_eq!(pieces, whole);
    if let Ok(written) = write_calls(&whole.calls) {
        assert_eq!(tools::parse(&written).calls, whole.calls);
    }
});
