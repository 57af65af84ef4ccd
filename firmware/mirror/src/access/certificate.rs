//! The mirror's own certificate: made at the first start, kept, and known by its fingerprint.
//!
//! No authority can sign for a mirror in a living room, so browsers ask once. What they show can be compared with the
//! fingerprint on the mirror's screen.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use crate::access::AccessError;
use crate::private;

/// The certificate, as DER.
const CERTIFICATE: &str = "page-certificate.der";
/// The certificate's private key, as PKCS #8 DER.
const KEY: &str = "page-key.der";

const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// A certificate with its key.
pub struct Certificate {
    der: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Certificate {
    /// The stored one; without any, or with one of its two files alone, a new one for these names.
    ///
    /// # Errors
    /// A folder that cannot be used, or two files that do not belong together.
    pub fn load_or_make(folder: &Path, names: &[String]) -> Result<Certificate, AccessError> {
        let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
        let stored = (private::read(&certificate)?, private::read(&key)?);
        if let (Some(der), Some(key)) = stored {
            let loaded = Certificate { der: der.into(), key: key.into() };
            // A pair that does not fit must not be found out by the first visitor.
            loaded.tls().map_err(|error| damaged(error.to_string()))?;
            return Ok(loaded);
        }
        let made = Certificate::make(names)?;
        // The key first: a certificate without a key is made anew, and so is a key without a certificate.
        private::write(&key, made.key.secret_pkcs8_der())?;
        private::write(&certificate, &made.der)?;
        Ok(made)
    }

    fn make(names: &[String]) -> Result<Certificate, AccessError> {
        let make = || -> Result<Certificate, rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut parameters = CertificateParams::new(names)?;
            let mut subject = DistinguishedName::new();
            subject.push(DnType::CommonName, "Mirror");
            parameters.distinguished_name = subject;
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            // Fixed dates: the clock of a first start may be decades off. Apple's systems let a certificate of a server be good
            // for 825 days at most, where it is good from July 2019 on; this one is good from before that.
            parameters.not_before = date_time_ymd(2019, 6, 1);
            parameters.not_after = date_time_ymd(2049, 12, 31);
            let certificate = parameters.self_signed(&key)?;
            Ok(Certificate { der: certificate.der().clone(), key: key.serialize_der().into() })
        };
        make().map_err(|error| AccessError::Certificate(error.to_string()))
    }

    /// How HTTPS is served with it: TLS 1.2 and 1.3, HTTP/1.1.
    ///
    /// # Errors
    /// A key that does not belong to the certificate.
    pub fn tls(&self) -> Result<Arc<ServerConfig>, AccessError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![self.der.clone()], key)
            })
            .map_err(|error| AccessError::Certificate(error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// SHA-256 of the certificate as browsers show it, in groups of four digits.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(&self.der);
        let group = |pair: &[u8]| pair.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
        digest.chunks(2).map(group).collect::<Vec<_>>().join(" ")
    }
}

fn damaged(reason: String) -> AccessError {
    let next = "the mirror makes a new certificate, of which every browser asks once";
    AccessError::Damaged { name: KEY, reason, next }
}

/// The names by which the home network may know this machine.
pub fn names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let Ok(host) = std::fs::read_to_string(HOSTNAME) else { return names };
    let host = host.trim().to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if !host.is_empty() && host.len() < 64 && host.bytes().all(plain) && host != "localhost" {
        names.push(format!("{host}.local"));
        names.push(host);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let folder = Folder::new("certificate");
        let names = ["mirror.local".to_owned(), "127.0.0.1".to_owned()];
        let first = Certificate::load_or_make(folder.path(), &names).expect("a writable folder");
        let second = Certificate::load_or_make(folder.path(), &names).expect("stored");
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.fingerprint().len(), 64 + 15);
        let mode = std::fs::metadata(folder.path().join(KEY)).expect("stored").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_certificate_is_one_that_apple_s_systems_take() {
        let made = Certificate::make(&["mirror.local".to_owned()]).expect("entropy");
        let has = |bytes: &[u8]| made.der.windows(bytes.len()).any(|window| window == bytes);
        // RFC 5280, 4.2.1.12: 1.3.6.1.5.5.7.3.1, id-kp-serverAuth.
        assert!(has(b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01"));
        assert!(has(b"190601000000Z") && has(b"491231000000Z"));
    }

    #[test]
    fn a_key_of_another_certificate_is_found_out() {
        let folder = Folder::new("other-key");
        let names = ["mirror.local".to_owned()];
        Certificate::load_or_make(folder.path(), &names).expect("a writable folder");
        let other = Certificate::make(&names).expect("entropy");
        private::write(&folder.path().join(KEY), other.key.secret_pkcs8_der()).expect("writable");
        let error =
            Certificate::load_or_make(folder.path(), &names).err().expect("no pair").to_string();
        assert!(error.contains(KEY) && error.contains("remove it"), "{error}");
    }
}
