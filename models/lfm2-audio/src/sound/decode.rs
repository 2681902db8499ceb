//! Decoding sound files of strangers: sizes are counted while decoding, never taken from a header, and
//! a panic of the decoder ends the file, not the program.

use std::fs::File;
use std::io::{Cursor, ErrorKind as IoKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use lfm2_hub::{Error, Result};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::common::Limit;
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use super::{Clip, SoundLimits, invalid, mix_down};

/// Bytes of a tag or picture that are read at all; nobody looks at them.
const METADATA_BYTES: usize = 64 << 10;
/// Bytes at the start in which a codec inside Ogg names itself.
const SNIFFED: usize = 512;
/// What can be read, for messages.
const KNOWN: &str = "wav, flac, mp3 and ogg/vorbis are read; convert it to one of them";

/// Formats that people try, by what their files contain near the start.
const FOREIGN: [(&[u8], Option<usize>, &str); 7] = [
    (b"OpusHead", None, "sound in opus"),
    (b"ftyp", Some(4), "sound in mp4 or m4a"),
    (b"\x1A\x45\xDF\xA3", Some(0), "sound in matroska or webm"),
    (b"FORM", Some(0), "sound in aiff"),
    (b"#!AMR", Some(0), "sound in amr"),
    (b"\x30\x26\xB2\x75", Some(0), "sound in wma"),
    (b"caff", Some(0), "sound in caf"),
];

pub(super) fn open(path: &Path, limits: &SoundLimits) -> Result<Clip> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One byte more than allowed tells a file of the exact size from a longer one.
        let most = limits.max_bytes.saturating_add(1);
        File::open(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| Error::io(path, source))?;
    decode(bytes, limits).map_err(|error| match error {
        Error::InvalidInput(detail) => invalid(format!("{}: {detail}", path.display())),
        other => other,
    })
}

pub(super) fn decode(bytes: Vec<u8>, limits: &SoundLimits) -> Result<Clip> {
    limits.check_bytes(bytes.len() as u64)?;
    if let Some(what) = foreign(&bytes) {
        return Err(Error::Unsupported {
            what: what.to_owned(),
            hint: KNOWN.to_owned(),
        });
    }
    guarded(|| Decoding::start(bytes, limits)?.run())
}

fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let head = bytes.get(..SNIFFED).unwrap_or(bytes);
    let found = FOREIGN.iter().find(|(magic, at, _)| match at {
        Some(at) => head.get(*at..).is_some_and(|rest| rest.starts_with(magic)),
        None => head.windows(magic.len()).any(|window| window == *magic),
    });
    found.map(|(_, _, name)| *name)
}

/// Runs a decoder; its panic is an error.
fn guarded<T>(decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(invalid("the decoder failed on this sound file")))
}

/// A file being decoded.
struct Decoding<'a> {
    reader: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    limits: &'a SoundLimits,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
    rate: Option<u32>,
}

impl<'a> Decoding<'a> {
    fn start(bytes: Vec<u8>, limits: &'a SoundLimits) -> Result<Self> {
        let source = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
        let metadata = MetadataOptions::default()
            .limit_tag_bytes(Limit::Maximum(METADATA_BYTES))
            .limit_visual_bytes(Limit::Maximum(METADATA_BYTES));
        let reader = symphonia::default::get_probe()
            .probe(&Hint::new(), source, FormatOptions::default(), metadata)
            .map_err(|error| match error {
                // Nobody knows it, so it is nothing that could be supported.
                SymphoniaError::Unsupported(why) if why.starts_with("core (probe)") => {
                    invalid(format!("not a sound file: {KNOWN}"))
                }
                error => unreadable(error),
            })?;
        let (track, decoder) = decoder(reader.as_ref())?;
        Ok(Self {
            reader,
            decoder,
            track,
            limits,
            interleaved: Vec::new(),
            mono: Vec::new(),
            rate: None,
        })
    }

