//! Everything against the references: encoders, scores, metrics.
//!
//! The committed cases are in this folder; `LFM2_GOLDEN=DIR` adds all of `DIR/colbert`.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod encoder;
mod gradients;
mod maxsim;
mod metrics;
