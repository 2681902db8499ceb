//! What the time of a test goes into: `--profile`.

use lfm2::nn::profile::Row;
use serde::Serialize;

use super::limits::{Machine, Reading};

/// One operation at one shape.
#[derive(Debug, Serialize)]
pub(super) struct OpTime {
    pub(super) test: String,
    pub(super) op: String,
    pub(super) calls: u64,
    pub(super) seconds: f64,
    pub(super) share_of_time: f64,
    pub(super) gb_per_second: f64,
    pub(super) gmac_per_second: f64,
    /// Of what the machine can do at most: of reading or of multiplying, whichever is nearer.
    pub(super) share_of_limit: Option<f64>,
}

impl OpTime {
    /// The rows of the test `name` whose passes took `whole` seconds, longest first.
    pub(super) fn all(
        name: &str,
        rows: &[Row],
        whole: f64,
        machine: Option<&Machine>,
        reading: Option<Reading>,
    ) -> Vec<Self> {
        let op = |row: &Row| {
            let (bytes, macs) = (row.bytes_per_second(), row.macs_per_second());
            let peak = machine.and_then(|machine| machine.peak(row.work.arithmetic));
            let shares = [
                reading.map(|reading| bytes / reading.fastest()),
                peak.map(|peak| macs / peak),
            ];
            let nearest = shares.into_iter().flatten().fold(0.0, f64::max);
            Self {
                test: name.to_owned(),
                op: row.label(),
                calls: row.calls,
                seconds: row.time.as_secs_f64(),
                share_of_time: row.time.as_secs_f64() / whole,
                gb_per_second: bytes / 1e9,
                gmac_per_second: macs / 1e9,
                share_of_limit: (nearest > 0.0).then_some(nearest),
            }
        };
        rows.iter().map(op).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lfm2::nn::limits::Arithmetic;
    use lfm2::nn::profile::{self, Op, Work};

    #[test]
    fn the_nearer_limit_counts() {
        profile::start();
        let work = |macs| Work::dot(1_000_000, macs, Arithmetic::Int8);
        drop(profile::span(Op::Matmul("q4_0"), &[1, 2, 3], work(0)));
        drop(profile::span(Op::Add, &[4], Work::NONE));
        let rows = profile::take();
        let rate = rows.iter().map(Row::bytes_per_second).fold(0.0, f64::max);
        let reading = Reading {
            buffer: 4.0 * rate,
            again: rate,
        };
        let whole = rows.iter().map(|row| row.time.as_secs_f64()).sum();
        let ops = OpTime::all("tg4", &rows, whole, None, Some(reading));
        let find = |label| ops.iter().find(|op| op.op == label).unwrap();
        let product = find("matmul q4_0 1x2x3");
        assert_eq!((product.test.as_str(), product.calls), ("tg4", 1));
        assert!((product.share_of_limit.unwrap() - 0.25).abs() < 1e-9);
        assert_eq!(find("add 4").share_of_limit, None);
        let all: f64 = ops.iter().map(|op| op.share_of_time).sum();
        assert!((all - 1.0).abs() < 1e-9);
    }
}
