// SPDX-License-Identifier: Apache-2.0
//! The ways to write a value. Each gives a reason when it does not understand.

use std::str::FromStr;
use std::time::Duration;

use super::threads::Wanted;

/// `true` or `false`, exactly.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

/// A number that fits.
pub(super) fn number<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.trim().parse().map_err(|error| format!("{text:?} is no usable number: {error}"))
}

/// `5m`, `1h30m`, `90`, `1d+2*3h`: numbers with units, sums and products; a bare number counts seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration; write for example 90s, 5m or 1h30m");
    let mut total = 0.0;
    for term in text.split('+') {
        let mut product = 1.0;
        let mut times = 0;
        for factor in term.split('*') {
            let factor = factor.trim();
            product *= seconds(factor).ok_or_else(bad)?;
            times += usize::from(factor.parse::<f64>().is_err());
        }
        // The product of two times is no time.
        if times > 1 {
            return Err(bad());
        }
        total += product;
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

/// `1h30m` in seconds.
fn seconds(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(rest.len());
        let (_, scale) = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?;
        total += number * scale;
        rest = rest[letters..].trim_start();
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// A Kubernetes quantity of CPU, rounded up to whole ones.
pub(super) fn cpus(text: &str) -> Result<usize, String> {
    let bad = || format!("{text:?} is no quantity of CPU; write for example 2, 1.5 or 500m");
    let (number, scale) = match text.trim().strip_suffix('m') {
        Some(thousandths) => (thousandths, 1000.0),
        None => (text.trim(), 1.0),
    };
    let value: f64 = number.parse().map_err(|_| bad())?;
    let whole = (value / scale).ceil();
    if (1.0..=65536.0).contains(&whole) { Ok(whole as usize) } else { Err(bad()) }
}

/// A number of threads, or a percentage.
pub(super) fn threads(text: &str) -> Result<Wanted, String> {
    let bad = || format!("{text:?} is neither a number of threads nor a percentage above 0 and up to 100");
    match text.trim().strip_suffix('%') {
        Some(percent) => {
            let percent: f64 = percent.trim().parse().map_err(|_| bad())?;
            if percent > 0.0 && percent <= 100.0 { Ok(Wanted::Percent(percent)) } else { Err(bad()) }
        }
        None => text.trim().parse().map(Wanted::Number).map_err(|_| bad()),
    }
}

const UNITS: [(&str, f64); 22] = [
    ("", 1.0),
    ("s", 1.0),
    ("sec", 1.0),
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("m", 60.0),
    ("min", 60.0),
    ("h", 3600.0),
    ("hr", 3600.0),
    ("hour", 3600.0),
    ("hours", 3600.0),
    ("d", 86_400.0),
    ("day", 86_400.0),
    ("days", 86_400.0),
    ("w", 604_800.0),
    ("week", 604_800.0),
    ("mon", 2_592_000.0),
    ("month", 2_592_000.0),
    ("y", 31_536_000.0),
    ("year", 31_536_000.0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("180", 180_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("1d 2h", 93_600_000),
            ("150ms", 150),
            ("1.5s", 1500),
            ("1m+30", 90_000),
            ("2*3h", 21_600_000),
            ("3h*2", 21_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "h", "5 parsecs", "-1s", "1s+", "1e400", "2h*3h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_and_threads() {
        assert_eq!((cpus("2"), cpus("1.5"), cpus("500m"), cpus("2100m")), (Ok(2), Ok(2), Ok(1), Ok(3)));
        for text in ["", "0", "-1", "1k", "m"] {
            assert!(cpus(text).is_err(), "{text}");
        }
        assert_eq!(threads("4"), Ok(Wanted::Number(4)));
        assert_eq!(threads("12.5%"), Ok(Wanted::Percent(12.5)));
        for text in ["0%", "101%", "many", "-1"] {
            assert!(threads(text).is_err(), "{text}");
        }
        assert!(boolean("True").is_err());
    }
}
