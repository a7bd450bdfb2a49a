//! Tokens and cost, in the words of either API.

use serde::Deserialize;

use super::Maybe;
use crate::event::Usage;

/// xAI's unit of money: 10^10 are a US dollar (docs.x.ai, cost tracking).
const TICKS_PER_USD: f64 = 1e10;

/// Usage as vendors write it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawUsage {
    #[serde(alias = "prompt_tokens")]
    input_tokens: Maybe<u64>,
    #[serde(alias = "prompt_tokens_details")]
    input_tokens_details: Maybe<InputDetails>,
    #[serde(alias = "completion_tokens")]
    output_tokens: Maybe<u64>,
    #[serde(alias = "completion_tokens_details")]
    output_tokens_details: Maybe<OutputDetails>,
    total_tokens: Maybe<u64>,
    cost: Maybe<Cost>,
    cost_in_usd_ticks: Maybe<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InputDetails {
    /// xAI, OpenAI.
    cached_tokens: Maybe<u64>,
    /// Perplexity.
    cache_read_input_tokens: Maybe<u64>,
    cache_creation_input_tokens: Maybe<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OutputDetails {
    reasoning_tokens: Maybe<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cost {
    currency: Maybe<String>,
    total_cost: Maybe<f64>,
}

impl RawUsage {
    /// In our words; `None`: it says nothing.
    pub(super) fn usage(self, model: Option<String>) -> Option<Usage> {
        let input_details = self.input_tokens_details.value().unwrap_or_default();
        let cache_read = input_details.cached_tokens.value().or(input_details.cache_read_input_tokens.value());
        let cache_write = input_details.cache_creation_input_tokens.value();
        let input_all = self.input_tokens.value();
        let cached = cache_read.unwrap_or(0).saturating_add(cache_write.unwrap_or(0));
        // The whole includes what the cache gave, in both APIs.
        let input = input_all.map(|all| all.saturating_sub(cached));
        let reasoning = self.output_tokens_details.value().and_then(|details| details.reasoning_tokens.value());
        let mut output = self.output_tokens.value();
        // xAI's chat counts reasoning beside the completion, the others within: the total tells.
        if let (Some(all), Some(said), Some(thought), Some(total)) =
            (input_all, output, reasoning, self.total_tokens.value())
            && thought > 0
            && all.checked_add(said).and_then(|sum| sum.checked_add(thought)) == Some(total)
        {
            output = Some(said.saturating_add(thought));
        }
        let dollars = |cost: &Cost| match &cost.currency {
            Maybe::Value(currency) => currency.eq_ignore_ascii_case("usd"),
            Maybe::Other(_) => true,
        };
        let cost = self.cost.value().filter(dollars).and_then(|cost| cost.total_cost.value());
        let ticks = self.cost_in_usd_ticks.value().map(|ticks| ticks / TICKS_PER_USD);
        let cost_usd = ticks.or(cost).filter(|usd| usd.is_finite() && *usd >= 0.0);
        let usage = Usage { input, cache_read, cache_write, output, reasoning, cost_usd, model: None };
        (usage != Usage::default()).then_some(Usage { model, ..usage })
    }
}
