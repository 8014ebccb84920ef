//! Times as DAOS prints them: a hybrid logical clock counting sixteenths of a nanosecond since
//! 2021-01-01, its low 18 bits reserved for the logical part.

use core::fmt;

/// Seconds from the Unix epoch to 2021-01-01T00:00:00Z.
const START_SECONDS: i128 = 1_609_459_200;
const LOGICAL_BITS: u64 = (1 << 18) - 1;

/// A time stamp of the hybrid logical clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The stamp of a wall-clock time in nanoseconds since the Unix epoch; earlier than 2021 is 0.
    pub fn from_unix_ns(ns: i64) -> Hlc {
        let since = i128::from(ns) - START_SECONDS * 1_000_000_000;
        let ticks = u64::try_from(since.max(0) << 4).unwrap_or(u64::MAX);
        Hlc(ticks & !LOGICAL_BITS)
    }

    /// Nanoseconds since the Unix epoch.
    pub fn unix_ns(self) -> i128 {
        i128::from(self.0 >> 4) + START_SECONDS * 1_000_000_000
    }
}

/// Year, month and day of a day number counted from 1970-01-01 (proleptic Gregorian calendar).
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `2026-11-22 12:04:42.973847552 +0000 UTC` for a time in nanoseconds since the Unix epoch,
/// trailing zeros of the fraction cut.
pub fn format_utc(ns: i128) -> String {
    let seconds = (ns.div_euclid(1_000_000_000)) as i64;
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let clock = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let fraction = format!(".{:09}", ns.rem_euclid(1_000_000_000));
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction} +0000 UTC")
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_utc(self.unix_ns()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_times_match_the_field() {
        let text = |stamp| Hlc(stamp).to_string();
        assert_eq!(
            text(0x2946_9dd1_9fec_0000),
            "2026-11-22 12:04:42.973847552 +0000 UTC"
        );
        assert_eq!(
            text(0x2946_9dd1_d8c0_0000),
            "2026-11-22 12:04:43.03343616 +0000 UTC"
        );
        assert_eq!(text(0), "2021-01-01 00:00:00 +0000 UTC");
        assert_eq!(format_utc(-1), "1969-12-31 23:59:59.999999999 +0000 UTC");
        assert_eq!(
            format_utc(981_173_106_120_000_000),
            "2001-02-03 04:05:06.12 +0000 UTC"
        );
        assert_eq!(
            Hlc::from_unix_ns(1_709_164_800_000_000_000)
                .to_string()
                .get(..10),
            Some("2024-02-29")
        );
    }

    #[test]
    fn stamps_keep_the_time_to_16_microseconds() {
        let ns = 1_795_349_082_973_847_552_i64;
        let error = i128::from(ns) - Hlc::from_unix_ns(ns).unix_ns();
        assert!((0..16_384).contains(&error), "{error}");
        assert_eq!(Hlc::from_unix_ns(0), Hlc(0));
        assert_eq!(Hlc::from_unix_ns(i64::MIN), Hlc(0));
    }
}
