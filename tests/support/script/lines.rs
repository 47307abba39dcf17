//! What the engine does, as short lines.

use super::Stage;
use lifeboat::engine::action::{Action, Reply};
use lifeboat::engine::policy::{RunId, UnitId};
use lifeboat::engine::snapshot::Snapshot;

impl Stage {
    /// An action in short form; a log record has none.
    pub(super) fn line(&self, action: Action) -> Option<String> {
        let name = |unit: UnitId| &self.names[usize::from(unit.0)];
        let of = |unit: UnitId, run: RunId| format!("{}/{}", name(unit), run.0);
        Some(match action {
            Action::CheckConditions { unit, run } => format!("check {}", of(unit, run)),
            Action::Park { unit, run } => format!("park {}", of(unit, run)),
            Action::ParkOtherwise { unit, run } => format!("park {}, otherwise", of(unit, run)),
            Action::MakeBallast { unit, run, bytes } => ballast(&of(unit, run), bytes),
            Action::Spawn { unit, run } => format!("spawn {}", of(unit, run)),
            Action::Probe { unit, run } => format!("probe {}", of(unit, run)),
            Action::EndProbe { unit, run } => format!("end probe {}", of(unit, run)),
            Action::LookForPath { unit, run } => format!("look {}", of(unit, run)),
            Action::Freeze { unit, run } => format!("freeze {}", of(unit, run)),
            Action::Hold { unit, run } => format!("hold {}", of(unit, run)),
            Action::Thaw { unit, run } => format!("thaw {}", of(unit, run)),
            Action::TryLimit { unit, run, limit, step } => {
                let value = limit.value.map_or("max".to_owned(), |value| value.to_string());
                format!("limit {} {}={value} {step:?}", of(unit, run), limit.setting.name())
            }
            Action::EndLimit { unit, run } => format!("end limit {}", of(unit, run)),
            Action::ReplyLimit { client, answer } => format!("reply {} {:?}", client.0, answer.outcome),
            Action::ReadPeak { unit, run } => format!("read peak {}", of(unit, run)),
            Action::Lend { unit, run, lend_bytes, max_bytes } => {
                format!("lend {} {} MiB to {} MiB", of(unit, run), lend_bytes >> 20, max_bytes >> 20)
            }
            Action::TakeBack { unit, run, .. } => format!("take back {}", of(unit, run)),
            Action::StartProcedure { unit, run, order } => format!(
                "save {} for {} of pid {} in {} ms",
                of(unit, run),
                order.cause.word(),
                order.main_pid,
                order.deadline_ms
            ),
            Action::Signal { unit, run, signal, reason } => {
                format!("signal {} {signal} {reason:?}", of(unit, run))
            }
            Action::SignalAll { unit, run, signal, reason } => {
                format!("signal all {} {signal} {reason:?}", of(unit, run))
            }
            Action::KillCgroup { unit, run, role, reason } => {
                format!("kill {} {role:?} {reason:?}", of(unit, run))
            }
            Action::Doorbells { unit, run, on } => {
                format!("doorbells {} {}", of(unit, run), if on { "on" } else { "off" })
            }
            Action::Ring { unit, run, high_bytes } => {
                let high = high_bytes.map_or("max".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
                format!("ring {} at {high}", of(unit, run))
            }
            Action::ReleaseMemory { unit, run } => format!("release memory of {}", of(unit, run)),
            Action::Reclaim { unit, run, bytes } => format!("reclaim {} {bytes}", of(unit, run)),
            Action::NotifyPressure { unit, run } => format!("notify {}", of(unit, run)),
            Action::RunCommand { unit, run, order } => {
                let (kind, pid) = (order.kind.word(), order.main_pid);
                format!("command {} {kind} of pid {pid} in {} ms", of(unit, run), order.deadline_ms)
            }
            Action::KillCommand { unit, run, reason } => format!("kill command {} {reason:?}", of(unit, run)),
            Action::Listen { unit, run } => format!("listen {}", of(unit, run)),
            Action::LookIdle { unit, run } => format!("look whether idle {}", of(unit, run)),
            Action::CloseDescriptors { unit } => format!("close {}", name(unit)),
            Action::Sample { unit, run } => format!("sample {}", of(unit, run)),
            Action::Reply { client, reply } => {
                let reply: Reply = reply;
                format!("reply {} {reply:?}", client.0)
            }
            Action::Finish { how } => format!("finish {how:?}"),
            Action::Adopt { unit } => format!("adopt {}", name(unit)),
            Action::Dismiss { unit } => format!("dismiss {}", name(unit)),
            Action::KeepIncident { unit, number } => format!("keep incident {number} of {}", name(unit)),
            Action::Log(_) => return None,
        })
    }
}

fn ballast(whose: &str, bytes: u64) -> String {
    format!("ballast {whose} of {} KiB", bytes >> 10)
}

pub(super) fn incidents(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .incidents
        .iter()
        .map(|incident| {
            let name = &snapshot.names[usize::from(incident.unit.0)];
            let verdict = format!("{:?}", incident.verdict);
            let verdict = verdict.split(' ').next().unwrap_or_default();
            let mut line = format!(
                "{} {name}/{} {:?} by {verdict}, killer {:?}, procedure {:?}",
                incident.number, incident.run.0, incident.cause, incident.killer, incident.procedure
            );
            if let Some(first) = incident.first_procedure {
                line += &format!(" after {first:?}");
            }
            if incident.procedure_high > 0 {
                line += &format!(", high {}", incident.procedure_high);
            }
            if let Some(left) = incident.left {
                let (kib, shmem_kib) = (left.current_bytes >> 10, left.shmem_bytes >> 10);
                line += &format!(", left {kib} KiB with {shmem_kib} KiB of shmem");
            }
            line
        })
        .collect()
}
