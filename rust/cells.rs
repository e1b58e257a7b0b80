//! Memory for the peaks and the statistics of one window: cells that are recycled while the window lives and freed with it.
//!
//! A class whose confidence keeps rising replaces its peak with every frame. Freeing the displaced peak at once is
//! not possible, since another observer may just be comparing itself with it; keeping all of them would let a window
//! grow with the number of frames. Cells solve both: they are never freed before their window, so reading the `key` of a cell
//! that has meanwhile been recycled is harmless (the reader notices, see `peak` and `counter`), and a displaced cell is used again for the next
//! peak, strings' capacity included.
//!
//! A cell has exactly one owner at any time: an observer that took it, the class whose slot names it, the drain
//! that emptied the slot, or the free list. Only the owner touches its `peak`.
//!
//! # Limitations
//! The free list and the slots of `peak` tell a recycled cell from the same cell earlier by a 32-bit tag: an
//! observer would have to sleep in the middle of an exchange for exactly 2^32 exchanges of one word to be deceived.
//!
//! # Orderings
//! * `release` (release) pairs with `take` (acquire): what the former owner did to the peak is done, and the cell's `next`, itself
//!   relaxed, is the one that belongs to the head. An exchange that fails acquires likewise, for the next turn.
//! * installing a chunk (release) pairs with each load of it (acquire), in `get` and in `install`: its cells are initialised.
//! * `key` is stored with release and read with acquire: whoever reads the key of a later owner also sees the slot
//!   from which the cell was displaced in between.
#![allow(unsafe_code)]

use crate::mutants::{mutant, ordering};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering, SharedCell};
use std::ptr;

/// Cells in the first chunk; each further chunk doubles. A model checker gets no more than it can follow.
const FIRST_CHUNK: u32 = if cfg!(peakhold_loom) { 2 } else { 16 };
const CHUNKS: usize = if cfg!(peakhold_loom) { 3 } else { 29 };
const NONE: u32 = u32::MAX;

/// The best detection of one class so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peak {
    /// Confidence as observed; finite.
    pub confidence: f64,
    /// Place of the detection among all of its model and window.
    pub arrival: u64,
    /// Inference id of the detection, `""` if it had none.
    pub inference_id: String,
    /// Prediction type of the detection, `""` if it had none.
    pub prediction_type: String,
}

impl Peak {
    /// Memory of its texts.
    pub(crate) const fn text_bytes(&self) -> u64 {
        (self.inference_id.capacity() + self.prediction_type.capacity()) as u64
    }
}

/// A peak, and what others may know of it.
pub(crate) struct Keyed {
    /// The peak's confidence in the order of `peak::key`, for observers that do not own the cell.
    pub(crate) key: AtomicU64,
    /// The peak itself, for the owner.
    pub(crate) peak: SharedCell<Peak>,
}

impl Default for Keyed {
    fn default() -> Self {
        Self { key: AtomicU64::new(0), peak: SharedCell::new(Peak::default()) }
    }
}

/// One recyclable place for a value.
struct Cell<T> {
    value: T,
    next: AtomicU32,
}

impl<T: Default> Cell<T> {
    fn new() -> Self {
        Self { value: T::default(), next: AtomicU32::new(NONE) }
    }
}

/// A number that names a cell of one [`Cells`].
pub(crate) type CellIndex = u32;

/// All cells of one kind of a window.
pub(crate) struct Cells<T> {
    chunks: [AtomicPtr<Cell<T>>; CHUNKS],
    allocated: AtomicU32,
    /// Head of the free list in the low half, a tag that grows with every exchange in the high half.
    free: AtomicU64,
}

// SAFETY: plain memory of a cell is only touched by its owner, and ownership passes through atomics.
unsafe impl<T: Send> Send for Cells<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Cells<T> {}

impl<T: Default> Cells<T> {
    pub(crate) fn new() -> Self {
        Self {
            chunks: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            allocated: AtomicU32::new(0),
            free: AtomicU64::new(u64::from(NONE)),
        }
    }

    /// Makes the caller the owner of a cell; its old contents are still in it.
    pub(crate) fn take(&self) -> CellIndex {
        let acquire = ordering!(Acquire, "cell_unacquired" => Relaxed);
        let mut head = self.free.load(acquire);
        while low(head) != NONE {
            let next = self.cell(low(head)).next.load(Ordering::Relaxed);
            let taken = tagged(head, next);
            match self.free.compare_exchange_weak(head, taken, acquire, acquire) {
                Ok(_) => return low(head),
                Err(actual) => head = actual,
            }
        }
        let index = self.allocated.fetch_add(1, Ordering::Relaxed);
        self.install(position(index).0);
        index
    }

    /// Gives a cell back for use by others.
    pub(crate) fn release(&self, index: CellIndex) {
        let cell = self.cell(index);
        let mut head = self.free.load(Ordering::Relaxed);
        loop {
            cell.next.store(low(head), Ordering::Relaxed);
            let freed = tagged(head, index);
            let release = ordering!(Release, "cell_unreleased" => Relaxed);
            match self.free.compare_exchange_weak(head, freed, release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(actual) => head = actual,
            }
        }
    }

