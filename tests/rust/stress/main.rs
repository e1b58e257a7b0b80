//! Observers and drains on one aggregator for many observations: the totals are conserved, and every maximum is in one window.
//!
//! `make test-stress` runs it with a hundred million observations, valgrind with few, `cargo test` with something in between:
//! `PEAKHOLD_STRESS_OBSERVATIONS` says how many.

mod flaws;

use peakhold::{
    Aggregator, Column, Confidences, Encoding, Frame, Names, Number, Reason, Rejections, Snapshot, Tally, Texts,
};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const OBSERVERS: usize = 3;
const DRAINS: usize = 2;
/// Classes that all observers share; each has one of its own besides.
const SHARED: usize = 8;
/// Detections per frame: many small frames, which meet, and some large ones, which count.
const FRAMES: [usize; 12] = [1, 1, 8, 1, 512, 1, 8, 1, 64, 1, 8, 512];
/// Different confidences of an observer's own class: few enough for ties.
const STEPS: u32 = 1 << 12;

fn observations() -> usize {
    let wanted = std::env::var("PEAKHOLD_STRESS_OBSERVATIONS");
    wanted.map_or(if cfg!(miri) { 3_000 } else { 2_000_000 }, |wanted| wanted.parse().expect("a number"))
}

/// A peak as a drain found it: its class, who observed it in which frame and row, and its confidence.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    class: String,
    observer: usize,
    frame: usize,
    row: usize,
    confidence: f64,
}

/// What an observer did.
#[derive(Clone)]
struct Observer {
    observed: usize,
    taken: usize,
    not_numbers: usize,
    /// The confidence of its own class in each frame; NaN if it was none.
    own: Vec<f64>,
    /// The greatest confidence of each shared class.
    greatest: [f64; SHARED],
}

#[derive(Clone)]
struct Run {
    observers: Vec<Observer>,
    /// The peaks of all drained windows.
    found: Vec<Found>,
    /// Frames, and detections, that their statistics have.
    counted: [u64; 2],
}

/// The inference ids of a frame's rows.
struct Ids {
    observer: usize,
    frame: usize,
}

impl Texts for Ids {
    fn inference_id(&mut self, row: usize, text: &mut String) -> bool {
        *text = format!("{} {} {row}", self.observer, self.frame);
        true
    }

    fn prediction_type(&mut self, _: usize, text: &mut String) -> bool {
        text.clear();
        true
    }
}

/// Quick and well mixed (Marsaglia's xorshift).
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// Row 0 holds the observer's own class, the others the shared ones in turn.
fn names(observer: usize, rows: usize) -> Vec<u8> {
    let name = |row: usize| if row == 0 { format!("own {observer}") } else { format!("all {}", row % SHARED) };
    let row = |row| {
        let mut bytes: Vec<u8> = name(row).chars().flat_map(|c| u32::from(c).to_ne_bytes()).collect();
        bytes.resize(4 * 6, 0);
        bytes
    };
    (0..rows).flat_map(row).collect()
}

