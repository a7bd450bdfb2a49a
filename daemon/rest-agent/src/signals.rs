//! SIGINT and SIGTERM end the program cleanly, whatever it waits for: a server, a name service, a full pipe.

use std::process;
use std::sync::{Arc, Mutex, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use crate::emit::{Emitter, End};
use crate::event::Reason;

/// How long a line that is being printed may take: together with the end it stays below 100 ms.
const PATIENCE: Duration = Duration::from_millis(50);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// What shells add to a signal's number.
const SIGNALLED: i32 = 128;

/// Blocks both signals in this thread and those that it starts. To be called before any other thread is there.
///
/// # Errors
/// That of the system.
pub fn block() -> nix::Result<()> {
    set().thread_block()
}

/// Starts the thread that waits for them. It prints the end, unless a line can't be finished, and exits the process.
///
/// # Errors
/// That of starting a thread.
pub fn watch(emitter: Arc<Mutex<Emitter>>) -> std::io::Result<()> {
    thread::Builder::new().name("signals".into()).spawn(move || {
        let Ok(signal) = set().wait() else { return };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match emitter.try_lock() {
                // It is over already, and the exit code is that of the turn.
                Ok(emitter) if emitter.ended() => return,
                Ok(mut emitter) => {
                    let error = format!("stopped by {signal}");
                    // If it can't be printed, nobody reads it.
                    let _ = emitter.end(End::new(Reason::Interrupted, error), None);
                    break;
                }
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOOK),
                Err(_) => break,
            }
        }
        process::exit(SIGNALLED + signal as i32);
    })?;
    Ok(())
}

fn set() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM])
}
