//! One class's maximum: observers, ties, drains.

use super::check;
use crate::cells::{Cells, Keyed, Peak};
use crate::peak::{PeakSlot, Raised};
use loom::thread::spawn;
use std::sync::Arc;

/// A slot and the cells of its window.
struct Class {
    cells: Cells<Keyed>,
    slot: PeakSlot,
}

impl Class {
    fn shared() -> Arc<Self> {
        Arc::new(Self { cells: Cells::new(), slot: PeakSlot::new() })
    }

    fn raise(&self, confidence: f64, arrival: u64) -> Raised {
        self.slot.raise(&self.cells, confidence, |peak| peak.arrival = arrival)
    }

    fn take(&self) -> Option<(f64, u64)> {
        self.slot.take(&self.cells).map(|Peak { confidence, arrival, .. }| (confidence, arrival))
    }
}

#[test]
fn the_greatest_of_two_observers_stays() {
    check(["slot_unacquired", "slot_unreleased"], || {
        let class = Class::shared();
        let other = spawn({
            let class = class.clone();
            move || [class.raise(0.25, 1), class.raise(0.75, 2)]
        });
        let mine = [class.raise(0.5, 3), class.raise(0.625, 4)];
        let others = other.join().expect("no panic");
        assert_eq!((others[1], class.take()), (Raised::Yes, Some((0.75, 2))));
        assert!(!mine.contains(&Raised::Closed));
    });
}

#[test]
fn among_equals_the_first_published_stays() {
    check(["equal_raises"], || {
        let class = Class::shared();
        let others = [1, 2].map(|arrival| {
            let class = class.clone();
            spawn(move || class.raise(0.5, arrival))
        });
        let raised = others.map(|other| other.join().expect("no panic"));
        let first = match raised {
            [Raised::Yes, Raised::No] => 1,
            [Raised::No, Raised::Yes] => 2,
            both => panic!("one of equals is the peak, not {both:?}"),
        };
        assert_eq!(class.raise(0.5, 3), Raised::No);
        assert_eq!(class.take(), Some((0.5, first)));
    });
}

#[test]
fn an_observation_is_drained_or_turned_away() {
    check(["slot_left_open"], || {
        let class = Class::shared();
        let others = [0.5, 0.75].map(|confidence| {
            let class = class.clone();
            spawn(move || (confidence, class.raise(confidence, 1)))
        });
        let drained = class.take().map_or(0.0, |(confidence, _)| confidence);
        for other in others {
            let (confidence, raised) = other.join().expect("no panic");
            match raised {
                Raised::Yes | Raised::No => assert!(confidence <= drained, "{confidence} was lost"),
                Raised::Closed => assert!(drained.total_cmp(&confidence).is_ne(), "{confidence} is in two windows"),
            }
        }
        assert_eq!(class.take(), None);
        assert_eq!(class.raise(1.0, 2), Raised::Closed);
    });
}

#[test]
fn a_peak_is_drained_once() {
    check(["peak_unacquired"], || {
        let class = Class::shared();
        let observer = spawn({
            let class = class.clone();
            move || class.raise(0.5, 1)
        });
        let drain = spawn({
            let class = class.clone();
            move || class.take()
        });
        let drained = [class.take(), drain.join().expect("no panic")];
        let raised = observer.join().expect("no panic");
        let wanted = usize::from(raised == Raised::Yes);
        assert_eq!(drained.iter().flatten().count(), wanted);
    });
}

#[test]
fn a_cell_recycled_by_another_class_deceives_nobody() {
    check(["key_unacquired", "key_unreleased", "slot_not_read_again"], || {
        let class = Class::shared();
        let elsewhere = Arc::new(PeakSlot::new());
        assert_eq!(class.raise(0.25, 1), Raised::Yes);
        // Displaces the first cell, and fills it again with a greater peak of another class.
        let recycler = spawn({
            let (class, elsewhere) = (class.clone(), elsewhere.clone());
            move || {
                class.raise(0.5, 2);
                elsewhere.raise(&class.cells, 1.0, |peak| peak.arrival = 3);
            }
        });
        assert_eq!(class.raise(0.75, 4), Raised::Yes);
        recycler.join().expect("no panic");
        assert_eq!(class.take(), Some((0.75, 4)));
        assert_eq!(elsewhere.take(&class.cells).map(|peak| peak.arrival), Some(3));
    });
}
