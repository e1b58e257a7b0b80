//! `peakhold._peakhold.Journal`, `WindowJournal`, `MetadataJournal`, and reading the journals of others.

use super::aggregator::PeakAggregator;
use super::names;
use super::snapshot::WindowSnapshot;
use crate::{JournalSettings, RecoveredWindow, Registered, Registration, WindowId, WindowJournal, recover};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyString};
use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

/// Where the windows of a process are written down.
#[pyclass(frozen, module = "peakhold._peakhold")]
pub(super) struct Journal(pub(super) Arc<crate::Journal>);

#[pymethods]
impl Journal {
    #[new]
    #[pyo3(signature = (directory, *, sync = false, limit = u64::MAX))]
    fn new(directory: PathBuf, sync: bool, limit: u64) -> Self {
        Self(Arc::new(crate::Journal::new(JournalSettings { directory, sync, limit })))
    }

    /// Note that a window is safe elsewhere, also one of a dead process.
    fn commit(&self, py: Python<'_>, aggregator: u64, window: u64) -> PyResult<()> {
        Ok(py.detach(|| self.0.commit(WindowId { aggregator, window }))?)
    }

    /// Write down the statistics of the open windows of aggregators, each in its own journal, in place of what was written before.
    #[staticmethod]
    #[pyo3(signature = (aggregators, /))]
    #[allow(clippy::needless_pass_by_value, reason = "that is how a list is taken")]
    fn keep_statistics(py: Python<'_>, aggregators: Vec<Py<PeakAggregator>>) -> PyResult<()> {
        // Frames go on meanwhile.
        let keep = || {
            let mut journals: Vec<(Arc<crate::Journal>, Vec<_>)> = Vec::new();
            for (journal, window) in aggregators.iter().filter_map(|each| each.get().journaled_statistics()) {
                match journals.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &journal)) {
                    Some((_, windows)) => windows.push(window),
                    None => journals.push((journal, vec![window])),
                }
            }
            journals.into_iter().map(|(journal, windows)| journal.keep_statistics(&windows)).fold(Ok(()), Result::and)
        };
        Ok(py.detach(keep)?)
    }

    /// Keep the segments few though a window lives long.
    fn tidy(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.tidy())?)
    }

    /// Read back what windows have in the segments.
    #[pyo3(signature = (windows, /))]
    #[allow(clippy::needless_pass_by_value, reason = "that is how a list is taken")]
    fn read<'py>(
        &self,
        py: Python<'py>,
        windows: Vec<PyRef<'py, OfWindow>>,
    ) -> PyResult<(Vec<Option<Held<'py>>>, u64)> {
        let ids: Vec<_> = windows.iter().map(|window| window.0.id()).collect();
        let mut recovered = py.detach(|| self.0.read(&ids.iter().copied().collect()))?;
        let held = ids.iter().map(|id| recovered.windows.remove(id).map(|window| held(py, window)).transpose());
        Ok((held.collect::<PyResult<_>>()?, recovered.damaged))
    }
}

/// What a window wrote to the journal of its process.
#[pyclass(frozen, name = "WindowJournal", module = "peakhold._peakhold")]
pub(super) struct OfWindow(pub(super) Arc<WindowJournal>);

#[pymethods]
impl OfWindow {
    /// Name of the directory, number of the aggregator, number of the window; unique for ever.
    #[getter]
    fn name(&self) -> String {
        self.0.name()
    }

    /// Why writing was given up, None if all is written.
    #[getter]
    fn error(&self) -> Option<String> {
        self.0.error().map(ToString::to_string)
    }

    /// Writes of the process that took over 5 ms: the disk is slow.
    #[getter]
    fn slow_writes(&self) -> u64 {
        self.0.slow_writes()
    }

    /// Note when the window was closed; return whether it is in the journal.
    #[pyo3(signature = (at, /))]
    fn close(&self, py: Python<'_>, at: i64) -> PyResult<bool> {
        Ok(py.detach(|| self.0.close(at))?)
    }

    /// Note that the window is safe elsewhere.
    fn remove(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.remove())?)
    }
}

/// What frames registered for a destination, on its way to be sent.
#[pyclass(frozen, weakref, module = "peakhold._peakhold")]
pub(super) struct MetadataJournal(crate::MetadataJournal);

#[pymethods]
impl MetadataJournal {
    #[new]
    #[pyo3(signature = (journal, *, about))]
    fn new(journal: &Journal, about: &[u8]) -> Self {
        Self(crate::MetadataJournal::new(journal.0.clone(), about))
    }

