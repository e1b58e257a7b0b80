//! A frame reduced to its own winners.
//!
//! A window is shared and takes atomics; a frame is not and takes none. So a frame of a thousand detections in twenty classes is first
//! reduced to twenty winners, and only these are published. Rows of one column are compared by their raw bytes, since one column has one
//! encoding; the canonical form of a name is made for winners only. Class ids that share a name have a winner each and meet in the window.

use crate::column::{Number, read};
use crate::frame::{Confidences, Frame, Names};
use crate::reject::{Reason, Tally};
use std::hash::BuildHasher;

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
            Confidences::Numbers { column, number: Number::F32, swapped: false } => {
                self.reduce_confidences(frame, tally, |row| Ok(read(&column, row, Number::F32, false)));
            }
            confidences => self.reduce_confidences(frame, tally, |row| confidences.get(row)),
        }
    }

    fn reduce_confidences(
        &mut self,
        frame: &Frame<'_>,
        tally: &mut Tally,
        confidence: impl Fn(usize) -> Result<f64, Reason>,
    ) {
        match frame.names {
            Names::Rows { column, .. } | Names::Ids { column, .. } => {
                self.reduce_rows(frame, tally, confidence, |row| Ok(column.row(row)));
            }
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
        for row in 0..frame.rows() {
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
                winner.rows = winner.rows.saturating_add(1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::Column;
    use crate::label::Encoding;

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
}
