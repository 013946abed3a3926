//! What only the whole of a configuration can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millpond_origin::config::shards::{ShardMapConfig, ShardsConfig};
use millpond_origin::config::{databases, roles, shards as shard_sections, source as source_section};
use millpond_origin::render::{BEFORE, check_template};
use millpond_proxy::rules::{self, Forwarding, Known, Pattern, Query, RuleSet, WrittenRule};
use millpond_shared::config::{At, Complaints, Source};
use millpond_shared::projection::{self, Projection};

use super::{Admin, Config, Log, Proxy, Written, origins, sockets, start};

use crate::token::Token;

/// Levels that `log.level` can name.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Largest template file, in bytes.
const TEMPLATE_MAX_BYTES: usize = 1 << 20;

/// Builds the configuration. `None` where a part is missing without which nothing can be built; every mistake is in
/// `complaints`.
pub fn judge(written: &Written, source: &Source, complaints: &mut Complaints) -> Option<Config> {
    let templates = |file: &At<PathBuf>| template(&folder_of(source, &file.span).join(&file.value));
    let projections = projection::judge(written.projection.as_deref().unwrap_or_default(), &templates, complaints);
    let sources =
        source_section::judge(written.source.as_deref().unwrap_or_default(), written.ingest.is_some(), complaints);
    let ingest = written.ingest.as_ref().and_then(|at| roles::judge_ingest(at, complaints));
    let queue = written.queue.as_ref().and_then(|at| roles::judge_queue(at, complaints));
    let dispatcher = written.dispatcher.as_ref().and_then(|at| roles::judge_dispatcher(at, complaints));
    let shard_map = shard_sections::judge_map(written.shard_map.as_ref(), complaints);
    let shards = written.shards.as_ref().and_then(|at| shard_sections::judge_shards(at, &shard_map.map, complaints));
    let proxy = proxy(written, source, !shard_map.addresses.is_empty(), complaints);
    let log = log(written, complaints);
    let admin = admin(written, source, complaints);

    let databases = databases::judge(
        written.database.as_ref(),
        &projections,
        shards.is_some(),
        |span| folder_of(source, span),
        complaints,
    );

    counterparts(written, complaints);
    every_shard_has_a_place(written, &shard_map, shards.as_ref(), complaints);
    if let Some(proxy) = &proxy {
        pages_can_be_asked_for(written, &projections, &proxy.rules, complaints);
    }
    sockets::judge(written, complaints);
    unused(written, source, complaints);
    Some(Config {
        log,
        admin,
        proxy,
        sources,
        ingest,
        queue,
        dispatcher,
        shard_map,
        shards,
        databases,
        projections: Arc::new(projections),
    })
}

/// The text of a template, once it was read and compiled; the problem and the fix otherwise.
fn template(file: &Path) -> Result<String, (String, String)> {
    let place = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| (format!("{place}: {error}"), "name a file beside this one".to_owned()))?;
    if text.len() > TEMPLATE_MAX_BYTES {
        let fix = format!("keep templates below {TEMPLATE_MAX_BYTES} bytes");
        return Err((format!("{place}: has {} bytes", text.len()), fix));
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    match check_template(&name, &text) {
        Ok(()) => Ok(text),
        Err(problem) => Err((format!("{place}: {problem}"), "mend the template".to_owned())),
    }
}

fn log(written: &Written, complaints: &mut Complaints) -> Log {
    let log = written.log.as_ref().map(|log| &log.value);
    let level = log.and_then(|log| log.level.as_ref());
    if let Some(level) = level.filter(|level| !LEVELS.contains(&level.value.as_str())) {
        let problem = format!("`{}` is no level", level.value);
        complaints.add(level.span.clone(), "log.level", problem, format!("use one of {}", LEVELS.join(", ")));
    }
    if let Some(access) = log.and_then(|log| log.access.as_ref()).filter(|_| written.proxy.is_none()) {
        let problem = "has no effect: there is no [proxy] whose requests could be logged";
        complaints.add(access.span.clone(), "log.access", problem, "remove it, or add [proxy]");
    }
    Log {
        format: log.and_then(|log| log.format.as_ref()).map(|format| format.value).unwrap_or_default(),
        level: level.map_or_else(|| "info".to_owned(), |level| level.value.clone()),
        access: log.and_then(|log| log.access.as_ref()).is_none_or(|access| access.value),
    }
}

