//! `millpond shards`: who owns which slots, and moving some to another shard while events flow.

use std::time::Duration;

use http::Method;
use millpond_origin::queue::wire::ROOT;
use millpond_shared::clock;
use millpond_shared::shard_map::{MapState, Slots, Stage};
use millpond_shared::version::ShardId;
use serde_json::Value;

use crate::Failure;
use crate::desk::{self, Asked, Desk, Table};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    asked: Asked,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The slots of every shard, and what is moving.
    Ls,
    /// Move slots to another shard: events and readers go on meanwhile.
    Move(Moving),
    /// Give up the move that is under way: the slots stay where they are.
    Stop,
}

#[derive(clap::Args)]
struct Moving {
    /// Which slots, all of one shard: `0-127,300`.
    #[arg(long, value_name = "SLOTS", required_unless_present = "from", conflicts_with = "from")]
    slots: Option<Slots>,
    /// Or the last slots of this shard, as many as `--count` says.
    #[arg(long, value_name = "SHARD", requires = "count")]
    from: Option<ShardId>,
    /// How many slots of `--from`.
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// The shard that is to own them.
    #[arg(long, value_name = "SHARD")]
    to: ShardId,
    /// Don't wait for the end of the move.
    #[arg(long)]
    no_wait: bool,
}

/// How often it is looked whether a move is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub fn main(arguments: &Arguments) -> Result<(), Failure> {
    desk::run(asked(arguments))
}

async fn asked(arguments: &Arguments) -> Result<(), Failure> {
    let desk = Desk::of(&arguments.asked)?;
    let show = |told: &Value| -> Result<(), Failure> {
        if arguments.asked.json {
            println!("{told}");
        } else {
            table(&read(told)?).print();
        }
        Ok(())
    };
    match &arguments.what {
        What::Ls => show(&desk.ask(Method::GET, &format!("{ROOT}/map")).await?),
        What::Stop => show(&desk.ask(Method::DELETE, &format!("{ROOT}/map/move")).await?),
        What::Move(moving) => {
            let slots = moving.slots(&desk).await?;
            let path = format!("{ROOT}/map/move?slots={slots}&to={}", moving.to);
            let told = desk.ask(Method::POST, &path).await?;
            if moving.no_wait { show(&told) } else { wait(&desk, &slots, moving.to, show).await }
        }
    }
}

impl Moving {
    async fn slots(&self, desk: &Desk) -> Result<Slots, Failure> {
        if let Some(slots) = &self.slots {
            return Ok(slots.clone());
        }
        let state = read(&desk.ask(Method::GET, &format!("{ROOT}/map")).await?)?;
        let (from, count) = (self.from.unwrap_or_default(), self.count.unwrap_or_default());
        let owned = state.map.slots_of(from);
        if count == 0 || count > owned.len() {
            let problem = format!("shard {from} has {} slots, {count} are to move", owned.len());
            return Err(Failure::Refused(format!("{problem}; fix: give --count from 1 to that")));
        }
        Ok(owned.iter().skip(owned.len() - count).collect())
    }
}

/// Waits until the slots belong to the shard, or nothing moves any more.
async fn wait(
    desk: &Desk,
    slots: &Slots,
    to: ShardId,
    show: impl Fn(&Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let began = clock::monotonic();
    loop {
        let told = desk.ask(Method::GET, &format!("{ROOT}/map")).await?;
        let state = read(&told)?;
        if slots.iter().all(|slot| state.map.owner(slot).shard == to) {
            show(&told)?;
            eprintln!("slots {slots} belong to shard {to} after {:.1?}", began.elapsed());
            return Ok(());
        }
        if state.moving.is_none() {
            return Err(Failure::Failed(format!("slots {slots} were not moved: somebody has stopped it")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn read(told: &Value) -> Result<MapState, Failure> {
    serde_json::from_value(told.clone()).map_err(|error| {
        Failure::Failed(format!("the answer is no shard map: {error}; fix: run the same version on both sides"))
    })
}

fn table(state: &MapState) -> Table {
    let mut table = Table::new(&["shard", "slots", "which"]);
    for shard in 0..state.map.shards() {
        let slots = state.map.slots_of(shard);
        table.0.push(vec![shard.to_string(), slots.len().to_string(), slots.to_string()]);
    }
    table.0.push(vec![format!("version {}", state.version())]);
    if let Some(moving) = &state.moving {
        let stage = match moving.stage {
            Stage::Copying => "documents are copied",
            Stage::Held(_) => "events are held",
        };
        let what = format!("{} move from shard {} to shard {}: {stage}", moving.slots, moving.from, moving.to);
        table.0.push(vec!["moving".to_owned(), moving.slots.len().to_string(), what]);
    }
    table
}

#[cfg(test)]
mod tests {
    use millpond_shared::shard_map::FirstMap;

    use super::*;

    #[test]
    fn the_table_tells_of_every_shard_and_of_the_move() {
        let state = MapState::first(FirstMap { version: 1, shards: 2 });
        let state = state.begin("512-515".parse().expect("slots"), 0).expect("begun");
        assert_eq!(
            table(&state).lines(),
            [
                "shard      slots  which",
                "0          512    0-511",
                "1          512    512-1023",
                "version 2",
                "moving     4      512-515 move from shard 1 to shard 0: documents are copied",
            ]
        );
    }
}
