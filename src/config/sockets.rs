//! The sockets of one process: every role can be reached, and no two ask for one address.

use std::net::SocketAddr;
use std::ops::Range;

use millpond_shared::config::Complaints;

use super::{Written, start};

pub fn judge(written: &Written, complaints: &mut Complaints) {
    reachable(written, complaints);
    distinct(written, complaints);
}

/// A role that nobody can reach has no effect.
fn reachable(written: &Written, complaints: &mut Complaints) {
    let rules = || written.rule.iter().flatten().filter(|_| written.proxy.is_some());
    let has_rule = |role: &str| rules().any(|rule| rule.value.origin.as_ref().is_some_and(|at| at.value == role));
    let mut unreached = |role: &str, span: Range<usize>, by: String, fix: String| {
        let problem = format!("is missing, and {by}: nobody can reach it");
        complaints.add(span, format!("{role}.listen"), problem, fix);
    };
    let ingest = written.ingest.as_ref().filter(|at| at.value.listen.is_none()).map(start);
    let shards = written.shards.as_ref().filter(|at| at.value.listen.is_none()).map(start);
    for (role, silent, example) in [("ingest", ingest, "127.0.0.1:7002"), ("shards", shards, "127.0.0.1:7101")] {
        if let Some(span) = silent.filter(|_| !has_rule(role)) {
            let fix = format!("listen on an address, as in \"{example}\", or add such a rule");
            unreached(role, span, format!("no rule has origin = \"{role}\""), fix);
        }
    }
    let is_used = written.ingest.is_some() || written.dispatcher.is_some() || written.shards.is_some();
    if let Some(at) = written.queue.as_ref().filter(|at| at.value.listen.is_none() && !is_used) {
        let by = "no role of this process uses it".to_owned();
        unreached("queue", start(at), by, "listen on an address, as in \"127.0.0.1:7001\"".to_owned());
    }
}

/// Two sockets on one address: the second could not be opened.
fn distinct(written: &Written, complaints: &mut Complaints) {
    let single = [
        ("admin.listen", written.admin.as_ref().and_then(|at| at.value.listen.as_ref())),
        ("ingest.listen", written.ingest.as_ref().and_then(|at| at.value.listen.as_ref())),
        ("queue.listen", written.queue.as_ref().and_then(|at| at.value.listen.as_ref())),
        ("shards.listen", written.shards.as_ref().and_then(|at| at.value.listen.as_ref())),
    ];
    let proxy = written.proxy.as_ref().map(|at| &at.value);
    let cleartext = proxy.and_then(|proxy| proxy.listen.as_ref()).into_iter().flat_map(|at| &at.value);
    let tls = proxy.and_then(|proxy| proxy.tls_listen.as_ref()).into_iter().flat_map(|at| &at.value);
    let of_proxy = cleartext.map(|at| ("proxy.listen", at)).chain(tls.map(|at| ("proxy.tls_listen", at)));
    let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
    for (field, at) in of_proxy.chain(single.into_iter().filter_map(|(field, at)| Some((field, at?)))) {
        let Ok(address) = at.value.parse::<SocketAddr>() else { continue };
        let same = |other: &SocketAddr| {
            let ip = other.ip() == address.ip() || other.ip().is_unspecified() || address.ip().is_unspecified();
            ip && other.port() == address.port() && address.port() != 0
        };
        // That a list names an address twice is told where the list is judged.
        if let Some((other, _)) = taken.iter().find(|(other, taken)| *other != field && same(taken)) {
            let problem = format!("{address} is taken by {other}");
            complaints.add(at.span.clone(), field, problem, "give each its own port");
        }
        taken.push((field, address));
    }
}
