//! Flaws that valgrind has to notice, so that its silence about the rest means something. Run by `scripts/test_valgrind.py` only.

use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;

const LAYOUT: Layout = Layout::new::<[u64; 8]>();

#[test]
#[ignore = "leaks, for valgrind to notice"]
fn memory_that_is_never_freed() {
    // SAFETY: the layout is not empty; losing memory is safe.
    black_box(unsafe { alloc(LAYOUT) });
}

#[test]
#[ignore = "reads what was never written, for valgrind to notice"]
fn memory_that_was_never_written() {
    // SAFETY: the memory is read within its bounds and then freed; its contents are nobody's, which is the flaw.
    let value = unsafe {
        let memory = black_box(alloc(LAYOUT));
        let value = memory.read_volatile();
        dealloc(memory, LAYOUT);
        value
    };
    if black_box(value) == 7 {
        println!("by chance");
    }
}

#[test]
#[ignore = "reads what was freed, for valgrind to notice"]
fn memory_that_was_freed() {
    // SAFETY: none: the read comes too late, which is the flaw.
    let value = unsafe {
        let memory = black_box(alloc(LAYOUT));
        dealloc(memory, LAYOUT);
        memory.read_volatile()
    };
    black_box(value);
}
