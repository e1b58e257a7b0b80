//! The readers one by one, for the fuzz targets in `fuzz/`: a crate of their own, which sees only what is public.

use crate::column::{self, Number};
use crate::label::{self, Encoding};
use crate::reject::Reason;

/// The code points of a row that should be a class name.
///
/// # Errors
/// If the row is too long or not UTF-8, or no text.
pub fn class_name(encoding: Encoding, row: &[u8]) -> Result<String, Reason> {
    let mut buffer = Vec::new();
    let canonical = encoding.canonical(row, &mut buffer)?;
    label::validate(canonical)?;
    Ok(label::text(canonical))
}

/// The text of a row of inference ids or prediction types, unless it is unusable.
#[must_use]
pub fn text(encoding: Encoding, row: &[u8]) -> Option<String> {
    let mut text = String::new();
    label::read_text(encoding, row, &mut text).map(|()| text)
}

/// The confidence at the beginning of a row.
#[must_use]
pub fn number(row: &[u8], number: Number, swapped: bool) -> f64 {
    column::read(row, number, swapped)
}

/// The class id at the beginning of a row, if it holds one.
#[must_use]
pub fn integer(row: &[u8], number: Number, swapped: bool) -> Option<i64> {
    column::read_integer(row, number, swapped)
}
