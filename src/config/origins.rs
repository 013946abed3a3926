//! `[origin.NAME]`: servers, and how they are spoken to.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use millpond_proxy::rules::{WrittenOrigin, WrittenOriginTls};
use millpond_proxy::tls::{Authorities, Certificate, OriginTls, Part};
use millpond_proxy::upstreams::{Endpoint, Location, ServerName, server_name};
use millpond_shared::config::{At, Complaints};

use super::start;

/// `folder`: of the file that the origin is declared in.
pub fn judge(name: &str, at: &At<WrittenOrigin>, folder: &Path, complaints: &mut Complaints) -> Vec<Endpoint> {
    let mut judge = Judge { field: format!("origin.{name}"), folder, complaints };
    let before = judge.complaints.len();
    let servers = judge.servers(at);
    let speaks_tls = at.value.tls.is_some() || servers.iter().any(|(_, server)| server.tls == Some(true));
    if !speaks_tls {
        return servers.iter().filter_map(|(at, server)| judge.address(at, server)).map(Endpoint::from).collect();
    }
    judge.all_speak_it(&servers, at.value.tls.is_some());
    let nothing = WrittenOriginTls::default();
    let written = at.value.tls.as_ref().map_or(&nothing, |tls| &tls.value);
    let tls = judge.tls(at, written);
    let mut endpoints = Vec::new();
    for (at, server) in &servers {
        let name = match &written.server_name {
            Some(name) => judge.server_name(name),
            None => judge.name_of(at, server),
        };
        if let (Some(address), Some(name), Some(tls)) = (judge.address(at, server), name, &tls) {
            endpoints.push(Endpoint::secured(address, tls, name));
        }
    }
    if judge.complaints.len() == before { endpoints } else { Vec::new() }
}

struct Judge<'a> {
    field: String,
    folder: &'a Path,
    complaints: &'a mut Complaints,
}

type Span = Range<usize>;

impl Judge<'_> {
    fn wrong(&mut self, field: &str, span: Span, problem: impl Into<String>, fix: impl Into<String>) {
        self.complaints.add(span, format!("{}.{field}", self.field), problem, fix);
    }

    fn servers<'a>(&mut self, at: &'a At<WrittenOrigin>) -> Vec<(&'a At<String>, Location)> {
        let servers = at.value.servers.as_ref().map(|servers| servers.value.as_slice()).unwrap_or_default();
        if servers.is_empty() {
            self.wrong("servers", start(at), "is missing or empty", "list HOST:PORT, as in [\"127.0.0.1:9000\"]");
        }
        let mut all = Vec::new();
        for server in servers {
            match server.value.parse::<Location>() {
                Ok(location) => all.push((server, location)),
                Err(none) => {
                    let problem = format!("`{}` {}", server.value, none.problem);
                    self.wrong("servers", server.span.clone(), problem, none.fix);
                }
            }
        }
        all
    }

    /// Names are looked up once, at load.
    fn address(&mut self, at: &At<String>, server: &Location) -> Option<SocketAddr> {
        let found = server.look_up().ok().flatten();
        if found.is_none() {
            let problem = format!("`{}` is no address that can be found", at.value);
            self.wrong("servers", at.span.clone(), problem, "write HOST:PORT, as in \"127.0.0.1:9000\"");
        }
        found
    }

    /// What is encrypted to one server should not go to the next in the clear.
    fn all_speak_it(&mut self, servers: &[(&At<String>, Location)], has_settings: bool) {
        for (at, server) in servers {
            if server.tls == Some(false) || (server.tls.is_none() && !has_settings) {
                let problem = format!("`{}` would be spoken to without TLS, and others with it", at.value);
                self.wrong("servers", at.span.clone(), problem, "write it with https://, or in an origin of its own");
            }
        }
    }

    fn tls(&mut self, at: &At<WrittenOrigin>, written: &WrittenOriginTls) -> Option<OriginTls> {
        let (authorities, shown) = (self.authorities(at, written), self.shown(written));
        match OriginTls::new(authorities?, shown?.as_ref()) {
            Ok(tls) => Some(tls),
            Err(error) => {
                self.wrong("tls", start(at), format!("can't be spoken: {error}"), "report this");
                None
            }
        }
    }

    fn authorities(&mut self, at: &At<WrittenOrigin>, written: &WrittenOriginTls) -> Option<Authorities> {
        let (field, span, read) = match &written.ca {
            Some(ca) => ("tls.ca", ca.span.clone(), Authorities::read(&self.folder.join(&ca.value))),
            None => ("tls", start(at), Authorities::of_this_machine()),
        };
        match read {
            Ok(authorities) => Some(authorities),
            Err(none) => {
                self.wrong(field, span, none.problem, none.fix);
                None
            }
        }
    }

    /// What servers are shown that ask who we are, if there is anything.
    fn shown(&mut self, written: &WrittenOriginTls) -> Option<Option<Certificate>> {
        let (cert, key) = match (&written.cert, &written.key) {
            (None, None) => return Some(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(alone), None) => return self.alone("tls.cert", alone, "its private key, as in key"),
            (None, Some(alone)) => return self.alone("tls.key", alone, "its certificate, as in cert"),
        };
        match Certificate::read(&self.folder.join(&cert.value), &self.folder.join(&key.value)) {
            Ok(certificate) => Some(Some(certificate)),
            Err(unusable) => {
                let (field, at) = match unusable.part {
                    Part::Cert => ("tls.cert", cert),
                    Part::Key => ("tls.key", key),
                };
                self.wrong(field, at.span.clone(), unusable.problem, unusable.fix);
                None
            }
        }
    }

    fn alone<T>(&mut self, field: &str, at: &At<PathBuf>, missing: &str) -> Option<T> {
        let fix = format!("name {missing} = \"client.pem\", or remove it");
        self.wrong(field, at.span.clone(), "is of no use alone", fix);
        None
    }

    fn server_name(&mut self, written: &At<String>) -> Option<ServerName<'static>> {
        let name = server_name(&written.value);
        if name.is_none() {
            let problem = match written.value.as_str() {
                "" => "is empty: nobody's certificate would be asked for".to_owned(),
                other => format!("`{other}` is no name that a certificate can be for"),
            };
            let fix = "name a host, as in \"api.example.com\", or remove it, which means the host of each server";
            self.wrong("tls.server_name", written.span.clone(), problem, fix);
        }
        name
    }

    /// The name that a server's certificate has to be for where none is given.
    fn name_of(&mut self, at: &At<String>, server: &Location) -> Option<ServerName<'static>> {
        let name = server.server_name();
        if name.is_none() {
            let problem = format!("`{}` has a host that no certificate can be for", at.value);
            self.wrong("servers", at.span.clone(), problem, "give tls = { server_name = \"api.example.com\" }");
        }
        name
    }
}
