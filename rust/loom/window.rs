//! Whole windows: every maximum is in exactly one.

use super::{check, check_within};
use crate::{Aggregator, Confidences, Frame, Names, Reason, Representative, Snapshot, Tally, Texts};
use loom::thread::spawn;
use std::sync::Arc;

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
    let line = |line: Representative<'_>| {
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
    check_within(2, ["leaf_unacquired"], || {
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
    check_within(2, ["window_unreleased", "slot_unreleased"], || {
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
    check(["drain_uncounted"], || {
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
fn what_a_thread_remembers_is_not_taken_for_the_next_window() {
    check(["memo_of_another_window"], || {
        let aggregator = Arc::new(Aggregator::new(9));
        let other = spawn({
            let aggregator = aggregator.clone();
            move || [0.5, 0.75].map(|confidence| observe(&aggregator, "m", 'a', confidence))
        });
        let first = aggregator.drain();
        other.join().expect("no panic");
        let windows = [first, aggregator.drain()];
        assert_eq!(held(&windows, "m a", 0.75), 1);
        assert!(aggregator.drain().is_empty());
    });
}

#[test]
fn an_observation_between_two_drains_is_in_one_window() {
    check(["slot_left_open"], || {
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
fn three_models_and_their_classes_register_while_the_window_turns() {
    check_within(1, ["refused_forgotten"], || {
        let aggregator = Arc::new(Aggregator::new(9));
        let other = spawn({
            let aggregator = aggregator.clone();
            move || observe(&aggregator, "two", 'b', 0.5)
        });
        let drain = spawn({
            let aggregator = aggregator.clone();
            move || {
                observe(&aggregator, "three", 'c', 0.5);
                aggregator.drain()
            }
        });
        observe(&aggregator, "one", 'a', 0.5);
        let first = drain.join().expect("no panic");
        other.join().expect("no panic");
        let windows = [first, aggregator.drain()];
        for class in ["one a", "two b", "three c"] {
            assert_eq!(held(&windows, class, 0.5), 1);
        }
        assert_eq!(held(&windows[..1], "three c", 0.5), 1);
    });
}
