//! What is known of the accounts that agents use, in `.conductor/accounts.yaml`: which take no work for now, until when,
//! and which refuse their login. An account that works is not in it.
//!
//! The file is a cache of what the runs' own records say, so that it may be lost: then the next refusal writes it anew. A
//! damaged file is an empty one; one of a later version is left alone, and what is learnt stays in memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use conductor_shim::durable;
use serde::{Deserialize, Serialize};

use crate::ralph::AccountLimit;
use crate::store::yaml;
use crate::types::{LimitKind, LimitSource, Outcome, RunInfo, Timestamp};

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Accounts that are kept: beyond, the one whose trouble is oldest is forgotten. A person has a handful.
const MAX_ACCOUNTS: usize = 1000;
/// Bytes of the file at most.
const MAX_BYTES: u64 = 1 << 20;

/// An account in trouble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountTrouble {
    /// What ran out, or `auth`.
    pub kind: LimitKind,
    /// End of the run that was refused.
    pub since: Timestamp,
    /// When it is asked again; `None`: a person has to do something first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Whether the vendor named that time.
    #[serde(default)]
    pub known: bool,
    /// How it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<LimitSource>,
    /// The agent whose run was refused.
    pub agent: String,
    /// That run: `project/task/run`.
    pub run: String,
    /// What the vendor said, one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    #[serde(default)]
    accounts: BTreeMap<String, AccountTrouble>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Accounts {
    path: PathBuf,
    /// Held for moments only: the dispatcher asks.
    troubles: Mutex<BTreeMap<String, AccountTrouble>>,
    /// Held while the file is written.
    writing: Mutex<()>,
    /// The file is of a later version.
    read_only: bool,
}

impl Accounts {
    pub(super) fn open(path: PathBuf) -> Self {
        let (troubles, read_only) = match read(&path) {
            Ok(Some(document)) if document.version > VERSION => {
                tracing::warn!(path = %path.display(), version = document.version, "written by a later version; left alone");
                (BTreeMap::new(), true)
            }
            Ok(document) => (document.map(|document| document.accounts).unwrap_or_default(), false),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "can't be read; what it knew of limits is learnt anew");
                (BTreeMap::new(), false)
            }
        };
        Self { path, troubles: Mutex::new(troubles), writing: Mutex::default(), read_only }
    }

    /// Takes over what a run learnt of its account. Doing it again changes nothing. Blocks.
    pub(super) fn note(&self, run: &RunInfo) {
        let (Some(account), Some(outcome)) = (&run.account, run.outcome) else { return };
        let ended = run.end_time.unwrap_or(run.start_time);
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let known = troubles.get(account);
        match outcome {
            // A run that was refused later knows better than one that was refused earlier.
            Outcome::UsageLimited | Outcome::AuthFailed if known.is_none_or(|known| known.since < ended) => {
                let Some(trouble) = trouble(run, outcome, ended) else { return };
                if troubles.len() >= MAX_ACCOUNTS && !troubles.contains_key(account) {
                    let oldest = troubles.iter().min_by_key(|(_, trouble)| trouble.since).map(|(name, _)| name.clone());
                    oldest.map(|name| troubles.remove(&name));
                }
                troubles.insert(account.clone(), trouble);
            }
            // One that began before the refusal says nothing of the time after it.
            Outcome::Completed if known.is_some_and(|known| known.since <= run.start_time) => {
                troubles.remove(account);
            }
            _ => return,
        }
        drop(troubles);
        self.save();
    }

    /// Until when an account takes no work.
    pub(super) fn limited(&self, account: &str, now: Timestamp) -> Option<AccountLimit> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = troubles.get(account)?;
        let until = trouble.until.filter(|until| *until > now)?;
        Some(AccountLimit { account: account.to_owned(), kind: trouble.kind, until, known: trouble.known })
    }

    /// Somebody says that the account works again. Not written until [`Self::save`].
    pub(super) fn clear(&self, account: &str) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).remove(account);
    }

    /// All accounts in trouble, by name.
    pub(super) fn list(&self) -> BTreeMap<String, AccountTrouble> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what is known now. Blocks.
    pub(super) fn save(&self) {
        if self.read_only {
            return;
        }
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let document = Document { version: VERSION, accounts: self.list() };
        let written = yaml::to_string(&document)
            .map_err(|error| std::io::Error::other(error.to_string()))
            .and_then(|text| durable::write_atomic(&self.path, text.as_bytes(), durable::PRIVATE));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "what is known of limits can't be written; it is kept in memory");
        }
    }
}

fn trouble(run: &RunInfo, outcome: Outcome, ended: Timestamp) -> Option<AccountTrouble> {
    let limit = run.limit.as_ref();
    let account = run.account.clone()?;
    let wait = limit.filter(|_| outcome == Outcome::UsageLimited).map(|limit| AccountLimit::new(account, limit, ended));
    Some(AccountTrouble {
        kind: if outcome == Outcome::AuthFailed { LimitKind::Auth } else { limit?.kind },
        since: ended,
        until: wait.as_ref().map(|wait| wait.until),
        known: wait.is_some_and(|wait| wait.known),
        source: limit.map(|limit| limit.source),
        agent: run.agent.clone(),
        run: run.key().to_string(),
        message: run.error_summary.clone().unwrap_or_default(),
    })
}

