//! The core through its public interface.

mod concurrency;
mod consolidation;
mod snapshot;
mod support;
