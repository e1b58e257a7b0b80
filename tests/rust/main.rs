//! The core through its public interface.

mod concurrency;
mod consolidation;
mod journal;
mod metadata;
mod model;
mod operations;
mod snapshot;
mod support;
