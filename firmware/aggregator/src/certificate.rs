//! When a certificate ends. All of a fleet's are made within days and end within days, and what is shut out then is everybody.

use std::path::Path;

use link::certificate::not_after;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The moment after which the first certificate of a PEM file holds no more, in seconds since 1970.
///
/// # Errors
/// Why it cannot be told: a file that cannot be read, or one without a certificate.
pub fn end(path: &Path) -> Result<u64, String> {
    let certificate = CertificateDer::from_pem_file(path).map_err(|error| error.to_string())?;
    not_after(&certificate).ok_or_else(|| "its certificate does not say when it ends".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by openssl, for ten years and for 25: the one has its end in two digits of a year, the other in four.
    const TEN_YEARS: &str = "-----BEGIN CERTIFICATE-----
MIIBbTCCAROgAwIBAgIURS3B+DwJT3cq0m9KSNI35+WicMEwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYTAeFw0yNjExMzAxMzEzNDNaFw0zNjExMjcxMzEzNDNaMAwx
CjAIBgNVBAMMAWEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARqW/AwYtCLiISN
0uCLguyqt0E3MgWux7JjA3DJMcZy4ycT+tjs8YvNG1Sfuw+pWn6ywjozonC1az3b
u211tHXoo1MwUTAdBgNVHQ4EFgQU2xxq0SUSBVRR3NAKIvGJSbLOJDUwHwYDVR0j
BBgwFoAU2xxq0SUSBVRR3NAKIvGJSbLOJDUwDwYDVR0TAQH/BAUwAwEB/zAKBggq
hkjOPQQDAgNIADBFAiEAoHiG6/tYCO0haCFOk2m/0/mINwf826qrZlIqfKK/E14C
IFNR2dRpt49kJ2RJSlUnfKVnW7mRup5yPCowVOQo+pOv
-----END CERTIFICATE-----
";
    const QUARTER_OF_A_CENTURY: &str = "-----BEGIN CERTIFICATE-----
MIIBbzCCARWgAwIBAgIUQYJNXwFB2d1us0HawTH1En+xBTwwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYTAgFw0yNjExMzAxMzEzNDNaGA8yMDUxMTEyNDEzMTM0M1ow
DDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABC+8aQzQ5vvd
q2C+OQF603PyBYmka7T+5fFAiQ9wVgXHV9nyj4BcViQwV9wr70TYH5HgZMIYX/F7
gv1yrgTVdR6jUzBRMB0GA1UdDgQWBBSsAfLDgEE7gD70RghFyFzNjma0YDAfBgNV
HSMEGDAWgBSsAfLDgEE7gD70RghFyFzNjma0YDAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0gAMEUCID3RAfOc30bdVvdu+jcPqD/JcwC4zrq2eyRPDkARl2HS
AiEAmBpAZC64HLyABWLAeeaMJrhg0rcEMaK7hm34JrIDhRA=
-----END CERTIFICATE-----
";

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn the_end_is_the_one_that_openssl_says() {
        assert_eq!(not_after(&der(TEN_YEARS)), Some(2_111_404_423));
        assert_eq!(not_after(&der(QUARTER_OF_A_CENTURY)), Some(2_584_444_423));
    }

    #[test]
    fn what_is_cut_short_has_no_end() {
        let whole = der(TEN_YEARS);
        assert!((0..whole.len()).all(|length| not_after(&whole[..length]).is_none()));
    }

    #[test]
    fn a_file_without_a_certificate_is_told() {
        for path in ["/nowhere/aggregator.pem", "/dev/null"] {
            assert!(end(Path::new(path)).is_err(), "{path}");
        }
    }
}
