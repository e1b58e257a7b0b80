//! The Python module: it translates and decides nothing.

mod aggregator;
mod classification;
mod columns;
mod detections;
mod dicts;
mod distributions;
mod ids;
mod items;
mod journal;
mod names;
mod snapshot;
mod tensors;
mod texts;
mod warnings;

use pyo3::exceptions::PyImportError;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::PyTuple;

/// What `cargo` built: "release" or "debug".
const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

/// Makes all that would be made at its first use, so that nothing of that kind is left for a frame.
///
/// To make something once, a thread lets go of the interpreter half-way. If the process is forked at that moment, the child waits for ever
/// for a thread that it does not have.
fn prepare(py: Python<'_>) -> PyResult<()> {
    names::prepare(py);
    warnings::prepare(py)?;
    // The table of NumPy's functions, and its version.
    if !py.import("numpy")?.hasattr("ndarray")? {
        return Err(PyImportError::new_err("the NumPy that is installed is incomplete: install it anew"));
    }
    numpy::npyffi::is_numpy_2(py);
    // What PyO3 makes once: the type that it compares each exception with, and how it asks for the length of an iterator.
    PanicException::type_object(py);
    PyTuple::empty(py).try_iter()?.size_hint();
    // The seeds of all hashes, and of the numbers of processes.
    crate::trie::hash(b"");
    crate::statistics::seed();
    Ok(())
}

#[pymodule(gil_used = false)]
fn _peakhold(module: &Bound<'_, PyModule>) -> PyResult<()> {
    prepare(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("build_profile", BUILD_PROFILE)?;
    module.add_class::<aggregator::PeakAggregator>()?;
    module.add_class::<snapshot::WindowSnapshot>()?;
    module.add_class::<journal::Journal>()?;
    module.add_class::<journal::OfWindow>()?;
    module.add_class::<journal::MetadataJournal>()?;
    module.add_class::<journal::MetadataBatch>()?;
    module.add_function(wrap_pyfunction!(journal::recover_journal, module)?)?;
    module.add_function(wrap_pyfunction!(ids::rejected_inference_ids, module)?)?;
    module.add_function(wrap_pyfunction!(ids::unique_inference_ids, module)?)
}
