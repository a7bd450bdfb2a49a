//! The bus as its callers use it, on real files.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::types::{MessageDraft, MessageId};

fn draft(body: &str) -> MessageDraft {
    MessageDraft {
        kind: "FACT".to_owned(),
        project: "demo".parse().unwrap(),
        task: None,
        run: None,
        issue: None,
        parents: Vec::new(),
        links: Vec::new(),
        meta: BTreeMap::new(),
        body: body.to_owned(),
        key: None,
    }
}

fn foreign(id: &str, body: &str) -> String {
    format!("---\nmsg_id: {id}\nts: 2024-01-01T00:00:00Z\ntype: FACT\nproject_id: p\n---\n{body}\n")
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    let before = file.metadata().unwrap().len();
    let separator = if before > 0 { "\n" } else { "" };
    file.write_all(format!("{separator}{text}").as_bytes()).unwrap();
}

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
    hub: BusHub,
    bus: Bus,
}

fn place_with(options: BusOptions) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demo/PROJECT-MESSAGE-BUS.md");
    fs::create_dir(folder.path().join("demo")).unwrap();
    let hub = BusHub::new(options);
    let bus = hub.bus(&path);
    Place { _folder: folder, path, hub, bus }
}

fn place() -> Place {
    place_with(BusOptions::default())
}

fn bodies(page: &Page) -> Vec<&str> {
    page.messages.iter().map(|message| message.body.as_str()).collect()
}

async fn next(follower: &mut Follower) -> String {
    tokio::time::timeout(Duration::from_secs(20), follower.next()).await.expect("a message comes").unwrap().body
}

async fn all(bus: &Bus) -> Vec<String> {
    let (mut cursor, mut found) = (None, Vec::new());
    loop {
        let page = bus.read_after(cursor, 3).await.unwrap();
        found.extend(page.messages.into_iter().map(|message| message.body));
        cursor = page.next;
        if !page.more {
            return found;
        }
    }
}

#[tokio::test]
async fn what_is_posted_is_read_back_behind_any_cursor() {
    let place = place();
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(place.bus.post(draft(&format!("m{n}"))).await.unwrap().id);
    }
    let page = place.bus.read_after(Some(ids[3].clone()), 4).await.unwrap();
    assert_eq!((bodies(&page), page.more), (vec!["m4", "m5", "m6", "m7"], true));
    assert_eq!(page.next.as_ref(), Some(&ids[7]));
    let end = place.bus.read_after(Some(ids[9].clone()), 4).await.unwrap();
    assert_eq!((bodies(&end), end.more, end.next.as_ref()), (vec![], false, Some(&ids[9])));
    assert_eq!(bodies(&place.bus.tail(3).await.unwrap()), ["m7", "m8", "m9"]);
    let unknown: MessageId = "MSG-20200101-000000-000000000-PID00001-0001".parse().unwrap();
    assert!(matches!(place.bus.read_after(Some(unknown), 1).await, Err(BusError::UnknownCursor(_))));
    let (messages, stats) = read_file(&place.path).unwrap();
    assert_eq!((messages.len(), stats), (10, Stats::default()));
}

#[tokio::test]
async fn a_bus_without_a_file_is_empty_and_reading_makes_none() {
    let place = place();
    assert!(place.bus.read_after(None, 10).await.unwrap().messages.is_empty());
    assert!(place.bus.tail(5).await.unwrap().messages.is_empty());
    assert_eq!(place.bus.repair().await.unwrap(), None);
    assert_eq!(place.bus.position().await.unwrap(), Position::default());
    assert!(!place.path.exists());
}

