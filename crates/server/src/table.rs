//! What commands print for people.

use std::fmt::Write as _;

/// Widths of columns beyond which a long cell moves those behind it.
const WIDTH_MAX: usize = 48;

/// How a column stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows below a line of headings, in columns as wide as the first rows need.
pub(crate) struct Table<const COLUMNS: usize> {
    headings: [(&'static str, Align); COLUMNS],
    widths: Option<[usize; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) fn new(headings: [(&'static str, Align); COLUMNS]) -> Self {
        let widths = None;
        Self { headings, widths }
    }

    /// Returns the lines of some rows; the first ones have the headings above them.
    pub(crate) fn lines(&mut self, rows: &[[String; COLUMNS]]) -> String {
        let rows: Vec<[String; COLUMNS]> = rows
            .iter()
            .map(|row| row.each_ref().map(|cell| plain(cell)))
            .collect();
        let mut out = String::new();
        let widths = match self.widths {
            Some(widths) => widths,
            None if rows.is_empty() => return out,
            None => {
                let widths = std::array::from_fn(|column| self.width(column, &rows));
                let headings = self.headings.map(|(heading, _)| heading.to_owned());
                self.line(&mut out, &headings, &widths);
                widths
            }
        };
        self.widths = Some(widths);
        for row in &rows {
            self.line(&mut out, row, &widths);
        }
        out
    }

    fn width(&self, column: usize, rows: &[[String; COLUMNS]]) -> usize {
        let cells = rows.iter().map(|row| row[column].chars().count());
        let heading = self.headings[column].0.len();
        cells.max().unwrap_or(0).clamp(heading, WIDTH_MAX)
    }

    fn line(&self, out: &mut String, cells: &[String; COLUMNS], widths: &[usize; COLUMNS]) {
        let begin = out.len();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths[column];
            let gap = if column == 0 { "" } else { "  " };
            let written = match self.headings[column].1 {
                Align::Left => write!(out, "{gap}{cell:<width$}"),
                Align::Right => write!(out, "{gap}{cell:>width$}"),
            };
            written.expect("a string takes what is written to it");
        }
        let end = out[begin..].trim_end().len();
        out.truncate(begin + end);
        out.push('\n');
    }
}

/// Returns text as it can be shown: users choose types and names, and a terminal obeys some
/// characters.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        // Those that turn the direction of what follows would hide what stands there.
        let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// Returns how long ago something was, in its largest unit.
pub(crate) fn age(now_ms: u64, then_ms: u64) -> String {
    const UNITS: [(u64, &str, &str); 5] = [
        (365 * 24 * 60 * 60, "year", "years"),
        (24 * 60 * 60, "day", "days"),
        (60 * 60, "hour", "hours"),
        (60, "min", "min"),
        (1, "s", "s"),
    ];
    let seconds = now_ms.saturating_sub(then_ms) / 1_000;
    for (unit_seconds, one, many) in UNITS {
        match seconds / unit_seconds {
            0 => {}
            1 => return format!("1 {one}"),
            count => return format!("{count} {many}"),
        }
    }
    "now".to_owned()
}

/// Returns a part of a whole in per cent.
pub(crate) fn share(part: u64, whole: u64) -> String {
    let tenths = (u128::from(part) * 2_000 + u128::from(whole))
        .checked_div(u128::from(whole) * 2)
        .unwrap_or(0);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_the_first_rows_need() {
        let mut table = Table::new([
            ("NAME", Align::Left),
            ("N", Align::Right),
            ("X", Align::Left),
        ]);
        assert_eq!(table.lines(&[]), "");
        let row = |name: &str, n: &str, x: &str| [name.to_owned(), n.to_owned(), x.to_owned()];
        let first = table.lines(&[row("alice", "10", ""), row("é", "9", "long")]);
        assert_eq!(first, "NAME    N  X\nalice  10\né       9  long\n");
        let next = table.lines(&[row("a longer name", "1", "")]);
        assert_eq!(next, "a longer name   1\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(
            plain("a\u{1b}[2Jé\n\u{9b}\u{202e}"),
            "a\\u{1b}[2Jé\\u{a}\\u{9b}\\u{202e}"
        );
    }

    #[test]
    fn an_age_has_its_largest_unit() {
        let day = 24 * 60 * 60 * 1_000;
        for (ms, expected) in [
            (0, "now"),
            (999, "now"),
            (1_000, "1 s"),
            (119_999, "1 min"),
            (120_000, "2 min"),
            (3_600_000, "1 hour"),
            (day - 1, "23 hours"),
            (day, "1 day"),
            (364 * day, "364 days"),
            (800 * day, "2 years"),
        ] {
            assert_eq!(age(5 + ms, 5), expected);
        }
        assert_eq!(age(0, 1_000_000), "now", "another clock");
    }

    #[test]
    fn shares_are_rounded() {
        for (part, whole, expected) in [
            (0, 0, "0.0 %"),
            (1, 3, "33.3 %"),
            (2, 3, "66.7 %"),
            (3, 3, "100.0 %"),
            (1, 2_000, "0.1 %"),
            (u64::MAX, u64::MAX, "100.0 %"),
        ] {
            assert_eq!(share(part, whole), expected);
        }
    }
}
