//! Who calls, and what they may do.
//!
//! [`identify`] turns a connection's peer and a request's token into an [`Identity`]; [`Scope::allow`] is a pure
//! function over the tree of tasks. What this holds against, and what not, is in `docs/security.md`.

use conductor_core::store::Catalog;
use conductor_core::supervisor::Caller;
use conductor_core::types::{ProjectId, RunKey, TaskKey};

use crate::socket::{Origin, Peer};

/// How far a task's ancestors are followed: deeper than tasks can nest, so a circle in damaged files ends.
const MAX_ANCESTORS: usize = 64;

/// What a caller may do at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything: a person or a program of the daemon's user, of root, or of a member of `socket_group`.
    Operator,
    /// What an agent may do within this run.
    Run(RunKey),
}

/// A caller whose right to call is proven.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What they may do.
    pub scope: Scope,
    /// For records.
    pub caller: Caller,
}

/// Why a caller is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is inside a run.
    #[error("the caller is inside run {0}: send its token ($CONDUCTOR_TOKEN) as \"authorization: Bearer …\"")]
    Inside(RunKey),
    /// The kernel can't say where it is.
    #[error("the calling process can't be seen (another container, or it has ended), so a run's token is needed")]
    Unseen,
    /// The metadata is not `Bearer …`.
    #[error("the authorization metadata is not \"Bearer TOKEN\"")]
    Malformed,
    /// No live run has this token, or it is another's.
    #[error("the token is not that of a live run, or the caller is inside another run")]
    WrongToken,
}

/// Finds out who calls.
///
/// # Errors
/// See [`IdentityError`].
pub fn identify(
    peer: &Peer,
    authorization: Option<&str>,
    holder: impl Fn(&str) -> Option<RunKey>,
) -> Result<Identity, IdentityError> {
    let person = || format!("{} (uid {}, pid {})", peer.user(), peer.uid, peer.pid);
    let Some(authorization) = authorization else {
        return match &peer.origin {
            Origin::Outside => Ok(Identity { scope: Scope::Operator, caller: Caller { who: person(), run: None } }),
            Origin::Inside(run) => Err(IdentityError::Inside(run.clone())),
            Origin::Unknown => Err(IdentityError::Unseen),
        };
    };
    let (scheme, token) = authorization.split_once(' ').ok_or(IdentityError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(IdentityError::Malformed);
    }
    let run = holder(token.trim()).ok_or(IdentityError::WrongToken)?;
    match &peer.origin {
        Origin::Inside(around) if *around != run => Err(IdentityError::WrongToken),
        _ => {
            let caller = Caller { who: format!("run {}", run.run), run: Some(run.clone()) };
            Ok(Identity { scope: Scope::Run(run), caller })
        }
    }
}

