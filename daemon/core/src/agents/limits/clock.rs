//! When a limit ends, read from what vendors print: "resets 5:46pm", "resets Mar 17, 2030, 5:46pm (UTC)", "try again at
//! Mar 17th, 2030 5:46 PM.", "try again in 3 days 4 hours", "Retrying after 15890ms", ISO 8601, epoch seconds.
//!
//! Pure: the time that it counts from, and the zone of a clock that is printed without one, come from outside. What is
//! ambiguous, in the past or too far ahead is not known.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::agents::event::head;

/// A reset farther ahead is not believed: the longest window that a vendor has is a week.
const MAX_AHEAD: SignedDuration = SignedDuration::from_hours(8 * 24);
/// A clock without a date that is this little in the past means the reset that was just now, not tomorrow's: clocks are
/// printed in minutes.
const JUST_NOW: SignedDuration = SignedDuration::from_mins(2);
/// What a clock without seconds may mean.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// A date without a year is of the next year, if in this one it is farther in the past.
const YEAR_WRAPS: SignedDuration = SignedDuration::from_hours(180 * 24);
/// Bytes of a text that are looked at.
const LOOKED_AT: usize = 8 << 10;
/// Bytes behind the words below that are looked at.
const MOMENT: usize = 80;

/// What stands before a moment, in lower case.
const BEFORE: [&str; 12] = [
    "resets",
    "reset at",
    "reset on",
    "reset in",
    "reset after",
    "try again",
    "retrying after",
    "retry after",
    "retry in",
    "regain access",
    "limit reached|",
    MILLISECONDS,
];
/// One of them, with a bare number of milliseconds behind it.
const MILLISECONDS: &str = "retrydelayms";

/// The first reset that a text names, if it is to be believed.
pub(super) fn reset(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let text = head(text, LOOKED_AT);
    let lower = text.to_ascii_lowercase();
    let mut places: Vec<(usize, &str)> = BEFORE
        .iter()
        .flat_map(|words| lower.match_indices(words).map(|(at, words)| (at + words.len(), words)))
        .collect();
    places.sort_unstable();
    let moment = places.into_iter().find_map(|(at, words)| {
        let behind = head(&text[at..], MOMENT);
        if words == MILLISECONDS { Moment::milliseconds(behind) } else { Moment::read(behind) }
    })?;
    moment.resolve(now, zone).filter(|reset| believable(*reset, now))
}

/// The last line of a text that names a reset.
pub(super) fn last_reset(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    text.lines().rev().find_map(|line| reset(line, now, zone))
}

/// Whether a reset is in the future, and not too far.
pub(super) fn believable(reset: Timestamp, now: Timestamp) -> bool {
    reset > now && reset.duration_since(now) <= MAX_AHEAD
}

/// A moment as it is printed.
#[derive(Debug, PartialEq)]
enum Moment {
    /// So much later.
    After(SignedDuration),
    /// This one.
    At(Timestamp),
    /// What a clock on a wall shows.
    Wall { day: Day, time: Time, zone: Zone },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Day {
    /// None was printed.
    Next,
    Today,
    Tomorrow,
    Weekday(Weekday),
    /// Month and day.
    Yearly(i8, i8),
    Full(Date),
}

#[derive(Clone, Debug, PartialEq)]
enum Zone {
    /// None was printed.
    Given,
    Known(TimeZone),
    /// One was printed that means several, or nothing.
    Unclear,
}

impl Moment {
    fn read(text: &str) -> Option<Self> {
        let mut rest = Scanner(text);
        rest.skip_fillers();
        if let Some(moment) = rest.clone().number_moment() {
            return Some(moment);
        }
        rest.wall()
    }

    fn milliseconds(text: &str) -> Option<Self> {
        let mut rest = Scanner(text);
        rest.skip();
        rest.digits()?.parse().ok().map(SignedDuration::from_millis).map(Self::After)
    }

