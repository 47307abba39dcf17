//! The control socket under honest and hostile clients: nothing is lost, nothing spins, nothing grows.

use crate::rig::{Cgroups, Place, Rig};
use lifeboat::engine::event::Verb;
use lifeboat::engine::snapshot::StateName;
use lifeboat::wire::interface::Info;
use lifeboat::wire::reply::StatusReply;
use lifeboat::wire::request::{Call, Request};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::io::Write;
use std::net::Shutdown;

/// A unit that takes a while to stop: until the timeout of its stop. It is up when its trap is set.
fn deaf(stop_timeout: &str) -> Rig {
    let place = Place::new(Cgroups::None);
    let deaf = place.path("deaf");
    let script = format!("trap '' TERM; : > {}; while :; do sleep 1000; done", deaf.display());
    let rest = format!("ready: Path({deaf:?}), stop: (timeout: {stop_timeout:?})");
    place.shell("deaf", &script, &rest).start()
}

fn ask(verb: Verb, name: &str) -> Call {
    Request::Ask { verb, name: name.to_owned() }.into()
}

#[test]
fn a_client_that_leaves_before_its_answer_costs_nothing() {
    let rig = deaf("1m");
    rig.running("deaf");
    let files = rig.open_files();
    let mut peer = rig.connect();
    peer.ask(&ask(Verb::Stop, "deaf"));
    rig.wait_until("deaf", |unit| unit.state == StateName::Stopping);
    drop(peer);
    rig.check_quiet("the client has left");
    assert_eq!(rig.open_files(), files);
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let rig = deaf("2s");
    rig.running("deaf");
    let mut peer = rig.connect();
    peer.ask(&ask(Verb::Stop, "deaf"));
    peer.stream.shutdown(Shutdown::Write).expect("a half-closed connection");
    rig.wait_until("deaf", |unit| unit.state == StateName::Stopping);
    rig.check_quiet("it waits");
    let _: lifeboat::wire::reply::OutcomeReply = peer.hear();
    assert!(peer.is_closed());
}

#[test]
fn calls_sent_together_are_all_answered() {
    let rig = Place::new(Cgroups::None).unit("a", "(command: [\"/bin/sleep\", \"1000\"])").start();
    rig.running("a");
    let mut peer = rig.connect();
    let calls = [
        Request::GetInfo.into(),
        ask(Verb::Stop, "a"),
        Request::GetInfo.into(),
        ask(Verb::Start, "a"),
        Request::Status.into(),
    ];
    peer.ask_all(&calls);
    let _: Info = peer.hear();
    let _: lifeboat::wire::reply::OutcomeReply = peer.hear();
    let _: Info = peer.hear();
    let _: lifeboat::wire::reply::OutcomeReply = peer.hear();
    let status: StatusReply<'static> = peer.hear();
    assert_eq!(status.snapshot.units[0].state, StateName::Running);
    // More than the inbox holds at once.
    let many = vec![Call::from(Request::GetInfo); 3_000];
    let mut writer = crate::rig::Peer { stream: peer.stream.try_clone().expect("a copy"), ..rig.connect() };
    let thread = std::thread::spawn(move || writer.ask_all(&many));
    for _ in 0..3_000 {
        let _: Info = peer.hear();
    }
    thread.join().expect("all is written");
    rig.check_quiet("all is answered");
}

#[test]
fn one_way_calls_are_done_although_the_client_has_left() {
    let rig = Place::new(Cgroups::None)
        .unit("a", "(command: [\"/bin/sleep\", \"1000\"])")
        .unit("b", "(command: [\"/bin/sleep\", \"1000\"])")
        .start();
    rig.running("a");
    rig.running("b");
    let mut peer = rig.connect();
    let stop = |name| Call { oneway: true, ..ask(Verb::Stop, name) };
    peer.ask_all(&[stop("a"), stop("b")]);
    drop(peer);
    rig.wait_until("a", |unit| unit.state == StateName::Stopped);
    rig.wait_until("b", |unit| unit.state == StateName::Stopped);
}

#[test]
fn a_watcher_that_does_not_read_or_leaves_costs_nothing() {
    let rig = Place::new(Cgroups::None).unit("a", "(command: [\"/bin/sleep\", \"1000\"])").start();
    rig.running("a");
    let files = rig.open_files();
    let mut lazy = rig.connect();
    lazy.ask(&Request::Watch.into());
    for _ in 0..300 {
        assert_eq!(rig.ctl(&["restart", "a"]).code, Some(0));
    }
    rig.check_quiet("it does not read");
    drop(lazy);
    rig.check_quiet("it has left");
    assert_eq!(rig.open_files(), files);
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let rig = Place::new(Cgroups::None).unit("a", "(command: [\"/bin/sleep\", \"1000\"])").start();
    // Else the pipe of the start may still be open.
    rig.running("a");
    rig.check_quiet("a runs");
    let files = rig.open_files();
    for garbage in
        [&b"\0"[..], b"{}\0", b"GET / HTTP/1.1\r\n\r\n\0", &[b'x'; 70_000], b"[[[[[[[[\0", b"\xff\xfe\0"]
    {
        let mut peer = rig.connect();
        // lifeboat may close before all is written.
        let _ = peer.stream.write_all(garbage);
        assert!(peer.is_closed(), "{:?}", garbage.get(..10));
    }
    let mut watcher = rig.connect();
    watcher.ask(&Request::Watch.into());
    let _ = watcher.stream.write_all(&[b'x'; 200_000]);
    assert!(watcher.is_closed());
    let mut half = rig.connect();
    half.stream.write_all(b"{\"method\": \"org.var").expect("lifeboat reads");
    rig.check_quiet("half a request");
    drop(half);
    rig.check_quiet("half a request, and gone");
    assert_eq!(rig.open_files(), files);
}

#[test]
fn a_thousand_connections_leave_room_for_one_more() {
    let rig = Place::new(Cgroups::None).unit("a", "(command: [\"/bin/sleep\", \"1000\"])").start();
    // Else the pipe of the start may still be open.
    rig.running("a");
    rig.check_quiet("a runs");
    let files = rig.open_files();
    // The test's own end of them; the usual limit is 1,024 for all tests of this program together.
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("a limit");
    let peers: Vec<_> = (0..1_000).map(|_| rig.connect()).collect();
    rig.ctl(&["restart", "a"]).check("a: stopped\na: started\n", 0);
    rig.check_quiet("a thousand connections");
    assert!(rig.open_files() < files + 40);
    drop(peers);
    rig.check_quiet("they have left");
    assert_eq!(rig.open_files(), files);
}

#[test]
fn without_free_descriptors_it_neither_spins_nor_dies() {
    let rig = Place::new(Cgroups::None).unit("a", "(command: [\"/bin/sleep\", \"1000\"])").start();
    rig.running("a");
    let pid = Pid::from_raw(i32::try_from(rig.pid()).expect("a pid"));
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = |current| prlimit(pid, Resource::Nofile, Rlimit { current, maximum });
    let before = limit(u64::try_from(rig.open_files()).ok()).expect("a limit");
    // The numbers of open files may have gaps, which the first ones fill.
    let mut waiting: Vec<_> = (0..20).map(|_| rig.connect()).collect();
    rig.check_calm("no descriptor is free");
    limit(before.current).expect("the old limit");
    for peer in &mut waiting {
        peer.ask(&Request::GetInfo.into());
        let _: Info = peer.hear();
    }
    rig.check_quiet("descriptors are free again");
}
