//! Tokens of agents: where they come from and what a token file must be like. Nothing here prints or stores one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Environment of a process by name; entries that are not UTF-8 are left out.
pub type Env = BTreeMap<String, String>;

/// Bytes of a token at most: real ones have a few hundred, and a wrong file should not be read whole.
pub const MAX_TOKEN: u64 = 16 * 1024;

/// A secret text of the configuration: never shown, written as `***`.
#[derive(Clone, JsonSchema)]
#[schemars(transparent)]
pub struct Secret(#[schemars(with = "String")] SecretString);

impl Secret {
    /// The value.
    #[must_use]
    pub fn get(&self) -> &SecretString {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Errors don't repeat the value, as serde's own would.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text (put it in quotes)")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret(text.to_owned().into()))
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
                Err(E::custom("expected a text: put it in quotes"))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom("expected a text: put it in quotes"))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom("expected a text: put it in quotes"))
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom("expected a text: put it in quotes"))
            }
        }
        from.deserialize_any(Text)
    }
}

/// A token and where it came from.
#[derive(Clone, Debug)]
pub struct Token {
    /// The value.
    pub value: SecretString,
    /// For people: `key from token_file`, `key from CONDUCTOR_AGENT_CLAUDE_TOKEN`.
    pub login: String,
}

/// Why a token could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be opened or read.
    #[error("can't read token file {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A folder, device, pipe or link.
    #[error("token file {} is not a regular file; name a file that holds the key", .0.display())]
    NotRegular(PathBuf),
    /// Others can read it.
    #[error("token file {} is open to others (mode {mode:04o}); run: chmod 600 {}", .path.display(), .path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user wrote it.
    #[error("token file {} belongs to uid {owner}, not to this user or root", .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Nothing but white space.
    #[error("{0} is empty; the key has to be in it")]
    Empty(String),
    /// More than [`MAX_TOKEN`].
    #[error("{0} has more than 16 KiB: that is no token")]
    TooLong(String),
    /// A line break, space or control character, which no HTTP header can carry.
    #[error("{0} contains a line break or another character that no key has; the key alone has to be in it")]
    Character(String),
    /// The variable named by `token_env` is not there.
    #[error("variable {0} (token_env) is not set in the environment of conductord; set it there, or use token_file")]
    Variable(String),
}

/// The variable that overrides an agent's token: `CONDUCTOR_AGENT_<NAME>_TOKEN`.
#[must_use]
pub fn token_variable(agent: &str) -> String {
    let name: String =
        agent.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("CONDUCTOR_AGENT_{name}_TOKEN")
}

/// The token of an agent: the variable of its name, else `token_file`, `token_env` or `token`; `None`: none is set, so
/// that the vendor program's own login is used. Reads the file anew each time, so that a changed token works at once.
///
/// # Errors
/// [`TokenError`] where a source is named that gives no token.
pub(super) fn resolve(
    agent: &str,
    file: Option<&Path>,
    variable: Option<&str>,
    inline: Option<&Secret>,
    env: &Env,
) -> Result<Option<Token>, TokenError> {
    let own = token_variable(agent);
    if let Some(value) = env.get(&own) {
        return checked(value, &own).map(|value| Some(Token { value, login: format!("key from {own}") }));
    }
    if let Some(path) = file {
        return read_file(path).map(|value| Some(Token { value, login: "key from token_file".to_owned() }));
    }
    if let Some(name) = variable {
        let value = env.get(name).ok_or_else(|| TokenError::Variable(name.to_owned()))?;
        return checked(value, name).map(|value| Some(Token { value, login: format!("key from variable {name}") }));
    }
    let Some(inline) = inline else { return Ok(None) };
    checked(inline.0.expose_secret(), "token")
        .map(|value| Some(Token { value, login: "key from the configuration".to_owned() }))
}

