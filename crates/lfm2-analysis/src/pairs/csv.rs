//! Comma-separated values by RFC 4180: cells in quotes may hold commas, line ends and doubled quotes.

/// A row and the line it starts on, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: usize,
    pub(super) cells: Vec<String>,
}

/// Splits a text into rows; blank lines are left out.
///
/// # Errors
/// The line of a quote that is never closed.
pub(super) fn rows(text: &str) -> Result<Vec<Row>, usize> {
    let mut rows = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    let mut row = Row {
        line,
        cells: vec![String::new()],
    };
    let mut has_text = false;
    while let Some(c) = chars.next() {
        let cell = row.cells.last_mut();
        match (c, cell) {
            (',', _) => {
                row.cells.push(String::new());
                has_text = true;
            }
            ('\r', _) if chars.peek() == Some(&'\n') => {}
            ('\n' | '\r', _) => {
                line += 1;
                let done = std::mem::replace(
                    &mut row,
                    Row {
                        line,
                        cells: vec![String::new()],
                    },
                );
                if std::mem::take(&mut has_text) {
                    rows.push(done);
                }
            }
            ('"', Some(cell)) if cell.is_empty() => {
                has_text = true;
                quoted(&mut chars, cell, &mut line)?;
            }
            (c, Some(cell)) => {
                has_text = true;
                cell.push(c);
            }
            (_, None) => {}
        }
    }
    if has_text {
        rows.push(row);
    }
    Ok(rows)
}

/// Reads up to the closing quote.
fn quoted(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    cell: &mut String,
    line: &mut usize,
) -> Result<(), usize> {
    let opened = *line;
    while let Some(c) = chars.next() {
        match c {
            '"' if chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => return Ok(()),
            c => {
                *line += usize::from(c == '\n');
                cell.push(c);
            }
        }
    }
    Err(opened)
}

/// Adds a row to `out`, with quotes where a cell needs them.
pub(crate) fn write_row<'a>(out: &mut String, cells: impl IntoIterator<Item = &'a str>) {
    for (i, cell) in cells.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        if cell.contains([',', '"', '\n', '\r']) || cell.is_empty() {
            out.push('"');
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(cell);
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &str) -> Vec<Vec<String>> {
        rows(text)
            .unwrap()
            .into_iter()
            .map(|row| row.cells)
            .collect()
    }

    #[test]
    fn quotes_commas_and_line_ends_are_told_apart() {
        assert_eq!(cells("a,b\r\nc,d"), [["a", "b"], ["c", "d"]]);
        assert_eq!(
            cells("\"a, b\",\"say \"\"no\"\"\"\n"),
            [["a, b", "say \"no\""]]
        );
        assert_eq!(
            cells("\"two\nlines\",x\ny,\n"),
            [["two\nlines", "x"], ["y", ""]]
        );
        assert_eq!(cells("a \"b\" c,d"), [["a \"b\" c", "d"]]);
        assert_eq!(cells("\n\n a\n"), [[" a"]]);
        assert!(cells("").is_empty());
    }

    #[test]
    fn lines_are_counted_through_quotes() {
        let found = rows("h\n\"a\nb\nc\"\n\nlast").unwrap();
        assert_eq!(
            found.iter().map(|row| row.line).collect::<Vec<_>>(),
            [1, 2, 6]
        );
        assert_eq!(rows("a\nb,\"open\nx\n"), Err(2));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let row = ["plain", "with, comma", "with \"quotes\"", "two\nlines", ""];
        let mut text = String::new();
        write_row(&mut text, row);
        assert_eq!(cells(&text), [row]);
    }
}
