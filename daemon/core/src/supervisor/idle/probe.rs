//! The signs of life that a run's files and processes show. Blocks for file work. Messages are [`super::posts`]'s.
//!
//! What is cheap comes first: the size of the logs; then, of a run that has printed nothing, the end of its stream (once
//! for each size: has it announced a pause?) and the CPU time of its tree.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_shim::protocol::Start;

use super::super::finalize::open_log;
use crate::agents::{Adapter, EventKind, Stream};
use crate::config::AgentKind;
use crate::runner::{Tree, cpu_times};
use crate::types::RunInfo;

/// A tree works if it uses one part in this many of one CPU: 2 %. A Claude Code that waits for its service uses 0.5 %, a
/// node program with a timer of 100 ms 0.13 %, with one of 20 ms 0.5 %: an agent with a few idle MCP servers stays below,
/// and a compiler, a test or a search is far above.
const CPU_PART: u32 = 50;
/// CPU time below which nothing counts, for short limits: two clock ticks, since one can be anybody's.
const LEAST_CPU: Duration = Duration::from_millis(20);
/// Bytes at the end of a stream in which an announced pause is looked for. Whatever stands before is not the last word.
const TAIL: u64 = 64 << 10;

/// Size and identity of a file; any change is a sign of life.
type Mark = (u64, u64);

/// What is looked at, and what was seen the last time.
#[derive(Debug)]
pub(super) struct Probe {
    logs: [Option<PathBuf>; 2],
    adapter: Option<Arc<dyn Adapter>>,
    tree: Tree,
    seen: Option<[Option<Mark>; 2]>,
    /// When each stream was first seen as it is.
    printed: [Instant; 2],
    /// The logs whose ends were read.
    read: Option<[Option<Mark>; 2]>,
    /// The end of an announced pause.
    resumes: Option<Instant>,
    /// CPU time of the tree, and when it was read.
    cpu: Option<(Instant, Duration)>,
    /// The same at the begin of the present silence.
    calm: Option<(Instant, Duration)>,
}

impl Probe {
    /// A probe that has seen nothing yet: its first look is a sign of life.
    pub(super) fn new(info: &RunInfo, start: &Start, adapter: Option<Arc<dyn Adapter>>) -> Self {
        let path = |path: &Option<String>| path.as_ref().map(PathBuf::from);
        Self {
            logs: [path(&info.stdout_path), path(&info.stderr_path)],
            // What a plain command prints announces nothing.
            adapter: adapter.filter(|adapter| adapter.kind() != AgentKind::Command),
            tree: Tree::new(start, info.run_id.to_string()),
            seen: None,
            printed: [Instant::now(); 2],
            read: None,
            resumes: None,
            cpu: None,
            calm: None,
        }
    }

    /// Whether a log has changed. One stat for each.
    fn has_printed(&mut self, now: Instant) -> bool {
        let marks = self.logs.each_ref().map(|path| {
            let found = std::fs::symlink_metadata(path.as_ref()?).ok()?;
            Some((found.len(), found.ino()))
        });
        let before = self.seen.replace(marks);
        for (index, printed) in self.printed.iter_mut().enumerate() {
            if before.is_none_or(|before| before[index] != marks[index]) {
                *printed = now;
            }
        }
        before != Some(marks)
    }

    /// Whether it has said that it pauses, and the pause is not over.
    fn is_pausing(&mut self, now: Instant) -> bool {
        let Some(adapter) = &self.adapter else { return false };
        if self.read != self.seen {
            self.read = self.seen;
            let pause = |stream: Stream, index: usize| {
                let pause = announced_pause(&**adapter, stream, &tail(self.logs[index].as_ref()?)?)?;
                self.printed[index].checked_add(pause)
            };
            // Standard output tells of the work: what comes there ends a pause that standard error has told of. The
            // other way round it may be any remark.
            let [out, err] = self.printed;
            let told = [pause(Stream::Stdout, 0), pause(Stream::Stderr, 1).filter(|_| err >= out)];
            self.resumes = told.into_iter().flatten().max();
        }
        self.resumes.is_some_and(|resumes| now < resumes)
    }

