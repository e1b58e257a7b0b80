//! One frame's columns, borrowed where they lie, and their reduction to the frame's own winners.
//!
//! A window is shared and takes atomics; a frame is not and takes none. So a frame of a thousand detections in twenty classes is first
//! reduced to twenty winners, and only these are published. Rows of one column are compared by their raw bytes, since one column has one
//! encoding; the canonical form of a name is made for winners only.
#![allow(unsafe_code)]

use crate::label::Encoding;
use crate::reject::{Reason, Tally};
use half::f16;
use std::hash::BuildHasher;
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

    /// Whether all rows are equal; true if there is none.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        if self.rows > 1 && self.stride == self.width.cast_signed() {
            // SAFETY: the rows are contiguous, and `from_raw` was promised readable memory for each.
            let memory = unsafe { std::slice::from_raw_parts(self.first, self.rows * self.width) };
            // Shifted by one row, the memory equals itself just if each row equals its predecessor.
            return memory[self.width..] == memory[..memory.len() - self.width];
        }
        (1..self.rows).all(|row| self.row(row) == self.row(0))
    }

    fn unit<const WIDTH: usize>(&self, row: usize) -> [u8; WIDTH] {
        let bytes = self.row(row);
        let mut unit = [0; WIDTH];
        unit.copy_from_slice(&bytes[..WIDTH]);
        unit
    }
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

/// The confidences of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Confidences<'a> {
    /// There are none; each reads as zero.
    Missing,
    /// Numbers in memory; `swapped` if in the other byte order.
    Numbers {
        /// Rows at least as wide as the number.
        column: Column<'a>,
        /// Their type.
        number: Number,
        /// Whether they are in the other byte order.
        swapped: bool,
    },
    /// Numbers that were converted one by one.
    Values(&'a [Result<f64, Reason>]),
}

/// The class names of a frame.
#[derive(Clone, Copy, Debug)]
pub enum Names<'a> {
    /// There are none; each reads as `""`.
    Missing,
    /// Fixed-width rows in memory.
    Rows {
        /// The rows; a multiple of four bytes wide unless UTF-8.
        column: Column<'a>,
        /// How they store text.
        encoding: Encoding,
    },
    /// Names that were converted one by one.
    Texts(&'a [Result<Box<[u8]>, Reason>]),
}

/// The readable part of one prediction.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    rows: usize,
    confidences: Confidences<'a>,
    names: Names<'a>,
}

impl<'a> Frame<'a> {
    /// Puts the columns of `rows` detections together.
    ///
    /// # Errors
    /// If a column has another number of rows, or rows too narrow for what they hold.
    pub fn new(rows: usize, confidences: Confidences<'a>, names: Names<'a>) -> Result<Self, Reason> {
        let lengths = [
            match confidences {
                Confidences::Missing => rows,
                Confidences::Numbers { column, .. } => column.rows,
                Confidences::Values(values) => values.len(),
            },
            match names {
                Names::Missing => rows,
                Names::Rows { column, .. } => column.rows,
                Names::Texts(texts) => texts.len(),
            },
        ];
        if lengths != [rows; 2] {
            return Err(Reason::ColumnLengthsDiffer);
        }
        match confidences {
            Confidences::Numbers { column, number, .. } if column.width < number.width() => Err(Reason::ColumnShape),
            _ => Ok(Self { rows, confidences, names }),
        }
    }

    /// The number of detections.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The canonical class name of a row, in place or in `buffer`.
    pub(crate) fn name<'b>(&self, row: usize, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Reason>
    where
        'a: 'b,
    {
        match self.names {
            Names::Rows { column, encoding } => encoding.canonical(column.row(row), buffer),
            names => names.raw(row),
        }
    }
}

impl<'a> Names<'a> {
    /// Bytes that are equal for equal names of this frame.
    fn raw(&self, row: usize) -> Result<&'a [u8], Reason> {
        match self {
            Self::Missing => Ok(&[]),
            Self::Rows { column, .. } => Ok(column.row(row)),
            Self::Texts(texts) => texts[row].as_deref().map_err(|&reason| reason),
        }
    }
}

/// The best row of one class within one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Winner {
    /// The first row with the greatest confidence.
    pub(crate) row: usize,
    /// The first usable row of the class.
    pub(crate) first: usize,
    /// Usable rows of the class.
    pub(crate) rows: u32,
    pub(crate) confidence: f64,
    hash: u64,
}

/// Working memory for one reduction at a time, kept between frames.
#[derive(Default)]
pub(crate) struct Reduction {
    /// The winners of the frame, in the order in which their classes appear.
    pub(crate) winners: Vec<Winner>,
    /// Open addressing: one more than a winner's number, or zero.
    table: Vec<u32>,
    /// Memory for a canonical name.
    pub(crate) name: Vec<u8>,
    hasher: RowHasher,
}

impl Reduction {
    /// Roomy for the usual number of classes, so that a probe rarely meets a neighbour, and quick to clear.
    const SMALLEST_TABLE: usize = 256;
    /// A table beyond this was made for a hostile frame and is not kept.
    const LARGEST_KEPT: usize = 1 << 13;

