//! Any bytes are a sound or an error, and any sound has finite features of the length it should.

#![no_main]

use lfm2_audio::{Clip, MelConfig, MelFrontEnd, SoundLimits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Short, so that an input that reaches the end is not slow.
    let limits = SoundLimits::default()
        .with_max_seconds(5)
        .with_max_bytes(1 << 20);
    let Ok(clip) = Clip::decode(bytes.to_vec(), &limits) else {
        return;
    };
    assert!(clip.seconds() <= 5.0);
    let Ok(front) = MelFrontEnd::new(MelConfig::default()) else {
        return;
    };
    // Rates with nothing in common are refused.
    if let Ok(mel) = front.features(&clip) {
        assert!(mel.frames() >= 9);
        assert!(mel.values().iter().all(|value| value.is_finite()));
    }
});
