//! `NumPy` arrays as borrowed columns: the one place that looks inside an array.
//!
//! `numpy::PyReadonlyArray` would take a process-wide lock on each acquire and release, and knows no text of fixed width. So
//! the array's data pointer, stride, item size and byte order are read directly, once per column.
//!
//! A view is sound as long as nothing reallocates the array under it. No Python code runs while one is alive: columns
//! that need conversion are converted before the first view is made, and the interpreter stays attached.
//!
//! # Limitations
//! * An array that another thread writes at the same time yields any mixture of old and new rows.
//! * Up to `CPython` 3.11 an object that is made may start the garbage collector, and with it finalizers. One object can be
//!   made while views are alive: the exception for an inference id with a lone surrogate in a list. A finalizer that then gave
//!   the memory of an array under view away (`__setstate__`, `resize(refcheck=False)`) would break the view.
#![allow(unsafe_code)]

use super::names;
use crate::{Column, Confidences, Encoding, Names, Number, Reason};
use numpy::npyffi::{_PyArray_GET_ITEM_DATA, _PyDataType_GET_ITEM_DATA, PyDataType_ELSIZE};
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

/// An array as it lies in memory.
pub(super) struct View<'a> {
    column: Column<'a>,
    kind: u8,
    width: usize,
    swapped: bool,
}

impl<'a> View<'a> {
    /// Looks at a one-dimensional array.
    #[inline]
    pub(super) fn new(array: &'a Bound<'_, PyUntypedArray>) -> Result<Self, Reason> {
        let (&[rows], &[stride]) = (array.shape(), array.strides()) else {
            return Err(Reason::ColumnShape);
        };
        // SAFETY: NumPy keeps the memory of `rows` items of `width` bytes, `stride` bytes apart, as long as the array
        // lives, which `'a` borrows; see above for what could move it. Its descriptor lives as long and is read at once: a reference
        // of its own, which `array.dtype()` would make, costs as much as the rest of the look.
        unsafe {
            let fields = _PyArray_GET_ITEM_DATA(array.as_array_ptr());
            let descriptor = (*fields).descr;
            let width = PyDataType_ELSIZE(array.py(), descriptor).cast_unsigned();
            let descriptor = _PyDataType_GET_ITEM_DATA(descriptor);
            // A `c_char` is an i8 on some platforms and a u8 on others, such as Linux on ARM.
            let ([kind], [order]) = ((*descriptor).kind.to_ne_bytes(), (*descriptor).byteorder.to_ne_bytes());
            let swapped = order == if cfg!(target_endian = "little") { b'>' } else { b'<' };
            let column = Column::from_raw((*fields).data.cast::<u8>(), stride, rows, width);
            Ok(Self { column, kind, width, swapped })
        }
    }

    /// Looks at anything; `None` if it is no one-dimensional array.
    #[inline]
    pub(super) fn of(column: &'a Bound<'_, PyAny>) -> Option<Self> {
        Self::new(column.cast().ok()?).ok()
    }

    /// The rows as text, if the array holds text of fixed width.
    pub(super) fn text(&self) -> Option<(Column<'a>, Encoding)> {
        let encoding = match (self.kind, self.swapped) {
            (b'U', false) => Encoding::Native,
            (b'U', true) => Encoding::Swapped,
            (b'S', _) => Encoding::Utf8,
            _ => return None,
        };
        Some((self.column, encoding))
    }

    /// The rows as numbers, and whether in the other byte order, if the array holds numbers that are read in place.
    pub(super) fn numbers(&self) -> Option<(Column<'a>, Number, bool)> {
        self.number().map(|number| (self.column, number, self.swapped))
    }

    fn number(&self) -> Option<Number> {
        Some(match (self.kind, self.width) {
            (b'f', 2) => Number::F16,
            (b'f', 4) => Number::F32,
            (b'f', 8) => Number::F64,
            (b'i', 1) => Number::I8,
            (b'i', 2) => Number::I16,
            (b'i', 4) => Number::I32,
            (b'i', 8) => Number::I64,
            (b'u', 1) => Number::U8,
            (b'u', 2) => Number::U16,
            (b'u', 4) => Number::U32,
            (b'u', 8) => Number::U64,
            (b'b', 1) => Number::Bool,
            _ => return None,
        })
    }
}

/// What to do with an array.
enum Plan {
    InPlace,
    /// Convert the items one by one, as those of a list.
    Convert,
    /// No item can be used, for this reason.
    Reject(Reason),
}

/// A column of a prediction, held alive; `T` is what an item is converted to if it cannot be read in place.
pub(super) enum Held<'py, T> {
    Missing,
    Array(Bound<'py, PyUntypedArray>),
    Converted(Vec<Result<T, Reason>>),
}

