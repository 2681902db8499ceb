use std::collections::HashSet;
use std::sync::Barrier;
use std::thread::{self, ThreadId};

use proptest::prelude::*;

use super::*;
use crate::tests::config;

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap())
}

/// Miri is slow, and finds more in few rounds than a processor in many.
const fn rounds(many: usize) -> usize {
    if cfg!(miri) { many / 1000 + 10 } else { many }
}

/// How often each task ran in one job of `tasks`.
fn runs(pool: &Pool, tasks: usize) -> Vec<usize> {
    let runs: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
    pool.for_each(tasks, &|task| {
        runs[task].fetch_add(1, Ordering::Relaxed);
    });
    runs.into_iter().map(AtomicUsize::into_inner).collect()
}

/// The threads of a job whose every thread waits for `threads` of them.
fn met(pool: &Pool, threads: usize) -> HashSet<ThreadId> {
    let barrier = Barrier::new(threads);
    let seen = Mutex::new(HashSet::new());
    // A claim takes one task as long as fewer are left than there are claims to a round.
    pool.for_each(threads, &|_| {
        lock(&seen).insert(thread::current().id());
        barrier.wait();
    });
    seen.into_inner().unwrap()
}

#[test]
fn every_task_runs_exactly_once() {
    for threads in [1, 2, 3, 8] {
        let pool = pool(threads);
        for tasks in (0..20).chain([63, 64, 65, 1000]) {
            let runs = runs(&pool, tasks);
            assert_eq!(runs, vec![1; tasks], "{threads} threads");
        }
    }
}

#[test]
fn all_threads_work_on_a_job_at_the_same_time() {
    for threads in [2, 3, 5] {
        let pool = pool(threads);
        for _ in 0..3 {
            let met = met(&pool, threads);
            assert_eq!(met.len(), threads);
            assert!(met.contains(&thread::current().id()));
        }
    }
}

#[test]
fn one_thread_starts_no_worker() {
    let pool = pool(1);
    assert_eq!(runs(&pool, 100), vec![1; 100]);
    assert!(lock(&pool.crew).is_empty());
}

#[test]
fn the_calling_thread_alone_runs_a_single_task() {
    let pool = pool(2);
    pool.for_each(1, &|_| assert!(pool.crew.try_lock().is_ok()));
    assert!(lock(&pool.crew).is_empty());
}

#[test]
fn small_jobs_back_to_back() {
    let pool = pool(2);
    let sum = AtomicUsize::new(0);
    let jobs = rounds(100_000);
    for job in 0..jobs {
        // What a job borrows is gone after it.
        let add = vec![1; job % 3 + 1];
        pool.for_each(add.len(), &|task| {
            sum.fetch_add(add[task], Ordering::Relaxed);
        });
    }
    let expected = (0..jobs).map(|job| job % 3 + 1).sum::<usize>();
    assert_eq!(sum.into_inner(), expected);
}

#[test]
fn tasks_see_what_the_caller_wrote_and_the_caller_what_they_did() {
    let pool = pool(3);
    let mut values = vec![0_u32; 64];
    for round in 0..u32::try_from(rounds(5000)).unwrap() {
        let before = values.clone();
        let shared = super::super::SharedMut::new(&mut values);
        pool.for_each(64, &|task| {
            // SAFETY: tasks take different values.
            let value = unsafe { &mut shared.slice(task, 1)[0] };
            *value = before[63 - task] + 1;
        });
        assert_eq!(values, vec![round + 1; 64]);
    }
}

#[test]
fn workers_that_sleep_are_woken() {
    let pool = pool(2);
    for _ in 0..5 {
        assert_eq!(met(&pool, 2).len(), 2);
        // Until the worker has gone to sleep, which it does by itself.
        while !lock(&pool.crew)[0].orders.bell.is_asleep() {
            thread::yield_now();
        }
    }
}

#[test]
fn a_caller_that_sleeps_is_woken() {
    let pool = pool(2);
    let caller = thread::current().id();
    for _ in 0..rounds(20) {
        let barrier = Barrier::new(2);
        pool.for_each(2, &|_| {
            barrier.wait();
            // The worker's task lasts until the caller has no other and sleeps.
            while thread::current().id() != caller && !pool.shared.done.is_asleep() {
                thread::yield_now();
            }
        });
    }
}

