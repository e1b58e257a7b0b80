//! The one place where atomics and shared cells come from: `std`, or the model checker under `cfg(peakhold_loom)`.

#[cfg(not(peakhold_loom))]
pub(crate) use std::sync::atomic::{AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

#[cfg(not(peakhold_loom))]
pub(crate) use std::thread_local;

/// A thread's own value; the model checker's macro knows no constants.
#[cfg(peakhold_loom)]
macro_rules! tracked_thread_local {
    ($(#[$attribute:meta])* static $name:ident: $type:ty = const $value:block;) => {
        ::loom::thread_local! {
            $(#[$attribute])*
            static $name: $type = $value;
        }
    };
}

#[cfg(peakhold_loom)]
pub(crate) use tracked_thread_local as thread_local;

#[cfg(peakhold_loom)]
pub(crate) use self::tracked::AtomicPtr;
#[cfg(peakhold_loom)]
pub(crate) use loom::sync::atomic::{AtomicIsize, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Atomics that the model checker does not see: for statics, which outlive its executions, and numbers that only have to differ.
pub(crate) mod unmodelled {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
}

/// Plain memory whose owner is decided by an atomic elsewhere.
///
/// Access goes through raw pointers in closures, so that a model checker sees where it begins and ends.
#[derive(Debug)]
pub(crate) struct SharedCell<T> {
    #[cfg(not(peakhold_loom))]
    cell: std::cell::UnsafeCell<T>,
    #[cfg(peakhold_loom)]
    cell: loom::alloc::Track<loom::cell::UnsafeCell<T>>,
}

impl<T> SharedCell<T> {
    pub(crate) fn new(value: T) -> Self {
        #[cfg(not(peakhold_loom))]
        let cell = std::cell::UnsafeCell::new(value);
        #[cfg(peakhold_loom)]
        let cell = loom::alloc::Track::new(loom::cell::UnsafeCell::new(value));
        Self { cell }
    }

    /// Lends the memory to `access`, which may write it only while its caller is the sole owner.
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        #[cfg(not(peakhold_loom))]
        return access(self.cell.get());
        #[cfg(peakhold_loom)]
        return self.cell.get_ref().with_mut(access);
    }
}

/// Atomic pointers whose own memory the model checker follows, so that it sees when what holds them is never freed.
#[cfg(peakhold_loom)]
mod tracked {
    use super::Ordering;
    use loom::alloc::Track;

    #[derive(Debug)]
    pub(crate) struct AtomicPtr<T>(Track<loom::sync::atomic::AtomicPtr<T>>);

    impl<T> AtomicPtr<T> {
        pub(crate) fn new(pointer: *mut T) -> Self {
            Self(Track::new(loom::sync::atomic::AtomicPtr::new(pointer)))
        }

        pub(crate) fn load(&self, order: Ordering) -> *mut T {
            self.0.get_ref().load(order)
        }

        pub(crate) fn store(&self, pointer: *mut T, order: Ordering) {
            self.0.get_ref().store(pointer, order);
        }

        pub(crate) fn compare_exchange(
            &self,
            current: *mut T,
            new: *mut T,
            success: Ordering,
            failure: Ordering,
        ) -> Result<*mut T, *mut T> {
            self.0.get_ref().compare_exchange(current, new, success, failure)
        }
    }
}
