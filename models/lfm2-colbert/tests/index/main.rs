//! Indexes as a caller sees them: what goes in comes out, whatever happens to the files.

mod changes;
mod damage;
mod disk_full;
#[cfg(feature = "plaid")]
mod plaid;
mod readers;
mod search;
mod support;