    /// Whether the memory is worth keeping for the next frame.
    pub(crate) fn is_small(&self) -> bool {
        self.table.len() <= Self::LARGEST_KEPT
    }

    /// Reduces a frame to its winners and counts the rows that cannot be used.
    pub(crate) fn reduce(&mut self, frame: &Frame<'_>, tally: &mut Tally) {
        self.winners.clear();
        self.table.clear();
        self.table.resize(Self::SMALLEST_TABLE, 0);
        match frame.confidences {
            Confidences::Missing => self.reduce_confidences(frame, tally, |_| Ok(0.0)),
            Confidences::Values(values) => self.reduce_confidences(frame, tally, |row| values[row]),
            Confidences::Numbers { column, number: Number::F32, swapped: false } => {
                self.reduce_confidences(frame, tally, |row| Ok(f32::from_ne_bytes(column.unit(row)).into()));
            }
            Confidences::Numbers { column, number, swapped } => {
                self.reduce_confidences(frame, tally, |row| Ok(read(&column, row, number, swapped)));
            }
        }
    }

    fn reduce_confidences(
        &mut self,
        frame: &Frame<'_>,
        tally: &mut Tally,
        confidence: impl Fn(usize) -> Result<f64, Reason>,
    ) {
        match frame.names {
            Names::Rows { column, .. } => self.reduce_rows(frame, tally, confidence, |row| Ok(column.row(row))),
            names => self.reduce_rows(frame, tally, confidence, |row| names.raw(row)),
        }
    }

    fn reduce_rows<'a>(
        &mut self,
        frame: &Frame<'a>,
        tally: &mut Tally,
        confidence: impl Fn(usize) -> Result<f64, Reason>,
        name: impl Fn(usize) -> Result<&'a [u8], Reason>,
    ) {
        for row in 0..frame.rows {
            match confidence(row).and_then(finite).and_then(|confidence| Ok((confidence, name(row)?))) {
                Ok((confidence, bytes)) => self.observe(row, confidence, bytes, &name),
                Err(reason) => tally.add(reason, 1),
            }
        }
    }

    #[inline]
    fn observe<'a>(
        &mut self,
        row: usize,
        confidence: f64,
        bytes: &[u8],
        name: &impl Fn(usize) -> Result<&'a [u8], Reason>,
    ) {
        let hash = self.hasher.hash(bytes);
        let mut at = self.home(hash);
        while let Some(number) = self.table[at].checked_sub(1) {
            let winner = &mut self.winners[number as usize];
            if winner.hash == hash && name(winner.first) == Ok(bytes) {
                winner.rows += 1;
                if confidence > winner.confidence {
                    winner.confidence = confidence;
                    winner.row = row;
                }
                return;
            }
            at = (at + 1) & (self.table.len() - 1);
        }
        self.winners.push(Winner { row, first: row, rows: 1, confidence, hash });
        self.table[at] = numbered(self.winners.len());
        if self.winners.len() * 2 > self.table.len() {
            self.grow();
        }
    }

    fn home(&self, hash: u64) -> usize {
        #[allow(clippy::cast_possible_truncation, reason = "only the low bits are kept")]
        let low = hash as usize;
        low & (self.table.len() - 1)
    }

    #[cold]
    fn grow(&mut self) {
        let larger = self.table.len() * 4;
        self.table.clear();
        self.table.resize(larger, 0);
        for number in 0..self.winners.len() {
            let mut at = self.home(self.winners[number].hash);
            while self.table[at] != 0 {
                at = (at + 1) & (larger - 1);
            }
            self.table[at] = numbered(number + 1);
        }
    }
}

/// A seeded hash of a row, by folded multiplication as in wyhash: each step multiplies two words to twice their width and
/// folds the halves. Unlike a general hasher it is inlined into the loop over the rows, which halves the time of a row.
struct RowHasher {
    seeds: [u64; 2],
}

impl Default for RowHasher {
    fn default() -> Self {
        let random = std::hash::RandomState::new();
        Self { seeds: [random.hash_one(0), random.hash_one(1)] }
    }
}

