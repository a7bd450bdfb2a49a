//! The real program against a server that does as it is told.

#![expect(clippy::unwrap_used, reason = "a test's panic is its message")]

mod answers;
mod server;
mod signals;
mod tls;
mod trouble;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use server::Server;

/// The key of all tests.
const KEY: &str = "key-0123456789abcdef";

/// What a run came to.
struct Ran {
    code: Option<i32>,
    events: Vec<Value>,
    stdout: String,
    stderr: String,
    folder: tempfile::TempDir,
}

impl Ran {
    /// All events of a kind.
    fn all(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["type"] == kind).collect()
    }

    /// The only event of a kind.
    fn one(&self, kind: &str) -> &Value {
        let all = self.all(kind);
        assert_eq!(all.len(), 1, "{kind} in {}", self.stdout);
        all[0]
    }

    fn ended(&self) -> &Value {
        let ended = self.one("ended");
        assert_eq!(self.events.last(), Some(ended), "ended is the last line");
        ended
    }

    fn reason(&self) -> &str {
        self.ended()["reason"].as_str().expect("a reason")
    }

    fn error(&self) -> &str {
        self.ended()["error"].as_str().expect("an error")
    }

    fn text(&self) -> String {
        self.all("text").iter().filter_map(|event| event["delta"].as_str()).collect()
    }

    fn done(&self) -> bool {
        self.folder.path().join("DONE").is_file()
    }
}

/// A command with nothing of our environment.
fn command(folder: &Path, words: &[&str]) -> Command {
    let prompt = folder.join("prompt.md");
    if !prompt.exists() {
        std::fs::write(&prompt, "say \"hi\"\n").unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_conductor-rest-agent"));
    command.env_clear().envs([("XAI_API_KEY", KEY), ("PERPLEXITY_API_KEY", KEY)]).args(words);
    command.arg("--prompt-file").arg(prompt).arg("--done").arg(folder.join("DONE"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(mut command: Command, folder: tempfile::TempDir) -> Ran {
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let decoded: String = events.iter().map(Value::to_string).collect();
    let stderr = String::from_utf8(output.stderr).unwrap();
    for text in [&stdout, &stderr, &decoded] {
        assert!(!text.contains(KEY), "the key was printed: {text}");
    }
    Ran { code: output.status.code(), events, stdout, stderr, folder }
}

/// Runs it against a server.
fn run(server: &Server, vendor: &str, words: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let mut all = vec!["--vendor", vendor, "--base-url", &url];
    if vendor == "xai" && !words.contains(&"--model") {
        all.extend(["--model", "grok"]);
    }
    all.extend(words);
    finish(command(folder.path(), &all), folder)
}

/// Ends a child that a failed test leaves behind.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_is_missing_or_wrong_is_said_before_anything_is_sent() {
    let server = Server::new(Vec::new());
    let url = server.url();
    let base = ["--vendor", "xai", "--model", "m", "--base-url"];
    type Change = fn(&mut Command, &Path);
    let cases: [(&str, Change, i32, &str, &str); 8] = [
        (
            &url,
            |c, _| {
                c.env_remove("XAI_API_KEY");
            },
            3,
            "auth",
            "XAI_API_KEY is not set",
        ),
        (
            &url,
            |c, _| {
                c.env("XAI_API_KEY", "a\nb");
            },
            3,
            "auth",
            "line break",
        ),
        (&url, |_, f| std::fs::remove_file(f.join("prompt.md")).unwrap(), 2, "usage", "can't be read"),
        (&url, |_, f| std::fs::write(f.join("prompt.md"), " \n").unwrap(), 2, "usage", "is empty"),
        (&url, |_, f| std::fs::write(f.join("prompt.md"), b"\xff").unwrap(), 2, "usage", "not UTF-8"),
        (&url, |_, f| std::fs::write(f.join("prompt.md"), vec![b'x'; (16 << 20) + 1]).unwrap(), 2, "usage", "16 MiB"),
        ("api.x.ai", |_, _| (), 2, "usage", "https://"),
        (
            "https://127.0.0.1:1",
            |c, _| {
                c.env("SSL_CERT_FILE", "/nonexistent");
            },
            1,
            "network",
            "SSL_CERT_FILE",
        ),
    ];
    for (url, change, code, reason, text) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(folder.path(), &[&base[..], &[url]].concat());
        change(&mut command, folder.path());
        let ran = finish(command, folder);
        assert_eq!((ran.code, ran.reason()), (Some(code), reason), "{}", ran.stdout);
        assert!(
            ran.error().contains(text) && ran.stderr.contains(text) && ran.error().contains("xai"),
            "{}",
            ran.stdout
        );
        assert!(!ran.done());
    }
    assert!(server.requests().is_empty());
    let folder = tempfile::tempdir().unwrap();
    let unknown = finish(command(folder.path(), &["--vendor", "nobody"]), folder);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""));
}

/// The path of a file in a folder.
fn path(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}
