//! One bus, many processes: other conductords' code, plain scripts, and writers that are killed.
//!
//! A writer process is this test binary again, told by the environment what to write ([`writer_process`]).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conductor_core::bus::{Bus, BusHub, BusOptions, read_file};
use conductor_core::types::MessageDraft;

const BUS: &str = "CONDUCTOR_TEST_BUS";
const NAME: &str = "CONDUCTOR_TEST_WRITER";
const COUNT: &str = "CONDUCTOR_TEST_COUNT";

fn draft(body: String) -> MessageDraft {
    MessageDraft {
        kind: "FACT".to_owned(),
        project: "demo".parse().unwrap(),
        task: None,
        run: None,
        issue: None,
        parents: Vec::new(),
        links: Vec::new(),
        meta: BTreeMap::new(),
        body,
        key: None,
    }
}

/// Not a test by itself: the body of a writer process. Prints each message once it is answered.
#[test]
fn writer_process() {
    let (Ok(path), Ok(name), Ok(count)) = (std::env::var(BUS), std::env::var(NAME), std::env::var(COUNT)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let bus = BusHub::new(BusOptions::default()).bus(Path::new(&path));
        for n in 0..count.parse().unwrap() {
            let body = format!("{name}-{n}-{}", "x".repeat(n % 7 * 500));
            bus.post(draft(body)).await.unwrap();
            println!("\nanswered {name}-{n}-");
        }
    });
}

fn writer(path: &Path, name: &str, count: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writer_process", "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env(BUS, path).env(NAME, name).env(COUNT, count.to_string()).spawn().unwrap()
}

fn open(path: &Path) -> Bus {
    BusHub::new(BusOptions::default()).bus(path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_processes_of_a_hundred_messages_lose_none_and_all_readers_see_one_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("BUS.md");
    let mut follower = open(&path).follow(None).await.unwrap();
    let children: Vec<_> = (0..10).map(|n| writer(&path, &format!("w{n}"), 100)).collect();
    let mut followed = Vec::new();
    while followed.len() < 1000 {
        let message = tokio::time::timeout(Duration::from_secs(60), follower.next()).await.expect("more messages come");
        followed.push(message.unwrap());
    }
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let ids: HashSet<_> = followed.iter().map(|message| message.id.as_str().to_owned()).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.iter().all(|id| id.starts_with("MSG-")));
    let (messages, stats) = read_file(&path).unwrap();
    assert_eq!(stats, conductor_core::bus::Stats::default());
    assert_eq!(messages, followed);
    let page = open(&path).read_after(None, 5000).await.unwrap();
    assert_eq!(page.messages, followed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_script_that_appends_under_flock_takes_part() {
    const SCRIPT: &str = r#"
i=0
while [ $i -lt 100 ]; do
  flock "$1" sh -c '
    if [ -s "$1" ]; then nl="
"; else nl=""; fi
    printf "%s---\nmsg_id: script-%s\nts: 2026-01-01T00:00:00Z\ntype: FACT\nproject_id: demo\n---\nscript-%s\n" "$nl" "$2" "$2" >> "$1"
  ' sh "$1" "$i" || exit 1
  i=$((i + 1))
done
"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("BUS.md");
    let mut follower = open(&path).follow(None).await.unwrap();
    let mut script = Command::new("sh").arg("-c").arg(SCRIPT).arg("sh").arg(&path).spawn().unwrap();
    let child = writer(&path, "ours", 100);
    let mut followed = Vec::new();
    while followed.len() < 200 {
        let message = tokio::time::timeout(Duration::from_secs(60), follower.next()).await.expect("more messages come");
        followed.push(message.unwrap());
    }
    assert!(script.wait().unwrap().success());
    assert!(child.wait_with_output().unwrap().status.success());
    let (messages, stats) = read_file(&path).unwrap();
    assert_eq!(stats, conductor_core::bus::Stats::default());
    assert_eq!(messages, followed);
    for n in 0..100 {
        assert!(messages.iter().any(|message| message.body == format!("script-{n}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_writers_costs_no_answered_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("BUS.md");
    let mut answered = Vec::new();
    for round in 0..12 {
        let mut children: Vec<_> = (0..3).map(|n| writer(&path, &format!("r{round}w{n}"), 100_000)).collect();
        let mut lines = BufReader::new(children[0].stdout.take().unwrap()).lines();
        // The kill comes at another moment in each round.
        for line in lines.by_ref().map(Result::unwrap).filter(|line| line.starts_with("answered ")).take(1 + round * 3)
        {
            answered.push(line);
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        answered
            .extend(lines.map_while(Result::ok).filter(|line| line.starts_with("answered ") && line.ends_with('-')));
    }
    let bus = open(&path);
    bus.repair().await.unwrap();
    bus.post(draft("the end".to_owned())).await.unwrap();
    let (messages, stats) = read_file(&path).unwrap();
    assert_eq!((stats.skipped, stats.damaged, stats.torn_bytes), (0, 0, 0));
    let bodies: HashSet<_> = messages.iter().map(|message| message.body.trim_end_matches('x')).collect();
    assert!(answered.len() >= 12);
    for line in &answered {
        let body = line.strip_prefix("answered ").unwrap();
        assert!(bodies.contains(body), "{body} was answered and is gone");
    }
    assert_eq!(messages.last().unwrap().body, "the end");
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_failed_write_or_sync_leaves_nothing_and_a_kill_at_any_point_loses_nothing_answered() {
    for point in ["bus.before_append", "bus.after_append", "bus.after_sync"] {
        for action in ["err:ENOSPC", "err:EIO", "kill:3"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("BUS.md");
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "writer_process", "--nocapture"]).stderr(Stdio::null());
            command.env(BUS, &path).env(NAME, "w").env(COUNT, "5");
            let output = command.env("CONDUCTOR_FAILPOINTS", format!("{point}={action}")).output().unwrap();
            assert!(!output.status.success(), "{point} {action}");
            let text = String::from_utf8(output.stdout).unwrap();
            let answered = text.lines().filter(|line| line.starts_with("answered ")).count();
            open(&path).repair().await.unwrap();
            let (messages, stats) = read_file(&path).unwrap();
            assert_eq!(stats, conductor_core::bus::Stats::default(), "{point} {action}");
            if action.starts_with("err") {
                assert_eq!((answered, messages.len()), (0, 0), "{point} {action}");
            } else {
                assert_eq!(answered, 2, "{point} {action}");
                assert!(messages.len() >= answered, "{point} {action}");
            }
        }
    }
}
