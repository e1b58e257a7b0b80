//! Columns of confidences and class ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peakhold::fuzzing;
use peakhold_fuzz::input::Input;
use peakhold_fuzz::plain;
use peakhold_fuzz::rows::Rows;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (number, swapped) = (input.number(), input.flag());
    let width = number.width() + input.below(9);
    let rows = Rows::new(&mut input, 40, width);
    let column = rows.column();
    for at in 0..rows.len() {
        let found = fuzzing::number(column.row(at), number, swapped);
        let wanted = plain::number(number, rows.row(at), swapped);
        assert!(found.to_bits() == wanted.to_bits() || (found.is_nan() && wanted.is_nan()), "{found} for {wanted}");
        let found = fuzzing::integer(column.row(at), number, swapped);
        assert_eq!(found, plain::integer(number, rows.row(at), swapped));
    }
});
