//! Time of the core without Python: frames by size, unique ids, and the drain of a window.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use peakhold::{Aggregator, Tally, unique_rows};
use peakhold_benches::{Columns, OneInference, id_column, inference_ids};
use std::time::Duration;

const CLASSES: u64 = 20;

fn observe(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("observe");
    for rows in [1, 10, 100, 1_000, 10_000] {
        let frames = Columns::several(64, rows, CLASSES);
        let aggregator = Aggregator::default();
        let mut tally = Tally::default();
        let mut next = frames.iter().cycle();
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
            bencher.iter(|| {
                let columns = next.next().expect("a cycle never ends");
                aggregator.observe("bench/1", &columns.frame(), &mut OneInference, &mut tally)
            });
        });
    }
    group.finish();
}

fn unique(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unique_rows");
    for (rows, different) in [(100, 1), (1_000, 1), (1_000, 8)] {
        let ids = inference_ids(rows, different);
        group.bench_function(BenchmarkId::from_parameter(format!("{different} of {rows}")), |bencher| {
            bencher.iter(|| unique_rows(&id_column(&ids)));
        });
    }
    group.finish();
}

fn drain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("drain");
    for classes in [20, 1_000] {
        let columns = Columns::new(10_000, classes, 0);
        let aggregator = Aggregator::default();
        group.bench_function(BenchmarkId::from_parameter(format!("{classes} classes")), |bencher| {
            let fill = || aggregator.observe("bench/1", &columns.frame(), &mut OneInference, &mut Tally::default());
            bencher.iter_batched(fill, |_| aggregator.drain(), BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn configured() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}

criterion_group! { name = benches; config = configured(); targets = observe, unique, drain }
criterion_main!(benches);
