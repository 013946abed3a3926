//! Who may send: signed requests and signed URLs, over queues on forgetful disks.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use millpond_shared::template::encode_key_part;
use ring::hmac;
use serde_json::{Value, json};

use super::auth::{Secret, Secrets, SignedUrl, Webhooks, signature};
use super::tests::{Rig, rig_of, source};
use super::*;
use crate::queue::testing::Machine;

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn secrets(texts: &[&str]) -> Secrets {
    Secrets::new(texts.iter().map(|text| Secret::parse(text).unwrap()).collect())
}

fn rig(machine: Machine) -> Rig {
    let mut signed = source("signed");
    signed.auth = Auth::Webhooks(Webhooks { secrets: secrets(&[NEW, OLD]), tolerance: Duration::from_secs(300) });
    let mut pixel = source("pixel");
    pixel.shape = Shape::Data;
    pixel.id = IdRule::Assigned;
    pixel.auth = Auth::SignedUrl(SignedUrl { secrets: secrets(&[NEW]) });
    rig_of(machine, vec![signed, pixel])
}

/// A signed request, as a producer keeps it to send it again.
#[derive(Clone)]
struct Delivery {
    id: String,
    timestamp: u64,
    signature: String,
    body: String,
}

impl Delivery {
    fn by(secret: &str, id: &str, timestamp: u64, body: &str) -> Delivery {
        let signature = signature(&secrets(&[secret]), id, timestamp, body.as_bytes());
        Delivery { id: id.to_owned(), timestamp, signature, body: body.to_owned() }
    }

    async fn to(&self, rig: &Rig) -> (u16, Value) {
        self.to_target(rig, "/events/signed").await
    }

    async fn to_target(&self, rig: &Rig, target: &str) -> (u16, Value) {
        let request = Request::post(target)
            .header("content-type", "application/json")
            .header("webhook-id", &self.id)
            .header("webhook-timestamp", self.timestamp)
            .header("webhook-signature", &self.signature);
        let response = rig.ingest.answer(request.body(self.body.clone().into()).unwrap()).await;
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
    }
}

fn refused(rig: &Rig, reason: &str) -> f64 {
    let families = rig.registry.gather();
    let family = families.iter().find(|family| family.name() == "millpond_http_refused_total");
    let metrics = family.map(|family| family.get_metric().to_vec()).unwrap_or_default();
    let of = |metric: &prometheus::proto::Metric| metric.get_label().iter().any(|label| label.value() == reason);
    metrics.iter().filter(|metric| of(metric)).map(|metric| metric.get_counter().get_value()).sum()
}

