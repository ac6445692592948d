//! How fields of requests are deserialized where serde's own way accepts too much or explains too little.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, Error, IgnoredAny, IntoDeserializer as _, MapAccess, Unexpected, Visitor,
        value::MapAccessDeserializer,
    },
};

/// A struct from an object only: serde's derived code also takes a list of the fields' values.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// For `#[serde(deserialize_with)]`: a struct that may be absent.
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(object)| object))
}

/// For `#[serde(deserialize_with)]`: a list of structs.
pub(crate) fn objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(object)| object).collect())
}

/// For `#[serde(deserialize_with)]`: a variant of an enum, written as a string. serde's derived code also takes
/// `{"word": null}`.
pub(crate) fn variant<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Found {
        Text(String),
        Other(IgnoredAny),
    }

    let text = match Option::<Found>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Found::Text(text)) => text,
        // No variant has an empty name, so the error lists the known ones.
        Some(Found::Other(_)) => String::new(),
    };
    T::deserialize(text.into_deserializer()).map(Some)
}

/// For `#[serde(deserialize_with)]`: a whole number within bounds. A number outside of them is an invalid value,
/// anything else an invalid type.
pub(crate) fn whole_number<'de, const MIN: usize, const MAX: usize, D>(
    deserializer: D,
) -> Result<Option<usize>, D::Error>
where
    D: Deserializer<'de>,
{
    struct WholeNumber<const MIN: usize, const MAX: usize>(usize);

    impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for WholeNumber<MIN, MAX> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_u64(BoundsVisitor(Bounds { min: MIN, max: MAX })).map(Self)
        }
    }

    let found = Option::<WholeNumber<MIN, MAX>>::deserialize(deserializer)?;
    Ok(found.map(|WholeNumber(number)| number))
}

/// What a number must lie within, both ends included.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) min: usize,
    pub(crate) max: usize,
}

impl Bounds {
    /// How the text of bounds begins. No type is named so.
    pub(crate) const PREFIX: &str = "between ";

    /// The number, if it lies within.
    pub(crate) fn check(self, number: u64) -> Option<usize> {
        usize::try_from(number).ok().filter(|number| (self.min..=self.max).contains(number))
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} and {}", Self::PREFIX, self.min, self.max)
    }
}

struct BoundsVisitor(Bounds);

impl BoundsVisitor {
    fn outside<E: Error>(&self, found: Unexpected<'_>) -> E {
        E::invalid_value(found, &self.0.to_string().as_str())
    }
}

impl Visitor<'_> for BoundsVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<usize, E> {
        self.0.check(number).ok_or_else(|| self.outside(Unexpected::Unsigned(number)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<usize, E> {
        Err(self.outside(Unexpected::Signed(number)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<usize, E> {
        Err(self.outside(Unexpected::Float(number)))
    }
}
