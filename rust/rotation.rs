//! The current window, pinned by observers and replaced by a drain, without anybody waiting.
//!
//! A drain has to put a fresh window in place and free the old one once nobody looks at it any more; an observer has
//! to get hold of the current window in a way that keeps it alive. Reading the pointer first and counting oneself in
//! afterwards would leave a gap in which the window can be freed.
//!
//! So pointer and count share one atomic word: a window is aligned to 4 KiB and the 12 bits this leaves count the
//! observers that are pinned to it. A drain swaps the word and thereby learns exactly how many observers the old
//! window still has. Those find the pointer changed when they leave, and settle with the window's own `owed` counter
//! instead; whoever brings that to zero, drain included, frees the window.
//!
//! The word is a number, not a pointer. While an observer prepares its exchange, the window may be freed and another one be put in place
//! at the same address: the exchange succeeds, and rightly so, since the word means the new window. A pointer made from what
//! was read before would still stand for the memory of the old one. So each window's provenance is exposed when it is made, and a pointer is
//! made from the address by the one that holds the window.
//!
//! # Limitations
//! At most 4,095 threads can be pinned at one instant; one more spins until a place is free. A pin lasts for one
//! frame, some microseconds.
//!
//! # Orderings
//! * `pin` (acquire) pairs with the release half of `replace`, and with `new`: the window's contents are visible.
//! * `unpin` through the word (release) pairs with the acquire half of `replace`: a drain that frees the window does so
//!   after everything that its former observers did. Every change of the word is a read-modify-write, so release sequences
//!   are never cut.
//! * `settle` (acquire and release) pairs with itself: the one that frees comes last, after the drain too, which adds before it settles.
//!   The addition is relaxed: it is the drain's own settling that publishes what the drain did.
#![allow(unsafe_code)]

use crate::mutants::{mutant, ordering};
use crate::sync::{AtomicIsize, AtomicUsize, Ordering};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};

const ALIGNMENT: usize = 4096;
const PINS: usize = ALIGNMENT - 1;

#[repr(align(4096))]
struct Shared<T> {
    value: T,
    /// Observers that still have to leave after a replacement, the drain itself being one; below zero while some have
    /// left before the drain could count them.
    owed: AtomicIsize,
}

impl<T> Shared<T> {
    /// A word for a new value, to which nobody is pinned.
    fn boxed(value: T) -> usize {
        Box::into_raw(Box::new(Self { value, owed: AtomicIsize::new(0) })).expose_provenance()
    }
}

/// Frees `shared` if this was the last debt on it.
///
/// # Safety
/// The caller is counted in `owed`, has not settled before, and does not use `shared` afterwards.
unsafe fn settle<T>(shared: *mut Shared<T>) {
    // SAFETY: the caller's own debt keeps `owed` from reaching zero elsewhere, so the memory is alive.
    let owed = unsafe {
        (*shared).owed.fetch_sub(1, ordering!(AcqRel, "debt_unacquired" => Release, "debt_unreleased" => Acquire))
    };
    if owed == 1 {
        // SAFETY: all pinned observers and the drain have left, and the word no longer holds this pointer.
        drop(unsafe { Box::from_raw(shared) });
    }
}

const fn address(word: usize) -> usize {
    word & !PINS
}

/// The window of a word, for one that is counted there or owns what the word names.
fn pointer<T>(word: usize) -> *mut Shared<T> {
    ptr::with_exposed_provenance_mut(address(word))
}

const fn pins(word: usize) -> usize {
    word & PINS
}

/// A value that can be read by many and replaced at any time.
pub(crate) struct Current<T> {
    /// The address of a `Shared<T>`, plus the number of pins.
    word: AtomicUsize,
    value: PhantomData<*mut T>,
}

// SAFETY: `Current` hands out `&T` on any thread and may drop `T` on any thread.
unsafe impl<T: Send + Sync> Send for Current<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Current<T> {}

impl<T> Current<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { word: AtomicUsize::new(Shared::boxed(value)), value: PhantomData }
    }

    /// Gets hold of the current value; it stays alive until the pin is dropped.
    pub(crate) fn pin(&self) -> Pinned<'_, T> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if pins(word) == PINS {
                std::hint::spin_loop();
                word = self.word.load(Ordering::Relaxed);
                continue;
            }
            let acquire = ordering!(Acquire, "pin_unacquired" => Relaxed);
            match self.word.compare_exchange_weak(word, word + 1, acquire, Ordering::Relaxed) {
                Ok(_) => return Pinned { current: self, shared: pointer(word) },
                Err(actual) => word = actual,
            }
        }
    }

    /// Puts `value` in place and returns the former one, which observers may still be pinned to.
    pub(crate) fn replace(&self, value: T) -> Replaced<T> {
        let both = ordering!(AcqRel, "window_unacquired" => Release, "window_unreleased" => Acquire);
        let word = self.word.swap(Shared::boxed(value), both);
        let shared = pointer::<T>(word);
        // The observers counted in the word, and the drain.
        let owed = pins(word).cast_signed() + isize::from(!mutant!("drain_uncounted"));
        // SAFETY: the window cannot be freed before the drain's own debt, which is added here, is settled.
        unsafe { (*shared).owed.fetch_add(owed, Ordering::Relaxed) };
        // SAFETY: the word never holds null.
        Replaced { shared: unsafe { NonNull::new_unchecked(shared) } }
    }
}

