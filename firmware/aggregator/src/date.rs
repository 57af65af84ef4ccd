//! Seconds since 1970 as a date that people read.

use time::OffsetDateTime;

/// Such as `2026-11-29 04:02`, in UTC; seconds that no calendar reaches are told as they are.
pub fn utc(seconds: u64) -> String {
    let moment =
        i64::try_from(seconds).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    let Some(moment) = moment else { return format!("{seconds} s") };
    let (year, month, day) = moment.to_calendar_date();
    let (hours, minutes) = (moment.hour(), moment.minute());
    format!("{year}-{:02}-{day:02} {hours:02}:{minutes:02}", u8::from(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let known = [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (951_868_800, "2000-03-01 00:00"),
            (1_735_689_599, "2024-12-31 23:59"),
            (1_795_924_920, "2026-11-29 04:02"),
            (4_107_542_400, "2100-03-01 00:00"),
            (u64::MAX, "18446744073709551615 s"),
        ];
        for (seconds, date) in known {
            assert_eq!(utc(seconds), date);
        }
    }
}
