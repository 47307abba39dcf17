//! The interface description and the types must say the same: this reads the description and holds real messages
//! against it. Tests only.

use super::interface::{SERVICE, SUPERVISOR, description, info};
use super::reply::{ChangeReply, ChangesReply, Difference, Effect, ErrorReply, StatusReply, WhyReply};
use super::request::{Call, ChangeVerb, Request, parse};
use crate::engine::action::{LimitAnswer, LimitOutcome, Reply};
use crate::engine::event::{Below, CommandKind, Exit, ShutdownKind, SpawnStage, Verb};
use crate::engine::policy::{Class, Guard, Kind};
use crate::engine::setting::{Limit, Setting};
use crate::engine::snapshot::{Bound, Desired, Snapshot, StateName, Verdict};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// A type of the description.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    Int,
    Text,
    Bool,
    /// Anything: what the description cannot express.
    Object,
    Named(String),
    Maybe(Box<Type>),
    List(Box<Type>),
    Struct(BTreeMap<String, Type>),
    Enum(BTreeSet<String>),
}

#[derive(Debug, Default)]
struct Interface {
    name: String,
    types: BTreeMap<String, Type>,
    methods: BTreeMap<String, (Type, Type)>,
    errors: BTreeMap<String, Type>,
}

/// Words and single signs, without comments.
struct Tokens(std::vec::IntoIter<String>);

impl Tokens {
    fn of(text: &str) -> Self {
        let mut tokens = vec![];
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut word = String::new();
            for c in line.chars().chain([' ']) {
                if c.is_alphanumeric() || "._>-".contains(c) {
                    word.push(c);
                    continue;
                }
                if !word.is_empty() {
                    tokens.push(std::mem::take(&mut word));
                }
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
            }
        }
        Self(tokens.into_iter())
    }

    fn next(&mut self) -> String {
        self.0.next().expect("the description goes on")
    }

    fn is_next(&self, sign: &str) -> bool {
        self.0.as_slice().first().is_some_and(|token| token == sign)
    }

    fn expect(&mut self, sign: &str) {
        assert_eq!(self.next(), sign);
    }
}

fn interface(name: &str) -> Interface {
    let mut tokens = Tokens::of(description(name).expect("an interface of ours"));
    let mut interface = Interface::default();
    tokens.expect("interface");
    interface.name = tokens.next();
    while !tokens.0.as_slice().is_empty() {
        let keyword = tokens.next();
        let name = tokens.next();
        let first = typed(&mut tokens);
        let fresh = match keyword.as_str() {
            "type" => interface.types.insert(name.clone(), first).is_none(),
            "error" => interface.errors.insert(name.clone(), first).is_none(),
            "method" => {
                tokens.expect("->");
                interface.methods.insert(name.clone(), (first, typed(&mut tokens))).is_none()
            }
            other => panic!("{other} is not a keyword"),
        };
        assert!(fresh, "{name} stands there twice");
        assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
    }
    interface
}

fn typed(tokens: &mut Tokens) -> Type {
    match tokens.next().as_str() {
        "?" => Type::Maybe(Box::new(typed(tokens))),
        "[" => {
            tokens.expect("]");
            Type::List(Box::new(typed(tokens)))
        }
        "int" => Type::Int,
        "string" => Type::Text,
        "bool" => Type::Bool,
        "object" => Type::Object,
        "(" => fields(tokens),
        name => Type::Named(name.to_owned()),
    }
}

/// A struct or an enum; the opening parenthesis is behind us.
fn fields(tokens: &mut Tokens) -> Type {
    let (mut members, mut words) = (BTreeMap::new(), BTreeSet::new());
    while !tokens.is_next(")") {
        let name = tokens.next();
        // varlink.org: field names have no hyphen, and no underscore at their ends or in a row.
        assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()), "{name}");
        assert!(!name.contains('-') && !name.contains("__") && !name.ends_with('_'), "{name}");
        if tokens.is_next(":") {
            tokens.expect(":");
            assert!(members.insert(name.clone(), typed(tokens)).is_none(), "{name} twice");
        } else {
            assert!(words.insert(name.clone()), "{name} twice");
        }
        if !tokens.is_next(")") {
            tokens.expect(",");
        }
    }
    tokens.expect(")");
    match (members.is_empty(), words.is_empty()) {
        (_, true) => Type::Struct(members),
        (true, false) => Type::Enum(words),
        (false, false) => panic!("{words:?} have no type"),
    }
}

