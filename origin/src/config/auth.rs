//! `auth` of a `[[source]]`: who may send to it.

use std::path::Path;
use std::time::Duration;

use millpond_shared::config::{At, Seconds};
use schemars::JsonSchema;
use serde::Deserialize;

use super::place;
use super::section::Section;
use crate::api::ingest::Auth;
use crate::api::ingest::auth::{SECRETS_MAX, Secret, Secrets, SignedUrl, Webhooks};

/// Who may send to a source, and how that is known.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Auth")]
pub struct WrittenAuth {
    /// `none`: anybody (the default); `standard-webhooks`: requests are signed; `signed-url`: getting a signed URL is
    /// an event.
    pub kind: Option<At<String>>,
    /// 1 to 8 secrets, any of which will do: `"env:NAME"` or `"file:PATH"`, which hold `whsec_` and the base64 of 24 to
    /// 64 bytes.
    pub secrets: Option<At<Vec<At<String>>>>,
    /// With `standard-webhooks`: how far `webhook-timestamp` may be from now; `5m` unless given, at most `dedupe`.
    pub tolerance: Option<At<Seconds>>,
}

const TOLERANCE_DEFAULT: Duration = Duration::from_secs(300);
const TOLERANCE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// `None` if something is wrong with it. `window`: how long ids of the source are remembered. Secrets are read only if
/// the source is `served` here: no other process need have them.
pub(super) fn judge(
    section: &mut Section<'_>,
    written: Option<&At<WrittenAuth>>,
    window: Duration,
    served: bool,
) -> Option<Auth> {
    let Some(at) = written else { return Some(Auth::None) };
    let auth = &at.value;
    let kind = auth.kind.as_ref().map_or("none", |kind| kind.value.as_str());
    if kind != "standard-webhooks"
        && let Some(tolerance) = &auth.tolerance
    {
        section.wrong("auth.tolerance", tolerance, "has no effect", "remove it, or use kind = \"standard-webhooks\"");
    }
    match kind {
        "none" => {
            if let Some(secrets) = &auth.secrets {
                let fix = "remove them, or use kind = \"standard-webhooks\"";
                section.wrong("auth.secrets", secrets, "have no effect", fix);
            }
            Some(Auth::None)
        }
        "standard-webhooks" => {
            let (secrets, tolerance) = (secrets(section, at, served), tolerance(section, auth, window));
            Some(Auth::Webhooks(Webhooks { secrets: secrets?, tolerance: tolerance? }))
        }
        "signed-url" => Some(Auth::SignedUrl(SignedUrl { secrets: secrets(section, at, served)? })),
        other => {
            let problem = format!("`{other}` is no kind of authentication");
            let fix = "use `none`, `standard-webhooks` or `signed-url`";
            section.wrong("auth.kind", auth.kind.as_ref().unwrap_or(&At::nowhere(String::new())), problem, fix);
            None
        }
    }
}

/// A repeat is known by its ids, so these must be remembered as long as its signature counts.
fn tolerance(section: &mut Section<'_>, auth: &WrittenAuth, window: Duration) -> Option<Duration> {
    let Some(at) = &auth.tolerance else { return Some(TOLERANCE_DEFAULT.min(window)) };
    let seconds = |duration: Duration| format!("\"{}s\"", duration.as_secs_f64());
    let found =
        section.in_range("auth.tolerance", Some(at), |tolerance| tolerance.0, TOLERANCE_DEFAULT, TOLERANCE, seconds);
    if found > window {
        let problem = format!("is longer than ids are remembered ({})", seconds(window));
        section.wrong("auth.tolerance", at, problem, "raise dedupe to it, or lower it");
        return None;
    }
    Some(found)
}

fn secrets(section: &mut Section<'_>, at: &At<WrittenAuth>, served: bool) -> Option<Secrets> {
    let fix = "name where it is, as in secrets = [\"env:WIKI_SECRET\"]";
    let Some(written) = &at.value.secrets else {
        section.wrong("auth.secrets", at, "is missing", fix);
        return None;
    };
    if written.value.is_empty() || written.value.len() > SECRETS_MAX {
        section.wrong("auth.secrets", written, "has not between 1 and 8 secrets", fix);
        return None;
    }
    if !served {
        return Some(Secrets::new(Vec::new()));
    }
    let mut secrets = Vec::new();
    for at in &written.value {
        match secret(&at.value) {
            Ok(secret) => secrets.push(secret),
            Err(problem) => {
                let fix = "put `whsec_` and the output of `openssl rand -base64 32` there";
                section.wrong("auth.secrets", at, problem, fix);
            }
        }
    }
    (secrets.len() == written.value.len()).then(|| Secrets::new(secrets))
}

/// The secret that is at `env:NAME` or in `file:PATH`.
pub fn secret(place: &str) -> Result<Secret, String> {
    let text = place::read(place, Path::new(""))?;
    Secret::parse(&text).map_err(|problem| format!("what {place} holds {problem}"))
}