fn observe(aggregator: &Aggregator, observer: usize, observations: usize) -> Observer {
    let mut random = 0x9E37_79B9_7F4A_7C15 ^ (observer as u64 + 1);
    let names = names(observer, 512);
    let mut values = vec![0; 8 * 512];
    let mut tally = Tally::default();
    let mut done = Observer { observed: 0, taken: 0, not_numbers: 0, own: Vec::new(), greatest: [-1.0; SHARED] };
    for (frame, rows) in FRAMES.into_iter().cycle().enumerate() {
        if done.observed >= observations {
            break;
        }
        for (row, value) in values.as_chunks_mut::<8>().0[..rows].iter_mut().enumerate() {
            let bits = next(&mut random);
            let step = u32::try_from(bits >> 32).expect("half of it");
            let confidence = match row {
                _ if bits.is_multiple_of(64) => f64::NAN,
                0 => f64::from(step % STEPS),
                _ => f64::from(step),
            };
            *value = confidence.to_ne_bytes();
            if row == 0 {
                done.own.push(confidence);
            } else {
                let greatest = &mut done.greatest[row % SHARED];
                *greatest = greatest.max(confidence);
            }
        }
        let column = Column::from_bytes(&values[..8 * rows], 8);
        let confidences = Confidences::Numbers { column, number: Number::F64, swapped: false };
        let column = Column::from_bytes(&names[..4 * 6 * rows], 4 * 6);
        let names = Names::Rows { column, encoding: Encoding::Native };
        let frame_of_rows = Frame::new(rows, confidences, names).expect("columns of one length");
        done.taken += aggregator.observe("m", &frame_of_rows, &mut Ids { observer, frame }, &mut tally);
        done.observed += rows;
    }
    let rejections = Rejections::default();
    rejections.add(&tally, |_| ());
    for (reason, rows) in rejections.counts() {
        match reason {
            Reason::ConfidenceNan => done.not_numbers = usize::try_from(rows).expect("few"),
            reason => assert_eq!(reason, Reason::ConfidenceOutOfRange),
        }
    }
    done
}

fn found(window: &Snapshot) -> impl Iterator<Item = Found> {
    window.report().into_iter().map(|line| {
        let id: Vec<usize> = line.peak.inference_id.split(' ').map(|part| part.parse().expect("a number")).collect();
        let &[observer, frame, row] = &id[..] else { panic!("ids have three parts") };
        Found { class: line.class_name.to_owned(), observer, frame, row, confidence: line.peak.confidence }
    })
}

/// Frames and detections in the statistics of a window.
fn counted(window: &Snapshot) -> [u64; 2] {
    let statistics = window.statistics();
    let classes = statistics.models.values().flatten().map(|(_, class)| class);
    let detections = classes.inspect(|class| assert_eq!(class.histogram.iter().sum::<u64>(), class.detections));
    [statistics.frames, detections.map(|class| class.detections).sum()]
}

fn run(observations: usize) -> Run {
    let aggregator = Aggregator::default().with_statistics();
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let drains = [(); DRAINS].map(|()| {
            scope.spawn(|| {
                let (mut all, mut sums) = (Vec::new(), [0; 2]);
                while !finished.load(Ordering::Acquire) {
                    add(&aggregator.drain(), &mut all, &mut sums);
                    std::thread::sleep(Duration::from_micros(50));
                }
                (all, sums)
            })
        });
        let aggregator = &aggregator;
        let observers: Vec<_> = (0..OBSERVERS)
            .map(|observer| scope.spawn(move || observe(aggregator, observer, observations / OBSERVERS)))
            .collect();
        let observers = observers.into_iter().map(|observer| observer.join().expect("no panic")).collect();
        finished.store(true, Ordering::Release);
        let (mut all, mut sums) = (Vec::new(), [0; 2]);
        for (peaks, counted) in drains.map(|drain| drain.join().expect("no panic")) {
            all.extend(peaks);
            (sums[0], sums[1]) = (sums[0] + counted[0], sums[1] + counted[1]);
        }
        add(&aggregator.drain(), &mut all, &mut sums);
        Run { observers, found: all, counted: sums }
    })
}

fn add(window: &Snapshot, peaks: &mut Vec<Found>, sums: &mut [u64; 2]) {
    peaks.extend(found(window));
    let counted = counted(window);
    (sums[0], sums[1]) = (sums[0] + counted[0], sums[1] + counted[1]);
}

