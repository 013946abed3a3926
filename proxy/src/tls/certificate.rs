//! One certificate with its key, as they stand in two PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::semantics::date;

/// A certificate chain that can be shown to clients, since its key is here.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// The DNS names it is for (RFC 5280 §4.2.1.6), in lower case; `*.example.com` for a wildcard.
    pub(super) names: Vec<String>,
    /// Seconds since the Unix epoch.
    valid: std::ops::RangeInclusive<i64>,
    file: String,
}

/// Why a certificate can't be shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; fix: {fix}")]
pub struct Unusable {
    /// Which of the two files is to blame.
    pub part: Part,
    pub problem: String,
    pub fix: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Cert,
    Key,
}

impl Certificate {
    /// Reads a chain, the server's own certificate first, and its private key.
    pub fn read(cert: &Path, key: &Path) -> Result<Certificate, Unusable> {
        let chain = chain(cert)?;
        let own = chain.first().ok_or_else(|| no_certificate(cert))?;
        let (names, valid) = names_and_dates(own).ok_or_else(|| Unusable {
            part: Part::Cert,
            problem: format!("{}: its first certificate is no X.509 certificate", cert.display()),
            fix: "name a PEM file that a certificate authority made",
        })?;
        let private = private_key(key)?;
        let certified = CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| {
            let (problem, fix) = match error {
                rustls::Error::InconsistentKeys(_) => {
                    (format!("is not the key of {}", cert.display()), "name the key that the certificate was made for")
                }
                error => (format!("can't be used: {error}"), "use a key of type ECDSA (P-256, P-384), Ed25519 or RSA"),
            };
            Unusable { part: Part::Key, problem: format!("{} {problem}", key.display()), fix }
        })?;
        Ok(Certificate { key: Arc::new(certified), names, valid, file: cert.display().to_string() })
    }

    /// What a client will hold against it at `now` (seconds since the Unix epoch), in words.
    pub fn warning(&self, now: u64) -> Option<String> {
        let at = |seconds: i64| date::format(u64::try_from(seconds).unwrap_or(0));
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if now > *self.valid.end() {
            Some(format!("{} expired on {}", self.file, at(*self.valid.end())))
        } else if now < *self.valid.start() {
            Some(format!("{} is not valid before {}", self.file, at(*self.valid.start())))
        } else {
            None
        }
    }

    /// Whether there is a name that it could be chosen for.
    pub fn has_names(&self) -> bool {
        !self.names.is_empty()
    }
}

fn bytes(path: &Path, part: Part) -> Result<Vec<u8>, Unusable> {
    std::fs::read(path).map_err(|error| Unusable {
        part,
        problem: format!("{}: {error}", path.display()),
        fix: "name a PEM file that can be read",
    })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes(path, Part::Cert)?).collect();
    found.map_err(|error| Unusable {
        part: Part::Cert,
        problem: format!("{} is broken PEM: {error}", path.display()),
        fix: "name a PEM file that is whole",
    })
}

fn no_certificate(path: &Path) -> Unusable {
    Unusable {
        part: Part::Cert,
        problem: format!("{} holds no certificate", path.display()),
        fix: "name a PEM file with a BEGIN CERTIFICATE line",
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Unusable> {
    PrivateKeyDer::from_pem_slice(&bytes(path, Part::Key)?).map_err(|error| {
        let problem = match error {
            pem::Error::NoItemsFound => format!("{} holds no private key", path.display()),
            error => format!("{} is broken PEM: {error}", path.display()),
        };
        Unusable { part: Part::Key, problem, fix: "name a PEM file with a private key that is not encrypted" }
    })
}

fn names_and_dates(der: &CertificateDer<'_>) -> Option<(Vec<String>, std::ops::RangeInclusive<i64>)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let listed = parsed.subject_alternative_name().ok()?;
    let names = listed.iter().flat_map(|listed| &listed.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let validity = parsed.validity();
    Some((names.collect(), validity.not_before.timestamp()..=validity.not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unusable(cert: &str, key: &str) -> (Part, String) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (cert_file, key_file) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        std::fs::write(&cert_file, cert).expect("written");
        std::fs::write(&key_file, key).expect("written");
        let unusable = Certificate::read(&cert_file, &key_file).expect_err("it can't be used");
        (unusable.part, unusable.problem.replace(&format!("{}/", dir.path().display()), ""))
    }

    fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_cannot_be_shown_is_told_with_the_file_to_blame() {
        let ((cert, key), (_, other_key)) = (pair(&["a.example"]), pair(&["a.example"]));
        assert_eq!(unusable("", &key), (Part::Cert, "a.pem holds no certificate".to_owned()));
        assert_eq!(unusable(&cert, ""), (Part::Key, "a.key holds no private key".to_owned()));
        assert_eq!(unusable(&cert, &cert), (Part::Key, "a.key holds no private key".to_owned()));
        let (part, problem) = unusable(&cert, &other_key);
        assert_eq!((part, problem.as_str()), (Part::Key, "a.key is not the key of a.pem"));
        let (part, problem) = unusable(cert.split_at(cert.len() / 2).0, &key);
        assert!(part == Part::Cert && problem.starts_with("a.pem is broken PEM"), "{problem}");
        let nonsense = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n";
        assert_eq!(unusable(nonsense, &key).1, "a.pem: its first certificate is no X.509 certificate");
    }

    #[test]
    fn names_and_dates_come_from_the_certificate() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (cert_file, key_file) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        let (cert, key) = pair(&["A.example", "*.b.example"]);
        std::fs::write(&cert_file, cert).expect("written");
        std::fs::write(&key_file, key).expect("written");
        let certificate = Certificate::read(&cert_file, &key_file).expect("good");
        assert_eq!(certificate.names, ["a.example", "*.b.example"]);
        // rcgen's are valid from 1975 to the end of 4095.
        assert_eq!(certificate.warning(1_000_000_000), None);
        assert!(certificate.warning(1).expect("a warning").contains("is not valid before Wed, 01 Jan 1975"));
        assert!(certificate.warning(u64::MAX).expect("a warning").contains("a.pem expired on"));
    }
}
