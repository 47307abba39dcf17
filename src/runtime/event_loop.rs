//! The one loop: wait, turn readiness into events, let the engine decide, perform, publish.
//!
//! Order within a turn: signals and dead children, start pipes, deadlines, memory events, PSI triggers, cgroup events,
//! the units' output, what services say of themselves, health checks, the control socket.
//! While nothing is ready and no deadline is due, nothing runs.

use super::Config;
use super::conditions::Surroundings;
use super::control::Control;
use super::errand::{Errands, Job};
use super::incidents::Incidents;
use super::kill_log::KillLog;
use super::limiting::Helper;
use super::output::Outputs;
use super::readiness::Notify;
use super::seat::{Pids, Seat, Source};
use super::story::Story;
use crate::cgroup::tree::Tree;
use crate::engine::event::{ClientId, Event, Role, ShutdownKind, Verb};
use crate::engine::policy::UnitId;
use crate::engine::snapshot::{Snapshot, SystemView};
use crate::engine::{Engine, Plan};
use crate::sys::clock;
use crate::sys::error::SysError;
use crate::sys::few::sort_few;
use crate::sys::poll::{Poller, Ready, ReadyBuffer};
use crate::sys::signals::Signals;
use crate::unit::{Wishes, is_instance};
use crate::wire::reply::{Description, Empty, ErrorReply, StatusReply, WhyReply};
use crate::wire::request::{Call, ChangeVerb, Request};
use crate::wire::{codec, interface};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// Asks where nobody waits for the answer. No connection has this number.
pub(super) const NOBODY: ClientId = ClientId(0);

/// So many units' memory is read for one look at all of them.
const READINGS_AT_ONCE: usize = 64;

/// Everything that lifeboat holds while it runs.
#[derive(Debug)]
pub(super) struct Lifeboat {
    pub(super) engine: Engine,
    pub(super) plan: Plan,
    /// What has happened and is not handled yet.
    pub(super) events: VecDeque<Event>,
    pub(super) seats: Vec<Seat>,
    pub(super) names: Vec<String>,
    pub(super) pids: Pids,
    /// The processes that work on limits, one for each unit at most.
    pub(super) helpers: Vec<Helper>,
    pub(super) kill_log: KillLog,
    pub(super) poller: Poller,
    pub(super) signals: Signals,
    pub(super) control: Control,
    pub(super) notify: Notify,
    pub(super) story: Story,
    pub(super) outputs: Outputs,
    /// The cgroups; `None` where the kernel has no cgroup v2.
    pub(super) tree: Option<Tree>,
    /// lifeboat has the privilege to lower `oom_score_adj`.
    pub(super) can_shield: bool,
    pub(super) surroundings: Surroundings,
    pub(super) system: SystemView,
    /// `/dev/null`, and where output goes that is not kept: lent to every child.
    pub(super) null: OwnedFd,
    pub(super) output: OwnedFd,
    /// How it was started: where unit files are.
    pub(super) config: Config,
    /// The name of the unit for the rescue, where there was one at the start.
    pub(super) rescue: Option<String>,
    /// What is wished beside the unit files.
    pub(super) wishes: Wishes,
    /// What is done aside.
    pub(super) errands: Errands,
    /// What is to outlive the machine.
    pub(super) incidents: Incidents,
    /// The unit whose memory is read next when somebody looks.
    pub(super) next_reading: usize,
    /// The procedure whose signals were last told to be ignored, by its pid.
    pub(super) ignored: u32,
    /// Set by the engine's last action.
    pub(super) finished: Option<ShutdownKind>,
}

impl Lifeboat {
    /// Runs until the engine's last action; gives what it asked for.
    pub(super) fn run(&mut self) -> Result<ShutdownKind, SysError> {
        let (mut buffer, mut waited) = (ReadyBuffer::default(), false);
        loop {
            if let Some(how) = self.finished {
                return Ok(how);
            }
            let until = [
                self.engine.next_deadline(),
                self.control.paused_until(),
                self.errand_until(),
                self.incidents_until(),
                self.outputs.next_look(),
            ];
            let until = until.into_iter().flatten().min();
            // A signal that came while the turn ended is heard without another wait; a flood of them holds up nobody.
            waited = !(waited && self.signals.have_come());
            if waited {
                self.poller.wait(clock::now(), until, &mut buffer)?;
            } else {
                buffer.clear();
            }
            self.turn(&buffer);
        }
    }

