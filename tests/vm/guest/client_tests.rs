//! The control client against a server of a few lines: pieces, silence, errors, a closed connection.

use super::supervisor::Supervisor;
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// Calls `Status` of a server that waits for the request, sends these pieces, and then waits for the
/// client to go.
fn served(pieces: Vec<Vec<u8>>, hang_up: bool) -> Result<serde_json::Value, String> {
    let (client, mut server) = UnixStream::pair().unwrap();
    let serving = thread::spawn(move || {
        let mut request = [0; 4096];
        let length = server.read(&mut request).unwrap();
        assert_eq!(request[length - 1], 0, "a message ends with a NUL");
        for piece in pieces {
            server.write_all(&piece).unwrap();
        }
        if !hang_up {
            let _ = server.read(&mut request);
        }
    });
    let deadline = Instant::now() + Duration::from_millis(300);
    let answer = Supervisor::over(client).call("Status", &json!({}), deadline);
    serving.join().unwrap();
    answer
}

#[test]
fn answers_and_their_lack() {
    let check = |pieces: &[&str], hang_up: bool, expected: Result<serde_json::Value, &str>| {
        let got = served(pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect(), hang_up);
        match (&got, &expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(part)) => assert!(got.contains(part), "{got:?} has no {part:?}"),
            _ => panic!("{pieces:?}: {got:?} instead of {expected:?}"),
        }
    };
    check(&["{\"parameters\":{\"a\":1}}\0"], false, Ok(json!({"a": 1})));
    check(&["{\"param", "eters\":{\"a\"", ":1}}", "\0"], false, Ok(json!({"a": 1})));
    check(&["{}\0{}\0"], false, Ok(json!(null)));
    check(
        &["{\"error\":\"org.x.NoSuchUnit\",\"parameters\":{\"name\":\"q\"}}\0"],
        false,
        Err("org.x.NoSuchUnit"),
    );
    check(&["{\"parameters\""], true, Err("closed"));
    check(&["{\"parameters\""], false, Err("nothing by the deadline"));
    check(&[], false, Err("Status: nothing by the deadline"));
    check(&["garbage\0"], false, Err("not JSON"));
}

#[test]
fn a_watch_follows_until_its_question_is_answered() {
    let (client, mut server) = UnixStream::pair().unwrap();
    for generation in 1..=3_u64 {
        let snapshot = lifeboat::engine::snapshot::Snapshot {
            generation,
            ..lifeboat::engine::snapshot::Snapshot::default()
        };
        let reply = json!({"parameters": {"snapshot": snapshot}, "continues": true});
        server.write_all(format!("{reply}\0").as_bytes()).unwrap();
    }
    let deadline = Instant::now() + Duration::from_millis(300);
    let mut seen = Vec::new();
    let found = Supervisor::over(client).watch("x", deadline, |snapshot| {
        seen.push(snapshot.generation);
        (snapshot.generation == 2).then_some("two")
    });
    assert_eq!((found, seen), (Ok("two"), vec![1, 2]));
    let (client, _server) = UnixStream::pair().unwrap();
    let none = Supervisor::over(client).watch("x", Instant::now() + Duration::from_millis(20), |_| Some(()));
    assert_eq!(none, Err("Watch: nothing by the deadline".into()));
}
