//! Finding a task or run by what a person typed: a whole id, a slug, or the beginning of either.
//!
//! Nothing is guessed: several matches are an error that lists them, none is one that names what is spelt alike.

use std::fmt;
use std::sync::Arc;

use super::list::RunAt;
use super::{Catalog, Inner, TaskRecord};
use crate::types::{ProjectId, RunId, RunInfo, TaskId, TaskKey};

/// Candidates that an error lists.
pub const MAX_CANDIDATES: usize = 10;
/// Names that "did you mean" offers.
const MAX_NEAREST: usize = 3;
/// Names that are compared for it, the newest first.
const MAX_COMPARED: usize = 2_000;
/// Characters of a name that are compared.
const MAX_NAME: usize = 64;

/// Why nothing single was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindError {
    /// Several match.
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// The newest of them: ids, with their project where that differs.
        candidates: Vec<String>,
        /// How many more match.
        more: usize,
    },
    /// None matches.
    NotFound {
        /// What was asked for.
        asked: String,
        /// Names that are spelt alike, the nearest first.
        nearest: Vec<String>,
    },
}

impl std::error::Error for FindError {}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous { asked, candidates, more } => {
                write!(f, "{asked:?} is not unique: {}", candidates.join(", "))?;
                if *more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
            Self::NotFound { asked, nearest } if nearest.is_empty() => write!(f, "{asked:?} is not known"),
            Self::NotFound { asked, nearest } => {
                write!(f, "{asked:?} is not known; did you mean {}?", nearest.join(" or "))
            }
        }
    }
}

impl Catalog {
    /// The task with this id, this slug, or an id or slug that begins so; `PROJECT/…` looks in one project, as does
    /// `project`. An exact match is preferred to a beginning.
    ///
    /// # Errors
    /// Several match, or none.
    pub fn find_task(&self, text: &str, project: Option<&ProjectId>) -> Result<Arc<TaskRecord>, FindError> {
        let (project, name) = match text.split_once('/') {
            Some((project, name)) => (project.parse().ok(), name),
            None => (project.cloned(), text),
        };
        let inner = self.read();
        if let (Some(project), Ok(task)) = (&project, name.parse::<TaskId>())
            && let Some(task) = inner.tasks.get(&TaskKey::new(project.clone(), task))
        {
            return Ok(Arc::clone(task));
        }
        // A project that was named and is none leaves nothing to look at.
        let known = !text.contains('/') || project.is_some();
        let newest_first = || {
            let tasks = inner.tasks_by_time.values().rev().filter(|_| known && !name.is_empty());
            tasks.filter(|task| project.as_ref().is_none_or(|project| *project == task.key.project))
        };
        let exact = |task: &TaskRecord| task.key.task.as_str() == name || task.key.task.slug() == name;
        let begins = |task: &TaskRecord| {
            task.key.task.as_str().starts_with(name)
                || task.key.task.slug().starts_with(name)
                // "20261122-15…" is what people copy from a list.
                || task.key.task.as_str()[5..].starts_with(name)
        };
        let label = |task: &TaskRecord| task.key.to_string();
        single(text, newest_first().filter(|task| exact(task)), label)
            .or_else(|| single(text, newest_first().filter(|task| begins(task)), label))
            .unwrap_or_else(|| {
                let names = newest_first().map(|task| task.key.task.slug());
                Err(FindError::NotFound { asked: shown(text), nearest: nearest(name, names) })
            })
    }

    /// The run with this id, or an id that begins so.
    ///
    /// # Errors
    /// Several match, or none.
    pub fn find_run(&self, text: &str, project: Option<&ProjectId>) -> Result<Arc<RunInfo>, FindError> {
        let inner = self.read();
        let in_project = |run: &RunInfo| project.is_none_or(|project| *project == run.project_id);
        let label = |run: &RunInfo| run.key().to_string();
        if let Ok(id) = text.parse::<RunId>() {
            let exact = inner.runs_with_id(&id).filter(|run| in_project(run));
            if let Some(found) = single(text, exact, label) {
                return found;
            }
        }
        let newest_first = inner.runs_by_time.values().rev();
        let begins = newest_first.filter(|run| !text.is_empty() && run.run_id.as_str().starts_with(text));
        single(text, begins.filter(|run| in_project(run)), label).unwrap_or_else(|| {
            let names = inner.runs_by_time.values().rev().map(|run| run.run_id.as_str());
            Err(FindError::NotFound { asked: shown(text), nearest: nearest(text, names) })
        })
    }

    /// A project by its id.
    ///
    /// # Errors
    /// None has it.
    pub fn find_project(&self, text: &str) -> Result<Arc<super::ProjectRecord>, FindError> {
        let inner = self.read();
        let found = text.parse::<ProjectId>().ok().and_then(|id| inner.projects.get(&id).cloned());
        found.ok_or_else(|| FindError::NotFound {
            asked: shown(text),
            nearest: nearest(text, inner.projects.keys().map(AsRef::as_ref)),
        })
    }
}

impl Inner {
    fn runs_with_id<'a>(&'a self, id: &'a RunId) -> impl Iterator<Item = &'a Arc<RunInfo>> {
        let from = RunAt::first_of(id);
        self.runs_by_time.range(from..).map(|(_, run)| run).take_while(move |run| run.run_id == *id)
    }
}

/// The only one; `None` if there is none.
fn single<'a, T: 'a>(
    asked: &str,
    mut matches: impl Iterator<Item = &'a Arc<T>>,
    label: impl Fn(&T) -> String,
) -> Option<Result<Arc<T>, FindError>> {
    let first = matches.next()?;
    let Some(second) = matches.next() else { return Some(Ok(Arc::clone(first))) };
    let mut candidates = vec![label(first), label(second)];
    candidates.extend(matches.by_ref().take(MAX_CANDIDATES - 2).map(|object| label(object)));
    Some(Err(FindError::Ambiguous { asked: shown(asked), candidates, more: matches.count() }))
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_NAME).collect()
}

/// The names nearest to what was typed, if they are near enough to be what was meant.
fn nearest<'a>(asked: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let asked: Vec<char> = asked.chars().take(MAX_NAME).collect();
    let limit = (asked.len() / 3).clamp(1, 4);
    let mut found: Vec<(usize, &str)> = Vec::new();
    for name in names.take(MAX_COMPARED) {
        let letters: Vec<char> = name.chars().take(MAX_NAME).collect();
        if letters.len().abs_diff(asked.len()) <= limit {
            let distance = edits(&asked, &letters);
            if distance <= limit && !found.iter().any(|(_, known)| *known == name) {
                found.push((distance, name));
            }
        }
    }
    // Stable: of equally near names the newest stays first.
    found.sort_by_key(|(distance, _)| *distance);
    found.into_iter().take(MAX_NEAREST).map(|(_, name)| name.to_owned()).collect()
}

/// Insertions, deletions and replacements that make one of the other (Levenshtein).
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
