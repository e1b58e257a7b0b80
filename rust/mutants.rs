//! Seeded mistakes, each of which a check has to notice, so that the checks are known to have power.
//!
//! A mutant is a spot of the sources where an ordering is weakened or a step left out while the environment variable `PEAKHOLD_MUTANT`
//! names it. Those of the lock-free parts are for the model checker (`cfg(peakhold_loom)`), those that begin with `misread_` for the
//! fuzz targets (feature `fuzz`). Every other build reads `false` here, and contains none of them.

#[cfg(not(any(peakhold_loom, feature = "fuzz")))]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

#[cfg(any(peakhold_loom, feature = "fuzz"))]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutants::CHOSEN.as_deref() == Some($name)
    };
}

/// The mutant to be checked, by its name.
#[cfg(any(peakhold_loom, feature = "fuzz"))]
pub(crate) static CHOSEN: std::sync::LazyLock<Option<String>> =
    std::sync::LazyLock::new(|| std::env::var("PEAKHOLD_MUTANT").ok());

/// An ordering, or a weaker one in the mutant of this name.
macro_rules! ordering {
    ($strong:ident, $($name:literal => $weak:ident),+) => {
        $(if $crate::mutants::mutant!($name) { $crate::sync::Ordering::$weak } else)+ { $crate::sync::Ordering::$strong }
    };
}

pub(crate) use {mutant, ordering};
