//! The core through its public interface.

mod concurrency;
mod consolidation;
mod journal;
mod snapshot;
mod support;
