//! Giving the memory of large windows back to the system.
//!
//! A window of a hundred thousand recognised texts is some sixty megabytes of small blocks. Most allocators return them once
//! they are free. The GNU C library keeps pages between blocks that are still in use, so there it has to be asked;
//! that takes some three milliseconds after such a window, and is not worth a call after a usual one.
#![allow(unsafe_code)]

/// Peaks from which on a window counts as large.
pub(crate) const LARGE: usize = 10_000;

/// Asks the allocator to return free pages.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn release() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: takes a size to keep, touches free memory only, and may be called from any thread.
    unsafe { malloc_trim(0) };
}

/// Other allocators return free pages by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn release() {}