    fn resolve(self, now: Timestamp, given: &TimeZone) -> Option<Timestamp> {
        let (day, time, zone) = match self {
            Self::After(later) => return now.checked_add(later).ok(),
            Self::At(moment) => return Some(moment),
            Self::Wall { day, time, zone } => (day, time, zone),
        };
        let zone = match zone {
            Zone::Given => given.clone(),
            Zone::Known(zone) => zone,
            Zone::Unclear => return None,
        };
        let today = now.to_zoned(zone.clone()).date();
        let in_days = |days: i32| today.checked_add(days.days()).ok();
        let at = |date: Date| candidates(date.to_datetime(time), &zone);
        let first_after = |date: Date| at(date).into_iter().find(|moment| *moment > now);
        match day {
            Day::Next => {
                let just_now = |moment: &Timestamp| *moment <= now && now.duration_since(*moment) <= JUST_NOW;
                match at(today).into_iter().find(just_now) {
                    // The minute that is printed has not ended yet.
                    Some(moment) => moment.checked_add(MINUTE).ok().filter(|end| *end > now),
                    None => (0..3).filter_map(in_days).find_map(first_after),
                }
            }
            Day::Today => first_after(today),
            Day::Tomorrow => first_after(in_days(1)?),
            Day::Weekday(weekday) => {
                (0..8).filter_map(in_days).filter(|date| date.weekday() == weekday).find_map(first_after)
            }
            Day::Yearly(month, day) => {
                let first = first_after_or_only(&at(Date::new(today.year(), month, day).ok()?), now)?;
                if first < now && now.duration_since(first) > YEAR_WRAPS {
                    return first_after_or_only(&at(Date::new(today.year().checked_add(1)?, month, day).ok()?), now);
                }
                Some(first)
            }
            Day::Full(date) => first_after_or_only(&at(date), now),
        }
    }
}

fn first_after_or_only(moments: &[Timestamp], now: Timestamp) -> Option<Timestamp> {
    moments.iter().find(|moment| **moment > now).or(moments.last()).copied()
}

/// The moments at which a clock on the wall shows this, in order: two where it is set back, and the one that it is moved
/// to where it is set forward over it.
fn candidates(shown: DateTime, zone: &TimeZone) -> Vec<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    let mut moments = Vec::with_capacity(2);
    if ambiguous.is_ambiguous() && matches!(ambiguous.offset(), jiff::tz::AmbiguousOffset::Fold { .. }) {
        moments.extend(ambiguous.earlier().ok());
        moments.extend(ambiguous.later().ok());
    } else {
        moments.extend(ambiguous.compatible().ok());
    }
    moments
}

