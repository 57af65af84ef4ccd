//! TLS 1.2 and 1.3 with rustls on ring: the fleet's authority is the only one trusted, and the device shows its own
//! certificate. The device's name is that certificate's common name, so that broker and messages agree on it.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::sync::Arc;

use proto::ids::IdError;
use proto::{DeviceId, Digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use time::OffsetDateTime;

/// What is wrong with the certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or nothing in it.
    #[error("the {} is not in PEM form; {}", .0.what, .0.next)]
    Pem(Given),
    /// rustls refuses it.
    #[error("the {} cannot be used: {reason}; {}", .given.what, .given.next)]
    Refused {
        /// Which file.
        given: Given,
        /// Why.
        reason: String,
    },
    /// rustls has no TLS 1.2 and 1.3 here.
    #[error("no TLS: {0}")]
    Versions(rustls::Error),
    /// No common name where it should be.
    #[error("the device's certificate has no common name; enrol the mirror anew")]
    NoName,
    /// A common name that is no device name.
    #[error("the certificate's common name cannot be used: {0}")]
    Name(#[from] IdError),
}

/// A file that somebody gave the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// What it is, after "the".
    pub what: &'static str,
    /// What to do where it is of no use.
    pub next: &'static str,
}

/// One of those that enrolment gave.
const fn enrolled(what: &'static str) -> Given {
    Given { what, next: "enrol the mirror anew" }
}

const AUTHORITY: Given = enrolled("fleet's authority");
const CERTIFICATE: Given = enrolled("device's certificate");
const KEY: Given = enrolled("device's key");

/// A device's place in the fleet's TLS.
pub struct Identity {
    /// For the connection.
    pub config: Arc<ClientConfig>,
    /// The device, as its certificate says.
    pub device: DeviceId,
    /// A client id of 23 bytes, which every broker takes; the same for as long as the certificate is.
    pub client_id: String,
}

impl Identity {
    /// Reads PEM texts: the fleet's authority, the device's certificate (chain), its private key.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn from_pem(
        authority: &[u8],
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Identity, TlsError> {
        let chain = certificates(certificate, CERTIFICATE)?;
        let first = chain.first().ok_or(TlsError::Pem(CERTIFICATE))?;
        let device: DeviceId = common_name(first).ok_or(TlsError::NoName)?.parse()?;
        let client_id = format!("m{}", &Digest::of(first).to_string()[..22]);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Pem(KEY))?;
        let config = config(authority, AUTHORITY)?
            .with_client_auth_cert(chain, key)
            .map_err(refused(CERTIFICATE))?;
        Ok(Identity { config: Arc::new(config), device, client_id })
    }
}

/// TLS without a certificate of the device's own, for a home's broker; `given` says what the authority's PEM text is.
///
/// # Errors
/// See [`TlsError`].
pub fn anonymous(authority: &[u8], given: Given) -> Result<Arc<ClientConfig>, TlsError> {
    Ok(Arc::new(config(authority, given)?.with_no_client_auth()))
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn config(authority: &[u8], given: Given) -> Result<Builder, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(authority, given)? {
        roots.add(root).map_err(refused(given))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_root_certificates(roots))
}

fn refused(given: Given) -> impl Fn(rustls::Error) -> TlsError {
    move |error| TlsError::Refused { given, reason: error.to_string() }
}

fn certificates(pem: &[u8], given: Given) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.ok().filter(|found| !found.is_empty()).ok_or(TlsError::Pem(given))
}

