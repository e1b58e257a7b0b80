//! One hot path on fixed input, for callgrind to count: `counts NAME` prints how many times `measured` was entered.
//!
//! `scripts/bench_check.py` builds this with fixed hash seeds and runs it under valgrind, collecting inside `measured` alone.

use peakhold::{Aggregator, Frame, Tally, unique_rows};
use peakhold_benches::{Columns, OneInference, id_column, inference_ids};
use std::hint::black_box;
use std::process::ExitCode;

const CLASSES: u64 = 20;
const FRAMES: u64 = 64;
const DRAINS: u32 = 16;

/// What callgrind collects in; not inlined, so that there is a function to name.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// Observes frames of some models in turn into a window that has seen them once, as all but the first second of a stream is.
fn observe(rows: usize, frame: fn(&Columns) -> Frame<'_>, models: usize) -> u64 {
    observe_into(&Aggregator::default(), rows, frame, models)
}

/// Likewise, into a window that counts frames and detections.
fn count(rows: usize) -> u64 {
    observe_into(&Aggregator::default().with_statistics(), rows, Columns::frame, 1)
}

fn observe_into(aggregator: &Aggregator, rows: usize, frame: fn(&Columns) -> Frame<'_>, models: usize) -> u64 {
    let frames = Columns::several(FRAMES, rows, CLASSES);
    let models = ["bench/1", "bench/2", "bench/3", "bench/4"].iter().take(models).cycle();
    let mut tally = Tally::default();
    let mut each = |columns: &Columns, model| aggregator.observe(model, &frame(columns), &mut OneInference, &mut tally);
    for (columns, model) in frames.iter().zip(models.clone()) {
        assert_eq!(each(columns, model), rows);
    }
    for (columns, model) in frames.iter().zip(models) {
        assert_eq!(measured(|| each(columns, model)), rows);
    }
    FRAMES
}

fn unique(rows: usize, different: usize) -> u64 {
    let ids = inference_ids(rows, different);
    for _ in 0..FRAMES {
        assert_eq!(measured(|| unique_rows(&id_column(&ids))).len(), different.min(rows));
    }
    FRAMES
}

fn drain() -> u64 {
    let columns = Columns::new(1_000, CLASSES, 0);
    let aggregator = Aggregator::default();
    for _ in 0..DRAINS {
        aggregator.observe("bench/1", &columns.frame(), &mut OneInference, &mut Tally::default());
        assert_eq!(measured(|| aggregator.drain()).len(), 20);
    }
    DRAINS.into()
}

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let entered = match name.as_str() {
        "observe_10" => observe(10, Columns::frame, 1),
        "observe_10_of_four_models" => observe(10, Columns::frame, 4),
        "observe_100" => observe(100, Columns::frame, 1),
        "observe_1000" => observe(1_000, Columns::frame, 1),
        "observe_1000_names_alone" => observe(1_000, Columns::frame_of_names, 1),
        "observe_10_with_statistics" => count(10),
        "observe_100_with_statistics" => count(100),
        "observe_1000_with_statistics" => count(1_000),
        "unique_rows_one_of_100" => unique(100, 1),
        "unique_rows_8_of_1000" => unique(1_000, 8),
        "unique_rows_1000_of_1000" => unique(1_000, 1_000),
        "drain_20_classes" => drain(),
        _ => {
            eprintln!("counts: no hot path is called {name:?}");
            return ExitCode::from(2);
        }
    };
    println!("{entered}");
    ExitCode::SUCCESS
}
