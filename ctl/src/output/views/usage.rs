//! What agents used.

use conductor_proto::v1::UsageRow;
use serde::Serialize;

use super::super::details::{Line, line};
use super::super::table::{Cell, Kind, Table};
use super::super::{Resource, Tone, words};
use super::run::{UsageView, usage};
use crate::cli::UsageBy;

/// Groups and their sum.
pub(crate) struct UsageReport {
    pub(crate) group: UsageBy,
    pub(crate) rows: Vec<UsageRow>,
    pub(crate) total: UsageRow,
}

/// The same for programs.
#[derive(Serialize)]
pub(crate) struct ReportView {
    rows: Vec<RowView>,
    total: RowView,
}

/// A group for programs.
#[derive(Serialize)]
pub(crate) struct RowView {
    key: String,
    runs: u64,
    usage: Option<UsageView>,
    runs_without_usage: u64,
    runs_without_cost: u64,
}

/// A group for programs.
pub(crate) fn row_view(row: &UsageRow) -> RowView {
    RowView {
        key: row.key.clone(),
        runs: row.runs,
        usage: row.usage.as_ref().map(usage),
        runs_without_usage: row.runs_without_usage,
        runs_without_cost: row.runs_without_cost,
    }
}

impl UsageReport {
    /// Its rows, and their sum in the last one.
    pub(crate) fn to_table(&self) -> Table {
        let name = match self.group {
            UsageBy::Task => "TASK",
            UsageBy::Agent => "AGENT",
            UsageBy::Model => "MODEL",
            UsageBy::Project => "PROJECT",
            UsageBy::Day => "DAY",
            UsageBy::Account => "ACCOUNT",
        };
        let numbers = ["RUNS", "INPUT", "CACHE READ", "CACHE WRITE", "OUTPUT", "COST"];
        let mut columns = vec![(name, Kind::Text)];
        columns.extend(numbers.map(|name| (name, Kind::Number)));
        columns.push(("UNKNOWN", Kind::Text));
        let mut table = Table::new(&columns);
        let total = UsageRow { key: "total".to_owned(), ..self.total.clone() };
        for (row, tone) in self.rows.iter().map(|row| (row, Tone::Plain)).chain([(&total, Tone::Strong)]) {
            let used = row.usage.unwrap_or_default();
            let known = row.runs > row.runs_without_usage;
            let count = |tokens: u64| Cell::toned(if known { grouped(tokens) } else { "–".to_owned() }, tone);
            table.row(vec![
                Cell::toned(row.key.clone(), tone),
                Cell::toned(grouped(row.runs), tone),
                count(used.input_tokens),
                count(used.cache_read_tokens),
                count(used.cache_write_tokens),
                count(used.output_tokens),
                Cell::toned(words::cost_of(row.usage.as_ref()), tone),
                Cell::toned(unknown(row), Tone::Quiet),
            ]);
        }
        table
    }
}

/// `2 runs without tokens, 1 without cost`.
fn unknown(row: &UsageRow) -> String {
    let mut parts = Vec::new();
    if row.runs_without_usage > 0 {
        parts.push(format!("{} without tokens", row.runs_without_usage));
    }
    if row.runs_without_cost > 0 {
        parts.push(format!("{} without cost", row.runs_without_cost));
    }
    parts.join(", ")
}

/// `1 234 567`, with narrow spaces that no locale takes for a point.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl Resource for UsageReport {
    type View = ReportView;
    const EMPTY: &'static str = "no runs have ended";

    fn view(&self) -> ReportView {
        ReportView { rows: self.rows.iter().map(row_view).collect(), total: row_view(&self.total) }
    }

    fn name(&self) -> String {
        self.rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>().join("\n")
    }

    fn table(items: &[Self], _: bool) -> Table {
        items.first().map_or_else(|| Table::new(&[]), Self::to_table)
    }

    fn details(&self) -> Vec<Line> {
        vec![line("used", words::used(&self.total))]
    }
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
    }
}
