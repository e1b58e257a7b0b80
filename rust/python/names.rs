//! The names of attributes and the keys of dicts that predictions are read by, as interned strings.
//!
//! All of them are made when the module is loaded. `pyo3::intern!` makes each at its first use and lets go of the interpreter
//! meanwhile; a process that is forked at that moment has a half-made string, and waits for ever for a thread that it does not have.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

macro_rules! names {
    ($($name:ident)*) => {
        struct Names {
            $($name: Py<PyString>,)*
        }

        impl Names {
            fn get(py: Python<'_>) -> &'static Self {
                static NAMES: PyOnceLock<Names> = PyOnceLock::new();
                NAMES.get_or_init(py, || Self { $($name: PyString::intern(py, stringify!($name)).unbind(),)* })
            }
        }

        $(
            pub(super) fn $name(py: Python<'_>) -> &Bound<'_, PyString> {
                Names::get(py).$name.bind(py)
            }
        )*
    };
}

names! {
    append class class_id class_ids class_name confidence cpu data detach dtype float image_metadata images_metadata inference_id item kind metadata model_id
    model_type numpy prediction_type predictions shape tolist xyxy
}

/// Makes the names, so that reading one never waits.
pub(super) fn prepare(py: Python<'_>) {
    Names::get(py);
}
