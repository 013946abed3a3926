//! Logs go to stderr, as text or as JSON, one line an event.

use schemars::JsonSchema;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Starts logging; to be called once. The environment variable `MILLPOND_LOG` overrides `level`
/// (`debug`, or `info,millpond_origin=debug`).
pub fn start(format: Format, level: &str) {
    let directives = std::env::var("MILLPOND_LOG").unwrap_or_else(|_| level.to_owned());
    // pingora and the transport report every lost connection; what matters of it is in our own lines.
    let filter = EnvFilter::builder()
        .parse_lossy(format!("{directives},pingora_core=warn,pingora_pool=warn,pingora_runtime=warn"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(BoxMakeWriter::new(std::io::stderr))
        .with_ansi(false);
    // A second start (in one test process) keeps the first.
    let _ = match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
}
