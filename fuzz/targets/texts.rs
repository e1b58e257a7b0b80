//! Columns of class names, inference ids and prediction types.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peakhold::{Encoding, fuzzing};
use peakhold_fuzz::input::Input;
use peakhold_fuzz::plain;
use peakhold_fuzz::rows::Rows;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let encoding = input.encoding();
    let width = input.below(5000);
    let rows = Rows::new(&mut input, 8, width);
    let column = rows.column();
    for at in 0..rows.len() {
        let row = column.row(at);
        assert_eq!(row, rows.row(at));
        let (name, text) = (fuzzing::class_name(encoding, row), fuzzing::text(encoding, row));
        // NumPy has no other widths; they must be harmless all the same.
        if encoding == Encoding::Utf8 || width.is_multiple_of(4) {
            let wanted = plain::class_name(encoding, row);
            assert_eq!(text, wanted.clone().ok());
            assert_eq!(name, wanted);
        }
    }
});
