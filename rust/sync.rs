//! The one place where atomics and shared cells come from: `std`, or the model checker under `cfg(peakhold_loom)`.

#[cfg(not(peakhold_loom))]
pub(crate) use std::sync::atomic::{AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, Ordering};

#[cfg(peakhold_loom)]
pub(crate) use loom::sync::atomic::{AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Plain memory whose owner is decided by an atomic elsewhere.
///
/// Access goes through raw pointers in closures, so that a model checker sees where it begins and ends.
#[derive(Debug)]
pub(crate) struct SharedCell<T> {
    #[cfg(not(peakhold_loom))]
    cell: std::cell::UnsafeCell<T>,
    #[cfg(peakhold_loom)]
    cell: loom::cell::UnsafeCell<T>,
}

impl<T> SharedCell<T> {
    pub(crate) fn new(value: T) -> Self {
        #[cfg(not(peakhold_loom))]
        let cell = std::cell::UnsafeCell::new(value);
        #[cfg(peakhold_loom)]
        let cell = loom::cell::UnsafeCell::new(value);
        Self { cell }
    }

    /// Lends the memory to `access`, which may write it only while its caller is the sole owner.
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        #[cfg(not(peakhold_loom))]
        return access(self.cell.get());
        #[cfg(peakhold_loom)]
        return self.cell.with_mut(access);
    }
}
