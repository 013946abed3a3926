//! A role of this process, asked by a call: its answer is whole, and of the body it says itself what it wants.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use millpond_shared::http1::{Fields, Framing};
use millpond_shared::wire::{self, Intake};

use super::answer::{Answer, Payload};
use super::outgoing::Outgoing;
use super::{Inbound, OriginError};

/// Asks a role of this process.
pub(super) async fn ask(
    role: &dyn wire::Origin,
    outgoing: &Outgoing<'_>,
    payload: Payload<'_>,
) -> Result<Answer, OriginError> {
    let head = request(outgoing)?;
    let length = match payload.framing {
        Framing::None => Some(0),
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::UntilClose => None,
    };
    let response = match (role.intake(&head, length), payload.client) {
        (Intake::Nothing(response), _) => *response,
        (Intake::Whole { max_bytes }, Some(client)) if payload.framing != Framing::None => {
            let most = max_bytes.min(payload.body_max);
            if length.is_some_and(|length| length > most) {
                return Err(OriginError::RequestTooLarge);
            }
            let body = client.read_all(usize::try_from(most).unwrap_or(usize::MAX)).await?;
            role.answer(head.map(|()| body)).await
        }
        (Intake::Pieces(taker), Some(client)) if payload.framing != Framing::None => {
            pass_on(taker, client, payload.body_max).await?
        }
        (Intake::Whole { .. } | Intake::Pieces(_), _) => role.answer(head.map(|()| Bytes::new())).await,
    };
    let (head, body) = response.into_parts();
    let pairs = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let fields: Fields = pairs.collect();
    Ok(Answer::whole(outgoing.method(), head.status, fields, body))
}

async fn pass_on(
    mut taker: Box<dyn wire::Taker + '_>,
    client: &mut dyn Inbound,
    body_max: u64,
) -> Result<Response<Bytes>, OriginError> {
    let mut passed = 0;
    while let Some(piece) = client.next().await? {
        passed += piece.len() as u64;
        if passed > body_max {
            return Err(OriginError::RequestTooLarge);
        }
        if let Err(response) = taker.take(piece).await {
            return Ok(*response);
        }
    }
    Ok(taker.end().await)
}

fn request(outgoing: &Outgoing<'_>) -> Result<Request<()>, OriginError> {
    let mut request = Request::new(());
    *request.method_mut() = outgoing.method().clone();
    *request.uri_mut() = outgoing.target().parse().map_err(|_| OriginError::RequestTarget)?;
    outgoing.put_fields(|name, value| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            request.headers_mut().append(name, value);
        }
    });
    Ok(request)
}
