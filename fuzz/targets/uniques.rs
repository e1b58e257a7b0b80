//! Unique rows and unique class ids of a column.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peakhold::{unique_integers, unique_rows};
use peakhold_fuzz::input::Input;
use peakhold_fuzz::plain;
use peakhold_fuzz::rows::Rows;
use std::collections::BTreeSet;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (number, swapped) = (input.number(), input.flag());
    let width = input.below(70);
    let rows = Rows::new(&mut input, 60, width);
    let column = rows.column();
    let mut firsts: Vec<usize> = Vec::new();
    for at in 0..rows.len() {
        if firsts.iter().all(|&first| rows.row(first) != rows.row(at)) {
            firsts.push(at);
        }
    }
    assert_eq!(column.is_uniform(), firsts.len() < 2);
    assert_eq!(unique_rows(&column), firsts);
    if width >= number.width() {
        let read = |at| plain::integer(number, rows.row(at), swapped);
        let wanted: BTreeSet<i64> = (0..rows.len()).filter_map(read).collect();
        assert_eq!(unique_integers(&column, number, swapped), wanted.into_iter().collect::<Vec<_>>());
    }
});