/// What is left of a text.
#[derive(Clone, Debug)]
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    /// Skips blanks and marks that carry nothing.
    fn skip(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', ',', ':', '·', '∙', '"', '\'', '~', '=']);
    }

    /// Skips words that carry nothing.
    fn skip_fillers(&mut self) {
        loop {
            self.skip();
            let mut ahead = self.clone();
            match ahead.word() {
                Some(word)
                    if ["at", "on", "in", "after", "about", "approximately", "the"].iter().any(|w| same(w, word)) =>
                {
                    *self = ahead;
                }
                _ => return,
            }
        }
    }

    /// Letters, behind blanks and marks.
    fn word(&mut self) -> Option<&'a str> {
        self.skip();
        let end = self.0.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Digits, right here.
    fn digits(&mut self) -> Option<&'a str> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        (!digits.is_empty()).then_some(digits)
    }

    /// ISO 8601, an epoch, or a duration.
    fn number_moment(mut self) -> Option<Moment> {
        if let Some(moment) = self.clone().iso() {
            return Some(moment);
        }
        let mut ahead = self.clone();
        if let Some(digits @ (_, 10 | 13)) = ahead.digits().map(|digits| (digits, digits.len()))
            && !ahead.0.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            let value: i64 = digits.0.parse().ok()?;
            let moment =
                if digits.1 == 13 { Timestamp::from_millisecond(value) } else { Timestamp::from_second(value) };
            return moment.ok().map(Moment::At);
        }
        self.duration().map(Moment::After)
    }

    /// `2030-03-17T17:46:00Z`, `2030-03-17 17:46 UTC`.
    fn iso(mut self) -> Option<Moment> {
        let date: Date = self.0.get(..10).filter(|date| date.is_ascii())?.parse().ok()?;
        let end = self.0.find(|c: char| !(c.is_ascii_alphanumeric() || "-:.+".contains(c))).unwrap_or(self.0.len());
        let whole = self.0[..end].trim_end_matches(['.', ':', '-']);
        if let Ok(moment) = whole.parse::<Timestamp>() {
            return Some(Moment::At(moment));
        }
        self.0 = self.0[10..].trim_start_matches(['T', 't']);
        self.skip_fillers();
        let time = self.time()?;
        Some(Moment::Wall { day: Day::Full(date), time, zone: self.zone() })
    }

    /// `2 hours`, `3 days 4 hours`, `1h30m`, `15890ms`, `1.5 hours`.
    fn duration(&mut self) -> Option<SignedDuration> {
        let mut sum: Option<SignedDuration> = None;
        loop {
            let mut ahead = self.clone();
            ahead.skip();
            if sum.is_some() && ahead.0.get(..4).is_some_and(|and| same(and, "and ")) {
                ahead.0 = &ahead.0[4..];
                ahead.skip();
            }
            let Some(part) = ahead.duration_part() else { return sum };
            sum = Some(sum.unwrap_or_default().checked_add(part)?);
            *self = ahead;
        }
    }

    fn duration_part(&mut self) -> Option<SignedDuration> {
        let whole = self.digits()?;
        let mut number = whole.to_owned();
        if let Some(fraction) = self.0.strip_prefix('.').and_then(|rest| Scanner(rest).digits()) {
            self.0 = &self.0[fraction.len() + 1..];
            number = format!("{whole}.{fraction}");
        }
        let seconds = match self.word()?.to_ascii_lowercase().as_str() {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            _ => return None,
        };
        SignedDuration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
    }

    /// A day and a clock, in either order, and a zone.
    fn wall(mut self) -> Option<Moment> {
        if let Some(day) = self.day() {
            self.skip_fillers();
            let time = self.time()?;
            return Some(Moment::Wall { day, time, zone: self.zone() });
        }
        let time = self.time()?;
        let zone = self.zone();
        self.skip_fillers();
        let day = self.day().unwrap_or(Day::Next);
        let zone = if zone == Zone::Given && day != Day::Next { self.zone() } else { zone };
        Some(Moment::Wall { day, time, zone })
    }

    /// `Mar 17th, 2030`, `17 March`, `Monday`, `tomorrow`.
    fn day(&mut self) -> Option<Day> {
        let mut ahead = self.clone();
        ahead.skip();
        let mut number_first = ahead.clone();
        let (month, day) = if let Some(day) = number_first.ordinal()
            && let Some(month) = number_first.word().and_then(month)
        {
            ahead = number_first;
            (month, day)
        } else {
            let word = ahead.word()?;
            if same(word, "today") || same(word, "tomorrow") {
                *self = ahead;
                return Some(if same(word, "today") { Day::Today } else { Day::Tomorrow });
            }
            let Some(month) = month(word) else {
                let weekday = weekday(word)?;
                *self = ahead;
                // "Mon, Mar 17": the date says more.
                return Some(self.day().unwrap_or(Day::Weekday(weekday)));
            };
            ahead.0 = ahead.0.trim_start_matches('.');
            ahead.skip();
            (month, ahead.ordinal()?)
        };
        *self = ahead.clone();
        ahead.skip();
        if let Some(year) = ahead.digits().filter(|digits| digits.len() == 4) {
            let date = Date::new(year.parse().ok()?, month, day).ok()?;
            *self = ahead;
            return Some(Day::Full(date));
        }
        Some(Day::Yearly(month, day))
    }

    /// `17`, `17th`.
    fn ordinal(&mut self) -> Option<i8> {
        let day = self.digits()?.parse().ok().filter(|day| (1..=31).contains(day))?;
        if self.0.get(..2).is_some_and(|end| ["st", "nd", "rd", "th"].iter().any(|known| same(end, known))) {
            self.0 = &self.0[2..];
        }
        Some(day)
    }

    /// `5pm`, `5:46 PM`, `5:46 p.m.`, `17:46`, `17:46:30`, `noon`.
    fn time(&mut self) -> Option<Time> {
        self.skip();
        let mut word = self.clone();
        if let Some(hour) = word.word().and_then(|word| match word {
            word if same(word, "noon") => Some(12),
            word if same(word, "midnight") => Some(0),
            _ => None,
        }) {
            *self = word;
            return Time::new(hour, 0, 0, 0).ok();
        }
        let hour: i8 = self.digits().filter(|digits| digits.len() <= 2)?.parse().ok()?;
        let (mut minute, mut second, mut colon) = (0, 0, false);
        for part in [&mut minute, &mut second] {
            let Some(rest) = self.0.strip_prefix(':') else { break };
            let mut ahead = Scanner(rest);
            let Some(digits) = ahead.digits().filter(|digits| digits.len() == 2) else { break };
            *part = digits.parse().ok()?;
            (*self, colon) = (ahead, true);
        }
        let afternoon = self.half_of_day();
        let hour = match afternoon {
            Some(_) if !(1..=12).contains(&hour) => return None,
            Some(afternoon) => hour % 12 + if afternoon { 12 } else { 0 },
            None if colon => hour,
            // A number alone is no clock.
            None => return None,
        };
        Time::new(hour, minute, second, 0).ok()
    }

    /// `am` or `pm`: whether it is the afternoon.
    fn half_of_day(&mut self) -> Option<bool> {
        let rest = self.0.trim_start_matches([' ', '\u{202f}', '\u{a0}']);
        for (text, afternoon) in [("am", false), ("pm", true), ("a.m.", false), ("p.m.", true)] {
            let Some(found) = rest.get(..text.len()) else { continue };
            let after = &rest[text.len()..];
            if same(found, text) && !after.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                self.0 = after;
                return Some(afternoon);
            }
        }
        None
    }

    /// `(UTC)`, `UTC+2`, `Europe/Berlin`, `PST`.
    fn zone(&mut self) -> Zone {
        let rest = self.0.trim_start_matches([' ', ',']);
        let inner = rest.strip_prefix('(');
        let text = inner.unwrap_or(rest);
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "/_+-:".contains(c))).unwrap_or(text.len());
        let name = text[..end].trim_end_matches([':', '-', '+', '/']);
        let found = named(name);
        if inner.is_none() && (found == Zone::Given || name.is_empty()) {
            return Zone::Given;
        }
        self.0 = text[end..].trim_start_matches(')');
        match found {
            // "(local time)", and "(your time)".
            Zone::Given if !["local", "your"].iter().any(|known| same(known, name)) => Zone::Unclear,
            found => found,
        }
    }
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn month(word: &str) -> Option<i8> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    position(&MONTHS, word)
}