#[tokio::test]
async fn bad_drafts_are_refused_and_nothing_is_written() {
    let place = place();
    let with = |change: fn(&mut MessageDraft)| {
        let mut draft = draft("x");
        change(&mut draft);
        draft
    };
    let post = |draft| place.bus.post(draft);
    assert!(matches!(post(with(|d| d.kind.clear())).await, Err(BusError::EmptyKind)));
    assert!(matches!(post(with(|d| d.kind = "a\nb".into())).await, Err(BusError::InvalidKind(_))));
    assert!(matches!(post(with(|d| d.kind = "K".repeat(65))).await, Err(BusError::InvalidKind(_))));
    assert!(matches!(post(with(|d| d.body = "b".repeat(MAX_BODY + 1))).await, Err(BusError::TooLarge { .. })));
    let reserved = with(|d| drop(d.meta.insert("x-len".into(), "1".into())));
    assert!(matches!(post(reserved).await, Err(BusError::ReservedMeta(_))));
    let huge = with(|d| drop(d.meta.insert("big".into(), "v".repeat(MAX_HEADER))));
    assert!(matches!(post(huge).await, Err(BusError::TooLarge { what: "header", .. })));
    assert_eq!(fs::metadata(&place.path).map_or(0, |meta| meta.len()), 0);
    assert_eq!(place.bus.post(with(|d| d.body = "b".repeat(MAX_BODY))).await.unwrap().offset, 0);
}

#[tokio::test]
async fn links_and_other_kinds_of_files_are_refused() {
    let place = place();
    let target = place.path.with_file_name("elsewhere");
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &place.path).unwrap();
    assert!(matches!(place.bus.post(draft("x")).await, Err(BusError::Symlink(_))));
    assert!(matches!(place.bus.read_after(None, 1).await, Err(BusError::Symlink(_))));
    fs::remove_file(&place.path).unwrap();
    fs::create_dir(&place.path).unwrap();
    assert!(matches!(place.bus.post(draft("x")).await, Err(BusError::NotRegular(_))));
    assert_eq!(fs::metadata(&target).unwrap().len(), 0);
}

