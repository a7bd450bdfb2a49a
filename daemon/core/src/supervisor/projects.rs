//! Commands on projects.

use std::path::PathBuf;
use std::sync::Arc;

use super::command::{Caller, CommandError};
use super::perform::blocking;
use super::tasks::not_found;
use super::{Supervisor, submit};
use crate::store::{ProjectRecord, TaskRecord, project};
use crate::types::{ProjectId, Timestamp};

impl Supervisor {
    /// Creates a project.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn create_project(
        &self,
        _caller: &Caller,
        id: ProjectId,
        root: Option<PathBuf>,
        request_id: Option<String>,
    ) -> Result<Arc<ProjectRecord>, CommandError> {
        let root = root.map(|path| submit::existing_folder(&path)).transpose()?;
        let request = self.request(request_id.as_deref(), "create_project", &[id.as_str().as_bytes()])?;
        let _turn = self.turn(request.as_ref()).await;
        if let Some(known) = self.catalog().project(&id) {
            // The same id bound to the same path is what was asked for: creating it again changes nothing.
            return if request.is_some() && known.root == root {
                Ok(known)
            } else {
                Err(CommandError::AlreadyExists { what: "project", name: id.to_string() })
            };
        }
        let (shared, name, path) = (Arc::clone(&self.0.shared), id.clone(), root.clone());
        let now = Timestamp::now();
        blocking(move || project::create(&shared.root, &name, path.as_deref(), now))
            .await
            .map_err(|error| submit::store_error(&self.0.shared, error))?;
        self.catalog().put_project(ProjectRecord {
            id: id.clone(),
            root,
            created: Some(now),
            foreign: false,
            problem: None,
            revision: 0,
        });
        self.catalog().project(&id).ok_or_else(|| not_found("project", &id))
    }

    /// The project bound to `root`; made, with a name from the folder's, if there is none. `true`: it was made now.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn ensure_project(
        &self,
        caller: &Caller,
        root: PathBuf,
    ) -> Result<(Arc<ProjectRecord>, bool), CommandError> {
        let root = submit::existing_folder(&root)?;
        let lock = Arc::clone(self.0.requests.entry("project".to_owned()).or_default().value());
        let _turn = lock.lock_owned().await;
        if let Some(known) = self.catalog().project_at(&root) {
            return Ok((known, false));
        }
        let name = root.file_name().map_or_else(|| "root".into(), |name| name.to_string_lossy().into_owned());
        let (id, exists) =
            project::choose(&name, &root, |id| self.catalog().project(id).map(|known| known.root.clone()));
        if exists {
            let known = self.catalog().project(&id).ok_or_else(|| not_found("project", &id))?;
            return Ok((known, false));
        }
        Ok((self.create_project(caller, id, Some(root), None).await?, true))
    }

    /// Deletes a project with all its tasks.
    ///
    /// # Errors
    /// [`CommandError::WrongState`] while any of them lives, [`CommandError::Foreign`] if one is another program's.
    pub async fn delete_project(
        &self,
        caller: &Caller,
        id: &ProjectId,
        request_id: Option<String>,
    ) -> Result<(), CommandError> {
        let request = self.request(request_id.as_deref(), "delete_project", &[id.as_str().as_bytes()])?;
        let _turn = self.turn(request.as_ref()).await;
        if self.deleted(request.as_ref())? {
            return Ok(());
        }
        if self.catalog().project(id).is_none() {
            return Err(not_found("project", id));
        }
        let tasks: Vec<Arc<TaskRecord>> =
            self.catalog().snapshot().tasks.into_iter().filter(|task| task.key.project == *id).collect();
        if let Some(task) = tasks.iter().find(|task| task.foreign.is_some() || task.problem.is_some()) {
            return Err(CommandError::Foreign(task.key.clone()));
        }
        if let Some(task) = tasks.iter().find(|task| task.is_active()) {
            return Err(CommandError::WrongState(format!(
                "the task {} is {}; stop it first",
                task.key,
                task.state_name()
            )));
        }
        for task in tasks {
            self.delete_task(caller, &task.key, None).await?;
        }
        let (shared, gone) = (Arc::clone(&self.0.shared), id.clone());
        blocking(move || project::remove(&shared.root, &gone))
            .await
            .map_err(|error| submit::store_error(&self.0.shared, error))?;
        self.catalog().remove_project(id);
        self.remember_deletion(request).await
    }
}
