//! What a technician puts on a mirror when it joins a fleet: five small files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use learn::edges::Timestamp;
use proto::secret::DeviceSecret;
use proto::signing::KeyRing;
use uplink::tls::{self, Identity};
use zeroize::Zeroizing;

/// Certificates of the broker's authority, PEM.
const AUTHORITY: &str = "authority.pem";
/// The device's own certificate (chain), PEM.
const CERTIFICATE: &str = "device.pem";
/// The device's private key, PEM.
const KEY: &str = "device.key";
/// 64 hexadecimal digits that `aggregator device enrol` printed.
const SECRET: &str = "device.secret";
/// The fleet's public keys, one of 64 hexadecimal digits a line.
const FLEET_KEYS: &str = "fleet.pub";

/// Who the mirror is in its fleet.
pub struct Enrolment {
    /// For the connection.
    pub identity: Identity,
    /// Makes its names in rounds.
    pub secret: DeviceSecret,
    /// Whom it believes.
    pub keys: KeyRing,
}

impl Enrolment {
    /// Reads the folder that `fleet.folder` names.
    ///
    /// # Errors
    /// A file that is missing, open to others, or not what it should be; the message names it and the next step.
    pub fn read(folder: &Path) -> Result<Enrolment> {
        let (authority, certificate) = (read(folder, AUTHORITY)?, read(folder, CERTIFICATE)?);
        let key = private(folder, KEY)?;
        let identity = Identity::from_pem(&authority, &certificate, &key)
            .with_context(|| format!("the certificates in {}", folder.display()))?;
        let keys = String::from_utf8_lossy(&read(folder, FLEET_KEYS)?).into_owned();
        let keys = KeyRing::from_text(&keys).with_context(|| wrong(folder, FLEET_KEYS))?;
        Ok(Enrolment { identity, secret: secret(folder)?, keys })
    }
}

/// Looks whether the mirror's certificate in this folder still holds at a time.
///
/// # Errors
/// One that has ended, or a file that is no certificate. One that is not there, or not to be read by whoever asks, is told of by the
/// mirror itself.
pub(crate) fn check_certificate(folder: &Path, now: Timestamp) -> Result<()> {
    let path = folder.join(CERTIFICATE);
    let Ok(pem) = fs::read(&path) else { return Ok(()) };
    let end = tls::certificate_end(&pem).with_context(|| path.display().to_string())?;
    ensure!(
        now.0 < end,
        "{} ended on {}; enrol the mirror anew, or set the clock, if it is not {} today",
        path.display(),
        tls::day(end),
        tls::day(now.0)
    );
    Ok(())
}

fn secret(folder: &Path) -> Result<DeviceSecret> {
    let text = private(folder, SECRET)?;
    let digits = std::str::from_utf8(&text).unwrap_or_default().trim();
    // The same form as a digest: 64 hexadecimal digits.
    let bytes: proto::Digest = digits.parse().ok().with_context(|| {
        format!("{}: not the 64 digits that enrolment printed", wrong(folder, SECRET))
    })?;
    Ok(DeviceSecret::new(bytes.0))
}

fn wrong(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    fs::read(&path).with_context(|| {
        format!(
            "cannot read {}; enrol the mirror, or set fleet.enabled = false (the mirror works without its fleet)",
            path.display()
        )
    })
}

/// A file that nobody else may read.
fn private(folder: &Path, name: &str) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = Zeroizing::new(read(folder, name)?);
    let path = folder.join(name);
    let mode = fs::metadata(&path).map(|data| data.permissions().mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        bail!("{} can be read by others; chmod 600 it", path.display());
    }
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::Folder;

    fn put(folder: &Path, name: &str, text: &str, mode: u32) {
        fs::write(folder.join(name), text).expect("writable");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).expect("ours");
    }

    /// A certificate that names mirror-17, signed by itself, and its key, both PEM.
    fn certificate() -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut wanted = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        wanted.distinguished_name.push(rcgen::DnType::CommonName, "mirror-17");
        let certificate = wanted.self_signed(&key).expect("a certificate");
        let pem = |label, der| pem::encode(&pem::Pem::new(label, der));
        (pem("CERTIFICATE", certificate.der().to_vec()), pem("PRIVATE KEY", key.serialize_der()))
    }

    /// All five files, for a fleet with this public key.
    pub fn enrol(folder: &Path, fleet: &str) {
        fs::create_dir_all(folder).expect("writable");
        let (certificate, key) = certificate();
        put(folder, AUTHORITY, &certificate, 0o644);
        put(folder, CERTIFICATE, &certificate, 0o644);
        put(folder, KEY, &key, 0o600);
        put(folder, SECRET, &"ab".repeat(32), 0o600);
        put(folder, FLEET_KEYS, &format!("{fleet}\n"), 0o644);
    }

    #[test]
    fn a_certificate_that_has_ended_is_refused_with_its_day() {
        let folder = Folder::new("ended");
        let folder = folder.path();
        let check =
            |now| check_certificate(folder, Timestamp(now)).map_err(|error| format!("{error:#}"));
        assert_eq!(check(0), Ok(()), "nobody has brought it yet");
        enrol(folder, &"00".repeat(32));
        let pem = fs::read(folder.join(CERTIFICATE)).expect("written");
        let end = tls::certificate_end(&pem).expect("whole");
        assert_eq!(check(end - 1), Ok(()));
        let told = check(end).expect_err("it has ended");
        assert!(told.contains("device.pem ended on ") && told.contains("enrol"), "{told}");
        put(folder, CERTIFICATE, "nothing", 0o644);
        assert!(check(0).expect_err("no certificate").contains("enrol the mirror anew"));
    }

    fn describe(folder: &Path) -> String {
        let error = Enrolment::read(folder).err().expect("refused");
        crate::report::describe(&error)
    }

    #[test]
    fn every_file_is_named_when_it_is_wrong() {
        let folder = Folder::new("enrolment");
        let put = |name: &str, text: &str, mode: u32| put(folder.path(), name, text, mode);
        let (certificate, key) = certificate();

        assert!(describe(folder.path()).contains("authority.pem"));
        put(AUTHORITY, &certificate, 0o644);
        assert!(describe(folder.path()).contains("device.pem"));
        put(CERTIFICATE, "nothing", 0o644);
        put(KEY, &key, 0o644);
        assert!(describe(folder.path()).contains("chmod 600"));
        put(KEY, &key, 0o600);
        assert!(describe(folder.path()).contains("device's certificate"));
        put(CERTIFICATE, &certificate, 0o644);
        assert!(describe(folder.path()).contains("fleet.pub"));
        put(FLEET_KEYS, "# the fleet's key\nzz\n", 0o644);
        assert!(describe(folder.path()).contains("line 2"));
        put(FLEET_KEYS, &format!("{}\n", "00".repeat(32)), 0o644);
        assert!(describe(folder.path()).contains("device.secret"));
        put(SECRET, "12", 0o600);
        assert!(describe(folder.path()).contains("64 digits"));
        put(SECRET, &"ab".repeat(32), 0o644);
        let told = describe(folder.path());
        assert!(told.contains("device.secret") && told.contains("chmod 600"), "{told}");
        put(SECRET, &"ab".repeat(32), 0o600);
        let enrolment = Enrolment::read(folder.path()).expect("complete");
        assert_eq!(enrolment.identity.device.as_str(), "mirror-17");
    }
}
