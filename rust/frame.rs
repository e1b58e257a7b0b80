//! The readable part of one prediction: columns that belong together.

use crate::column::{Column, Number, read, read_integer};
use crate::label::Encoding;
use crate::mutants::mutant;
use crate::reject::Reason;

/// A class name in its canonical form, or why it cannot be used; [`Reason::ClassNameMissing`] is one that reads as `""`.
pub type Name = Result<Box<[u8]>, Reason>;

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
    /// There are none; each reads as `""` and is counted.
    Missing,
    /// Fixed-width rows in memory.
    Rows {
        /// The rows; a multiple of four bytes wide unless UTF-8.
        column: Column<'a>,
        /// How they store text.
        encoding: Encoding,
    },
    /// Class ids in memory, and the names they stand for.
    Ids {
        /// Rows at least as wide as the number.
        column: Column<'a>,
        /// Their type.
        number: Number,
        /// Whether they are in the other byte order.
        swapped: bool,
        /// Every id of the column, in ascending order.
        names: &'a [(i64, Name)],
    },
    /// Names that were converted one by one.
    Texts(&'a [Name]),
}

/// The readable part of one prediction.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    rows: usize,
    pub(crate) confidences: Confidences<'a>,
    pub(crate) names: Names<'a>,
    /// Numbers that most likely are equal just for equal names, if there are any.
    pub(crate) hints: &'a [[u8; 8]],
}

impl<'a> Frame<'a> {
    /// Puts the columns of `rows` detections together.
    ///
    /// # Errors
    /// If a column has another number of rows, or rows too narrow for what they hold.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "most of it is known where the columns are made")]
    pub fn new(rows: usize, confidences: Confidences<'a>, names: Names<'a>) -> Result<Self, Reason> {
        let lengths = [
            match confidences {
                Confidences::Missing => rows,
                Confidences::Numbers { column, .. } => column.rows(),
                Confidences::Values(values) => values.len(),
            },
            match names {
                Names::Missing => rows,
                Names::Rows { column, .. } | Names::Ids { column, .. } => column.rows(),
                Names::Texts(texts) => texts.len(),
            },
        ];
        if lengths != [rows; 2] {
            return Err(Reason::ColumnLengthsDiffer);
        }
        let too_narrow = [
            matches!(confidences, Confidences::Numbers { column, number, .. } if column.width() < number.width()),
            matches!(names, Names::Ids { column, number, .. } if column.width() < number.width()),
        ];
        if too_narrow.contains(&true) {
            Err(Reason::ColumnShape)
        } else {
            Ok(Self { rows, confidences, names, hints: &[] })
        }
    }

    /// Adds class ids, which make rows faster to tell apart; what counts is still the name.
    ///
    /// Those that are not contiguous 64-bit integers, or of another number of rows, are of no use.
    #[must_use]
    pub fn with_hints(self, ids: Column<'a>) -> Self {
        let hints = ids.as_arrays().filter(|ids| ids.len() == self.rows);
        Self { hints: hints.unwrap_or_default(), ..self }
    }

    /// The number of detections.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }
}

/// How the raw bytes of a frame's rows spell class names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spelling<'a> {
    /// As text, which means the same in every frame.
    Text(Encoding),
    /// As class ids, whose names belong to the frame.
    Ids { number: Number, swapped: bool, names: &'a [(i64, Name)] },
}

impl Spelling<'_> {
    /// The canonical class name that the raw bytes of a row stand for, in place or in `buffer`.
    ///
    /// The bytes are a copy of the row's: another thread may have written another name into the array meanwhile.
    pub(crate) fn name<'b>(&'b self, raw: &'b [u8], buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Reason> {
        match self {
            Self::Text(encoding) => encoding.canonical(raw, buffer),
            Self::Ids { number, swapped, names } => {
                let id = read_integer(raw, *number, *swapped).ok_or(Reason::ClassIdInvalid)?;
                let at = names.binary_search_by_key(&id, |&(id, _)| id).map_err(|_| Reason::ClassIdInvalid)?;
                names[if mutant!("misread_class_id") { 0 } else { at }].1.as_deref().map_err(|&reason| reason)
            }
        }
    }
}

impl Confidences<'_> {
    /// The confidence of a row.
    #[inline]
    pub(crate) fn get(&self, row: usize) -> Result<f64, Reason> {
        match self {
            Self::Missing => Ok(0.0),
            Self::Numbers { column, number, swapped } => Ok(read(column.row(row), *number, *swapped)),
            Self::Values(values) => values[row],
        }
    }
}

impl<'a> Names<'a> {
    /// How raw bytes spell names; those of text that was converted are canonical.
    pub(crate) const fn spelling(&self) -> Spelling<'a> {
        match *self {
            Self::Missing | Self::Texts(_) => Spelling::Text(Encoding::Native),
            Self::Rows { encoding, .. } => Spelling::Text(encoding),
            Self::Ids { number, swapped, names, .. } => Spelling::Ids { number, swapped, names },
        }
    }

    /// Bytes that are equal only for equal names of this frame.
    pub(crate) fn raw(&self, row: usize) -> Result<&'a [u8], Reason> {
        match self {
            Self::Missing => Err(Reason::ClassNameMissing),
            Self::Rows { column, .. } | Self::Ids { column, .. } => Ok(column.row(row)),
            Self::Texts(texts) => texts[row].as_deref().map_err(|&reason| reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let ids = |width, number| Names::Ids {
            column: Column::from_bytes(&bytes, width),
            number,
            swapped: false,
            names: &[],
        };
        let outcome = |rows, names| Frame::new(rows, Confidences::Missing, names).map(|frame| frame.rows());
        assert_eq!(outcome(3, ids(4, Number::I32)), Ok(3));
        assert_eq!(outcome(4, ids(4, Number::I32)), Err(Reason::ColumnLengthsDiffer));
        assert_eq!(outcome(3, ids(4, Number::I64)), Err(Reason::ColumnShape));
    }

    #[test]
    fn a_class_id_reads_as_the_name_it_stands_for() {
        let bytes: Vec<u8> = [7_i32, -1, 8, 9].iter().flat_map(|id| id.to_ne_bytes()).collect();
        let names: [(i64, Name); 3] =
            [(-1, Ok(Box::default())), (7, Ok(Box::from([1, 0, 0, 0]))), (8, Err(Reason::ClassNameTooLong))];
        let column = Column::from_bytes(&bytes, 4);
        let spelling = Names::Ids { column, number: Number::I32, swapped: false, names: &names }.spelling();
        let mut buffer = Vec::new();
        assert_eq!(spelling.name(column.row(0), &mut buffer), Ok(&[1, 0, 0, 0][..]));
        assert_eq!(spelling.name(column.row(1), &mut buffer), Ok(&[][..]));
        assert_eq!(spelling.name(column.row(2), &mut buffer), Err(Reason::ClassNameTooLong));
        assert_eq!(spelling.name(column.row(3), &mut buffer), Err(Reason::ClassIdInvalid));
    }
}
