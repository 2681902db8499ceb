//! `strftime` for templates that put the date into the prompt.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The time in UTC, written by a `strftime` format; `Err` with the directive that is not known.
pub(super) fn strftime(time: SystemTime, format: &str) -> Result<String, String> {
    let time = Utc::new(time);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next().unwrap_or('%');
        // `%-d` is `%d` without leading zeros.
        let text = match directive {
            '-' => {
                let unpadded = chars.next().and_then(|c| time.directive(c));
                unpadded.map(|text| match text.trim_start_matches('0') {
                    "" => "0".to_owned(),
                    text => text.to_owned(),
                })
            }
            directive => time.directive(directive),
        };
        out.push_str(&text.ok_or_else(|| format!("%{directive}"))?);
    }
    Ok(out)
}

/// A moment in the proleptic Gregorian calendar.
struct Utc {
    year: i64,
    /// From zero.
    month: usize,
    day: i64,
    /// From zero.
    day_of_year: i64,
    /// From Sunday.
    weekday: usize,
    second_of_day: i64,
}

impl Utc {
    fn new(time: SystemTime) -> Self {
        let seconds = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX / 2),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX / 2),
        };
        let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years that begin in March have their leap day last, and repeat every 400 years.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_march_year =
            day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_march_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 2
        } else {
            march_month - 10
        };
        let year = year_of_era + era * 400 + i64::from(month < 2);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let day_of_year = if month < 2 {
            day_of_march_year - 306
        } else {
            day_of_march_year + 59 + i64::from(is_leap)
        };
        Self {
            year,
            month: usize::try_from(month).unwrap_or_default(),
            day: day_of_march_year - (153 * march_month + 2) / 5 + 1,
            day_of_year,
            weekday: usize::try_from((days + 4).rem_euclid(7)).unwrap_or_default(),
            second_of_day,
        }
    }

    fn directive(&self, directive: char) -> Option<String> {
        let hour = self.second_of_day / 3600;
        let hour_of_half = (hour + 11) % 12 + 1;
        let name = |names: &[&str], index: usize, length: usize| {
            names
                .get(index)
                .and_then(|name| name.get(..length.min(name.len())))
                .map(str::to_owned)
        };
        Some(match directive {
            'Y' => format!("{}", self.year),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month + 1),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:>2}", self.day),
            'j' => format!("{:03}", self.day_of_year + 1),
            'H' => format!("{hour:02}"),
            'I' => format!("{hour_of_half:02}"),
            'M' => format!("{:02}", self.second_of_day / 60 % 60),
            'S' => format!("{:02}", self.second_of_day % 60),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'B' => return name(&MONTHS, self.month, usize::MAX),
            'b' => return name(&MONTHS, self.month, 3),
            'A' => return name(&DAYS, self.weekday, usize::MAX),
            'a' => return name(&DAYS, self.weekday, 3),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month + 1, self.day),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, format: &str) -> String {
        strftime(UNIX_EPOCH + Duration::from_secs(seconds), format).unwrap()
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        let cases = [
            (0, "1970-01-01 001 Thu"),
            (951_782_399, "2000-02-28 059 Mon"),
            (951_782_400, "2000-02-29 060 Tue"),
            (951_868_800, "2000-03-01 061 Wed"),
            (1_709_251_200, "2024-03-01 061 Fri"),
            (1_735_603_200, "2024-12-31 366 Tue"),
            (4_107_542_400, "2100-03-01 060 Mon"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(at(seconds, "%F %j %a"), expected);
        }
    }

    #[test]
    fn directives_follow_strftime() {
        let time = 1_720_245_909; // 6 July 2024, 06:05:09
        assert_eq!(
            at(time, "%d %B %Y, %H:%M:%S %I %p"),
            "06 July 2024, 06:05:09 06 AM"
        );
        assert_eq!(
            at(time, "%-d %b %y %A %e %% %-H"),
            "6 Jul 24 Saturday  6 % 6"
        );
        assert_eq!(at(0, "%I %-M"), "12 0");
    }

    #[test]
    fn unknown_directives_are_named() {
        assert_eq!(strftime(UNIX_EPOCH, "a %Q"), Err("%Q".to_owned()));
    }
}