    fn run(mut self) -> Result<Clip> {
        let mut skipped = 0usize;
        loop {
            match self.next() {
                Ok(true) => {}
                Ok(false) => break,
                Err(Stop::Packet) => skipped += 1,
                Err(Stop::Cut(why)) => {
                    tracing::warn!(samples = self.mono.len(), %why, "sound file ends early");
                    break;
                }
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        if skipped > 0 {
            tracing::warn!(skipped, "damaged packets of a sound file were left out");
        }
        match self.rate {
            Some(rate) => Clip::new(self.mono, rate),
            None => Err(invalid("no sound could be decoded")),
        }
    }

    /// Decodes one packet; `false` at the end.
    fn next(&mut self) -> Result<bool, Stop> {
        let packet = match self.reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(false),
            Err(SymphoniaError::ResetRequired) => {
                (self.track, self.decoder) = decoder(self.reader.as_ref())?;
                return Ok(true);
            }
            Err(SymphoniaError::IoError(error)) if error.kind() == IoKind::UnexpectedEof => {
                return Err(Stop::Cut(error.to_string()));
            }
            Err(SymphoniaError::DecodeError(why)) => return Err(Stop::Cut(why.to_owned())),
            Err(error) => return Err(Stop::Failed(unreadable(error))),
        };
        if packet.track_id != self.track {
            return Ok(true);
        }
        let decoded = match self.decoder.decode(&packet) {
            Ok(decoded) => decoded,
            Err(SymphoniaError::DecodeError(_) | SymphoniaError::IoError(_)) => {
                return Err(Stop::Packet);
            }
            Err(error) => return Err(Stop::Failed(unreadable(error))),
        };
        let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
        self.limits.check_format(rate, channels)?;
        let known = *self.rate.get_or_insert(rate);
        if known != rate {
            let detail = format!("the sample rate changes from {known} to {rate}");
            return Err(Stop::Failed(invalid(detail)));
        }
        self.limits
            .check_len(self.mono.len() + decoded.frames(), rate)?;
        decoded.copy_to_vec_interleaved(&mut self.interleaved);
        mix_down(&self.interleaved, channels, &mut self.mono);
        Ok(true)
    }
}

/// Why a packet gave no sound.
enum Stop {
    /// This packet is damaged, the next may not be.
    Packet,
    /// There is nothing behind it.
    Cut(String),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The sound track of a file and a decoder for it.
fn decoder(reader: &dyn FormatReader) -> Result<(u32, Box<dyn AudioDecoder>)> {
    let track = reader
        .default_track(TrackType::Audio)
        .ok_or_else(|| invalid("a file without sound"))?;
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(invalid("a sound track that does not say how it is coded"));
    };
    let decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(unreadable)?;
    Ok((track.id, decoder))
}

fn unreadable(error: SymphoniaError) -> Error {
    match error {
        SymphoniaError::Unsupported(what) => Error::Unsupported {
            what: format!("this sound file ({what})"),
            hint: KNOWN.to_owned(),
        },
        error => invalid(format!("not a sound file that can be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn au_06_a_panic_of_the_decoder_is_an_error() {
        let found = guarded::<()>(|| {
            let nothing: Option<()> = None;
            nothing.ok_or(()).unwrap();
            Ok(())
        });
        assert_eq!(found.unwrap_err().kind(), lfm2_hub::ErrorKind::InvalidInput);
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        let opus = [b"OggS".as_slice(), &[0; 24], b"OpusHead"].concat();
        for (bytes, name) in [
            (opus, "opus"),
            (b"\0\0\0\x20ftypM4A ".to_vec(), "m4a"),
            (b"\x1A\x45\xDF\xA3\0\0".to_vec(), "webm"),
        ] {
            let error = decode(bytes, &SoundLimits::default()).unwrap_err();
            assert_eq!(error.kind(), lfm2_hub::ErrorKind::Unsupported);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
