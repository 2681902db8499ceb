//! Numbers on the command line, with messages that say which ones are expected.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

/// Threads per core that are still taken for a wish and not for a slip.
const THREADS_PER_CORE: usize = 4;

/// A whole number, which may be 0.
pub(crate) fn whole(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "expected a whole number from 0".to_owned())
}

/// A whole number from 1.
pub(crate) fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    let number = whole(text).ok().and_then(NonZeroUsize::new);
    number.ok_or_else(|| "expected a whole number, at least 1".to_owned())
}

/// A number of threads that this machine can make sense of. Threads wait for each other after every
/// operation, so that far too many of them seem to stand still.
pub(crate) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    up_to(at_least_one(text)?, cores)
}

fn up_to(threads: NonZeroUsize, cores: usize) -> Result<NonZeroUsize, String> {
    let most = cores.saturating_mul(THREADS_PER_CORE);
    if threads.get() <= most {
        return Ok(threads);
    }
    Err(format!(
        "expected 1 to {most}, {THREADS_PER_CORE} for each of the {cores} cores"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_what_is_no_number_are_told_apart_from_numbers() {
        assert_eq!(whole("0"), Ok(0));
        assert_eq!(at_least_one("7").map(NonZeroUsize::get), Ok(7));
        for text in ["", "-1", "1.5", "many", "99999999999999999999999"] {
            assert!(whole(text).unwrap_err().contains("from 0"), "{text}");
            assert!(at_least_one(text).is_err(), "{text}");
        }
        assert!(at_least_one("0").unwrap_err().contains("at least 1"));
    }

    #[test]
    fn threads_follow_from_the_cores() {
        let try_with = |threads, cores| up_to(NonZeroUsize::new(threads).unwrap(), cores);
        assert!(try_with(8, 2).is_ok() && try_with(1, 1).is_ok());
        let message = try_with(9, 2).unwrap_err();
        assert_eq!(message, "expected 1 to 8, 4 for each of the 2 cores");
        assert!(threads("1").is_ok() && threads("0").is_err());
    }
}