    fn turn(&mut self, buffer: &ReadyBuffer) {
        let mut ready = [const { None }; ReadyBuffer::CAPACITY];
        let mut count = 0;
        for (slot, found) in ready.iter_mut().zip(buffer.iter()) {
            *slot = Some(found);
            count += 1;
        }
        let ready = ready.get_mut(..count).unwrap_or_default();
        sort_few(ready, |ready| ready.map(|ready| ready.token));
        let mut deadlines_done = false;
        for ready in ready.iter().flatten() {
            self.hear_signals();
            let Some(source) = Source::of(ready.token) else { continue };
            if !deadlines_done && source >= Source::MemoryEvents(UnitId(0)) {
                deadlines_done = true;
                self.deadlines();
            }
            match source {
                Source::Signals => self.signals_came(),
                Source::Adopted(unit) => self.adopted_came(unit),
                Source::Status(unit, role) => self.status_came(unit, role),
                Source::MemoryEvents(unit) => self.memory_events_came(unit),
                Source::Pressure(unit) => self.pressure_came(unit, ready),
                Source::CgroupEvents(unit, role) => self.cgroup_events_came(unit, role),
                Source::Output(unit, role) => self.output_came(unit, role),
                Source::Notify => self.messages_came(),
                Source::ReadyPipe(unit) => self.ready_pipe_came(unit),
                Source::Probe(unit) => self.probe_came(unit),
                Source::Socket(unit) => self.socket_came(unit),
                Source::Stored(unit) => self.stored_came(unit),
                Source::Listener => self.connections_came(),
                Source::Client(id) => self.client_came(ClientId(id), ready),
                Source::SystemLog => self.system_log_came(),
            }
            self.pump();
        }
        // A wait that a signal has interrupted comes back with nothing else.
        self.hear_signals();
        if !deadlines_done {
            self.deadlines();
        }
        self.errand_due();
        self.tend_system_log();
        self.tend_incidents();
        self.control.look_again(&self.poller);
        self.publish();
    }

    fn deadlines(&mut self) {
        if self.engine.next_deadline().is_some_and(|due| due <= clock::now()) {
            self.events.push_back(Event::Deadline);
            self.pump();
        }
    }

    /// A child's end wakes the wait by what else it changes, and its signal's byte comes too late for that wait.
    fn hear_signals(&mut self) {
        if self.signals.have_come() {
            self.signals_came();
            self.pump();
        }
    }

    /// Handles events until none is left. Performing makes further ones, a bounded number for each action. What there
    /// is to tell waits until all is done: a restart does not wait for the line that says why.
    pub(super) fn pump(&mut self) {
        while let Some(event) = self.events.pop_front() {
            self.engine.handle(clock::now(), event, &mut self.plan);
            while let Some(action) = self.plan.take_deed() {
                self.perform(action);
            }
            if self.plan.is_full_of_words() {
                self.tell();
            }
        }
        // The empty queue begins anew at its beginning: else it would wander through all of its memory, and touch it.
        self.events.clear();
        self.tell();
    }

    fn tell(&mut self) {
        while let Some(words) = self.plan.take_words() {
            self.perform(words);
        }
    }

    fn connections_came(&mut self) {
        self.control.accept(&self.poller);
        while let Some(client) = self.control.take_gone() {
            self.events.push_back(Event::ClientGone { client });
        }
    }

    /// One call in one turn: a client that sends many at once waits as long as the others.
    fn client_came(&mut self, client: ClientId, ready: &Ready) {
        if ready.readable || ready.error {
            self.control.read(client);
        }
        if ready.hangup {
            self.control.hung_up(client);
        }
        if let Some(call) = self.control.next_call(client) {
            self.answer(client, call);
            self.pump();
        }
        if !self.control.flush(client, &self.poller) {
            self.control.close(client);
            self.events.push_back(Event::ClientGone { client });
        }
    }