    /// What is in the cell of an index that `take` has returned.
    #[inline]
    pub(crate) fn get(&self, index: CellIndex) -> &T {
        &self.cell(index).value
    }

    #[inline]
    fn cell(&self, index: CellIndex) -> &Cell<T> {
        let (chunk, offset) = position(index);
        let first = self.chunks[chunk].load(ordering!(Acquire, "chunk_unacquired" => Relaxed));
        debug_assert!(!first.is_null(), "cell {index} was never taken");
        // SAFETY: `take` installed the chunk before it returned the index, and chunks live as long as `self`.
        unsafe { &*first.add(offset) }
    }

    /// Cells ever made, an upper bound of the memory in use.
    #[cfg(all(test, not(peakhold_loom)))]
    pub(crate) fn allocated(&self) -> u32 {
        self.allocated.load(Ordering::Relaxed)
    }

    fn install(&self, chunk: usize) {
        let acquire = ordering!(Acquire, "chunk_unacquired" => Relaxed);
        if !self.chunks[chunk].load(acquire).is_null() {
            return;
        }
        let cells: Box<[Cell<T>]> = (0..length(chunk)).map(|_| Cell::new()).collect();
        let first = Box::into_raw(cells).cast::<Cell<T>>();
        let success = ordering!(Release, "chunk_unreleased" => Relaxed);
        let installed = self.chunks[chunk].compare_exchange(ptr::null_mut(), first, success, acquire);
        if installed.is_err() && !mutant!("lost_chunk_kept") {
            // SAFETY: another observer was faster, so nobody else has seen this chunk.
            unsafe { free_chunk(first, chunk) };
        }
    }
}

impl<T> Drop for Cells<T> {
    fn drop(&mut self) {
        for (chunk, first) in self.chunks.iter().enumerate() {
            let first = first.load(Ordering::Relaxed);
            if !first.is_null() {
                // SAFETY: `&mut self`: nobody else can reach the chunk, which `install` made.
                unsafe { free_chunk(first, chunk) };
            }
        }
    }
}

/// # Safety
/// `first` is a chunk that `install` made for this number, and nobody else uses it.
unsafe fn free_chunk<T>(first: *mut Cell<T>, chunk: usize) {
    let cells = ptr::slice_from_raw_parts_mut(first, length(chunk));
    // SAFETY: the chunk was a boxed slice of this length.
    drop(unsafe { Box::from_raw(cells) });
}

fn length(chunk: usize) -> usize {
    (FIRST_CHUNK as usize) << chunk
}

fn position(index: CellIndex) -> (usize, usize) {
    let shifted = u64::from(index) + u64::from(FIRST_CHUNK);
    let chunk = (shifted / u64::from(FIRST_CHUNK)).ilog2();
    let offset = shifted - (u64::from(FIRST_CHUNK) << chunk);
    #[allow(clippy::cast_possible_truncation, reason = "below 2^32, and a usize has at least 32 bits")]
    (chunk as usize, offset as usize)
}

/// The cell index in a tagged word.
#[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
pub(crate) fn low(word: u64) -> CellIndex {
    word as u32
}

/// `index` with a tag that differs from that of `word`.
pub(crate) fn tagged(word: u64, index: CellIndex) -> u64 {
    ((word >> 32).wrapping_add(u64::from(!mutant!("tag_unchanged"))) << 32) | u64::from(index)
}

#[cfg(all(test, not(peakhold_loom)))]
mod tests {
    use super::*;

    #[test]
    fn positions_fill_chunk_after_chunk() {
        assert_eq!(position(0), (0, 0));
        assert_eq!(position(15), (0, 15));
        assert_eq!(position(16), (1, 0));
        assert_eq!(position(47), (1, 31));
        assert_eq!(position(48), (2, 0));
        let (chunk, offset) = position(u32::MAX - 1);
        assert!(chunk < CHUNKS && offset < length(chunk));
    }

    #[test]
    fn a_released_cell_is_taken_again() {
        let cells = Cells::<Keyed>::new();
        let first = cells.take();
        cells.release(first);
        assert_eq!(cells.take(), first);
        assert_ne!(cells.take(), first);
        assert_eq!(cells.allocated(), 2);
    }

    #[test]
    fn a_cell_never_has_two_owners() {
        let cells = Cells::<Keyed>::new();
        let rounds = if cfg!(miri) { 50 } else { 50_000 };
        std::thread::scope(|scope| {
            for owner in 1..=4_u64 {
                let cells = &cells;
                scope.spawn(move || {
                    for _ in 0..rounds {
                        let index = cells.take();
                        let key = &cells.get(index).key;
                        key.store(owner, Ordering::Relaxed);
                        std::hint::spin_loop();
                        assert_eq!(key.load(Ordering::Relaxed), owner);
                        cells.release(index);
                    }
                });
            }
        });
        assert!(cells.allocated() <= 4);
    }
}
