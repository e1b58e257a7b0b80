//! One class's maximum within a window, raised by any number of observers and taken once by a drain.
//!
//! The slot is one word: the index of the cell that holds the peak, and a tag that changes with every exchange. To
//! raise the peak an observer fills a cell of its own, and exchanges it for the one in the slot if its confidence
//! is greater; the displaced cell is then its to give back. The drain exchanges the slot's word for [`CLOSED`], once:
//! a raise that came before is in this window, one that comes after is told so and goes to the current window.
//!
//! Most observations raise nothing. `floor` remembers the greatest key published so far, so that these cost one load;
//! it is raised after the slot, hence never above the slot's true maximum, and a stale value only costs a closer look.
//!
//! Among equal confidences the one published first stays.
//!
//! # Orderings
//! * the exchange in `raise` (acquire and release) pairs with itself and with `take` (acquire): the new owner of a cell sees all of its
//!   peak.
//! * `take` (release) pairs with the loads of `slot` (acquire): an observer that is told of the drain finds, when it pins again, the
//!   window that the drain had put in place before. Were it not so, it would only be turned away once more.
//! * `slot` is read with acquire before a cell's key, so that the key is at least as recent as the slot.
//! * a key is read with acquire before `slot` is read again: had the cell been recycled in between, the second read
//!   would differ in its tag (pairs with the release store of the key).
//! * `floor` is relaxed: it decides nothing that the slot would not decide the same way.
#![allow(unsafe_code)]

use crate::cells::{Cells, Keyed, Peak, low, tagged};
use crate::mutants::{mutant, ordering};
use crate::sync::{AtomicU64, Ordering};

const EMPTY: u32 = u32::MAX;
/// No cell has this index: it names the last cell of a chunk that is never reached.
const CLOSED_INDEX: u32 = u32::MAX - 1;
const CLOSED: u64 = CLOSED_INDEX as u64;

/// What became of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raised {
    /// It is the peak now.
    Yes,
    /// The peak is at least as great.
    No,
    /// The window was drained meanwhile; the observation belongs to the current one.
    Closed,
}

/// A lock-free maximum.
pub(crate) struct PeakSlot {
    floor: AtomicU64,
    slot: AtomicU64,
}

/// Maps finite confidences to integers in the same order; `-0.0` equals `0.0`, and no key is zero.
pub(crate) fn key(confidence: f64) -> u64 {
    let bits = (confidence + 0.0).to_bits();
    // All bits of a negative number are inverted, and the sign of any other.
    bits ^ ((bits.cast_signed() >> 63).cast_unsigned() | 1 << 63)
}

impl PeakSlot {
    pub(crate) fn new() -> Self {
        Self { floor: AtomicU64::new(0), slot: AtomicU64::new(u64::from(EMPTY)) }
    }

    /// Whether the peak is at `confidence` or above without a look at its cell; if not, only raising it tells.
    #[inline]
    pub(crate) fn is_known_to_reach(&self, confidence: f64) -> bool {
        key(confidence) <= self.floor.load(Ordering::Relaxed)
    }

    /// Raises the peak to `confidence` if that is greater; `fill` completes the new peak and is called at most once.
    pub(crate) fn raise(&self, cells: &Cells<Keyed>, confidence: f64, fill: impl FnOnce(&mut Peak)) -> Raised {
        if self.is_known_to_reach(confidence) {
            return Raised::No;
        }
        let mine = key(confidence);
        let index = cells.take();
        let cell = cells.get(index);
        cell.peak.with_mut(|peak| {
            // SAFETY: the cell was just taken, so this observer is its owner.
            let peak = unsafe { &mut *peak };
            peak.confidence = confidence;
            fill(peak);
        });
        cell.key.store(mine, ordering!(Release, "key_unreleased" => Relaxed));
        let acquire = ordering!(Acquire, "slot_unacquired" => Relaxed);
        let mut word = self.slot.load(acquire);
        let outcome = loop {
            if low(word) == CLOSED_INDEX {
                break Raised::Closed;
            }
            let recycled = ordering!(Acquire, "key_unacquired" => Relaxed);
            let beaten = u64::from(mutant!("equal_raises"));
            if low(word) != EMPTY && mine <= cells.get(low(word)).key.load(recycled) - beaten {
                let again = self.slot.load(acquire);
                if again == word || mutant!("slot_not_read_again") {
                    break Raised::No;
                }
                word = again;
                continue;
            }
            let success = ordering!(AcqRel, "slot_unreleased" => Acquire, "slot_unacquired" => Release);
            match self.slot.compare_exchange(word, tagged(word, index), success, acquire) {
                Ok(_) => {
                    self.floor.fetch_max(mine, Ordering::Relaxed);
                    if low(word) != EMPTY {
                        cells.release(low(word));
                    }
                    return Raised::Yes;
                }
                Err(actual) => word = actual,
            }
        };
        cells.release(index);
        outcome
    }

