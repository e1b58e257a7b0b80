//! The core through its public interface.

mod concurrency;
mod consolidation;
mod journal;
mod model;
mod operations;
mod snapshot;
mod support;
