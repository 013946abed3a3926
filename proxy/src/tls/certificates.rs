//! Which certificate a client is shown.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use super::Certificate;

/// At least one certificate; the first is for clients that name no server, or one that no other is for.
#[derive(Clone, Debug)]
pub struct Certificates {
    all: Vec<Certificate>,
    /// Places in `all` by name. Several are for one name where their keys differ in type.
    by_name: HashMap<String, Vec<usize>>,
}

impl Certificates {
    /// `None` without any.
    pub fn new(all: Vec<Certificate>) -> Option<Certificates> {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, certificate) in all.iter().enumerate() {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(index);
            }
        }
        (!all.is_empty()).then_some(Certificates { all, by_name })
    }

    /// What clients will hold against them at `now` (seconds since the Unix epoch), in words.
    pub fn warnings(&self, now: u64) -> impl Iterator<Item = String> {
        self.all.iter().filter_map(move |certificate| certificate.warning(now))
    }

    /// The certificate for a server name, of a kind that the client can verify: by the whole name, else by a wildcard
    /// for its first label (RFC 9525 §6.3), else the first of all.
    pub(super) fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let named = name.as_deref().and_then(|name| {
            let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
            self.by_name.get(name).or_else(wildcard)
        });
        let candidates: Vec<&Certificate> = match named {
            Some(places) => places.iter().filter_map(|place| self.all.get(*place)).collect(),
            None => self.all.iter().collect(),
        };
        let fits = |certificate: &&&Certificate| certificate.key.key.choose_scheme(schemes).is_some();
        let chosen = candidates.iter().find(fits).or(candidates.first());
        chosen.map(|certificate| Arc::clone(&certificate.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Certificate {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let cert = rcgen::CertificateParams::new(names).expect("names").self_signed(&key).expect("a certificate");
        let (cert_file, key_file) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        std::fs::write(&cert_file, cert.pem()).expect("written");
        std::fs::write(&key_file, key.serialize_pem()).expect("written");
        Certificate::read(&cert_file, &key_file).expect("good")
    }

    #[test]
    fn the_name_chooses_then_the_wildcard_then_the_first() {
        let ecdsa = &rcgen::PKCS_ECDSA_P256_SHA256;
        let all = vec![
            certificate(&["first.example"], ecdsa),
            certificate(&["*.a.example"], ecdsa),
            certificate(&["x.a.example", "b.example"], ecdsa),
        ];
        let keys: Vec<Arc<CertifiedKey>> = all.iter().map(|certificate| Arc::clone(&certificate.key)).collect();
        let certificates = Certificates::new(all).expect("some");
        for (name, place) in [
            (None, 0),
            (Some("first.example"), 0),
            (Some("X.A.example"), 2),
            (Some("y.a.example"), 1),
            (Some("z.y.a.example"), 0),
            (Some("a.example"), 0),
            (Some("b.example"), 2),
            (Some("localhost"), 0),
        ] {
            let chosen = certificates.choose(name, &[SignatureScheme::ECDSA_NISTP256_SHA256]).expect("one");
            assert!(Arc::ptr_eq(&chosen, &keys[place]), "{name:?}");
        }
    }

    #[test]
    fn of_two_for_one_name_the_client_gets_what_it_can_verify() {
        let all = vec![
            certificate(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256),
            certificate(&["a.example"], &rcgen::PKCS_ED25519),
        ];
        let keys: Vec<Arc<CertifiedKey>> = all.iter().map(|certificate| Arc::clone(&certificate.key)).collect();
        let certificates = Certificates::new(all).expect("some");
        for (scheme, place) in [(SignatureScheme::ECDSA_NISTP256_SHA256, 0), (SignatureScheme::ED25519, 1)] {
            let chosen = certificates.choose(Some("a.example"), &[scheme]).expect("one");
            assert!(Arc::ptr_eq(&chosen, &keys[place]), "{scheme:?}");
        }
        assert!(Certificates::new(Vec::new()).is_none());
    }
}