/// Why a connection has ended, with the next step, if that is because of a certificate's time. Always in the same words, unlike
/// rustls', which name the second at hand.
pub(crate) fn untimely(error: &(dyn Error + 'static)) -> Option<String> {
    use CertificateError::{Expired, ExpiredContext, NotValidYetContext};
    use rustls::Error::{AlertReceived, InvalidCertificate};
    match rustls_error(error)? {
        InvalidCertificate(ExpiredContext { not_after, .. }) => Some(format!(
            "the broker's certificate ended on {}; give the broker a new one",
            day(*not_after)
        )),
        // So is one called that ends before it begins.
        InvalidCertificate(Expired) => {
            Some("the broker's certificate never held; give the broker a new one".to_owned())
        }
        InvalidCertificate(NotValidYetContext { not_before, .. }) => Some(format!(
            "the mirror's clock is before {}, when the broker's certificate begins; let the mirror reach a time server",
            day(*not_before)
        )),
        AlertReceived(AlertDescription::CertificateExpired) => Some(
            "the broker says that this mirror's certificate has ended; enrol the mirror anew"
                .to_owned(),
        ),
        _ => None,
    }
}

/// rustls' own error among the causes.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    // An I/O error gives what is in it, and as its source only that one's source.
    successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
    .find_map(|error| error.downcast_ref())
}

/// Such as 2026-11-30.
fn day(time: UnixTime) -> String {
    let seconds = time.as_secs();
    let moment = i64::try_from(seconds).ok().map(OffsetDateTime::from_unix_timestamp);
    match moment {
        Some(Ok(moment)) => moment.date().to_string(),
        _ => format!("{seconds} s after 1970"),
    }
}

/// One DER value: its tag, its content, and what follows it.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        if !(1..=3).contains(&count) || rest.len() < count {
            return None;
        }
        let (digits, behind) = rest.split_at(count);
        length = digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit));
        rest = behind;
    }
    (rest.len() >= length).then(|| (tag, &rest[..length], &rest[length..]))
}

/// The subject's common name (RFC 5280, 4.1: version, serial, algorithm, issuer and validity come before the subject).
fn common_name(certificate: &[u8]) -> Option<&str> {
    const VERSION: u8 = 0xa0;
    const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
    let (_, certificate, _) = value(certificate)?;
    let (_, mut fields, _) = value(certificate)?;
    if fields.first() == Some(&VERSION) {
        fields = value(fields)?.2;
    }
    for _ in 0..4 {
        fields = value(fields)?.2;
    }
    let (_, mut names, _) = value(fields)?;
    while let Some((_, set, rest)) = value(names) {
        let (_, attribute, _) = value(set)?;
        let (_, kind, text) = value(attribute)?;
        if kind == COMMON_NAME {
            return std::str::from_utf8(value(text)?.1).ok();
        }
        names = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_no_longer_takes_the_mirror_s_certificate_is_told_as_that() {
        let ended = |alert| {
            untimely(&io::Error::new(
                io::ErrorKind::InvalidData,
                rustls::Error::AlertReceived(alert),
            ))
        };
        let told = ended(AlertDescription::CertificateExpired).unwrap();
        assert!(told.contains("this mirror's certificate has ended; enrol"), "{told}");
        assert_eq!(ended(AlertDescription::UnknownCA), None);
        assert_eq!(untimely(&io::Error::other("reset")), None);
    }

    #[test]
    fn an_authority_that_is_none_is_told_with_its_own_next_step() {
        let given = Given { what: "home's authority", next: "give another" };
        let told = anonymous(b"nothing", given).unwrap_err().to_string();
        assert_eq!(told, "the home's authority is not in PEM form; give another");
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let told = anonymous(damaged.as_bytes(), given).unwrap_err().to_string();
        assert!(told.starts_with("the home's authority cannot be used: "), "{told}");
        assert!(told.ends_with("; give another"), "{told}");
    }

    #[test]
    fn cut_or_changed_certificates_have_no_name_and_do_no_harm() {
        let signer = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "a fleet");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "mirror-17");
        let certificate = parameters.self_signed(&signer).unwrap();
        let der = certificate.der().to_vec();
        assert_eq!(common_name(&der), Some("mirror-17"));
        for length in 0..der.len() {
            let _ = common_name(&der[..length]);
        }
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 0xff;
            let _ = common_name(&changed);
        }
    }
}