fn read(path: &std::path::Path) -> Result<Option<Document>, String> {
    let bytes = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(found) if found.len() > MAX_BYTES => return Err(format!("it is larger than {MAX_BYTES} bytes")),
        _ => std::fs::read(path).map_err(|error| error.to_string())?,
    };
    yaml::from_slice(&bytes).map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Limit, TaskKey};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("time")
    }

    fn run(outcome: Outcome, start: &str, end: &str, resets: Option<&str>) -> RunInfo {
        let task = "task-20260101-000000-demo".parse().expect("task");
        let key =
            TaskKey::new("p".parse().expect("project"), task).run("20260101-0000000000-1-1".parse().expect("run"));
        let mut info = crate::store::run_info::unreadable(&key, crate::store::run_info::RunProblem::Missing).info;
        info.agent = "claude".into();
        info.account = Some("claude/login".into());
        info.outcome = Some(outcome);
        info.start_time = at(start);
        info.end_time = Some(at(end));
        info.limit = (outcome == Outcome::UsageLimited).then(|| Limit {
            kind: LimitKind::Window,
            resets_at: resets.map(at),
            source: LimitSource::Json,
        });
        info
    }

    #[test]
    fn a_refusal_is_kept_across_restarts_until_its_reset_or_until_a_later_run_succeeds() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("accounts.yaml");
        let accounts = Accounts::open(path.clone());
        accounts.note(&run(
            Outcome::UsageLimited,
            "2026-01-01T10:00:00Z",
            "2026-01-01T11:00:00Z",
            Some("2026-01-01T15:00:00Z"),
        ));
        let again = Accounts::open(path.clone());
        let limit = again.limited("claude/login", at("2026-01-01T12:00:00Z")).expect("limited");
        assert_eq!((limit.until, limit.known), (at("2026-01-01T15:00:00Z"), true));
        assert_eq!(again.limited("claude/login", at("2026-01-01T15:00:00Z")), None);
        assert_eq!(again.limited("codex/login", at("2026-01-01T12:00:00Z")), None);
        // Begun before the refusal: no proof. Begun after it: proof.
        again.note(&run(Outcome::Completed, "2026-01-01T10:59:00Z", "2026-01-01T11:30:00Z", None));
        assert_eq!(again.list().len(), 1);
        again.note(&run(Outcome::Completed, "2026-01-01T11:59:00Z", "2026-01-01T12:30:00Z", None));
        assert!(again.list().is_empty() && Accounts::open(path).list().is_empty());
    }

    #[test]
    fn an_unknown_reset_is_fifteen_minutes_and_an_older_refusal_changes_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let accounts = Accounts::open(folder.path().join("accounts.yaml"));
        accounts.note(&run(Outcome::UsageLimited, "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", None));
        let limit = accounts.limited("claude/login", at("2026-01-01T11:00:01Z")).expect("limited");
        assert_eq!((limit.until, limit.known), (at("2026-01-01T11:15:00Z"), false));
        accounts.note(&run(
            Outcome::UsageLimited,
            "2026-01-01T09:00:00Z",
            "2026-01-01T10:30:00Z",
            Some("2026-01-02T00:00:00Z"),
        ));
        assert_eq!(accounts.limited("claude/login", at("2026-01-01T11:00:01Z")), Some(limit));
        accounts.clear("claude/login");
        assert_eq!(accounts.limited("claude/login", at("2026-01-01T11:00:01Z")), None);
    }

    #[test]
    fn a_refused_login_waits_for_nobody_and_is_told() {
        let folder = tempfile::tempdir().expect("folder");
        let accounts = Accounts::open(folder.path().join("accounts.yaml"));
        accounts.note(&run(Outcome::AuthFailed, "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", None));
        assert_eq!(accounts.limited("claude/login", at("2026-01-01T11:00:01Z")), None);
        let list = accounts.list();
        assert_eq!((list["claude/login"].kind, list["claude/login"].until), (LimitKind::Auth, None));
    }

    #[test]
    fn a_damaged_file_is_an_empty_one_and_a_later_version_is_left_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("accounts.yaml");
        std::fs::write(&path, "version: [").expect("written");
        assert!(Accounts::open(path.clone()).list().is_empty());
        std::fs::write(&path, "version: 2\naccounts: {}\nmore: 1\n").expect("written");
        let accounts = Accounts::open(path.clone());
        accounts.note(&run(Outcome::UsageLimited, "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", None));
        assert_eq!(accounts.list().len(), 1);
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "version: 2\naccounts: {}\nmore: 1\n");
    }
}
