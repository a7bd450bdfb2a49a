//! Tolerant reading of vendors' JSON: fields of a wrong type count as absent, unknown ones are skipped, of duplicate
//! ones the last counts. serde's derive refuses all of that, and a `serde_json::Value` of a hostile line takes many
//! times its size.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A value that is looked at only if it is no array and no object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Scalar<'de> {
    /// Absent, null, an array or an object.
    #[default]
    None,
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text; of the line itself where nothing in it is escaped.
    Text(Cow<'de, str>),
}

impl<'de> Scalar<'de> {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn into_text(self) -> Option<Cow<'de, str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        *self == Self::Bool(true)
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) if number.is_finite() => Some(*number),
            _ => None,
        }
    }

    /// A number that is not negative, as a count.
    pub(crate) fn count(&self) -> Option<u64> {
        // Above 2^53 a count of tokens is nonsense; `as` saturates.
        self.number().filter(|number| *number >= 0.0).map(|number| number as u64)
    }
}

macro_rules! drain {
    () => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Default::default())
        }
    };
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Number(value as f64))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Number(value as f64))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Number(value))
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }
            fn visit_string<E>(self, text: String) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(text)))
            }
            fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
                Ok(Scalar::None)
            }
            drain!();
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::None)
            }
        }
        from.deserialize_any(Any)
    }
}

/// What an object is read into.
pub(crate) trait Object<'de>: Default {
    /// Takes the value of one key, or skips it.
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Objects of named keys: `field: type = "key"`; a field's type is something that reads anything.
macro_rules! objects {
    ($($(#[$about:meta])* struct $name:ident { $($field:ident: $type:ty = $key:literal,)* })*) => {$(
        $(#[$about])*
        #[derive(Debug, Default)]
        pub(crate) struct $name<'de> { $(pub(crate) $field: $type,)* }

        impl<'de> $crate::agents::json::Object<'de> for $name<'de> {
            fn field<A: serde::de::MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
                match key {
                    $($key => self.$field = map.next_value()?,)*
                    _ => {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    }
                }
                Ok(())
            }
        }
    )*};
}
pub(crate) use objects;

/// A value as it stands in the line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Raw<'de>(pub(crate) &'de str);

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(from).map(|raw| Self(raw.get()))
    }
}

/// A key, of the line itself where nothing in it is escaped.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        from.deserialize_str(Any)
    }
}

/// The content of a message: a text, or of an array the first objects in it; anything else is no objects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Items<'de, T, const MAX: usize = MAX_ITEMS> {
    /// A text.
    Text(Cow<'de, str>),
    /// The objects.
    Objects(Vec<T>),
}

impl<T, const MAX: usize> Default for Items<'_, T, MAX> {
    fn default() -> Self {
        Self::Objects(Vec::new())
    }
}

/// Reads an object tolerantly.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tolerant<T>(pub(crate) T);

struct TolerantVisitor<T>(PhantomData<T>);

macro_rules! default_for {
    ($($name:ident: $type:ty),*) => {
        $(fn $name<E>(self, _: $type) -> Result<Self::Value, E> { Ok(Default::default()) })*
    };
}

impl<'de, T: Object<'de>> Visitor<'de> for TolerantVisitor<T> {
    type Value = Tolerant<T>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    default_for!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Tolerant::default())
    }
    drain!();
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = T::default();
        while let Some(Key(key)) = map.next_key()? {
            object.field(&key, &mut map)?;
        }
        Ok(Tolerant(object))
    }
}

impl<'de, T: Object<'de>> Deserialize<'de> for Tolerant<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TolerantVisitor(PhantomData))
    }
}

struct ItemsVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Object<'de>, const MAX: usize> Visitor<'de> for ItemsVisitor<T, MAX> {
    type Value = Items<'de, T, MAX>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }
    default_for!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64);
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Items::default())
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Items::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Items::Text(Cow::Borrowed(text)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut objects = Vec::new();
        while let Some(Tolerant(object)) = seq.next_element::<Tolerant<T>>()? {
            if objects.len() < MAX {
                objects.push(object);
            }
        }
        Ok(Items::Objects(objects))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Items::default())
    }
}

/// Objects of one array that are looked at: an answer has a handful, `[{},{},…]` of a hostile line has millions.
const MAX_ITEMS: usize = 10_000;
/// The same for an array within such an object.
pub(crate) const MAX_INNER: usize = 64;

impl<'de, T: Object<'de>, const MAX: usize> Deserialize<'de> for Items<'de, T, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ItemsVisitor::<T, MAX>(PhantomData))
    }
}

/// Whether a line is a JSON object, and that object.
pub(crate) fn object<'de, T: Object<'de>>(line: &'de str) -> Option<T> {
    // Checked first, so that a line such as `123` or `"text"`, which is JSON too, counts as text.
    line.trim_start().starts_with('{').then(|| serde_json::from_str::<Tolerant<T>>(line).ok()).flatten().map(|t| t.0)
}
