//! Tables that fit the screen: ids are shortened in the middle, one text column is cut, nothing wraps.

use comfy_table::{Attribute, Cell as Drawn, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row, Width};

use super::{Tone, plain};

/// Blanks between two columns.
const GAP: u16 = 2;

/// An id is shortened down to this before other columns give: its date and much of its slug stay readable.
const GOOD_ID: usize = 28;

/// An id is never shortened further than this.
const MIN_ID: usize = 18;

/// The cut column gets at least this.
const MIN_TEXT: usize = 10;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Shown whole.
    Word,
    /// Shown whole, to the right.
    Number,
    /// Shown whole where there is room, else left out; `-o wide` has it.
    Extra,
    /// Shortened in the middle where it must be.
    Id,
    /// Cut at the end where it must be.
    Text,
}

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: plain(&text.into()), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Kind)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Kind)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Lines, each with its end, none wider than `width`.
    pub(crate) fn render(mut self, width: u16, color: bool) -> String {
        self.drop_empty_columns();
        self.drop_extra_columns(usize::from(width));
        self.shorten(usize::from(width));
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let heads =
            self.columns.iter().map(|(name, kind)| align(Drawn::new(name).add_attribute(Attribute::Dim), *kind));
        table.set_header(Row::from(heads.collect::<Vec<_>>()));
        for row in &self.rows {
            let cells = row
                .iter()
                .zip(&self.columns)
                .map(|(cell, (_, kind))| align(tone(Drawn::new(&cell.text), cell.tone), *kind));
            table.add_row(Row::from(cells.collect::<Vec<_>>()));
        }
        let widths = table.column_max_content_widths();
        let last = widths.len().saturating_sub(1);
        for (index, column) in table.column_iter_mut().enumerate() {
            let gap = if index == last { 0 } else { GAP };
            column.set_padding((0, gap));
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(widths[index] + gap)));
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// A column that says nothing in any row only takes room.
    fn drop_empty_columns(&mut self) {
        for index in (0..self.columns.len()).rev() {
            if self.rows.iter().all(|row| row[index].text.is_empty()) {
                self.drop_column(index);
            }
        }
    }

    /// Leaves extra columns out, the last first, until ids and texts have a good width.
    fn drop_extra_columns(&mut self, width: usize) {
        loop {
            let least = |index: usize| match self.columns[index].1 {
                Kind::Id => self.widest(index).min(GOOD_ID),
                Kind::Text => self.widest(index).min(width / 4),
                Kind::Word | Kind::Number | Kind::Extra => self.widest(index),
            };
            let wanted: usize = (0..self.columns.len()).map(least).sum::<usize>() + self.gaps();
            let extra = self.columns.iter().rposition(|(_, kind)| *kind == Kind::Extra);
            match extra {
                Some(index) if wanted > width => self.drop_column(index),
                _ => return,
            }
        }
    }

    fn drop_column(&mut self, index: usize) {
        self.columns.remove(index);
        for row in &mut self.rows {
            row.remove(index);
        }
    }

    fn gaps(&self) -> usize {
        usize::from(GAP) * self.columns.len().saturating_sub(1)
    }

    fn widest(&self, index: usize) -> usize {
        let texts = self.rows.iter().map(|row| chars(&row[index].text));
        texts.chain([chars(self.columns[index].0)]).max().unwrap_or(0)
    }

    /// Makes texts, then ids, then texts again shorter until all fits.
    fn shorten(&mut self, width: usize) {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|index| self.widest(index)).collect();
        let mut excess = (widths.iter().sum::<usize>() + self.gaps()).saturating_sub(width);
        // The text keeps a quarter of the screen before ids are touched; below that, both give.
        let steps = [(Kind::Text, width / 4), (Kind::Id, GOOD_ID), (Kind::Text, MIN_TEXT), (Kind::Id, MIN_ID)];
        for (kind, least) in steps {
            for (index, (name, own)) in self.columns.iter().enumerate() {
                if *own == kind {
                    let now = widths[index];
                    widths[index] = now.saturating_sub(excess).max(least).min(now).max(chars(name));
                    excess = excess.saturating_sub(now.saturating_sub(widths[index]));
                }
            }
        }
        for (index, (_, kind)) in self.columns.iter().enumerate() {
            for row in &mut self.rows {
                let text = &row[index].text;
                row[index].text =
                    if *kind == Kind::Id { middle(text, widths[index]) } else { cut(text, widths[index]) };
            }
        }
    }
}

fn align(cell: Drawn, kind: Kind) -> Drawn {
    if kind == Kind::Number { cell.set_alignment(CellAlignment::Right) } else { cell }
}

fn tone(cell: Drawn, tone: Tone) -> Drawn {
    match tone {
        Tone::Plain => cell,
        Tone::Strong => cell.add_attribute(Attribute::Bold),
        Tone::Quiet => cell.add_attribute(Attribute::Dim),
        Tone::Running => cell.fg(Color::DarkBlue),
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Waiting => cell.fg(Color::DarkYellow),
        Tone::Failed => cell.fg(Color::DarkRed),
    }
}

/// Columns that a text takes.
pub(crate) fn chars(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    // comfy-table measures as terminals do: wide characters count twice.
    let mut table = comfy_table::Table::new();
    table.add_row([text]);
    table.column_max_content_widths().first().map_or(0, |width| usize::from(*width))
}

/// Cuts at the end.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if chars(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += if c.is_ascii() { 1 } else { chars(&c.to_string()) };
        if used > width {
            break;
        }
        kept.push(c);
    }
    format!("{}…", kept.trim_end())
}

/// Cuts in the middle: an id's date and its slug's end tell it apart.
pub(crate) fn middle(text: &str, width: usize) -> String {
    if chars(text) <= width || width < 3 || !text.is_ascii() {
        return cut(text, width);
    }
    let back = (width - 1) / 2;
    let front = width - 1 - back;
    format!("{}…{}", &text[..front], &text[text.len() - back..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table =
            Table::new(&[("TASK", Kind::Id), ("STATE", Kind::Word), ("N", Kind::Number), ("WHY", Kind::Text)]);
        table.row(vec![
            "task-20261122-151132-fix-the-failing-test".into(),
            Cell::toned("running", Tone::Running),
            "12".into(),
            "attempt 12 of 100 runs and goes on for a good while".into(),
        ]);
        table
    }

    #[test]
    fn nothing_is_wider_than_the_screen() {
        for width in [60, 80, 120, 1_000] {
            for line in sample().render(width, false).lines() {
                assert!(chars(line) <= usize::from(width), "{width}: {line}");
            }
        }
    }

    #[test]
    fn what_fits_is_whole() {
        let text = sample().render(1_000, false);
        assert!(text.contains("task-20261122-151132-fix-the-failing-test"), "{text}");
        assert!(text.contains("good while"));
    }

    #[test]
    fn ids_are_shortened_in_the_middle() {
        assert_eq!(middle("task-20261122-151132-fix", 11), "task-…2-fix");
        assert_eq!(middle("short", 11), "short");
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(chars("日本"), 4);
        assert_eq!(cut("日本語", 5), "日本…");
    }

    #[test]
    fn a_colour_never_changes_the_text() {
        let colored = sample().render(80, true);
        assert!(colored.contains("\x1b["));
        assert!(!sample().render(80, false).contains('\x1b'));
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let mut table = Table::new(&[("WHY", Kind::Text)]);
        table.row(vec!["a\x1b[2Jb\nc".into()]);
        assert_eq!(table.render(80, false), "WHY\na [2Jb c\n");
    }
}