    /// Whether its tree has worked. What can't be told is no proof of idleness.
    fn has_worked(&mut self, now: Instant, used: Option<Duration>) -> bool {
        let Some(used) = used else { return true };
        let last = self.cpu.replace((now, used));
        let first = *self.calm.get_or_insert((now, used));
        // Since the last look, which shows a short piece of work after a long silence; and since the silence began, which
        // shows the work of a tree that gets little of a busy machine.
        let worked = last.into_iter().chain([first]).any(|(then, before)| {
            let least = (now.saturating_duration_since(then) / CPU_PART).max(LEAST_CPU);
            // It falls when a process has ended that nobody waited for.
            used.checked_sub(before).is_none_or(|used| used >= least)
        });
        if worked {
            self.calm = Some((now, used));
        }
        worked
    }
}

/// Looks at some runs; for each, whether it has shown a sign of life since its last look.
pub(super) fn look(probes: &mut [&mut Probe]) -> Vec<bool> {
    let now = Instant::now();
    let mut alive: Vec<bool> = Vec::with_capacity(probes.len());
    for probe in probes.iter_mut() {
        alive.push(if probe.has_printed(now) {
            (probe.cpu, probe.calm) = (None, None);
            true
        } else {
            probe.is_pausing(now)
        });
    }
    let quiet: Vec<usize> = (0..probes.len()).filter(|&index| !alive[index]).collect();
    let times = {
        let trees: Vec<&Tree> = quiet.iter().map(|&index| &probes[index].tree).collect();
        cpu_times(&trees)
    };
    let now = Instant::now();
    for (index, used) in quiet.into_iter().zip(times) {
        alive[index] = probes[index].has_worked(now, used);
    }
    alive
}

/// The last lines of a log, whole ones.
fn tail(path: &std::path::Path) -> Option<Vec<u8>> {
    let mut file: File = open_log(path).ok()?;
    let from = file.metadata().ok()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    if from > 0 {
        let line = bytes.iter().position(|&byte| byte == b'\n')?;
        bytes.drain(..=line);
    }
    Some(bytes)
}