#[tokio::test]
async fn either_secret_signs_and_nothing_else_does() {
    let rig = rig(Machine::new(2));
    let now = clock::wall_secs();
    for (secret, id) in [(OLD, "msg_old"), (NEW, "msg_new")] {
        let (status, told) = Delivery::by(secret, id, now, "{}").to(&rig).await;
        assert_eq!((status, &told["accepted"]), (202, &json!(1)), "{told}");
    }
    let good = Delivery::by(NEW, "msg_1", now, "{}");
    let forged = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (delivery, status, says) in [
        (Delivery::by(forged, "msg_1", now, "{}"), 401, "no secret of this source"),
        (Delivery { body: "[]".to_owned(), ..good.clone() }, 401, "no secret of this source"),
        (Delivery::by(NEW, "msg_1", now - 400, "{}"), 401, "s ago, 300 s are allowed"),
        (Delivery::by(NEW, "msg_1", now + 400, "{}"), 401, "s from now, 300 s are allowed"),
        (Delivery { signature: "v1".to_owned(), ..good.clone() }, 400, "holds no v1 signature"),
    ] {
        let (found, told) = delivery.to(&rig).await;
        assert!(found == status && told["error"].as_str().unwrap().contains(says), "{told}");
    }
    let unsigned = rig.post("/events/signed", "{}").await;
    assert_eq!((unsigned.0, &unsigned.1["error"]), (401, &json!("webhook-id is missing")));
    let counted = ["forged", "expired", "early", "signature_malformed", "unsigned"].map(|reason| refused(&rig, reason));
    assert_eq!(counted, [2.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(rig.ids(0).await.len() + rig.ids(1).await.len(), 2, "what was refused is not stored");
}

#[tokio::test]
async fn a_replay_is_refused_and_a_repeat_is_known() {
    let rig = rig(Machine::new(2));
    let now = clock::wall_secs();
    let body = r#"[{},{},{"id":"own"}]"#;
    let first = Delivery::by(NEW, "msg_1", now, body);
    assert_eq!(first.to(&rig).await.1["accepted"], 3);
    let (status, told) = first.to(&rig).await;
    assert_eq!((status, &told["error"]), (401, &json!("this very request was taken already")));
    // Signed with the other secret as well, it is the same request yet.
    let both = format!("{} {}", Delivery::by(OLD, "msg_1", now, body).signature, first.signature);
    assert_eq!(Delivery { signature: both, ..first.clone() }.to(&rig).await.0, 401);

    // What is not signed makes no difference.
    assert_eq!(first.to_target(&rig, "/events/signed?ack=memory").await.0, 401);

    let (status, told) = Delivery::by(NEW, "msg_1", now + 1, body).to(&rig).await;
    assert_eq!((status, &told["accepted"], &told["duplicates"]), (202, &json!(0), &json!(3)));
    assert_eq!(refused(&rig, "replayed"), 3.0);

    // After a crash nothing is stored again, and what was signed before it is told from what is signed now.
    let after = super::signed_tests::rig(rig.machine.crash());
    let old = Delivery::by(NEW, "msg_1", now - 1, body);
    assert_eq!(old.to(&after).await.0, 401);
    let (status, told) = Delivery::by(NEW, "msg_1", now + 2, body).to(&after).await;
    assert_eq!((status, &told["duplicates"]), (202, &json!(3)));
    let mut ids = [after.ids(0).await, after.ids(1).await].concat();
    ids.sort();
    assert_eq!(ids, ["msg_1", "msg_1 1", "own"]);
}

#[tokio::test]
async fn what_found_no_room_may_be_sent_again_as_it_is() {
    let mut machine = Machine::new(1);
    machine.limits.depth_max_events = 1;
    let rig = rig(machine);
    let delivery = Delivery::by(NEW, "msg_1", clock::wall_secs(), "[{},{}]");
    assert_eq!(delivery.to(&rig).await.0, 503);
    assert_eq!(delivery.to(&rig).await.0, 503, "no replay: it was not taken");
}

/// The query of a URL for an impression, as a backend signs it.
fn url(parameters: &[(&str, &str)]) -> String {
    let expiry = (clock::wall_secs() + 60).to_string();
    let mut pairs: Vec<(&str, &str)> =
        [("exp", expiry.as_str())].into_iter().chain(parameters.iter().copied()).collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode_key_part(value))).collect();
    let target = format!("/events/pixel/e.gif?{}", pairs.join("&"));
    let bytes = base64::engine::general_purpose::STANDARD.decode(NEW.trim_start_matches("whsec_")).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), target.as_bytes());
    format!("{target}&sig={}", URL_SAFE_NO_PAD.encode(tag))
}

#[tokio::test]
async fn each_look_at_a_signed_image_is_an_event() {
    let rig = rig(Machine::new(1));
    let get = |target: String| async {
        let request = Request::get(target).body(Bytes::new()).unwrap();
        rig.ingest.answer(request).await
    };
    let target = url(&[("campaign", "7"), ("user", "a b")]);
    for _ in 0..2 {
        let image = get(target.clone()).await;
        assert_eq!((image.status().as_u16(), image.body().len()), (200, 43));
        assert_eq!(
            (&image.headers()["content-type"], &image.headers()["cache-control"]),
            (&HeaderValue::from_static("image/gif"), &HeaderValue::from_static("no-store"))
        );
    }
    assert_eq!(rig.ids(0).await.len(), 2, "the same URL twice is two looks");
    assert_eq!(get(target.replace("campaign=7", "campaign=8")).await.status(), 401);
    assert_eq!(get("/events/pixel/e.gif".to_owned()).await.status(), 401);
    let (status, _) = rig.post("/events/pixel/e.gif", "{}").await;
    assert_eq!(status, 405);
    assert_eq!(rig.ids(0).await.len(), 2);
}