/// Reads a token file: regular, of this user or root, without any permission for group and others, one token.
fn read_file(path: &Path) -> Result<SecretString, TokenError> {
    let read_error = |error| TokenError::Read { path: path.to_owned(), error };
    // O_NONBLOCK: opening a named pipe must not hang the daemon.
    let mut file =
        File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path).map_err(read_error)?;
    check_private(path, &file.metadata().map_err(read_error)?)?;
    let mut text = String::new();
    let name = format!("token file {}", path.display());
    match (&mut file).take(MAX_TOKEN + 1).read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(TokenError::Character(name)),
        Err(error) => Err(read_error(error)),
        Ok(_) => checked(&text, &name),
    }
}

fn check_private(path: &Path, metadata: &Metadata) -> Result<(), TokenError> {
    if !metadata.is_file() {
        return Err(TokenError::NotRegular(path.to_owned()));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TokenError::NotPrivate { path: path.to_owned(), mode });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(TokenError::Owner { path: path.to_owned(), owner });
    }
    Ok(())
}

fn checked(text: &str, name: &str) -> Result<SecretString, TokenError> {
    if text.len() as u64 > MAX_TOKEN {
        return Err(TokenError::TooLong(name.to_owned()));
    }
    let token = text.trim();
    if token.is_empty() {
        return Err(TokenError::Empty(name.to_owned()));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(TokenError::Character(name.to_owned()));
    }
    Ok(token.to_owned().into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    fn error(path: &Path) -> TokenError {
        read_file(path).unwrap_err()
    }

    #[test]
    fn a_private_file_gives_its_trimmed_token() {
        let (_folder, path) = file(b"  sk-test-1 \n", 0o600);
        assert_eq!(read_file(&path).unwrap().expose_secret(), "sk-test-1");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_helps() {
        for mode in [0o644, 0o640, 0o604, 0o620] {
            let (_folder, path) = file(b"sk", mode);
            let text = error(&path).to_string();
            assert!(text.contains(&format!("mode {mode:04o}")) && text.contains("chmod 600"), "{text}");
        }
    }

    #[test]
    fn what_holds_no_token_is_refused() {
        let (_folder, path) = file(b" \n", 0o600);
        assert!(matches!(error(&path), TokenError::Empty(_)));
        for text in [&b"sk-a\nsk-b"[..], b"sk a", b"sk\x00a", b"\xff\xfe"] {
            let (_folder, path) = file(text, 0o600);
            assert!(matches!(error(&path), TokenError::Character(_)), "{text:?}");
        }
        let (_folder, path) = file(&vec![b'a'; 20_000], 0o600);
        assert!(matches!(error(&path), TokenError::TooLong(_)));
    }

    #[test]
    fn folders_pipes_and_missing_files_are_refused_without_hanging() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(error(folder.path()), TokenError::NotRegular(_)));
        assert!(matches!(error(&folder.path().join("none")), TokenError::Read { .. }));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(error(&pipe), TokenError::NotRegular(_)));
    }

    #[test]
    fn the_variable_of_the_agents_name_wins_and_the_login_says_where_the_key_is_from() {
        let env = Env::from([("CONDUCTOR_AGENT_MY_CLAUDE_TOKEN".into(), "a".into()), ("KEY".into(), "b".into())]);
        let inline = Secret("c".to_owned().into());
        let token = resolve("my-claude", None, Some("KEY"), Some(&inline), &env).unwrap().unwrap();
        assert_eq!(
            (token.value.expose_secret(), token.login.as_str()),
            ("a", "key from CONDUCTOR_AGENT_MY_CLAUDE_TOKEN")
        );
        let token = resolve("other", None, Some("KEY"), None, &env).unwrap().unwrap();
        assert_eq!((token.value.expose_secret(), token.login.as_str()), ("b", "key from variable KEY"));
        assert!(resolve("other", None, None, None, &env).unwrap().is_none());
        assert!(matches!(resolve("other", None, Some("NONE"), None, &env), Err(TokenError::Variable(_))));
    }

    #[test]
    fn a_token_shows_neither_in_debug_nor_when_written() {
        let secret = Secret("sk-secret".to_owned().into());
        let token = resolve("a", None, None, Some(&secret), &Env::new()).unwrap();
        assert!(!format!("{secret:?} {token:?}").contains("sk-secret"));
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    }
}
