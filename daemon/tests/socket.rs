//! The daemon's socket against real files and connections.

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use conductord::socket::{ListenError, Listener, MAX_CONNECTIONS_OF_PROCESS};
use tempfile::tempdir;

#[test]
fn the_socket_and_its_folder_are_private_and_both_end_with_the_listener() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("a/b/conductor.sock");
    let listener = Listener::bind(&path, None).expect("free");
    let mode = |path: &std::path::Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().expect("a folder")), 0o700);
    assert_eq!(listener.path(), path);
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_stale_socket_is_replaced() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("s.sock");
    drop(UnixListener::bind(&path).expect("free"));
    assert!(path.exists(), "its file stays");
    let listener = Listener::bind(&path, None).expect("replaced");
    UnixStream::connect(&path).expect("somebody listens");
    drop(listener);
}

#[test]
fn a_socket_in_use_is_left_alone() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("s.sock");
    let other = UnixListener::bind(&path).expect("free");
    let error = Listener::bind(&path, None).expect_err("in use");
    assert!(matches!(error, ListenError::InUse(_)), "{error}");
    assert!(error.to_string().ends_with("is in use by another program"), "{error}");
    assert!(path.exists());
    drop(other);
    let first = Listener::bind(&path, None).expect("stale by now");
    assert!(matches!(Listener::bind(&path, None), Err(ListenError::InUse(_))), "also by another daemon");
    drop(first);
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("notes.txt");
    std::fs::write(&path, "keep").expect("written");
    assert!(matches!(Listener::bind(&path, None), Err(ListenError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "keep");
}

#[test]
fn a_path_that_is_too_long_is_refused_with_the_limit_named() {
    let path = format!("/tmp/{}", "a".repeat(99));
    let error = Listener::bind(path.as_ref(), None).expect_err("104 bytes").to_string();
    assert!(error.contains("103"), "{error}");
}

#[tokio::test]
async fn garbage_ends_its_own_connection_alone() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("s.sock");
    let _server = common::serve_health(&path);
    let target = path.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let mut client = UnixStream::connect(target).expect("listens");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        client.write_all(&[0xff; 100]).expect("sent");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).map(|_| ())
    });
    answer.await.expect("no panic").or_else(reset_is_an_end).expect("the server ends it");
    check(&path).await;
}

#[tokio::test]
async fn a_process_that_floods_the_socket_is_refused_and_served_again_when_it_stops() {
    let home = tempdir().expect("a folder");
    let path = home.path().join("s.sock");
    let _server = common::serve_health(&path);
    let target = path.clone();
    let flood = tokio::task::spawn_blocking(move || {
        let open: Vec<_> =
            (0..MAX_CONNECTIONS_OF_PROCESS).map(|_| UnixStream::connect(&target).expect("listens")).collect();
        let mut further = UnixStream::connect(&target).expect("listens");
        further.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let ended = further.read(&mut [0; 1]).or_else(|error| reset_is_an_end(error).map(|()| 0));
        (open, ended.expect("an end and no timeout"))
    });
    let (open, read) = flood.await.expect("no panic");
    assert_eq!(read, 0, "one more than allowed is closed");
    drop(open);
    check(&path).await;
}

fn reset_is_an_end(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::ConnectionReset { Ok(()) } else { Err(error) }
}

/// Waits until a call is answered.
async fn check(path: &std::path::Path) {
    let mut tries = 0;
    loop {
        let (channel, _) = conductor_proto::client::connect(&[path.to_owned()]).await.expect("connects");
        let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
        match client.check(tonic_health::pb::HealthCheckRequest::default()).await {
            Ok(_) => return,
            // The connections that were dropped are still being noticed.
            Err(error) if tries == 100 => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        tries += 1;
    }
}
