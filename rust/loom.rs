//! The lock-free parts under a model checker, which tries the interleavings and the stale reads that the memory model allows.
//!
//! `python scripts/test_loom.py` runs the models, then each mutant of the sources (`mutant!` and `ordering!` of [`crate::sync`]), which a
//! model has to catch: so the models are known to see what they are there for. Whoever owns memory touches a cell of the checker in it,
//! so that a race or a use after its end is seen; the checker also follows what was allocated, and values count themselves.
//!
//! # Limitations
//! Three threads at most, as many preemptions as `LOOM_MAX_PREEMPTIONS` says (2 unless set), small chunks and small branches.
//! Tags are not wrapped around, and the allocator's own synchronisation is not used: none of it is needed.
#![allow(unsafe_code)]

use crate::cells::{Cells, Peak};
use crate::peak::{PeakSlot, Raised};
use crate::rotation::Current;
use crate::trie::{Closed, Trie};
use crate::{Aggregator, Confidences, Frame, Names, Reason, Snapshot, Tally, Texts};
use ::loom::cell::UnsafeCell;
use ::loom::thread::spawn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = ::loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// A value that knows how many of its kind live, and whose memory the checker watches to its end.
struct Payload {
    memory: UnsafeCell<u64>,
    live: Arc<AtomicUsize>,
}

impl Payload {
    fn new(value: u64, live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, SeqCst);
        Self { memory: UnsafeCell::new(value), live: live.clone() }
    }

    fn read(&self) -> u64 {
        // SAFETY: written only when the value is made and dropped; the checker fails the model if that is not so.
        self.memory.with(|value| unsafe { *value })
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        // SAFETY: as above.
        self.memory.with_mut(|value| unsafe { *value = u64::MAX });
        self.live.fetch_sub(1, SeqCst);
    }
}

mod cells {
    use super::*;

    /// Writes a cell's peak, as only its owner may.
    fn own(cells: &Cells, index: u32, value: u64) {
        // SAFETY: the caller took the cell; the checker fails the model if another owner touches it.
        cells.get(index).peak.with_mut(|peak| unsafe { (*peak).arrival = value });
    }

