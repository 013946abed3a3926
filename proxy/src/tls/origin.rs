//! TLS to origins: versions 1.2 and 1.3, the server's certificate always verified, sessions resumed.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::Certificate;
use crate::semantics::date;

/// How the servers of an origin are spoken to. Clones share the sessions that can be resumed.
#[derive(Clone, Debug)]
pub struct OriginTls {
    config: Arc<ClientConfig>,
}

impl OriginTls {
    /// `authorities`: who vouches for servers; `shown`: what those are shown that ask who we are.
    pub fn new(authorities: Authorities, shown: Option<&Certificate>) -> Result<OriginTls, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authorities.0);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let resolver = SingleCertAndKey::from(Arc::clone(&certificate.key));
                builder.with_client_cert_resolver(Arc::new(resolver))
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(OriginTls { config: Arc::new(config) })
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// Certificates of those whose word is taken for who a server is.
#[derive(Clone, Debug)]
pub struct Authorities(RootCertStore);

/// Why there is nobody whose word could be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; fix: {fix}")]
pub struct NoAuthorities {
    pub problem: String,
    pub fix: &'static str,
}

impl Authorities {
    /// Those of a PEM file, and no others. A server's own certificate may stand there, if it is self-signed.
    pub fn read(ca: &Path) -> Result<Authorities, NoAuthorities> {
        let none = |problem: &str, fix| NoAuthorities { problem: format!("{}{problem}", ca.display()), fix };
        let bytes =
            std::fs::read(ca).map_err(|error| none(&format!(": {error}"), "name a PEM file that can be read"))?;
        let mut roots = RootCertStore::empty();
        for found in CertificateDer::pem_slice_iter(&bytes) {
            let found =
                found.map_err(|error| none(&format!(" is broken PEM: {error}"), "name a PEM file that is whole"))?;
            roots.add(found).map_err(|error| {
                let fix = "name a PEM file with the certificates of authorities";
                none(&format!(" holds something else than X.509 certificates: {error}"), fix)
            })?;
        }
        if roots.is_empty() {
            return Err(none(" holds no certificate", "name a PEM file with a BEGIN CERTIFICATE line"));
        }
        Ok(Authorities(roots))
    }

    /// Those that this machine trusts, or those of the file that the environment variable `SSL_CERT_FILE` names.
    pub fn of_this_machine() -> Result<Authorities, NoAuthorities> {
        let mut roots = RootCertStore::empty();
        let loaded = rustls_native_certs::load_native_certs();
        // Some in a store are odd, as they are in most.
        roots.add_parsable_certificates(loaded.certs);
        if roots.is_empty() {
            let why = loaded.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(NoAuthorities {
                problem: format!("this machine has no certificates of authorities{why}"),
                fix: "install them (the package ca-certificates), or name a PEM file with ca",
            });
        }
        Ok(Authorities(roots))
    }
}

/// Why a handshake with a server failed, for who has to mend it.
pub(crate) fn in_words(error: &rustls::Error) -> String {
    let at = |time: rustls::pki_types::UnixTime| date::format(time.as_secs());
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::Expired => "its certificate has expired".to_owned(),
            CertificateError::ExpiredContext { not_after, .. } => {
                format!("its certificate expired on {}", at(*not_after))
            }
            CertificateError::NotValidYet => "its certificate is not valid yet".to_owned(),
            CertificateError::NotValidYetContext { not_before, .. } => {
                format!("its certificate is not valid before {}", at(*not_before))
            }
            CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
            CertificateError::NotValidForNameContext { expected, presented } => {
                let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
                let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
                format!("its certificate is not for {} but for {names}", expected.to_str())
            }
            CertificateError::UnknownIssuer => {
                "its certificate was issued by nobody who is trusted (name the authority with ca)".to_owned()
            }
            CertificateError::Revoked => "its certificate was revoked".to_owned(),
            CertificateError::BadSignature => "its certificate is not signed by its issuer".to_owned(),
            other => format!("its certificate can't be verified: {other}"),
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("it broke the handshake off: {alert:?}"),
        rustls::Error::NoApplicationProtocol => "it does not speak HTTP/1.1".to_owned(),
        other => other.to_string(),
    }
}

/// A name without its kind, as in `DnsName("a.example")`.
fn bare(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')').trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    #[test]
    fn what_holds_no_authorities_is_told() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ca = dir.path().join("ca.pem");
        let problem = || Authorities::read(&ca).expect_err("it can't be used").problem;
        assert!(problem().contains("ca.pem: No such file"), "{}", problem());
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("a certificate");
        let pem = made.cert.pem();
        for (text, why) in [
            ("", "holds no certificate"),
            (made.signing_key.serialize_pem().as_str(), "holds no certificate"),
            (pem.split_at(pem.len() / 2).0, "is broken PEM"),
            ("-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n", "something else than X.509"),
        ] {
            std::fs::write(&ca, text).expect("written");
            assert!(problem().contains(why), "{}", problem());
        }
        std::fs::write(&ca, pem).expect("written");
        assert!(Authorities::read(&ca).is_ok());
    }

    #[test]
    fn failures_are_told_in_words() {
        let at = |secs| UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs));
        let wrong = |error: CertificateError| in_words(&rustls::Error::InvalidCertificate(error));
        let expected = ServerName::try_from("b.example").expect("a name");
        let presented = vec!["DnsName(\"a.example\")".to_owned(), "IpAddress(127.0.0.1)".to_owned()];
        for (words, part) in [
            (
                wrong(CertificateError::ExpiredContext { time: at(9), not_after: at(0) }),
                "expired on Thu, 01 Jan 1970 00:00:00 GMT",
            ),
            (wrong(CertificateError::NotValidYetContext { time: at(0), not_before: at(60) }), "00:01:00 GMT"),
            (
                wrong(CertificateError::NotValidForNameContext { expected, presented }),
                "is not for b.example but for a.example, 127.0.0.1",
            ),
            (wrong(CertificateError::UnknownIssuer), "issued by nobody who is trusted"),
            (wrong(CertificateError::Revoked), "was revoked"),
            (
                in_words(&rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)),
                "does not speak TLS",
            ),
        ] {
            assert!(words.contains(part), "{words}");
        }
    }
}
