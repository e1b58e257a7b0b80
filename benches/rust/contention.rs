//! Threads that observe into one window at once: peakhold, a map behind a mutex, and a map in sixteen shards.
//!
//! Each contender keeps the greatest confidence of every class with its inference id, and is checked before it is timed. The maps
//! hash as fast as peakhold does. A frame's time is wall time, so that a machine with fewer cores than threads shows in it.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use foldhash::fast::RandomState;
use peakhold::{Aggregator, Tally};
use peakhold_benches::{Columns, NAME_WIDTH, OneInference};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const CLASSES: u64 = 20;
const ROWS: usize = 100;
const SHARDS: usize = 16;

type Name = [u8; NAME_WIDTH];
type Peak = (f32, String);

/// Something that frames of several threads go into.
trait Window: Sync {
    fn observe(&self, columns: &Columns);
    /// The peaks by class name, and an end to the window.
    fn drain(self) -> BTreeMap<String, f64>;
}

impl Window for Aggregator {
    fn observe(&self, columns: &Columns) {
        Aggregator::observe(self, "bench/1", &columns.frame(), &mut OneInference, &mut Tally::default());
    }

    fn drain(self) -> BTreeMap<String, f64> {
        let snapshot = Aggregator::drain(&self);
        snapshot.report().iter().map(|line| (line.class_name.to_owned(), line.peak.confidence)).collect()
    }
}

impl Window for Mutex<HashMap<Name, Peak, RandomState>> {
    fn observe(&self, columns: &Columns) {
        let mut peaks = self.lock().expect("no observer panics");
        for (name, confidence) in columns.rows() {
            let peak = peaks.entry(key(name)).or_insert((f32::NEG_INFINITY, String::new()));
            raise(peak, confidence);
        }
    }

    fn drain(self) -> BTreeMap<String, f64> {
        let peaks = self.into_inner().expect("no observer panicked");
        peaks.into_iter().map(|(name, peak)| (text(&name), peak.0.into())).collect()
    }
}

impl Window for DashMap<Name, Peak, RandomState> {
    fn observe(&self, columns: &Columns) {
        for (name, confidence) in columns.rows() {
            let mut peak = self.entry(key(name)).or_insert((f32::NEG_INFINITY, String::new()));
            raise(&mut peak, confidence);
        }
    }

    fn drain(self) -> BTreeMap<String, f64> {
        self.into_iter().map(|(name, peak)| (text(&name), peak.0.into())).collect()
    }
}

fn key(name: &[u8]) -> Name {
    name.try_into().expect("names of one width")
}

fn text(name: &Name) -> String {
    name.as_chunks::<4>().0.iter().filter_map(|unit| char::from_u32(u32::from_ne_bytes(*unit))).collect()
}

fn raise(peak: &mut Peak, confidence: f32) {
    if confidence > peak.0 {
        peak.0 = confidence;
        peak.1.clear();
        peak.1.push_str(OneInference::ID);
    }
}

/// The time in which each of `threads` threads observes `frames` frames.
fn time(window: &impl Window, columns: &[Columns], threads: usize, frames: u64) -> Duration {
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        for thread in 0..threads {
            let start = &start;
            // Each begins elsewhere, so that the threads do not march in step.
            let mine = columns.iter().cycle().skip(thread * 7);
            scope.spawn(move || {
                start.wait();
                for (columns, _) in mine.zip(0..frames) {
                    window.observe(columns);
                }
            });
        }
        start.wait();
        Instant::now()
    })
    .elapsed()
}

fn check(window: impl Window, columns: &[Columns]) {
    let mut wanted = BTreeMap::new();
    for (name, confidence) in columns.iter().flat_map(Columns::rows) {
        let peak = wanted.entry(text(&key(name))).or_insert(f64::NEG_INFINITY);
        *peak = peak.max(confidence.into());
    }
    time(&window, columns, 4, columns.len() as u64);
    assert_eq!(window.drain(), wanted, "a contender that is wrong has no time");
}

fn compare<W: Window>(criterion: &mut Criterion, columns: &[Columns], name: &str, make: impl Fn() -> W) {
    check(make(), columns);
    let mut group = criterion.benchmark_group(format!("contention/{name}"));
    for threads in [1, 2, 4, 8] {
        let window = make();
        group.throughput(Throughput::Elements(threads as u64));
        group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
            bencher.iter_custom(|frames| time(&window, columns, threads, frames));
        });
    }
    group.finish();
}

fn contention(criterion: &mut Criterion) {
    let columns = Columns::several(64, ROWS, CLASSES);
    compare(criterion, &columns, "peakhold", Aggregator::default);
    compare(criterion, &columns, "mutex", || Mutex::new(HashMap::<Name, Peak, RandomState>::default()));
    compare(criterion, &columns, "sharded", || {
        DashMap::<Name, Peak, RandomState>::with_hasher_and_shard_amount(RandomState::default(), SHARDS)
    });
}

fn configured() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}

criterion_group! { name = benches; config = configured(); targets = contention }
criterion_main!(benches);
