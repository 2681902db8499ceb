//! The collector is one per process, so its tests take turns.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::Arithmetic;
use crate::profile::{self, Op, Row, Work};

static TURN: Mutex<()> = Mutex::new(());

/// The rows that `f` leaves behind.
fn collect(f: impl FnOnce()) -> Vec<Row> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    profile::start();
    f();
    profile::take()
}

fn busy(time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn find<'a>(rows: &'a [Row], label: &str) -> &'a Row {
    let found = rows.iter().find(|row| row.label() == label);
    found.unwrap_or_else(|| panic!("no {label:?} in {rows:?}"))
}

#[test]
fn calls_of_one_shape_are_one_row() {
    let rows = collect(|| {
        for rows in [1, 1, 7] {
            let work = Work::dot(100, 100 * rows, Arithmetic::Int8);
            let _span = profile::span(Op::Matmul("q4_0"), &[rows, 32, 8], work);
        }
    });
    let one = find(&rows, "matmul q4_0 1x32x8");
    assert_eq!((one.calls, one.work.bytes, one.work.macs), (2, 200, 200));
    assert_eq!(one.work.arithmetic, Arithmetic::Int8);
    let seven = find(&rows, "matmul q4_0 7x32x8");
    assert_eq!((seven.calls, seven.work.macs), (1, 700));
}

#[test]
fn time_is_counted_where_it_was_spent() {
    let wait = Duration::from_millis(3);
    let mut whole = Duration::ZERO;
    let rows = collect(|| {
        let started = Instant::now();
        let pass = profile::span(Op::Pass, &[], Work::NONE);
        busy(wait);
        for _ in 0..2 {
            let _norm = profile::span(Op::RmsNorm, &[1, 64], Work::NONE);
            busy(wait);
            let _quantize = profile::span(Op::Quantize, &[1, 64], Work::NONE);
            busy(wait);
        }
        drop(pass);
        whole = started.elapsed();
    });
    let time = |label| find(&rows, label).time;
    assert!(time("rms_norm 1x64") >= 2 * wait);
    assert!(time("quantize x 1x64") >= 2 * wait);
    assert!(time("everything else") >= wait);
    let sum: Duration = rows.iter().map(|row| row.time).sum();
    assert!(sum <= whole, "{sum:?} of {whole:?}");
}

#[test]
fn a_span_behind_another_does_not_shorten_it() {
    let wait = Duration::from_millis(3);
    let rows = collect(|| {
        for op in [Op::Embed, Op::Sample] {
            let _span = profile::span(op, &[], Work::NONE);
            busy(wait);
        }
    });
    assert!(find(&rows, "embed").time >= wait);
    assert!(find(&rows, "sample").time >= wait);
}

#[test]
fn nothing_is_collected_when_off() {
    let rows = collect(|| ());
    assert_eq!(rows, []);
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(!profile::is_on());
    drop(profile::span(Op::Add, &[1], Work::NONE));
    assert_eq!(profile::take(), []);
}

#[test]
fn the_longest_row_is_first_and_has_rates() {
    let rows = collect(|| {
        let _long = profile::span(
            Op::Attention,
            &[1, 8],
            Work::dot(4000, 1000, Arithmetic::F32),
        );
        busy(Duration::from_millis(4));
        drop(profile::span(Op::Add, &[], Work::NONE));
    });
    assert_eq!(rows[0].op, Op::Attention);
    let seconds = rows[0].time.as_secs_f64();
    assert!((rows[0].bytes_per_second() * seconds - 4000.0).abs() < 1e-6);
    assert!((rows[0].macs_per_second() * seconds - 1000.0).abs() < 1e-6);
    assert_eq!(find(&rows, "add").bytes_per_second(), 0.0);
}

#[test]
fn several_threads_report_to_one_table() {
    let rows = collect(|| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        drop(profile::span(Op::ShortConv, &[1, 2], Work::NONE));
                    }
                });
            }
        });
    });
    assert_eq!(find(&rows, "short_conv 1x2").calls, 200);
}
