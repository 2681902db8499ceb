//! Any bytes opened as a safetensors file give tensors or an error.

#![no_main]

use lfm2_hub::{Limits, SafetensorsSource, TensorSource};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) =
        SafetensorsSource::from_bytes("fuzz.safetensors", bytes.to_vec(), &Limits::default())
    else {
        return;
    };
    for name in source.names() {
        assert!(source.info(&name).is_some());
    }
});
