//! The statistics of one class within a window, added to by any number of observers and taken once by a drain.
//!
//! Several numbers have to change as one, or a drain would see a detection in the count and not in the sum. So, as with a peak (see [`crate::peak`]), the slot
//! is one word: the index of the cell with the numbers, and a tag that changes with every exchange. An observer adds up what the cell has and its own in a cell that it owns, and exchanges
//! that for the one in the slot; the displaced cell is its own for the next class. If somebody was faster, it adds up again.
//! The drain exchanges the slot's word for [`CLOSED`], once: what was added before is in this window, what comes later goes to the current one.
//!
//! # Orderings
//! * the exchange in `add` (release) pairs with the load of the slot and with exchanges of it that fail (acquire), and with `take` (acquire): the numbers in the cell are those
//!   of the exchange.
//! * it acquires, too. The cell may be recycled while it is read, and its numbers be any mixture then; the exchange fails in that case, because whoever wrote to the cell had displaced it before:
//!   had it succeeded, it would have come before that displacement, and the reading with it.
//! * `read` exchanges the word for itself, for the same reason.
//! * `take` (release) pairs with the loads of the slot as in [`crate::peak`].

#![allow(unsafe_code)]

use crate::cells::{Cells, low, tagged};
use crate::mutants::{mutant, ordering};
use crate::statistics::{BINS, ClassStatistics, bin, is_probability, units};
use crate::sync::{AtomicU64, Ordering};

const EMPTY: u32 = u32::MAX;
/// No cell has these indices: they name the last cells of a chunk that is never reached.
const CLOSED_INDEX: u32 = u32::MAX - 1;
const WITHOUT_INDEX: u32 = u32::MAX - 2;
const CLOSED: u64 = CLOSED_INDEX as u64;

const FRAMES: usize = 0;
const DETECTIONS: usize = 1;
const OUTSIDE: usize = 2;
const SUM: usize = 3;
/// Bits of the least confidence, which are in its order: it is not negative. Those of infinity if there is none.
const LEAST: usize = 4;
const HISTOGRAM: usize = 5;
const NUMBERS: usize = HISTOGRAM + BINS;

/// The numbers of a cell.
pub(crate) struct Numbers([AtomicU64; NUMBERS]);

impl Default for Numbers {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Numbers {
    /// Sets the numbers to those of before and of a frame; others may be reading those of before, or writing them by now.
    #[inline]
    fn set(&self, before: Option<&Self>, counts: &FrameCounts, detections: u64, is_first: bool) {
        let numbers = &self.0;
        let set = |at: usize, number: u64| numbers[at].store(number, Ordering::Relaxed);
        let least = counts.least.to_bits();
        let rows = counts.histogram.iter().map(|&rows| u64::from(rows)).enumerate();
        if let Some(Self(before)) = before {
            let held = |at: usize| before[at].load(Ordering::Relaxed);
            set(FRAMES, held(FRAMES) + u64::from(is_first));
            set(DETECTIONS, held(DETECTIONS) + detections);
            set(OUTSIDE, held(OUTSIDE) + u64::from(counts.outside));
            set(SUM, held(SUM).saturating_add(counts.sum));
            set(LEAST, held(LEAST).min(least));
            rows.for_each(|(bin, rows)| set(HISTOGRAM + bin, held(HISTOGRAM + bin) + rows));
        } else {
            set(FRAMES, u64::from(is_first));
            set(DETECTIONS, detections);
            set(OUTSIDE, u64::from(counts.outside));
            set(SUM, counts.sum);
            set(LEAST, least);
            rows.for_each(|(bin, rows)| set(HISTOGRAM + bin, rows));
        }
    }

    fn values(&self) -> [u64; NUMBERS] {
        std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed))
    }
}

/// What a frame has of one class.
#[derive(Clone)]
pub(crate) struct FrameCounts {
    outside: u32,
    sum: u64,
    least: f64,
    histogram: [u32; BINS],
}

