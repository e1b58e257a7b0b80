//! What a window knows beside its peaks: how many detections of a class there were, and how sure the model was.
//!
//! Of each class of each model: the frames that had it, its detections, the sum, the least, and a histogram of their confidences; of the window, the
//! frames observed, with or without detections. All are integers, so that they are exact in whatever order they come.
//!
//! Peaks merge by maximum, statistics by addition: to add one part twice is a mistake. So the statistics of each closed window have an id of their own,
//! a [`PartId`], and merging snapshots puts them side by side; they are added where they are read.

#![allow(unsafe_code)]

use crate::sync::Ordering;
use crate::sync::unmodelled::AtomicU64;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::SystemTime;

/// Bins of a histogram, of equal width over [0, 1]. A model checker gets no more than it can follow.
pub const BINS: usize = if cfg!(peakhold_loom) { 1 } else { 20 };

/// Units of a sum of confidences that make 1: it is an integer in units of 2^-32.
pub const UNITS: f64 = 4_294_967_296.0;

/// The bin of a confidence within [0, 1]: `min(19, floor(confidence * 20))` in 64-bit floating point. (What is outside counts in the outer bins.)
#[inline(always)]
#[allow(clippy::inline_always, reason = "once for each row")]
///
/// # Safety
/// The confidence is a probability, see [`is_probability`].
#[must_use]
pub(crate) unsafe fn bin(confidence: f64) -> usize {
    #[allow(clippy::cast_precision_loss, reason = "small")]
    let scaled = confidence * BINS as f64;
    // SAFETY: a number from 0 to 20, for the confidence is at most 1.
    let floor = unsafe { scaled.to_int_unchecked::<i32>() };
    (floor.cast_unsigned() as usize).min(BINS - 1)
}

/// A confidence within [0, 1] in units of 2^-32, to the nearest one; upwards from the middle.
#[inline(always)]
#[allow(clippy::inline_always, reason = "once for each row")]
///
/// # Safety
/// The confidence is a probability, see [`is_probability`].
#[must_use]
pub(crate) unsafe fn units(confidence: f64) -> u64 {
    // SAFETY: at most 2^32, for the same reason.
    let units = unsafe { (confidence * UNITS + 0.5).to_int_unchecked::<i64>() };
    units.cast_unsigned()
}

/// Whether a confidence is what a probability can be.
#[inline(always)]
#[allow(clippy::inline_always, reason = "once for each row")]
#[must_use]
pub(crate) fn is_probability(confidence: f64) -> bool {
    (0.0..=1.0).contains(&confidence)
}

/// How many detections of a class of a model there were, and with what confidences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassStatistics {
    /// Frames that had the class.
    pub frames: u64,
    /// Detections.
    pub detections: u64,
    /// Of these, such whose confidence is outside of [0, 1]; they are in the outer bins, and neither in the sum nor the least.
    pub outside: u64,
    /// Sum of the confidences in units of 2^-32, see [`units`]; `u64::MAX` if it would be greater.
    pub sum: u64,
    /// The least confidence; `None` if all are outside.
    pub least: Option<f64>,
    /// Detections by [`bin`].
    pub histogram: [u64; BINS],
}

impl ClassStatistics {
    /// Adds those of other detections.
    pub fn add(&mut self, other: &Self) {
        self.frames = self.frames.saturating_add(other.frames);
        self.detections = self.detections.saturating_add(other.detections);
        self.outside = self.outside.saturating_add(other.outside);
        self.sum = self.sum.saturating_add(other.sum);
        self.least = match (self.least, other.least) {
            (Some(mine), Some(others)) => Some(mine.min(others)),
            (mine, others) => mine.or(others),
        };
        for (mine, others) in self.histogram.iter_mut().zip(other.histogram) {
            *mine = mine.saturating_add(others);
        }
    }
}

/// What tells one closed window of one process from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartId {
    /// Random number of the process, another one after a fork.
    pub process: u64,
    /// Number of the window within the process.
    pub window: u64,
}

impl PartId {
    /// The id of a window of this process.
    pub(crate) fn new(window: u64) -> Self {
        Self { process: process(), window }
    }
}

/// The random number of this process.
///
/// A forked child has what its parent had; so the number is made of that, of the process's own number, and of a time, which are one word. There is no lock,
/// which a fork could leave taken.
fn process() -> u64 {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    let own = u64::from(std::process::id()) << 32;
    let mut begun = BEGUN.load(Ordering::Relaxed);
    while begun >> 32 << 32 != own {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let new = own | u64::from(now.subsec_nanos() ^ u32::try_from(now.as_secs() & 0xFFFF_FFFF).unwrap_or_default());
        match BEGUN.compare_exchange(begun, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => begun = new,
            Err(actual) => begun = actual,
        }
    }
    seed().hash_one(begun)
}

/// The seed of process numbers, which is made when the module is loaded.
pub(crate) fn seed() -> &'static RandomState {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    &SEED
}

impl std::fmt::Display for PartId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:016x}{:016x}", self.process, self.window)
    }
}

