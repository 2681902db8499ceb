//! Sounds of strangers: every row of the table of bad inputs about audio.
#![cfg(feature = "audio-files")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod support;

use lfm2_audio::{
    Clip, END_CODE, Frame, MelConfig, MelFrontEnd, SoundLimits, shapes, wav_bytes, write_wav,
};
use lfm2_hub::{ErrorKind, Result};
use proptest::prelude::*;
use support::random::{Numbers, source, tensors};

fn decode(bytes: Vec<u8>) -> Result<Clip> {
    Clip::decode(bytes, &SoundLimits::default())
}

fn kind(bytes: Vec<u8>) -> ErrorKind {
    decode(bytes).unwrap_err().kind()
}

/// A WAV file with any header.
struct Wav {
    format: u16,
    channels: u16,
    rate: u32,
    bits: u16,
    claimed: Option<u32>,
    data: Vec<u8>,
}

impl Wav {
    fn pcm(data: Vec<u8>) -> Self {
        Self {
            format: 1,
            channels: 1,
            rate: 16_000,
            bits: 16,
            claimed: None,
            data,
        }
    }

    fn floats(samples: &[f32]) -> Self {
        let bytes = samples.iter().flat_map(|s| s.to_le_bytes());
        Self {
            format: 3,
            bits: 32,
            ..Self::pcm(bytes.collect())
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let align = self.channels * (self.bits / 8);
        let claimed = self.claimed.unwrap_or(self.data.len() as u32);
        let mut out = b"RIFF".to_vec();
        out.extend(claimed.saturating_add(36).to_le_bytes());
        out.extend(b"WAVEfmt ");
        out.extend(16u32.to_le_bytes());
        out.extend(self.format.to_le_bytes());
        out.extend(self.channels.to_le_bytes());
        out.extend(self.rate.to_le_bytes());
        out.extend((self.rate.wrapping_mul(u32::from(align))).to_le_bytes());
        out.extend(align.to_le_bytes());
        out.extend(self.bits.to_le_bytes());
        out.extend(b"data");
        out.extend(claimed.to_le_bytes());
        out.extend(&self.data);
        out
    }
}

fn tone(samples: usize) -> Vec<f32> {
    (0..samples).map(|t| (t as f32 * 0.1).sin() * 0.5).collect()
}

/// A FLAC stream of silence, 4,096 samples a frame, at a few bytes each.
fn silent_flac(frames: u32, claimed: u64) -> Vec<u8> {
    let mut out = b"fLaC".to_vec();
    out.extend([0x80, 0, 0, 34]);
    out.extend(4096u16.to_be_bytes());
    out.extend(4096u16.to_be_bytes());
    out.extend([0; 6]);
    // 20 bits of rate (8 kHz), 3 of channels - 1, 5 of bits - 1, 36 of samples.
    let packed = (8_000u64 << 44) | (15u64 << 36) | (claimed & ((1 << 36) - 1));
    out.extend(packed.to_be_bytes());
    out.extend([0; 16]);
    for number in 0..frames {
        // Fixed block size of 4,096, 8 kHz, mono, 16 bits.
        let mut frame = vec![0xFF, 0xF8, 0xC4, 0x08];
        let mut coded = [0; 4];
        let number = char::from_u32(number).map_or("\0", |c| c.encode_utf8(&mut coded));
        frame.extend(number.as_bytes());
        frame.push(crc8(&frame));
        // One constant subframe: the value 0.
        frame.extend([0x00, 0x00, 0x00]);
        let crc = crc16(&frame);
        frame.extend(crc.to_be_bytes());
        out.extend(frame);
    }
    out
}

fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| {
            (crc << 1) ^ (if crc & 0x80 != 0 { 7 } else { 0 })
        })
    })
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            (crc << 1) ^ (if crc & 0x8000 != 0 { 0x8005 } else { 0 })
        })
    })
}

