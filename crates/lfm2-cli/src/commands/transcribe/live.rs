//! `lfm2 transcribe --live`: sound that is still arriving.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use lfm2::Cancel;
use lfm2::speech::{AudioModel, GenerationOptions, LiveOptions, LiveText};
use serde::Serialize;

use crate::args::TranscriptFormat;
use crate::exit::invalid;
use crate::ui::{json_line, screen};

/// Bytes that are read at a time, and how often so much may wait: half a minute at 16 kHz.
const CHUNK: usize = 8 << 10;
const WAITING: usize = 128;
/// How long Ctrl-C may go unnoticed while nothing arrives.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Words that are new and stay.
    settled: &'a str,
    /// The words behind them, which may still change.
    tentative: &'a str,
    /// Whether a sentence ended here.
    ends: bool,
}

pub(super) fn run(
    model: &AudioModel,
    rate: u32,
    options: &GenerationOptions,
    format: TranscriptFormat,
    cancel: &Cancel,
) -> Result<()> {
    if format == TranscriptFormat::Srt {
        return Err(invalid("subtitles are of a file, not of --live"));
    }
    let mut live = model.live(rate, LiveOptions::default(), options)?;
    eprintln!(
        "listening to 16-bit mono PCM at {rate} samples a second; this is approximate, and words may differ from those of a file"
    );
    let mut samples = Samples::default();
    let arrived = read_ahead();
    loop {
        if cancel.is_cancelled() {
            break;
        }
        match arrived.recv_timeout(POLL) {
            Ok(bytes) => {
                let bytes = std::iter::once(bytes).chain(arrived.try_iter());
                for bytes in bytes {
                    live.push(samples.take(&bytes.context("reading stdin")?))?;
                }
                if let Some(text) = live.update()? {
                    write(&text, format)?;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    write(&live.finish()?, format)
}

fn write(text: &LiveText, format: TranscriptFormat) -> Result<()> {
    if format == TranscriptFormat::Json {
        return json_line(&Line {
            settled: &text.settled,
            tentative: &text.tentative,
            ends: text.ends,
        });
    }
    let mut words = text.settled.clone();
    if text.ends {
        words.push('\n');
    } else if !words.is_empty() {
        words.push(' ');
    }
    Ok(screen::print(&words)?)
}

/// Reads stdin on a thread of its own, so that nothing is lost while the model listens. When too much
/// waits, so does whoever writes.
fn read_ahead() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::sync_channel(WAITING);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut bytes = vec![0; CHUNK];
            let sent = match stdin.read(&mut bytes) {
                Ok(0) => return,
                Ok(read) => {
                    bytes.truncate(read);
                    sender.send(Ok(bytes))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // Nobody listens any more, or hears of it.
                    let _ = sender.send(Err(error));
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Turns bytes into samples; half a sample waits for the other.
#[derive(Debug, Default)]
struct Samples {
    half: Option<u8>,
    values: Vec<f32>,
}

impl Samples {
    fn take(&mut self, bytes: &[u8]) -> &[f32] {
        self.values.clear();
        for &byte in bytes {
            match self.half.take() {
                None => self.half = Some(byte),
                Some(low) => {
                    let sample = i16::from_le_bytes([low, byte]);
                    self.values.push(f32::from(sample) / 32_768.0);
                }
            }
        }
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_may_be_cut_anywhere() {
        let mut samples = Samples::default();
        assert!(samples.take(&[0x00]).is_empty());
        assert_eq!(samples.take(&[0x40, 0x00, 0xC0, 0x01]), [0.5, -0.5]);
        assert!(samples.take(&[]).is_empty());
        assert_eq!(samples.take(&[0x80]), [f32::from(i16::MIN + 1) / 32_768.0]);
    }
}
