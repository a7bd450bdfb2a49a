//! Default places of the configuration, the storage root and the socket. Looks at no disk.

use std::path::{Path, PathBuf};

use super::Env;

/// Bytes of a socket path at most: `sun_path` has 104 on macOS (108 on Linux), one of them for the final zero.
pub const MAX_SOCKET_PATH: usize = 103;
/// Storage root of a system service.
pub const SYSTEM_ROOT: &str = "/var/lib/conductor/runs";
/// Socket of a system service.
pub const SYSTEM_SOCKET: &str = "/run/conductor/conductor.sock";
/// The configuration that is read where a user has none.
pub const SYSTEM_CONFIG: &str = "/etc/conductor/conductor.yaml";
/// First uid of people (`UID_MIN` of Debian, Fedora and Arch); below it, root apart, are the users of services.
const FIRST_PERSON: u32 = 1000;

/// Whose conductord it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One person's, in their home.
    User,
    /// The machine's.
    System,
}

/// Why a default place can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Neither HOME nor the XDG variable says where.
    #[error("neither {0} nor HOME is set, so the {1} is not known; set one of them or name it")]
    NoHome(&'static str, &'static str),
    /// Longer than the system allows.
    #[error("socket path {} has {} bytes; a Unix socket's path has at most {MAX_SOCKET_PATH}: choose a shorter one with --socket or $CONDUCTOR_SOCKET", .0.display(), .0.as_os_str().len())]
    SocketTooLong(PathBuf),
    /// Relative to a folder that nobody knows.
    #[error("{} is not an absolute path", .0.display())]
    Relative(PathBuf),
}

impl Scope {
    /// The system's with `--system`, and for the user of a service; else a person's (root included).
    #[must_use]
    pub fn of(system: bool, uid: u32) -> Self {
        if system || (1..FIRST_PERSON).contains(&uid) { Self::System } else { Self::User }
    }

    /// The storage root: `$XDG_STATE_HOME/conductor/runs`, else `~/.local/state/conductor/runs`; system:
    /// [`SYSTEM_ROOT`].
    ///
    /// # Errors
    /// [`PathError::NoHome`].
    pub fn root(self, env: &Env) -> Result<PathBuf, PathError> {
        match self {
            Self::System => Ok(SYSTEM_ROOT.into()),
            Self::User => state_home(env, "storage root").map(|home| home.join("conductor/runs")),
        }
    }

    /// The socket: `$XDG_RUNTIME_DIR/conductor/conductor.sock`, else `$XDG_STATE_HOME/conductor/conductor.sock`; system:
    /// [`SYSTEM_SOCKET`].
    ///
    /// # Errors
    /// [`PathError::NoHome`].
    pub fn socket(self, env: &Env) -> Result<PathBuf, PathError> {
        if self == Self::System {
            return Ok(SYSTEM_SOCKET.into());
        }
        let folder = match absolute(env, "XDG_RUNTIME_DIR") {
            Some(folder) => folder,
            None => state_home(env, "socket")?,
        };
        Ok(folder.join("conductor/conductor.sock"))
    }
}

/// Checks a socket's path.
///
/// # Errors
/// Over [`MAX_SOCKET_PATH`] bytes, or relative.
pub fn check_socket(path: &Path) -> Result<(), PathError> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(PathError::SocketTooLong(path.to_owned()));
    }
    if path.is_relative() {
        return Err(PathError::Relative(path.to_owned()));
    }
    Ok(())
}

/// A folder of the XDG specification, by which relative values are to be ignored.
pub(super) fn absolute(env: &Env, name: &str) -> Option<PathBuf> {
    env.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn state_home(env: &Env, what: &'static str) -> Result<PathBuf, PathError> {
    absolute(env, "XDG_STATE_HOME")
        .or_else(|| absolute(env, "HOME").map(|home| home.join(".local/state")))
        .ok_or(PathError::NoHome("XDG_STATE_HOME", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_user_has_root_and_socket_at_home_or_where_xdg_says() {
        let home = env(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "relative")]);
        assert_eq!(Scope::User.root(&home), Ok("/home/a/.local/state/conductor/runs".into()));
        assert_eq!(Scope::User.socket(&home), Ok("/home/a/.local/state/conductor/conductor.sock".into()));
        let xdg = env(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/run/user/1")]);
        assert_eq!(Scope::User.root(&xdg), Ok("/s/conductor/runs".into()));
        assert_eq!(Scope::User.socket(&xdg), Ok("/run/user/1/conductor/conductor.sock".into()));
        assert!(matches!(Scope::User.root(&env(&[])), Err(PathError::NoHome(..))));
    }

    #[test]
    fn a_service_has_the_systems_places() {
        assert_eq!(Scope::of(true, 1000), Scope::System);
        assert_eq!(Scope::of(false, 999), Scope::System);
        assert_eq!((Scope::of(false, 0), Scope::of(false, 1000)), (Scope::User, Scope::User));
        assert_eq!(Scope::System.root(&env(&[])), Ok(SYSTEM_ROOT.into()));
        assert_eq!(Scope::System.socket(&env(&[])), Ok(SYSTEM_SOCKET.into()));
    }

    #[test]
    fn a_socket_path_over_103_bytes_is_refused_with_the_limit_named() {
        assert!(check_socket(Path::new(&format!("/{}", "a".repeat(102)))).is_ok());
        let error = check_socket(Path::new(&format!("/{}", "a".repeat(103)))).unwrap_err().to_string();
        assert!(error.contains("has 104 bytes") && error.contains("at most 103"), "{error}");
    }
}