impl<T> Drop for Current<T> {
    fn drop(&mut self) {
        let word = self.word.load(Ordering::Relaxed);
        // SAFETY: pins borrow `self`, so none is left; the pointer came from a box and is freed nowhere else.
        drop(unsafe { Box::from_raw(pointer::<T>(word)) });
    }
}

/// A hold on the value that was current when the pin was made.
pub(crate) struct Pinned<'a, T> {
    current: &'a Current<T>,
    shared: *mut Shared<T>,
}

// SAFETY: it gives access to `&T` and may be the one that drops `T`, on whichever thread.
unsafe impl<T: Send + Sync> Send for Pinned<'_, T> {}

impl<T> Deref for Pinned<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: counted in the word, or owed after a replacement, until the pin is dropped.
        unsafe { &(*self.shared).value }
    }
}

impl<T> Drop for Pinned<'_, T> {
    fn drop(&mut self) {
        let mut word = self.current.word.load(Ordering::Relaxed);
        // The address cannot belong to a later window: ours is alive until we leave.
        while address(word) == self.shared.addr() {
            let release = ordering!(Release, "pin_unreleased" => Relaxed);
            match self.current.word.compare_exchange_weak(word, word - 1, release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(actual) => word = actual,
            }
        }
        // SAFETY: the drain that replaced the window has counted this pin into `owed`, or is about to.
        unsafe { settle(self.shared) };
    }
}

/// The drain's hold on a value that is no longer current.
pub(crate) struct Replaced<T> {
    shared: NonNull<Shared<T>>,
}

impl<T> Replaced<T> {
    /// Whether nobody else uses the value any more; then nobody ever will.
    pub(crate) fn is_alone(&self) -> bool {
        // SAFETY: the drain's own debt is settled only when this is dropped.
        unsafe { self.shared.as_ref() }.owed.load(Ordering::Acquire) == 1
    }
}

// SAFETY: it gives access to `&T` and may be the one that drops `T`, on whichever thread.
unsafe impl<T: Send + Sync> Send for Replaced<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Replaced<T> {}

impl<T> Deref for Replaced<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the drain's own debt is settled only when this is dropped.
        unsafe { &self.shared.as_ref().value }
    }
}

impl<T> Drop for Replaced<T> {
    fn drop(&mut self) {
        // SAFETY: `replace` counted this hold into `owed`.
        unsafe { settle(self.shared.as_ptr()) };
    }
}

#[cfg(all(test, not(peakhold_loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_pinned_value_outlives_its_replacement() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let current = Current::new(Counted(dropped.clone()));
        let pin = current.pin();
        drop(current.replace(Counted(dropped.clone())));
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        drop(pin);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        drop(current);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_drain_is_alone_once_the_last_pin_is_gone() {
        let current = Current::new(0);
        let pins = [current.pin(), current.pin()];
        let replaced = current.replace(1);
        for pin in pins {
            assert!(!replaced.is_alone());
            drop(pin);
        }
        let _later = current.pin();
        assert!(replaced.is_alone());
    }

    #[test]
    fn an_unpinned_value_goes_with_the_drain() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let current = Current::new(Counted(dropped.clone()));
        drop(current.pin());
        let replaced = current.replace(Counted(dropped.clone()));
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        drop(replaced);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn one_more_than_can_be_pinned_waits_for_a_place() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let current = Current::new(Counted(dropped.clone()));
        let mut pins: Vec<_> = (0..PINS).map(|_| current.pin()).collect();
        std::thread::scope(|scope| {
            let late = scope.spawn(|| drop(current.pin()));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!late.is_finished());
            pins.pop();
        });
        drop(current.replace(Counted(dropped.clone())));
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        drop(pins);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn every_value_is_freed_exactly_once_under_contention() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let current = Current::new(Counted(dropped.clone()));
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..rounds).for_each(|_| drop(current.pin())));
            }
            for _ in 0..2 {
                scope.spawn(|| (0..rounds).for_each(|_| drop(current.replace(Counted(dropped.clone())))));
            }
        });
        assert_eq!(dropped.load(Ordering::Relaxed), 2 * rounds);
        drop(current);
        assert_eq!(dropped.load(Ordering::Relaxed), 2 * rounds + 1);
    }
}