/// The pause before a retry, if that is the last thing that a stream tells of the agent's work.
fn announced_pause(adapter: &dyn Adapter, stream: Stream, tail: &[u8]) -> Option<Duration> {
    let mut pause = None;
    adapter.events().feed(stream, tail, &mut |event| match event.kind {
        EventKind::Retry { delay, .. } => pause = delay,
        // They accompany whatever happens.
        EventKind::Usage { .. } | EventKind::Limit(_) => {}
        _ => pause = None,
    });
    pause
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use conductor_shim::process;

    use super::*;
    use crate::agents::{Agents, Host};
    use crate::config::Config;

    const RETRY: &str = r#"{"type":"system","subtype":"api_retry","attempt":1,"max_retries":10,"retry_delay_ms":21600000,"error_status":529,"error":"overloaded","session_id":"s","uuid":"u"}"#;
    const SAID: &str =
        r#"{"type":"assistant","message":{"model":"m","content":[{"type":"text","text":"on"}]},"session_id":"s"}"#;

    fn claude() -> Arc<dyn Adapter> {
        let agents = Agents::new(&Config::default(), &Arc::new(Host::current()));
        Arc::clone(agents.get("claude").unwrap())
    }

    /// A probe of a process that sleeps, and its log.
    fn probe(folder: &std::path::Path) -> (std::process::Child, Probe, File) {
        let child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let identity = process::identity(child.id().cast_signed()).unwrap();
        let start = Start {
            version: 1,
            instance: process::instance().unwrap(),
            shim: identity.clone(),
            agent: identity,
            pgid: child.id().cast_signed(),
            cgroup: None,
            time: String::new(),
        };
        let key = "p/task-20260101-000000-abc".to_owned();
        let (project, task) = key.split_once('/').unwrap();
        let key = crate::types::TaskKey::new(project.parse().unwrap(), task.parse().unwrap())
            .run("20260101-0000000000-1-1".parse().unwrap());
        let mut info = crate::store::run_info::unreadable(&key, crate::store::run_info::RunProblem::Missing).info;
        info.stdout_path = Some(folder.join("out").display().to_string());
        info.stderr_path = Some(folder.join("err").display().to_string());
        let log = File::create(folder.join("out")).unwrap();
        File::create(folder.join("err")).unwrap();
        (child, Probe::new(&info, &start, Some(claude())), log)
    }

    #[test]
    fn growth_of_either_log_is_a_sign_of_life_and_silence_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (mut child, mut probe, mut log) = probe(folder.path());
        let mut looked = || look(&mut [&mut probe])[0];
        assert!(looked(), "the first look has nothing to compare with");
        assert!(!looked());
        log.write_all(b"x").unwrap();
        assert!(looked());
        assert!(!looked());
        std::fs::write(folder.path().join("err"), "y").unwrap();
        assert!(looked());
        assert!(!looked() && !looked());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn an_announced_pause_is_a_sign_of_life_until_it_is_over_or_something_else_comes() {
        let folder = tempfile::tempdir().unwrap();
        let (mut child, mut probe, mut log) = probe(folder.path());
        writeln!(log, "{SAID}\n{RETRY}").unwrap();
        for _ in 0..3 {
            assert!(look(&mut [&mut probe])[0]);
        }
        let hours = |count: u64| Duration::from_secs(count * 3600);
        assert!(probe.is_pausing(probe.printed[0] + hours(5)));
        assert!(!probe.is_pausing(probe.printed[0] + hours(7)));
        std::fs::write(folder.path().join("err"), "a remark\n").unwrap();
        assert!(look(&mut [&mut probe])[0]);
        assert!(look(&mut [&mut probe])[0], "a remark on standard error ends no pause");
        writeln!(log, "{SAID}").unwrap();
        assert!(look(&mut [&mut probe])[0], "it has printed");
        assert!(!look(&mut [&mut probe])[0], "and the pause is over");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_last_word_of_a_long_stream_is_found_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let long = format!("{SAID}\n").repeat(2000);
        assert!(long.len() as u64 > 2 * TAIL);
        std::fs::write(&path, format!("{long}{RETRY}\n")).unwrap();
        let found = tail(&path).unwrap();
        assert!(found.len() as u64 <= TAIL && found.starts_with(b"{"));
        assert_eq!(announced_pause(&*claude(), Stream::Stdout, &found), Some(Duration::from_secs(21_600)));
        std::fs::write(&path, format!("{RETRY}\n{long}")).unwrap();
        assert_eq!(announced_pause(&*claude(), Stream::Stdout, &tail(&path).unwrap()), None);
        // One line without an end.
        std::fs::write(&path, vec![b'x'; 3 * TAIL as usize]).unwrap();
        assert_eq!(tail(&path), None);
    }

    #[test]
    fn what_an_idle_program_uses_for_its_timers_is_no_work() {
        let folder = tempfile::tempdir().unwrap();
        let (mut child, mut probe, _log) = probe(folder.path());
        let begin = Instant::now();
        let at = |minute: u32| begin + Duration::from_secs(60) * minute;
        assert!(!probe.has_worked(at(0), Some(Duration::from_secs(9))), "nothing to compare with");
        assert!(!probe.has_worked(at(1), Some(Duration::from_millis(9310))), "an idle Claude Code");
        assert!(probe.has_worked(at(2), Some(Duration::from_secs(11))));
        assert!(!probe.has_worked(at(3), Some(Duration::from_secs(11))));
        assert!(probe.has_worked(at(4), Some(Duration::from_secs(5))), "a process has ended");
        assert!(probe.has_worked(at(5), None), "not to be told");
        // A worker that gets little: too little in each of many short spans, enough in all of them.
        let at = |tenth: u64| begin + Duration::from_secs(3600) + Duration::from_millis(100 * tenth);
        let used = |tenth: u64| Some(Duration::from_secs(60) + Duration::from_millis(15 * tenth));
        probe.calm = None;
        probe.cpu = None;
        let worked: Vec<bool> = (0..5).map(|tenth| probe.has_worked(at(tenth), used(tenth))).collect();
        assert_eq!(worked, [false, false, true, false, true]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
