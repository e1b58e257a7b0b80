//! Rows compared and hashed where they lie, inlined into the loops over them.

use crate::seed::Unguessable;
use std::hash::BuildHasher;

/// Whether two rows are equal; inlined, unlike the comparison of slices, which is a call for each row.
#[inline(always)]
#[allow(clippy::inline_always, reason = "see above")]
pub(crate) fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let (Some((ones, last)), Some((others, other_last))) = (words(one), words(other)) else {
        return halves(one) == halves(other);
    };
    ones.zip(others).all(|(one, other)| one == other) && last == other_last
}

/// Cuts a row into words of 16 bytes, the last of which overlaps the one before unless they come out even; `None` if it is shorter than one.
#[inline(always)]
#[allow(clippy::inline_always, reason = "see above")]
fn words(row: &[u8]) -> Option<(impl Iterator<Item = u128>, u128)> {
    let last = u128::from_ne_bytes(*row.last_chunk()?);
    let words = row.as_chunks().0;
    // The last word covers the end, and all of it where the row comes out even.
    let before = (row.len() - 1) / 16;
    Some((words[..before].iter().map(|word| u128::from_ne_bytes(*word)), last))
}

/// The beginning and the end of a row of less than 16 bytes, which overlap; together with its length that is all of it.
#[inline(always)]
#[allow(clippy::inline_always, reason = "see above")]
fn halves(row: &[u8]) -> (u64, u64) {
    if let Some((first, last)) = row.first_chunk().zip(row.last_chunk()) {
        (u64::from_ne_bytes(*first), u64::from_ne_bytes(*last))
    } else if let Some(first) = row.first_chunk()
        && let Some(last) = row.last_chunk()
    {
        (u32::from_ne_bytes(*first).into(), u32::from_ne_bytes(*last).into())
    } else {
        row.iter().fold((0, 0), |(whole, _), &byte| (whole << 8 | u64::from(byte), 0))
    }
}

/// A seeded hash of a row, by folded multiplication as in wyhash: each step multiplies two words to twice their width and
/// folds the halves. Unlike a general hasher it is inlined into the loop over the rows, which halves the time of a row.
pub(crate) struct RowHasher {
    seeds: [u64; 2],
}

impl Default for RowHasher {
    fn default() -> Self {
        let random = Unguessable::default();
        Self { seeds: [random.hash_one(0), random.hash_one(1)] }
    }
}

impl RowHasher {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call takes a quarter of a row's time")]
    #[allow(clippy::cast_possible_truncation, reason = "both halves of the word are used")]
    pub(crate) fn hash(&self, row: &[u8]) -> u64 {
        let [mut hash, mut seed] = self.seeds;
        if let Some((before, last)) = words(row) {
            for word in before {
                // The products do not wait for each other, and each has a seed of its place: equal words do not cancel out.
                hash ^= fold(self.seeds[0] ^ word as u64, seed ^ (word >> 64) as u64);
                seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            }
            hash ^= fold(self.seeds[0] ^ last as u64, seed ^ (last >> 64) as u64);
        } else {
            let (first, last) = halves(row);
            hash = fold(hash ^ first, seed ^ last.rotate_left(32) ^ row.len() as u64);
        }
        hash
    }
}

/// A number that depends on the beginning, the middle and the end of a row.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the upper half is used")]
pub(crate) fn sample(row: &[u8]) -> usize {
    let words = [row.first_chunk(), row[row.len() / 2..].first_chunk(), row.last_chunk()];
    let [first, middle, last] = words.map(|word| u64::from_ne_bytes(*word.unwrap_or(&[0; 8])));
    ((first ^ middle.rotate_left(21) ^ last.rotate_left(42)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both halves of the product are used")]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_equal_only_if_they_are_so_everywhere() {
        for width in 0..50 {
            let row = vec![7; width];
            assert!(equal(&row, &row.clone()));
            assert!(!equal(&row, &vec![7; width + 1]));
            for at in 0..width {
                let mut other = row.clone();
                other[at] = 8;
                assert!(!equal(&row, &other));
            }
        }
    }

    #[test]
    fn rows_that_differ_anywhere_differ_in_their_hash() {
        let row_hasher = RowHasher::default();
        for width in [1, 3, 4, 7, 8, 12, 15, 16, 24, 32, 45] {
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
    fn equal_words_at_any_distance_do_not_cancel_out() {
        let row_hasher = RowHasher::default();
        for distance in 1..256 {
            let mut hashes: Vec<u64> = (0..4_u8)
                .map(|value| {
                    let mut row = vec![0; 16 * 260];
                    row[0] = value;
                    row[16 * distance] = value;
                    row_hasher.hash(&row)
                })
                .collect();
            hashes.sort_unstable();
            hashes.dedup();
            assert_eq!(hashes.len(), 4, "{distance} words apart");
        }
    }
}
