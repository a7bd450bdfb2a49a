//! New ids, and the times inside ids.
//!
//! An [`IdSource`] never gives the same run id twice, whatever the clock does: its sequence only grows. The folder of a
//! new task or run is made by `mkdir`, so that a name that another process took is noticed and another one is chosen.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::root::{run_rel, task_rel};
use super::{Root, StoreError};
use crate::types::{ProjectId, RunId, RunKey, TaskId, TaskKey};

/// Names tried for one new folder. Each try fails only if the name is taken, so the bound is for a broken file system.
const MAX_TRIES: u32 = 1000;
/// A clock that jumps back by less than this is waited out: ids keep the later time, so that order is kept too. A
/// larger jump corrects a clock that was wrong, and its time is believed.
const MAX_HOLD: SignedDuration = SignedDuration::from_mins(10);
/// Length of a slug, as in [`TaskId`].
const SLUG: std::ops::RangeInclusive<usize> = 3..=50;
/// Characters of a prompt that are looked at for a slug.
const SLUG_SOURCE: usize = 2000;
/// A slug for a prompt without usable words.
const NO_WORDS: &str = "task";

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Makes ids. Cheap to clone; clones share the sequence.
#[derive(Clone)]
pub struct IdSource {
    clock: Clock,
    pid: u32,
    state: Arc<Mutex<State>>,
}

struct State {
    last: Timestamp,
    sequence: u64,
}

impl fmt::Debug for IdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdSource").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Default for IdSource {
    fn default() -> Self {
        Self::new(Arc::new(Timestamp::now), std::process::id())
    }
}

impl IdSource {
    /// A source that asks `clock` and writes `pid` into run ids.
    #[must_use]
    pub fn new(clock: Clock, pid: u32) -> Self {
        Self { clock, pid, state: Arc::new(Mutex::new(State { last: Timestamp::MIN, sequence: 0 })) }
    }

    /// A run id that this source has not given before.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        let (time, sequence) = self.tick();
        let time = time.to_zoned(TimeZone::UTC);
        let fraction = time.subsec_nanosecond() / 100_000;
        format!("{}{fraction:04}-{}-{sequence}", time.strftime("%Y%m%d-%H%M%S"), self.pid)
            .parse()
            .expect("a time, two numbers and the dashes between them are a run id")
    }

    /// A task id for a slug. Two calls within a second give the same; see [`Self::create_task`].
    #[must_use]
    pub fn task_id(&self, slug: &str) -> TaskId {
        let (time, _) = self.tick();
        task_id_at(time, slug)
    }

    /// Makes the folder of a new task (and of its project, and `runs/`) under an id that nobody has.
    ///
    /// # Errors
    /// The folder can't be made, or [`StoreError::NoFreeName`].
    pub fn create_task(&self, root: &Root, project: &ProjectId, slug: &str) -> Result<TaskKey, StoreError> {
        root.ensure_folder(project.as_str())?;
        let (time, _) = self.tick();
        for number in 1..=MAX_TRIES {
            let slug = if number == 1 { fit(slug, "") } else { fit(slug, &format!("-{number}")) };
            let key = TaskKey::new(project.clone(), task_id_at(time, &slug));
            if create_new(root, &task_rel(&key))? {
                root.create_folder(task_rel(&key).join("runs"))?;
                return Ok(key);
            }
        }
        Err(StoreError::NoFreeName { name: slug.to_owned(), tries: MAX_TRIES })
    }

    /// Makes the folder of a new run, with its `shim/`, under an id that nobody has.
    ///
    /// # Errors
    /// The folder can't be made, or [`StoreError::NoFreeName`].
    pub fn create_run(&self, root: &Root, task: &TaskKey) -> Result<RunKey, StoreError> {
        root.ensure_folder(task_rel(task).join("runs"))?;
        for _ in 0..MAX_TRIES {
            let key = task.run(self.run_id());
            if create_new(root, &run_rel(&key))? {
                root.create_folder(run_rel(&key).join(conductor_shim::protocol::FOLDER))?;
                return Ok(key);
            }
        }
        Err(StoreError::NoFreeName { name: self.run_id().to_string(), tries: MAX_TRIES })
    }

    fn tick(&self) -> (Timestamp, u64) {
        let now = (self.clock)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now > state.last || state.last.duration_since(now) > MAX_HOLD {
            state.last = now;
        }
        state.sequence += 1;
        (state.last, state.sequence)
    }
}

