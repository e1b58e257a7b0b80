//! Cells have one owner at a time.

use super::check;
use crate::cells::{Cells, Keyed};
use loom::thread::spawn;
use std::sync::Arc;

/// Writes a cell's peak, as only its owner may.
fn own(cells: &Cells<Keyed>, index: u32, value: u64) {
    // SAFETY: the caller took the cell; the checker fails the model if another owner touches it.
    cells.get(index).peak.with_mut(|peak| unsafe { (*peak).arrival = value });
}

#[test]
fn a_recycled_cell_has_one_owner() {
    check(["tag_unchanged"], || {
        let cells = Arc::new(Cells::<Keyed>::new());
        let (first, second) = (cells.take(), cells.take());
        cells.release(first);
        cells.release(second);
        // Between the other's look at the list and its exchange the head may leave and come back.
        let recycler = spawn({
            let cells = cells.clone();
            move || {
                let (first, second) = (cells.take(), cells.take());
                own(&cells, first, 1);
                own(&cells, second, 2);
                cells.release(first);
                own(&cells, second, 3);
                second
            }
        });
        let mine = [cells.take(), cells.take()];
        mine.into_iter().for_each(|index| own(&cells, index, 4));
        assert!(!mine.contains(&recycler.join().expect("no panic")));
    });
}

#[test]
fn three_owners_take_turns() {
    check(["cell_unreleased", "cell_unacquired"], || {
        let cells = Arc::new(Cells::<Keyed>::new());
        let turn = |cells: &Cells<Keyed>, value| {
            let index = cells.take();
            own(cells, index, value);
            cells.release(index);
        };
        turn(&cells, 0);
        let others = [1, 2].map(|value| {
            let cells = cells.clone();
            spawn(move || turn(&cells, value))
        });
        turn(&cells, 3);
        others.into_iter().for_each(|other| other.join().expect("no panic"));
    });
}

#[test]
fn a_chunk_is_installed_once() {
    check(["chunk_unreleased", "chunk_unacquired", "lost_chunk_kept"], || {
        let cells = Arc::new(Cells::<Keyed>::new());
        let others = [1, 2].map(|value| {
            let cells = cells.clone();
            spawn(move || {
                let index = cells.take();
                own(&cells, index, value);
                index
            })
        });
        let mut taken: Vec<_> = others.into_iter().map(|other| other.join().expect("no panic")).collect();
        taken.push(cells.take());
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
    });
}
