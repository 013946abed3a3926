//! One thread, one clock, one seed: the tasks of all processes of a simulation, polled in an order that the seed gives.
//!
//! Nothing here waits for real time or for another thread. What the pipeline asks of `timing`, `blocking` and the writer
//! threads of the queues it gets from here while a simulation runs on its thread, so the same seed gives the same steps.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use millpond_shared::clock;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::tally::{Befell, Tally};
use crate::queue::testing::Random;
use crate::timing;

/// A process of the simulation: its tasks are paused, and die, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub u64);

type TaskId = u64;
type Ready = Arc<Mutex<BTreeSet<TaskId>>>;
type Work = Pin<Box<dyn Future<Output = ()>>>;

/// The simulation of this thread. Reached by functions, never held: so futures that use it stay `Send`.
pub struct Simulation;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Scheduler>>> = const { RefCell::new(None) };
}

struct Scheduler {
    random: RefCell<Random>,
    began: Instant,
    now: Cell<Duration>,
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    next_id: Cell<u64>,
    ready: Ready,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    paused: RefCell<BTreeSet<Process>>,
    /// Whose task is being polled.
    running: Cell<Process>,
    /// Of all steps so far: two runs of one seed have the same.
    digest: Cell<u64>,
    steps: Cell<u64>,
    tally: RefCell<Tally>,
    is_told: bool,
}

struct Task {
    process: Process,
    /// `None` while it is polled.
    work: Option<Work>,
    waker: Waker,
}

struct TaskWaker {
    id: TaskId,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<TaskWaker>) {
        self.ready.lock().insert(self.id);
    }
}

/// Ends the simulation of its thread when it is dropped.
pub struct Began(());

impl Drop for Began {
    fn drop(&mut self) {
        // What is dropped with the tasks may still ask for the time.
        let tasks = Simulation::scheduler().tasks.take();
        drop(tasks);
        CURRENT.with(RefCell::take);
    }
}

impl Simulation {
    /// Begins a simulation on this thread.
    pub fn begin(random: Random) -> Began {
        let scheduler = Scheduler {
            random: RefCell::new(random),
            began: clock::monotonic(),
            now: Cell::default(),
            tasks: RefCell::default(),
            next_id: Cell::default(),
            ready: Ready::default(),
            timers: RefCell::default(),
            paused: RefCell::default(),
            running: Cell::new(Process(0)),
            digest: Cell::default(),
            steps: Cell::default(),
            tally: RefCell::default(),
            is_told: std::env::var_os("SEED").is_some(),
        };
        CURRENT.with(|current| *current.borrow_mut() = Some(Rc::new(scheduler)));
        Began(())
    }

    fn current() -> Option<Rc<Scheduler>> {
        CURRENT.with(|current| current.borrow().clone())
    }

    fn scheduler() -> Rc<Scheduler> {
        Simulation::current().expect("a simulation runs on this thread")
    }

    pub fn is_running() -> bool {
        CURRENT.with(|current| current.borrow().is_some())
    }

    /// The moment, if a simulation runs on this thread.
    pub fn now() -> Option<Instant> {
        Simulation::current().map(|scheduler| scheduler.began + scheduler.now.get())
    }

    /// Says what happens, where one seed is asked for.
    pub fn tell(what: std::fmt::Arguments<'_>) {
        let scheduler = Simulation::scheduler();
        if scheduler.is_told {
            println!("{:>7} ms {:>6} steps  {what}", scheduler.now.get().as_millis(), scheduler.steps.get());
        }
    }

    /// Notes that something befell the pond, if a simulation runs on this thread.
    pub fn befell(kind: Befell) {
        if let Some(scheduler) = Simulation::current() {
            scheduler.tally.borrow_mut().note(kind);
        }
    }

    /// What has befallen it so far.
    pub fn tally() -> Tally {
        Simulation::scheduler().tally.borrow().clone()
    }

    /// Time since the beginning.
    pub fn elapsed() -> Duration {
        Simulation::scheduler().now.get()
    }

    pub fn digest() -> u64 {
        Simulation::scheduler().digest.get()
    }

    /// A number below `bound`, by the seed.
    pub fn below(bound: u64) -> u64 {
        Simulation::scheduler().random.borrow_mut().below(bound)
    }

    pub fn one_in(n: u64) -> bool {
        Simulation::below(n) == 0
    }

    pub fn sleep(duration: Duration) -> Option<Sleep> {
        let scheduler = Simulation::current()?;
        Some(Sleep { at: scheduler.now.get().saturating_add(duration), id: scheduler.id(), waits: false })
    }

