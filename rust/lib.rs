//! Per-class peak confidences over a window of detections.
//!
//! A high-FPS vision pipeline produces thousands of detections a second; a monitor wants one representative per class every few seconds. An
//! [`Aggregator`] takes frames from any number of threads, reads their columns where they lie, and keeps the most confident
//! detection of each class of each model. A drain closes the window and yields a [`Snapshot`], which can be merged with others,
//! encoded, and put in the order of a report.
//!
//! # What it guarantees
//! * Nobody waits: observing and draining take no lock. (The allocator may; and what raises a peak waits its turn to be written to a [`Journal`], if there is one.)
//! * Each observation is in exactly one drained window; one that returned before a drain began is in that drain's window or an earlier one.
//! * Memory grows with classes and models, never with frames, and returns when a window closes.
//! * Bad rows are counted by [`Reason`] and cost nothing but themselves.
//!
//! # What it does not
//! * Two observations that overlap in time have no order but the one in which they are published.
//! * A buffer that another thread writes while it is observed may yield any mixture of old and new rows.
//!
//! # Layout
//! `sync` is the only source of atomics, `seed` of the seeds of hashes. `rows` compares and hashes rows, `column`, `label` and `frame` read predictions, `reduction` finds the winners of one, in memory of `recent`, `cells`, `peak`, `trie` and
//! `rotation` are the lock-free parts, with `counter` and `statistics` for what a window counts beside its peaks, `window` and `aggregator` put them together. `journal`, `record` and `recovery` keep the peaks
//! of open windows in files, and `metadata` what waits to be sent. The feature `python` adds the module that
//! Python imports; without it no interpreter is needed.
#![deny(unsafe_code)]

mod aggregator;
mod cells;
mod column;
mod counter;
mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzzing;
mod ids;
mod journal;
mod label;
#[cfg(all(test, peakhold_loom))]
mod loom;
mod memo;
mod memory;
mod metadata;
mod mutants;
mod peak;
#[cfg(feature = "python")]
mod python;
mod recent;
mod record;
mod recovery;
mod reduction;
mod reject;
mod rotation;
mod rows;
mod seed;
mod snapshot;
mod statistics;
mod sync;
mod trie;
mod window;

pub use aggregator::{Aggregator, Closed, DEFAULT_MAX_CLASSES, Observation, Rows};
pub use cells::Peak;
pub use column::{Column, Number};
pub use frame::{Confidences, Frame, Name, Names};
pub use ids::{unique_integers, unique_rows};
pub use journal::{Journal, JournalSettings, WindowJournal};
pub use label::{Encoding, MAX_CHARS};
pub use metadata::{MetadataBatch, MetadataJournal, Registration};
pub use record::{Registered, WindowId};
pub use recovery::{JournalError, Recovered, RecoveredWindow, recover};
pub use reject::{Reason, Rejections, Tally};
pub use snapshot::{ClassPeak, DecodeError, Place, Representative, Snapshot};
pub use statistics::{BINS, ClassStatistics, PartId, Statistics, UNITS};
pub use window::Texts;
