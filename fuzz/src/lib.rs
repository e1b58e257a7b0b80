//! What the fuzz targets share: choices drawn from the input, columns in guarded memory, and the readers in their plainest form.
//!
//! `python scripts/fuzz.py` builds the targets and runs them.

pub mod input;
pub mod memory;
pub mod plain;
pub mod rows;