/// A slug made of a prompt's first words: lower case, `a-z`, `0-9` and dashes, 3 to 50 characters.
#[must_use]
pub fn slug(prompt: &str) -> String {
    let start: String = prompt.chars().take(SLUG_SOURCE).collect::<String>().to_ascii_lowercase();
    let mut slug = String::new();
    for word in start.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let needed = word.len() + usize::from(!slug.is_empty());
        if slug.len() + needed > *SLUG.end() {
            if slug.is_empty() {
                slug.push_str(&word[..*SLUG.end()]);
            }
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(word);
    }
    match slug.len() {
        0 => NO_WORDS.to_owned(),
        1 | 2 => format!("{slug}-{NO_WORDS}"),
        _ => slug,
    }
}

/// The time in a run's id, UTC, to the ten-thousandth of a second.
#[must_use]
pub fn run_time(run: &RunId) -> Timestamp {
    let text = run.as_str();
    let fraction = text[15..19].parse::<i32>().expect("a run id has four digits there") * 100_000;
    time(&text[..8], &text[9..15], fraction)
}

/// The time in a task's id, UTC, to the second.
#[must_use]
pub fn task_time(task: &TaskId) -> Timestamp {
    let text = task.as_str();
    time(&text[5..13], &text[14..20], 0)
}

