//! Durations, sizes and counts as the file writes them: `10s`, `64KiB`, `16`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// A number of bytes, written as `512B`, `64KiB` or `1MiB`. The unit is not optional.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(usize);

const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    /// `count` times 1024 bytes.
    #[must_use]
    pub const fn kib(count: usize) -> Self {
        Self(count * 1024)
    }

    /// That many bytes.
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let (digits, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), factor)))?;
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        let count: usize = digits.parse().ok().filter(|_| all_digits)?;
        count.checked_mul(*factor).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = UNITS.iter().find_map(|(unit, factor)| {
            Some((unit, self.0.checked_div(*factor)?, self.0.checked_rem(*factor)?))
                .filter(|(_, count, rest)| *count > 0 && *rest == 0)
        });
        match fits {
            Some((unit, count, _)) => write!(f, "{count}{unit}"),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || {
            D::Error::custom(format!(
                "{text:?} is not a size: write it as `512B`, `64KiB` or `1MiB`"
            ))
        };
        Self::parse(&text).ok_or_else(wrong)
    }
}

/// A size of at least `MIN` bytes.
pub(super) fn size_from<'de, const MIN: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Size, D::Error> {
    let size = Size::deserialize(deserializer)?;
    if size.bytes() < MIN {
        return Err(D::Error::custom(format!("{size} is too small: the minimum is {}", Size(MIN))));
    }
    Ok(size)
}

/// A size of at least `MIN` and at most `MAX` bytes.
pub(super) fn size_between<'de, const MIN: usize, const MAX: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Size, D::Error> {
    let size = size_from::<MIN, D>(deserializer)?;
    if size.bytes() > MAX {
        return Err(D::Error::custom(format!("{size} is too large: the maximum is {}", Size(MAX))));
    }
    Ok(size)
}

/// A duration of more than nothing, in humantime's notation.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)? {
        Duration::ZERO => Err(D::Error::custom("must be more than 0s")),
        duration => Ok(duration),
    }
}

/// A duration in humantime's notation, or the problem with it.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a duration: write it as `10s`, `9m` or `1h 30m`"))
}

/// A duration, or none as `0s`.
pub(super) fn duration_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        D::Error::custom(format!("{text:?} is not a duration: write it as `10s`, or `0s` for none"))
    })
}

/// A whole number of at least one.
pub(super) fn count<'de, N: FromStr + From<u8> + PartialEq, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<N, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<N>() {
        Ok(zero) if zero == N::from(0) => Err(D::Error::custom("must be at least 1")),
        Ok(count) => Ok(count),
        Err(_) => Err(D::Error::custom(format!("{text:?} is not a whole number"))),
    }
}

/// A whole number of at least one, or `None` as `auto`.
pub(super) fn count_or_auto<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<usize>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match (text.as_str(), text.parse()) {
        ("auto", _) => Ok(None),
        (_, Ok(0)) => Err(D::Error::custom("must be at least 1")),
        (_, Ok(count)) => Ok(Some(count)),
        (_, Err(_)) => {
            Err(D::Error::custom(format!("{text:?} is neither a whole number nor `auto`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        let parsed = |text| Size::parse(text).map(Size::bytes);
        assert_eq!(parsed("512B"), Some(512));
        assert_eq!(parsed("64KiB"), Some(65_536));
        assert_eq!(parsed("64 KiB"), Some(65_536));
        assert_eq!(parsed("1MiB"), Some(1_048_576));
        assert_eq!(parsed("2GiB"), Some(2_147_483_648));
        for wrong in ["64", "64KB", "64kib", "KiB", "-1B", "+1B", "1.5MiB", "99999999999GiB", ""] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_print_as_they_are_written() {
        for text in ["0B", "512B", "64KiB", "1MiB", "1025B", "3GiB"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
    }
}