fn weekday(word: &str) -> Option<Weekday> {
    const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    position(&DAYS, word).and_then(|day| Weekday::from_monday_one_offset(day).ok())
}

/// The place from 1 of a name, or of its first three letters or more.
fn position(names: &[&str], word: &str) -> Option<i8> {
    let word = word.to_ascii_lowercase();
    let at = names.iter().position(|name| word.len() >= 3 && name.starts_with(&word))?;
    i8::try_from(at + 1).ok()
}

/// A zone by what it is called; [`Zone::Given`]: that is no zone.
fn named(name: &str) -> Zone {
    /// Abbreviations that mean one offset everywhere, in hours (halves for the middle of Australia).
    const ABBREVIATIONS: [(&str, f32); 30] = [
        ("UTC", 0.0),
        ("GMT", 0.0),
        ("Z", 0.0),
        ("EST", -5.0),
        ("EDT", -4.0),
        ("CDT", -5.0),
        ("MDT", -6.0),
        ("PST", -8.0),
        ("PDT", -7.0),
        ("AKST", -9.0),
        ("AKDT", -8.0),
        ("HST", -10.0),
        ("BRT", -3.0),
        ("WET", 0.0),
        ("WEST", 1.0),
        ("CET", 1.0),
        ("CEST", 2.0),
        ("EET", 2.0),
        ("EEST", 3.0),
        ("MSK", 3.0),
        ("SGT", 8.0),
        ("HKT", 8.0),
        ("AWST", 8.0),
        ("JST", 9.0),
        ("KST", 9.0),
        ("ACST", 9.5),
        ("ACDT", 10.5),
        ("AEST", 10.0),
        ("AEDT", 11.0),
        ("NZST", 12.0),
    ];
    /// Abbreviations of several zones: China or Chicago, India or Israel or Ireland, …
    const AMBIGUOUS: [&str; 6] = ["CST", "IST", "BST", "AST", "MST", "ADT"];
    /// What their part of America has at that time.
    const AMERICAN: [(&str, &str); 3] =
        [("ET", "America/New_York"), ("CT", "America/Chicago"), ("PT", "America/Los_Angeles")];
    let fixed = |hours: f32| Offset::from_seconds((hours * 3600.0) as i32).map(TimeZone::fixed);
    if let Some((_, place)) = AMERICAN.iter().find(|(known, _)| *known == name) {
        return TimeZone::get(place).map_or(Zone::Unclear, Zone::Known);
    }
    if let Some((_, hours)) = ABBREVIATIONS.iter().find(|(known, _)| same(known, name)) {
        return fixed(*hours).map_or(Zone::Unclear, Zone::Known);
    }
    if AMBIGUOUS.contains(&name) {
        return Zone::Unclear;
    }
    let offset = ["UTC", "GMT"].iter().find_map(|known| name.strip_prefix(known)).unwrap_or(name);
    if offset.starts_with(['+', '-']) {
        return hours_and_minutes(offset).map_or(Zone::Unclear, |offset| Zone::Known(TimeZone::fixed(offset)));
    }
    if name.contains('/') {
        return TimeZone::get(name).map_or(Zone::Unclear, Zone::Known);
    }
    Zone::Given
}

