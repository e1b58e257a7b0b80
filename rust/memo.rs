//! What a thread remembers of a window between two frames of a model: where it found the model or a class.
//!
//! Finding a class takes a hash and a walk; a thread that saw it in its last frame of the model knows the way. What it remembers is good only for the
//! window it was found in, which may be gone when the next frame comes. So everything that holds others has a number that nothing else in
//! the process ever gets, and a memo is followed only for the holder with the number it was made with: whoever asks has hold of that
//! holder, and it keeps what it holds.
#![allow(unsafe_code)]

use crate::mutants::mutant;
use crate::sync::Ordering;
use crate::sync::unmodelled::AtomicU64;
use std::ptr::NonNull;

/// The number of a holder, of which there is one in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder(u64);

impl Holder {
    /// A number that was never given out. (Relaxed, and never modelled: the numbers only have to differ.)
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// Where something was found, and in what.
pub(crate) struct Memo<T> {
    found: Option<(Holder, NonNull<T>)>,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self { found: None }
    }
}

impl<T> Memo<T> {
    /// Remembers that `found` is in the holder of this number.
    pub(crate) const fn set(&mut self, holder: Holder, found: &T) {
        self.found = Some((holder, NonNull::from_ref(found)));
    }

    /// What was found in the holder of this number, if that is where it was.
    ///
    /// # Safety
    /// The holder lives during `'a`, and neither moves nor drops what it holds; and whoever called `set` with its number had found it there.
    pub(crate) unsafe fn get<'a>(&self, holder: Holder) -> Option<&'a T> {
        match self.found {
            Some((remembered, found)) if remembered == holder || mutant!("memo_of_another_window") => {
                // SAFETY: it was found in the very holder that the caller has hold of.
                Some(unsafe { found.as_ref() })
            }
            _ => None,
        }
    }
}