    /// One call of a client that has sent a whole and proper message.
    fn answer(&mut self, client: ClientId, call: Call) {
        let may_change = self.control.may_change(client);
        let permitted = may_change || !(call.request.changes() || call.request.shows_output());
        match call.request {
            request if call.oneway => {
                if permitted {
                    self.obey(request);
                }
            }
            _ if !permitted => self.control.refuse(client, &ErrorReply::NotPermitted {}),
            Request::GetInfo => self.control.reply(client, &interface::info()),
            Request::GetInterfaceDescription { interface } => match interface::description(&interface) {
                Some(text) => self.control.reply(client, &Description { description: Cow::Borrowed(text) }),
                None => self.control.refuse(client, &ErrorReply::InterfaceNotFound { interface }),
            },
            Request::Status => {
                let snapshot = self.fresh_snapshot(None);
                self.control.reply(client, &StatusReply { snapshot: Cow::Owned(snapshot) });
            }
            Request::Watch => self.control.watch(client),
            Request::Why { name } => {
                let snapshot = self.fresh_snapshot(self.id_of(&name));
                match WhyReply::of(&snapshot, &name) {
                    Some(mut why) => {
                        if let Some(unit) = self.id_of(&name) {
                            let blamed = self.blamed(unit, &why.unit);
                            why.faults.to_mut().extend(blamed);
                        }
                        if may_change && let Some(unit) = self.id_of(&name) {
                            let words = self.outputs.last_words(unit);
                            why.last_words = String::from_utf8_lossy(&words).into_owned();
                            let words = self.outputs.words_of_failed_command(unit);
                            why.command_words = String::from_utf8_lossy(&words).into_owned();
                        }
                        self.control.reply(client, &why);
                    }
                    None => self.control.refuse(client, &ErrorReply::NoSuchUnit { name }),
                }
            }
            Request::Tail { name, bytes } => match self.id_of(&name) {
                Some(unit) => self.tail(client, unit, bytes, call.more),
                None => self.control.refuse(client, &ErrorReply::NoSuchUnit { name }),
            },
            Request::Ask { verb, name } => match self.id_of(&name) {
                Some(unit) => {
                    self.control.expect_outcome(client);
                    self.events.push_back(Event::Asked { client, unit, verb });
                }
                None if matches!(verb, Verb::Start | Verb::Restart) && is_instance(&name) => {
                    self.send_for(client, Job::Instance { name });
                }
                None => self.control.refuse(client, &ErrorReply::NoSuchUnit { name }),
            },
            Request::Reread => self.send_for(client, Job::Reread),
            Request::Update { names } => self.send_for(client, Job::Update { names }),
            Request::Change { how, name } => self.change_unit(client, how, name),
            Request::Limit { name, limit, below } => match self.id_of(&name) {
                Some(unit) => self.limit_asked(client, unit, (limit, below)),
                None => self.control.refuse(client, &ErrorReply::NoSuchUnit { name }),
            },
            Request::Shutdown { how } => {
                self.control.reply(client, &Empty {});
                self.events.push_back(Event::ShutdownAsked { how });
            }
        }
    }

    /// A call that wants no answer, not even an error.
    fn obey(&mut self, request: Request) {
        match request {
            Request::Ask { verb, name } => {
                if let Some(unit) = self.id_of(&name) {
                    self.events.push_back(Event::Asked { client: NOBODY, unit, verb });
                }
            }
            Request::Limit { name, limit, below } => {
                if let Some(unit) = self.id_of(&name).filter(|unit| self.has_quota(*unit, limit)) {
                    self.events.push_back(Event::LimitAsked { client: NOBODY, unit, limit, below });
                }
            }
            Request::Shutdown { how } => self.events.push_back(Event::ShutdownAsked { how }),
            Request::Update { names } if names.is_empty() => self.update_all(),
            Request::Update { names } => self.send_for(NOBODY, Job::Update { names }),
            Request::Change { how, name } => self.change_unit(NOBODY, how, name),
            Request::Reread
            | Request::GetInfo
            | Request::GetInterfaceDescription { .. }
            | Request::Status
            | Request::Watch
            | Request::Why { .. }
            | Request::Tail { .. } => {}
        }
    }

