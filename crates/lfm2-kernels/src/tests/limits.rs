//! Limits are times, so these tests hold that all the work is done, not how long it takes.

use proptest::prelude::*;

use super::{config, isas};
use crate::limits::read::Read;
use crate::limits::{Arithmetic, Memory, parts, peak};

#[test]
fn every_value_is_read_once() {
    for isa in isas() {
        for units in [1, 2, 5] {
            let data: Vec<f32> = (0..units * 128).map(|i| (i % 7) as f32).collect();
            let sum: f32 = data.iter().sum();
            for ahead in [0, 4096] {
                let data = &data;
                assert_eq!(isa.run(Read::<1> { data, ahead }), sum, "{isa}");
                assert_eq!(isa.run(Read::<4> { data, ahead }), sum, "{isa}");
            }
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn threads_share_all_of_the_memory(bytes in 0..20_000_usize, threads in 0..9_usize) {
        let memory = Memory::new(bytes);
        prop_assert!(memory.bytes() >= bytes.max(1));
        let values = memory.values();
        prop_assert_eq!(size_of_val(values), memory.bytes());
        let parts = parts(values, threads);
        prop_assert!(parts.len() <= threads.max(1));
        let sum: usize = parts.iter().map(|part| part.len()).sum();
        prop_assert_eq!(sum, values.len());
        prop_assert!(parts.iter().all(|part| part.len().is_multiple_of(128)));
    }
}

#[test]
fn memory_is_never_less_than_was_asked_for() {
    // Whole units and a byte.
    for bytes in [0, 1, 511, 512, 513, 3073] {
        assert!(Memory::new(bytes).bytes() >= bytes.max(1), "{bytes}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "too much arithmetic")]
fn every_instruction_set_has_limits() {
    let memory = Memory::new(1 << 16);
    for isa in isas() {
        for threads in [1, 2] {
            let rate = memory.read_rate(isa, threads);
            assert!(rate.is_finite() && rate > 0.0, "{isa} {rate}");
            let again = memory.read_rate_of(1 << 12, isa, threads);
            assert!(again.is_finite() && again > 0.0, "{isa} {again}");
        }
        for arithmetic in [Arithmetic::F32, Arithmetic::Int8] {
            let rate = peak(isa, 1, arithmetic).unwrap();
            assert!(
                rate.is_finite() && rate > 0.0,
                "{isa} {arithmetic:?} {rate}"
            );
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn only_avx512_multiplies_bf16() {
    let has = is_x86_feature_detected!("avx512bf16");
    for isa in isas() {
        let rate = peak(isa, 1, Arithmetic::Bf16);
        assert_eq!(rate.is_some(), has && isa.name() == "avx512", "{isa}");
    }
}