impl<'py, T> Held<'py, T> {
    /// Holds a column; `plan` decides about an array by its kind, `convert` is given single items.
    ///
    /// # Errors
    /// The inner error if the column has no usable form; the outer one for what must not be swallowed.
    fn hold(
        column: Option<Bound<'py, PyAny>>,
        plan: impl FnOnce(&View<'_>) -> Plan,
        convert: impl Fn(&Bound<'py, PyAny>) -> PyResult<Result<T, Reason>>,
    ) -> PyResult<Result<Self, Reason>> {
        let Some(column) = column.filter(|column| !column.is_none()) else {
            return Ok(Ok(Self::Missing));
        };
        let items = match column.cast_into::<PyUntypedArray>() {
            Ok(array) => match View::new(&array).map(|view| (plan(&view), view.column.rows())) {
                Ok((Plan::InPlace, _)) => return Ok(Ok(Self::Array(array))),
                Ok((Plan::Convert, _)) => array.call_method0(names::tolist(array.py()))?,
                Ok((Plan::Reject(reason), rows)) => {
                    let rejected = std::iter::repeat_with(|| Err(reason)).take(rows);
                    return Ok(Ok(Self::Converted(rejected.collect())));
                }
                Err(reason) => return Ok(Err(reason)),
            },
            Err(other) => other.into_inner(),
        };
        if !is_sequence(&items) {
            return Ok(Err(Reason::ColumnShape));
        }
        let converted: PyResult<Vec<_>> = items.try_iter()?.map(|item| convert(&item?)).collect();
        Ok(Ok(Self::Converted(converted?)))
    }

    /// The number of rows, if the column is there.
    pub(super) fn rows(&self) -> Option<usize> {
        match self {
            Self::Missing => None,
            Self::Array(array) => array.shape().first().copied(),
            Self::Converted(items) => Some(items.len()),
        }
    }
}

impl<'py> Held<'py, f64> {
    pub(super) fn confidences(column: Option<Bound<'py, PyAny>>) -> PyResult<Result<Self, Reason>> {
        let plan = |view: &View<'_>| match view.kind {
            _ if view.number().is_some() => Plan::InPlace,
            // Complex numbers and times, which would lose what they are.
            b'c' | b'M' | b'm' => Plan::Reject(Reason::ConfidenceNotNumber),
            // Objects, text that may be numeric, floats wider than any of Rust's, and types of other libraries.
            _ => Plan::Convert,
        };
        Self::hold(column, plan, super::items::number)
    }

    pub(super) fn as_confidences(&self) -> Result<Confidences<'_>, Reason> {
        match self {
            Self::Missing => Ok(Confidences::Missing),
            Self::Converted(values) => Ok(Confidences::Values(values)),
            Self::Array(array) => {
                let (column, number, swapped) = View::new(array)?.numbers().ok_or(Reason::ColumnShape)?;
                Ok(Confidences::Numbers { column, number, swapped })
            }
        }
    }
}

impl<'py> Held<'py, Box<[u8]>> {
    pub(super) fn names(column: Option<Bound<'py, PyAny>>) -> PyResult<Result<Self, Reason>> {
        let plan = |view: &View<'_>| match view.kind {
            _ if view.text().is_some() => Plan::InPlace,
            b'O' | b'T' => Plan::Convert,
            _ => Plan::Reject(Reason::ClassNameNotText),
        };
        Self::hold(column, plan, |item| Ok(super::items::class_name(item)))
    }

    pub(super) fn as_names(&self) -> Result<Names<'_>, Reason> {
        match self {
            Self::Missing => Ok(Names::Missing),
            Self::Converted(texts) => Ok(Names::Texts(texts)),
            Self::Array(array) => {
                let (column, encoding) = View::new(array)?.text().ok_or(Reason::ColumnShape)?;
                Ok(Names::Rows { column, encoding })
            }
        }
    }
}

/// An array of text of fixed width, and its number of rows; `None` for anything else.
#[inline]
pub(super) fn text_array<'a, 'py>(column: &'a Bound<'py, PyAny>) -> Option<(&'a Bound<'py, PyUntypedArray>, usize)> {
    let array = column.cast().ok()?;
    let (rows, _) = View::new(array).ok()?.text()?;
    Some((array, rows.rows()))
}

/// The number of rows of an array of any dimension; `None` for anything else.
pub(super) fn array_rows(array: &Bound<'_, PyAny>) -> Option<usize> {
    array.cast::<PyUntypedArray>().ok().and_then(|array| array.shape().first().copied())
}

fn is_sequence(column: &Bound<'_, PyAny>) -> bool {
    column.is_instance_of::<PyList>() || column.is_instance_of::<PyTuple>()
}

/// A column of inference ids or prediction types, of which only the rows of winners are read.
pub(super) enum TextColumn<'py> {
    Missing,
    Array(Bound<'py, PyUntypedArray>),
    /// Objects, in a list of exactly that type: reading an item of it runs no Python code.
    Items(Bound<'py, PyList>),
}

impl<'py> TextColumn<'py> {
    pub(super) fn hold(column: Option<Bound<'py, PyAny>>) -> PyResult<Result<Self, Reason>> {
        let Some(column) = column.filter(|column| !column.is_none()) else {
            return Ok(Ok(Self::Missing));
        };
        let py = column.py();
        let items = match column.cast_into::<PyUntypedArray>() {
            Ok(array) => match View::new(&array).map(|view| view.text().is_some()) {
                Ok(true) => return Ok(Ok(Self::Array(array))),
                Ok(false) => array.call_method0(names::tolist(py))?,
                Err(reason) => return Ok(Err(reason)),
            },
            Err(other) => other.into_inner(),
        };
        if !is_sequence(&items) {
            return Ok(Err(Reason::ColumnShape));
        }
        if items.is_exact_instance_of::<PyList>() {
            return Ok(Ok(Self::Items(items.cast_into()?)));
        }
        let items: PyResult<Vec<_>> = items.try_iter()?.collect();
        Ok(Ok(Self::Items(PyList::new(py, items?)?)))
    }

    /// Whether the column is missing, or has `rows` rows.
    pub(super) fn fits(&self, rows: usize) -> bool {
        match self {
            Self::Missing => true,
            Self::Array(array) => array.shape().first() == Some(&rows),
            Self::Items(items) => items.len() == rows,
        }
    }
}