impl Interface {
    /// Fails unless the value is of the type: no field too many, none too few.
    fn check(&self, value: &Value, wanted: &Type, at: &str) {
        match (wanted, value) {
            (Type::Object, _) | (Type::Maybe(_), Value::Null) => {}
            (Type::Maybe(wanted), value) => self.check(value, wanted, at),
            (Type::Named(name), value) => {
                let wanted = self.types.get(name).unwrap_or_else(|| panic!("{at}: no type {name}"));
                self.check(value, wanted, at);
            }
            (Type::Int, Value::Number(number)) if number.is_u64() || number.is_i64() => {}
            (Type::Text, Value::String(_)) | (Type::Bool, Value::Bool(_)) => {}
            (Type::Enum(words), Value::String(word)) => assert!(words.contains(word), "{at}: {word}"),
            (Type::List(wanted), Value::Array(items)) => {
                items.iter().for_each(|item| self.check(item, wanted, &format!("{at}[]")));
            }
            (Type::Struct(members), Value::Object(map)) => {
                for (name, value) in map {
                    let wanted = members.get(name).unwrap_or_else(|| panic!("{at}: {name} is not described"));
                    self.check(value, wanted, &format!("{at}.{name}"));
                }
                for (name, wanted) in members.iter().filter(|(name, _)| !map.contains_key(*name)) {
                    assert!(matches!(wanted, Type::Maybe(_)), "{at}: {name} is missing");
                }
            }
            (wanted, value) => panic!("{at}: {value} is not {wanted:?}"),
        }
    }

    /// Every value is one of the enum, and every word of the enum is one of the values.
    fn same_words(&self, name: &str, values: &[impl Serialize]) {
        let got: BTreeSet<String> = values
            .iter()
            .map(|value| match serde_json::to_value(value).expect("it serializes") {
                Value::String(word) => word,
                other => panic!("{other} is not a word"),
            })
            .collect();
        assert_eq!(self.types.get(name), Some(&Type::Enum(got)), "{name}");
    }

    /// All types that are used are there, and all that are there are used.
    fn is_closed(&self) {
        fn uses(wanted: &Type, used: &mut BTreeSet<String>) {
            match wanted {
                Type::Named(name) => {
                    used.insert(name.clone());
                }
                Type::Maybe(inner) | Type::List(inner) => uses(inner, used),
                Type::Struct(members) => members.values().for_each(|member| uses(member, used)),
                Type::Int | Type::Text | Type::Bool | Type::Object | Type::Enum(_) => {}
            }
        }
        let mut used = BTreeSet::new();
        let messages = self.methods.values().flat_map(|(input, output)| [input, output]);
        for wanted in self.types.values().chain(self.errors.values()).chain(messages) {
            uses(wanted, &mut used);
        }
        for name in &used {
            assert!(self.types.contains_key(name), "no type {name}");
        }
        // Named in the comments of an `object`.
        used.extend(["SpawnFailure", "MemorySample"].map(str::to_owned));
        for name in self.types.keys() {
            assert!(used.contains(name), "{name} is not used");
        }
    }
}

const SNAPSHOTS: [&str; 6] = [
    include_str!("../../tests/fixtures/cli/saved.json"),
    include_str!("../../tests/fixtures/cli/all-up.json"),
    include_str!("../../tests/fixtures/cli/canary.json"),
    include_str!("../../tests/fixtures/cli/down.json"),
    include_str!("../../tests/fixtures/cli/empty.json"),
    include_str!("../../tests/fixtures/cli/rescuing.json"),
];

