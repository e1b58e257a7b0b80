//! Where hashes get their seeds: random in each process, so that no stream can be made to collide.
//!
//! Two builds have fixed ones: the model checker, which must meet the same run again, and, under `cfg(peakhold_fixed_seeds)`, the
//! one whose instructions are counted.

/// Seeds that nobody outside can guess.
#[cfg(not(any(peakhold_loom, peakhold_fixed_seeds)))]
pub(crate) use std::hash::RandomState as Unguessable;

#[cfg(not(any(peakhold_loom, peakhold_fixed_seeds)))]
pub(crate) use foldhash::{fast::RandomState as Fast, quality::RandomState as Quality};

#[cfg(any(peakhold_loom, peakhold_fixed_seeds))]
pub(crate) use foldhash::{
    fast::FixedState as Fast, quality::FixedState as Quality, quality::FixedState as Unguessable,
};
