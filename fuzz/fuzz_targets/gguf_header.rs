//! Any bytes opened as a GGUF file give a model or an error, and what opens can be used.

#![no_main]

use lfm2_hub::Limits;
use lfm2_hub::gguf::GgufFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = GgufFile::from_bytes("fuzz.gguf", bytes.to_vec(), &Limits::default()) else {
        return;
    };
    let tensors = file.tensors();
    for name in tensors.names() {
        assert!(tensors.info(&name).is_some());
    }
    let _ = (file.config(), file.generation_config());
    let _ = file.chat_template();
    let _ = file.tokenizer();
});
