//! TLS 1.2 and 1.3 with rustls on ring: the fleet's authority is the only one trusted, and the device shows its own
//! certificate. The device's name is that certificate's common name, so that broker and messages agree on it.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::sync::Arc;

use link::certificate::{common_name, not_after};
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
    /// No end where it should be.
    #[error("the device's certificate does not say when it ends; enrol the mirror anew")]
    NoEnd,
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
    /// When the certificate ends, seconds since 1970.
    pub end: u64,
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
        let end = not_after(first).ok_or(TlsError::NoEnd)?;
        let client_id = format!("m{}", &Digest::of(first).to_string()[..22]);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Pem(KEY))?;
        let config = config(authority, AUTHORITY)?
            .with_client_auth_cert(chain, key)
            .map_err(refused(CERTIFICATE))?;
        Ok(Identity { config: Arc::new(config), device, client_id, end })
    }
}

/// When the device's certificate ends, the first of this PEM text, in seconds since 1970.
///
/// # Errors
/// See [`TlsError`].
pub fn certificate_end(certificate: &[u8]) -> Result<u64, TlsError> {
    let chain = certificates(certificate, CERTIFICATE)?;
    chain.first().and_then(|first| not_after(first)).ok_or(TlsError::NoEnd)
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

/// Why a connection has ended, with the next step, if that is because of a certificate's time; `end` is that of the mirror's own, in
/// seconds since 1970, and `now` its clock's time. In the same words for a whole day, unlike rustls', which name the second at hand.
pub(crate) fn untimely(
    error: &(dyn Error + 'static),
    end: Option<u64>,
    now: UnixTime,
) -> Option<String> {
    use CertificateError::{Expired, ExpiredContext, NotValidYetContext};
    use rustls::Error::{AlertReceived, InvalidCertificate};
    match rustls_error(error)? {
        InvalidCertificate(ExpiredContext { not_after, .. }) => Some(format!(
            "the broker's certificate ended on {}; give the broker a new one, or let the mirror reach a time server, if it is not {} today",
            day(not_after.as_secs()),
            day(now.as_secs())
        )),
        // So is one called that ends before it begins.
        InvalidCertificate(Expired) => {
            Some("the broker's certificate never held; give the broker a new one".to_owned())
        }
        InvalidCertificate(NotValidYetContext { not_before, .. }) => Some(format!(
            "the mirror's clock is before {}, when the broker's certificate begins; let the mirror reach a time server",
            day(not_before.as_secs())
        )),
        AlertReceived(AlertDescription::CertificateExpired) => Some(ended_there(end, now)),
        _ => None,
    }
}

/// What a broker may mean with the alert that a certificate has ended. OpenSSL sends it also where the list of revoked ones has.
fn ended_there(end: Option<u64>, now: UnixTime) -> String {
    match end.filter(|end| *end > now.as_secs()) {
        Some(end) => format!(
            "this mirror's certificate holds until {}, if it is {} today, but the broker says that it has ended: its list of revoked ones \
             may have (`sh revoke.sh`), or its clock is ahead",
            day(end),
            day(now.as_secs())
        ),
        None => "the broker says that this mirror's certificate has ended, or its list of revoked ones has (`sh revoke.sh`), or its clock is \
                 ahead; enrol the mirror anew, if it is the certificate"
            .to_owned(),
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

/// The day, such as 2026-11-30, of a moment in seconds since 1970.
pub fn day(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().map(OffsetDateTime::from_unix_timestamp);
    match moment {
        Some(Ok(moment)) => moment.date().to_string(),
        _ => format!("{seconds} s after 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_no_longer_takes_the_mirror_s_certificate_is_told_as_that() {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_796_000_000));
        let told = |alert, end| {
            let alert = rustls::Error::AlertReceived(alert);
            untimely(&io::Error::new(io::ErrorKind::InvalidData, alert), end, now)
        };
        let expired = AlertDescription::CertificateExpired;
        let unknown = told(expired, None).unwrap();
        assert!(
            unknown.starts_with("the broker says that this mirror's certificate has ended, or")
        );
        assert!(unknown.contains("`sh revoke.sh`") && unknown.contains("enrol"), "{unknown}");
        assert_eq!(told(expired, Some(1_795_999_999)), Some(unknown), "by its own clock as well");
        let holds = told(expired, Some(2_111_404_423)).unwrap();
        let first =
            "this mirror's certificate holds until 2036-11-27, if it is 2026-11-30 today, but";
        assert!(holds.starts_with(first) && holds.contains("`sh revoke.sh`"), "{holds}");
        assert!(!holds.contains("enrol"), "a new one would not help: {holds}");
        assert_eq!(told(AlertDescription::UnknownCA, None), None);
        assert_eq!(untimely(&io::Error::other("reset"), None, now), None);
    }

    #[test]
    fn a_certificate_s_end_is_read_in_both_ways_that_it_may_be_written() {
        let signer = rcgen::KeyPair::generate().unwrap();
        // Up to 2049 two digits of the year are written, later four.
        for (year, end) in [(1999, 946_598_400), (2036, 2_114_294_400), (2051, 2_587_593_600)] {
            let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 12, 31);
            let certificate = parameters.self_signed(&signer).unwrap();
            assert_eq!(not_after(certificate.der()), Some(end), "{year}");
            assert_eq!(certificate_end(certificate.pem().as_bytes()).unwrap(), end);
            assert_eq!(day(end), format!("{year}-12-31"));
        }
        assert!(matches!(certificate_end(b"nothing"), Err(TlsError::Pem(_))));
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
            assert_eq!(not_after(&der[..length]), None);
        }
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 0xff;
            let _ = (common_name(&changed), not_after(&changed));
        }
    }
}
