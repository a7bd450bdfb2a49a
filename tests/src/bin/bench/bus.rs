//! The bus in process, beside a bare group commit that takes turns with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use conductor_core::bus::{BusHub, BusOptions, Durability};
use conductor_core::types::MessageDraft;

use crate::report::{Limit, Report};

/// How often bus and peer take turns, and how long each is: the speed of a disk changes from one second to the next.
const ROUNDS: usize = 8;
const TURN: Duration = Duration::from_millis(400);
const WRITERS: usize = 10;
const IN_FLIGHT: usize = 64;

/// Its body: one line of progress, as an agent would write it.
pub(crate) const BODY: &str = "one line of progress, as an agent would write it, some eighty characters in all";

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("cdt-").tempdir_in("/tmp")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let many = runtime.block_on(run(folder.path(), "many", Durability::Batch, IN_FLIGHT))?;
    report.row(
        format!("bus in process, durable, {WRITERS} writers, {IN_FLIGHT} in flight each"),
        many.rate,
        "msg/s",
        Limit::AtLeast(50_000.0),
        many.how(),
    );
    let waiting = runtime.block_on(run(folder.path(), "waiting", Durability::Batch, 1))?;
    let name = format!("bus in process, durable, {WRITERS} writers that wait");
    report.row(
        format!("{name}: messages per fdatasync"),
        waiting.per_sync,
        "",
        Limit::AtLeast(8.0),
        format!("{:.0} msg/s, {}", waiting.rate, waiting.how()),
    );
    report.row(
        format!("{name}: share of a bare group commit"),
        waiting.rate / waiting.bare * 100.0,
        "%",
        Limit::AtLeast(60.0),
        waiting.how(),
    );
    let plain = runtime.block_on(run(folder.path(), "plain", Durability::None, IN_FLIGHT))?;
    report.row(
        format!("bus in process, not durable, {WRITERS} writers, {IN_FLIGHT} in flight each"),
        plain.rate,
        "msg/s",
        Limit::AtLeast(250_000.0),
        format!("{ROUNDS} turns of {} ms, {:.1} messages a batch", TURN.as_millis(), plain.per_batch),
    );
    Ok(())
}

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
        body: BODY.to_owned(),
        key: None,
    }
}

struct Measured {
    rate: f64,
    per_batch: f64,
    per_sync: f64,
    /// Messages a second of a bare group commit with batches of this size.
    bare: f64,
    sync_us: u128,
}

impl Measured {
    fn how(&self) -> String {
        format!(
            "{ROUNDS} turns of {} ms each, alternating with write + fdatasync of batches of the same {:.1} messages: \
             bare {:.0} msg/s, its fdatasync p50 {} µs",
            TURN.as_millis(),
            self.per_batch,
            self.bare,
            self.sync_us
        )
    }
}

async fn run(folder: &Path, name: &str, durability: Durability, in_flight: usize) -> Result<Measured> {
    let hub = BusHub::new(BusOptions { durability, ..BusOptions::default() });
    let bus = hub.bus(&folder.join(name));
    let mut busy = Duration::ZERO;
    let mut peer = Bare::new(&folder.join(format!("{name}.bare")))?;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let end = began + TURN;
        let tasks: Vec<_> = (0..WRITERS * in_flight)
            .map(|_| {
                let bus = bus.clone();
                tokio::spawn(async move {
                    while Instant::now() < end {
                        bus.post(draft()).await?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        busy += began.elapsed();
        if durability != Durability::None {
            let stats = hub.stats();
            peer.turn(usize::try_from(stats.bytes / stats.batches)?)?;
        }
    }
    let stats = hub.stats();
    let (posted, batches) = (stats.posted as f64, stats.batches as f64);
    let per_batch = posted / batches;
    Ok(Measured {
        rate: posted / busy.as_secs_f64(),
        per_batch,
        per_sync: posted / (stats.syncs.max(1)) as f64,
        bare: peer.rate() * per_batch,
        sync_us: if durability == Durability::None { 0 } else { peer.median_us()? },
    })
}

/// The peer: writes batches of the same size and syncs each.
struct Bare {
    file: File,
    syncs: Vec<Duration>,
    busy: Duration,
}

impl Bare {
    fn new(path: &Path) -> Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        Ok(Self { file, syncs: Vec::new(), busy: Duration::ZERO })
    }

    fn turn(&mut self, bytes: usize) -> Result<()> {
        let data = vec![b'x'; bytes];
        let began = Instant::now();
        while began.elapsed() < TURN {
            self.file.write_all(&data)?;
            let sync = Instant::now();
            self.file.sync_data()?;
            self.syncs.push(sync.elapsed());
        }
        self.busy += began.elapsed();
        Ok(())
    }

    /// Batches a second.
    fn rate(&self) -> f64 {
        self.syncs.len() as f64 / self.busy.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn median_us(&mut self) -> Result<u128> {
        self.syncs.sort();
        Ok(self.syncs.get(self.syncs.len() / 2).context("the peer had a turn")?.as_micros())
    }
}
