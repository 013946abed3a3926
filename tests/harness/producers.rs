//! The whole pipeline in one process, for tests that post to it: on its ingest socket, or through its proxy.

use super::process::Millpond;

/// The secret of sources whose requests are signed, as base64; they name it `file:secret`.
pub const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Runs it with these sources and these settings of `[ingest]`, as TOML. What users do is at `/users/USER.json`.
pub fn pond_with(sources: &str, ingest: &str) -> Millpond {
    let config = format!(
        r#"
log = {{ format = "json", access = false }}
proxy = {{ listen = ["127.0.0.1:0"] }}
admin = {{ listen = "127.0.0.1:0" }}
queue = {{ dir = "queue", event_queues = 2 }}
shards = {{ dir = "shards" }}

[ingest]
listen = "127.0.0.1:0"
{ingest}

[dispatcher]

[[rule]]
match = "/events/**"
origin = "ingest"

[[rule]]
match = "/**"
origin = "shards"
{sources}
[[projection]]
name = "by-user"
kind = "feed"
key = "{{data.user}}"
item = {{ id = "{{id}}" }}

  [[projection.output]]
  path = "/users/{{key}}.json"
  format = "json"
"#
    );
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("secret"), format!("whsec_{SECRET}\n")).expect("written");
    std::fs::write(dir.path().join("millpond.toml"), config).expect("written");
    let args = ["run", "--config", "millpond.toml"];
    Millpond::start_in(dir.path(), &args, &["proxy", "ingest", "admin"]).keeping(dir)
}
