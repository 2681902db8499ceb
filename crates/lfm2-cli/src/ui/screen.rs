//! Text on the way to a terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

/// Writes text to stdout at once. A pipe gets it as it is, a terminal without control characters.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let text = match out.is_terminal() {
        true => visible(text),
        false => Cow::Borrowed(text),
    };
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The text with a replacement for every control character but newline and tab: what a model or a
/// file says must not be able to move the cursor or to talk with the terminal.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(hostile) {
        Cow::Owned(text.replace(hostile, "\u{FFFD}"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced_and_others_kept() {
        assert_eq!(
            visible("a\x1b[2Jb\u{9b}c\rd\x07"),
            "a\u{FFFD}[2Jb\u{FFFD}c\u{FFFD}d\u{FFFD}"
        );
        let harmless = "one\ttwo\nthree \u{202E} \u{1F600}";
        assert!(matches!(visible(harmless), Cow::Borrowed(text) if text == harmless));
    }
}
