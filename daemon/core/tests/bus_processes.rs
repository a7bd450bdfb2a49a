//! One bus, many processes: other conductords' code, plain scripts, and writers that are killed.
//!
//! A writer process is this test binary again, told by the environment what to write ([`writer_process`]).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use conductor_core::bus::{Bus, BusError, BusHub, BusOptions, Follower, read_file};
use conductor_core::types::{Message, MessageDraft};

const BUS: &str = "CONDUCTOR_TEST_BUS";
const NAME: &str = "CONDUCTOR_TEST_WRITER";
const COUNT: &str = "CONDUCTOR_TEST_COUNT";
const ROTATE: &str = "CONDUCTOR_TEST_ROTATE";
const HELD: &str = "CONDUCTOR_TEST_HELD";

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

/// Appends 100 entries to the file `$1`, each under its lock.
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

/// Not a test by itself: the body of a writer process. Prints each message once it is answered.
#[test]
fn writer_process() {
    let (Ok(path), Ok(name), Ok(count)) = (std::env::var(BUS), std::env::var(NAME), std::env::var(COUNT)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let rotate_bytes = std::env::var(ROTATE).ok().map(|size| size.parse().unwrap());
        let bus = BusHub::new(BusOptions { rotate_bytes, ..BusOptions::default() }).bus(Path::new(&path));
        for n in 0..count.parse().unwrap() {
            let body = format!("{name}-{n}-{}", "x".repeat(n % 7 * 500));
            bus.post(draft(body)).await.unwrap();
            println!("\nanswered {name}-{n}-");
        }
    });
}

fn writer(path: &Path, name: &str, count: usize) -> Child {
    rotating(path, name, count, 1 << 30)
}

fn rotating(path: &Path, name: &str, count: usize, rotate: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writer_process", "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env(BUS, path).env(NAME, name).env(COUNT, count.to_string()).env(ROTATE, rotate.to_string());
    command.spawn().unwrap()
}

fn open(path: &Path) -> Bus {
    BusHub::new(BusOptions::default()).bus(path)
}

/// Not a test by itself: locks every file of a folder, says so, and holds on until its input ends.
#[test]
fn holder_process() {
    let Ok(folder) = std::env::var(HELD) else { return };
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|it| File::open(it.unwrap().path()).unwrap()).collect();
    files.iter().for_each(|file| file.lock().unwrap());
    println!("\nheld");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn any_number_of_buses_whose_locks_others_hold_delay_no_other_bus() {
    const BUSES: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let held = folder.path().join("held");
    std::fs::create_dir(&held).unwrap();
    let paths: Vec<_> = (0..BUSES).map(|n| held.join(format!("BUS-{n}.md"))).collect();
    paths.iter().for_each(|path| std::fs::write(path, "").unwrap());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "holder_process", "--nocapture"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = command.stderr(Stdio::null()).env(HELD, &held).spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    // Fewer threads for blocking work than the daemon has, and than there are buses.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(64).enable_all().build().unwrap();
    runtime.block_on(async {
        let hub = BusHub::new(BusOptions { lock_timeout: Duration::from_secs(60), ..BusOptions::default() });
        let post = |path: &Path| {
            let bus = hub.bus(path);
            tokio::spawn(async move { bus.post(draft("waited".to_owned())).await })
        };
        let waiting: Vec<_> = paths.iter().map(|path| post(path)).collect();
        let free = hub.bus(&folder.path().join("FREE.md"));
        for n in 0..20 {
            let posted = tokio::time::timeout(Duration::from_secs(5), free.post(draft(n.to_string()))).await;
            posted.expect("a bus that nobody holds answers at once").unwrap();
        }
        assert!(waiting.iter().all(|post| !post.is_finished()));
        drop(holder.stdin.take());
        for post in waiting {
            post.await.unwrap().unwrap();
        }
        // One that is held again fails after its time, with all others.
        let holder = File::open(&paths[0]).unwrap();
        holder.lock().unwrap();
        hub.set_options(BusOptions { lock_timeout: Duration::from_millis(200), ..BusOptions::default() });
        assert!(matches!(post(&paths[0]).await.unwrap(), Err(BusError::LockTimeout { .. })));
    });
    assert!(holder.wait().unwrap().success());
}

/// The messages of all files of a bus, oldest file first.
fn read_all(path: &Path) -> Vec<Message> {
    let is_archive = |other: &Path| other.to_str().unwrap().starts_with(&format!("{}.2", path.display()));
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|it| it.unwrap().path());
    let mut archives: Vec<_> = files.filter(|other| is_archive(other)).collect();
    // The number behind a second's first archive counts as a number.
    archives.sort_by_key(|path| {
        let name = path.to_str().unwrap().strip_suffix(".archived").unwrap().rsplit_once('.').unwrap().1.to_owned();
        (name[..15].to_owned(), name.get(16..).map_or(1, |number| number.parse::<u32>().unwrap()))
    });
    let mut messages = Vec::new();
    for file in archives.iter().map(PathBuf::as_path).chain([path]) {
        let (more, stats) = read_file(file).unwrap();
        assert_eq!(stats, conductor_core::bus::Stats::default(), "{}", file.display());
        messages.extend(more);
    }
    messages
}

async fn follow(mut follower: Follower, count: usize) -> Vec<Message> {
    let mut followed = Vec::new();
    while followed.len() < count {
        let message = tokio::time::timeout(Duration::from_secs(30), follower.next()).await;
        followed.push(message.unwrap_or_else(|_| panic!("{} of {count} messages came", followed.len())).unwrap());
    }
    followed
}

/// Writers of ours and a plain script at once, with a rotation every few entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_in_the_middle_lose_nothing_and_change_no_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("BUS.md");
    // Two that read all along, each with a view of its own, and one that joins in the middle.
    let readers: Vec<_> = [open(&path), open(&path)].map(|bus| async move { bus.follow(None).await.unwrap() }).into();
    let mut following = Vec::new();
    for reader in readers {
        following.push(tokio::spawn(follow(reader.await, 600)));
    }
    let mut script = Command::new("sh").arg("-c").arg(SCRIPT).arg("sh").arg(&path).spawn().unwrap();
    let children: Vec<_> = (0..5).map(|n| rotating(&path, &format!("w{n}"), 100, 40_000)).collect();
    tokio::time::timeout(Duration::from_secs(60), async {
        while std::fs::read_dir(folder.path()).unwrap().count() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is rotated");
    following.push(tokio::spawn(follow(open(&path).follow(None).await.unwrap(), 600)));
    assert!(script.wait().unwrap().success());
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let mut orders = Vec::new();
    for reader in following {
        orders.push(reader.await.unwrap());
    }
    let ids: HashSet<_> = orders[0].iter().map(|message| message.id.as_str().to_owned()).collect();
    assert_eq!(ids.len(), 600);
    assert!(ids.iter().all(|id| id.starts_with("MSG-") || id.starts_with("script-")), "{ids:?}");
    let order = |messages: &[Message]| -> Vec<String> { messages.iter().map(|it| it.id.to_string()).collect() };
    let all = order(&read_all(&path));
    for followed in &orders {
        assert_eq!(order(followed), all);
    }
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