/// Something that needs a right.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// To see something of a project.
    Read(&'a ProjectId),
    /// To make, bind or delete projects.
    ChangeProjects,
    /// To see the whole configuration, to reload it, to end the daemon.
    Administer,
    /// To submit a task in a project, as this run.
    Submit(&'a ProjectId, Option<&'a RunKey>),
    /// To stop, cancel, resume or delete a task or its run, or to say something to it.
    Control(&'a TaskKey),
    /// To wait for the tasks of a run, with its slot.
    WaitAs(&'a RunKey),
    /// To post to a task's bus, or to a project's, as this run.
    Post(&'a ProjectId, Option<&'a TaskKey>, Option<&'a str>),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("run {run} may not {what}")]
pub struct Denied {
    /// Who was refused.
    pub run: RunKey,
    /// What it wanted.
    pub what: String,
}

/// Which task's run submitted a task.
pub trait Family {
    /// The task whose run submitted `task`.
    fn parent(&self, task: &TaskKey) -> Option<TaskKey>;
}

impl Family for Catalog {
    fn parent(&self, task: &TaskKey) -> Option<TaskKey> {
        Some(self.task(task)?.parent.as_ref()?.task.clone())
    }
}

impl Scope {
    /// The only project that is visible; `None`: all are.
    #[must_use]
    pub fn project(&self) -> Option<&ProjectId> {
        match self {
            Self::Operator => None,
            Self::Run(run) => Some(&run.task.project),
        }
    }

    /// Whether an action is allowed.
    ///
    /// # Errors
    /// [`Denied`] where it is not.
    pub fn allow(&self, action: Action<'_>, family: &impl Family) -> Result<(), Denied> {
        let Self::Run(run) = self else { return Ok(()) };
        let own = &run.task;
        let (allowed, what) = match action {
            Action::Read(project) => (*project == own.project, format!("see project {project}")),
            Action::ChangeProjects => (false, "create, bind or delete projects".to_owned()),
            Action::Administer => (false, "administer the daemon".to_owned()),
            Action::Submit(project, parent) => {
                let as_itself = parent.is_none_or(|parent| parent == run);
                (*project == own.project && as_itself, format!("submit to project {project} but as itself and its own"))
            }
            Action::Control(task) => {
                (descends(task, own, family), format!("act on task {task}, which it did not start"))
            }
            Action::WaitAs(other) => (other == run, format!("wait in the place of run {other}")),
            Action::Post(project, None, from) => {
                (*project == own.project && is_own(run, from), format!("post to project {project} but as itself"))
            }
            Action::Post(_, Some(task), from) => {
                let related = task == own || family.parent(own).as_ref() == Some(task) || descends(task, own, family);
                (related && is_own(run, from), format!("post to task {task} but as itself, if they are related"))
            }
        };
        if allowed { Ok(()) } else { Err(Denied { run: run.clone(), what }) }
    }
}

fn is_own(run: &RunKey, from: Option<&str>) -> bool {
    from.is_none_or(|from| from == run.run.as_str())
}

/// Whether `task` was submitted by a run of `ancestor`, or of a task that was, and so on.
fn descends(task: &TaskKey, ancestor: &TaskKey, family: &impl Family) -> bool {
    std::iter::successors(family.parent(task), |task| family.parent(task))
        .take(MAX_ANCESTORS)
        .any(|parent| parent == *ancestor)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    struct Tree(HashMap<TaskKey, TaskKey>);

    impl Family for Tree {
        fn parent(&self, task: &TaskKey) -> Option<TaskKey> {
            self.0.get(task).cloned()
        }
    }

    fn project(name: &str) -> ProjectId {
        name.parse().expect("a project id")
    }

    fn task(slug: &str) -> TaskKey {
        TaskKey::new(project("p"), format!("task-20260101-000000-{slug}").parse().expect("a task id"))
    }

    fn run_of(task: &TaskKey) -> RunKey {
        task.run("20260101-0000000000-1-1".parse().expect("a run id"))
    }

    /// root → own → child → grandchild; root → sibling.
    fn tree() -> Tree {
        let pairs = [("own", "root"), ("child", "own"), ("grandchild", "child"), ("sibling", "root")];
        Tree(pairs.into_iter().map(|(child, parent)| (task(child), task(parent))).collect())
    }

    fn allowed(action: Action<'_>) -> bool {
        assert_eq!(Scope::Operator.allow(action, &tree()), Ok(()), "an operator may do everything");
        Scope::Run(run_of(&task("own"))).allow(action, &tree()).is_ok()
    }

    #[test]
    fn a_run_sees_its_own_project_alone() {
        assert!(allowed(Action::Read(&project("p"))));
        assert!(!allowed(Action::Read(&project("q"))));
        assert!(!allowed(Action::ChangeProjects));
        assert!(!allowed(Action::Administer));
    }

    #[test]
    fn a_run_acts_on_its_descendants_and_on_nothing_else() {
        for (slug, expected) in [
            ("child", true),
            ("grandchild", true),
            ("own", false),
            ("root", false),
            ("sibling", false),
            ("none", false),
        ] {
            assert_eq!(allowed(Action::Control(&task(slug))), expected, "{slug}");
        }
    }

    #[test]
    fn a_run_submits_as_itself_in_its_own_project() {
        let (p, q) = (project("p"), project("q"));
        let (own, other) = (run_of(&task("own")), run_of(&task("child")));
        assert!(allowed(Action::Submit(&p, None)));
        assert!(allowed(Action::Submit(&p, Some(&own))));
        assert!(!allowed(Action::Submit(&p, Some(&other))));
        assert!(!allowed(Action::Submit(&q, None)));
        assert!(allowed(Action::WaitAs(&own)));
        assert!(!allowed(Action::WaitAs(&other)));
    }

    #[test]
    fn a_run_posts_to_its_project_itself_its_parent_and_its_descendants_in_its_own_name() {
        let p = project("p");
        for (slug, expected) in
            [("own", true), ("root", true), ("child", true), ("grandchild", true), ("sibling", false)]
        {
            assert_eq!(allowed(Action::Post(&p, Some(&task(slug)), None)), expected, "{slug}");
        }
        assert!(allowed(Action::Post(&p, None, Some("20260101-0000000000-1-1"))));
        assert!(!allowed(Action::Post(&p, None, Some("20260101-0000000000-1-2"))));
        assert!(!allowed(Action::Post(&project("q"), None, None)));
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let circle = Tree(HashMap::from([(task("aaa"), task("bbb")), (task("bbb"), task("aaa"))]));
        assert!(Scope::Run(run_of(&task("own"))).allow(Action::Control(&task("aaa")), &circle).is_err());
    }

    #[test]
    fn a_token_gives_the_scope_of_its_run_and_without_one_only_outsiders_are_operators() {
        let (own, other) = (run_of(&task("own")), run_of(&task("child")));
        let holder = |token: &str| match token {
            "good" => Some(own.clone()),
            "other" => Some(other.clone()),
            _ => None,
        };
        let scope = |origin: &Origin, authorization| {
            let peer = Peer::new(1, 1, 7, origin.clone());
            identify(&peer, authorization, holder).map(|identity| identity.scope)
        };
        let inside = Origin::Inside(own.clone());
        assert_eq!(scope(&Origin::Outside, None), Ok(Scope::Operator));
        assert_eq!(scope(&inside, None), Err(IdentityError::Inside(own.clone())));
        assert_eq!(scope(&Origin::Unknown, None), Err(IdentityError::Unseen));
        for origin in [&Origin::Outside, &inside, &Origin::Unknown] {
            assert_eq!(scope(origin, Some("Bearer good")), Ok(Scope::Run(own.clone())));
            assert_eq!(scope(origin, Some("Bearer bad")), Err(IdentityError::WrongToken));
            assert_eq!(scope(origin, Some("Basic good")), Err(IdentityError::Malformed));
        }
        assert_eq!(scope(&inside, Some("bearer other")), Err(IdentityError::WrongToken));
    }
}
