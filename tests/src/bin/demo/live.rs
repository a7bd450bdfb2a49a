//! Messages of the demo's buses as they come, also over the death of the daemon: each follower resumes at its cursor.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use conductor_proto::v1::{BusRef, ReadMessagesRequest};
use conductor_tests::{Client, Sandbox};

/// Pause between two looks at a bus: quick to the eye.
const PAUSE: Duration = Duration::from_millis(50);

/// The followers of all buses.
#[derive(Default)]
pub(crate) struct Followers {
    end: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Followers {
    /// Prints what comes on a bus from now on.
    pub(crate) fn follow(&self, sandbox: &Sandbox, bus: BusRef, name: &'static str) {
        let (socket, end) = (sandbox.socket(), Arc::clone(&self.end));
        let thread = std::thread::spawn(move || follow(&socket, &bus, name, &end));
        if let Ok(mut threads) = self.threads.lock() {
            threads.push(thread);
        }
    }

    /// Prints what has come and ends.
    pub(crate) fn finish(&self) {
        self.end.store(true, Ordering::Relaxed);
        let threads = self.threads.lock().map(|mut threads| std::mem::take(&mut *threads));
        for thread in threads.unwrap_or_default() {
            let _ = thread.join();
        }
    }
}

fn follow(socket: &Path, bus: &BusRef, name: &str, end: &AtomicBool) {
    let mut after = String::new();
    loop {
        // Read before the look at `end`, so that the last pass sees everything.
        let last = end.load(Ordering::Relaxed);
        if let Ok(client) = Client::lazy(socket, None) {
            while let Ok(page) = client.wait(client.bus().read_messages(ReadMessagesRequest {
                bus: Some(bus.clone()),
                after: after.clone(),
                ..ReadMessagesRequest::default()
            })) {
                for message in &page.messages {
                    let text = message.body.lines().next().unwrap_or_default();
                    println!("   {name:>14} | {:<9} {text}", message.r#type);
                }
                after = page.next_after;
                if last || end.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
        }
        if last {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