#[test]
fn au_01_files_without_sound_are_refused() {
    assert_eq!(kind(Vec::new()), ErrorKind::InvalidInput);
    assert_eq!(kind(b"RIFF".to_vec()), ErrorKind::InvalidInput);
    assert_eq!(kind(Wav::pcm(Vec::new()).bytes()), ErrorKind::InvalidInput);
    for magic in [
        &b""[..],
        b"fLaC",
        b"OggS\0\x02",
        b"ID3\x04",
        b"\xFF\xFB\x90\x64",
        b"RIFF\xFF\xFF\0\0WAVE",
    ] {
        let mut numbers = Numbers::new(magic.len() as u64 + 1);
        let noise = (0..20_000).map(|_| numbers.below(256) as u8);
        let bytes: Vec<u8> = magic.iter().copied().chain(noise).collect();
        if let Err(error) = decode(bytes) {
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::InvalidInput | ErrorKind::Unsupported),
                "{error}"
            );
        }
    }
}

#[test]
fn au_01_a_truncated_tail_is_left_out() {
    let whole = wav_bytes(&tone(16_000), 16_000).unwrap();
    let clip = decode(whole[..whole.len() / 2].to_vec()).unwrap();
    assert!(
        (6_000..=8_000).contains(&clip.samples().len()),
        "{}",
        clip.samples().len()
    );

    let flac = silent_flac(10, 40_960);
    assert_eq!(decode(flac.clone()).unwrap().samples().len(), 40_960);
    let cut = decode(flac[..flac.len() - 20].to_vec())
        .unwrap()
        .samples()
        .len();
    assert!(
        (4_096..40_960).contains(&cut) && cut.is_multiple_of(4_096),
        "{cut}"
    );
}

#[test]
fn au_02_claims_of_headers_allocate_nothing() {
    let lying = Wav {
        claimed: Some(u32::MAX - 36),
        ..Wav::pcm(vec![0, 1, 0, 1, 0, 1, 0, 1])
    };
    if let Ok(clip) = decode(lying.bytes()) {
        assert_eq!(clip.samples().len(), 4);
    }
    let clip = decode(silent_flac(3, (1 << 36) - 1)).unwrap();
    assert_eq!(clip.samples().len(), 3 * 4_096);
}

