//! PostgreSQL: a row for each document, replaced by later versions only.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Database, DatabaseError, DatabaseMetrics, DatabaseRow};

/// How long connecting may take, unless the address says something else.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long a statement may take.
const STATEMENT_WAIT: Duration = Duration::from_secs(60);
/// Longest part of a table's name, in bytes: PostgreSQL cuts off what is longer.
const NAME_MAX: usize = 63;

/// Where a table of documents is.
#[derive(Clone, Debug)]
pub struct Settings {
    address: tokio_postgres::Config,
    /// Fit to stand in a statement.
    table: String,
}

impl Settings {
    /// Reads `postgres://user:password@host:port/name?…`, and the name of a table that [`is_table`].
    pub fn new(address: &str, table: impl AsRef<str>) -> Result<Settings, String> {
        // What it says of a mistake may quote a password.
        let mut address: tokio_postgres::Config =
            address.parse().map_err(|_| "what is there is no address of a database".to_owned())?;
        if address.get_hosts().is_empty() {
            return Err("the address that is there names no host".to_owned());
        }
        if address.get_connect_timeout().is_none() {
            address.connect_timeout(CONNECT_WAIT);
        }
        if address.get_application_name().is_none() {
            address.application_name("millpond");
        }
        let table = table.as_ref().split('.').map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(".");
        Ok(Settings { address, table })
    }
}

