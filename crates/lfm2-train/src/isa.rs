//! Which instructions the loops of training use.

use std::sync::OnceLock;

use lfm2_kernels::Isa;

/// What the environment says, or the best of this machine; a setting that means nothing is an error of the
/// model's operations, which come first.
pub(crate) fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| Isa::from_env().unwrap_or_else(|_| Isa::best()))
}
