//! Round trips, hostile bytes, and what becomes of them.

use super::codec::{Inbox, TooLong, encode_call, encode_error, encode_reply};
use super::reply::{self, ErrorReply, OutcomeReply, Received, encode_outcome};
use super::request::{Call, Refusal, Request, parse};
use crate::engine::action::Reply;
use crate::engine::event::{ShutdownKind, Verb};
use proptest::prelude::*;

fn ask(verb: Verb, name: &str) -> Request {
    Request::Ask { verb, name: name.into() }
}

fn refused(error: ErrorReply) -> Result<Call, Refusal> {
    Err(Refusal::Answer(error))
}

fn wrong(parameter: &str) -> Result<Call, Refusal> {
    refused(ErrorReply::InvalidParameter { parameter: parameter.into() })
}

fn check(message: &str, expected: Result<Call, Refusal>) {
    assert_eq!(parse(message.as_bytes()), expected, "{message}");
}

#[test]
fn good_calls() {
    let start = Ok(Call::from(ask(Verb::Start, "bus")));
    check(r#"{"method":"org.lifeboat.Supervisor.Start","parameters":{"name":"bus"}}"#, start.clone());
    check(
        r#" {"parameters":{"unknown":[{}],"name":"bus","x":1.5},"method":"org.lifeboat.Supervisor.Start","y":0}"#,
        start,
    );
    check(r#"{"method":"org.lifeboat.Supervisor.Status"}"#, Ok(Request::Status.into()));
    check(r#"{"method":"org.lifeboat.Supervisor.Status","parameters":null}"#, Ok(Request::Status.into()));
    check(
        r#"{"method":"org.lifeboat.Supervisor.Watch","parameters":{},"more":true}"#,
        Ok(Call { request: Request::Watch, more: true, oneway: false }),
    );
    check(
        r#"{"method":"org.lifeboat.Supervisor.Stop","parameters":{"name":"\u00fc\n"},"oneway":true}"#,
        Ok(Call { request: ask(Verb::Stop, "ü\n"), more: false, oneway: true }),
    );
    check(
        r#"{"method":"org.lifeboat.Supervisor.Shutdown","parameters":{"how":"Halt"}}"#,
        Ok(Request::Shutdown { how: ShutdownKind::Halt }.into()),
    );
}

#[test]
fn faulty_calls_name_what_is_wrong() {
    check(r#"{"method":"org.lifeboat.Supervisor.Start"}"#, wrong("name"));
    check(r#"{"method":"org.lifeboat.Supervisor.Start","parameters":{"name":null}}"#, wrong("name"));
    for value in ["1", "-1", "1.5", "true", "[1,[2]]", r#"{"a":{}}"#] {
        let message =
            format!(r#"{{"method":"org.lifeboat.Supervisor.Start","parameters":{{"name":{value}}}}}"#);
        check(&message, wrong("name"));
    }
    check(r#"{"method":"org.lifeboat.Supervisor.Shutdown","parameters":{"how":"reboot"}}"#, wrong("how"));
    check(
        r#"{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"name":"x"}}"#,
        wrong("interface"),
    );
    check(r#"{"method":"org.lifeboat.Supervisor.Watch"}"#, refused(ErrorReply::ExpectedMore {}));
    check(
        r#"{"method":"org.lifeboat.Supervisor.status"}"#,
        refused(ErrorReply::MethodNotFound { method: "org.lifeboat.Supervisor.status".into() }),
    );
    check(
        r#"{"method":"org.example.Status"}"#,
        refused(ErrorReply::InterfaceNotFound { interface: "org.example".into() }),
    );
    check(r#"{"method":""}"#, refused(ErrorReply::InterfaceNotFound { interface: String::new() }));
    check(r#"{"method":"org.lifeboat.Supervisor.Start","oneway":true}"#, Err(Refusal::Silent));
}

#[test]
fn what_is_no_call_gets_no_answer() {
    let deep = format!(r#"{{"method":"a","parameters":{{"x":{}"#, "[".repeat(60_000));
    let cases = [
        "",
        " ",
        "{",
        "null",
        "{}",
        "[]",
        r#"["org.lifeboat.Supervisor.Status"]"#,
        r#"{"method":1}"#,
        r#"{"method":"org.lifeboat.Supervisor.Status","more":"yes"}"#,
        r#"{"method":"org.lifeboat.Supervisor.Start","parameters":["bus"]}"#,
        r#"{"method":"org.lifeboat.Supervisor.Status"} {}"#,
        r#"{"method":"a","method":"b"}"#,
        r#"{"method":"\ud800"}"#,
        "GET / HTTP/1.1\r\n",
        &deep,
    ];
    for case in cases {
        check(case, Err(Refusal::NotACall));
    }
    assert_eq!(parse(b"{\"method\":\"\xff\"}"), Err(Refusal::NotACall));
}

#[test]
fn a_long_name_is_not_sent_back_whole() {
    let message = format!(r#"{{"method":"{}"}}"#, "ü".repeat(10_000));
    let Err(Refusal::Answer(ErrorReply::InterfaceNotFound { interface })) = parse(message.as_bytes()) else {
        panic!("an unknown interface");
    };
    assert_eq!(interface, "ü".repeat(127));
}

/// Takes all messages out of an inbox.
fn drain(inbox: &mut Inbox) -> Result<Vec<Vec<u8>>, TooLong> {
    let mut messages = vec![];
    while let Some(message) = inbox.next_message()? {
        messages.push(message.to_vec());
    }
    Ok(messages)
}

#[test]
fn messages_come_whole() {
    let mut inbox = Inbox::new(8);
    assert_eq!(drain(&mut inbox), Ok(vec![]));
    assert_eq!(inbox.feed(b"ab"), 2);
    assert_eq!(drain(&mut inbox), Ok(vec![]));
    assert_eq!(inbox.feed(b"c\0\0de"), 5);
    assert_eq!(drain(&mut inbox), Ok(vec![b"abc".to_vec(), vec![]]));
    assert_eq!(inbox.feed(b"\0"), 1);
    assert_eq!(drain(&mut inbox), Ok(vec![b"de".to_vec()]));
    assert_eq!(inbox.room(), 9);
}

#[test]
fn the_limit_is_exact() {
    let mut inbox = Inbox::new(4);
    assert_eq!(inbox.feed(b"abcd\0"), 5);
    assert_eq!(drain(&mut inbox), Ok(vec![b"abcd".to_vec()]));
    assert_eq!(inbox.feed(b"abcde\0"), 5, "no more than limit and NUL is held");
    assert_eq!(drain(&mut inbox), Err(TooLong { limit_bytes: 4 }));
    assert_eq!(inbox.feed(b"\0"), 0);
    assert_eq!(drain(&mut inbox), Err(TooLong { limit_bytes: 4 }), "and it stays so");
}

#[test]
fn an_outcome_or_an_error() {
    let text = |reply| {
        let mut out = vec![];
        encode_outcome(&mut out, reply).expect("it serializes");
        String::from_utf8(out).expect("JSON is UTF-8")
    };
    assert_eq!(text(Reply::Started), "{\"parameters\":{\"outcome\":\"Started\"}}\0");
    assert_eq!(
        text(Reply::TooManyWaiting),
        "{\"error\":\"org.lifeboat.Supervisor.Busy\",\"parameters\":{}}\0"
    );
    assert_eq!(
        text(Reply::ShuttingDown),
        "{\"error\":\"org.lifeboat.Supervisor.ShuttingDown\",\"parameters\":{}}\0"
    );
}

#[test]
fn errors_round_trip() {
    let errors = [
        ErrorReply::NoSuchUnit { name: "a\0b".into() },
        ErrorReply::NotPermitted {},
        ErrorReply::InvalidParameter { parameter: "name".into() },
        ErrorReply::ExpectedMore {},
    ];
    for error in errors {
        let mut out = vec![];
        encode_error(&mut out, &error).expect("it serializes");
        assert_eq!(out.iter().filter(|byte| **byte == 0).count(), 1, "only the last byte is NUL");
        out.pop();
        match reply::decode::<OutcomeReply>(&out) {
            Ok(Received::Refused(got)) => assert_eq!(got, error),
            other => panic!("{other:?}"),
        }
    }
    let foreign = br#"{"error":"org.example.Odd","parameters":{}}"#;
    assert!(
        matches!(reply::decode::<OutcomeReply>(foreign), Ok(Received::Unknown(name)) if name == "org.example.Odd")
    );
}

#[test]
fn continues_is_only_there_when_true() {
    let mut out = vec![];
    let parameters = OutcomeReply { outcome: Reply::Stopped };
    encode_reply(&mut out, &parameters, true).expect("it serializes");
    encode_reply(&mut out, &parameters, false).expect("it serializes");
    let expected = "{\"parameters\":{\"outcome\":\"Stopped\"},\"continues\":true}\0\
                    {\"parameters\":{\"outcome\":\"Stopped\"}}\0";
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

/// Bytes that look like a call, with something wrong in most of them.
fn nearly_a_call() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(":"),
        Just(","),
        Just("\"method\""),
        Just("\"parameters\""),
        Just("\"name\""),
        Just("\"how\""),
        Just("\"more\""),
        Just("true"),
        Just("null"),
        Just("1e999"),
        Just("\"org.lifeboat.Supervisor.Start\""),
        Just("\"\\ud800\""),
        Just("\u{0}"),
        Just(" "),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..512), nearly_a_call()]) {
        let _ = parse(&bytes);
        let _ = reply::decode::<OutcomeReply>(&bytes);
    }

    #[test]
    fn calls_round_trip(name in any::<String>(), verb in 0..7_usize, more: bool, oneway: bool) {
        let verbs =
            [Verb::Start, Verb::Stop, Verb::Restart, Verb::Reload, Verb::Drill, Verb::DrillToTheEnd];
        let request = match verbs.get(verb) {
            Some(verb) => ask(*verb, &name),
            None => Request::Why { name },
        };
        let call = Call { request, more, oneway };
        let mut out = vec![];
        encode_call(&mut out, &call).expect("it serializes");
        prop_assert_eq!(out.pop(), Some(0));
        prop_assert!(!out.contains(&0));
        prop_assert_eq!(parse(&out), Ok(call));
    }

    /// However the stream is cut, the same messages come out, and no more than the limit is held.
    #[test]
    fn cuts_do_not_matter(
        messages in prop::collection::vec(prop::collection::vec(1..=255_u8, 0..16), 0..12),
        cuts in prop::collection::vec(1..9_usize, 1..12),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|m| m.iter().copied().chain([0])).collect();
        let mut inbox = Inbox::new(16);
        let mut got = vec![];
        let mut at = 0;
        for cut in cuts.iter().cycle() {
            let Some(rest) = stream.get(at..).filter(|rest| !rest.is_empty()) else { break };
            at += inbox.feed(rest.get(..*cut).unwrap_or(rest));
            prop_assert!(inbox.room() <= 17);
            got.extend(drain(&mut inbox).expect("no message is too long"));
        }
        prop_assert_eq!(got, messages);
    }
}