/// Whether `name` names a table, alone or with its schema, in small letters, digits and `_`.
pub fn is_table(name: &str) -> bool {
    let is_part = |part: &str| {
        let starts = part.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
        starts
            && part.len() <= NAME_MAX
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    name.split('.').count() <= 2 && name.split('.').all(is_part)
}

/// A database, connected to when there is something to write.
pub struct Postgres {
    name: String,
    settings: Settings,
    tls: MakeRustlsConnect,
    metrics: DatabaseMetrics,
    /// Shards take turns.
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    client: Client,
    put: Statement,
}

impl Postgres {
    /// Connects to nobody yet. Who vouches for servers that are spoken to by TLS: those that this machine trusts, or
    /// those of the file that the environment variable `SSL_CERT_FILE` names.
    pub fn new(name: String, settings: Settings, metrics: DatabaseMetrics) -> Result<Postgres, String> {
        let mut roots = RootCertStore::empty();
        if settings.address.get_ssl_mode() != SslMode::Disable {
            // Some in a store are odd, as they are in most.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS can't be set up: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Postgres { name, settings, tls: MakeRustlsConnect::new(config), metrics, connection: Mutex::new(None) })
    }

    async fn connect(&self) -> Result<Connection, tokio_postgres::Error> {
        let (client, connection) = self.settings.address.connect(self.tls.clone()).await?;
        // It ends with the client.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let table = &self.settings.table;
        let missing = client.query_one("SELECT to_regclass($1) IS NULL", &[table]).await?;
        if missing.try_get::<_, bool>(0)? {
            client.batch_execute(&create(table)).await?;
        }
        let put = client.prepare(&upsert(table)).await?;
        Ok(Connection { client, put })
    }

    /// Writes the rows, and tells how many were later than what was there.
    async fn write(connection: &Connection, rows: &[DatabaseRow]) -> Result<u64, tokio_postgres::Error> {
        let text = |of: fn(&DatabaseRow) -> &str| rows.iter().map(of).collect::<Vec<_>>();
        let number = |of: fn(&DatabaseRow) -> u64| {
            rows.iter().map(|row| i64::try_from(of(row)).unwrap_or(i64::MAX)).collect::<Vec<_>>()
        };
        let (projections, keys) = (text(|row| &row.projection), text(|row| &row.key));
        let documents = text(|row| &row.document);
        let (epochs, positions) = (number(|row| row.version.epoch.into()), number(|row| row.version.position));
        connection.client.execute(&connection.put, &[&projections, &keys, &epochs, &positions, &documents]).await
    }

    /// Writes rows one by one where one of them can't be held, so that the others are not held up by it.
    async fn write_each(&self, connection: &Connection, rows: &[DatabaseRow]) -> Result<u64, tokio_postgres::Error> {
        let mut written = 0;
        for row in rows {
            match Self::write(connection, std::slice::from_ref(row)).await {
                Ok(count) => written += count,
                Err(error) if is_about_data(&error) => {
                    let (projection, key) = (&row.projection, &row.key);
                    let problem = in_words(&error);
                    tracing::warn!(
                        database = self.name,
                        projection,
                        key,
                        problem,
                        "the database can't hold a document"
                    );
                    self.count("refused", 1);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    async fn put_all(&self, connection: &Connection, rows: &[DatabaseRow]) -> Result<u64, tokio_postgres::Error> {
        match Self::write(connection, rows).await {
            Err(error) if is_about_data(&error) => self.write_each(connection, rows).await,
            outcome => outcome,
        }
    }

    fn count(&self, outcome: &str, rows: u64) {
        self.metrics.rows.with_label_values(&[self.name.as_str(), outcome]).inc_by(rows);
    }
}

#[async_trait]
impl Database for Postgres {
    async fn put(&self, rows: &[DatabaseRow]) -> Result<(), DatabaseError> {
        let mut held = self.connection.lock().await;
        let outcome = async {
            let connection = match held.take().filter(|connection| !connection.client.is_closed()) {
                Some(connection) => connection,
                None => self.connect().await.map_err(|error| in_words(&error))?,
            };
            let written = timeout(STATEMENT_WAIT, self.put_all(&connection, rows)).await;
            let written = written.map_err(|_| format!("no answer within {STATEMENT_WAIT:?}"))?;
            let written = written.map_err(|error| in_words(&error))?;
            Ok((connection, written))
        };
        match outcome.await {
            Ok((connection, written)) => {
                *held = Some(connection);
                self.count("written", written);
                self.count("older", (rows.len() as u64).saturating_sub(written));
                Ok(())
            }
            Err(problem) => {
                self.metrics.failures.with_label_values(&[self.name.as_str()]).inc();
                Err(DatabaseError(problem))
            }
        }
    }
}

fn create(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (\
         projection text NOT NULL, key text NOT NULL, epoch bigint NOT NULL, position bigint NOT NULL, document jsonb NOT NULL, \
         written_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (projection, key))"
    )
}

fn upsert(table: &str) -> String {
    format!(
        "INSERT INTO {table} AS there (projection, key, epoch, position, document) \
         SELECT projection, key, epoch, position, document::jsonb \
         FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[]) \
         AS new (projection, key, epoch, position, document) \
         ON CONFLICT (projection, key) DO UPDATE SET epoch = excluded.epoch, position = excluded.position, \
         document = excluded.document, written_at = now() \
         WHERE (there.epoch, there.position) < (excluded.epoch, excluded.position)"
    )
}

/// Whether the rows are what is wrong: data that it can't hold (class 22), or too much of it (class 54).
fn is_about_data(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|state: &SqlState| state.code().starts_with("22") || state.code().starts_with("54"))
}

/// With its causes: the error by itself says little more than where it happened.
fn in_words(error: &tokio_postgres::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(words, ": {error}");
        cause = error.source();
    }
    words
}

/// JSON as `jsonb` takes it: a NUL in a string, which it can't store, becomes U+FFFD. `None` if it is no JSON.
pub fn storable(json: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(json).ok()?;
    if !text.contains("\\u0000") {
        return Some(text.to_owned());
    }
    let mut value = serde_json::from_str(text).ok()?;
    without_nul(&mut value);
    Some(value.to_string())
}

fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace('\0', "\u{FFFD}"),
        Value::Array(values) => values.iter_mut().for_each(without_nul),
        Value::Object(members) => {
            let replaced = std::mem::take(members).into_iter().map(|(name, mut value)| {
                without_nul(&mut value);
                (name.replace('\0', "\u{FFFD}"), value)
            });
            *members = replaced.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables() {
        for name in ["reports", "a.b", "_x1", &"a".repeat(63)] {
            assert!(is_table(name), "{name}");
        }
        for name in ["", "a.b.c", "1a", "a b", "A", "a\"", "a.", &"a".repeat(64)] {
            assert!(!is_table(name), "{name}");
        }
        let settings = Settings::new("postgres://u:p@h/d", "a.b").expect("an address");
        assert_eq!(settings.table, "\"a\".\"b\"");
    }

    #[test]
    fn what_is_no_address_is_told_without_quoting_it() {
        for address in ["", "nonsense=secret", "postgres://u:secret@h:port/d", "user=u password=secret"] {
            let problem = Settings::new(address, "t").expect_err(address);
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn nul_is_replaced_where_it_is_one() {
        for (json, stored) in [
            (r#"{"a":"b"}"#, r#"{"a":"b"}"#),
            (r#"{"a\u0000":["\u0000x"]}"#, "{\"a\u{FFFD}\":[\"\u{FFFD}x\"]}"),
            (r#"{"a":"\\u0000"}"#, r#"{"a":"\\u0000"}"#),
        ] {
            assert_eq!(storable(json.as_bytes()).as_deref(), Some(stored), "{json}");
        }
        assert_eq!(storable(b"\\u0000"), None);
    }
}
