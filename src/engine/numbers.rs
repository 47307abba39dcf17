//! Values as a row of numbers: fields in the order of their declaration, choices by their place, without any name.
//!
//! In PID 1 a name costs room, and writing one costs code: for all that an episode rests on several times as much as
//! this. The price is that a row means something only to who knows its declarations (`wire::episode::LAYOUT`).
//!
//! A choice is its place and what it holds; an option 0, or 1 and its value; a list or a text its length and its parts.

use serde::ser::{self, Serialize};
use std::fmt;

/// Takes a value's numbers one by one.
struct Numbers<'a>(&'a mut dyn FnMut(u64));

/// Gives the numbers of a value.
pub fn numbers(value: &impl Serialize, take: &mut dyn FnMut(u64)) {
    // Nothing that is written down is `Unwritable`, and `take` takes everything.
    let _ = value.serialize(&mut Numbers(take));
}

/// The same for equal values, and not for others, as good as ever.
pub(super) fn fingerprint(value: &impl Serialize) -> u64 {
    let mut print = 0;
    numbers(value, &mut |number| print = fold(print, number));
    print
}

/// Adds a number to a print.
pub fn fold(print: u64, number: u64) -> u64 {
    (print.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// A value that is never to be written.
#[derive(Debug)]
struct Unwritable;

type Written = Result<(), Unwritable>;

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no row of numbers")
    }
}

impl std::error::Error for Unwritable {}

impl ser::Error for Unwritable {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl Numbers<'_> {
    fn put(&mut self, number: u64) {
        (self.0)(number);
    }
}

macro_rules! put {
    ($($name:ident: $type:ty => $number:expr;)*) => {
        $(fn $name(self, value: $type) -> Written {
            self.put($number(value));
            Ok(())
        })*
    };
}

impl ser::Serializer for &mut Numbers<'_> {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = ser::Impossible<(), Unwritable>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    put! {
        serialize_bool: bool => u64::from;
        serialize_i8: i8 => |it| i64::from(it).cast_unsigned();
        serialize_i16: i16 => |it| i64::from(it).cast_unsigned();
        serialize_i32: i32 => |it| i64::from(it).cast_unsigned();
        serialize_i64: i64 => i64::cast_unsigned;
        serialize_u8: u8 => u64::from;
        serialize_u16: u16 => u64::from;
        serialize_u32: u32 => u64::from;
        serialize_u64: u64 => u64::from;
    }

    fn serialize_f32(self, _: f32) -> Written {
        Err(Unwritable)
    }

    fn serialize_f64(self, _: f64) -> Written {
        Err(Unwritable)
    }

    fn serialize_char(self, _: char) -> Written {
        Err(Unwritable)
    }

    fn serialize_str(self, text: &str) -> Written {
        self.put(text.len() as u64);
        text.bytes().for_each(|byte| self.put(u64::from(byte)));
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Written {
        Err(Unwritable)
    }

    fn serialize_none(self) -> Written {
        self.put(0);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        self.put(1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Written {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, at: u32, _: &'static str) -> Written {
        self.put(u64::from(at));
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        at: u32,
        _: &'static str,
        value: &T,
    ) -> Written {
        self.put(u64::from(at));
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self, Unwritable> {
        self.put(length.ok_or(Unwritable)? as u64);
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Unwritable> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Unwritable> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        at: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unwritable> {
        self.put(u64::from(at));
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Unwritable> {
        Err(Unwritable)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Unwritable> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        at: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unwritable> {
        self.put(u64::from(at));
        Ok(self)
    }
}

macro_rules! parts {
    ($($of:ident::$name:ident($($key:ty)?);)*) => {
        $(impl ser::$of for &mut Numbers<'_> {
            type Ok = ();
            type Error = Unwritable;

            fn $name<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Written {
                value.serialize(&mut **self)
            }

            fn end(self) -> Written {
                Ok(())
            }
        })*
    };
}

parts! {
    SerializeSeq::serialize_element();
    SerializeTuple::serialize_element();
    SerializeTupleStruct::serialize_field();
    SerializeTupleVariant::serialize_field();
    SerializeStructVariant::serialize_field(&'static str);
}

impl ser::SerializeStruct for &mut Numbers<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Written {
        value.serialize(&mut **self)
    }

    /// What says that it is left out where it is nothing: an option, or a list.
    fn skip_field(&mut self, _: &'static str) -> Written {
        self.put(0);
        Ok(())
    }

    fn end(self) -> Written {
        Ok(())
    }
}
