//! `millpond check`: reads and judges a configuration, opens nothing.

use std::path::PathBuf;

use millpond_shared::clock;

use crate::Failure;
use crate::config::Config;

#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration file.
    file: PathBuf,
}

pub fn main(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::read(&arguments.file)?;
    let roles: Vec<&str> = [
        ("proxy", config.proxy.is_some()),
        ("ingest", config.ingest.is_some()),
        ("queue", config.queue.is_some()),
        ("dispatcher", config.dispatcher.is_some()),
        ("shards", config.shards.is_some()),
    ]
    .into_iter()
    .filter_map(|(role, declared)| declared.then_some(role))
    .collect();
    let certificates = config.proxy.iter().filter_map(|proxy| proxy.certificates.as_ref());
    certificates
        .flat_map(|certificates| certificates.warnings(clock::wall_secs()))
        .for_each(|warning| eprintln!("warning: certificate {warning}"));
    println!("{}: good; roles: {}", arguments.file.display(), roles.join(", "));
    Ok(())
}
