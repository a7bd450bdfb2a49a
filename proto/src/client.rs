//! Where the daemon's socket is, and a channel to it.
//!
//! No call is made here; each program has its own way to say that the daemon can't be reached.

use std::path::{Path, PathBuf};

use tonic::transport::{Channel, Endpoint};

/// Longest path of a Unix socket in bytes: 104 with the final zero on macOS, 108 on Linux; the smaller holds for both.
pub const MAX_SOCKET_PATH: usize = 103;

/// Largest message that a client accepts: a page of 500 tasks with long texts fits.
pub const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The path does not fit a socket address.
    #[error("the socket path {} is {} bytes long; at most {MAX_SOCKET_PATH} fit", path.display(), path.as_os_str().len())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// Nobody listens at any of the paths.
    #[error("no daemon answers at {}", list(paths))]
    Unreachable {
        /// The paths that were tried, in order.
        paths: Vec<PathBuf>,
        /// What the last attempt said.
        #[source]
        source: Option<tonic::transport::Error>,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

/// The user's socket: `$XDG_RUNTIME_DIR/conductor/conductor.sock`, else below `$XDG_STATE_HOME` or `~/.local/state`.
#[must_use]
pub fn user_socket(var: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name: &str| var(name).filter(|value| value.starts_with('/'));
    let folder = set("XDG_RUNTIME_DIR")
        .or_else(|| set("XDG_STATE_HOME"))
        .or_else(|| set("HOME").map(|home| format!("{home}/.local/state")))?;
    Some(Path::new(&folder).join("conductor/conductor.sock"))
}

/// The system daemon's socket.
#[must_use]
pub fn system_socket() -> PathBuf {
    PathBuf::from("/run/conductor/conductor.sock")
}

/// The sockets to try, in order: the named one alone (`--socket`, else `$CONDUCTOR_SOCKET`), else user, then system.
#[must_use]
pub fn candidates(named: Option<&Path>, var: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    if let Some(path) = named {
        return vec![path.to_owned()];
    }
    if let Some(path) = var("CONDUCTOR_SOCKET").filter(|path| !path.is_empty()) {
        return vec![path.into()];
    }
    user_socket(var).into_iter().chain([system_socket()]).collect()
}

/// Connects to the first of `paths` at which somebody listens.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(paths: &[PathBuf]) -> Result<(Channel, PathBuf), ConnectError> {
    let mut last = None;
    for path in paths {
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(ConnectError::PathTooLong { path: path.clone() });
        }
        let target = path.clone();
        let connector = tower::service_fn(move |_| {
            let target = target.clone();
            async move { tokio::net::UnixStream::connect(target).await.map(hyper_util::rt::TokioIo::new) }
        });
        match Endpoint::from_static("http://localhost").connect_with_connector(connector).await {
            Ok(channel) => return Ok((channel, path.clone())),
            Err(error) => last = Some(error),
        }
    }
    Err(ConnectError::Unreachable { paths: paths.to_vec(), source: last })
}
