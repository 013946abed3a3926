//! `millpond load`: sends events to a source as many producers would, and measures.
//!
//! `events` makes them, `pace` says when the next request is due, `connection` sends and waits for answers, `tally` adds
//! up and tells. `watch` measures how soon a document shows an event, `probe` how long the disk takes to sync.

mod connection;
mod events;
mod pace;
mod probe;
mod tally;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millpond_origin::api::ingest::auth::Secrets;
use millpond_origin::config::auth::secret;
use millpond_shared::clock;
use millpond_shared::config::Seconds;

use crate::Failure;
use connection::{Job, Target};
use events::Events;
use pace::Pace;
use tally::Tally;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where events are POSTed to: http://HOST:PORT/PATH.
    #[arg(long)]
    url: String,
    /// Requests in a second, sent when they are due whether or not earlier ones are answered; latency counts from when
    /// a request was due. Without it every connection sends as soon as it has its answer.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long.
    #[arg(long = "for", value_name = "DURATION", default_value = "30s")]
    time: Seconds,
    /// Events of one request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Connections, kept open.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Threads that serve the connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Sign requests (Standard Webhooks) with the secret that is there: env:NAME or file:PATH.
    #[arg(long, value_name = "PLACE")]
    secret: Option<String>,
    /// Different keys that events are about.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
    /// How unevenly keys are used: key number r is as frequent as 1 / r^S. 0: all alike.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    zipf: f64,
    /// An event: JSON in which {id} becomes an id of its own, {key} a key, {n} a number, {pad} some letters.
    #[arg(long, value_name = "JSON", default_value = events::DEFAULT)]
    event: String,
    /// Letters that {pad} becomes.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pad: u32,
    /// Meanwhile, measure from the answer to an event until the document at this URL shows its id; {key} in it becomes
    /// a key that only these events are about.
    #[arg(long, value_name = "URL")]
    watch: Option<String>,
    /// Meanwhile, measure how long fdatasync takes in this folder.
    #[arg(long, value_name = "FOLDER")]
    probe: Option<PathBuf>,
}

pub fn main(arguments: &Arguments) -> Result<(), Failure> {
    let plan = Plan::of(arguments)?;
    let stop = Arc::new(AtomicBool::new(false));
    let probe = arguments.probe.as_deref().map(|folder| probe::start(folder, &stop)).transpose()?;
    let watch = plan.watch.clone().map(|watch| watch::start(watch, &stop)).transpose()?;
    let (cpu, began) = (clock::process_cpu(), clock::monotonic());
    let tally = send(arguments, &plan)?;
    let (took, cpu) = (began.elapsed(), clock::process_cpu().saturating_sub(cpu));
    stop.store(true, Ordering::Release);
    print!("{}", tally.in_words(took, cpu));
    let told = |name, told: std::thread::JoinHandle<Result<String, Failure>>| {
        let words = told.join().map_err(|_| Failure::Failed(format!("the {name} panicked")))??;
        print!("{words}");
        Ok::<(), Failure>(())
    };
    watch.map_or(Ok(()), |watch| told("watch", watch))?;
    probe.map_or(Ok(()), |probe| told("probe", probe))?;
    if tally.accepted == 0 {
        return Err(Failure::Failed(format!("no event was accepted{}", tally.first_words())));
    }
    Ok(())
}

/// What is sent, and where to.
struct Plan {
    job: Job,
    watch: Option<watch::Watch>,
}

impl Plan {
    fn of(arguments: &Arguments) -> Result<Plan, Failure> {
        let secrets = match &arguments.secret {
            Some(place) => {
                let secret = secret(place).map_err(|problem| Failure::Refused(format!("--secret: {problem}")))?;
                Some(Secrets::new(vec![secret]))
            }
            None => None,
        };
        if !(0.0..=10.0).contains(&arguments.zipf) {
            return Err(Failure::Refused("--zipf: use 0 to 10".to_owned()));
        }
        let events = Events::new(&arguments.event, arguments.pad, arguments.keys, arguments.zipf)?;
        let job = Job {
            target: Target::of("--url", &arguments.url)?,
            secrets,
            events: Arc::new(events),
            batch: arguments.batch,
        };
        let watch = match &arguments.watch {
            Some(url) => Some(watch::Watch::new(url, job.clone())?),
            None => None,
        };
        Ok(Plan { job, watch })
    }
}

/// Sends until the time is over; what became of it.
fn send(arguments: &Arguments, plan: &Plan) -> Result<Tally, Failure> {
    let pace = Arc::new(Pace::new(arguments.rate, arguments.time.0));
    let mut threads = Vec::new();
    for thread in 0..arguments.threads {
        let share =
            arguments.connections / arguments.threads + u32::from(thread < arguments.connections % arguments.threads);
        let (job, pace) = (plan.job.clone(), Arc::clone(&pace));
        let run = move || connection::run_all(share, &job, &pace);
        let builder = std::thread::Builder::new().name(format!("load-{thread}"));
        threads.push(builder.spawn(run).map_err(Failure::from_display)?);
    }
    pace.keep();
    let mut tally = Tally::new()?;
    for thread in threads {
        let of_thread = thread.join().map_err(|_| Failure::Failed("a thread panicked".to_owned()))??;
        tally.add(&of_thread);
    }
    tally.unsent = pace.unsent();
    Ok(tally)
}

/// How long a connection may take to open, and an answer to come; beyond it the connection counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);
