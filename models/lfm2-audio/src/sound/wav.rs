//! Writing WAV files: 16-bit mono.

use std::io::{Cursor, Write};
use std::path::Path;

use hound::{SampleFormat, WavSpec, WavWriter};
use lfm2_hub::{Error, Overwrite, Result, write_atomic};

/// The bytes of a 16-bit mono WAV file; samples beyond -1..1 are clipped.
///
/// # Errors
/// When the samples do not fit in a WAV file (4 GiB).
pub fn wav_bytes(samples: &[f32], rate: u32) -> Result<Vec<u8>> {
    let spec = WavSpec {
        channels: 1,
        sample_rate: rate,
        bits_per_sample: 16,
        sample_format: SampleFormat::Int,
    };
    let mut bytes = Vec::with_capacity(44 + 2 * samples.len());
    let failed = |error: hound::Error| Error::InvalidInput(format!("writing wav: {error}"));
    let mut writer = WavWriter::new(Cursor::new(&mut bytes), spec).map_err(failed)?;
    for sample in samples {
        let scaled = (sample * 32_767.0).round().clamp(-32_768.0, 32_767.0);
        writer.write_sample(scaled as i16).map_err(failed)?;
    }
    writer.finalize().map_err(failed)?;
    Ok(bytes)
}

/// Writes such a file, completely or not at all; an existing file is replaced.
///
/// # Errors
/// As [`wav_bytes`], and when the file cannot be written.
pub fn write_wav(path: &Path, samples: &[f32], rate: u32) -> Result<()> {
    let bytes = wav_bytes(samples, rate)?;
    write_atomic(path, Overwrite::Replace, |file| {
        file.write_all(&bytes)
            .map_err(|source| Error::io(path, source))
    })
}
