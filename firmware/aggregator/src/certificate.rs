//! When a certificate ends. All of a fleet's are made within days and end within days, and what is shut out then is everybody.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Date, Month};

/// Tags of DER (X.690).
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// Of the version of a certificate, which version 1 has none of.
const VERSION: u8 = 0xA0;

/// The moment after which the first certificate of a PEM file holds no more, in seconds since 1970.
///
/// # Errors
/// Why it cannot be told: a file that cannot be read, or one without a certificate.
pub fn end(path: &Path) -> Result<u64, String> {
    let certificate = CertificateDer::from_pem_file(path).map_err(|error| error.to_string())?;
    not_after(&certificate).ok_or_else(|| "its certificate does not say when it ends".to_owned())
}

/// `notAfter` of RFC 5280: the second moment of the validity, which follows version, serial number, algorithm and issuer.
fn not_after(certificate: &[u8]) -> Option<u64> {
    let (certificate, _) = within(certificate, SEQUENCE)?;
    let (signed, _) = within(certificate, SEQUENCE)?;
    let mut rest = within(signed, VERSION).map_or(signed, |(_, rest)| rest);
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (validity, _) = within(rest, SEQUENCE)?;
    let (_, _, last) = element(validity)?;
    let (tag, text, _) = element(last)?;
    moment(tag, text)
}

/// What is inside of the element that bytes begin with, if it has this tag, and what follows it.
fn within(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, inside, rest) = element(der)?;
    (found == tag).then_some((inside, rest))
}

/// The element that bytes begin with: tag, inside, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        ..=0x7F => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (inside, rest) = rest.split_at_checked(length)?;
    Some((tag, inside, rest))
}

/// Such as `361127131343Z`, whose century RFC 5280 says, and `20511124131343Z`.
fn moment(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        UTC_TIME if text < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let number = |at: usize| text.get(at..at + 2)?.parse::<u8>().ok();
    let month = Month::try_from(number(4)?).ok()?;
    let date = Date::from_calendar_date(text.get(..4)?.parse().ok()?, month, number(6)?).ok()?;
    let moment = date.with_hms(number(8)?, number(10)?, number(12)?).ok()?.assume_utc();
    u64::try_from(moment.unix_timestamp()).ok()
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