#[test]
fn au_03_decoding_stops_at_the_longest_duration() {
    // A few kilobytes of file, minutes of silence.
    let bomb = silent_flac(400, 0);
    assert!(bomb.len() < 8_000);
    let limits = SoundLimits::default().with_max_seconds(60);
    let error = Clip::decode(bomb.clone(), &limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    let limits = SoundLimits::default().with_max_bytes(1_000);
    assert_eq!(
        Clip::decode(bomb, &limits).unwrap_err().kind(),
        ErrorKind::Limit
    );
}

#[test]
fn au_04_rates_and_channels_out_of_range_are_refused() {
    for rate in [0, 1, 999, 768_000] {
        let wav = Wav {
            rate,
            ..Wav::pcm(vec![0; 3_200])
        };
        let kind = kind(wav.bytes());
        assert!(
            matches!(kind, ErrorKind::InvalidInput | ErrorKind::Limit),
            "{rate}: {kind:?}"
        );
    }
    for channels in [0, 9] {
        let wav = Wav {
            channels,
            ..Wav::pcm(vec![0; 18 * 100])
        };
        let kind = kind(wav.bytes());
        let refused = [
            ErrorKind::InvalidInput,
            ErrorKind::Limit,
            ErrorKind::Unsupported,
        ];
        assert!(refused.contains(&kind), "{channels}: {kind:?}");
        let limits = SoundLimits::default();
        assert!(Clip::from_interleaved(&[0.0; 18], channels.into(), 16_000, &limits).is_err());
    }
    let odd = Wav {
        rate: 7_919,
        ..Wav::pcm(vec![1; 7_919 * 2])
    };
    let clip = decode(odd.bytes()).unwrap();
    assert_eq!(clip.resampled(16_000).unwrap().samples().len(), 16_000);
}

#[test]
fn au_04_odd_samples_make_finite_features_or_none() {
    let front = MelFrontEnd::new(MelConfig::default()).unwrap();
    let square: Vec<f32> = (0..16_000)
        .map(|t| if t / 50 % 2 == 0 { 1.0 } else { -1.0 })
        .collect();
    for samples in [vec![0.3], vec![0.0; 16_000], square] {
        let clip = decode(Wav::floats(&samples).bytes()).unwrap();
        let mel = front.features(&clip).unwrap();
        assert!(mel.values().iter().all(|v| v.is_finite()));
        if samples.iter().all(|s| *s == 0.0) {
            assert!(
                mel.values().iter().all(|v| v.abs() < 1e-3),
                "silence is quiet"
            );
        }
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let mut samples = tone(1_000);
        samples[700] = bad;
        assert_eq!(kind(Wav::floats(&samples).bytes()), ErrorKind::InvalidInput);
        assert!(Clip::new(samples, 16_000).is_err());
    }
}

#[test]
fn au_05_metadata_of_any_size_is_skipped_or_refused() {
    // An ID3 tag that claims 256 MB in front of nothing.
    let mut tag = b"ID3\x04\0\0\x7F\x7F\x7F\x7F".to_vec();
    tag.extend([0; 1_000]);
    assert!(decode(tag).is_err());
    // A picture block of a megabyte in front of the sound.
    let flac = silent_flac(2, 8_192);
    let mut pictured = flac[..4].to_vec();
    pictured.extend([0x00, 0, 0, 34]);
    pictured.extend(&flac[8..42]);
    pictured.extend([0x86, 0x10, 0, 0]);
    pictured.extend(vec![0; 0x10_0000]);
    pictured.extend(&flac[42..]);
    match decode(pictured) {
        Ok(clip) => assert_eq!(clip.samples().len(), 8_192),
        Err(error) => assert_ne!(error.kind(), ErrorKind::Internal, "{error}"),
    }
}

#[test]
fn au_08_codes_out_of_range_are_errors_or_silence() {
    let config = {
        let mut config = lfm2_audio::MimiConfig::default();
        (config.dimension, config.filters, config.heads) = (8, 2, 1);
        (config.layers, config.ffn, config.code_width) = (1, 8, 2);
        config
    };
    let tensors = tensors(&shapes::mimi(&config), 1).unwrap();
    let mimi = lfm2_audio::Mimi::from_tensors(&config, source(&tensors).unwrap()).unwrap();
    for codes in [vec![1; 7], vec![1; 9], vec![END_CODE; 8], vec![u32::MAX; 8]] {
        assert!(mimi.decode(&[codes]).is_err());
    }
    // A frame may contain the end of audio without being it: it makes no sound.
    let vocoder = lfm2_audio::Vocoder::Mimi(Box::new(mimi));
    let mut stream = vocoder.stream();
    let mut codes = vec![5; 8];
    codes[3] = END_CODE;
    let frame = Frame::new(codes);
    assert!(!frame.is_end() && !frame.is_sound());
    assert!(vocoder.push(&mut stream, &frame).unwrap().is_empty());
    assert_eq!(
        vocoder
            .push(&mut stream, &Frame::new(vec![5; 8]))
            .unwrap()
            .len(),
        1_920
    );
    assert!(
        Frame::new(vec![END_CODE, 1, 2])
            .codes()
            .iter()
            .all(|c| *c == END_CODE)
    );
}

#[test]
fn files_that_are_written_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.wav");
    let samples = [tone(500), vec![2.0, -2.0]].concat();
    write_wav(&path, &samples, 24_000).unwrap();
    let clip = Clip::open(&path, &SoundLimits::default()).unwrap();
    assert_eq!((clip.rate(), clip.samples().len()), (24_000, 502));
    for (found, expected) in clip.samples().iter().zip(&samples) {
        assert!((found - expected.clamp(-1.0, 1.0)).abs() < 1e-4);
    }
    let missing = Clip::open(&folder.path().join("none.wav"), &SoundLimits::default());
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_files_never_panic(at in 0usize..2_000, value: u8, which in 0usize..2) {
        let mut bytes = match which {
            0 => wav_bytes(&tone(900), 16_000).unwrap(),
            _ => silent_flac(4, 16_384),
        };
        let at = at % bytes.len();
        bytes[at] = value;
        if let Err(error) = decode(bytes) {
            prop_assert_ne!(error.kind(), ErrorKind::Internal);
        }
    }

    #[test]
    fn features_of_any_samples_are_finite(samples in prop::collection::vec(-2f32..2.0, 1..3_000)) {
        let front = MelFrontEnd::new(MelConfig::default()).unwrap();
        let mel = front.features(&Clip::new(samples, 16_000).unwrap()).unwrap();
        prop_assert!(mel.values().iter().all(|v| v.is_finite()));
    }
}
