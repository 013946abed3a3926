//! `millpond`: one program, roles by configuration. Each subcommand is one file.
//!
//! Exit codes: 0 done; 1 it failed while it ran; 2 the command line or the configuration is wrong.

mod admin;
mod check;
mod demo;
mod desk;
mod load;
mod plain;
mod process;
mod queue;
mod replay;
mod roles;
mod run;
mod schema;
mod shards;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millpond::{Failure, config, logging, token};

/// A cache lives from many sizes that come and go; this allocator keeps them from leaving holes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns a stream of events into feeds and serves them hot; also a caching proxy for any HTTP API.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the roles that a configuration file declares.
    Run(run::Arguments),
    /// Run everything in one process, send it events, and show the feeds.
    Demo(demo::Arguments),
    /// A caching reverse proxy in front of one server, without a configuration file.
    Proxy(plain::Arguments),
    /// Tell what is wrong with a configuration file, or that nothing is.
    Check(check::Arguments),
    /// Send events to a source, and tell how fast they were taken and how long that took.
    Load(load::Arguments),
    /// Look at queues and dead letters, and put dead letters back.
    Queue(queue::Arguments),
    /// Look at the shard map, and move slots from one shard to another.
    Shards(shards::Arguments),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Play a trace of requests to the store, and tell how many it would have answered.
    ReplayTrace(replay::Arguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(arguments) => run::main(&arguments),
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Proxy(arguments) => plain::main(&arguments),
        Command::Check(arguments) => check::main(&arguments),
        Command::Load(arguments) => load::main(&arguments),
        Command::Queue(arguments) => queue::main(&arguments),
        Command::Shards(arguments) => shards::main(&arguments),
        Command::Schema => schema::main(),
        Command::ReplayTrace(arguments) => replay::main(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
