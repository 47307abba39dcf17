//! Health checks: whether something still takes connections at a service's address.

use super::event_loop::Lifeboat;
use super::seat::Source;
use crate::engine::event::Event;
use crate::engine::policy::{RunId, UnitId};
use crate::sys::connect::{Connecting, connect_tcp, connect_unix, outcome};
use crate::sys::poll::Interest;
use crate::unit::HealthAddress;
use std::os::fd::AsFd;

impl Lifeboat {
    pub(super) fn probe(&mut self, unit: UnitId, run: RunId) {
        self.end_probe(unit);
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let Some(address) = &seat.unit.health_address else { return };
        let begun = match address {
            HealthAddress::Tcp(address) => connect_tcp(*address),
            HealthAddress::Unix(path) => connect_unix(path),
        };
        let healthy = match begun {
            Ok(Connecting::Done) => true,
            Ok(Connecting::Open(socket)) => {
                let token = Source::Probe(unit).token();
                match self.poller.add(socket.as_fd(), token, Interest::Write) {
                    Ok(()) => {
                        seat.probe = Some(socket);
                        return;
                    }
                    // Our own trouble is not the service's.
                    Err(_) => true,
                }
            }
            Err(_) => false,
        };
        self.events.push_back(Event::Probed { unit, run, healthy });
    }

    pub(super) fn probe_came(&mut self, unit: UnitId) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        let Some(socket) = &seat.probe else { return };
        let (run, healthy) = (seat.run, outcome(socket.as_fd()));
        self.end_probe(unit);
        self.events.push_back(Event::Probed { unit, run, healthy });
    }

    pub(super) fn end_probe(&mut self, unit: UnitId) {
        let Some(seat) = self.seats.get_mut(usize::from(unit.0)) else { return };
        if let Some(socket) = seat.probe.take() {
            let _ = self.poller.remove(socket.as_fd());
        }
    }
}
