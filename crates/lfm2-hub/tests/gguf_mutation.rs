//! Whatever happens to the bytes of a GGUF file, reading it gives a model or an error.

mod gguf_support;

use candle_core::{DType, Device};
use gguf_support::{Gguf, open};
use proptest::prelude::*;

/// One change of a file.
#[derive(Debug, Clone)]
enum Change {
    Flip {
        at: prop::sample::Index,
        mask: u8,
    },
    Set {
        at: prop::sample::Index,
        value: u64,
    },
    Cut {
        at: prop::sample::Index,
        count: usize,
    },
    Insert {
        at: prop::sample::Index,
        bytes: Vec<u8>,
    },
    Truncate {
        at: prop::sample::Index,
    },
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip { at, mask } => {
                let at = at.index(bytes.len());
                bytes[at] ^= mask;
            }
            Self::Set { at, value } => {
                let at = at.index(bytes.len());
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            Self::Cut { at, count } => {
                let at = at.index(bytes.len());
                let end = (at + count).min(bytes.len());
                bytes.drain(at..end);
            }
            Self::Insert { at, bytes: new } => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Truncate { at } => {
                let at = at.index(bytes.len());
                bytes.truncate(at);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let extreme = prop::sample::select(vec![0, 1, u64::MAX, 1 << 31, 1 << 32, 1 << 62, 1 << 63]);
    prop_oneof![
        4 => (at(), 1u8..).prop_map(|(at, mask)| Change::Flip { at, mask }),
        3 => (at(), extreme).prop_map(|(at, value)| Change::Set { at, value }),
        1 => (at(), 1usize..64).prop_map(|(at, count)| Change::Cut { at, count }),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..64)).prop_map(|(at, bytes)| Change::Insert { at, bytes }),
        1 => at().prop_map(|at| Change::Truncate { at }),
    ]
}

/// Opens a file and uses everything it offers.
fn exercise(bytes: Vec<u8>) {
    let Ok(file) = open(bytes) else { return };
    let _ = (
        file.config(),
        file.generation_config(),
        file.chat_template().is_ok(),
    );
    if let Ok(tokenizer) = file.tokenizer() {
        let _ = tokenizer.encode("ab ba", lfm2_hub::SpecialTokens::Parse, lfm2_hub::Bos::Add);
    }
    let tensors = file.tensors();
    for name in tensors.names() {
        let info = tensors.info(&name).expect("a listed tensor has facts");
        let tensor = tensors
            .dense(&name, DType::F32, &Device::Cpu)
            .expect("a checked tensor loads");
        assert_eq!(tensor.dims(), info.shape);
        let _ = tensors
            .quantized(&name, &Device::Cpu)
            .expect("a checked tensor loads");
    }
}

/// The head of the tiny file is where faults matter; this bounds it generously.
const HEAD: usize = 4096;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_damaged_file_never_panics(changes in prop::collection::vec(change(), 1..4)) {
        let mut bytes = Gguf::tiny().build();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        exercise(bytes);
    }

    #[test]
    fn a_damaged_head_never_panics(changes in prop::collection::vec(change(), 1..3)) {
        let mut head = Gguf::tiny().build();
        let data = head.split_off(HEAD.min(head.len()));
        changes.iter().for_each(|change| change.apply(&mut head));
        head.extend(data);
        exercise(head);
    }
}
