//! Unique rows of an id column, in the order of their first appearance.

use crate::column::Column;
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
    let mut seen = HashSet::with_hasher(foldhash::fast::RandomState::default());
    (0..column.rows()).filter(|&row| seen.insert(column.row(row))).collect()
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
}
