//! Scans a file through a window, so that memory does not grow with the file.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;

use super::format::scan::{Entry, Scanner, State, Step, Tail};

/// Bytes read at a time: some thousand entries, and nothing to speak of in memory.
const WINDOW: u64 = 256 << 10;

/// A place in a file from which a scan can go on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) offset: u64,
    pub(super) state: State,
}

/// What a walk meets. Offsets are those of the file.
pub(super) enum Event<'a, 'b> {
    /// An entry, and the mark before it.
    Entry { start: u64, before: Mark, entry: &'a Entry<'b> },
    /// Records lost.
    Lost(u64),
}

/// Where a walk ended.
pub(super) struct Walked {
    pub(super) mark: Mark,
    /// How the file ends; `None` if the walk was broken off.
    pub(super) tail: Option<Tail<u64>>,
}

/// Walks from `from` to `end`, which is treated as the file's end.
pub(super) fn walk(
    file: &File,
    from: Mark,
    end: u64,
    mut sink: impl FnMut(Event<'_, '_>) -> ControlFlow<()>,
) -> io::Result<Walked> {
    let mut mark = from;
    let mut window = WINDOW;
    let mut buf = Vec::new();
    loop {
        let length = window.min(end.saturating_sub(mark.offset));
        buf.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        file.read_exact_at(&mut buf, mark.offset)?;
        let base = mark.offset;
        let mut scanner = Scanner::new(&buf, mark.state, base + length >= end);
        loop {
            let before = Mark { offset: base + scanner.pos as u64, state: scanner.state };
            let flow = match scanner.step() {
                Step::Entry(entry) => {
                    let start = base + entry.start as u64;
                    sink(Event::Entry { start, before, entry: &entry })
                }
                Step::Lost(count) => sink(Event::Lost(count)),
                Step::More => break,
                Step::End(tail) => {
                    let tail = match tail {
                        Tail::Clean => Tail::Clean,
                        Tail::Torn { start, ours } => Tail::Torn { start: base + start as u64, ours },
                    };
                    let mark = Mark { offset: base + scanner.pos as u64, state: scanner.state };
                    return Ok(Walked { mark, tail: Some(tail) });
                }
            };
            if flow.is_break() {
                let mark = Mark { offset: base + scanner.pos as u64, state: scanner.state };
                return Ok(Walked { mark, tail: None });
            }
        }
        window = if scanner.pos == 0 { window * 2 } else { WINDOW };
        mark = Mark { offset: base + scanner.pos as u64, state: scanner.state };
    }
}
