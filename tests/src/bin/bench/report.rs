//! The rows and how they are shown. Nothing is measured here.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

/// What a value is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Limit {
    fn reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(limit) => format!(">= {limit}"),
            Self::AtMost(limit) => format!("<= {limit}"),
        }
    }
}

/// One line of the result.
#[derive(Debug)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    limit: Limit,
    how: String,
}

/// All rows.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Row>);

impl Report {
    /// Adds a row; `how` says how it was measured and what else was seen.
    pub(crate) fn row(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        limit: Limit,
        how: impl Into<String>,
    ) {
        self.0.push(Row { name: name.into(), value, unit, limit, how: how.into() });
    }

    /// Prints a table in Markdown, which a terminal shows well enough too.
    pub(crate) fn print(&self) {
        println!("| What | Value | Limit | Reached | How |");
        println!("| --- | ---: | ---: | --- | --- |");
        for Row { name, value, unit, limit, how } in &self.0 {
            let reached = if limit.reached(*value) { "yes" } else { "**no**" };
            println!("| {name} | {} {unit} | {} | {reached} | {how} |", number(*value), limit.text());
        }
    }

    /// Writes a JSON list.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let rows: Vec<Value> = self
            .0
            .iter()
            .map(|Row { name, value, unit, limit, how }| {
                json!({
                    "name": name, "value": value, "unit": unit, "limit": limit.text(),
                    "reached": limit.reached(*value), "how": how,
                })
            })
            .collect();
        std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
        Ok(())
    }
}

fn number(value: f64) -> String {
    match value {
        value if value >= 1000.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if value >= 100.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The smallest, the middle, the 99th of a hundred and the largest of some values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub p99: f64,
    pub(crate) max: f64,
    pub(crate) count: usize,
}

impl Spread {
    /// Of `values`, in any order.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn of(mut values: Vec<f64>) -> Result<Self> {
        anyhow::ensure!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        let count = values.len();
        // Nearest rank: the smallest value that at least 99 of 100 don't exceed.
        let rank = |percent: usize| values[(count * percent).div_ceil(100).clamp(1, count) - 1];
        Ok(Self { min: values[0], median: rank(50), p99: rank(99), max: values[count - 1], count })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { min, median, p99, max, count } = self;
        write!(f, "min {min:.2}, median {median:.2}, p99 {p99:.2}, max {max:.2} of {count}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_p99_of_few_values_is_their_largest_and_of_many_it_is_not() {
        let few = Spread::of((1..=60).map(f64::from).collect()).unwrap();
        assert_eq!((few.min, few.median, few.p99, few.max), (1.0, 30.0, 60.0, 60.0));
        let many = Spread::of((1..=1000).rev().map(f64::from).collect()).unwrap();
        assert_eq!((many.median, many.p99, many.max), (500.0, 990.0, 1000.0));
        assert!(Spread::of(Vec::new()).is_err());
    }
}
