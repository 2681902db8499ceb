//! Word problems whose answer is a number: right when the last number of what is said is the expected one.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Answer, Question};

/// A word problem in the form of GSM8K.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberRow {
    /// The problem.
    pub question: String,
    /// The way to the answer; its last number is the answer. In GSM8K that stands behind `####`.
    pub answer: String,
}

/// What is said of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberVerdict {
    /// The last number of the answer, in plain digits.
    pub found: Option<String>,
    /// Whether it is the expected one.
    pub right: bool,
}

/// Asks for the last number of an answer to be the result.
const REQUEST: &str = "Think step by step. End with the answer as a number.";

impl Question for NumberRow {
    type Verdict = NumberVerdict;

    fn prompt(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{}\n{REQUEST}", self.question))
    }

    fn judge(&self, output: &str) -> NumberVerdict {
        let found = last_number(output);
        NumberVerdict {
            right: found.is_some() && found == last_number(&self.answer),
            found,
        }
    }
}

/// What a measurement came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NumberReport {
    /// Share of rows whose answer is right.
    pub accuracy: f64,
    /// The number of rows.
    pub rows: usize,
    /// Rows in whose answer there is no number.
    pub without_number: usize,
}

impl NumberReport {
    /// Counts answers; an accuracy of 0 where there is none.
    pub fn of(answers: &[Answer<NumberVerdict>]) -> Self {
        let count = |is: fn(&NumberVerdict) -> bool| {
            answers.iter().filter(|answer| is(&answer.verdict)).count()
        };
        Self {
            accuracy: count(|v| v.right) as f64 / answers.len().max(1) as f64,
            rows: answers.len(),
            without_number: count(|v| v.found.is_none()),
        }
    }
}

/// The last number of a text in plain digits: without commas between thousands, zeros in front and zeros
/// behind the point, so that equal numbers are equal texts.
pub fn last_number(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let end = bytes.iter().rposition(u8::is_ascii_digit)? + 1;
    let mut start = end;
    while start > 0 {
        let before = bytes[start - 1];
        // A comma or a point belongs to the number where a digit stands before it, too.
        let joins = start > 1 && bytes[start - 2].is_ascii_digit();
        let is_part = before.is_ascii_digit()
            || (before == b',' && joins && is_group(&bytes[start..end]))
            || (before == b'.' && !bytes[start..end].contains(&b'.'));
        if !is_part {
            break;
        }
        start -= 1;
    }
    let sign = sign_before(&bytes[..start]);
    Some(plain(sign, text.get(start..end)?))
}

/// Whether what stands behind a comma can be thousands: three digits, and no more before the next mark.
fn is_group(behind: &[u8]) -> bool {
    behind.iter().take_while(|b| b.is_ascii_digit()).count() == 3
}

/// A minus right before the number, or before its currency, that is not a hyphen or a subtraction.
fn sign_before(before: &[u8]) -> &'static str {
    let before = before.strip_suffix(b"$").unwrap_or(before);
    match before {
        [.., other, b'-'] if other.is_ascii_alphanumeric() || *other == b')' => "",
        [.., b'-'] => "-",
        _ => "",
    }
}

fn plain(sign: &str, digits: &str) -> String {
    let digits = digits.replace(',', "");
    let (whole, part) = digits.split_once('.').unwrap_or((&digits, ""));
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if whole == "0" && part.is_empty() {
        ""
    } else {
        sign
    };
    match part {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_found_in_plain_digits() {
        for (text, expected) in [
            ("She has 3 + 4 = 7 apples.", "7"),
            ("#### 1,234,567", "1234567"),
            ("It costs $18.00.", "18"),
            ("0.50", "0.5"),
            ("about .5", "0.5"),
            ("x = -5", "-5"),
            ("-$3.20", "-3.2"),
            ("10-4", "4"),
            ("a 5-4", "4"),
            ("rows 1, 2, 300", "300"),
            ("1,300", "1300"),
            ("12,30", "30"),
            ("version 1.2.3", "2.3"),
            ("007", "7"),
            ("-0", "0"),
            ("\\boxed{42}", "42"),
            ("70% of them", "70"),
            ("5 €, über 1000 Äpfel", "1000"),
        ] {
            assert_eq!(last_number(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(last_number("none at all"), None);
        assert_eq!(last_number(""), None);
    }

    #[test]
    fn answers_are_judged_by_their_last_number() {
        let row = NumberRow {
            question: "How many?".into(),
            answer: "2 + 3 = <<2+3=5>>5\n#### 5".into(),
        };
        assert!(row.prompt().starts_with("How many?\n"));
        assert!(row.judge("First 2, then 3: 5.0").right);
        assert!(!row.judge("5 or 6").right);
        let silent = row.judge("no idea");
        assert_eq!((silent.right, silent.found), (false, None));
        let answers = ["5", "6", "?"].map(|output| Answer {
            output: output.into(),
            verdict: row.judge(output),
        });
        let report = NumberReport::of(&answers);
        assert_eq!((report.rows, report.without_number), (3, 1));
        assert!((report.accuracy - 1.0 / 3.0).abs() < 1e-12);
        // Two texts without a number are not equal numbers.
        let nothing = NumberRow {
            answer: "none".into(),
            ..row
        };
        assert!(!nothing.judge("none").right);
    }
}