impl FrameCounts {
    /// Nothing so far.
    pub(crate) const fn new() -> Self {
        Self { outside: 0, sum: 0, least: f64::INFINITY, histogram: [0; BINS] }
    }

    /// Counts a detection.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "once for each row")]
    pub(crate) fn add(&mut self, confidence: f64) {
        if !is_probability(confidence) {
            return self.add_outside(confidence);
        }
        // SAFETY: just checked.
        let (bin, units) = unsafe { (bin(confidence), units(confidence)) };
        self.histogram[bin] += 1;
        self.sum += units;
        let confidence = confidence + 0.0; // -0.0 has the bits of a large number
        self.least = if confidence < self.least { confidence } else { self.least };
    }

    #[cold]
    fn add_outside(&mut self, confidence: f64) {
        self.histogram[if confidence < 0.0 { 0 } else { BINS - 1 }] += 1;
        self.outside += 1;
    }
}

/// What became of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It is counted.
    Yes,
    /// The class has no statistics, and this was the first time that some were to be added.
    Refused,
    /// The class has no statistics.
    No,
    /// The window was drained meanwhile; the addition belongs to the current one.
    Closed,
}

/// Lock-free statistics.
pub(crate) struct Counter {
    slot: AtomicU64,
}

impl Counter {
    pub(crate) fn new() -> Self {
        Self { slot: AtomicU64::new(u64::from(EMPTY)) }
    }

    /// Adds what a frame has of the class, `detections` in all.
    ///
    /// `spare` is a cell that the caller owns, before and afterwards; `is_first` says whether nothing of the frame was added before; `admit` is asked whether there is room for a class that
    /// nothing was added to.
    pub(crate) fn add(
        &self,
        cells: &Cells<Numbers>,
        spare: &mut Option<u32>,
        (counts, detections, is_first): (&FrameCounts, usize, bool),
        mut admit: impl FnMut() -> bool,
    ) -> Added {
        let acquire = ordering!(Acquire, "counter_unacquired" => Relaxed);
        let mut word = self.slot.load(acquire);
        let mut admitted = None;
        loop {
            match low(word) {
                CLOSED_INDEX => return Added::Closed,
                WITHOUT_INDEX => return Added::No,
                EMPTY if !*admitted.get_or_insert_with(&mut admit) => {
                    let without = tagged(word, WITHOUT_INDEX);
                    match self.slot.compare_exchange(word, without, Ordering::Relaxed, acquire) {
                        Ok(_) => return Added::Refused,
                        Err(actual) => word = actual,
                    }
                    continue;
                }
                _ => {}
            }
            let mine = *spare.get_or_insert_with(|| cells.take());
            let before = (low(word) != EMPTY).then(|| cells.get(low(word)));
            cells.get(mine).set(before, counts, detections as u64, is_first);
            let success = ordering!(AcqRel, "counter_unreleased" => Acquire);
            match self.slot.compare_exchange(word, tagged(word, mine), success, acquire) {
                Ok(_) => {
                    *spare = before.is_some().then_some(low(word));
                    return Added::Yes;
                }
                Err(_) if mutant!("lost_addition") => return Added::Yes,
                Err(actual) => word = actual,
            }
        }
    }

    /// What was added so far; `None` if nothing was.
    pub(crate) fn read(&self, cells: &Cells<Numbers>) -> Option<ClassStatistics> {
        let mut word = self.slot.load(Ordering::Acquire);
        loop {
            if matches!(low(word), EMPTY | CLOSED_INDEX | WITHOUT_INDEX) {
                return None;
            }
            let values = cells.get(low(word)).values();
            match self.slot.compare_exchange(word, word, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(statistics(values)),
                Err(_) if mutant!("counter_not_read_again") => return Some(statistics(values)),
                Err(actual) => word = actual,
            }
        }
    }