#[test]
fn snapshots_are_as_described() {
    let described = interface(SUPERVISOR);
    described.is_closed();
    for text in SNAPSHOTS {
        let snapshot: Snapshot = serde_json::from_str(text).expect("the fixture is a snapshot");
        let reply = StatusReply { snapshot: Cow::Borrowed(&snapshot) };
        let value = serde_json::to_value(&reply).expect("it serializes");
        for method in ["Status", "Watch"] {
            described.check(&value, &described.methods[method].1, method);
        }
        // The fixture itself says no more and no less than the types.
        assert_eq!(value["snapshot"], serde_json::from_str::<Value>(text).expect("JSON"));
        for unit in &snapshot.units {
            let why = WhyReply::of(&snapshot, &unit.name).expect("a unit of the snapshot");
            let value = serde_json::to_value(&why).expect("it serializes");
            described.check(&value, &described.methods["Why"].1, "Why");
        }
    }
}

#[test]
fn enums_are_as_described() {
    use StateName::{
        Backoff, Done, Exited, Fatal, Listening, Rescuing, Running, Skipped, Starting, Stopped, Stopping,
    };
    let described = interface(SUPERVISOR);
    described.same_words(
        "State",
        &[Stopped, Listening, Starting, Running, Backoff, Stopping, Exited, Fatal, Done, Skipped, Rescuing],
    );
    described.same_words("Desired", &[Desired::Up, Desired::Down]);
    described.same_words("Kind", &[Kind::Service, Kind::Task, Kind::Target]);
    described.same_words("Class", &[Class::Guaranteed, Class::Pool]);
    described.same_words("Bound", &[Bound::MemoryMax, Bound::MemAvailable]);
    described.same_words("Guard", &[Guard::Shield, Guard::Canary, Guard::None]);
    described.same_words("Machine", &[ShutdownKind::PowerOff, ShutdownKind::Reboot, ShutdownKind::Halt]);
    described.same_words("SpawnStage", &SpawnStage::ALL);
    described.same_words("CommandKind", &CommandKind::ALL);
    described.same_words(
        "Outcome",
        &[
            Reply::Started,
            Reply::Stopped,
            Reply::AlreadyStarted,
            Reply::NotRunning,
            Reply::Skipped,
            Reply::Reloaded,
            Reply::ReloadFailed,
            Reply::NoReload,
            Reply::Drilled,
            Reply::NoDrill,
            Reply::Failed,
            Reply::Overruled,
        ],
    );
    described
        .same_words("Difference", &[Difference::Available, Difference::Changed, Difference::Disappeared]);
    described.same_words(
        "Effect",
        &[Effect::Start, Effect::Add, Effect::Adjust, Effect::Restart, Effect::Remove, Effect::Refused],
    );
}

#[test]
fn answers_about_changes_are_as_described() {
    let described = interface(SUPERVISOR);
    let change = ChangeReply {
        name: "a".into(),
        difference: Difference::Changed,
        effect: Effect::Adjust,
        run: Some(3),
    };
    let changes = ChangesReply { changes: vec![change], faults: vec!["x".into()] };
    let value = serde_json::to_value(&changes).expect("it serializes");
    for method in ["Reread", "Update", "Add"] {
        described.check(&value, &described.methods[method].1, method);
    }
    described.same_words("Below", &[Below::Refuse, Below::Rescue]);
    use LimitOutcome as L;
    let outcomes = [
        L::Applied,
        L::Kept,
        L::BelowUse,
        L::Rescued,
        L::NoProcedure,
        L::OverBudget,
        L::NotTaken,
        L::NoBound,
        L::Shielded,
        L::NotNow,
        L::Overruled,
        L::TimedOut,
        L::Refused,
    ];
    described.same_words("LimitOutcome", &outcomes);
    for outcome in outcomes {
        let answer = LimitAnswer { current_bytes: Some(1), ..outcome.into() };
        let value = serde_json::to_value(answer).expect("it serializes");
        described.check(&value, &described.methods["Limit"].1, "Limit");
    }
}

