//! Making the listening socket so that nobody else can reach it at any moment, and not taking one that is in use.
//!
//! A socket handed over by the service manager is taken as it is: its folder and mode are the unit's.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use conductor_core::config::{PathError, check_socket};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, UnixAddr, getsockname, getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use tracing::warn;

/// Mode of a folder that is made for the socket.
const FOLDER_MODE: u32 = 0o700;
/// Mode of a folder that is made for the socket of a group: its members may pass through and see names.
const GROUP_FOLDER_MODE: u32 = 0o750;
/// Mode of the socket of a group. Connecting takes the right to write.
const GROUP_SOCKET_MODE: u32 = 0o660;
/// Mode of the lock file.
const LOCK_MODE: u32 = 0o600;
/// What the socket's mode is not to have: anything for the group and others, and execution.
const SOCKET_UMASK: Mode = Mode::S_IRWXG.union(Mode::S_IRWXO).union(Mode::S_IXUSR);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The path can't be one of a socket.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Somebody answers there.
    #[error("the socket {} is in use by another program", .0.display())]
    InUse(PathBuf),
    /// There is something else, which is not ours to remove.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// There is a dead socket of another user.
    #[error("the socket {} belongs to uid {owner}", path.display())]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// What the service manager handed over is no listening Unix socket.
    #[error("descriptor {0} of the service manager is not a listening Unix stream socket")]
    BadDescriptor(RawFd),
    /// The system refused.
    #[error("failed to {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl ListenError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// The listening socket. Dropped, it removes its file, unless the service manager made it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    own: Option<Own>,
}

/// What belongs to a socket that was made here.
#[derive(Debug)]
struct Own {
    /// Device and inode of the file, so that only this one is removed.
    file: (u64, u64),
    /// Held as long as the socket: of two programs only one can look and replace. Never removed.
    _lock: File,
}

impl Listener {
    /// Makes the socket with mode 0600 and, where it is missing, its folder with mode 0700. A dead socket is replaced.
    /// With a group: mode 0660 and 0750, both of that group. A folder that is there is given to the group only if it
    /// holds nothing but the socket, so that nothing else is opened by it.
    ///
    /// To be called before other threads make files: the process's umask is narrowed for a moment.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, ListenError> {
        check_socket(path)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .map_err(ListenError::io("create the folder", folder))?;
        warn_of_open_folder(folder);
        let lock = lock(path)?;
        remove_stale(path)?;
        if let Some(group) = group {
            share_folder(folder, path, group)?;
        }
        let narrowed = Narrowed(umask(SOCKET_UMASK));
        let socket = UnixListener::bind(path);
        drop(narrowed);
        let socket = socket.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(path.to_owned()),
            _ => ListenError::io("bind", path)(error),
        })?;
        let meta = path.symlink_metadata().map_err(ListenError::io("look at", path))?;
        if let Some(group) = group {
            share(path, group, GROUP_SOCKET_MODE)?;
        }
        let own = Own { file: (meta.dev(), meta.ino()), _lock: lock };
        Ok(Self { socket, path: path.to_owned(), own: Some(own) })
    }

    /// The socket that the service manager hands over (`$LISTEN_FDS`); `None`: it hands over none.
    ///
    /// # Errors
    /// It hands over something else.
    pub fn from_service_manager() -> Result<Option<Self>, ListenError> {
        let environment = Path::new("$LISTEN_FDS");
        let mut descriptors = sd_notify::listen_fds().map_err(ListenError::io("read", environment))?;
        let Some(descriptor) = descriptors.next() else { return Ok(None) };
        // SAFETY: by the protocol the descriptor is open and this process's own, and nothing else here takes it.
        let descriptor_owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let is_stream = getsockopt(&descriptor_owned, sockopt::SockType) == Ok(SockType::Stream);
        let listens = getsockopt(&descriptor_owned, sockopt::AcceptConn) == Ok(true);
        let address = getsockname::<UnixAddr>(descriptor).ok();
        let address = address.filter(|address| address.family() == Some(AddressFamily::Unix));
        match address {
            Some(address) if is_stream && listens => {
                let path = address.path().map(Path::to_owned).unwrap_or_default();
                Ok(Some(Self { socket: descriptor_owned.into(), path, own: None }))
            }
            _ => Err(ListenError::BadDescriptor(descriptor)),
        }
    }

    /// Where it is; empty for an unnamed or abstract socket of the service manager.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn socket(&self) -> &UnixListener {
        &self.socket
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(own) = &self.own else { return };
        let is_own = self.path.symlink_metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == own.file);
        if is_own && let Err(error) = std::fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "the socket could not be removed");
        }
    }
}

/// Gives the umask back.
struct Narrowed(Mode);

impl Drop for Narrowed {
    fn drop(&mut self) {
        umask(self.0);
    }
}

/// Gives a file of ours to a group. The group first: under the old one the new mode would be for the wrong people.
fn share(path: &Path, group: u32, mode: u32) -> Result<(), ListenError> {
    std::os::unix::fs::lchown(path, None, Some(group)).map_err(ListenError::io("give to socket_group", path))?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(ListenError::io("set the mode of", path))
}

/// Lets a group through to the socket, if nothing else is in its folder and the folder is ours.
fn share_folder(folder: &Path, socket: &Path, group: u32) -> Result<(), ListenError> {
    let look = || ListenError::io("look at", folder);
    let meta = folder.metadata().map_err(look())?;
    let lock = lock_path(socket);
    let mut is_shared = true;
    for entry in folder.read_dir().map_err(look())? {
        let path = entry.map_err(look())?.path();
        is_shared &= path == socket || path == lock;
    }
    if is_shared && meta.uid() == nix::unistd::geteuid().as_raw() {
        return share(folder, group, GROUP_FOLDER_MODE);
    }
    let (mode, of_group) = (meta.permissions().mode(), meta.gid() == group);
    if mode & 0o001 == 0 && !(of_group && mode & 0o010 != 0) {
        warn!(folder = %folder.display(), group, "the group can't reach the socket: it may not pass through its folder");
    }
    Ok(())
}

/// Others can't connect, but in a folder that they may change they could put a socket of their own in its place.
fn warn_of_open_folder(folder: &Path) {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let Ok(meta) = folder.metadata() else { return };
    let mode = meta.permissions().mode();
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        warn!(folder = %folder.display(), "others may replace the socket: they can write to its folder");
    }
}

fn lock_path(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn lock(path: &Path) -> Result<File, ListenError> {
    let lock_path = lock_path(path);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(LOCK_MODE)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&lock_path)
        .map_err(ListenError::io("open", &lock_path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ListenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(ListenError::io("lock", &lock_path)(error)),
    }
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ListenError::io("look at", path)(error)),
    };
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    let own_uid = nix::unistd::geteuid().as_raw();
    if meta.uid() != own_uid && own_uid != 0 {
        return Err(ListenError::NotOurs { path: path.to_owned(), owner: meta.uid() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(ListenError::io("remove", path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Whatever else it says, somebody may be there.
        _ => Err(ListenError::InUse(path.to_owned())),
    }
}