    /// Write down what a frame registers, and append it to a deque.
    #[pyo3(signature = (frames, inference_ids, field_name, field_value, /))]
    fn append(
        &self,
        py: Python<'_>,
        frames: &Bound<'_, PyAny>,
        inference_ids: &Bound<'_, PyList>,
        field_name: &Bound<'_, PyString>,
        field_value: &Bound<'_, PyString>,
    ) -> PyResult<()> {
        let mut registration = Registration::new(&bytes_of(field_name)?, &bytes_of(field_value)?, inference_ids.len());
        for id in inference_ids {
            registration.push(&bytes_of(id.cast()?)?);
        }
        let append = || self.0.append(&registration);
        let (batch, number) = if self.0.may_block() { py.detach(append) } else { append() };
        // No signal handler comes in between: nothing here is Python code.
        let frame = (inference_ids, field_name, field_value, MetadataBatch(batch), number);
        frames.call_method1(names::append(py), (frame,)).map(drop)
    }

    /// End the batch that frames join, so that it can be sent.
    fn cut(&self, py: Python<'_>) {
        py.detach(|| self.0.cut());
    }
}

/// Frames whose metadata becomes one request.
#[pyclass(frozen, eq, hash, module = "peakhold._peakhold")]
pub(super) struct MetadataBatch(Arc<crate::MetadataBatch>);

impl PartialEq for MetadataBatch {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Hash for MetadataBatch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

#[pymethods]
impl MetadataBatch {
    /// What it is to the journal.
    #[getter]
    fn journal(&self) -> OfWindow {
        OfWindow(self.0.journal().clone())
    }

    /// How many frames it has; None as long as more may come.
    #[getter]
    fn frames(&self) -> Option<u64> {
        self.0.frames()
    }
}

/// The UTF-8 of a text, as far as it has one.
fn bytes_of<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, [u8]>> {
    match text.to_str() {
        Ok(text) => Ok(Cow::Borrowed(text.as_bytes())),
        Err(_) => Ok(Cow::Owned(text.call_method1("encode", ("utf-8", "surrogatepass"))?.extract()?)),
    }
}

fn frame<'py>(py: Python<'py>, registered: &Registered) -> PyResult<Frame<'py>> {
    let ids = registered.ids.iter().map(|id| text_of(py, id)).collect::<PyResult<_>>()?;
    Ok((ids, text_of(py, &registered.name)?, text_of(py, &registered.value)?))
}

fn text_of<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    PyBytes::new(py, bytes).call_method1("decode", ("utf-8", "surrogatepass"))
}

/// What a frame registered: the ids, a field and its value.
type Frame<'py> = (Vec<Bound<'py, PyAny>>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// What a window or a batch holds: metadata, or peaks.
type Held<'py> = (Vec<Frame<'py>>, WindowSnapshot);

fn held(py: Python<'_>, window: RecoveredWindow) -> PyResult<Held<'_>> {
    let metadata = window.metadata.values().map(|each| frame(py, each)).collect::<PyResult<_>>()?;
    Ok((metadata, WindowSnapshot::new(window.snapshot)))
}

/// Numbers of the aggregator and the window, what it is about, when it was closed, its metadata, and its peaks.
type Window<'py> = (u64, u64, Option<Bound<'py, PyBytes>>, Option<i64>, Vec<Frame<'py>>, WindowSnapshot);

/// Read the segments of a process, in whatever state they are.
#[pyfunction]
#[pyo3(signature = (segments, statistics = None, /))]
#[allow(clippy::needless_pass_by_value, reason = "that is how a list is taken")]
pub(super) fn recover_journal(
    py: Python<'_>,
    segments: Vec<PyBackedBytes>,
    statistics: Option<PyBackedBytes>,
) -> PyResult<(Vec<Window<'_>>, u64, u64)> {
    let mut recovered = py
        .detach(|| recover(segments.iter().map(|segment| &**segment)))
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    if let Some(statistics) = statistics {
        recovered.add_statistics(&statistics);
    }
    let windows = recovered.windows.into_iter().map(|(id, mut window)| {
        let about = window.about.take().map(|about| PyBytes::new(py, &about));
        let closed_at = window.closed_at;
        let (metadata, snapshot) = held(py, window)?;
        Ok((id.aggregator, id.window, about, closed_at, metadata, snapshot))
    });
    Ok((windows.collect::<PyResult<_>>()?, recovered.damaged, recovered.unknown))
}
