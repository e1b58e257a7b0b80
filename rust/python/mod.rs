use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _peakhold(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
