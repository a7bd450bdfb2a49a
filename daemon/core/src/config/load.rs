//! Finding and reading the file, and errors that say where. What values mean is `check.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::{AgentConfig, AgentKind, Config, Env, PathError, Price, SYSTEM_CONFIG, Scope, paths};

/// Bytes of a configuration file at most, so that a wrong path does not fill the memory.
pub const MAX_FILE: u64 = 1 << 20;

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file; `None`: there is none, so what is wrong comes from flags or variables.
    pub path: Option<PathBuf>,
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if let Some(path) = &self.path {
                write!(f, "{}:", path.display())?;
            }
            match &problem.place {
                Place::File => {}
                Place::Text { line, column } => write!(f, "{line}:{column}:")?,
                Place::Key(key) if self.path.is_some() => write!(f, " {key}:")?,
                Place::Key(key) => write!(f, "{key}:")?,
            }
            write!(f, " {}", problem.message)?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what was expected.
    pub message: String,
}

/// A place in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A place of the text, both from 1.
    Text {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// A key by its path, such as `agents.claude.token_file`.
    Key(String),
}

/// Values of flags; `None`: the flag was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--log`.
    pub log: Option<String>,
}

/// The environment of this process; entries that are not UTF-8 are left out.
#[must_use]
pub fn environment() -> Env {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Config {
    /// The file to read: `--config`, `$CONDUCTOR_CONFIG`, `$XDG_CONFIG_HOME/conductor/conductor.yaml` (else below
    /// `~/.config`), `/etc/conductor/conductor.yaml`. The first two are taken as they are, so that a missing one is an
    /// error; of the others the first that exists. `None`: there is no file, and none is needed.
    #[must_use]
    pub fn find(explicit: Option<&Path>, env: &Env) -> Option<PathBuf> {
        if let Some(path) = explicit {
            return Some(path.to_owned());
        }
        if let Some(path) = env.get("CONDUCTOR_CONFIG").filter(|path| !path.is_empty()) {
            return Some(path.into());
        }
        let home = paths::absolute(env, "XDG_CONFIG_HOME")
            .or_else(|| paths::absolute(env, "HOME").map(|home| home.join(".config")))
            .map(|folder| folder.join("conductor/conductor.yaml"));
        home.into_iter().chain([SYSTEM_CONFIG.into()]).find(|path| path.exists())
    }

    /// Reads and checks a file. Relative paths in it become relative to its folder, `~/` the home folder.
    ///
    /// # Errors
    /// [`ConfigError`] with all problems; where the text itself or a type is wrong, with the first of those.
    pub fn load(path: &Path, env: &Env) -> Result<Self, ConfigError> {
        let failed = |problem| ConfigError { path: Some(path.to_owned()), problems: vec![problem] };
        let text = read(path).map_err(|message| failed(Problem { place: Place::File, message }))?;
        let mut config = Self::parse(&text).map_err(failed)?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        config.resolve_paths(absolute.parent().unwrap_or(Path::new("/")), env);
        let problems = config.check(env);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { path: Some(path.to_owned()), problems }) }
    }

    /// [`Config::find`] and [`Config::load`], or the defaults where there is no file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn find_and_load(explicit: Option<&Path>, env: &Env) -> Result<(Self, Option<PathBuf>), ConfigError> {
        let Some(path) = Self::find(explicit, env) else { return Ok((Self::default(), None)) };
        Ok((Self::load(&path, env)?, Some(path)))
    }

    /// Lays flags and variables (`CONDUCTOR_ROOT`, `CONDUCTOR_SOCKET`, `CONDUCTOR_LOG`) over the file: flags win.
    ///
    /// # Errors
    /// [`ConfigError`] where a value of theirs can't be used.
    pub fn apply(mut self, flags: &Flags, env: &Env) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let variable = |name: &str| env.get(name).filter(|value| !value.is_empty());
        let mut take = |flag: &Option<PathBuf>, name: &str, flag_name: &str| {
            let (path, place) = match (flag, variable(name)) {
                (Some(path), _) => (path.clone(), flag_name),
                (None, Some(value)) => (PathBuf::from(value), name),
                (None, None) => return None,
            };
            let path = std::path::absolute(&path).unwrap_or(path);
            let error = (flag_name == "--socket").then(|| paths::check_socket(&path).err()).flatten();
            problems
                .extend(error.map(|error| Problem { place: Place::Key(place.to_owned()), message: error.to_string() }));
            Some(path)
        };
        self.root = take(&flags.root, "CONDUCTOR_ROOT", "--root").or(self.root);
        self.socket = take(&flags.socket, "CONDUCTOR_SOCKET", "--socket").or(self.socket);
        if let Some(filter) = flags.log.as_ref().or_else(|| variable("CONDUCTOR_LOG")) {
            self.log.filter.clone_from(filter);
        }
        if problems.is_empty() { Ok(self) } else { Err(ConfigError { path: None, problems }) }
    }

    /// The storage root: `root`, else the default of the scope.
    ///
    /// # Errors
    /// [`PathError::NoHome`].
    pub fn root_or_default(&self, scope: Scope, env: &Env) -> Result<PathBuf, PathError> {
        self.root.clone().map_or_else(|| scope.root(env), Ok)
    }

    /// The socket's path: `socket`, else the default of the scope.
    ///
    /// # Errors
    /// [`PathError`]; also for a default that is too long.
    pub fn socket_or_default(&self, scope: Scope, env: &Env) -> Result<PathBuf, PathError> {
        let path = self.socket.clone().map_or_else(|| scope.socket(env), Ok)?;
        paths::check_socket(&path).map(|()| path)
    }

    /// Reads a text; nothing is checked but names and types.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        // An empty file, or one with nothing but comments, is a null document.
        serde_yaml::from_str::<Option<Self>>(text).map(Option::unwrap_or_default).map_err(|error| {
            let place = error.location().map_or(Place::File, |at| Place::Text { line: at.line(), column: at.column() });
            Problem { place, message: readable(&error.to_string()) }
        })
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("can't be opened: {error}"))?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| format!("can't be read: {error}"))?;
    if text.len() as u64 > MAX_FILE {
        Err("has more than 1 MiB: that is no configuration".to_owned())
    } else {
        Ok(text)
    }
}

