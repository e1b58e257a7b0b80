//! Dicts read without what costs most about reading them: references of one's own, which the stable ABI counts by a call each.
//!
//! Where the interpreter lock is, a value stays in its dict as long as no Python code runs. Without the lock another thread may take it out,
//! so that a reference is needed.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyDict, PyString};
use std::ptr::null_mut;

/// Whether the interpreter has its lock: objects of one without have more than a count and a type. The feature `abi3` does not say: on an
/// interpreter without the lock, `PyO3` builds for that version instead.
const LOCKED: bool = size_of::<ffi::PyObject>() == 2 * size_of::<usize>();

/// Calls `read` with a value, or with None if there is no such key.
///
/// # Safety
/// `read` runs no Python code as long as it uses the value, but for what it does with a reference of its own.
#[inline]
pub(super) unsafe fn read<'py, T>(
    dict: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
    read: impl FnOnce(Option<&Bound<'py, PyAny>>) -> T,
) -> PyResult<T> {
    if !LOCKED {
        return dict.get_item(key).map(|value| read(value.as_ref()));
    }
    // SAFETY: both are alive, and the value is in the dict until Python code runs, which the caller excludes.
    let value = unsafe {
        let value = ffi::PyDict_GetItemWithError(dict.as_ptr(), key.as_ptr());
        Borrowed::from_ptr_or_opt(dict.py(), value)
    };
    if value.is_none()
        && let Some(error) = PyErr::take(dict.py())
    {
        return Err(error);
    }
    Ok(read(value.as_deref()))
}

/// The items of a dict as they are now, whatever becomes of it.
pub(super) fn items<'py>(dict: &Bound<'py, PyDict>) -> Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = dict.py();
    let mut items = Vec::with_capacity(dict.len());
    with_critical_section(dict, || {
        let (mut at, mut key, mut value) = (0, null_mut(), null_mut());
        // SAFETY: the dict is alive, and nobody changes it: here no Python code runs, and other threads are kept out.
        while unsafe { ffi::PyDict_Next(dict.as_ptr(), &raw mut at, &raw mut key, &raw mut value) } != 0 {
            // SAFETY: both are in the dict, see above.
            items.push(unsafe { (Bound::from_borrowed_ptr(py, key), Bound::from_borrowed_ptr(py, value)) });
        }
    });
    items
}
