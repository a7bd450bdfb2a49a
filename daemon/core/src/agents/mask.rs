//! Configured tokens in what agents print: found, and replaced in every view of it. The raw files stay as they are.
//!
//! A token is also found as JSON writes it, in a text and in a text within a text. What is split into pieces is put
//! together by whoever reads the pieces: [`Masks::partial`] says what has to wait, [`Seam`] remembers it for texts.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use memchr::memmem::Finder;
use secrecy::{ExposeSecret, SecretString};

/// What stands for a token in a text.
const MASK: &str = "***";
/// What stands for each byte of a token where offsets must stay true.
const BYTE: u8 = b'*';
/// Bytes of a token's beginning that tell something: fewer are the vendor's prefix, the same for all of its keys.
const TELLING: usize = 16;
/// Bytes of a form of a token at most. Readers read more than that at once, and no key comes near it.
const MAX_FORM: usize = 64 << 10;

/// All configured tokens. Its `Debug` shows none.
#[derive(Clone, Default)]
pub struct Masks {
    needles: Vec<Finder<'static>>,
    longest: usize,
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masks").field("forms", &self.needles.len()).finish_non_exhaustive()
    }
}

impl Masks {
    /// Masks for these tokens; empty ones are left out.
    #[must_use]
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut forms: Vec<String> = tokens.into_iter().flat_map(|token| forms(token.expose_secret())).collect();
        forms.retain(|form| form.len() <= MAX_FORM);
        forms.sort_unstable();
        forms.dedup();
        let longest = forms.iter().map(String::len).max().unwrap_or(0);
        Self { needles: forms.iter().map(|form| Finder::new(form).into_owned()).collect(), longest }
    }

    /// Whether there is nothing to mask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// Bytes before a place that must be known to mask what comes after it.
    #[must_use]
    pub fn look_behind(&self) -> usize {
        self.longest.saturating_sub(1)
    }

    /// A text without tokens. Of a text that ends within a token the telling part of it is masked too.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.is_empty() {
            return Cow::Borrowed(text);
        }
        self.replaced(text, 0)
    }

    /// Replaces every byte of every token, so that offsets stay true.
    pub fn hide(&self, bytes: &mut [u8]) {
        for range in self.find(bytes) {
            bytes[range].fill(BYTE);
        }
    }

    /// Length of the longest end of `bytes` with which a token begins: what comes next decides whether it is one.
    #[must_use]
    pub fn partial(&self, bytes: &[u8]) -> usize {
        let of = |needle: &Finder<'_>| {
            let token = needle.needle();
            let most = token.len().saturating_sub(1).min(bytes.len());
            (1..=most).rev().find(|length| bytes.ends_with(&token[..*length])).unwrap_or(0)
        };
        self.needles.iter().map(of).max().unwrap_or(0)
    }

    /// [`Self::hide`] for the last bytes that there will ever be: a token that was cut off is hidden as well.
    pub fn hide_last(&self, bytes: &mut [u8]) {
        let partial = self.partial(bytes);
        self.hide(bytes);
        if partial >= TELLING {
            let from = bytes.len() - partial;
            bytes[from..].fill(BYTE);
        }
    }

    /// `text[from..]` with the tokens replaced that lie in `text`.
    fn replaced<'a>(&self, text: &'a str, from: usize) -> Cow<'a, str> {
        let mut ranges = self.find(text.as_bytes());
        let partial = self.partial(text.as_bytes());
        if partial >= TELLING {
            // Tokens are whole characters, but the end of one may begin within a character of the text.
            ranges.push(floor(text, text.len() - partial)..text.len());
        }
        if ranges.is_empty() {
            return Cow::Borrowed(&text[from..]);
        }
        ranges.sort_unstable_by_key(|range| range.start);
        let mut masked = String::with_capacity(text.len() - from);
        let mut at = from;
        for range in ranges.into_iter().filter(|range| range.end > from) {
            if range.start >= at || range.start < from && at == from {
                masked.push_str(text.get(at..range.start).unwrap_or_default());
                masked.push_str(MASK);
            }
            at = at.max(range.end);
        }
        masked.push_str(&text[at..]);
        Cow::Owned(masked)
    }

    /// All places of tokens, in any order; they may overlap.
    fn find(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let each = |needle: &Finder<'_>| {
            let length = needle.needle().len();
            needle.find_iter(bytes).map(|start| start..start + length).collect::<Vec<_>>()
        };
        self.needles.iter().flat_map(each).collect()
    }
}