/// Serde's words in ours; the position is told apart.
fn readable(message: &str) -> String {
    const WORDS: [(&str, &str); 7] = [
        ("unknown field", "unknown key"),
        ("duplicate field", "duplicate key"),
        ("missing field", "missing key"),
        ("unknown variant", "unknown value"),
        ("invalid type: ", "unexpected "),
        ("expected u32", "expected a whole number"),
        ("expected struct ", "expected keys and values of "),
    ];
    let message = message.rsplit_once(" at line ").map_or(message, |(text, _)| text);
    WORDS.iter().fold(message.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// A map in which a key may stand only once: YAML says so, serde's maps let the last one win.
struct UniqueMap<K, T>(&'static str, PhantomData<(K, T)>);

impl<'de, K: Deserialize<'de> + Ord + AsRef<str>, T: Deserialize<'de>> Visitor<'de> for UniqueMap<K, T> {
    type Value = BTreeMap<K, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = BTreeMap::new();
        while let Some(key) = map.next_key::<K>()? {
            if found.contains_key(&key) {
                return Err(de::Error::custom(format_args!("duplicate key `{}`", key.as_ref())));
            }
            let value = map.next_value()?;
            found.insert(key, value);
        }
        Ok(found)
    }
}

/// The agents, the built-in ones among them.
pub(super) fn agents<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, AgentConfig>, D::Error> {
    from.deserialize_any(UniqueMap("agents by name", PhantomData)).map(with_built_in)
}

/// Adds the built-in agents whose names are not taken.
pub(super) fn with_built_in(mut agents: BTreeMap<String, AgentConfig>) -> BTreeMap<String, AgentConfig> {
    for kind in AgentKind::BUILT_IN {
        agents.entry(kind.name().to_owned()).or_insert_with(|| AgentConfig::new(kind));
    }
    agents
}

/// Prices by type of agent, then by model.
pub(super) fn prices<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<AgentKind, BTreeMap<String, Price>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Models(#[serde(deserialize_with = "models")] BTreeMap<String, Price>);
    let all = from.deserialize_any(UniqueMap::<AgentKind, Models>("types of agents", PhantomData))?;
    Ok(all.into_iter().map(|(kind, models)| (kind, models.0)).collect())
}

fn models<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Price>, D::Error> {
    from.deserialize_any(UniqueMap("prices by model", PhantomData))
}

/// Variables by name.
pub(super) fn variables<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    from.deserialize_any(UniqueMap("values by name (texts: put numbers in quotes)", PhantomData))
}
