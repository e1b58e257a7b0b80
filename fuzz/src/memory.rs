//! Memory between two pages that cannot be touched, so that a read beyond either end is a fault at once.

use std::ffi::c_void;
use std::ptr;

/// Bytes that end, or begin, exactly where the memory of the process does.
pub struct Guarded {
    mapping: *mut c_void,
    mapped: usize,
    first: *mut u8,
    length: usize,
}

impl Guarded {
    /// Copies `bytes` to the end of guarded memory, or to its beginning.
    ///
    /// # Panics
    /// If the system gives no memory.
    #[must_use]
    pub fn new(bytes: &[u8], at_end: bool) -> Self {
        let page = page();
        let inner = bytes.len().div_ceil(page).max(1) * page;
        let mapped = inner + 2 * page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous mapping of its own, wherever the system likes.
        let mapping = unsafe { libc::mmap(ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0) };
        assert!(mapping != libc::MAP_FAILED, "no memory for a column");
        // SAFETY: the first page lies within the mapping.
        let readable = unsafe { mapping.cast::<u8>().add(page) };
        // SAFETY: the pages between the first and the last are the mapping's own.
        let opened = unsafe { libc::mprotect(readable.cast(), inner, libc::PROT_READ | libc::PROT_WRITE) };
        assert!(opened == 0, "the memory of a column cannot be opened");
        let before = if at_end { inner - bytes.len() } else { 0 };
        // SAFETY: `inner` bytes are readable and writable from there, and nobody else knows of them.
        let first = unsafe {
            let first = readable.add(before);
            ptr::copy_nonoverlapping(bytes.as_ptr(), first, bytes.len());
            first
        };
        Self { mapping, mapped, first, length: bytes.len() }
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `new` has filled them, and they stay until `self` is dropped.
        unsafe { std::slice::from_raw_parts(self.first, self.length) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and borrowed by nobody any more.
        unsafe { libc::munmap(self.mapping, self.mapped) };
    }
}

fn page() -> usize {
    // SAFETY: asks for a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a page has a size")
}