/// The statistics of one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Frames observed, those without a detection included.
    pub frames: u64,
    /// Whether some of the window's last observations are missing: its process was killed.
    pub is_partial: bool,
    /// Classes that have none, because those of all windows took their room.
    pub without: u64,
    /// What was not taken, or not whole, by the names of reasons.
    pub rejected: BTreeMap<String, u64>,
    /// By model id and class name.
    pub models: BTreeMap<String, BTreeMap<String, ClassStatistics>>,
    #[serde(skip)]
    room: Room,
}

/// An entry in a tree that is two thirds full, with its name and the head of a block of the allocator.
const PER_CLASS: usize = (size_of::<ClassStatistics>() + size_of::<String>()) * 3 / 2 + 32;

impl Statistics {
    /// Adds those of a class.
    pub fn insert(&mut self, model_id: &str, class_name: String, class: &ClassStatistics) {
        if !self.models.contains_key(model_id) {
            self.models.insert(model_id.to_owned(), BTreeMap::new());
        }
        if let Some(classes) = self.models.get_mut(model_id) {
            classes.entry(class_name).or_default().add(class);
        }
    }

    /// Counts the memory that they take, until they are dropped. Copies do not count.
    pub(crate) fn keep(&mut self) {
        self.room = Room::default();
        self.room.add(self.bytes());
    }

    /// Adds the statistics of another window.
    pub fn add(&mut self, other: &Self) {
        self.frames = self.frames.saturating_add(other.frames);
        self.is_partial |= other.is_partial;
        self.without = self.without.saturating_add(other.without);
        for (reason, rows) in &other.rejected {
            let held = self.rejected.entry(reason.clone()).or_default();
            *held = held.saturating_add(*rows);
        }
        for (model_id, classes) in &other.models {
            for (class_name, class) in classes {
                self.insert(model_id, class_name.clone(), class);
            }
        }
    }

    /// Whether all numbers are such as counting makes.
    pub(crate) fn is_sound(&self) -> bool {
        self.models.values().flat_map(BTreeMap::values).all(|class| {
            let binned = class.histogram.iter().fold(0_u64, |sum, &rows| sum.saturating_add(rows));
            class.least.is_none_or(is_probability) && class.outside <= class.detections && binned == class.detections
        })
    }

    /// What is greater for what has more of one window.
    pub(crate) fn rank(&self) -> (bool, u64, u64) {
        let classes = self.models.values().flat_map(BTreeMap::values);
        let detections = classes.fold(0_u64, |sum, class| sum.saturating_add(class.detections));
        (!self.is_partial, self.frames, detections)
    }

    /// The memory it takes, estimated.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let class = |(name, _): (&String, _)| PER_CLASS + name.len();
        size_of::<Self>() + self.models.values().flatten().map(class).sum::<usize>()
    }

    /// Whether it is of a window in which nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames == 0 && self.rejected.is_empty() && self.models.is_empty()
    }
}

/// Bytes that the statistics of all windows of a process take at most, open or closed; classes beyond it have none.
pub(crate) const MOST_BYTES: u64 = 64 << 20;

/// Bytes that they take.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Memory that is counted until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Room(AtomicU64);

impl Room {
    /// Counts bytes, whether there is room for them or not.
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
        TAKEN.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes if there is room for them.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let fits = TAKEN.load(Ordering::Relaxed) < MOST_BYTES;
        if fits {
            self.add(bytes);
        }
        fits
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Clone for Room {
    fn clone(&self) -> Self {
        Self::default() // a copy is soon gone, or its original is
    }
}

impl PartialEq for Room {
    fn eq(&self, _: &Self) -> bool {
        true // it is no part of the value
    }
}

#[cfg(all(test, not(peakhold_loom)))]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_the_rule() {
        for (confidence, wanted) in
            [(0.0, 0), (-0.0, 0), (0.05, 1), (0.049_999, 0), (0.15, 3), (0.7, 14), (0.999_999, 19), (1.0, 19)]
        {
            // SAFETY: all of them are probabilities.
            assert_eq!(unsafe { bin(confidence) }, wanted, "{confidence}");
        }
    }

    #[test]
    fn units_are_to_the_nearest() {
        // SAFETY: all of them are probabilities.
        let units = |confidences: [f64; 4]| confidences.map(|confidence| unsafe { units(confidence) });
        assert_eq!(units([0.0, 1.0, 0.5, 0.25]), [0, 1 << 32, 1 << 31, 1 << 30]);
        assert_eq!(units([-0.0, 0.49 / UNITS, 0.5 / UNITS, 1.49 / UNITS]), [0, 0, 1, 1]);
    }

    #[test]
    fn a_process_has_a_number_and_parts_theirs() {
        let (one, other) = (PartId::new(1), PartId::new(2));
        assert_eq!(one.process, other.process);
        assert!(one < other && one.to_string().len() == 32);
    }

    #[test]
    fn room_is_given_back() {
        let room = Room::default();
        assert!(room.take(1_000));
        drop(room.clone());
        let before = TAKEN.load(Ordering::Relaxed);
        drop(room);
        assert!(before >= 1_000 && TAKEN.load(Ordering::Relaxed) < before);
    }
}
