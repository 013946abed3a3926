//! What befell ponds, by kind: a kind that never happens is a test that never fails.

use std::collections::BTreeMap;
use std::fmt;

/// Kinds, each noted where it has happened rather than where it was meant to.
macro_rules! kinds {
    ($($(#[$told:meta])* $kind:ident)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Befell { $($(#[$told])* $kind,)* }

        impl Befell {
            pub const ALL: &[Befell] = &[$(Befell::$kind,)*];
        }
    };
}

kinds! {
    QueuesKilled
    QueuesLostPower
    QueuesTorn
    DispatcherKilled
    DispatcherStopped
    ReplicaKilled
    ReplicaLostPower
    ReplicaTorn
    ReplicaStopped
    /// Between two writes of a commit, mostly.
    PowerCut
    DiskLost
    /// A replica has started from another's documents.
    CopyTaken
    /// The queue held no longer what a replica, which it had not known in time, had yet to pull.
    CameTooLate
    Asleep
    /// A dispatcher, for longer than its lease.
    AsleepBeyondLease
    ClockSetForward
    ClockSetBack
    /// A sync failed, and nothing of it was on disk.
    SyncFailed
    /// A sync failed, and all of it was on disk.
    SyncFailedInVain
    /// Something could not be written for want of room.
    DiskFull
    CallLate
    CallLost
    AnswerLost
    /// A process could not reach the queues for a while, and the others could.
    CutOff
    RoundHalfFiled
    /// An event was recognised as one that is stored already.
    Repeat
    QueueFull
    DeadLetter
    /// What a document tells another came twice.
    HopTwice
    /// A home feed was merged with the excerpt of a great feed.
    Merged
    MoveBegun
    MoveDone
    MoveStopped
    /// Slots went on to a third shard as soon as they had come.
    MovedOn
    /// Slots went back to the shard that had given them.
    MovedBack
    /// Events were held for too long, and went on.
    HoldLetGo
    /// Documents changed while they were handed over, and were handed over again.
    ChangedMeanwhile
    /// The taking shard had not written yet what it was given.
    TakerBehind
    /// Two replicas handed the same slots over.
    TwoGivers
    /// A giver, or a dispatcher, was not told what became of what it asked of the map.
    MapChangeUnanswered
    HandoverUnanswered
    /// A round was routed by a map that was changed meanwhile.
    RoutedBehind
    GiverLost
    GiverLostHolding
    TakerLost
    TakerLostHolding
    /// All replicas of a shard, as soon as it had given or taken slots.
    StruckWhenDone
    QueuesLostMoving
    DispatcherLostMoving
    /// A shard was asked for a document that was another's by then.
    AskedElsewhere
    /// A proxy has started, and knows of nothing that clients were given.
    NewProxy
    /// An answer said that it may be older than others before it.
    AnswerMarked
}

/// How often each kind has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Befell, u64>);

impl Tally {
    pub fn note(&mut self, kind: Befell) {
        *self.0.entry(kind).or_default() += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        for (kind, times) in &other.0 {
            *self.0.entry(*kind).or_default() += times;
        }
    }

    /// Kinds that have not happened.
    pub fn never(&self) -> Vec<Befell> {
        Befell::ALL.iter().copied().filter(|kind| !self.0.contains_key(kind)).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(kind, times)| writeln!(out, "{times:>9}  {kind:?}"))
    }
}
