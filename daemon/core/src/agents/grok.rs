//! Grok, xAI's program, headless, with the prompt as a file. Flags and traps: contract C4 of the agents, seen with grok
//! 1.0.41.
//!
//! It prefers its login to a key. So a run with a key gets a folder of settings without a login, made from the user's,
//! where the user's has one.

use sha2::{Digest, Sha256};

use super::base::{Base, Facts, Folder};
use super::cli::{Draft, Driver};
use super::home;
use super::stream::Vendor;
use super::{PrepareError, RunRequest, text, with_path};

/// The variable with its folder.
const HOME: &str = "GROK_HOME";
/// What of the user's folder holds in ours, too. `bin` is where the npm package unpacks the program.
const LINKS: [&str; 14] = [
    "AGENTS.md",
    "agents",
    "bin",
    "commands",
    "config.toml",
    "hooks",
    "installed-plugins",
    "managed_config.toml",
    "mcp_credentials.json",
    "memory",
    "plugins",
    "requirements.toml",
    "rules",
    "skills",
];

const FOLDER: Folder = Folder { variable: HOME, name: ".grok", in_home: false, logins: &["auth.json"], beside: &[] };

static FACTS: Facts = Facts {
    program: "grok",
    package: Some("@xai-official/grok"),
    keys: &["XAI_API_KEY", "GROK_CODE_XAI_API_KEY"],
    rivals: &["GROK_AUTH", "GROK_AUTH_PROVIDER_COMMAND", "GROK_DEPLOYMENT_KEY", "GROK_DISABLE_API_KEY_AUTH"],
    key_for: |_| "XAI_API_KEY",
    switches: &[("GROK_DISABLE_AUTOUPDATER", "1")],
    folder: Some(FOLDER),
    log_in: "run: grok login",
};

/// An agent of type `grok`.
#[derive(Debug)]
pub(crate) struct Grok;

impl Driver for Grok {
    fn facts(&self) -> &'static Facts {
        &FACTS
    }

    fn vendor(&self) -> Vendor {
        Vendor::Grok
    }

    /// The address of the API that takes a key; unlike `GROK_MODELS_BASE_URL` it keeps the known models.
    fn address(&self, url: &str, draft: &mut Draft) {
        draft.set("GROK_XAI_API_BASE_URL", with_path(url, "/v1"));
    }

    fn draft(&self, base: &Base, run: &RunRequest, draft: &mut Draft) -> Result<(), PrepareError> {
        // There is no bound: it reads the file whole.
        let prompt = text(&base.stand_in(run, "Grok", u64::MAX, &mut draft.notes)?)?;
        // Without `--verbatim` it sends of a prompt over some 99 kB only its head and its tail.
        draft.push(["--prompt-file", &prompt, "--verbatim", "--output-format", "streaming-json"]);
        draft.push(["--permission-mode", draft.mode.name(), "--no-auto-update"]);
        if let Some(model) = draft.model.clone() {
            draft.push(["-m", &model]);
        }
        match &run.resume_session {
            Some(session) => draft.push(["-r", session]),
            // Its stream names the session only at its end, which a run that is cut does not come to.
            None => {
                let session = session_of(run);
                draft.push(["-s", &session]);
                draft.session = Some(session);
            }
        }
        draft.push(base.config.args.iter().chain(&run.extra_args).map(String::as_str));
        use_key(base, run, draft)
    }
}