fn admin(written: &Written, source: &Source, complaints: &mut Complaints) -> Option<Admin> {
    let at = written.admin.as_ref()?;
    let token =
        at.value.token.as_ref().and_then(|place| match Token::read(&place.value, &folder_of(source, &place.span)) {
            Ok(token) => Some(token),
            Err(problem) => {
                complaints.add(place.span.clone(), "admin.token", problem, Token::FIX);
                None
            }
        });
    let Some(listen) = &at.value.listen else {
        complaints.add(start(at), "admin.listen", "is missing", "say where, as in listen = \"127.0.0.1:9180\"");
        return None;
    };
    match listen.value.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() || at.value.token.is_some() => Some(Admin { listen: address, token }),
        Ok(address) => {
            let problem = format!("{address} is no loopback address, and there is no token");
            let fix = "listen on 127.0.0.1 or [::1], or require a token, as in token = \"env:MILLPOND_TOKEN\"";
            complaints.add(listen.span.clone(), "admin.listen", problem, fix);
            None
        }
        Err(_) => {
            let problem = format!("`{}` is no address", listen.value);
            let fix = "write an IP address and a port, as in \"127.0.0.1:9180\"";
            complaints.add(listen.span.clone(), "admin.listen", problem, fix);
            None
        }
    }
}

/// Folder of the file in which something stands.
fn folder_of(source: &Source, span: &Range<usize>) -> PathBuf {
    let file = source.place(span.start).map_or(source.main_file(), |place| place.file);
    Path::new(file).parent().unwrap_or(Path::new("")).to_owned()
}

fn proxy(written: &Written, source: &Source, shards_elsewhere: bool, complaints: &mut Complaints) -> Option<Proxy> {
    let at = written.proxy.as_ref()?;
    let folder_of = |span: &Range<usize>| folder_of(source, span);
    let (config, certificates) = millpond_proxy::config::judge(at, folder_of, complaints);
    let mut known = Known::default();
    let mut found = BTreeMap::new();
    for (name, origin) in written.origin.iter().flatten() {
        if rules::ROLE_ORIGINS.contains(&name.as_str()) {
            let fix = "give it another name";
            complaints.add(start(origin), format!("origin.{name}"), "is the name of a role of Millpond", fix);
        }
        known.origins.insert(name.clone(), start(origin));
        let servers = origins::judge(name, origin, &folder_of(&origin.span), complaints);
        found.insert(name.clone(), servers);
    }
    let has_projections = written.projection.as_ref().is_some_and(|all| !all.is_empty());
    if has_projections && (written.shards.is_some() || shards_elsewhere) {
        known.origins.insert("shards".to_owned(), 0..0);
    }
    if written.ingest.is_some() {
        known.origins.insert("ingest".to_owned(), 0..0);
    }
    let written_rules = written.rule.as_deref().unwrap_or_default();
    if written_rules.is_empty() {
        complaints.add(start(at), "rule", "there is none, so every request would be refused", "add a [[rule]]");
    }
    let mut rules = rules::judge(written_rules, &known, complaints);
    rules.forwarding = Forwarding::Told { trusted: config.trusted.clone() };
    rules.body_max = Some(config.body_max_bytes);
    Some(Proxy { config, certificates, rules, origins: found })
}

/// Roles need others: here, or at an address.
fn counterparts(written: &Written, complaints: &mut Complaints) {
    let has_queue = written.queue.is_some();
    let mut needs_queue = |role: &str, span: Option<Range<usize>>, queue: Option<&At<String>>| {
        let Some(span) = span else { return };
        match queue {
            None if !has_queue => {
                let problem = "there is no [queue] in this process";
                let fix = "add [queue], or say where one is, as in queue = \"127.0.0.1:7001\"";
                complaints.add(span, format!("{role}.queue"), problem, fix);
            }
            Some(address) if has_queue => {
                let problem = "names a queue elsewhere, but [queue] is in this process";
                complaints.add(address.span.clone(), format!("{role}.queue"), problem, "remove one of the two");
            }
            _ => {}
        }
    };
    let ingest = written.ingest.as_ref();
    needs_queue("ingest", ingest.map(start), ingest.and_then(|at| at.value.queue.as_ref()));
    let dispatcher = written.dispatcher.as_ref();
    needs_queue("dispatcher", dispatcher.map(start), dispatcher.and_then(|at| at.value.queue.as_ref()));
    let shards = written.shards.as_ref();
    needs_queue("shards", shards.map(start), shards.and_then(|at| at.value.queue.as_ref()));

    let none = |list: bool| !list;
    let has_projections = written.projection.as_ref().is_some_and(|all| !all.is_empty());
    let has_sources = written.source.as_ref().is_some_and(|all| !all.is_empty());
    if let Some(at) = dispatcher.filter(|_| none(has_projections)) {
        let problem = "there is no [[projection]], so events would go nowhere";
        complaints.add(start(at), "dispatcher", problem, "add a [[projection]]");
    }
    if let Some(at) = shards.filter(|_| none(has_projections)) {
        complaints.add(start(at), "shards", "there is no [[projection]] to keep", "add a [[projection]]");
    }
    if let Some(at) = ingest.filter(|_| none(has_sources)) {
        complaints.add(start(at), "ingest", "there is no [[source]] to take events from", "add a [[source]]");
    }
    let roles = [
        written.proxy.is_some(),
        written.ingest.is_some(),
        written.queue.is_some(),
        written.dispatcher.is_some(),
        written.shards.is_some(),
    ];
    if roles.iter().all(|declared| !declared) {
        let fix = "add at least one of [proxy], [ingest], [queue], [dispatcher], [shards]";
        complaints.add(None, "", "there is nothing to run", fix);
    }
}

