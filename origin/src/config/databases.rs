//! `[database.NAME]`: another database that documents are sent to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use millpond_shared::config::{At, Complaints};
use millpond_shared::projection::{Kind, Projection};
use schemars::JsonSchema;
use serde::Deserialize;

use super::place;
use super::section::Section;
use crate::database::postgres;

/// A PostgreSQL database to which the shards of this process send documents, for reports and billing.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Database")]
pub struct WrittenDatabase {
    /// Where its address is: `"env:NAME"`, or `"file:PATH"` named from the folder of this file, which hold
    /// `postgres://user:password@host:5432/name`, with `?sslmode=require` for TLS.
    pub url: Option<At<String>>,
    /// The table, `table` or `schema.table`; `millpond_documents` unless given. It is made if it is not there.
    pub table: Option<At<String>>,
    /// Names of the projections whose documents go there.
    pub projections: Option<At<Vec<At<String>>>>,
}

/// A database, and what goes there.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    pub name: String,
    pub settings: postgres::Settings,
    /// Names of projections.
    pub projections: Vec<String>,
}

const TABLE_DEFAULT: &str = "millpond_documents";

/// Builds the databases. Where their addresses are is looked at only if shards are `served` here: no other process need
/// have them. `folder_of` tells the folder of the file in which something stands.
pub fn judge(
    written: Option<&BTreeMap<String, At<WrittenDatabase>>>,
    projections: &[Projection],
    served: bool,
    folder_of: impl Fn(&Range<usize>) -> PathBuf,
    complaints: &mut Complaints,
) -> Vec<DatabaseConfig> {
    let mut databases = Vec::new();
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for (name, at) in written.into_iter().flatten() {
        let mut section = Section::new(format!("database.{name}"), at, complaints);
        let table = table(&mut section, at.value.table.as_ref());
        let names = names(&mut section, name, at, projections, &mut taken);
        let Some(url) = &at.value.url else {
            section.missing("url", "say where its address is, as in url = \"env:REPORTS_URL\"");
            continue;
        };
        let folder = folder_of(&url.span);
        let address = if served { place::read(&url.value, &folder) } else { continue };
        match address.and_then(|address| postgres::Settings::new(address.trim_ascii(), table)) {
            Ok(settings) => databases.push(DatabaseConfig { name: name.clone(), settings, projections: names }),
            Err(problem) => {
                let fix = "put its address there, as in postgres://user:password@host:5432/name";
                section.wrong("url", url, problem, fix);
            }
        }
    }
    databases
}

fn table(section: &mut Section<'_>, written: Option<&At<String>>) -> String {
    let Some(at) = written else { return TABLE_DEFAULT.to_owned() };
    if postgres::is_table(&at.value) {
        return at.value.clone();
    }
    let fix = "use small letters, digits and `_`, as in \"reports\" or \"millpond.reports\"";
    section.wrong("table", at, format!("`{}` is no name of a table", at.value), fix);
    TABLE_DEFAULT.to_owned()
}

fn names(
    section: &mut Section<'_>,
    database: &str,
    at: &At<WrittenDatabase>,
    projections: &[Projection],
    taken: &mut BTreeMap<String, String>,
) -> Vec<String> {
    let Some(list) = &at.value.projections else {
        section.missing("projections", "list the projections to send, as in projections = [\"page-state\"]");
        return Vec::new();
    };
    if list.value.is_empty() {
        section.wrong("projections", list, "is empty", "list the projections to send, or remove the database");
    }
    let mut names = Vec::new();
    for at in &list.value {
        let name = &at.value;
        let declared = projections.iter().find(|projection| projection.name == *name);
        if declared.is_some_and(|declared| matches!(declared.kind, Kind::Home(_))) {
            let problem = format!("`{name}` is a home, whose documents are whole only when they are read");
            section.wrong("projections", at, problem, "send its feed and its edges, or remove it");
        } else if declared.is_none() {
            let problem = format!("there is no projection `{name}`");
            section.wrong("projections", at, problem, "name a [[projection]], or remove it");
        } else if let Some(other) = taken.insert(name.clone(), database.to_owned()) {
            let problem = format!("`{name}` is sent to `{other}` already");
            section.wrong("projections", at, problem, "send it to one database, and from there to others");
        } else {
            names.push(name.clone());
        }
    }
    names
}
