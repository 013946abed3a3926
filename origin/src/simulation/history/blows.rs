//! What befalls a pond.

use std::time::Duration;

use millpond_shared::version::QueueId;

use super::History;
use crate::simulation::moves::Reached;
use crate::simulation::pond::{Crash, Pond};
use crate::simulation::scheduler::{Process, Simulation};
use crate::simulation::tally::Befell;
use crate::store::forgetful::FailedSync;

/// How long what befalls a move waits for it to come so far.
const STRIKE_WITHIN: Duration = Duration::from_secs(2);

/// What may befall a pond.
#[derive(Debug)]
enum Blow {
    CrashQueue(Crash),
    CrashDispatcher(usize),
    CrashReplica(usize, Crash),
    /// The power is cut after so many more writes and syncs: in the middle of a commit, mostly.
    CutQueue(u64),
    CutReplica(usize, u64),
    StopDispatcher(usize),
    StopReplica(usize),
    LoseDisk(usize),
    /// At times beyond the lease.
    Sleep(Process, Duration),
    /// Its calls get nowhere for so long.
    CutOff(Process, Duration),
    ClockForward(u64),
    ClockBack(u64),
    /// A commit fails, and nobody knows what it has done.
    FailSync(usize, FailedSync),
    Fill(usize),
    MendDisks,
    /// Whether calls between processes get lost.
    Wires(bool),
    HalfRound(QueueId),
    /// Once a move has come so far, befalls those who have a part in it.
    Strike(Reached, Struck, Strike),
}

/// Whose replicas.
#[derive(Clone, Copy, Debug)]
enum Struck {
    Giver,
    Taker,
}

#[derive(Clone, Copy, Debug)]
enum Strike {
    /// All of them.
    Crash(Crash),
    /// One of them.
    Sleep(Duration),
}

impl Blow {
    fn next(pond: &Pond) -> Blow {
        let pick = |count: usize| Simulation::below(count.max(1) as u64) as usize;
        let (mut replica, dispatcher) = (pick(pond.replicas.len()), pick(pond.dispatchers.len()));
        if let Some(moving) = pond.ledger.moves.under_way().filter(|_| !Simulation::one_in(3)) {
            let concerned = |shard| [moving.from, moving.to].contains(&shard);
            let at_it = (0..).zip(&pond.replicas).filter(|(_, replica)| concerned(replica.shard));
            let at_it: Vec<usize> = at_it.map(|(number, _)| number).collect();
            replica = at_it[pick(at_it.len())];
        }
        let disk = pick(pond.disks().count());
        let crash = [Crash::Process, Crash::Power, Crash::Torn][pick(3)];
        let running = pond.running();
        if pond.plan.moves > 0 && Simulation::one_in(3) {
            let strike = match pick(3) {
                0 => Strike::Sleep(Duration::from_millis(Simulation::below(7_000))),
                _ => Strike::Crash(crash),
            };
            let reached = [Reached::Copying, Reached::Held, Reached::Done][pick(3)];
            return Blow::Strike(reached, [Struck::Giver, Struck::Taker][pick(2)], strike);
        }
        match Simulation::below(21) {
            0 | 1 => Blow::CrashQueue(crash),
            2 => Blow::CutQueue(1 + Simulation::below(30)),
            3 => Blow::CrashDispatcher(dispatcher),
            4 => Blow::StopDispatcher(dispatcher),
            5 | 6 => Blow::CrashReplica(replica, crash),
            7 => Blow::CutReplica(replica, 1 + Simulation::below(30)),
            8 => Blow::StopReplica(replica),
            9 => Blow::LoseDisk(replica),
            10 | 11 if !running.is_empty() => {
                Blow::Sleep(running[pick(running.len())], Duration::from_millis(Simulation::below(6_000)))
            }
            12 => Blow::ClockForward(Simulation::below(20_000)),
            13 => Blow::ClockBack(Simulation::below(20_000)),
            14 => Blow::FailSync(disk, [FailedSync::Nothing, FailedSync::Everything][pick(2)]),
            15 => Blow::Fill(disk),
            16 => Blow::MendDisks,
            17 => Blow::Wires(Simulation::one_in(2)),
            18 if !running.is_empty() => {
                Blow::CutOff(running[pick(running.len())], Duration::from_millis(Simulation::below(2_000)))
            }
            // Where slots move, an engine on which this happens needs more than rounds that can be filed again.
            _ if pond.plan.moves > 0 => Blow::CrashReplica(replica, crash),
            _ => Blow::HalfRound(pick(pond.plan.queues.into()) as QueueId),
        }
    }
}