/// `+2`, `+02:00`, `-0330`.
fn hours_and_minutes(text: &str) -> Option<Offset> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = if digits.len() <= 2 { (digits.as_str(), "0") } else { digits.split_at(digits.len() - 2) };
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 14 && minutes < 60).then(|| Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, now: &str, zone: &str) -> Option<String> {
        let zone = TimeZone::get(zone).unwrap();
        reset(text, now.parse().unwrap(), &zone).map(|reset| reset.to_string())
    }

    #[test]
    fn what_vendors_print_is_read() {
        // Sunday.
        let now = "2030-03-17T15:00:00Z";
        for (text, zone, expected) in [
            // 12 hours, with and without minutes, blanks and dots.
            ("resets 5:46pm", "UTC", Some("2030-03-17T17:46:00Z")),
            ("resets 5pm", "UTC", Some("2030-03-17T17:00:00Z")),
            ("resets at 5:46 PM.", "UTC", Some("2030-03-17T17:46:00Z")),
            ("Resets at 5:46 p.m.", "UTC", Some("2030-03-17T17:46:00Z")),
            ("resets 12am", "UTC", Some("2030-03-18T00:00:00Z")),
            ("resets 12pm", "UTC", Some("2030-03-18T12:00:00Z")),
            ("resets 12:30pm", "UTC", Some("2030-03-18T12:30:00Z")),
            ("resets 13pm", "UTC", None),
            ("resets 0am", "UTC", None),
            // 24 hours.
            ("resets 17:46", "UTC", Some("2030-03-17T17:46:00Z")),
            ("resets at 17:46:30", "UTC", Some("2030-03-17T17:46:30Z")),
            ("resets 24:01", "UTC", None),
            ("resets 5", "UTC", None),
            // No date: the next time that the clock shows it.
            ("resets 2pm", "UTC", Some("2030-03-18T14:00:00Z")),
            ("resets 2:59pm", "UTC", None),
            // The minute that is running: until its end.
            ("resets 3pm", "UTC", Some("2030-03-17T15:01:00Z")),
            ("resets 2:57pm", "UTC", Some("2030-03-18T14:57:00Z")),
            ("Your limit will reset at 6pm (Asia/Taipei).", "UTC", Some("2030-03-18T10:00:00Z")),
            // Zones: that of the machine, names, offsets, abbreviations.
            ("resets 5:46pm", "Europe/Berlin", Some("2030-03-17T16:46:00Z")),
            ("resets 8:30pm (Asia/Tokyo)", "Europe/Berlin", Some("2030-03-18T11:30:00Z")),
            ("resets 8:40pm Asia/Kolkata", "UTC", Some("2030-03-17T15:10:00Z")),
            ("resets 5:46pm (UTC)", "Asia/Tokyo", Some("2030-03-17T17:46:00Z")),
            ("resets 5:46pm UTC", "Asia/Tokyo", Some("2030-03-17T17:46:00Z")),
            ("resets 5:46pm (UTC+2)", "UTC", Some("2030-03-17T15:46:00Z")),
            ("resets 5:46pm GMT-03:30", "UTC", Some("2030-03-17T21:16:00Z")),
            ("resets 5:46pm +02:00", "UTC", Some("2030-03-17T15:46:00Z")),
            ("resets 5:46pm PST", "UTC", Some("2030-03-18T01:46:00Z")),
            ("resets 5:46pm (EDT)", "UTC", Some("2030-03-17T21:46:00Z")),
            ("resets 5:46pm ET", "UTC", Some("2030-03-17T21:46:00Z")),
            ("resets 5:46pm (local time)", "Europe/Berlin", Some("2030-03-17T16:46:00Z")),
            ("resets 5:46pm CST", "UTC", None),
            ("resets 5:46pm (IST)", "UTC", None),
            ("resets 5:46pm (Middle/Earth)", "UTC", None),
            ("resets 5:46pm (XYZ)", "UTC", None),
            ("resets 5:46pm and then", "UTC", Some("2030-03-17T17:46:00Z")),
            // Dates.
            ("resets Mar 17, 2030, 5:46pm (UTC)", "UTC", Some("2030-03-17T17:46:00Z")),
            ("try again at Mar 17th, 2030 5:46 PM.", "UTC", Some("2030-03-17T17:46:00Z")),
            ("resets Mar 22, 6am (UTC)", "UTC", Some("2030-03-22T06:00:00Z")),
            ("resets Mar 22 at 6am", "UTC", Some("2030-03-22T06:00:00Z")),
            ("resets on 22 March 2030 at 06:00", "UTC", Some("2030-03-22T06:00:00Z")),
            ("resets 5pm Mar 20", "UTC", Some("2030-03-20T17:00:00Z")),
            ("resets 5pm (UTC) on Mar 20", "Asia/Tokyo", Some("2030-03-20T17:00:00Z")),
            ("resets tomorrow at 9am", "UTC", Some("2030-03-18T09:00:00Z")),
            ("resets today at 9pm", "UTC", Some("2030-03-17T21:00:00Z")),
            ("resets Mon 9am", "UTC", Some("2030-03-18T09:00:00Z")),
            ("resets Sunday at 2pm", "UTC", Some("2030-03-24T14:00:00Z")),
            ("resets Tue, Mar 19, 9am", "UTC", Some("2030-03-19T09:00:00Z")),
            ("resets at midnight", "UTC", Some("2030-03-18T00:00:00Z")),
            ("resets Feb 30, 6am", "UTC", None),
            // Durations.
            ("try again in 2 hours", "UTC", Some("2030-03-17T17:00:00Z")),
            ("Try again in 3 days 4 hours.", "UTC", Some("2030-03-20T19:00:00Z")),
            ("try again in 1 hour and 30 minutes", "UTC", Some("2030-03-17T16:30:00Z")),
            ("try again in 1 day, 2 hours, 3 minutes", "UTC", Some("2030-03-18T17:03:00Z")),
            ("Retrying after 15890ms", "UTC", Some("2030-03-17T15:00:15.89Z")),
            ("Your quota will reset after 42h1m20s.", "UTC", Some("2030-03-19T09:01:20Z")),
            ("Please try again in 1.898s.", "UTC", Some("2030-03-17T15:00:01.898Z")),
            ("Please retry in 7s.", "UTC", Some("2030-03-17T15:00:07Z")),
            ("  retryDelayMs: 15890,", "UTC", Some("2030-03-17T15:00:15.89Z")),
            ("  retryDelayMs: undefined,", "UTC", None),
            ("  retryDelayMs: 104621247000,", "UTC", None),
            ("retry in 5 parsecs", "UTC", None),
            ("reset after 0s", "UTC", None),
            // ISO 8601 and epochs.
            ("resets 2030-03-17T17:46:00Z", "UTC", Some("2030-03-17T17:46:00Z")),
            ("resets at: 2030-03-17T17:46:00.000+02:00.", "UTC", Some("2030-03-17T15:46:00Z")),
            ("resets 2030-03-17 17:46:00 UTC", "Asia/Tokyo", Some("2030-03-17T17:46:00Z")),
            ("You will regain access on 2030-03-18 at 00:00 UTC.", "Asia/Tokyo", Some("2030-03-18T00:00:00Z")),
            ("resets 2030-03-17T17:46", "Europe/Berlin", Some("2030-03-17T16:46:00Z")),
            ("usage limit reached|1900000000", "UTC", Some("2030-03-17T17:46:40Z")),
            ("resets 1900000000000", "UTC", Some("2030-03-17T17:46:40Z")),
            // In the past, and over 8 days ahead.
            ("resets Mar 17, 2030, 2pm", "UTC", None),
            ("resets Mar 16, 6am", "UTC", None),
            ("resets 2029-03-17T17:46:00Z", "UTC", None),
            ("resets Mar 25, 2030, 2:59pm", "UTC", Some("2030-03-25T14:59:00Z")),
            ("resets Mar 25, 2030, 3:01pm", "UTC", None),
            ("try again in 9 days", "UTC", None),
            ("resets 2100000000", "UTC", None),
            // Nothing, and things that only look like it.
            ("", "UTC", None),
            ("resets", "UTC", None),
            ("resets soon, 5pm", "UTC", None),
            ("try again later", "UTC", None),
            ("try again later. Resets 5pm", "UTC", Some("2030-03-17T17:00:00Z")),
            ("it is 5:46pm", "UTC", None),
            ("resets 99999999999999999999999 hours", "UTC", None),
            ("resets é", "UTC", None),
        ] {
            assert_eq!(read(text, now, zone).as_deref(), expected, "{text:?} in {zone}");
        }
    }

    #[test]
    fn a_clock_that_is_set_forward_or_back_is_understood() {
        // On 2030-03-31 Berlin has no 2:30, on 2030-10-27 it has it twice.
        let berlin = "Europe/Berlin";
        for (now, expected) in [
            ("2030-03-30T23:00:00Z", Some("2030-03-31T01:30:00Z")),
            ("2030-10-26T20:00:00Z", Some("2030-10-27T00:30:00Z")),
            ("2030-10-27T00:40:00Z", Some("2030-10-27T01:30:00Z")),
            ("2030-10-27T01:40:00Z", Some("2030-10-28T01:30:00Z")),
        ] {
            assert_eq!(read("resets 2:30am", now, berlin).as_deref(), expected, "{now}");
        }
        assert_eq!(
            read("resets Oct 27, 2030, 2:30am", "2030-10-27T00:40:00Z", berlin).as_deref(),
            Some("2030-10-27T01:30:00Z")
        );
        // The day after a change: the same clock, another offset.
        assert_eq!(read("resets 9pm", "2030-03-30T20:30:00Z", berlin).as_deref(), Some("2030-03-31T19:00:00Z"));
    }

    #[test]
    fn a_date_without_a_year_may_be_of_the_next() {
        let now = "2030-12-31T22:00:00Z";
        assert_eq!(read("resets Jan 2, 6am", now, "UTC").as_deref(), Some("2031-01-02T06:00:00Z"));
        assert_eq!(read("resets Dec 30, 6am", now, "UTC"), None);
        assert_eq!(read("resets 1am", now, "UTC").as_deref(), Some("2031-01-01T01:00:00Z"));
    }

    #[test]
    fn the_last_line_that_names_a_reset_counts() {
        let text = "Retrying after 500ms\nRetrying after 60s\nat f (x.js:1)";
        let reset = last_reset(text, "2030-03-17T15:00:00Z".parse().unwrap(), &TimeZone::UTC);
        assert_eq!(reset.unwrap().to_string(), "2030-03-17T15:01:00Z");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic_and_only_believable_resets_come_out(
            text in "(resets|try again|reset after|limit reached\\|)?( at | in | )?[0-9A-Za-z:,.+/() é-]{0,40}",
        ) {
            let now: Timestamp = "2030-03-17T15:00:00Z".parse().unwrap();
            let found = reset(&text, now, &TimeZone::UTC);
            proptest::prop_assert!(found.is_none_or(|reset| believable(reset, now)));
        }
    }
}