#[test]
fn calls_inside_a_task_run_on_its_thread() {
    let pool = pool(3);
    let inner = AtomicUsize::new(0);
    pool.for_each(20, &|_| {
        let outside = thread::current().id();
        pool.for_each(30, &|_| {
            assert_eq!(thread::current().id(), outside);
            pool.for_each(2, &|_| {
                inner.fetch_add(1, Ordering::Relaxed);
            });
        });
    });
    assert_eq!(inner.into_inner(), 20 * 30 * 2);
}

#[test]
fn several_threads_may_call_at_once() {
    let pool = pool(3);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for tasks in 0..rounds(2000) {
                    let tasks = tasks % 50;
                    assert_eq!(runs(&pool, tasks), vec![1; tasks]);
                }
            });
        }
    });
}

#[test]
fn a_call_while_the_pool_is_busy_runs_on_its_own_thread() {
    let pool = pool(2);
    let barrier = Barrier::new(3);
    thread::scope(|scope| {
        scope.spawn(|| {
            pool.for_each(2, &|_| {
                barrier.wait();
                barrier.wait();
            });
        });
        barrier.wait();
        let this = thread::current().id();
        pool.for_each(10, &|_| assert_eq!(thread::current().id(), this));
        barrier.wait();
    });
}

#[test]
fn a_panic_in_a_task_reaches_the_caller_after_all_others() {
    let pool = pool(3);
    for bad in [0, 7, 39] {
        let (running, begun) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.for_each(40, &|task| {
                begun.fetch_add(1, Ordering::Relaxed);
                running.fetch_add(1, Ordering::Relaxed);
                thread::yield_now();
                running.fetch_sub(1, Ordering::Relaxed);
                assert_ne!(task, bad, "task {bad}");
            });
        }));
        let payload = caught.unwrap_err();
        let message = payload.downcast_ref::<String>().unwrap();
        assert!(message.contains(&format!("task {bad}")), "{message}");
        assert_eq!(running.into_inner(), 0);
        // A claim takes at most a twelfth of what is left, and only its rest is left out.
        assert!(begun.into_inner() >= 36);
        assert_eq!(runs(&pool, 40), vec![1; 40], "after a panic");
    }
}

#[test]
fn when_all_tasks_panic_the_caller_gets_one_panic() {
    let pool = pool(2);
    for _ in 0..10 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.for_each(8, &|task| resume_unwind(Box::new(task)));
        }));
        assert!(*caught.unwrap_err().downcast_ref::<usize>().unwrap() < 8);
    }
}

#[test]
fn the_number_of_threads_changes_between_jobs() {
    let pool = pool(1);
    for threads in [3, 1, 2, 5, 2, 4] {
        pool.set_threads(NonZeroUsize::new(threads).unwrap());
        assert_eq!(pool.threads(), threads);
        assert_eq!(met(&pool, threads).len(), threads);
        assert!(threads == 1 || lock(&pool.crew).len() == threads - 1);
    }
}

#[test]
fn the_number_of_threads_may_change_during_a_job() {
    let pool = pool(2);
    pool.for_each(30, &|task| {
        pool.set_threads(NonZeroUsize::new(task % 4 + 1).unwrap());
    });
    assert_eq!(runs(&pool, 30), vec![1; 30]);
}

#[test]
fn the_number_of_threads_is_bounded() {
    assert_eq!(pool(usize::MAX).threads(), MAX_THREADS);
}

#[test]
fn claims_leave_single_tasks_for_the_end() {
    let pool = pool(2);
    let shared = &pool.shared;
    shared.open.0.left.store(100, Ordering::Relaxed);
    let claims: Vec<_> = std::iter::from_fn(|| shared.claim()).collect();
    assert_eq!(claims[0], (100, 13));
    assert!(claims.is_sorted_by(|a, b| a.1 >= b.1));
    assert_eq!(claims.iter().map(|claim| claim.1).sum::<usize>(), 100);
    assert!(claims.iter().filter(|claim| claim.1 == 1).count() >= 8);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_sequence_of_jobs_and_changes(
        steps in prop::collection::vec((1_usize..5, 0_usize..200), 1..rounds(30)),
    ) {
        let pool = pool(2);
        for (threads, tasks) in steps {
            pool.set_threads(NonZeroUsize::new(threads).unwrap());
            prop_assert_eq!(runs(&pool, tasks), vec![1; tasks]);
        }
    }
}
