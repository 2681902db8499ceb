use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;

#[test]
fn numbers_of_threads_are_positive() {
    assert_eq!(parse("3"), Ok(NonZeroUsize::new(3).unwrap()));
    for text in ["", "0", "-1", "two", "1.5", " 2"] {
        let error = parse(text).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("LFM2_NUM_THREADS: expected a number from 1, found \"{text}\"")
        );
    }
}

#[test]
fn tasks_run_once_whether_the_work_is_worth_it_or_not() {
    for work in [0, SERIAL_WORK - 1, SERIAL_WORK, usize::MAX] {
        for tasks in [0, 1, 2, 100] {
            let runs: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            for_each_task(tasks, work, |task| {
                runs[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
        }
    }
}

#[test]
fn small_work_stays_on_the_calling_thread() {
    let this = thread::current().id();
    for_each_task(100, SERIAL_WORK - 1, |_| {
        assert_eq!(thread::current().id(), this);
    });
}

#[test]
fn alone_means_on_the_calling_thread() {
    let this = thread::current().id();
    let check = || {
        for_each_task(200, usize::MAX, |_| {
            assert_eq!(thread::current().id(), this);
        });
    };
    alone(|| {
        alone(check);
        // The inner call has not ended the outer one.
        check();
        assert!(ALONE.get());
    });
    assert!(!ALONE.get());
    assert!(catch_unwind(|| alone(|| panic!("inside"))).is_err());
    assert!(!ALONE.get());
}

#[test]
fn chunks_cover_the_data_in_order() {
    for (len, chunk) in [(0, 3), (1, 3), (9, 3), (10, 3), (1000, 7)] {
        let mut data = vec![usize::MAX; len];
        for_each_chunk(&mut data, chunk, usize::MAX, |task, part| {
            for (i, value) in part.iter_mut().enumerate() {
                *value = task * chunk + i;
            }
        });
        assert_eq!(data, (0..len).collect::<Vec<_>>());
    }
}
