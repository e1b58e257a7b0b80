//! Unique rows of an id column.

use crate::column::{Column, Number, read_integer};
use crate::seed::Fast;
use std::collections::HashSet;

/// The first row of each distinct value.
#[must_use]
pub fn unique_rows(column: &Column<'_>) -> Vec<usize> {
    if column.rows() == 0 {
        return Vec::new();
    }
    if column.is_uniform() {
        return vec![0];
    }
    let mut seen = HashSet::with_hasher(Fast::default());
    (0..column.rows()).filter(|&row| seen.insert(column.row(row))).collect()
}

/// The distinct whole numbers of a column in ascending order; rows that hold none are left out.
#[must_use]
pub fn unique_integers(column: &Column<'_>, number: Number, swapped: bool) -> Vec<i64> {
    let mut seen = HashSet::with_hasher(Fast::default());
    seen.extend((0..column.rows()).filter_map(|row| read_integer(column.row(row), number, swapped)));
    let mut integers: Vec<i64> = seen.into_iter().collect();
    integers.sort_unstable();
    integers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_in_first_seen_order() {
        assert!(unique_rows(&Column::from_bytes(b"", 2)).is_empty());
        assert_eq!(unique_rows(&Column::from_bytes(b"aa", 2)), [0]);
        assert_eq!(unique_rows(&Column::from_bytes(b"aaaaaa", 2)), [0]);
        assert_eq!(unique_rows(&Column::from_bytes(b"bbaabbccaa", 2)), [0, 1, 3]);
        assert_eq!(unique_rows(&Column::from_bytes(b"aaaaab", 2)), [0, 2]);
    }

    #[test]
    fn integers_are_distinct_and_ascending() {
        let bytes: Vec<u8> = [7.0_f32, 7.5, -1.0, f32::NAN, 7.0].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(unique_integers(&Column::from_bytes(&bytes, 4), Number::F32, false), [-1, 7]);
        assert!(unique_integers(&Column::from_bytes(b"", 4), Number::F32, false).is_empty());
    }
}