/// A proxy that asks the shards must find each of them.
fn every_shard_has_a_place(
    written: &Written,
    map: &ShardMapConfig,
    here: Option<&ShardsConfig>,
    complaints: &mut Complaints,
) {
    let asks = |rule: &&At<WrittenRule>| rule.value.origin.as_ref().is_some_and(|origin| origin.value == "shards");
    let Some(rule) = written.rule.iter().flatten().find(asks).filter(|_| written.proxy.is_some()) else { return };
    let placed = |shard: &u16| map.addresses.contains_key(shard) || here.is_some_and(|here| here.serve.contains(shard));
    let lost: Vec<String> =
        (0..map.map.shards()).filter(|shard| !placed(shard)).map(|shard| shard.to_string()).collect();
    // Without any place the rule itself is told that there is no such origin.
    if lost.is_empty() || lost.len() == usize::from(map.map.shards()) {
        return;
    }
    let span = written.shard_map.as_ref().map_or_else(|| start(rule), start);
    let problem = format!("a rule asks the shards, but nobody knows where these are: {}", lost.join(", "));
    complaints.add(span, "shard_map.address", problem, "say where, as in \"127.0.0.1:7101\" = [0, 1]");
}

/// A page of a document is named by a query parameter: through a rule that leaves it out, every page would be the first.
fn pages_can_be_asked_for(written: &Written, projections: &[Projection], rules: &RuleSet, complaints: &mut Complaints) {
    let written = written.rule.as_deref().unwrap_or_default();
    // Where some have mistakes of their own, it is not known which is which.
    if written.len() != rules.rules.len() {
        return;
    }
    let mut told = BTreeSet::new();
    for projection in projections {
        for output in projection.outputs.iter().filter(|output| output.page.is_some()) {
            let any_key = vec!["*"; projection.key.slashes() + 1].join("/");
            let Ok(path) = output.path.path_of(&any_key).parse::<Pattern>() else { continue };
            for ((index, rule), at) in rules.rules.iter().enumerate().zip(written) {
                if !rule.matches.path.covers(&path) {
                    continue;
                }
                let leaves_it_out =
                    matches!(&rule.query, Query::Only(names) if !names.iter().any(|name| name == BEFORE));
                if rule.origin == "shards" && leaves_it_out && told.insert(index) {
                    let span = at.value.key.as_ref().map_or_else(|| start(at), |key| key.span.clone());
                    let problem = format!("leaves `{BEFORE}` out, which names the pages of {}", output.path.as_str());
                    complaints.add(span, format!("rule[{index}].key"), problem, format!("add \"{BEFORE}\" to `query`"));
                }
                // What it takes, no other rule gets.
                if rule.matches.host.is_none() && rule.matches.methods.is_empty() {
                    break;
                }
            }
        }
    }
}

/// Sections of the main file that nothing uses. In an included file they may be there for other processes.
fn unused(written: &Written, source: &Source, complaints: &mut Complaints) {
    let in_main = |span: &Range<usize>| source.place(span.start).is_some_and(|place| place.file == source.main_file());
    let mut tell = |span: Range<usize>, field: String, problem: &str, fix: &str| {
        if in_main(&span) {
            complaints.add(span, field, problem, fix);
        }
    };
    if written.proxy.is_none() {
        for (index, rule) in written.rule.iter().flatten().enumerate() {
            tell(start(rule), format!("rule[{index}]"), "has no effect without [proxy]", "add [proxy], or remove it");
        }
        for (name, origin) in written.origin.iter().flatten() {
            tell(start(origin), format!("origin.{name}"), "has no effect without [proxy]", "add [proxy], or remove it");
        }
    }
    if written.ingest.is_none() {
        for (index, at) in written.source.iter().flatten().enumerate() {
            tell(start(at), format!("source[{index}]"), "has no effect without [ingest]", "add [ingest], or remove it");
        }
    }
    let uses_projections = written.dispatcher.is_some() || written.shards.is_some() || written.proxy.is_some();
    if !uses_projections {
        for (index, at) in written.projection.iter().flatten().enumerate() {
            let fix = "add [dispatcher], [shards] or [proxy], or remove it";
            tell(start(at), format!("projection[{index}]"), "has no effect", fix);
        }
        if let Some(at) = &written.shard_map {
            let fix = "add [dispatcher], [shards] or [proxy], or remove it";
            tell(start(at), "shard_map".to_owned(), "has no effect", fix);
        }
    }
}