    /// Has `work` done by a task of its own, as a thread of the process that is running does it.
    pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, outcome) = oneshot::channel();
        Simulation::spawn(Simulation::scheduler().running.get(), async {
            let _ = done.send(work());
        });
        match outcome.await {
            Ok(outcome) => outcome,
            // The process is being killed, and whoever waits with it.
            Err(_) => pending().await,
        }
    }

    /// Starts a task of `process`.
    pub fn spawn(process: Process, work: impl Future<Output = ()> + 'static) {
        let scheduler = Simulation::scheduler();
        let id = scheduler.id();
        let waker = Waker::from(Arc::new(TaskWaker { id, ready: scheduler.ready.clone() }));
        scheduler.tasks.borrow_mut().insert(id, Task { process, work: Some(Box::pin(work)), waker });
        scheduler.ready.lock().insert(id);
    }

    /// Does something as `process` does it: what it starts is a part of it.
    pub fn within<T>(process: Process, work: impl FnOnce() -> T) -> T {
        let scheduler = Simulation::scheduler();
        let before = scheduler.running.replace(process);
        let outcome = work();
        scheduler.running.set(before);
        outcome
    }

    /// Whose task is being polled.
    pub fn running() -> Process {
        Simulation::scheduler().running.get()
    }

    /// Stops a process as SIGSTOP does: time goes on without it.
    pub fn pause(process: Process) {
        Simulation::scheduler().paused.borrow_mut().insert(process);
    }

    pub fn go_on(process: Process) {
        Simulation::scheduler().paused.borrow_mut().remove(&process);
    }

    /// Ends a process wherever its tasks are.
    pub fn kill(process: Process) {
        let scheduler = Simulation::scheduler();
        let dead: Vec<Task> = scheduler
            .tasks
            .borrow_mut()
            .extract_if(.., |_, task| task.process == process)
            .map(|(_, task)| task)
            .collect();
        drop(dead);
        scheduler.paused.borrow_mut().remove(&process);
    }

    /// Lets `duration` pass, and everything happen that happens in it.
    pub fn pass(duration: Duration) {
        let scheduler = Simulation::scheduler();
        let until = scheduler.now.get() + duration;
        while scheduler.now.get() <= until && (scheduler.poll_one() || scheduler.advance(until)) {}
        scheduler.now.set(scheduler.now.get().max(until));
    }

    /// Polls so many tasks at most; time passes only if there is nothing else to do.
    pub fn steps(most: u64) {
        let scheduler = Simulation::scheduler();
        for _ in 0..most {
            if !scheduler.poll_one() && !scheduler.advance(Duration::MAX) {
                return;
            }
        }
    }
}

impl Scheduler {
    fn id(&self) -> u64 {
        self.next_id.replace(self.next_id.get() + 1)
    }

    /// Polls one of the tasks that can go on; whether there was one.
    fn poll_one(&self) -> bool {
        let Some(id) = self.pick() else { return false };
        let taken = {
            let mut tasks = self.tasks.borrow_mut();
            tasks.get_mut(&id).and_then(|task| Some((task.process, task.work.take()?, task.waker.clone())))
        };
        let Some((process, mut work, waker)) = taken else { return true };
        self.note(id);
        // Work takes time: at times enough for a limit to pass meanwhile.
        if self.random.borrow_mut().below(8) == 0 {
            self.now.set(self.now.get() + Duration::from_millis(1));
        }
        self.running.set(process);
        let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
        let finished = {
            let mut tasks = self.tasks.borrow_mut();
            match (tasks.get_mut(&id), polled) {
                (Some(task), Poll::Pending) => {
                    task.work = Some(work);
                    None
                }
                // Done, or killed by what it did itself.
                _ => Some((tasks.remove(&id), work)),
            }
        };
        // May ask for the time, or start another.
        drop(finished);
        true
    }

    fn pick(&self) -> Option<TaskId> {
        let (paused, tasks, mut ready) = (self.paused.borrow(), self.tasks.borrow(), self.ready.lock());
        ready.retain(|id| tasks.contains_key(id));
        let goes_on = |id: &&TaskId| tasks.get(id).is_some_and(|task| !paused.contains(&task.process));
        let count = ready.iter().filter(goes_on).count() as u64;
        let nth = if count > 1 { self.random.borrow_mut().below(count) as usize } else { 0 };
        let picked = *ready.iter().filter(goes_on).nth(nth)?;
        ready.remove(&picked);
        Some(picked)
    }

    /// Lets time pass until something can go on, but not beyond `until`; whether it did.
    fn advance(&self, until: Duration) -> bool {
        let due: Vec<Waker> = {
            let mut timers = self.timers.borrow_mut();
            let Some(at) = timers.keys().next().map(|(at, _)| *at).filter(|at| *at <= until) else { return false };
            self.now.set(self.now.get().max(at));
            timers.extract_if(..=(self.now.get(), u64::MAX), |_, _| true).map(|(_, waker)| waker).collect()
        };
        due.into_iter().for_each(Waker::wake);
        true
    }

    fn note(&self, id: TaskId) {
        let mixed = self.digest.get().rotate_left(5) ^ id ^ (self.now.get().as_millis() as u64) << 20;
        self.steps.set(self.steps.get() + 1);
        self.digest.set(mixed.wrapping_mul(0x517c_c1b7_2722_0a95));
    }
}

/// Resolves when its moment has come.
pub struct Sleep {
    at: Duration,
    id: u64,
    waits: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<()> {
        let Some(scheduler) = Simulation::current() else { return Poll::Pending };
        if scheduler.now.get() >= self.at {
            return Poll::Ready(());
        }
        self.waits = true;
        scheduler.timers.borrow_mut().insert((self.at, self.id), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(scheduler) = Simulation::current().filter(|_| self.waits) {
            scheduler.timers.borrow_mut().remove(&(self.at, self.id));
        }
    }
}

/// Turns of a writer that would have a thread of its own: the file of a queue.
pub struct Turns {
    turn: Arc<Mutex<Turn>>,
    wanted: Arc<Notify>,
}

/// Takes what waits, or tidies up if nothing does; false once nothing will come any more.
type Turn = Box<dyn FnMut() -> bool + Send>;

impl Turns {
    /// Has turns taken when they are wanted, and `every` so often, as long as the process that is running does.
    pub fn start(every: Duration, turn: impl FnMut() -> bool + Send + 'static) -> Turns {
        let turns = Turns { turn: Arc::new(Mutex::new(Box::new(turn))), wanted: Arc::default() };
        let (turn, wanted) = (turns.turn.clone(), turns.wanted.clone());
        Simulation::spawn(Simulation::running(), async move {
            loop {
                let _ = timing::timeout(every, wanted.notified()).await;
                if !turn.lock()() {
                    return;
                }
            }
        });
        turns
    }

    pub fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Takes all turns that are left.
    pub fn end(self) {
        while self.turn.lock()() {}
        self.wanted.notify_one();
    }
}
