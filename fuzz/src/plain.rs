//! The readers and the consolidation in their plainest form, written from what they promise.

use peakhold::{Encoding, MAX_CHARS, Number, Reason};

/// The code points of a row without those that pad it, or why it is no text.
fn code_points(encoding: Encoding, row: &[u8]) -> Vec<u32> {
    let little = cfg!(target_endian = "little") == (encoding == Encoding::Native);
    let unit = |unit: &[u8]| {
        let unit = [unit[0], unit[1], unit[2], unit[3]];
        if little { u32::from_le_bytes(unit) } else { u32::from_be_bytes(unit) }
    };
    let mut points: Vec<u32> = row.chunks(4).map(unit).collect();
    while points.last() == Some(&0) {
        points.pop();
    }
    points
}

/// The class name in a row whose width suits the encoding.
///
/// # Errors
/// If the row is too long or no text.
pub fn class_name(encoding: Encoding, row: &[u8]) -> Result<String, Reason> {
    let text = if encoding == Encoding::Utf8 {
        let end = row.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        if end > 4 * MAX_CHARS {
            return Err(Reason::ClassNameTooLong);
        }
        str::from_utf8(&row[..end]).map_err(|_| Reason::ClassNameNotText)?.to_owned()
    } else {
        let points = code_points(encoding, row);
        if points.len() > MAX_CHARS {
            return Err(Reason::ClassNameTooLong);
        }
        let text: Option<String> = points.into_iter().map(char::from_u32).collect();
        text.ok_or(Reason::ClassNameSurrogate)?
    };
    if text.chars().count() > MAX_CHARS { Err(Reason::ClassNameTooLong) } else { Ok(text) }
}

/// The whole number that a row holds, if its type has only whole ones.
fn whole(number: Number, row: &[u8], swapped: bool) -> Option<i128> {
    let mut bytes = row[..number.width()].to_vec();
    if swapped {
        bytes.reverse();
    }
    if cfg!(target_endian = "big") {
        bytes.reverse();
    }
    let bits = bytes.iter().rev().fold(0_i128, |bits, &byte| bits << 8 | i128::from(byte));
    let span = 1_i128 << (8 * bytes.len());
    match number {
        Number::Bool => Some(i128::from(bits != 0)),
        Number::U8 | Number::U16 | Number::U32 | Number::U64 => Some(bits),
        Number::I8 | Number::I16 | Number::I32 | Number::I64 => Some(if bits >= span / 2 { bits - span } else { bits }),
        Number::F16 | Number::F32 | Number::F64 => None,
    }
}

/// The value of a float of `bits`, of which `fraction` are its fraction and `exponent` its exponent.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a fraction has 52 bits at most")]
fn float(bits: u64, exponent: u32, fraction: u32) -> f64 {
    let sign = if bits >> (exponent + fraction) & 1 == 1 { -1.0 } else { 1.0 };
    let biased = (bits >> fraction & ((1 << exponent) - 1)) as i32;
    let rest = (bits & ((1 << fraction) - 1)) as f64;
    let (largest, zero) = ((1 << exponent) - 1, (1 << (exponent - 1)) - 1);
    let scale = 2.0_f64.powi(fraction.cast_signed());
    if biased == largest {
        if rest > 0.0 { f64::NAN } else { sign * f64::INFINITY }
    } else if biased == 0 {
        // In two steps: the smallest power of two of an f64 is subnormal itself.
        sign * rest * 2.0_f64.powi(1 - zero) / scale
    } else {
        sign * (1.0 + rest / scale) * 2.0_f64.powi(biased - zero)
    }
}

/// The number in a row.
#[allow(clippy::cast_precision_loss, reason = "rounds to the nearest, as it should")]
#[must_use]
pub fn number(number: Number, row: &[u8], swapped: bool) -> f64 {
    let bits = |unsigned| whole(unsigned, row, swapped).and_then(|bits| u64::try_from(bits).ok()).unwrap_or(0);
    match number {
        Number::F16 => float(bits(Number::U16), 5, 10),
        Number::F32 => float(bits(Number::U32), 8, 23),
        Number::F64 => float(bits(Number::U64), 11, 52),
        number => whole(number, row, swapped).map_or(f64::NAN, |whole| whole as f64),
    }
}

/// The whole number in a row; fractions are cut off, and what is beyond 64 bits is none.
#[allow(clippy::cast_possible_truncation, reason = "its magnitude is less than 2^63")]
#[must_use]
pub fn integer(kind: Number, row: &[u8], swapped: bool) -> Option<i64> {
    if let Some(whole) = whole(kind, row, swapped) {
        return i64::try_from(whole).ok();
    }
    let value = number(kind, row, swapped).trunc();
    (value.abs() < 2.0_f64.powi(63)).then_some(value as i64)
}

/// One detection: model, class name, confidence, inference id.
pub type Detection = (String, String, f64, String);

/// The report of a window, by walking all its detections; `models` are in the order of first sight.
#[must_use]
pub fn report(models: &[String], detections: &[Detection]) -> Vec<Detection> {
    let mut report: Vec<Detection> = Vec::new();
    for model in models {
        for detection in detections.iter().filter(|detection| detection.0 == *model) {
            match report.iter_mut().find(|held| held.1 == detection.1) {
                None => report.push(detection.clone()),
                Some(held) if detection.2 > held.2 => *held = detection.clone(),
                Some(_) => {}
            }
        }
    }
    report
}
