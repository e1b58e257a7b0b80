//! The lock-free parts under a model checker, which tries the interleavings and the stale reads that the memory model allows.
//!
//! `python scripts/test_loom.py` runs each model on the sources as they stand, which it must pass, and then on each of the mutants
//! (see [`crate::mutants`]) that the model names, under which it must fail: so the models are known to see what they are there for.
//! Whoever owns memory touches a cell of the checker in it, so that a race or a use after its end is seen; the checker also follows what
//! was allocated, and values count themselves.
//!
//! # Limitations
//! Three threads at most, as many preemptions as `LOOM_MAX_PREEMPTIONS` says (3 unless set, fewer in the largest models), small chunks and small branches.
//! docs/concurrency.md lists what the checker cannot model, and what is relied on in its place.
#![allow(unsafe_code)]

mod cells;
mod counter;
mod peak;
mod rotation;
mod trie;
mod window;

use crate::mutants::CHOSEN;
use loom::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Explores a model, which fails under each of `mutants`, and passes otherwise.
fn check<const N: usize>(mutants: [&str; N], model: impl Fn() + Send + Sync + 'static) {
    check_within(3, mutants, model);
}

/// Likewise, with at most so many preemptions: for models that have too many interleavings within three.
fn check_within<const N: usize>(preemptions: usize, mutants: [&str; N], model: impl Fn() + Send + Sync + 'static) {
    if CHOSEN.as_deref() == Some("list") {
        println!("catches {}", mutants.join(" "));
        return;
    }
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// A value that knows how many of its kind live, and whose memory the checker watches to its end.
struct Payload {
    memory: UnsafeCell<u64>,
    live: Arc<AtomicUsize>,
}

impl Payload {
    fn new(value: u64, live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, SeqCst);
        Self { memory: UnsafeCell::new(value), live: live.clone() }
    }

    fn read(&self) -> u64 {
        // SAFETY: written only when the value is made and dropped; the checker fails the model if that is not so.
        self.memory.with(|value| unsafe { *value })
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        // SAFETY: as above.
        self.memory.with_mut(|value| unsafe { *value = u64::MAX });
        self.live.fetch_sub(1, SeqCst);
    }
}
