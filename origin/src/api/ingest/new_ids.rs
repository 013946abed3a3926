//! Ids for events that come without one.

use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64;

use super::auth::Verified;
use super::element::{Assigned, hexadecimal};

/// Ids that nobody has given before: a part that this process drew, and a number.
pub struct RandomIds {
    drawn: String,
    next: AtomicU64,
}

impl RandomIds {
    /// Fails where the system has no randomness.
    pub fn new() -> Result<RandomIds, Unspecified> {
        let mut drawn = [0; 12];
        SystemRandom::new().fill(&mut drawn)?;
        Ok(RandomIds { drawn: hexadecimal(&drawn), next: AtomicU64::new(0) })
    }

    /// The next number.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn id(&self) -> String {
        format!("{}{:010x}", self.drawn, self.number())
    }
}

/// Where the events of one request get ids.
#[derive(Clone, Copy)]
pub enum NewIds<'a> {
    /// New ones for every try.
    Random(&'a RandomIds),
    /// From the id of their signed request: the same ones if it is sent again.
    Of(&'a Verified),
}

impl NewIds<'_> {
    /// An id for the element at `index`.
    pub fn assign(&self, index: usize) -> Assigned {
        match self {
            NewIds::Random(random) => Assigned { id: random.id(), again: None },
            NewIds::Of(request) => {
                // The id of a request holds no blank, so no two elements share one.
                let id = if index == 0 { request.id.clone() } else { format!("{} {index}", request.id) };
                Assigned { id, again: Some(xxh3_64(request.id.as_bytes())) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_differ_and_those_of_a_request_come_again() {
        let random = RandomIds::new().unwrap();
        let ids = NewIds::Random(&random);
        let (one, other) = (ids.assign(0), ids.assign(0));
        assert!(one.id != other.id && one.again.is_none(), "{one:?} {other:?}");
        assert_eq!(one.id.len(), 34);
        let request = Verified { id: "msg_1".to_owned(), timestamp: 0, fingerprint: 0 };
        let of = NewIds::Of(&request);
        assert_eq!((of.assign(0).id.as_str(), of.assign(7).id.as_str()), ("msg_1", "msg_1 7"));
        assert!(of.assign(0).again.is_some() && of.assign(0).again == of.assign(7).again);
    }
}
