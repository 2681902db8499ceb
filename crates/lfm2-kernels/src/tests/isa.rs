use crate::{Isa, IsaError};

#[test]
fn every_available_isa_is_found_by_its_name() {
    for isa in Isa::available() {
        assert_eq!(Isa::parse(isa.name()), Ok(isa));
        assert_eq!(isa.to_string(), isa.name());
    }
    assert_eq!(Isa::available().last(), Some(&Isa::best()));
    assert_eq!(Isa::available()[0].name(), "scalar");
}

#[test]
fn unknown_isa_names_are_errors() {
    for name in ["", "AVX2", "avx", "neon2", "scalar "] {
        assert_eq!(
            Isa::parse(name),
            Err(IsaError::Unknown {
                name: name.to_owned()
            })
        );
    }
    let message = Isa::parse("sse9").unwrap_err().to_string();
    assert_eq!(
        message,
        "LFM2_ISA: expected one of scalar, avx2, avxvnni, avx512, neon, dotprod, i8mm, found \"sse9\""
    );
}

#[test]
fn known_names_are_never_unknown() {
    for name in Isa::NAMES {
        assert!(!matches!(Isa::parse(name), Err(IsaError::Unknown { .. })));
    }
}

#[test]
fn names_of_other_processors_are_known_but_unavailable() {
    let others: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["neon", "dotprod", "i8mm"],
        "aarch64" => &["avx2", "avxvnni", "avx512"],
        _ => &["avx2", "avxvnni", "avx512", "neon", "dotprod", "i8mm"],
    };
    for name in others {
        let message = Isa::parse(name).unwrap_err().to_string();
        assert_eq!(message, format!("LFM2_ISA: this CPU has no {name}"));
    }
}
