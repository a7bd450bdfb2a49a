//! Measures the bus in process and prints JSON: messages per second by mode, messages per fdatasync, and beside them a
//! bare group commit (write and fdatasync of the same batch sizes, nothing else) on the same file system, in one run.
//! `cargo run --release -p conductor-core --example bus_throughput [FOLDER]`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use conductor_core::bus::{BusHub, BusOptions, Durability};
use conductor_core::types::MessageDraft;

/// How often bus and peer take turns, and how long each is.
const ROUNDS: usize = 8;
const TURN: Duration = Duration::from_millis(400);
const WRITERS: usize = 10;

fn draft() -> MessageDraft {
    MessageDraft {
        kind: "PROGRESS".to_owned(),
        project: "bench".parse().expect("a valid id"),
        task: None,
        run: None,
        issue: None,
        parents: Vec::new(),
        links: Vec::new(),
        meta: BTreeMap::new(),
        body: "one line of progress, as an agent would write it, some eighty characters in all".to_owned(),
        key: None,
    }
}

async fn run(folder: &Path, name: &str, durability: Durability, in_flight: usize) -> serde_json::Value {
    let hub = BusHub::new(BusOptions { durability, ..BusOptions::default() });
    let bus = hub.bus(&folder.join(name));
    let mut busy = Duration::ZERO;
    let mut peer = Bare::new(folder);
    // Turn by turn, since the speed of a disk changes from one second to the next.
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let end = began + TURN;
        let tasks: Vec<_> = (0..WRITERS * in_flight)
            .map(|_| {
                let bus = bus.clone();
                tokio::spawn(async move {
                    while Instant::now() < end {
                        bus.post(draft()).await.expect("the disk has room");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("a writer does not panic");
        }
        busy += began.elapsed();
        if durability != Durability::None {
            let stats = hub.stats();
            peer.turn(usize::try_from(stats.bytes / stats.batches).expect("a batch fits into memory"));
        }
    }
    let stats = hub.stats();
    let (seconds, posted, batches) = (busy.as_secs_f64(), stats.posted as f64, stats.batches as f64);
    let mut result = serde_json::json!({
        "mode": name, "in_flight": WRITERS * in_flight, "messages_per_s": (posted / seconds).round(),
        "messages_per_batch": posted / batches, "batches_per_s": (batches / seconds).round(),
    });
    if durability != Durability::None {
        let rate = peer.rate() * posted / batches;
        result["messages_per_fdatasync"] = (posted / stats.syncs as f64).into();
        result["bare_messages_per_s"] = rate.round().into();
        result["share_of_bare_group_commit"] = (posted / seconds / rate).into();
        result["bare_fdatasync_p50_us"] = peer.median_us().into();
    }
    result
}

/// The peer: writes batches of the same size and syncs each.
struct Bare {
    file: File,
    syncs: Vec<Duration>,
    busy: Duration,
}

impl Bare {
    fn new(folder: &Path) -> Self {
        let file = File::options().append(true).create(true).open(folder.join("bare")).expect("a file");
        Self { file, syncs: Vec::new(), busy: Duration::ZERO }
    }

    fn turn(&mut self, bytes: usize) {
        let data = vec![b'x'; bytes];
        let began = Instant::now();
        while began.elapsed() < TURN {
            self.file.write_all(&data).expect("the disk has room");
            let sync = Instant::now();
            self.file.sync_data().expect("the disk works");
            self.syncs.push(sync.elapsed());
        }
        self.busy += began.elapsed();
    }

    /// Batches per second.
    fn rate(&self) -> f64 {
        self.syncs.len() as f64 / self.busy.as_secs_f64()
    }

    fn median_us(&mut self) -> u64 {
        self.syncs.sort();
        u64::try_from(self.syncs[self.syncs.len() / 2].as_micros()).unwrap_or(u64::MAX)
    }
}

fn main() {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let folder = base.join(format!("bus-throughput-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let results = runtime.block_on(async {
        vec![
            run(&folder, "durable, 64 in flight each", Durability::Batch, 64).await,
            run(&folder, "durable, each waits", Durability::Batch, 1).await,
            run(&folder, "not durable, 64 in flight each", Durability::None, 64).await,
        ]
    });
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    println!("{}", serde_json::to_string_pretty(&results).expect("plain values"));
}