    /// Closes the slot and takes what was added; `Err` if the class has no statistics for want of room.
    pub(crate) fn take(&self, cells: &Cells<Numbers>) -> Result<Option<ClassStatistics>, ()> {
        let closed = if mutant!("counter_left_open") { u64::from(EMPTY) } else { CLOSED };
        let word = self.slot.swap(closed, Ordering::AcqRel);
        match low(word) {
            EMPTY | CLOSED_INDEX => Ok(None),
            WITHOUT_INDEX => Err(()),
            index => Ok(Some(statistics(cells.get(index).values()))),
        }
    }
}

fn statistics(values: [u64; NUMBERS]) -> ClassStatistics {
    let least = f64::from_bits(values[LEAST]);
    ClassStatistics {
        frames: values[FRAMES],
        detections: values[DETECTIONS],
        outside: values[OUTSIDE],
        sum: values[SUM],
        least: least.is_finite().then_some(least),
        histogram: std::array::from_fn(|bin| values[HISTOGRAM + bin]),
    }
}

/// Frames of a window, which count until it is drained.
pub(crate) struct Frames(AtomicU64);

/// The bit that says that the window was drained.
const DRAINED: u64 = 1 << 63;

impl Frames {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts a frame; false if the window was drained, and the frame belongs to the current one.
    #[inline]
    pub(crate) fn add(&self) -> bool {
        // What is added to a drained window is read by nobody. (Acquire and release: as with the slot of a class.)
        self.0.fetch_add(1, Ordering::Acquire) & DRAINED == 0
    }

    /// The number of frames so far; `None` if the window was drained.
    pub(crate) fn read(&self) -> Option<u64> {
        let frames = self.0.load(Ordering::Acquire);
        (frames & DRAINED == 0).then_some(frames)
    }

    /// Takes the number of frames, once.
    pub(crate) fn take(&self) -> u64 {
        let frames = self.0.fetch_or(DRAINED, Ordering::AcqRel);
        if frames & DRAINED == 0 { frames } else { 0 }
    }
}

#[cfg(all(test, not(peakhold_loom)))]
mod tests {
    use super::*;

    fn counts(confidences: &[f64]) -> FrameCounts {
        let mut counts = FrameCounts::new();
        for &confidence in confidences {
            counts.add(confidence);
        }
        counts
    }

    #[test]
    fn detections_are_added_up() {
        let (cells, counter, mut spare) = (Cells::new(), Counter::new(), None);
        let mut add = |confidences: &[f64]| {
            counter.add(&cells, &mut spare, (&counts(confidences), confidences.len(), true), || true)
        };
        assert_eq!(add(&[0.5, 0.25]), Added::Yes);
        assert_eq!(add(&[1.0, -2.0, 3.0]), Added::Yes);
        let statistics = counter.read(&cells);
        assert_eq!(statistics, counter.take(&cells).expect("there was room"));
        let statistics = statistics.expect("some were added");
        assert_eq!((statistics.frames, statistics.detections, statistics.outside), (2, 5, 2));
        assert_eq!((statistics.sum, statistics.least), ((1 << 32) + (3 << 30), Some(0.25)));
        let bins: Vec<_> = statistics.histogram.iter().enumerate().filter(|&(_, &rows)| rows > 0).collect();
        assert_eq!(bins, [(0, &1), (5, &1), (10, &1), (19, &2)]);
        assert_eq!(add(&[0.5]), Added::Closed);
        assert_eq!(counter.take(&cells), Ok(None));
        assert_eq!(cells.allocated(), 2);
    }

    #[test]
    fn a_class_without_room_never_has_any() {
        let (cells, counter, mut spare) = (Cells::new(), Counter::new(), None);
        let mut add = |room| counter.add(&cells, &mut spare, (&counts(&[0.5]), 1, true), || room);
        assert_eq!([add(false), add(true)], [Added::Refused, Added::No]);
        assert_eq!((counter.read(&cells), counter.take(&cells)), (None, Err(())));
    }

    #[test]
    fn a_frame_counts_until_the_window_is_drained() {
        let frames = Frames::new();
        assert!(frames.add() && frames.add());
        assert_eq!((frames.read(), frames.take(), frames.take(), frames.read()), (Some(2), 2, 0, None));
        assert!(!frames.add());
    }
}
