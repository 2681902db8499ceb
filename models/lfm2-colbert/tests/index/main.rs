//! Indexes as a caller sees them: what goes in comes out, whatever happens to the files.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

mod changes;
mod damage;
mod disk_full;
#[cfg(feature = "plaid")]
mod plaid;
mod readers;
mod search;
mod support;
