//! One class's statistics: additions, drains, a look at the open window.

use super::{check, check_within};
use crate::cells::Cells;
use crate::counter::{Added, Counter, FrameCounts, Numbers};
use loom::thread::spawn;
use std::sync::Arc;

/// A counter and the cells of its window.
struct Class {
    cells: Cells<Numbers>,
    counter: Counter,
}

impl Class {
    fn shared() -> Arc<Self> {
        Arc::new(Self { cells: Cells::new(), counter: Counter::new() })
    }

    /// Adds a frame of one detection.
    fn add(&self, confidence: f64) -> Added {
        let (mut counts, mut spare) = (FrameCounts::new(), None);
        counts.add(confidence);
        let added = self.counter.add(&self.cells, &mut spare, (&counts, 1, true), || true);
        spare.into_iter().for_each(|spare| self.cells.release(spare));
        added
    }

    /// Detections and what they say of the sum, which have to fit together.
    fn totals(statistics: Option<crate::ClassStatistics>) -> u64 {
        let statistics = statistics.unwrap_or_default();
        assert_eq!(statistics.frames, statistics.detections);
        assert_eq!(statistics.sum, statistics.detections << 31);
        assert_eq!(statistics.histogram.iter().sum::<u64>(), statistics.detections);
        statistics.detections
    }

    fn take(&self) -> u64 {
        Self::totals(self.counter.take(&self.cells).expect("there was room"))
    }
}

#[test]
fn additions_of_two_are_all_there() {
    check_within(2, ["lost_addition", "counter_unreleased", "counter_unacquired"], || {
        let class = Class::shared();
        let other = spawn({
            let class = class.clone();
            move || [class.add(0.5), class.add(0.5)]
        });
        let mine = [class.add(0.5), class.add(0.5)];
        let others = other.join().expect("no panic");
        assert_eq!([mine, others], [[Added::Yes; 2]; 2]);
        assert_eq!(class.take(), 4);
    });
}

#[test]
fn an_addition_is_drained_or_turned_away() {
    check(["counter_left_open"], || {
        let class = Class::shared();
        let others = [(); 2].map(|()| {
            let class = class.clone();
            spawn(move || class.add(0.5))
        });
        let drained = class.take();
        let added = others.map(|other| other.join().expect("no panic"));
        assert_eq!(added.into_iter().filter(|&added| added == Added::Yes).count() as u64, drained);
        assert_eq!((class.take(), class.add(0.5)), (0, Added::Closed));
    });
}

#[test]
fn a_look_at_numbers_that_are_recycled_is_repeated() {
    check(["counter_not_read_again"], || {
        let class = Class::shared();
        assert_eq!(class.add(0.5), Added::Yes);
        let other = spawn({
            let class = class.clone();
            move || [class.add(0.5), class.add(0.5), class.add(0.5)]
        });
        let seen = [(); 2].map(|()| Class::totals(class.counter.read(&class.cells)));
        other.join().expect("no panic");
        assert!(seen.is_sorted() && seen.iter().all(|seen| (1..=4).contains(seen)));
        assert_eq!(class.take(), 4);
    });
}
