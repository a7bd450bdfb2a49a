//! Gemini CLI, headless (`gemini -p`), with the prompt on standard input. Flags and traps: contract C3 of the agents, seen
//! with gemini 0.61.0.
//!
//! A key alone is not enough for it: its settings choose between login and key, and with an address of a gateway in the
//! environment and no choice in the settings it refuses to start (exit code 41). The user's settings file is left alone:
//! where it does not choose the key, the run gets a folder of settings of its own, made from the user's. (The system's
//! settings file would do, but Gemini CLI believes only one that root owns.)

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::base::{Base, Facts, Folder};
use super::cli::{Draft, Driver};
use super::home;
use super::stream::Vendor;
use super::{PrepareError, RunRequest, text};
use crate::config::PermissionMode;

/// It reads at most 8 MiB from standard input and cuts the rest off with a warning; a longer prompt is handed over by
/// path.
const MAX_STDIN: u64 = 8 << 20;
/// Bytes of a settings file at most: a wrong path should not be read whole.
const MAX_SETTINGS: u64 = 4 << 20;
/// The variable that a key is in.
const KEY: &str = "GEMINI_API_KEY";
/// The variable with the folder that `.gemini` is in.
const HOME: &str = "GEMINI_CLI_HOME";
/// What the settings call a key.
const BY_KEY: &str = "gemini-api-key";
/// Its file of settings.
const SETTINGS: &str = "settings.json";
/// Variables that choose another login than the key.
const RIVALS: [&str; 3] = ["GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA", "GEMINI_CLI_USE_COMPUTE_ADC"];
/// What of the user's folder holds in ours, too.
const LINKS: [&str; 10] = [
    "GEMINI.md",
    ".env",
    "agents",
    "commands",
    "extensions",
    "hooks",
    "policies",
    "skills",
    "themes",
    "trustedFolders.json",
];

const FOLDER: Folder = Folder {
    variable: HOME,
    name: ".gemini",
    in_home: true,
    logins: &["oauth_creds.json", "gemini-credentials.json"],
    beside: &[],
};

static FACTS: Facts = Facts {
    program: "gemini",
    package: Some("@google/gemini-cli"),
    keys: &[KEY],
    rivals: &["GOOGLE_API_KEY", RIVALS[0], RIVALS[1], RIVALS[2]],
    key_for: |_| KEY,
    // Headless it never updates itself.
    switches: &[],
    folder: Some(FOLDER),
    log_in: "run gemini and log in",
};

/// An agent of type `gemini`.
#[derive(Debug)]
pub(crate) struct Gemini;

impl Driver for Gemini {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn vendor(&self) -> Vendor {
        Vendor::Gemini
    }

    fn address(&self, url: &str, draft: &mut Draft) {
        draft.set("GOOGLE_GEMINI_BASE_URL", url);
    }

    fn draft(&self, base: &Base, run: &RunRequest, draft: &mut Draft) -> Result<(), PrepareError> {
        let mode = match draft.mode {
            PermissionMode::AcceptEdits | PermissionMode::AutoEdit => "auto_edit",
            PermissionMode::Plan => "plan",
            PermissionMode::Default => "default",
            _ => "yolo",
        };
        // The empty prompt makes it headless; it is put behind what comes on standard input.
        draft.push(["-p", "", "-o", "stream-json", "--approval-mode", mode, "--skip-trust"]);
        if let Some(model) = draft.model.clone() {
            draft.push(["-m", &model]);
        }
        if let Some(session) = &run.resume_session {
            draft.push(["-r", session]);
        }
        draft.push(base.config.args.iter().chain(&run.extra_args).map(String::as_str));
        draft.stdin = Some(base.stand_in(run, "Gemini CLI", MAX_STDIN, &mut draft.notes)?);
        choose_key(base, run, draft)
    }
}

/// Makes the settings choose the key, if there is one.
fn choose_key(base: &Base, run: &RunRequest, draft: &mut Draft) -> Result<(), PrepareError> {
    let on = |name: &str| draft.env.get(name).is_some_and(|value| value == "true");
    if draft.key != Some(KEY) || RIVALS.iter().any(|name| on(name)) {
        return Ok(());
    }
    let Some(users) = FOLDER.path(&draft.env) else { return Ok(()) };
    let file = users.join(SETTINGS);
    let failed = |path: &Path, error| PrepareError::Settings { agent: base.name.clone(), path: path.to_owned(), error };
    let mut settings = read(&file).map_err(|error| failed(&file, error))?;
    let chosen = settings["security"]["auth"]["selectedType"].as_str().map(str::to_owned);
    let gateway = draft.env.get("GOOGLE_GEMINI_BASE_URL").is_some_and(|url| !url.is_empty());
    if chosen.as_deref() == Some(BY_KEY) || (chosen.is_none() && !gateway) {
        return Ok(());
    }
    choose(&mut settings);
    let own = home::folder(run, &base.name);
    let folder = own.join(FOLDER.name);
    home::make(&folder, &users, &LINKS).map_err(|error| failed(&folder, error))?;
    let ours = folder.join(SETTINGS);
    home::write(&ours, &format!("{settings:#}\n")).map_err(|error| failed(&ours, error))?;
    draft.set(HOME, text(&own)?);
    draft.shown.push((HOME, text(&own)?));
    let why = match chosen {
        Some(other) => format!("{} chooses {other}", file.display()),
        None => format!("{} does not choose the key, without which a base_url is refused", file.display()),
    };
    draft.notes.push(format!(
        "Gemini CLI uses the settings in {}, made from yours: there is a key, but {why}; your file is as it was",
        folder.display()
    ));
    Ok(())
}

/// The user's settings; an empty object where there is no file.
fn read(path: &PathBuf) -> io::Result<Value> {
    let bytes = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(json!({})),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_file() => return Err(io::Error::other("is not a regular file")),
        Ok(metadata) if metadata.len() > MAX_SETTINGS => return Err(io::Error::other("has more than 4 MiB")),
        Ok(_) => fs::read(path)?,
    };
    let plain = without_comments(&String::from_utf8_lossy(&bytes));
    match serde_json::from_str(&plain) {
        Ok(settings @ Value::Object(_)) => Ok(settings),
        Ok(_) => Err(io::Error::other("is no JSON object")),
        Err(error) => Err(io::Error::other(format!("is not JSON: {error}"))),
    }
}

/// Sets the choice, whatever was there.
fn choose(settings: &mut Value) {
    let mut place = settings;
    for key in ["security", "auth"] {
        if !place[key].is_object() {
            place[key] = json!({});
        }
        place = &mut place[key];
    }
    place["selectedType"] = json!(BY_KEY);
}

/// JSON without `//` and `/* */`, which Gemini CLI takes, with places kept.
fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match (quoted, c, chars.peek()) {
            (true, '\\', Some(_)) => {
                plain.push(c);
                plain.extend(chars.next());
            }
            (_, '"', _) => {
                quoted = !quoted;
                plain.push(c);
            }
            (false, '/', Some('/')) => while chars.next_if(|c| *c != '\n').is_some() {},
            (false, '/', Some('*')) => {
                chars.next();
                let mut last = ' ';
                for c in chars.by_ref() {
                    if (last, c) == ('*', '/') {
                        break;
                    }
                    if c == '\n' {
                        plain.push(c);
                    }
                    last = c;
                }
            }
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