/// The id of a run's own session, which has to be a UUID: made from the run's id, which is unique.
fn session_of(run: &RunRequest) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(run.key.to_string())[..16]);
    // Version 8: of a making of one's own (RFC 9562).
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Keeps a login out of the way of the key, if there are both.
fn use_key(base: &Base, run: &RunRequest, draft: &mut Draft) -> Result<(), PrepareError> {
    if draft.key.is_none() {
        return Ok(());
    }
    let (Some(users), Some(login)) = (FOLDER.path(&draft.env), FOLDER.login_file(&draft.env)) else { return Ok(()) };
    let folder = home::folder(run, &base.name).join(FOLDER.name);
    home::make(&folder, &users, &LINKS).map_err(|error| PrepareError::Settings {
        agent: base.name.clone(),
        path: folder.clone(),
        error,
    })?;
    draft.set(HOME, text(&folder)?);
    draft.shown.push((HOME, text(&folder)?));
    draft.notes.push(format!(
        "Grok uses the folder {}, made from yours: there is a key, but it would prefer the login in {}",
        folder.display(),
        login.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::agents::tests::{Bench, value};
    use crate::config::{AgentConfig, AgentKind, PermissionMode};

    const TOKEN: [(&str, &str); 1] = [("CONDUCTOR_AGENT_GROK_TOKEN", "xai-secret")];

    fn plain() -> AgentConfig {
        AgentConfig::new(AgentKind::Grok)
    }

    #[test]
    fn the_command_has_the_exact_flags_and_the_prompt_as_a_file() {
        let config = AgentConfig {
            model: Some("grok-4.6".into()),
            args: vec!["--max-turns".into(), "9".into()],
            permission_mode: Some(PermissionMode::AcceptEdits),
            ..plain()
        };
        let bench = Bench::new("grok", config, &[]);
        let command = bench.prepared(|run| {
            run.resume_session = Some("01a2".into());
            run.extra_args = vec!["--no-plan".into()];
        });
        let expected = format!(
            "--prompt-file {} --verbatim --output-format streaming-json --permission-mode acceptEdits --no-auto-update \
             -m grok-4.6 -r 01a2 --max-turns 9 --no-plan",
            bench.request.prompt.display()
        );
        assert_eq!(bench.words(&command), expected);
        assert_eq!((command.stdin, value_of(&bench, "GROK_DISABLE_AUTOUPDATER")), (None, Some("1".to_owned())));
    }

    #[test]
    fn a_new_session_has_an_id_that_is_known_before_its_stream_tells_it() {
        let bench = Bench::new("grok", plain(), &[]);
        let begun = bench.prepared(|_| {});
        let session = begun.session.clone().unwrap();
        assert!(bench.words(&begun).contains(&format!(" -s {session}")) && session.len() == 36, "{session}");
        assert_eq!((&session[14..15], &session[19..20] >= "8"), ("8", true));
        let other = bench.prepared(|run| run.key.run = "20260101-0000000000-1-2".parse().unwrap());
        assert_ne!(other.session, begun.session);
        let resumed = bench.prepared(|run| run.resume_session = Some(session.clone()));
        assert_eq!(resumed.session.as_ref(), Some(&session));
        assert!(!bench.words(&resumed).contains(" -s "));
    }

    fn value_of(bench: &Bench, name: &str) -> Option<String> {
        value(&bench.prepared(|_| {}), name).map(str::to_owned)
    }

    #[test]
    fn everything_is_allowed_unless_it_is_said_otherwise() {
        let bench = Bench::new("grok", plain(), &[]);
        assert!(bench.words(&bench.prepared(|_| {})).contains("--permission-mode bypassPermissions"));
    }

    #[test]
    fn an_address_gets_the_path_of_the_api_where_it_has_none() {
        for (url, expected) in [
            ("http://127.0.0.1:1", "http://127.0.0.1:1/v1"),
            ("https://gw.example/", "https://gw.example/v1"),
            ("https://gw.example/xai/v1/", "https://gw.example/xai/v1"),
        ] {
            let bench = Bench::new("grok", AgentConfig { base_url: Some(url.into()), ..plain() }, &[]);
            assert_eq!(value_of(&bench, "GROK_XAI_API_BASE_URL").as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_login_does_not_get_in_the_way_of_a_key() {
        let bench = Bench::new("grok", AgentConfig { env_pass: vec!["GROK_*".into()], ..plain() }, &TOKEN);
        let command = bench.prepared(|_| {});
        assert_eq!((value(&command, "XAI_API_KEY"), value(&command, HOME)), (Some("xai-secret"), None));
        let users = bench.home().join(".grok");
        fs::create_dir(&users).unwrap();
        fs::write(users.join("auth.json"), "{}").unwrap();
        fs::write(users.join("config.toml"), "").unwrap();
        let command = bench.prepared(|_| {});
        let own = bench.request.root.join(".conductor/agents/grok/.grok");
        assert_eq!(value(&command, HOME), own.to_str());
        assert!(!own.join("auth.json").exists());
        assert_eq!(fs::read_link(own.join("config.toml")).unwrap(), users.join("config.toml"));
        assert!(command.notes[0].contains("prefer the login"), "{:?}", command.notes);
        // The program replaced a link by a file: that stays.
        fs::remove_file(own.join("config.toml")).unwrap();
        fs::write(own.join("config.toml"), "new").unwrap();
        bench.prepared(|_| {});
        assert_eq!(fs::read_to_string(own.join("config.toml")).unwrap(), "new");
    }

    #[test]
    fn without_a_key_it_uses_its_login_in_the_folder_that_is_named() {
        let bench = Bench::new("grok", AgentConfig { config_dir: Some("/c".into()), ..plain() }, &[]);
        let command = bench.prepared(|_| {});
        assert_eq!((command.login.as_str(), value(&command, HOME)), ("login", Some("/c")));
        assert_eq!(bench.adapter.account().unwrap(), "xai/login:/c");
    }
}
