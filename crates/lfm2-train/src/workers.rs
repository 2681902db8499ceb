//! Micro-batches in parallel, results in order.
//!
//! A small model cannot keep many cores busy inside one operation, so each core gets a micro-batch
//! of its own and computes on one thread. Results are handed over in the order of the items, so a
//! sum of them does not depend on the number of threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use lfm2_nn::threads;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, Result};

/// A set of single-threaded workers.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Pools of one thread each: Candle's parallel operations inside a worker stay on its thread.
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// `threads` workers; 0 means one per core.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        let count = if threads == 0 {
            std::thread::available_parallelism().map_or(1, usize::from)
        } else {
            threads
        };
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build();
        let pools: std::result::Result<_, _> = (0..count).map(pool).collect();
        Ok(Self {
            pools: pools.map_err(|e| Error::option("threads", e.to_string()))?,
        })
    }

    /// The number of workers.
    pub(crate) fn count(&self) -> usize {
        self.pools.len()
    }

    /// Applies `work` to all items and passes the results to `take` in the items' order. After the
    /// first error no further item is begun.
    pub(crate) fn for_each_in_order<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R> + Sync,
        mut take: impl FnMut(R),
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for pool in self.pools.iter().take(items.len()) {
                let (sender, next, work) = (sender.clone(), &next, &work);
                scope.spawn(move || {
                    let serve = || {
                        while let Some((index, item)) = claim(next, items) {
                            let result = work(item);
                            if result.is_err() {
                                next.store(items.len(), Ordering::Relaxed);
                            }
                            // The receiver is gone after an error.
                            if sender.send((index, result)).is_err() {
                                break;
                            }
                        }
                    };
                    pool.install(|| threads::alone(serve));
                });
            }
            drop(sender);
            let mut early = BTreeMap::new();
            let mut due = 0;
            for (index, result) in receiver {
                early.insert(index, result?);
                while let Some(result) = early.remove(&due) {
                    take(result);
                    due += 1;
                }
            }
            Ok(())
        })
    }
}

fn claim<'a, T>(next: &AtomicUsize, items: &'a [T]) -> Option<(usize, &'a T)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    items.get(index).map(|item| (index, item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_from_any_number_of_threads() {
        let items: Vec<u64> = (0..40).collect();
        for threads in [1, 3, 64] {
            let mut sums = Vec::new();
            // Earlier items take longer.
            let work = |&n: &u64| Ok((0..(40 - n) * 2000).fold(n, |a, b| a.max(b % 7)).max(n));
            Workers::new(threads)
                .unwrap()
                .for_each_in_order(&items, work, |r| sums.push(r))
                .unwrap();
            assert_eq!(sums.len(), 40);
            assert_eq!(sums[7..], items[7..], "{threads} threads");
        }
        Workers::new(2)
            .unwrap()
            .for_each_in_order(&[], |n: &u64| Ok(*n), |_| ())
            .unwrap();
    }

    #[test]
    fn the_first_error_ends_the_work() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [1, 2] {
            let begun = AtomicUsize::new(0);
            let work = |&n: &usize| {
                begun.fetch_add(1, Ordering::Relaxed);
                if n == 3 {
                    Err(Error::option("n", "three"))
                } else {
                    Ok(n)
                }
            };
            let mut taken = 0;
            let error = Workers::new(threads)
                .unwrap()
                .for_each_in_order(&items, work, |_| taken += 1)
                .unwrap_err();
            assert!(error.to_string().contains("three") && taken <= 3);
            // A second worker may get through any number of items before the error is there.
            assert!(threads > 1 || begun.load(Ordering::Relaxed) == 4);
        }
    }

    #[test]
    fn work_inside_a_worker_stays_on_its_thread() {
        let items = [0u8; 4];
        let work = |_: &u8| {
            let this = std::thread::current().id();
            threads::for_each_task(100, usize::MAX, |_| {
                assert_eq!(std::thread::current().id(), this);
            });
            Ok(rayon::current_num_threads())
        };
        Workers::new(2)
            .unwrap()
            .for_each_in_order(&items, work, |n| assert_eq!(n, 1))
            .unwrap();
    }
}