    fn change_unit(&mut self, client: ClientId, how: ChangeVerb, name: String) {
        match (how, self.id_of(&name)) {
            (ChangeVerb::Add, _) => self.send_for(client, Job::Add { name }),
            (ChangeVerb::Remove, _) => self.take_out(client, name),
            (ChangeVerb::Enable | ChangeVerb::Disable, Some(unit)) => {
                self.send_for(client, Job::Enable { unit, autostart: how == ChangeVerb::Enable });
            }
            (ChangeVerb::Enable | ChangeVerb::Disable, None) => {
                self.control.refuse(client, &ErrorReply::NoSuchUnit { name });
            }
        }
    }

    fn tail(&mut self, client: ClientId, unit: UnitId, bytes: Option<u64>, more: bool) {
        for role in [Role::Service, Role::Procedure] {
            self.output_came(unit, role);
        }
        let from = bytes.map_or(0, |bytes| self.outputs.written(unit).saturating_sub(bytes));
        let reply = self.outputs.reply(unit, from);
        if more {
            self.control.follow(client, unit, &reply);
        } else {
            self.control.reply(client, &reply);
        }
    }

    pub(super) fn id_of(&self, name: &str) -> Option<UnitId> {
        let places = (0u16..).map(UnitId).zip(&self.names);
        let mut named = places.filter(|(_, known)| *known == name).map(|(unit, _)| unit);
        named.find(|unit| self.engine.is_present(*unit))
    }

    /// A snapshot with memory figures of now, those of `about` above all. Of many units only some are read, and the
    /// next ones when somebody asks again: a reading takes a part of a millisecond, and others wait meanwhile.
    fn fresh_snapshot(&mut self, about: Option<UnitId>) -> Snapshot {
        if let Some(unit) = about {
            self.sample_if_up(unit);
        }
        for _ in 0..self.seats.len().min(READINGS_AT_ONCE) {
            self.next_reading = self.next_reading.checked_rem(self.seats.len()).unwrap_or(0);
            if let Ok(unit) = u16::try_from(self.next_reading) {
                self.sample_if_up(UnitId(unit));
            }
            self.next_reading += 1;
        }
        self.pump();
        self.snapshot()
    }

    fn sample_if_up(&mut self, unit: UnitId) {
        if self.seats.get(usize::from(unit.0)).is_some_and(|seat| seat.main.is_some()) {
            self.sample(unit);
        }
    }

    /// The engine's picture, with what services say of themselves.
    fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.engine.snapshot(clock::now(), self.system.clone());
        for seat in self.seats.iter().filter(|seat| seat.status.is_some()) {
            let unit = snapshot.units.binary_search_by(|unit| unit.name.cmp(&seat.unit.policy.name));
            if let Some(unit) = unit.ok().and_then(|at| snapshot.units.get_mut(at)) {
                unit.status.clone_from(&seat.status);
            }
        }
        snapshot
    }

    /// Those who follow what a unit says get the new words. Those who watch get the newest generation, each as soon as
    /// it has taken the last.
    fn publish(&mut self) {
        let outputs = &self.outputs;
        let news = |unit, seen| (outputs.written(unit) > seen).then(|| outputs.reply(unit, seen));
        self.control.feed_followers(&self.poller, news);
        let generation = self.engine.generation();
        if !self.control.somebody_watches(generation) {
            return;
        }
        let snapshot = self.snapshot();
        let mut text = Vec::new();
        let reply = StatusReply { snapshot: Cow::Owned(snapshot) };
        if codec::encode_reply(&mut text, &reply, true).is_ok() {
            self.control.publish(generation, &text, &self.poller);
        }
    }
}
