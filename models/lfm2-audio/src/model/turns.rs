//! When the model writes and when it speaks: the rules of both ways of generation, without a model.

use super::SpecialIds;
use crate::config::AudioConfig;

/// How text and audio take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Text until a token asks for audio, audio until it ends: transcription and reading aloud.
    Sequential,
    /// A few tokens and a few frames in turn: speech chat.
    Interleaved,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Audio,
}

/// What becomes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Emit,
    EmitAndEnd,
    /// The turn is over, and the token no part of it.
    End,
}

/// The state between two steps.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    mode: Mode,
    special: SpecialIds,
    /// Tokens and frames per turn.
    share: [i64; 2],
    next: Kind,
    /// Steps left in this turn. An early end of audio leaves its rest to the text, and text that is
    /// over leaves it to nobody, so it may fall below zero.
    left: i64,
    text_done: bool,
}

impl Turns {
    pub(super) fn new(mode: Mode, config: &AudioConfig, special: SpecialIds) -> Self {
        let share = [config.interleaved_text, config.interleaved_audio]
            .map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        Self {
            mode,
            special,
            share,
            next: Kind::Text,
            left: share[0],
            text_done: false,
        }
    }

    pub(super) fn next(&self) -> Kind {
        self.next
    }

    /// Takes a sampled text token.
    pub(super) fn text(&mut self, id: u32) -> Verdict {
        let ends = id == self.special.end_of_turn;
        match self.mode {
            Mode::Sequential => {
                if id == self.special.audio_start {
                    self.next = Kind::Audio;
                }
                if ends {
                    Verdict::EmitAndEnd
                } else {
                    Verdict::Emit
                }
            }
            Mode::Interleaved => {
                self.left -= 1;
                if ends {
                    return Verdict::End;
                }
                self.text_done |= id == self.special.text_end;
                if self.left == 0 || self.text_done {
                    self.next = Kind::Audio;
                    self.left = self.share[1];
                }
                Verdict::Emit
            }
        }
    }

    /// Takes a sampled frame, which is always emitted.
    pub(super) fn frame(&mut self, is_end: bool) {
        if self.mode == Mode::Interleaved {
            self.left -= 1;
            if self.left == 0 && !self.text_done {
                self.next = Kind::Text;
                self.left = self.share[0];
            }
        }
        if is_end {
            self.next = Kind::Text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: SpecialIds = SpecialIds {
        end_of_turn: 7,
        audio_start: 128,
        text_end: 130,
    };

    fn turns(mode: Mode) -> Turns {
        Turns {
            mode,
            special: SPECIAL,
            share: [2, 3],
            next: Kind::Text,
            left: 2,
            text_done: false,
        }
    }

    #[test]
    fn sequential_audio_runs_between_its_start_and_its_end() {
        let mut turns = turns(Mode::Sequential);
        assert_eq!(turns.text(50), Verdict::Emit);
        assert_eq!(turns.text(130), Verdict::Emit);
        assert_eq!(turns.next(), Kind::Text);
        assert_eq!(turns.text(128), Verdict::Emit);
        for _ in 0..20 {
            assert_eq!(turns.next(), Kind::Audio);
            turns.frame(false);
        }
        turns.frame(true);
        assert_eq!(turns.next(), Kind::Text);
        assert_eq!(turns.text(7), Verdict::EmitAndEnd);
    }

    #[test]
    fn interleaved_turns_have_their_lengths() {
        let mut turns = turns(Mode::Interleaved);
        let mut seen = String::new();
        for _ in 0..12 {
            match turns.next() {
                Kind::Text => {
                    assert_eq!(turns.text(128), Verdict::Emit, "128 means nothing here");
                    seen.push('t');
                }
                Kind::Audio => {
                    turns.frame(false);
                    seen.push('a');
                }
            }
        }
        assert_eq!(seen, "ttaaattaaatt");
        assert_eq!(turns.text(7), Verdict::End);
    }

    #[test]
    fn text_end_hands_over_until_the_audio_ends() {
        let mut turns = turns(Mode::Interleaved);
        assert_eq!(turns.text(130), Verdict::Emit);
        for _ in 0..20 {
            assert_eq!(turns.next(), Kind::Audio);
            turns.frame(false);
        }
        turns.frame(true);
        assert_eq!(turns.next(), Kind::Text);
        // One more token goes straight back to audio.
        assert_eq!(turns.text(50), Verdict::Emit);
        assert_eq!(turns.next(), Kind::Audio);
    }

    #[test]
    fn an_early_end_of_audio_leaves_its_rest_to_the_text() {
        let mut turns = turns(Mode::Interleaved);
        turns.text(50);
        turns.text(50);
        turns.frame(true);
        assert_eq!(turns.next(), Kind::Text);
        // Two steps of the audio's three are left.
        turns.text(50);
        assert_eq!(turns.next(), Kind::Text);
        turns.text(50);
        assert_eq!(turns.next(), Kind::Audio);
    }
}