impl History {
    pub fn blow(&mut self) {
        let blow = Blow::next(&self.pond);
        Simulation::tell(format_args!("{blow:?}"));
        let pond = &mut self.pond;
        match blow {
            Blow::CrashQueue(crash) => pond.crash_queue(crash),
            Blow::CrashDispatcher(number) => pond.crash_dispatcher(number),
            Blow::CrashReplica(number, crash) => pond.crash_replica(number, crash),
            Blow::CutQueue(operations) => pond.queue.power.cut_after(operations),
            Blow::CutReplica(number, operations) => pond.replicas[number].power.cut_after(operations),
            Blow::StopDispatcher(number) => pond.stop_dispatcher(number),
            Blow::StopReplica(number) => pond.stop_replica(number),
            Blow::LoseDisk(number) => pond.lose_disk(number),
            Blow::Sleep(process, how_long) => self.sleep(process, how_long),
            Blow::CutOff(process, how_long) => {
                let wire = pond.wire.clone();
                wire.set_cut_off(process, true);
                self.pass(how_long);
                wire.set_cut_off(process, false);
            }
            Blow::ClockForward(by_ms) => {
                Simulation::befell(Befell::ClockSetForward);
                pond.set_clock(|now_ms| now_ms + by_ms);
            }
            Blow::ClockBack(by_ms) => {
                Simulation::befell(Befell::ClockSetBack);
                pond.set_clock(|now_ms| now_ms - by_ms);
            }
            Blow::FailSync(disk, how) => pond.disk(disk).fail_once(how),
            Blow::Fill(disk) => pond.disk(disk).set_full(true),
            Blow::MendDisks => pond.mend_disks(),
            Blow::Wires(troubled) => pond.wire.set_troubled(troubled),
            Blow::HalfRound(queue) => pond.file_half(queue),
            Blow::Strike(reached, struck, strike) => self.strike(reached, struck, strike),
        }
    }

    fn sleep(&mut self, process: Process, how_long: Duration) {
        let holds_leases = self.pond.dispatchers.iter().any(|dispatcher| dispatcher.up == Some(process));
        let is_over = holds_leases && how_long > self.pond.plan.lease_ttl;
        Simulation::befell(if is_over { Befell::AsleepBeyondLease } else { Befell::Asleep });
        Simulation::pause(process);
        self.pass(how_long);
        Simulation::go_on(process);
    }

    /// Waits for a move to come so far, and strikes at once.
    fn strike(&mut self, reached: Reached, struck: Struck, strike: Strike) {
        let until = Simulation::elapsed() + STRIKE_WITHIN;
        let moving = loop {
            let now = self.pond.ledger.moves.reached();
            if let Some((_, moving)) = now.filter(|(now, _)| *now == reached) {
                break moving;
            }
            if Simulation::elapsed() > until {
                return;
            }
            self.pass(Duration::from_millis(2));
        };
        let shard = match struck {
            Struck::Giver => moving.from,
            Struck::Taker => moving.to,
        };
        let of_shard = |number: &usize| self.pond.replicas[*number].shard == shard;
        let numbers: Vec<usize> = (0..self.pond.replicas.len()).filter(of_shard).collect();
        Simulation::tell(format_args!("{moving:?} is {reached:?}: {strike:?} of {struck:?}"));
        match strike {
            Strike::Crash(crash) => {
                if reached == Reached::Done {
                    Simulation::befell(Befell::StruckWhenDone);
                }
                numbers.into_iter().for_each(|number| self.pond.crash_replica(number, crash));
            }
            Strike::Sleep(how_long) => {
                let number = numbers[Simulation::below(numbers.len() as u64) as usize];
                if let Some(process) = self.pond.replicas[number].up {
                    self.sleep(process, how_long);
                }
            }
        }
    }
}
