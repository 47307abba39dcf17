//! Values out of a row of numbers (`engine::numbers`). `lifeboat` writes rows, `lifeboatctl` reads them.

use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeSeed, EnumAccess, IntoDeserializer, SeqAccess, VariantAccess, Visitor};
use std::fmt;

/// Takes values from a row.
struct Row<'a>(&'a [u64]);

/// Why a row is not what it should be.
#[derive(Debug)]
pub(super) struct Strange(String);

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Strange {}

impl de::Error for Strange {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self(why.to_string())
    }
}

/// A value that is the whole row.
pub(super) fn whole<T: de::DeserializeOwned>(numbers: &[u64]) -> Result<T, Strange> {
    let mut row = Row(numbers);
    let value = T::deserialize(&mut row)?;
    match row.0 {
        [] => Ok(value),
        more => Err(Strange(format!("there are {} numbers too many", more.len()))),
    }
}

impl Row<'_> {
    fn next(&mut self) -> Result<u64, Strange> {
        let (number, rest) =
            self.0.split_first().ok_or_else(|| Strange("there are not enough numbers".into()))?;
        self.0 = rest;
        Ok(*number)
    }

    fn next_bool(&mut self) -> Result<bool, Strange> {
        match self.next()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Strange(format!("{other} where 0 or 1 is due"))),
        }
    }
}

macro_rules! take {
    ($($name:ident => $visit:ident($number:expr);)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Strange> {
            let number = self.next()?;
            visitor.$visit($number(number))
        })*
    };
}

impl<'de> de::Deserializer<'de> for &mut Row<'_> {
    type Error = Strange;

    take! {
        deserialize_u8 => visit_u64(u64::from);
        deserialize_u16 => visit_u64(u64::from);
        deserialize_u32 => visit_u64(u64::from);
        deserialize_u64 => visit_u64(u64::from);
        deserialize_i8 => visit_i64(u64::cast_signed);
        deserialize_i16 => visit_i64(u64::cast_signed);
        deserialize_i32 => visit_i64(u64::cast_signed);
        deserialize_i64 => visit_i64(u64::cast_signed);
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Strange> {
        let it = self.next_bool()?;
        visitor.visit_bool(it)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Strange> {
        let length = usize::try_from(self.next()?).ok().filter(|length| *length <= self.0.len());
        let length = length.ok_or_else(|| Strange("a text that is too long".into()))?;
        let mut bytes = Vec::with_capacity(length);
        for _ in 0..length {
            bytes.push(u8::try_from(self.next()?).map_err(|_| Strange("a text that is none".into()))?);
        }
        visitor.visit_string(String::from_utf8(bytes).map_err(|_| Strange("a text that is none".into()))?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Strange> {
        if self.next_bool()? { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Strange> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Strange> {
        // Each part takes a number at least.
        let length = usize::try_from(self.next()?).ok().filter(|length| *length <= self.0.len());
        let left = length.ok_or_else(|| Strange("a list that is too long".into()))?;
        visitor.visit_seq(Parts { row: self, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Strange> {
        visitor.visit_seq(Parts { row: self, left })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Strange> {
        visitor.visit_seq(Parts { row: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Strange> {
        visitor.visit_seq(Parts { row: self, left: fields.len() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Strange> {
        visitor.visit_enum(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Strange> {
        Err(Strange("a row does not say what it holds".into()))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char str bytes byte_buf unit unit_struct map identifier ignored_any
    }
}

/// So many parts of what is read from a row.
struct Parts<'r, 'a> {
    row: &'r mut Row<'a>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_, '_> {
    type Error = Strange;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Strange> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.row).map(Some)
    }
}

impl<'de> EnumAccess<'de> for &mut Row<'_> {
    type Error = Strange;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Strange> {
        let at = u32::try_from(self.next()?).map_err(|_| Strange("a choice that is none".into()))?;
        let at: U32Deserializer<Strange> = at.into_deserializer();
        Ok((seed.deserialize(at)?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Row<'_> {
    type Error = Strange;

    fn unit_variant(self) -> Result<(), Strange> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Strange> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Strange> {
        visitor.visit_seq(Parts { row: self, left })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Strange> {
        visitor.visit_seq(Parts { row: self, left: fields.len() })
    }
}