    /// Closes the slot and takes what it held; later observers are told to go to the current window.
    pub(crate) fn take(&self, cells: &Cells<Keyed>) -> Option<Peak> {
        let closed = if mutant!("slot_left_open") { u64::from(EMPTY) } else { CLOSED };
        let word = self.slot.swap(closed, ordering!(AcqRel, "peak_unacquired" => Release));
        if matches!(low(word), EMPTY | CLOSED_INDEX) {
            return None;
        }
        // SAFETY: the exchange made this drain the owner of the cell.
        Some(cells.get(low(word)).peak.with_mut(|peak| std::mem::take(unsafe { &mut *peak })))
    }
}

#[cfg(all(test, not(peakhold_loom)))]
mod tests {
    use super::*;

    fn arrival(at: u64) -> impl FnOnce(&mut Peak) {
        move |peak| peak.arrival = at
    }

    #[test]
    fn keys_are_in_the_order_of_confidences() {
        let rising = [f64::MIN, -1.0, -f64::MIN_POSITIVE, 0.0, 5e-324, 0.5, 1.0, f64::MAX];
        assert!(rising.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
        assert_eq!(key(-0.0), key(0.0));
        assert!(key(f64::MIN) > 0);
    }

    #[test]
    fn the_first_of_equal_confidences_stays() {
        let (cells, slot) = (Cells::new(), PeakSlot::new());
        assert_eq!(slot.raise(&cells, 0.0, arrival(0)), Raised::Yes);
        assert_eq!(slot.raise(&cells, -0.0, arrival(1)), Raised::No);
        assert_eq!(slot.raise(&cells, 0.5, arrival(2)), Raised::Yes);
        assert_eq!(slot.raise(&cells, 0.5, arrival(3)), Raised::No);
        assert_eq!(slot.take(&cells).map(|peak| peak.arrival), Some(2));
    }

    #[test]
    fn a_closed_slot_turns_observers_away() {
        let (cells, slot) = (Cells::new(), PeakSlot::new());
        assert_eq!(slot.take(&cells), None);
        assert_eq!(slot.raise(&cells, 0.5, arrival(0)), Raised::Closed);
        assert_eq!(slot.take(&cells), None);
    }

    #[test]
    fn rising_confidences_need_two_cells() {
        let (cells, slot) = (Cells::new(), PeakSlot::new());
        for step in 0..10_000_u32 {
            assert_eq!(slot.raise(&cells, f64::from(step), arrival(u64::from(step))), Raised::Yes);
        }
        assert_eq!(cells.allocated(), 2);
    }

    #[test]
    fn the_greatest_of_many_threads_wins_with_its_own_payload() {
        let (cells, slot) = (Cells::new(), PeakSlot::new());
        let (threads, rounds) = (4_u64, if cfg!(miri) { 30 } else { 30_000 });
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (cells, slot) = (&cells, &slot);
                scope.spawn(move || {
                    for round in 0..rounds {
                        let value = round * threads + thread;
                        #[allow(clippy::cast_precision_loss, reason = "small")]
                        slot.raise(cells, value as f64, |peak| {
                            peak.arrival = value;
                            peak.inference_id.clear();
                            peak.inference_id.push_str(&value.to_string());
                        });
                    }
                });
            }
        });
        let peak = slot.take(&cells).expect("something was observed");
        let greatest = threads * rounds - 1;
        assert_eq!((peak.arrival, peak.inference_id), (greatest, greatest.to_string()));
        assert!(u64::from(cells.allocated()) <= threads + 1);
    }
}
