//! Any JSON read as a config gives a model's facts or an error, and facts can be used.

#![no_main]

use lfm2_text::TextConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(json) = serde_json::from_slice(bytes) else {
        return;
    };
    let Ok(config) = TextConfig::from_json(&json) else {
        return;
    };
    // A config may describe a model of absurd size; listing its tensors is bounded by the limits on
    // layers and experts, but not worth the time here.
    let experts = config.moe.map_or(1, |moe| moe.experts);
    if config.layers.len() * experts <= 4096 {
        assert!(!config.tensors().is_empty());
        let _ = (config.parameters(), config.active_parameters());
    }
    let _ = (config.to_string(), config.cache_layout().replay_len());
});