/// Checks that every row was taken or counted, and that the windows hold each maximum once.
fn check(run: &Run) -> Result<(), String> {
    let mut seen = HashSet::new();
    if let Some(twice) = run.found.iter().find(|found| !seen.insert((found.observer, found.frame, found.row))) {
        return Err(format!("in two windows: {twice:?}"));
    }
    let taken: usize = run.observers.iter().map(|observer| observer.taken).sum();
    let frames: usize = run.observers.iter().map(|observer| observer.own.len()).sum();
    if run.counted != [frames as u64, taken as u64] {
        return Err(format!("{:?} in the statistics of {frames} frames and {taken} rows", run.counted));
    }
    for (number, observer) in run.observers.iter().enumerate() {
        if observer.taken + observer.not_numbers != observer.observed {
            return Err(format!("{} of {} rows of {number}", observer.taken + observer.not_numbers, observer.observed));
        }
        check_own(number, &observer.own, run)?;
    }
    for class in 0..SHARED {
        let greatest = run.observers.iter().map(|observer| observer.greatest[class]).fold(-1.0, f64::max);
        let name = format!("all {class}");
        let of_class = run.found.iter().filter(|found| found.class == name).map(|found| found.confidence);
        if of_class.fold(-1.0, f64::max).total_cmp(&greatest).is_ne() {
            return Err(format!("the greatest of class {class} is lost"));
        }
    }
    Ok(())
}

/// Checks that the windows' peaks of an observer's own class account for all that it observed.
///
/// Its frames followed each other, so each window has a run of them; the first of its greatest is the peak. Hence between two
/// peaks there is a frame up to which none is greater than the earlier peak, and from which on all are less than the later one.
fn check_own(number: usize, own: &[f64], run: &Run) -> Result<(), String> {
    let name = format!("own {number}");
    let mut peaks: Vec<&Found> = run.found.iter().filter(|found| found.class == name).collect();
    peaks.sort_by_key(|found| found.frame);
    let mut begin = 0;
    let mut earlier = f64::NEG_INFINITY;
    for peak in peaks {
        if own[peak.frame].total_cmp(&peak.confidence).is_ne() || peak.observer != number || peak.row != 0 {
            return Err(format!("a peak with the id of another: {peak:?}"));
        }
        let between = own[begin..peak.frame].iter().filter(|confidence| !confidence.is_nan());
        if let Some(lost) = between.skip_while(|&&confidence| confidence <= earlier).find(|&&c| c >= peak.confidence) {
            return Err(format!("a detection of {lost} before {peak:?} is lost"));
        }
        (begin, earlier) = (peak.frame + 1, peak.confidence);
    }
    match own[begin..].iter().find(|&&confidence| confidence > earlier) {
        Some(lost) => Err(format!("a detection of {lost} at the end is lost")),
        None => Ok(()),
    }
}

#[test]
fn totals_are_conserved_and_every_maximum_is_in_one_window() {
    let run = run(observations());
    assert_eq!(check(&run), Ok(()));
    let sum = |count: fn(&Observer) -> usize| run.observers.iter().map(count).sum::<usize>();
    println!(
        "{} observations = {} taken + {} that were no numbers; {} peaks drained",
        sum(|observer| observer.observed),
        sum(|observer| observer.taken),
        sum(|observer| observer.not_numbers),
        run.found.len(),
    );
}

#[test]
fn a_run_that_loses_or_repeats_anything_is_noticed() {
    let run = run(observations().min(20_000));
    assert_eq!(check(&run), Ok(()));
    let mut spoilt = run.clone();
    spoilt.observers[0].taken -= 1;
    assert!(check(&spoilt).is_err(), "a row that is missing");
    let mut spoilt = run.clone();
    spoilt.found.push(run.found[0].clone());
    assert!(check(&spoilt).is_err(), "a peak in two windows");
    for number in 0..2 {
        let mut spoilt = run.clone();
        spoilt.counted[number] -= 1;
        assert!(check(&spoilt).is_err(), "a frame or a row that is not counted");
    }
    for class in ["own 0", "all 1"] {
        let of_class = || run.found.iter().filter(|found| found.class == class).map(|found| found.confidence);
        let greatest = of_class().fold(-1.0, f64::max);
        let mut spoilt = run.clone();
        spoilt.found.retain(|found| found.class != class || found.confidence < greatest);
        assert!(check(&spoilt).is_err(), "a maximum that is missing");
    }
}
