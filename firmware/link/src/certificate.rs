//! What a certificate of the connection says of itself: when it ends, and whose it is.

use time::{Date, Month};

/// Tags of DER (X.690).
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// Of the version of a certificate, which version 1 has none of.
const VERSION: u8 = 0xA0;
/// The attribute of a name that is its common name (X.520).
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The last moment of a certificate's validity (`notAfter` of RFC 5280), in seconds since 1970. `None` of what is no whole certificate in DER,
/// and of a moment before 1970.
pub fn not_after(certificate: &[u8]) -> Option<u64> {
    let (validity, _) = within(from_validity(certificate)?, SEQUENCE)?;
    let (_, _, last) = element(validity)?;
    let (tag, text, _) = element(last)?;
    moment(tag, text)
}

/// The common name of a certificate's subject. `None` of what is no certificate in DER, and of a subject without one.
pub fn common_name(certificate: &[u8]) -> Option<&str> {
    let (_, _, subject) = element(from_validity(certificate)?)?;
    let (_, mut names, _) = element(subject)?;
    while let Some((_, set, rest)) = element(names) {
        let (_, attribute, _) = element(set)?;
        let (_, kind, text) = element(attribute)?;
        if kind == COMMON_NAME {
            return std::str::from_utf8(element(text)?.1).ok();
        }
        names = rest;
    }
    None
}

/// What a certificate says from its validity on, which version, serial number, algorithm and issuer come before (RFC 5280, 4.1).
fn from_validity(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = within(certificate, SEQUENCE)?;
    let (signed, _) = within(certificate, SEQUENCE)?;
    let mut rest = within(signed, VERSION).map_or(signed, |(_, rest)| rest);
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    Some(rest)
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

    #[test]
    fn a_moment_is_whole_and_has_the_century_of_its_form() {
        assert_eq!(moment(UTC_TIME, b"361127131343Z"), Some(2_111_404_423));
        assert_eq!(moment(UTC_TIME, b"991231000000Z"), Some(946_598_400));
        assert_eq!(moment(GENERALIZED_TIME, b"20511124131343Z"), Some(2_584_444_423));
        for wrong in ["", "Z", "361327131343Z", "361127131343", "3611271313Z"] {
            assert_eq!(moment(UTC_TIME, wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(moment(SEQUENCE, b"361127131343Z"), None);
    }
}
