//! The promise as a number: of 20,000 records in 20 exhaustions of each shape, none is lost.

use super::Case;
use super::life::ms;
use crate::guest::{Guest, count_saved, ensure};
use std::thread;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    Case { name: "loss-rate", deadline_s: 600, run: |g| twenty(g, "leak-rate") },
    Case { name: "loss-flat-out", deadline_s: 600, run: |g| twenty(g, "leak-flat-out") },
    Case { name: "loss-populate", deadline_s: 600, run: |g| twenty(g, "leak-populate") },
    Case { name: "loss-threads", deadline_s: 600, run: |g| twenty(g, "leak-threads") },
    Case { name: "loss-tmpfs", deadline_s: 600, run: |g| twenty(g, "leak-tmpfs") },
];

const ROUNDS: u64 = 20;
/// Long enough for some hundred beats, to be compared with.
const CALM: Duration = Duration::from_secs(3);

fn twenty(guest: &mut Guest, unit: &str) -> Result<(), String> {
    let bystander = guest.bystander()?;
    bystander.take_worst_us();
    // The passing of time is what is measured here.
    thread::sleep(CALM);
    let calm_us = bystander.take_worst_us();
    let kills = guest.kernel_kills()?;
    let (mut saved, mut shown) = (0, String::new());
    for _ in 0..ROUNDS {
        let before = guest.last_incident()?;
        guest.start(unit)?;
        let incident = guest.wait_incident(unit, before, Duration::from_secs(60))?;
        match count_saved(unit, &incident) {
            Ok(count) => saved += count.saved,
            Err(error) => shown = error,
        }
    }
    let (expected, killed) = (ROUNDS * crate::ring::KEPT, guest.kernel_kills()? - kills);
    let leak_us = bystander.take_worst_us();
    guest.figure(&format!(
        "loss {unit}: {} of {expected} records lost in {ROUNDS} exhaustions, kernel OOM kills: {killed}, \
         bystander's worst gap {:.1} ms (calm: {:.1} ms)",
        expected - saved,
        ms(leak_us),
        ms(calm_us)
    ));
    ensure(saved == expected, || format!("{} of {expected} records lost {shown}", expected - saved))?;
    ensure(killed == 0, || format!("{killed} kernel OOM kills"))?;
    bystander.is_unharmed(guest)
}