impl RowHasher {
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "both halves of the pair are used")]
    fn hash(&self, row: &[u8]) -> u64 {
        let [mut hash, seed] = self.seeds;
        let (pairs, rest) = row.as_chunks::<16>();
        for pair in pairs {
            let pair = u128::from_ne_bytes(*pair);
            hash = fold(hash ^ pair as u64, seed ^ (pair >> 64) as u64);
        }
        let (units, bytes) = rest.as_chunks::<4>();
        for unit in units {
            hash = fold(hash ^ u64::from(u32::from_ne_bytes(*unit)), seed);
        }
        for &byte in bytes {
            hash = fold(hash ^ u64::from(byte), seed);
        }
        hash
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both halves of the product are used")]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

/// A count of winners as it stands in the table.
fn numbered(winners: usize) -> u32 {
    // A frame of 2^32 classes would need more than 16 GiB for its names; the excess would share the last winner's place.
    u32::try_from(winners).unwrap_or(u32::MAX)
}

fn finite(confidence: f64) -> Result<f64, Reason> {
    if confidence.is_finite() {
        Ok(confidence)
    } else if confidence.is_nan() {
        Err(Reason::ConfidenceNan)
    } else {
        Err(Reason::ConfidenceInfinite)
    }
}

#[allow(clippy::cast_precision_loss, reason = "64-bit integers round to the nearest f64, as float() does")]
fn read(column: &Column<'_>, row: usize, number: Number, swapped: bool) -> f64 {
    macro_rules! number {
        ($type:ty) => {{
            let mut unit = column.unit::<{ size_of::<$type>() }>(row);
            if swapped {
                unit.reverse();
            }
            <$type>::from_ne_bytes(unit)
        }};
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

#[cfg(test)]
mod tests {
    use super::*;

    fn native(names: &[&str], width: usize) -> Vec<u8> {
        let row = |name: &&str| {
            let mut row: Vec<u8> = name.chars().flat_map(|c| u32::from(c).to_ne_bytes()).collect();
            row.resize(4 * width, 0);
            row
        };
        names.iter().flat_map(row).collect()
    }

    #[test]
    fn a_frame_is_reduced_to_the_first_best_row_of_each_class() {
        let names = native(&["a", "b", "a", "b", "a"], 3);
        let values: Vec<u8> = [0.5_f32, 0.25, 0.75, f32::NAN, 0.75].iter().flat_map(|v| v.to_ne_bytes()).collect();
        let column = Column::from_bytes(&values, 4);
        let confidences = Confidences::Numbers { column, number: Number::F32, swapped: false };
        let names = Names::Rows { column: Column::from_bytes(&names, 12), encoding: Encoding::Native };
        let frame = Frame::new(5, confidences, names).expect("columns of one length");
        let (mut reduction, mut tally) = (Reduction::default(), Tally::default());
        reduction.reduce(&frame, &mut tally);
        let found: Vec<_> = reduction.winners.iter().map(|w| (w.first, w.row, w.rows, w.confidence)).collect();
        assert_eq!(found, [(0, 2, 3, 0.75), (1, 1, 1, 0.25)]);
    }

    #[test]
    fn a_frame_may_hold_more_classes_than_the_table() {
        let texts: Vec<String> = (0..5_000).map(|class| format!("class {}", class % 2_500)).collect();
        let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let names = native(&refs, 12);
        let names = Names::Rows { column: Column::from_bytes(&names, 48), encoding: Encoding::Native };
        let frame = Frame::new(refs.len(), Confidences::Missing, names).expect("columns of one length");
        let mut reduction = Reduction::default();
        reduction.reduce(&frame, &mut Tally::default());
        assert_eq!(reduction.winners.len(), 2_500);
        assert!(reduction.winners.iter().enumerate().all(|(at, winner)| winner.first == at && winner.rows == 2));
    }

    #[test]
    fn rows_that_differ_anywhere_differ_in_their_hash() {
        let row_hasher = RowHasher::default();
        for width in [1, 4, 7, 16, 24, 32, 45] {
            let mut hashes = vec![row_hasher.hash(&vec![0; width])];
            for at in 0..width {
                let mut row = vec![0; width];
                row[at] = 1;
                hashes.push(row_hasher.hash(&row));
            }
            hashes.sort_unstable();
            hashes.dedup();
            assert_eq!(hashes.len(), width + 1);
        }
    }

    #[test]
    fn columns_that_do_not_fit_together_make_no_frame() {
        let bytes = [0_u8; 12];
        let numbers =
            |width, number| Confidences::Numbers { column: Column::from_bytes(&bytes, width), number, swapped: false };
        let outcome = |rows, confidences| Frame::new(rows, confidences, Names::Missing).map(|frame| frame.rows());
        assert_eq!(outcome(3, numbers(4, Number::F32)), Ok(3));
        assert_eq!(outcome(4, numbers(4, Number::F32)), Err(Reason::ColumnLengthsDiffer));
        assert_eq!(outcome(3, numbers(4, Number::F64)), Err(Reason::ColumnShape));
        assert_eq!(outcome(2, Confidences::Values(&[Ok(0.5)])), Err(Reason::ColumnLengthsDiffer));
    }

    #[test]
    fn numbers_of_every_type_and_byte_order_read_exactly() {
        macro_rules! check {
            ($($number:ident $type:ty: $value:expr => $wanted:expr,)*) => {$({
                let value: $type = $value;
                let mut bytes = value.to_ne_bytes();
                assert_eq!(Number::$number.width(), bytes.len());
                let column = Column::from_bytes(&bytes, bytes.len());
                assert_eq!(read(&column, 0, Number::$number, false).to_bits(), f64::to_bits($wanted));
                bytes.reverse();
                let column = Column::from_bytes(&bytes, bytes.len());
                assert_eq!(read(&column, 0, Number::$number, true).to_bits(), f64::to_bits($wanted));
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