#[tokio::test]
async fn many_posts_of_one_call_stand_together() {
    let place = place();
    let other = place.bus.clone();
    let noise = tokio::spawn(async move {
        for _ in 0..50 {
            other.post(draft("noise")).await.unwrap();
        }
    });
    for _ in 0..20 {
        let posted = place.bus.post_many((0..5).map(|n| draft(&format!("p{n}"))).collect()).await.unwrap();
        let page = place.bus.read_after(Some(posted[0].id.clone()), 4).await.unwrap();
        assert_eq!(bodies(&page), ["p1", "p2", "p3", "p4"]);
    }
    noise.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_share_syncs_and_every_reader_sees_one_order() {
    let place = place();
    let mut writers = Vec::new();
    for writer in 0..10 {
        let bus = place.bus.clone();
        writers.push(tokio::spawn(async move {
            for n in 0..50 {
                bus.post(draft(&format!("{writer}-{n}"))).await.unwrap();
            }
        }));
    }
    let mut follower = place.bus.follow(None).await.unwrap();
    let mut followed = Vec::new();
    for _ in 0..500 {
        followed.push(next(&mut follower).await);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(followed, all(&place.bus).await);
    let (messages, _) = read_file(&place.path).unwrap();
    assert_eq!(followed, messages.iter().map(|message| message.body.clone()).collect::<Vec<_>>());
    for writer in 0..10 {
        let own: Vec<_> = followed.iter().filter(|body| body.starts_with(&format!("{writer}-"))).collect();
        assert_eq!(own.len(), 50);
        assert!(own.iter().enumerate().all(|(n, body)| **body == format!("{writer}-{n}")), "a writer's order is kept");
    }
    let stats = place.hub.stats();
    assert_eq!(stats.posted, 500);
    assert!(stats.syncs < 250, "{stats:?}");
}

#[tokio::test]
async fn entries_of_other_programs_are_followed_with_and_without_notifications() {
    let place = place();
    let mut follower = place.bus.follow(None).await.unwrap();
    append(&place.path, &foreign("A", "one"));
    assert_eq!(next(&mut follower).await, "one");
    place.bus.post(draft("two")).await.unwrap();
    assert_eq!(next(&mut follower).await, "two");
    append(&place.path, &foreign("B", "three"));
    assert_eq!(next(&mut follower).await, "three");
    // A folder that does not exist yet cannot be watched.
    let late = place.path.with_file_name("later").join("BUS.md");
    let mut follower = place.hub.bus(&late).follow(None).await.unwrap();
    fs::create_dir(late.parent().unwrap()).unwrap();
    append(&late, &foreign("A", "late"));
    assert_eq!(next(&mut follower).await, "late");
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let place = place();
    let mut follower = place.bus.follow(None).await.unwrap();
    for n in 0..20 {
        place.bus.post(draft(&n.to_string())).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 20 {
        // Polled for the shortest time, so most calls are dropped in the middle.
        if let Ok(message) = tokio::time::timeout(Duration::from_micros(50), follower.next()).await {
            seen.push(message.unwrap().body);
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if let Ok(message) = tokio::time::timeout(Duration::from_millis(200), follower.next()).await {
                seen.push(message.unwrap().body);
            }
        }
    }
    assert_eq!(seen, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn missing_and_doubled_ids_get_ids_that_stay() {
    let place = place();
    append(&place.path, &foreign("A", "first"));
    append(&place.path, &foreign("A", "second"));
    append(&place.path, "---\ntype: FACT\nproject_id: p\n---\nthird\n");
    place.bus.post(draft("fourth")).await.unwrap();
    let page = place.bus.read_after(None, 10).await.unwrap();
    let ids: Vec<_> = page.messages.iter().map(|message| message.id.clone()).collect();
    assert_eq!(ids[0].as_str(), "A");
    assert!(ids[1].as_str().starts_with("X-") && ids[2].as_str().starts_with("X-"), "{ids:?}");
    let check = async |bus: &Bus| {
        let again = bus.read_after(None, 10).await.unwrap();
        assert_eq!(again.messages.iter().map(|message| message.id.clone()).collect::<Vec<_>>(), ids);
        for (id, expected) in ids.iter().zip(["second", "third", "fourth"]) {
            assert_eq!(bodies(&bus.read_after(Some(id.clone()), 1).await.unwrap()), [expected]);
        }
    };
    check(&place.bus).await;
    check(&BusHub::new(BusOptions::default()).bus(&place.path)).await;
    place.bus.rotate().await.unwrap();
    check(&place.bus).await;
    check(&BusHub::new(BusOptions::default()).bus(&place.path)).await;
}

#[tokio::test]
async fn cursors_and_followers_survive_rotation_and_restart() {
    let place = place_with(BusOptions { rotate_bytes: Some(2000), ..BusOptions::default() });
    let mut follower = place.bus.follow(None).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..60 {
        ids.push(place.bus.post(draft(&format!("m{n}"))).await.unwrap().id);
    }
    assert!(place.hub.stats().rotations >= 4);
    let expected: Vec<_> = (0..60).map(|n| format!("m{n}")).collect();
    for body in &expected {
        assert_eq!(&next(&mut follower).await, body);
    }
    assert_eq!(all(&place.bus).await, expected);
    let fresh = BusHub::new(BusOptions::default()).bus(&place.path);
    assert_eq!(all(&fresh).await, expected);
    for (n, id) in ids.iter().enumerate().take(59) {
        assert_eq!(bodies(&fresh.read_after(Some(id.clone()), 1).await.unwrap()), [format!("m{}", n + 1)]);
    }
    assert_eq!(bodies(&fresh.tail(25).await.unwrap()), &expected[35..]);
}

#[tokio::test]
async fn a_key_is_found_from_a_position_on_also_across_rotations() {
    let place = place();
    let empty = place.bus.position().await.unwrap();
    let keyed = |key: &str| MessageDraft { key: Some(key.to_owned()), ..draft("state") };
    let early = place.bus.post(keyed("k1")).await.unwrap().id;
    let mark = place.bus.position().await.unwrap();
    assert_eq!(place.bus.find_key_since(&mark, "k1").await.unwrap(), None);
    assert_eq!(place.bus.find_key_since(&empty, "k1").await.unwrap(), Some(early.clone()));
    place.bus.rotate().await.unwrap();
    assert_eq!(place.bus.position().await.unwrap(), mark);
    let late = place.bus.post(keyed("k2")).await.unwrap().id;
    let fresh = BusHub::new(BusOptions::default()).bus(&place.path);
    assert_eq!(fresh.find_key_since(&mark, "k2").await.unwrap(), Some(late));
    assert_eq!(fresh.find_key_since(&mark, "k1").await.unwrap(), None);
    assert_eq!(fresh.find_key_since(&empty, "k1").await.unwrap(), Some(early));
    assert!(fresh.read_after(None, 9).await.unwrap().messages.iter().all(|message| message.meta.is_empty()));
}

#[tokio::test]
async fn our_torn_end_is_moved_at_once_and_reported() {
    let place = place();
    place.bus.post(draft("whole")).await.unwrap();
    place.bus.post(draft("this one is cut\nin its second line")).await.unwrap();
    let text = fs::read(&place.path).unwrap();
    fs::write(&place.path, &text[..text.len() - 10]).unwrap();
    let bus = BusHub::new(BusOptions::default()).bus(&place.path);
    let saved = bus.repair().await.unwrap().expect("something was torn");
    assert!(fs::read_to_string(&saved).unwrap().contains("this one is cut"));
    bus.post(draft("next")).await.unwrap();
    let page = bus.read_after(None, 10).await.unwrap();
    assert_eq!(page.messages.len(), 3, "{page:?}");
    assert_eq!((page.messages[0].body.as_str(), page.messages[2].body.as_str()), ("whole", "next"));
    assert_eq!(page.messages[1].kind, "WARNING");
    assert_eq!((page.skipped, page.damaged), (0, 0));
}

#[tokio::test]
async fn a_foreign_torn_end_gets_its_grace_and_is_then_moved() {
    let grace = Duration::from_millis(300);
    let place = place_with(BusOptions { foreign_torn_grace: grace, ..BusOptions::default() });
    append(&place.path, &foreign("A", "one"));
    append(&place.path, foreign("B", "half").trim_end_matches("\n"));
    assert_eq!(bodies(&place.bus.read_after(None, 9).await.unwrap()), ["one"]);
    // In time: the other program ends its entry while a post waits.
    let (bus, path) = (place.bus.clone(), place.path.clone());
    let waiting = tokio::spawn(async move { bus.post(draft("three")).await });
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b" and half\n").unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(bodies(&place.bus.read_after(None, 9).await.unwrap()), ["one", "half and half", "three"]);
    // Not in time.
    append(&place.path, "---\nmsg_id: C\nty");
    let began = std::time::Instant::now();
    place.bus.post(draft("four")).await.unwrap();
    assert!(began.elapsed() >= grace / 2);
    let page = place.bus.read_after(None, 9).await.unwrap();
    assert_eq!(page.messages.len(), 5);
    assert_eq!((page.messages[3].kind.as_str(), page.messages[4].body.as_str()), ("WARNING", "four"));
    assert_eq!(place.hub.stats().torn, 1);
}

#[tokio::test]
async fn a_held_lock_delays_its_own_bus_alone_and_times_out() {
    let place = place_with(BusOptions { lock_timeout: Duration::from_millis(200), ..BusOptions::default() });
    place.bus.post(draft("one")).await.unwrap();
    let holder = File::open(&place.path).unwrap();
    holder.lock().unwrap();
    let bus = place.bus.clone();
    let blocked = tokio::spawn(async move { bus.post(draft("two")).await });
    let other = place.hub.bus(&place.path.with_file_name("OTHER.md"));
    other.post(draft("free")).await.unwrap();
    assert!(matches!(blocked.await.unwrap(), Err(BusError::LockTimeout { .. })));
    holder.unlock().unwrap();
    place.bus.post(draft("three")).await.unwrap();
    assert_eq!(all(&place.bus).await, ["one", "three"]);
    assert_eq!(place.hub.stats().lock_timeouts, 1);
}

#[tokio::test]
async fn entries_that_come_late_to_an_archive_are_read_by_all() {
    let place = place();
    place.bus.post(draft("one")).await.unwrap();
    let mut foreign_handle = OpenOptions::new().append(true).open(&place.path).unwrap();
    let mut follower = place.bus.follow(None).await.unwrap();
    assert_eq!(next(&mut follower).await, "one");
    place.bus.rotate().await.unwrap();
    place.bus.post(draft("two")).await.unwrap();
    assert_eq!(next(&mut follower).await, "two");
    foreign_handle.write_all(format!("\n{}", foreign("L", "late")).as_bytes()).unwrap();
    place.bus.post(draft("three")).await.unwrap();
    assert_eq!(next(&mut follower).await, "late");
    assert_eq!(next(&mut follower).await, "three");
    assert_eq!(all(&place.bus).await, ["one", "two", "late", "three"]);
}

#[tokio::test]
async fn a_rotation_by_another_program_loses_nothing() {
    let place = place();
    let mut follower = place.bus.follow(None).await.unwrap();
    let first = place.bus.post(draft("one")).await.unwrap().id;
    assert_eq!(next(&mut follower).await, "one");
    append(&place.path, &foreign("F", "two"));
    let archive = place.path.with_file_name("PROJECT-MESSAGE-BUS.md.20991231-000000.archived");
    fs::rename(&place.path, archive).unwrap();
    place.bus.post(draft("three")).await.unwrap();
    assert_eq!(next(&mut follower).await, "two");
    assert_eq!(next(&mut follower).await, "three");
    assert_eq!(bodies(&place.bus.read_after(Some(first), 9).await.unwrap()), ["two", "three"]);
}

#[tokio::test]
async fn a_file_that_was_rewritten_is_an_error_for_old_cursors_and_no_silent_replay() {
    let place = place();
    let mut follower = place.bus.follow(None).await.unwrap();
    let mut last = None;
    for n in 0..5 {
        last = Some(place.bus.post(draft(&n.to_string())).await.unwrap().id);
        assert_eq!(next(&mut follower).await, n.to_string());
    }
    fs::write(&place.path, foreign("N", "new")).unwrap();
    let failed = tokio::time::timeout(Duration::from_secs(20), follower.next()).await.unwrap();
    assert!(matches!(failed, Err(BusError::UnknownCursor(_))), "{failed:?}");
    assert!(matches!(place.bus.read_after(last, 1).await, Err(BusError::UnknownCursor(_))));
    assert_eq!(all(&place.bus).await, ["new"]);
}

#[tokio::test]
async fn ids_out_of_order_are_found_in_a_file_of_many_blocks() {
    let place = place();
    let mut text = String::new();
    let mut ids: Vec<String> = Vec::new();
    for n in 0..2000_u32 {
        // Every third id is older than its neighbours; some are of another form.
        let id = match n % 7 {
            3 => format!("own-{n}"),
            _ => format!("MSG-20260101-000000-{:09}-PID00001-{:04}", if n % 3 == 0 { n } else { n + 100 }, n % 10_000),
        };
        text.push_str(if n > 0 { "\n" } else { "" });
        text.push_str(&foreign(&id, &format!("body {n} {}", "x".repeat(40))));
        ids.push(id);
    }
    fs::write(&place.path, text).unwrap();
    for (n, id) in ids.iter().enumerate().step_by(13).take_while(|(n, _)| *n < 1999) {
        let page = place.bus.read_after(Some(id.parse().unwrap()), 1).await.unwrap();
        assert!(page.messages[0].body.starts_with(&format!("body {} ", n + 1)), "{id}");
    }
    assert_eq!(place.bus.tail(7).await.unwrap().messages.len(), 7);
    let mut sorted = ids.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), 2000, "the test's ids are unique");
}

#[tokio::test]
async fn the_same_path_is_the_same_bus() {
    let place = place();
    let again = place.hub.bus(&place.path.parent().unwrap().join("PROJECT-MESSAGE-BUS.md"));
    again.post(draft("x")).await.unwrap();
    assert_eq!(place.hub.stats().open, 1);
    assert_eq!(all(&place.bus).await, ["x"]);
}

/// Followers in the end get `expected`, and nothing more for a while.
async fn assert_followed(follower: &mut Follower, expected: &[&str]) {
    for body in expected {
        assert_eq!(&next(follower).await, body);
    }
    let more = tokio::time::timeout(Duration::from_millis(100), follower.next()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn a_late_entry_of_an_archive_reaches_followers_without_a_further_post() {
    for muted in [false, true] {
        let stat_interval = if muted { Duration::from_millis(50) } else { Duration::from_secs(3600) };
        let place = place_with(BusOptions { stat_interval, ..BusOptions::default() });
        if muted {
            place.bus.mute();
        }
        place.bus.post(draft("one")).await.unwrap();
        let mut late = OpenOptions::new().append(true).open(&place.path).unwrap();
        let mut follower = place.bus.follow_new().await.unwrap();
        place.bus.rotate().await.unwrap();
        place.bus.post(draft("two")).await.unwrap();
        assert_eq!(next(&mut follower).await, "two");
        late.write_all(format!("\n{}", foreign("L", "late")).as_bytes()).unwrap();
        assert_followed(&mut follower, &["late"]).await;
        late.write_all(format!("\n{}", foreign("M", "later")).as_bytes()).unwrap();
        assert_followed(&mut follower, &["later"]).await;
        assert_eq!(all(&place.bus).await, ["one", "two", "late", "later"]);
        let ids: Vec<_> = place.bus.tail(2).await.unwrap().messages.into_iter().map(|it| it.id.to_string()).collect();
        assert_eq!(ids, ["L", "M"], "what was moved keeps its id");
    }
}

#[tokio::test]
async fn a_late_entry_is_also_found_by_a_daemon_that_did_not_see_the_rotation() {
    let place = place();
    place.bus.post(draft("one")).await.unwrap();
    let mut late = OpenOptions::new().append(true).open(&place.path).unwrap();
    place.bus.rotate().await.unwrap();
    place.bus.post(draft("two")).await.unwrap();
    let fresh = BusHub::new(BusOptions::default()).bus(&place.path);
    let mut follower = fresh.follow_new().await.unwrap();
    late.write_all(format!("\n{}", foreign("L", "late")).as_bytes()).unwrap();
    assert_followed(&mut follower, &["late"]).await;
    assert_eq!(all(&fresh).await, ["one", "two", "late"]);
}

#[tokio::test]
async fn an_unfinished_late_entry_waits_for_its_end_and_is_saved_if_none_comes() {
    let options = BusOptions {
        foreign_torn_grace: Duration::from_millis(300),
        stat_interval: Duration::from_millis(50),
        ..BusOptions::default()
    };
    let place = place_with(options);
    place.bus.post(draft("one")).await.unwrap();
    let mut late = OpenOptions::new().append(true).open(&place.path).unwrap();
    let mut follower = place.bus.follow_new().await.unwrap();
    place.bus.rotate().await.unwrap();
    place.bus.post(draft("two")).await.unwrap();
    late.write_all(format!("\n{}", foreign("L", "half").trim_end()).as_bytes()).unwrap();
    assert_eq!(next(&mut follower).await, "two");
    late.write_all(b" and half\n").unwrap();
    assert_eq!(next(&mut follower).await, "half and half");
    late.write_all(format!("\n{}\n---\nmsg_id: T\nty", foreign("M", "whole")).as_bytes()).unwrap();
    let first = next(&mut follower).await;
    assert_eq!(first, "whole");
    assert!(next(&mut follower).await.contains("was moved to"));
    assert_eq!(place.hub.stats().torn, 1);
}

#[tokio::test]
async fn an_id_that_an_archive_holds_is_not_given_again() {
    let place = place();
    let ours = place.bus.post(draft("ours")).await.unwrap().id;
    append(&place.path, &foreign("A", "first"));
    append(&place.path, &foreign("MSG-20200101-000000-000000001-PID00001-0001", "old form"));
    place.bus.rotate().await.unwrap();
    place.bus.post(draft("between")).await.unwrap();
    append(&place.path, &foreign("B", "own"));
    place.bus.rotate().await.unwrap();
    for id in ["A", "B", ours.as_str(), "MSG-20200101-000000-000000001-PID00001-0001", "C"] {
        append(&place.path, &foreign(id, &format!("again {id}")));
    }
    let check = async |bus: &Bus, count: usize| {
        let messages = bus.read_after(None, 100).await.unwrap().messages;
        let mut ids: Vec<_> = messages.iter().map(|message| message.id.to_string()).collect();
        assert!(ids[5..9].iter().all(|id| id.starts_with("X-")), "{ids:?}");
        assert_eq!((ids[1].as_str(), ids[4].as_str(), ids[9].as_str()), ("A", "B", "C"));
        // Every message is a cursor of its own.
        for (n, message) in messages.iter().enumerate().take(messages.len() - 1) {
            let after = bus.read_after(Some(message.id.clone()), 1).await.unwrap();
            assert_eq!(after.messages[0].body, messages[n + 1].body);
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
        messages
    };
    let seen = check(&place.bus, 10).await;
    assert_eq!(check(&BusHub::new(BusOptions::default()).bus(&place.path), 10).await, seen);
    place.bus.rotate().await.unwrap();
    append(&place.path, &foreign("C", "C again"));
    check(&place.bus, 11).await;
    check(&BusHub::new(BusOptions::default()).bus(&place.path), 11).await;
}

#[tokio::test]
async fn a_recent_key_is_found_in_young_archives_and_an_old_one_is_not() {
    let place = place();
    let keyed = |key: &str| MessageDraft { key: Some(key.to_owned()), ..draft("state") };
    let day = Duration::from_secs(24 * 3600);
    let first = place.bus.post(keyed("k1")).await.unwrap().id;
    let old = "---\nmsg_id: MSG-20200101-000000-000000001-PID00001-0001\nts: 2020-01-01T00:00:00Z\ntype: FACT\n\
        project_id: p\nmeta:\n    x-key: k0\n---\nold\n";
    let archive = place.path.with_file_name("PROJECT-MESSAGE-BUS.md.20200101-000100.archived");
    fs::write(archive, old).unwrap();
    for round in 0..3 {
        for n in 0..200 {
            place.bus.post(keyed(&format!("fill-{round}-{n}-{}", "x".repeat(100)))).await.unwrap();
        }
        place.bus.rotate().await.unwrap();
    }
    let last = place.bus.post(keyed("k2")).await.unwrap().id;
    for bus in [place.bus.clone(), BusHub::new(BusOptions::default()).bus(&place.path)] {
        assert_eq!(bus.find_recent_key(day, "k1").await.unwrap(), Some(first.clone()));
        assert_eq!(bus.find_recent_key(day, "k2").await.unwrap(), Some(last.clone()));
        assert_eq!(bus.find_recent_key(day, "k0").await.unwrap(), None);
        assert_eq!(bus.find_recent_key(day, "k3").await.unwrap(), None);
        assert!(bus.find_key_since(&Position::default(), "k0").await.unwrap().is_some());
    }
}

/// Not a test: `cargo test -p conductor-core --lib key_of_a_request -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures with a file of 1 GB"]
async fn the_key_of_a_request_costs_little_beside_a_large_archive() {
    let place = place_with(BusOptions { durability: Durability::None, rotate_bytes: None, ..BusOptions::default() });
    let body = "x".repeat(1000);
    while fs::metadata(&place.path).map_or(0, |meta| meta.len()) < 1 << 30 {
        let drafts = (0..1000).map(|_| MessageDraft { key: Some("k".into()), ..draft(&body) }).collect();
        place.bus.post_many(drafts).await.unwrap();
    }
    place.bus.rotate().await.unwrap();
    let young = place.path.with_file_name("PROJECT-MESSAGE-BUS.md.20200101-000100.archived");
    for name in ["young", "old"] {
        if name == "old" {
            let archive = archive::list(&place.path).unwrap().pop().unwrap();
            fs::rename(archive, &young).unwrap();
        }
        let bus = BusHub::new(BusOptions::default()).bus(&place.path);
        bus.post(draft("one")).await.unwrap();
        for round in 0..3 {
            let began = std::time::Instant::now();
            assert_eq!(bus.find_key_since(&Position::default(), "none").await.unwrap(), None);
            let whole = began.elapsed();
            let began = std::time::Instant::now();
            assert_eq!(bus.find_recent_key(Duration::from_secs(86_400), "none").await.unwrap(), None);
            println!("{name} archive, call {round}: whole bus {whole:?}, recent {:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn who_follows_what_is_new_is_not_shown_again_what_a_rewritten_file_held() {
    let replace = |path: &Path, text: &str| {
        let other = path.with_file_name("other");
        fs::write(&other, text).unwrap();
        fs::rename(&other, path).unwrap();
    };
    let rewrite = |path: &Path, text: &str| fs::write(path, text).unwrap();
    let ways: [fn(&Path, &str); 2] = [replace, rewrite];
    for way in ways {
        let place = place();
        for n in 0..5 {
            place.bus.post(draft(&n.to_string())).await.unwrap();
        }
        append(&place.path, &foreign("A", "foreign"));
        let mut follower = place.bus.follow_new().await.unwrap();
        let text = fs::read_to_string(&place.path).unwrap();
        // Shorter: the last is gone, one is new.
        let (shorter, _) = text.split_at(text.match_indices("\n---\nmsg_id: ").nth(2).unwrap().0);
        way(&place.path, &format!("{shorter}\n{}", foreign("N", "new")));
        assert_followed(&mut follower, &["new"]).await;
        place.bus.post(draft("then")).await.unwrap();
        assert_eq!(next(&mut follower).await, "then");
        // Longer, with all that was there at first.
        let text = fs::read_to_string(&place.path).unwrap();
        let changed = text.replace("type: FACT", "type: CHANGED");
        way(&place.path, &format!("{changed}\n{}", foreign("O", "longer")));
        assert_followed(&mut follower, &["longer"]).await;
        place.bus.post(draft("at last")).await.unwrap();
        assert_followed(&mut follower, &["at last"]).await;
        assert_eq!(place.hub.stats().rewritten, 2);
    }
}

#[tokio::test]
async fn who_follows_from_a_cursor_goes_on_in_a_file_that_was_replaced_by_a_copy() {
    let place = place();
    let first = place.bus.post(draft("one")).await.unwrap().id;
    place.bus.post(draft("two")).await.unwrap();
    let mut follower = place.bus.follow(Some(first)).await.unwrap();
    assert_eq!(next(&mut follower).await, "two");
    let copy = place.path.with_file_name("copy");
    fs::copy(&place.path, &copy).unwrap();
    append(&copy, &foreign("A", "three"));
    fs::rename(&copy, &place.path).unwrap();
    assert_followed(&mut follower, &["three"]).await;
    // Removed, and made anew by the next post.
    fs::remove_file(&place.path).unwrap();
    place.bus.post(draft("four")).await.unwrap();
    assert_followed(&mut follower, &["four"]).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_when_notifications_overflow() {
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let place = place_with(BusOptions { stat_interval: Duration::from_secs(3600), ..BusOptions::default() });
    place.bus.post(draft("one")).await.unwrap();
    let mut follower = place.bus.follow_new().await.unwrap();
    {
        let (bus, path) = (place.bus.clone(), place.path.clone());
        let overflow = move || {
            let held = bus.hold_notifications();
            // Two files in turn, since equal notifications in a row are one.
            let mut files = ["a", "b"].map(|name| File::create(path.with_file_name(name)).unwrap());
            for n in 0..limit + 1000 {
                files[n % 2].write_all(b"x").unwrap();
            }
            // Its own notification has no room any more.
            append(&path, &foreign("A", "foreign"));
            drop(held);
        };
        tokio::task::spawn_blocking(overflow).await.unwrap();
    }
    assert_followed(&mut follower, &["foreign"]).await;
    append(&place.path, &foreign("B", "afterwards"));
    assert_followed(&mut follower, &["afterwards"]).await;
}

#[tokio::test]
async fn without_notifications_a_look_each_interval_finds_everything() {
    let place = place_with(BusOptions { stat_interval: Duration::from_millis(50), ..BusOptions::default() });
    place.bus.mute();
    let mut follower = place.bus.follow(None).await.unwrap();
    for n in 0..3 {
        append(&place.path, &foreign(&format!("A{n}"), &n.to_string()));
        assert_eq!(next(&mut follower).await, n.to_string());
    }
    let archive = place.path.with_file_name("PROJECT-MESSAGE-BUS.md.20991231-000000.archived");
    fs::rename(&place.path, archive).unwrap();
    append(&place.path, &foreign("B", "in the next file"));
    assert_followed(&mut follower, &["in the next file"]).await;
}
