//! The readable part of one prediction: columns that belong together.

use crate::column::{Column, Number};
use crate::label::Encoding;
use crate::reject::Reason;

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
    pub(crate) confidences: Confidences<'a>,
    pub(crate) names: Names<'a>,
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
                Confidences::Numbers { column, .. } => column.rows(),
                Confidences::Values(values) => values.len(),
            },
            match names {
                Names::Missing => rows,
                Names::Rows { column, .. } => column.rows(),
                Names::Texts(texts) => texts.len(),
            },
        ];
        if lengths != [rows; 2] {
            return Err(Reason::ColumnLengthsDiffer);
        }
        match confidences {
            Confidences::Numbers { column, number, .. } if column.width() < number.width() => Err(Reason::ColumnShape),
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
    pub(crate) fn raw(&self, row: usize) -> Result<&'a [u8], Reason> {
        match self {
            Self::Missing => Ok(&[]),
            Self::Rows { column, .. } => Ok(column.row(row)),
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
    }
}
