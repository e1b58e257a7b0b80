//! Many threads on one aggregator: nothing is lost, nothing is counted twice.

use crate::support::{Row, observe};
use peakhold::{Aggregator, Snapshot, Tally};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

const THREADS: usize = 4;

fn drained_while(aggregator: &Aggregator, observers: impl Fn(usize) + Sync) -> Vec<Snapshot> {
    let done = AtomicBool::new(false);
    let mut windows = std::thread::scope(|scope| {
        let drain = scope.spawn(|| {
            let mut windows = Vec::new();
            while !done.load(Ordering::Acquire) {
                windows.push(aggregator.drain());
            }
            windows
        });
        let running: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let observers = &observers;
                    move || observers(thread)
                })
            })
            .collect();
        for thread in running {
            thread.join().expect("an observer panicked");
        }
        done.store(true, Ordering::Release);
        drain.join().expect("the drain panicked")
    });
    windows.push(aggregator.drain());
    windows
}

#[test]
fn every_class_lands_in_exactly_one_window() {
    let aggregator = Aggregator::default();
    let frames = if cfg!(miri) { 5 } else { 3_000 };
    let windows = drained_while(&aggregator, |thread| {
        for frame in 0..frames {
            // Names that occur once: each must be drained once.
            let rows: Vec<Row> = (0..3).map(|row| (format!("{thread} {frame} {row}"), 0.5, String::new())).collect();
            let model = format!("model {}", frame % 3);
            assert_eq!(observe(&aggregator, &model, &rows, 20, &mut Tally::default()), 3);
        }
    });
    let mut seen: HashMap<String, usize> = HashMap::new();
    for window in &windows {
        for line in window.report() {
            *seen.entry(line.class_name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), THREADS * frames * 3);
    assert!(seen.values().all(|&windows| windows == 1));
}

#[test]
fn the_greatest_confidence_of_each_class_survives_all_drains() {
    let aggregator = Aggregator::default();
    let frames = if cfg!(miri) { 10_u32 } else { 20_000 };
    let value = |thread: usize, frame: u32| f64::from(frame) + f64::from(u32::try_from(thread).expect("few")) / 8.0;
    let windows = drained_while(&aggregator, |thread| {
        for frame in 0..frames {
            let id = format!("{thread} {frame}");
            let rows = [("a", id.clone()), ("b", id)].map(|(class, id)| (class.to_owned(), value(thread, frame), id));
            observe(&aggregator, "m", &rows, 1, &mut Tally::default());
        }
    });
    let mut all = Snapshot::default();
    for window in windows {
        for line in window.report() {
            let (thread, frame) = line.peak.inference_id.split_once(' ').expect("ids have two parts");
            let wanted = value(thread.parse().expect("a thread"), frame.parse().expect("a frame"));
            assert_eq!(line.peak.confidence.to_bits(), wanted.to_bits(), "a peak carries its own id");
        }
        all.merge(window);
    }
    let greatest = value(THREADS - 1, frames - 1);
    let report: Vec<_> = all.report().iter().map(|line| (line.class_name.to_owned(), line.peak.confidence)).collect();
    assert_eq!(report, [("a".to_owned(), greatest), ("b".to_owned(), greatest)]);
}

#[test]
fn what_was_observed_before_a_drain_is_in_it() {
    let aggregator = Aggregator::default();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            // Others observe the same class, always lower, and so hold its slot busy.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    observe(&aggregator, "m", &[("a".to_owned(), 0.25, String::new())], 1, &mut Tally::default());
                }
            });
        }
        for _ in 0..if cfg!(miri) { 20 } else { 20_000 } {
            observe(&aggregator, "m", &[("a".to_owned(), 0.5, "mine".to_owned())], 1, &mut Tally::default());
            let window = aggregator.drain();
            assert_eq!(window.report().first().map(|line| line.peak.inference_id.as_str()), Some("mine"));
        }
        stop.store(true, Ordering::Relaxed);
    });
}
