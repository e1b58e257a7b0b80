//! Counts the memory blocks that CPython asks its allocators for.
//!
//! tracemalloc and `sys.getallocatedblocks` see what is alive, not an object that is
//! made and dropped again for each row. This stands in front of the object and raw
//! memory allocators and counts every call. Compiled by the test that loads it.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// `PyMemAllocatorEx`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Allocator {
    context: *mut c_void,
    malloc: extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: extern "C" fn(*mut c_void, *mut c_void),
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

#[no_mangle]
pub extern "C" fn count() -> usize {
    COUNT.load(Relaxed)
}

/// Wraps `original`, which must outlive `counting`; both are filled by the caller.
///
/// # Safety
/// Both point to allocators, `original` to a valid one.
#[no_mangle]
pub unsafe extern "C" fn wrap(original: *const Allocator, counting: *mut Allocator) {
    *counting = Allocator { context: original as *mut c_void, malloc, calloc, realloc, free };
}

fn inner(context: *mut c_void) -> Allocator {
    COUNT.fetch_add(1, Relaxed);
    unsafe { *(context as *const Allocator) }
}

extern "C" fn malloc(context: *mut c_void, size: usize) -> *mut c_void {
    let inner = inner(context);
    (inner.malloc)(inner.context, size)
}

extern "C" fn calloc(context: *mut c_void, count: usize, size: usize) -> *mut c_void {
    let inner = inner(context);
    (inner.calloc)(inner.context, count, size)
}

extern "C" fn realloc(context: *mut c_void, block: *mut c_void, size: usize) -> *mut c_void {
    let inner = inner(context);
    (inner.realloc)(inner.context, block, size)
}

extern "C" fn free(context: *mut c_void, block: *mut c_void) {
    let inner = unsafe { *(context as *const Allocator) };
    (inner.free)(inner.context, block)
}
