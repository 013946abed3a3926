//! Asking the desk of the queues: what the commands for operators have in common.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use millpond_origin::http::Client;
use serde_json::Value;

use crate::Failure;
use crate::token::Token;

/// Who is asked, and how the answer is shown.
#[derive(clap::Args)]
pub struct Asked {
    /// The admin socket of a process that has [queue], or the queue role's own socket.
    #[arg(long, value_name = "HOST:PORT", global = true, default_value = "127.0.0.1:9181")]
    at: String,
    /// Where the token of the admin socket is, if it has one: env:NAME or file:PATH.
    #[arg(long, value_name = "PLACE", global = true)]
    token: Option<String>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// For each answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Runs a command to its end.
pub fn run(asking: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("no runtime: {error}")))?;
    runtime.block_on(asking)
}

/// The socket that is asked.
pub struct Desk {
    client: Client,
    token: Option<Token>,
}

impl Desk {
    pub fn of(arguments: &Asked) -> Result<Desk, Failure> {
        let read = |place: &String| Token::read(place, Path::new("")).map_err(|problem| (place.clone(), problem));
        let token = arguments.token.as_ref().map(read).transpose();
        let token = token
            .map_err(|(place, problem)| Failure::Refused(format!("--token {place}: {problem}; fix: {}", Token::FIX)))?;
        Ok(Desk { client: Client::new(arguments.at.as_str()), token })
    }

    pub async fn ask(&self, method: Method, path: &str) -> Result<Value, Failure> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.field());
        }
        let request = request.body(Bytes::new()).map_err(Failure::from_display)?;
        let answer = self.client.call(request, ANSWER_TIME).await.map_err(Failure::from_display)?;
        let (authority, status) = (self.client.authority(), answer.status());
        let told: Value = serde_json::from_slice(answer.body()).map_err(|_| {
            let fix = "name the admin socket of a process with [queue], or a queue role's";
            Failure::Failed(format!("{authority} answers what is no JSON ({status}); fix: {fix}"))
        })?;
        if status.is_success() {
            return Ok(told);
        }
        let fix = told["fix"].as_str().map(|fix| format!("; fix: {fix}")).unwrap_or_default();
        let error = told["error"].as_str().unwrap_or_default();
        Err(Failure::Failed(format!("{authority} answers {status}: {error}{fix}")))
    }
}

/// Rows of words, the first of them the names of the columns.
#[derive(Debug, PartialEq, Eq)]
pub struct Table(pub Vec<Vec<String>>);

impl Table {
    pub fn new(columns: &[&str]) -> Table {
        Table(vec![columns.iter().map(|column| (*column).to_owned()).collect()])
    }

    pub fn lines(&self) -> Vec<String> {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let cell_width =
            |column: usize| self.0.iter().filter_map(move |row| row.get(column)).map(|cell| cell.chars().count());
        let widths: Vec<usize> = (0..columns).map(|column| cell_width(column).max().unwrap_or(0)).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.0.iter().map(line).collect()
    }

    pub fn print(&self) {
        self.lines().iter().for_each(|line| println!("{line}"));
    }
}

pub fn list<'a>(told: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    told[name].as_array().into_iter().flatten()
}

pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