/// The end of the text before, for texts that are pieces of one.
#[derive(Clone, Default)]
pub struct Seam(String);

impl fmt::Debug for Seam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seam")
    }
}

impl Seam {
    /// The next text without tokens: one that began in the text before is masked from here on (there it was masked if
    /// enough of it stood there to tell anything).
    #[must_use]
    pub fn text(&mut self, masks: &Masks, text: &str) -> String {
        if masks.is_empty() {
            return text.to_owned();
        }
        let from = self.0.len();
        let whole = std::mem::take(&mut self.0) + text;
        let masked = masks.replaced(&whole, from).into_owned();
        whole[ceil(&whole, whole.len().saturating_sub(masks.look_behind()))..].clone_into(&mut self.0);
        masked
    }

    /// What comes next does not go on with the text before.
    pub fn cut(&mut self) {
        self.0.clear();
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceil(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

/// A token as it is, and as JSON writes it once and twice, with and without escaped slashes.
fn forms(token: &str) -> Vec<String> {
    if token.is_empty() {
        return Vec::new();
    }
    let slashes = |text: &str| text.replace('/', "\\/");
    let (once, other) = (escaped(token), slashes(&escaped(token)));
    let (twice, other_twice) = (escaped(&once), escaped(&other));
    vec![token.to_owned(), once, other, twice, other_twice]
}

/// A text as JSON writes it, without the quotes around it.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk-ant-api03-0123456789abcdef";

    fn masks(tokens: &[&str]) -> Masks {
        let tokens: Vec<SecretString> = tokens.iter().map(|token| SecretString::from((*token).to_owned())).collect();
        Masks::new(&tokens)
    }

    #[test]
    fn a_token_is_replaced_wherever_it_stands() {
        let masks = masks(&[KEY, ""]);
        assert_eq!(masks.text(&format!("{KEY} and {KEY}.")), "*** and ***.");
        assert_eq!(masks.text("nothing"), "nothing");
        let mut bytes = format!("a{KEY}b").into_bytes();
        masks.hide(&mut bytes);
        assert_eq!(bytes, format!("a{}b", "*".repeat(KEY.len())).into_bytes());
    }

    #[test]
    fn a_token_is_found_as_json_writes_it_also_in_json_within_json() {
        let token = r#"p"ss\w/rd-of-this-test"#;
        let masks = masks(&[token]);
        let once = serde_json::json!({ "a": token }).to_string();
        let twice = serde_json::json!({ "a": once }).to_string();
        assert_eq!(masks.text(&once), r#"{"a":"***"}"#);
        assert_eq!(masks.text(&twice), r#"{"a":"{\"a\":\"***\"}"}"#);
        assert_eq!(masks.text(&once.replace('/', "\\/")), r#"{"a":"***"}"#);
    }

    #[test]
    fn tokens_that_overlap_are_masked_together() {
        let masks = masks(&["abcdef", "defghi", "cd"]);
        assert_eq!(masks.text("xabcdefghiy"), "x***y");
    }

    #[test]
    fn the_beginning_of_a_token_at_the_end_waits_and_is_hidden_where_it_tells_something() {
        let masks = masks(&[KEY]);
        assert_eq!(masks.partial(b"text sk-ant"), 6);
        assert_eq!(masks.partial(KEY.as_bytes()), 0);
        assert_eq!(masks.text("text sk-ant"), "text sk-ant");
        assert_eq!(masks.text(&format!("text {}", &KEY[..20])), "text ***");
        let mut bytes = KEY.as_bytes()[..20].to_vec();
        masks.hide_last(&mut bytes);
        assert_eq!(bytes, [b'*'; 20]);
    }

    #[test]
    fn the_debug_form_has_no_token() {
        assert!(!format!("{:?}", masks(&[KEY])).contains("sk-ant"));
    }

    proptest! {
        #[test]
        fn pieces_of_a_text_never_show_the_telling_part_of_a_token(
            before in "[a-z ]{0,12}", after in "[a-z ]{0,12}", cuts in proptest::collection::vec(0usize..60, 0..4),
        ) {
            let masks = masks(&[KEY]);
            let text = format!("{before}{KEY}{after}");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let (mut seam, mut shown, mut from) = (Seam::default(), String::new(), 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                shown += &seam.text(&masks, &text[from..cut]);
                from = cut;
            }
            prop_assert!(!shown.contains("0123"), "{shown}");
            prop_assert!(shown.starts_with(&before) && shown.ends_with(&after), "{shown}");
        }
    }
}
