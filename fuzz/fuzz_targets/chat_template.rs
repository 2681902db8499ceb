//! Any template renders any conversation to text or to an error, and protecting the words of users
//! changes nothing but what is known about them.

#![no_main]

use lfm2_generate::{ChatTemplate, Message, RenderOptions, Spans, TemplateLimits, UserText};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (source, text) = input;
    let mut limits = TemplateLimits::default();
    // Small, so that an input that reaches them is not slow.
    limits.fuel = 10_000;
    limits.output_bytes = 64 << 10;
    let Ok(template) = ChatTemplate::with_limits(source, limits) else {
        return;
    };
    let conversation = [
        Message::system(text),
        Message::user(text),
        Message::assistant(text),
    ];
    let options = RenderOptions::default();
    let Ok(plain) = template.render(&conversation, &[], &options) else {
        return;
    };
    let options = options
        .user_text(UserText::Literal)
        .spans(Spans::Generation);
    if let Ok(marked) = template.render(&conversation, &[], &options) {
        // The clock may have moved between the two.
        assert!(marked.text == plain.text || source.contains("strftime_now"));
        for range in marked.literal.into_iter().chain(marked.generation) {
            assert!(marked.text.get(range).is_some());
        }
    }
});
