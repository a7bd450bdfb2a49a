//! What tokens cost, for vendors that report no cost: a table of the configuration, and a pure function over it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AgentKind, load};
use crate::types::{Cost, CostKind, Usage};

/// Tokens that a price is for.
const PER: f64 = 1e6;

/// Prices by type of agent and by model; in a model's name `*` stands for any text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Prices(#[serde(deserialize_with = "load::prices")] pub BTreeMap<AgentKind, BTreeMap<String, Price>>);

/// US dollars for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Input that no cache served.
    pub input: f64,
    /// Input read from a cache. Default: as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<f64>,
    /// Input written to a cache. Default: as `input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
    /// Output, reasoning included.
    pub output: f64,
}

impl Price {
    /// Its four numbers by key, with those that are not there left out.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("input", Some(self.input)),
            ("cache_read", self.cache_read),
            ("cache_write", self.cache_write),
            ("output", Some(self.output)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 tokens are beyond any use, and it is an estimate")]
    fn of(&self, usage: &Usage) -> f64 {
        let part = |tokens: u64, price: f64| tokens as f64 * price / PER;
        part(usage.input, self.input)
            + part(usage.cache_read, self.cache_read.unwrap_or(self.input))
            + part(usage.cache_write, self.cache_write.unwrap_or(self.input))
            + part(usage.output, self.output)
    }
}

impl Prices {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a use of a model costs, estimated; `None`: no price fits, so it is unknown. A cost in `usage` is not looked
    /// at. Where several patterns fit, the one with the most characters besides `*` counts. A model that is not known
    /// fits `*` alone.
    #[must_use]
    pub fn cost(&self, kind: AgentKind, model: Option<&str>, usage: &Usage) -> Option<Cost> {
        let price = self
            .0
            .get(&kind)?
            .iter()
            .filter(|(pattern, _)| model.map_or(pattern.as_str() == "*", |model| fits(pattern, model)))
            .max_by_key(|(pattern, _)| pattern.len() - pattern.matches('*').count())?
            .1;
        Some(Cost { usd: price.of(usage), kind: CostKind::Estimated })
    }
}

/// Whether a text fits a pattern in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(place) = left.find(part) else { return false };
        left = &left[place + part.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(text: &str) -> Prices {
        serde_yaml::from_str(text).unwrap()
    }

    fn usage() -> Usage {
        Usage { input: 1_000_000, cache_read: 2_000_000, cache_write: 3_000_000, output: 500_000, ..Usage::default() }
    }

    #[test]
    fn every_kind_of_token_has_its_price_and_the_sum_is_an_estimate() {
        let all = prices("codex: {gpt-5: {input: 1.5, cache_read: 0.25, cache_write: 2, output: 10}}");
        let cost = all.cost(AgentKind::Codex, Some("gpt-5"), &usage()).unwrap();
        assert!((cost.usd - (1.5 + 0.5 + 6.0 + 5.0)).abs() < 1e-9 && cost.kind == CostKind::Estimated, "{cost:?}");
        let plain = prices("codex: {gpt-5: {input: 1, output: 2}}");
        let cost = plain.cost(AgentKind::Codex, Some("gpt-5"), &usage()).unwrap();
        assert!((cost.usd - 7.0).abs() < 1e-9, "{cost:?}");
    }

    #[test]
    fn what_has_no_price_has_no_cost() {
        let all = prices("codex: {gpt-5: {input: 1, output: 2}}");
        assert_eq!(all.cost(AgentKind::Gemini, Some("gpt-5"), &usage()), None);
        assert_eq!(all.cost(AgentKind::Codex, Some("gpt-4"), &usage()), None);
        assert_eq!(all.cost(AgentKind::Codex, None, &usage()), None);
        assert_eq!(Prices::default().cost(AgentKind::Codex, Some("gpt-5"), &usage()), None);
    }

    #[test]
    fn the_most_exact_pattern_counts() {
        let all = prices(
            "gemini: {'*': {input: 1, output: 0}, 'gemini-*': {input: 2, output: 0}, '*-flash*': {input: 3, output: 0},
             'gemini-2.5-pro': {input: 4, output: 0}}",
        );
        let one = Usage { input: 1_000_000, ..Usage::default() };
        for (model, expected) in [
            (Some("gemini-2.5-pro"), 4.0),
            (Some("gemini-3"), 2.0),
            (Some("gemini-3-pro-x"), 2.0),
            (Some("gemini-3-flash-lite"), 2.0),
            (Some("x-flash"), 3.0),
            (Some("other"), 1.0),
            (None, 1.0),
        ] {
            let cost = all.cost(AgentKind::Gemini, model, &one).unwrap();
            assert!((cost.usd - expected).abs() < 1e-9, "{model:?} {cost:?}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text_anywhere() {
        for (pattern, text, expected) in [
            ("a*", "a", true),
            ("a*", "ab", true),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxcyyb", false),
            ("**", "", true),
            ("a", "ab", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