/// A time from the digits of an id. A day that its month does not have is its last; a leap second is the one before.
fn time(date: &str, clock: &str, nanosecond: i32) -> Timestamp {
    let part = |text: &str| text.parse::<i16>().expect("an id's time fields are digits");
    let small = |text: &str| i8::try_from(part(text)).expect("two digits fit");
    // Year 0 exists for jiff, so every text of digits in range is a day.
    let first = jiff::civil::Date::new(part(&date[..4]), small(&date[4..6]), 1).expect("an id's month is 1 to 12");
    let day = small(&date[6..8]).clamp(1, first.days_in_month());
    let of_month = jiff::civil::Date::new(first.year(), first.month(), day).expect("the day was bounded");
    of_month
        .at(small(&clock[..2]), small(&clock[2..4]), small(&clock[4..6]).min(59), nanosecond)
        .to_zoned(TimeZone::UTC)
        .map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

fn task_id_at(time: Timestamp, slug: &str) -> TaskId {
    let time = time.to_zoned(TimeZone::UTC);
    format!("task-{}-{}", time.strftime("%Y%m%d-%H%M%S"), fit(slug, ""))
        .parse()
        .expect("a time and a slug that was made to fit are a task id")
}

/// Makes a slug valid, and leaves room for a suffix.
fn fit(text: &str, suffix: &str) -> String {
    let mut text = if text.parse_slug() { text.to_owned() } else { slug(text) };
    text.truncate(SLUG.end() - suffix.len());
    let text = text.trim_end_matches('-');
    format!("{text}{suffix}")
}

trait ParseSlug {
    fn parse_slug(&self) -> bool;
}

impl ParseSlug for str {
    fn parse_slug(&self) -> bool {
        SLUG.contains(&self.len()) && format!("task-20260101-000000-{self}").parse::<TaskId>().is_ok()
    }
}

/// Makes a folder; `false` if the name is taken.
fn create_new(root: &Root, rel: &Path) -> Result<bool, StoreError> {
    match root.create_folder(rel) {
        Ok(()) => Ok(true),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_run_id_has_the_real_ten_thousandths() {
        let source = IdSource::new(Arc::new(|| at("2026-11-22T15:11:32.094481035Z")), 11_729);
        assert_eq!(source.run_id().as_str(), "20261122-1511320944-11729-1");
        assert_eq!(source.run_id().as_str(), "20261122-1511320944-11729-2");
        assert_eq!(run_time(&source.run_id()), at("2026-11-22T15:11:32.0944Z"));
    }

    #[test]
    fn run_ids_stay_unique_and_ordered_when_the_clock_jumps_back() {
        let seconds = Arc::new(AtomicI64::new(1_800_000_000));
        let read = Arc::clone(&seconds);
        let clock = move || Timestamp::from_second(read.load(Ordering::Relaxed)).expect("in range");
        let source = IdSource::new(Arc::new(clock), 7);
        let mut seen = Vec::new();
        for jump in [0, 1, -5, 2, -300, 1, -86_400, 1] {
            seconds.fetch_add(jump, Ordering::Relaxed);
            seen.push(source.run_id());
        }
        assert_eq!(seen.iter().map(RunId::as_str).collect::<BTreeSet<_>>().len(), seen.len());
        assert!(seen[..6].is_sorted(), "{seen:?}");
        assert!(seen[6] < seen[5], "a day is a correction, which is believed");
    }

    #[test]
    fn a_slug_is_made_of_the_first_words() {
        for (prompt, expected) in [
            ("Fix the login bug!", "fix-the-login-bug"),
            ("", "task"),
            ("go", "go-task"),
            ("  ---  Ünïcode only: été 日本語 ", "n-code-only-t"),
            ("../../etc/passwd", "etc-passwd"),
        ] {
            assert_eq!(slug(prompt), expected);
        }
        let long = slug(&"word ".repeat(40));
        assert!(long.len() <= 50 && long.ends_with("word"), "{long}");
        assert_eq!(slug(&"x".repeat(300)).len(), 50);
    }

    #[test]
    fn tasks_of_one_second_and_one_slug_get_suffixes() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = Root::open(dir.path()).expect("a root");
        let project: ProjectId = "demo".parse().expect("an id");
        let source = IdSource::new(Arc::new(|| at("2026-11-22T15:11:32Z")), 1);
        let long = "a".repeat(50);
        let names: Vec<_> = ["fix", "fix", "fix", &long, &long]
            .iter()
            .map(|slug| source.create_task(&root, &project, slug).expect("made").task.slug().to_owned())
            .collect();
        assert_eq!(names, ["fix", "fix-2", "fix-3", &long, &format!("{}-2", "a".repeat(48))]);
    }

    #[test]
    fn a_run_folder_that_another_process_made_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = Root::open(dir.path()).expect("a root");
        let fixed = || IdSource::new(Arc::new(|| at("2026-11-22T15:11:32Z")), 1);
        let task = fixed().create_task(&root, &"demo".parse().expect("an id"), "fix").expect("made");
        let first = fixed().create_run(&root, &task).expect("made");
        let second = fixed().create_run(&root, &task).expect("made");
        assert_ne!(first, second);
        assert!(root.shim_dir(&second).is_dir());
    }

    #[test]
    fn times_of_strange_ids_are_bounded() {
        let id: TaskId = "task-20260231-000000-abc".parse().expect("an id");
        assert_eq!(task_time(&id), at("2026-02-28T00:00:00Z"));
        let id: RunId = "99991231-2359609999-1-1".parse().expect("an id");
        let _ = run_time(&id);
        let id: RunId = "00000100-0000000000-1-1".parse().unwrap_or("00000101-0000000000-1-1".parse().expect("an id"));
        let _ = run_time(&id);
    }

    proptest::proptest! {
        #[test]
        fn any_prompt_gives_a_slug_that_makes_a_task_id(prompt in ".{0,200}") {
            let id = task_id_at(at("2026-11-22T15:11:32Z"), &slug(&prompt));
            proptest::prop_assert_eq!(id.slug(), slug(&prompt));
        }
    }
}
