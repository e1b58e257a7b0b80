//! Unique rows of an id column.

use crate::column::{Column, Number, read_integer};
use crate::rows::sample;
use crate::seed::Fast;
use std::collections::HashSet;

/// How many different values a column is expected to have at most.
const FEW: usize = 28;
/// How many rows are remembered to be compared with first.
const RECENT: usize = 256;

/// The first row of each distinct value.
#[must_use]
pub fn unique_rows(column: &Column<'_>) -> Vec<usize> {
    if column.rows() == 0 {
        return Vec::new();
    }
    if column.is_uniform() {
        return vec![0];
    }
    let mut seen = HashSet::with_capacity_and_hasher(FEW, Fast::default());
    let mut unique = Vec::with_capacity(FEW);
    // Most rows repeat one of a few, and to compare a row with one takes less time than to hash all of it.
    let mut recent = [None; RECENT];
    let compared = column.width() >= 8; // what is narrower has no sample, and is hashed at once
    for (number, row) in column.iter().enumerate() {
        if !compared {
            if seen.insert(row) {
                unique.push(number);
            }
            continue;
        }
        let recent = &mut recent[sample(row) % RECENT];
        if *recent == Some(row) {
            continue;
        }
        if seen.insert(row) {
            unique.push(number);
        }
        *recent = Some(row);
    }
    unique
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
    fn rows_that_differ_in_any_byte_are_told_apart_in_any_order() {
        for width in [1, 7, 8, 17, 24, 45, 144] {
            for at in 0..width {
                for different in [2, 8, 200] {
                    let row = |number: usize| {
                        let mut row = vec![b'x'; width];
                        row[at] = u8::try_from(number * number * 7 % different).expect("fewer than 256");
                        row
                    };
                    let rows: Vec<_> = (0..600).map(row).collect();
                    let mut wanted: Vec<usize> = Vec::new();
                    for (number, row) in rows.iter().enumerate() {
                        if wanted.iter().all(|&first| rows[first] != *row) {
                            wanted.push(number);
                        }
                    }
                    assert_eq!(unique_rows(&Column::from_bytes(&rows.concat(), width)), wanted);
                }
            }
        }
    }

    #[test]
    fn integers_are_distinct_and_ascending() {
        let bytes: Vec<u8> = [7.0_f32, 7.5, -1.0, f32::NAN, 7.0].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(unique_integers(&Column::from_bytes(&bytes, 4), Number::F32, false), [-1, 7]);
        assert!(unique_integers(&Column::from_bytes(b"", 4), Number::F32, false).is_empty());
    }
}
