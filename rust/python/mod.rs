//! The Python module: it translates and decides nothing.

mod aggregator;
mod classification;
mod columns;
mod detections;
mod distributions;
mod ids;
mod items;
mod journal;
mod names;
mod snapshot;
mod tensors;
mod texts;
mod warnings;

use pyo3::prelude::*;

/// What `cargo` built: "release" or "debug".
const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

#[pymodule(gil_used = false)]
fn _peakhold(module: &Bound<'_, PyModule>) -> PyResult<()> {
    names::prepare(module.py());
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("build_profile", BUILD_PROFILE)?;
    module.add_class::<aggregator::PeakAggregator>()?;
    module.add_class::<snapshot::WindowSnapshot>()?;
    module.add_class::<journal::Journal>()?;
    module.add_function(wrap_pyfunction!(journal::recover_journal, module)?)?;
    module.add_function(wrap_pyfunction!(ids::unique_inference_ids, module)?)
}
