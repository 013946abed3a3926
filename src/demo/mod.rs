//! `millpond demo`: everything in one process on a temporary directory, with events to look at.

mod generator;
mod report;
mod sender;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use millpond_origin::config::engine::Engine;

use crate::Failure;
use crate::config::{Admin, Config};
use crate::logging;
use crate::process::Signals;
use crate::run::Running;
use generator::Generator;
use report::Busiest;
use sender::Sender;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where clients connect [default: what the configuration says, 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where /metrics and /purge are [default: what the configuration says, 127.0.0.1:8081].
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Where files go; a temporary directory that is removed at the end unless given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Events to send, one JSON object a line, plain or .gz; generated ones unless given.
    #[arg(long, value_name = "FILE", requires = "config")]
    events: Option<PathBuf>,
    /// A configuration with all roles in one process; a small social network unless given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The configuration of the demo, embedded.
const CONFIG: &str = include_str!("../../config/demo.toml");
/// Events that are generated.
const EVENTS: usize = 10_000;
/// The generator's seed: everyone sees the same feeds.
const SEED: u64 = 1;

pub fn main(arguments: &Arguments) -> Result<(), Failure> {
    let mut config = match &arguments.config {
        Some(path) => Config::read(path)?,
        None => Config::parse(Path::new("demo.toml"), CONFIG)?,
    };
    let events = arguments.events.as_deref().map(sender::check_file).transpose()?;
    let directory = Directory::make(arguments.dir.as_deref())?;
    let source = adapt(&mut config, arguments, directory.path())?;
    logging::start(config.log.format, "warn");

    let projections = std::sync::Arc::clone(&config.projections);
    let mut running = Running::start(config)?;
    let proxy = running.address("proxy").ok_or_else(|| {
        Failure::Refused("the demo needs a [proxy] with listen; fix: add it to the configuration".to_owned())
    })?;
    running.say_ready();

    let (changes, shards) = running
        .changes()
        .ok_or_else(|| Failure::Refused("the demo needs [shards]; fix: add them to the configuration".to_owned()))?;
    let busiest = Busiest::follow(running.runtime(), &changes, &shards);
    let sender = Sender::new(proxy, source);
    let shown = running.runtime().block_on(async {
        let sent = match events {
            Some(file) => sender.send_file(file).await?,
            None => {
                sender.send(Generator::new(SEED).take(EVENTS).map(|event| event.to_string()), EVENTS as u64).await?
            }
        };
        sender.until_applied(&running.registry).await?;
        report::show(proxy, &projections, &busiest, &sent).await
    });
    if let Err(failure) = shown {
        running.stop()?;
        return Err(failure);
    }
    println!("\nserving until Ctrl-C; files are in {}", directory.path().display());
    let signals = Signals::listen(running.runtime())?;
    let told = running.until_told(signals, |_| {});
    running.stop()?;
    told
}

/// Puts the configuration onto the demo's directory and addresses; the path events are posted to.
fn adapt(config: &mut Config, arguments: &Arguments, directory: &Path) -> Result<String, Failure> {
    let refused =
        |problem: &str, fix: &str| Failure::Refused(format!("the demo's configuration {problem}; fix: {fix}"));
    if let (Some(proxy), Some(listen)) = (&mut config.proxy, arguments.listen) {
        proxy.config.listen = vec![listen];
    }
    if let Some(listen) = arguments.admin {
        let token = config.admin.take().and_then(|admin| admin.token);
        if !listen.ip().is_loopback() && token.is_none() {
            let problem = "is no loopback address, and there is no token";
            return Err(Failure::Refused(format!("--admin {listen} {problem}; fix: listen on 127.0.0.1 or [::1]")));
        }
        config.admin = Some(Admin { listen, token });
    }
    let (Some(queue), Some(shards)) = (&mut config.queue, &mut config.shards) else {
        return Err(refused("has no [queue] or no [shards]", "declare every role in one file"));
    };
    queue.engine = Engine::Embedded { dir: directory.join("queue") };
    shards.dir = directory.join("shards");
    config.log.access = false;
    match config.sources.as_slice() {
        [source] => Ok(source.path.clone()),
        [] => Err(refused("has no [[source]]", "declare the one that the events are for")),
        _ => Err(refused("has more than one [[source]]", "keep the one that the events are for")),
    }
}

/// Where the demo's files are.
enum Directory {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Directory {
    fn make(kept: Option<&Path>) -> Result<Directory, Failure> {
        match kept {
            Some(path) => std::fs::create_dir_all(path)
                .map(|()| Directory::Kept(path.to_owned()))
                .map_err(|error| Failure::Failed(format!("cannot make {}: {error}", path.display()))),
            None => tempfile::Builder::new()
                .prefix("millpond-demo-")
                .tempdir()
                .map(Directory::Temporary)
                .map_err(|error| Failure::Failed(format!("cannot make a temporary directory: {error}"))),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Directory::Kept(path) => path,
            Directory::Temporary(directory) => directory.path(),
        }
    }
}