#[test]
fn verdicts_and_ends_are_as_described() {
    let described = interface(SUPERVISOR);
    let verdicts = [
        Verdict::OomEvent { oom: 1 },
        Verdict::Predicted {
            unreclaimable_bytes: 1,
            bytes_per_s: 1,
            left_ms: 1,
            needs_ms: 1,
            bound: Bound::MemoryMax,
        },
        Verdict::LimitLowered { current_bytes: 1 },
        Verdict::HeldAtHigh { unreclaimable_bytes: 1, high_bytes: 1, psi_full_avg10: 1 },
        Verdict::Thrashing { unreclaimable_bytes: 1, refaults_per_s: 1 },
        Verdict::CanaryDied { oom: 1, ballast_bytes: 1 },
        Verdict::KernelKilled { oom_kill: 1 },
    ];
    for verdict in verdicts {
        let value = serde_json::to_value(verdict).expect("it serializes");
        described.check(&value, &described.types["Verdict"], "Verdict");
    }
    for exit in [Exit::Code(-1), Exit::Signal(64), Exit::Unseen {}] {
        let value = serde_json::to_value(exit).expect("it serializes");
        described.check(&value, &described.types["Exit"], "Exit");
    }
}

/// One request for each method.
fn requests() -> Vec<Request> {
    let name = || "recorder".to_owned();
    let mut requests = vec![
        Request::GetInfo,
        Request::GetInterfaceDescription { interface: SERVICE.into() },
        Request::Status,
        Request::Watch,
        Request::Why { name: name() },
        Request::Tail { name: name(), bytes: Some(1_600) },
        Request::Tail { name: name(), bytes: None },
        Request::Reread,
        Request::Update { names: Vec::new() },
        Request::Update { names: vec![name(), name()] },
    ];
    requests.extend(
        [Verb::Start, Verb::Stop, Verb::Restart, Verb::Reload, Verb::Drill, Verb::DrillToTheEnd]
            .map(|verb| Request::Ask { verb, name: name() }),
    );
    for (below, value) in [(Below::Refuse, Some(16 << 20)), (Below::Rescue, None)] {
        let limit = Limit { setting: Setting::MemoryMax, value };
        requests.push(Request::Limit { name: name(), limit, below });
    }
    requests.extend(
        [ChangeVerb::Add, ChangeVerb::Remove, ChangeVerb::Enable, ChangeVerb::Disable]
            .map(|how| Request::Change { how, name: name() }),
    );
    requests.extend(
        [ShutdownKind::PowerOff, ShutdownKind::Reboot, ShutdownKind::Halt]
            .map(|how| Request::Shutdown { how }),
    );
    requests
}

#[test]
fn methods_are_as_described() {
    let interfaces = [interface(SUPERVISOR), interface(SERVICE)];
    let mut open: BTreeSet<String> = interfaces
        .iter()
        .flat_map(|described| described.methods.keys().map(|method| format!("{}.{method}", described.name)))
        .collect();
    for request in requests() {
        let method = request.method();
        let (name, word) = method.rsplit_once('.').expect("interface and method");
        let described = interfaces.iter().find(|described| described.name == name).expect("ours");
        let call = Call::from(request);
        let value = serde_json::to_value(&call).expect("it serializes");
        described.check(&value["parameters"], &described.methods[word].0, method);
        assert_eq!(parse(value.to_string().as_bytes()), Ok(call));
        open.remove(method);
    }
    assert!(open.is_empty(), "no request for {open:?}");
    let value = serde_json::to_value(info()).expect("it serializes");
    interfaces[1].check(&value, &interfaces[1].methods["GetInfo"].1, "GetInfo");
}

#[test]
fn errors_are_as_described() {
    let interfaces = [interface(SUPERVISOR), interface(SERVICE)];
    let text = || "x".to_owned();
    let errors = [
        ErrorReply::NoSuchUnit { name: text() },
        ErrorReply::NotPermitted {},
        ErrorReply::Busy {},
        ErrorReply::ShuttingDown {},
        ErrorReply::StillRunning { name: text() },
        ErrorReply::NotDone { reason: text() },
        ErrorReply::InterfaceNotFound { interface: text() },
        ErrorReply::MethodNotFound { method: text() },
        ErrorReply::MethodNotImplemented { method: text() },
        ErrorReply::InvalidParameter { parameter: text() },
        ErrorReply::ExpectedMore {},
    ];
    let described: usize = interfaces.iter().map(|described| described.errors.len()).sum();
    assert_eq!(described, errors.len());
    for error in errors {
        let (name, word) = error.name().rsplit_once('.').expect("interface and error");
        let described = interfaces.iter().find(|described| described.name == name).expect("ours");
        let value = serde_json::to_value(&error).expect("it serializes");
        described.check(&value, &described.errors[word], error.name());
    }
}
