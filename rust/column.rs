//! Rows of borrowed memory, read where they lie: strided or not, aligned or not, in either byte order.
#![allow(unsafe_code)]

use crate::mutants::mutant;
use half::f16;
use std::marker::PhantomData;

/// Equally spaced rows of equal width in borrowed memory, contiguous or not, aligned or not.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    first: *const u8,
    stride: isize,
    rows: usize,
    width: usize,
    memory: PhantomData<&'a [u8]>,
}

impl<'a> Column<'a> {
    /// Describes `rows` rows of `width` bytes, `stride` bytes apart.
    ///
    /// # Safety
    /// Every row is readable memory during `'a`.
    #[must_use]
    pub const unsafe fn from_raw(first: *const u8, stride: isize, rows: usize, width: usize) -> Self {
        Self { first, stride, rows, width, memory: PhantomData }
    }

    /// Cuts `memory` into rows of `width` bytes.
    ///
    /// # Panics
    /// If `width` is zero or does not divide the length of `memory`.
    #[must_use]
    pub fn from_bytes(memory: &'a [u8], width: usize) -> Self {
        assert!(width > 0 && memory.len().is_multiple_of(width), "rows of {width} bytes do not fill the memory");
        let rows = memory.len() / width;
        // SAFETY: the rows tile the slice, and a slice is never longer than `isize::MAX`.
        unsafe { Self::from_raw(memory.as_ptr(), width.cast_signed(), rows, width) }
    }

    /// The number of rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The width of a row in bytes.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// The bytes of one row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: `from_raw` was promised readable memory for every row.
        unsafe { std::slice::from_raw_parts(self.first.offset(row.cast_signed() * self.stride), self.width) }
    }

    /// The bytes of each row.
    #[inline]
    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        // SAFETY: as in `row`, and no row is beyond the last.
        (0..self.rows).map(move |row| unsafe {
            std::slice::from_raw_parts(self.first.offset(row.cast_signed() * self.stride), self.width)
        })
    }

    /// The rows as an array of arrays, if they are of that width and lie one after the other.
    #[inline]
    pub(crate) fn as_arrays<const WIDTH: usize>(self) -> Option<&'a [[u8; WIDTH]]> {
        let contiguous = self.width == WIDTH && self.stride == WIDTH.cast_signed() && self.rows > 0;
        // SAFETY: `from_raw` was promised readable memory for every row, and an array of bytes is aligned anywhere.
        contiguous.then(|| unsafe { std::slice::from_raw_parts(self.first.cast(), self.rows) })
    }

    /// Whether all rows are equal; true if there is none.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        if self.rows > 1 && (self.stride == self.width.cast_signed() || mutant!("misread_stride")) {
            // SAFETY: the rows are contiguous, and `from_raw` was promised readable memory for each.
            let memory = unsafe { std::slice::from_raw_parts(self.first, self.rows * self.width) };
            // Shifted by one row, the memory equals itself just if each row equals its predecessor.
            return memory[self.width..] == memory[..memory.len() - self.width];
        }
        (1..self.rows).all(|row| self.row(row) == self.row(0))
    }
}

/// The first bytes of a row, in the machine's order.
#[inline]
fn ordered<const WIDTH: usize>(row: &[u8], swapped: bool) -> [u8; WIDTH] {
    let mut unit = [0; WIDTH];
    unit.copy_from_slice(&row[..WIDTH]);
    if swapped && !mutant!("misread_number_order") {
        unit.reverse();
    }
    unit
}

/// The numeric type of a confidence column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after the types")]
pub enum Number {
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
}

impl Number {
    /// The width of one number in bytes.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "64-bit integers round to the nearest f64, as float() does")]
#[inline]
pub(crate) fn read(row: &[u8], number: Number, swapped: bool) -> f64 {
    macro_rules! number {
        ($type:ty) => {
            <$type>::from_ne_bytes(ordered(row, swapped))
        };
    }
    match number {
        Number::F16 => number!(f16).to_f64(),
        Number::F32 => number!(f32).into(),
        Number::F64 => number!(f64),
        Number::I8 => number!(i8).into(),
        Number::I16 => number!(i16).into(),
        Number::I32 => number!(i32).into(),
        Number::I64 => number!(i64) as f64,
        Number::U8 => number!(u8).into(),
        Number::U16 => number!(u16).into(),
        Number::U32 => number!(u32).into(),
        Number::U64 => number!(u64) as f64,
        Number::Bool => f64::from(u8::from(number!(u8) != 0)),
    }
}

/// The whole number at the beginning of a row, its fraction cut off as `int()` does; `None` if it is none or beyond 64 bits.
pub(crate) fn read_integer(row: &[u8], number: Number, swapped: bool) -> Option<i64> {
    match number {
        Number::I64 => Some(i64::from_ne_bytes(ordered(row, swapped))),
        Number::U64 => i64::try_from(u64::from_ne_bytes(ordered(row, swapped))).ok(),
        number => {
            let value = read(row, number, swapped);
            // 2^63: all that is less in magnitude fits.
            #[allow(clippy::cast_possible_truncation, reason = "that is what int() does")]
            (value.abs() < 9_223_372_036_854_775_808.0).then_some(value as i64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_exact_and_fractions_cut_off() {
        macro_rules! check {
            ($($number:ident $value:expr => $wanted:expr,)*) => {$({
                let mut bytes = $value.to_ne_bytes();
                let read = |bytes: &[u8], swapped| {
                    read_integer(bytes, Number::$number, swapped)
                };
                assert_eq!(read(&bytes, false), $wanted);
                bytes.reverse();
                assert_eq!(read(&bytes, true), $wanted);
            })*};
        }
        check! {
            I64 i64::MIN => Some(i64::MIN),
            I64 (1_i64 << 53) + 1 => Some((1 << 53) + 1),
            U64 u64::MAX => None,
            I32 -7_i32 => Some(-7),
            U8 200_u8 => Some(200),
            F32 2.9_f32 => Some(2),
            F64 -2.9_f64 => Some(-2),
            F64 f64::NAN => None,
            F64 f64::INFINITY => None,
            F64 -1e19_f64 => None,
        }
    }

    #[test]
    fn numbers_of_every_type_and_byte_order_read_exactly() {
        macro_rules! check {
            ($($number:ident $type:ty: $value:expr => $wanted:expr,)*) => {$({
                let value: $type = $value;
                let mut bytes = value.to_ne_bytes();
                assert_eq!(Number::$number.width(), bytes.len());
                assert_eq!(read(&bytes, Number::$number, false).to_bits(), f64::to_bits($wanted));
                bytes.reverse();
                assert_eq!(read(&bytes, Number::$number, true).to_bits(), f64::to_bits($wanted));
            })*};
        }
        check! {
            F16 f16: f16::from_f32(0.1) => 0.099_975_585_937_5,
            F32 f32: 0.9 => 0.899_999_976_158_142_1,
            F64 f64: 0.1 => 0.1,
            I8 i8: -3 => -3.0,
            I16 i16: -300 => -300.0,
            I32 i32: i32::MIN => -2_147_483_648.0,
            I64 i64: -(1 << 53) => -9_007_199_254_740_992.0,
            U8 u8: 200 => 200.0,
            U16 u16: 60_000 => 60_000.0,
            U32 u32: u32::MAX => 4_294_967_295.0,
            U64 u64: u64::MAX => 18_446_744_073_709_551_615.0,
            Bool u8: 1 => 1.0,
        }
    }
}
