//! Values of which only a part counts: lists of which the first value, or only text and numbers are taken. Everything else is
//! skipped without being stored, so that a large body takes no more memory than it has bytes.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::MAX_NEWS;

/// The first value of a list; `None` of an empty list, or of `null`.
#[derive(Debug)]
pub(super) struct First<T>(pub(super) Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seek<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Seek<T> {
            type Value = First<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<First<T>, E> {
                Ok(First(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First<T>, A::Error> {
                let first = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        deserializer.deserialize_any(Seek(PhantomData))
    }
}

/// The texts and whole numbers in a value, which may be one of them or a list: at most [`MAX_NEWS`] of each.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    pub(super) texts: Vec<String>,
    pub(super) numbers: Vec<u64>,
}

impl Atoms {
    fn text(text: &str) -> Self {
        Self { texts: vec![text.to_owned()], numbers: Vec::new() }
    }

    fn number(number: u64) -> Self {
        Self { texts: Vec::new(), numbers: vec![number] }
    }

    fn add(&mut self, other: Self) {
        let (texts, numbers) = (self.texts.len(), self.numbers.len());
        self.texts.extend(other.texts.into_iter().take(MAX_NEWS.saturating_sub(texts)));
        self.numbers.extend(other.numbers.into_iter().take(MAX_NEWS.saturating_sub(numbers)));
    }
}

impl<'de> Deserialize<'de> for Atoms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Atoms;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Atoms, E> {
                Ok(Atoms::text(text))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Atoms, E> {
                Ok(Atoms::number(number))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Atoms, E> {
                Ok(Atoms::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<Atoms, E> {
                Ok(Atoms::default())
            }

            fn visit_bool<E>(self, _: bool) -> Result<Atoms, E> {
                Ok(Atoms::default())
            }

            fn visit_unit<E>(self) -> Result<Atoms, E> {
                Ok(Atoms::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Atoms, A::Error> {
                let mut found = Atoms::default();
                while let Some(next) = list.next_element()? {
                    found.add(next);
                }
                Ok(found)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Atoms, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Atoms::default())
            }
        }
        deserializer.deserialize_any(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_are_taken_from_any_value() {
        let atoms = |text| {
            let Atoms { texts, numbers } = serde_json::from_str(text).unwrap();
            (texts.join(" "), numbers)
        };
        assert_eq!(atoms(r#""a""#), ("a".into(), vec![]));
        assert_eq!(
            atoms(r#"["a", 1, null, true, -1, 1.5, {"b": "c"}, ["d", 2]]"#),
            ("a d".into(), vec![1, 2])
        );
        let many = format!("[{}0]", "0,".repeat(5000));
        assert_eq!(atoms(&many).1.len(), MAX_NEWS);
    }

    #[test]
    fn only_the_first_value_counts() {
        let first = |text| serde_json::from_str::<First<u8>>(text).ok().map(|first| first.0);
        assert_eq!(first("[1, \"x\", {}]"), Some(Some(1)));
        assert_eq!((first("[]"), first("null"), first("7")), (Some(None), Some(None), None));
    }
}