    #[test]
    fn a_recycled_cell_has_one_owner() {
        check(|| {
            let cells = Arc::new(Cells::new());
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
        check(|| {
            let cells = Arc::new(Cells::new());
            let turn = |cells: &Cells, value| {
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
        check(|| {
            let cells = Arc::new(Cells::new());
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
}

mod peak {
    use super::*;

    /// A slot and the cells of its window.
    struct Class {
        cells: Cells,
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
        check(|| {
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
        check(|| {
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
        check(|| {
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
        check(|| {
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
        check(|| {
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
}

mod trie {
    use super::*;

    /// Two hashes that share their first digit and differ in the second.
    const NEAR: [u64; 2] = [0b00, 0b10];

    /// A map of payloads, checked for leaks.
    fn with_map(model: impl Fn(&Arc<Trie<Payload>>, &Arc<AtomicUsize>)) {
        let live = Arc::new(AtomicUsize::new(0));
        let map = Arc::new(Trie::new());
        model(&map, &live);
        drop(map);
        assert_eq!(live.load(SeqCst), 0, "a value was never dropped, or twice");
    }

    fn add(map: &Trie<Payload>, hash: u64, key: &[u8], live: &Arc<AtomicUsize>) -> Result<(u64, bool), Closed> {
        let value = key[0].into();
        map.insert(hash, key, Payload::new(value, live)).map(|(value, added)| (value.read(), added))
    }

    #[test]
    fn a_key_first_seen_by_two_is_added_once() {
        check(|| {
            with_map(|map, live| {
                let others = [(), ()].map(|()| {
                    let (map, live) = (map.clone(), live.clone());
                    spawn(move || add(&map, NEAR[0], b"a", &live))
                });
                let found = map.get(NEAR[0], b"a").map(Payload::read);
                assert!(found.is_none_or(|value| value == b'a'.into()));
                let added = others.map(|other| other.join().expect("no panic").expect("open"));
                assert_eq!(usize::from(added[0].1) + usize::from(added[1].1), 1);
                assert!(added.iter().all(|&(value, _)| value == b'a'.into()));
                assert_eq!(live.load(SeqCst), 1);
            });
        });
    }

    #[test]
    fn keys_that_want_one_place_come_apart() {
        check(|| {
            with_map(|map, live| {
                let keys = [(NEAR[0], b"a"), (NEAR[1], b"b"), (NEAR[0], b"c")];
                add(map, keys[2].0, keys[2].1, live).expect("open");
                let others = [keys[0], keys[1]].map(|(hash, key)| {
                    let (map, live) = (map.clone(), live.clone());
                    spawn(move || add(&map, hash, key, &live))
                });
                for other in others {
                    assert!(other.join().expect("no panic").is_ok_and(|(_, added)| added));
                }
                for (hash, key) in keys {
                    assert_eq!(map.get(hash, key).map(Payload::read), Some(key[0].into()));
                }
            });
        });
    }

    #[test]
    fn what_is_not_refused_is_visited() {
        check(|| {
            with_map(|map, live| {
                let others = [(NEAR[0], b"a"), (NEAR[1], b"b")].map(|(hash, key)| {
                    let (map, live) = (map.clone(), live.clone());
                    spawn(move || add(&map, hash, key, &live).is_ok_and(|(_, added)| added).then_some(key[0]))
                });
                let mut visited = Vec::new();
                map.close(|key, value| {
                    assert_eq!(value.read(), key[0].into());
                    visited.push(key[0]);
                });
                let mut added: Vec<_> =
                    others.into_iter().filter_map(|other| other.join().expect("no panic")).collect();
                visited.sort_unstable();
                added.sort_unstable();
                assert_eq!(visited, added);
                assert_eq!(add(map, NEAR[1], b"d", live), Err(Closed));
            });
        });
    }

    #[test]
    fn a_place_that_becomes_a_branch_is_closed_below() {
        check(|| {
            with_map(|map, live| {
                add(map, NEAR[0], b"a", live).expect("open");
                let other = spawn({
                    let (map, live) = (map.clone(), live.clone());
                    move || add(&map, NEAR[1], b"b", &live).is_ok()
                });
                let mut visited = 0;
                map.close(|_, _| visited += 1);
                assert_eq!(visited, 1 + usize::from(other.join().expect("no panic")));
            });
        });
    }
}

mod rotation {
    use super::*;

    /// A value that is replaced, checked for leaks.
    fn with_current(model: impl Fn(&Arc<Current<Payload>>, &Arc<AtomicUsize>)) {
        let live = Arc::new(AtomicUsize::new(0));
        let current = Arc::new(Current::new(Payload::new(0, &live)));
        model(&current, &live);
        assert_eq!(live.load(SeqCst), 1, "a replaced value was never dropped");
        drop(current);
        assert_eq!(live.load(SeqCst), 0, "a value was never dropped, or twice");
    }

    #[test]
    fn a_pinned_value_outlives_its_replacement() {
        check(|| {
            with_current(|current, live| {
                let others = [(), ()].map(|()| {
                    let current = current.clone();
                    spawn(move || {
                        let pin = current.pin();
                        assert!(pin.read() <= 1);
                        assert!(pin.read() <= 1);
                    })
                });
                let replaced = current.replace(Payload::new(1, live));
                assert_eq!(replaced.read(), 0);
                drop(replaced);
                others.into_iter().for_each(|other| other.join().expect("no panic"));
            });
        });
    }

    #[test]
    fn two_drains_replace_different_values() {
        check(|| {
            with_current(|current, live| {
                let observer = spawn({
                    let current = current.clone();
                    move || assert!(current.pin().read() <= 2)
                });
                let drain = spawn({
                    let (current, live) = (current.clone(), live.clone());
                    move || current.replace(Payload::new(1, &live)).read()
                });
                let mine = current.replace(Payload::new(2, live)).read();
                let others = drain.join().expect("no panic");
                observer.join().expect("no panic");
                assert!(matches!((mine, others), (0, 2) | (1, 0)));
            });
        });
    }
}

mod window {
    use super::*;

    struct Id(f64);

    impl Texts for Id {
        fn inference_id(&mut self, _: usize, text: &mut String) -> bool {
            *text = self.0.to_string();
            true
        }

        fn prediction_type(&mut self, _: usize, text: &mut String) -> bool {
            text.clear();
            true
        }
    }

    fn observe(aggregator: &Aggregator, model: &str, class: char, confidence: f64) {
        let names: [Result<Box<[u8]>, Reason>; 1] = [Ok(u32::from(class).to_ne_bytes().into())];
        let confidences = [Ok(confidence)];
        let frame = Frame::new(1, Confidences::Values(&confidences), Names::Texts(&names)).expect("one row each");
        let taken = aggregator.observe(model, &frame, &mut Id(confidence), &mut Tally::default());
        assert_eq!(taken, 1, "a row found no place");
    }

    /// The confidences of a window's peaks by model and class; each peak carries its own id.
    fn peaks(window: &Snapshot) -> Vec<(String, f64)> {
        let line = |line: crate::Representative<'_>| {
            assert_eq!(line.peak.inference_id, line.peak.confidence.to_string());
            (format!("{} {}", line.model_id, line.class_name), line.peak.confidence)
        };
        window.report().into_iter().map(line).collect()
    }

    fn held(windows: &[Snapshot], class: &str, confidence: f64) -> usize {
        let wanted = (class.to_owned(), confidence);
        windows.iter().filter(|window| peaks(window).contains(&wanted)).count()
    }

    #[test]
    fn a_class_first_seen_by_two_keeps_the_greatest() {
        check(|| {
            let aggregator = Arc::new(Aggregator::new(9));
            let others = [0.5, 0.75].map(|confidence| {
                let aggregator = aggregator.clone();
                spawn(move || observe(&aggregator, "m", 'a', confidence))
            });
            others.into_iter().for_each(|other| other.join().expect("no panic"));
            assert_eq!(aggregator.peaks(), 1);
            assert_eq!(peaks(&aggregator.drain()), [("m a".to_owned(), 0.75)]);
        });
    }

    #[test]
    fn two_observers_and_a_drain_lose_nothing() {
        check(|| {
            let aggregator = Arc::new(Aggregator::new(9));
            let others = [0.5, 0.75].map(|confidence| {
                let aggregator = aggregator.clone();
                spawn(move || observe(&aggregator, "m", 'a', confidence))
            });
            let first = aggregator.drain();
            others.into_iter().for_each(|other| other.join().expect("no panic"));
            let windows = [first, aggregator.drain()];
            assert_eq!(held(&windows, "m a", 0.75), 1);
            // The lesser one is in a window of its own, or in that of the greater one.
            assert!(held(&windows, "m a", 0.5) <= 1);
            assert!(aggregator.drain().is_empty());
        });
    }

    #[test]
    fn what_returned_before_a_drain_is_not_in_a_later_one() {
        check(|| {
            let aggregator = Arc::new(Aggregator::new(9));
            let other = spawn({
                let aggregator = aggregator.clone();
                move || {
                    observe(&aggregator, "m", 'a', 0.5);
                    aggregator.drain()
                }
            });
            let mine = aggregator.drain();
            let windows = [mine, other.join().expect("no panic")];
            assert_eq!(held(&windows, "m a", 0.5), 1);
            assert!(aggregator.drain().is_empty());
        });
    }

    #[test]
    fn an_observation_between_two_drains_is_in_one_window() {
        check(|| {
            let aggregator = Arc::new(Aggregator::new(9));
            let observer = spawn({
                let aggregator = aggregator.clone();
                move || observe(&aggregator, "m", 'a', 0.5)
            });
            let drain = spawn({
                let aggregator = aggregator.clone();
                move || aggregator.drain()
            });
            let mine = aggregator.drain();
            observer.join().expect("no panic");
            let windows = [mine, drain.join().expect("no panic"), aggregator.drain()];
            assert_eq!(held(&windows, "m a", 0.5), 1);
        });
    }

    #[test]
    fn three_models_register_while_the_window_turns() {
        check(|| {
            let aggregator = Arc::new(Aggregator::new(9));
            let models = [("one", 'a'), ("two", 'b')];
            let others = models.map(|(model, class)| {
                let aggregator = aggregator.clone();
                spawn(move || observe(&aggregator, model, class, 0.5))
            });
            observe(&aggregator, "three", 'c', 0.5);
            let first = aggregator.drain();
            others.into_iter().for_each(|other| other.join().expect("no panic"));
            let windows = [first, aggregator.drain()];
            for class in ["one a", "two b", "three c"] {
                assert_eq!(held(&windows, class, 0.5), 1);
            }
            assert_eq!(held(&windows[..1], "three c", 0.5), 1);
        });
    }
}
