//! Class names as they stand in memory, and their one canonical form.
//!
//! A class name may arrive as a fixed-width row of code points (`U`, either byte order), as a fixed-width row of UTF-8 bytes
//! (`S`), or as a string of its own. Its canonical form, which decides identity, is its code points as 32-bit integers in the machine's byte
//! order, without trailing NULs: what most `U` rows hold already, so that these are compared where they lie.

use crate::mutants::mutant;
use crate::reject::Reason;

/// The longest class name, model id, inference id or prediction type that is taken, in characters.
pub const MAX_CHARS: usize = 1024;

/// How a fixed-width column stores text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Code points in the machine's byte order.
    Native,
    /// Code points in the other byte order.
    Swapped,
    /// UTF-8 bytes.
    Utf8,
}

impl Encoding {
    /// The canonical form of a row, in place where it has that form already, else in `buffer`.
    ///
    /// Code points are not checked here; see [`validate`].
    ///
    /// # Errors
    /// If the row is too long or not UTF-8.
    pub(crate) fn canonical<'a>(self, row: &'a [u8], buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Reason> {
        match self {
            Self::Native => limited(without_padding::<4>(row)),
            Self::Swapped => {
                let row = limited(without_padding::<4>(row))?;
                buffer.clear();
                for unit in row.chunks_exact(4) {
                    buffer.extend(unit.iter().rev());
                }
                Ok(buffer)
            }
            Self::Utf8 => {
                let row = without_padding::<1>(row);
                // Four bytes a character at most; the exact count follows.
                if row.len() > 4 * MAX_CHARS {
                    return Err(Reason::ClassNameTooLong);
                }
                // Checked in a copy: another thread may write the array meanwhile, and text that stops being UTF-8
                // after its check is undefined behaviour.
                let text = String::from_utf8(row.to_vec()).map_err(|_| Reason::ClassNameNotText)?;
                buffer.clear();
                push_canonical(&text, buffer);
                limited(buffer)
            }
        }
    }
}

/// Appends the canonical form of `text`.
pub(crate) fn push_canonical(text: &str, buffer: &mut Vec<u8>) {
    for character in text.trim_end_matches('\0').chars() {
        buffer.extend(u32::from(character).to_ne_bytes());
    }
}

/// Checks that a canonical form is text.
///
/// # Errors
/// If a code point is a surrogate or beyond Unicode.
pub(crate) fn validate(canonical: &[u8]) -> Result<(), Reason> {
    let valid = canonical.chunks_exact(4).all(|unit| character(unit).is_some());
    if valid { Ok(()) } else { Err(Reason::ClassNameSurrogate) }
}

/// The text of a canonical form that was validated.
pub(crate) fn text(canonical: &[u8]) -> String {
    canonical.chunks_exact(4).filter_map(character).collect()
}

#[cfg(any(test, feature = "python", feature = "fuzz"))]
/// Reads the text of a fixed-width row of an inference id or prediction type into `text`; `None` if it is unusable.
pub(crate) fn read_text(encoding: Encoding, row: &[u8], text: &mut String) -> Option<()> {
    text.clear();
    match encoding {
        Encoding::Native | Encoding::Swapped => {
            let row = limited(without_padding::<4>(row)).ok()?;
            if encoding == Encoding::Native && push_ascii(row, text) {
                return Some(());
            }
            text.clear();
            text.reserve(row.len() / 4);
            // In a copy, as below: a code point that was valid when it was checked is the one that is used.
            for unit in row.to_vec().as_chunks_mut::<4>().0 {
                if encoding == Encoding::Swapped {
                    unit.reverse();
                }
                text.push(character(unit)?);
            }
        }
        Encoding::Utf8 => {
            let row = without_padding::<1>(row);
            // As above; the exact count follows.
            if row.len() > 4 * MAX_CHARS {
                return None;
            }
            *text = String::from_utf8(row.to_vec()).ok()?;
        }
    }
    (text.len() <= MAX_CHARS || text.chars().count() <= MAX_CHARS).then_some(())
}

/// Appends a canonical form that is ASCII, as ids and types are as good as ever; false if it is not, some of it being appended.
///
/// Many characters at a time, which takes a tenth of the time.
#[cfg(any(test, feature = "python", feature = "fuzz"))]
fn push_ascii(canonical: &[u8], text: &mut String) -> bool {
    const AT_ONCE: usize = 64;
    canonical.as_chunks::<4>().0.chunks(AT_ONCE).all(|units| {
        let (mut bytes, mut bits) = ([0; AT_ONCE], 0);
        for (byte, unit) in bytes.iter_mut().zip(units) {
            let unit = u32::from_ne_bytes(*unit);
            bits |= unit;
            [*byte, ..] = unit.to_le_bytes();
        }
        bits < 0x80 && str::from_utf8(&bytes[..units.len()]).map(|ascii| text.push_str(ascii)).is_ok()
    })
}

fn character(unit: &[u8]) -> Option<char> {
    char::from_u32(u32::from_ne_bytes([unit[0], unit[1], unit[2], unit[3]]))
}

fn limited(canonical: &[u8]) -> Result<&[u8], Reason> {
    if canonical.len() > 4 * MAX_CHARS && !mutant!("misread_length") {
        Err(Reason::ClassNameTooLong)
    } else {
        Ok(canonical)
    }
}

/// The row without the zero units at its end, which pad it to the width of its column.
pub(crate) fn without_padding<const UNIT: usize>(row: &[u8]) -> &[u8] {
    let mut length = row.len();
    while length >= UNIT && row[length - UNIT..length].iter().all(|&byte| byte == 0) {
        length -= UNIT;
    }
    &row[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(text: &str, width: usize) -> Vec<u8> {
        let mut row: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_ne_bytes()).collect();
        row.resize(4 * width, 0);
        row
    }

    #[test]
    fn every_encoding_has_one_canonical_form() {
        let text = "naïve 漢字 🦀";
        let wanted = native(text, text.chars().count());
        let swapped: Vec<u8> = native(text, 20).chunks_exact(4).flat_map(|u| u.iter().rev().copied()).collect();
        let mut utf8 = text.as_bytes().to_vec();
        utf8.resize(50, 0);
        let mut buffer = Vec::new();
        for (encoding, row) in [
            (Encoding::Native, native(text, 13)),
            (Encoding::Native, native(text, 40)),
            (Encoding::Swapped, swapped),
            (Encoding::Utf8, utf8),
        ] {
            assert_eq!(encoding.canonical(&row, &mut buffer), Ok(&wanted[..]), "{encoding:?}");
            let mut read = String::new();
            assert_eq!(read_text(encoding, &row, &mut read), Some(()));
            assert_eq!(read, text);
        }
        assert_eq!((validate(&wanted), super::text(&wanted)), (Ok(()), text.to_owned()));
    }

    #[test]
    fn a_text_is_read_whole_wherever_it_stops_being_ascii() {
        for length in [0, 1, 63, 64, 65, 200] {
            let ascii = "x\0\x7f".repeat(100)[..length].to_owned() + "y";
            for text in [ascii.clone(), ascii.clone() + "\u{80}", ascii.clone() + "é" + &ascii] {
                let mut read = String::from("what was there before");
                assert_eq!(read_text(Encoding::Native, &native(&text, 500), &mut read), Some(()));
                assert_eq!(read, text);
            }
            let mut row = native(&ascii, length + 2);
            row[4 * (length + 1)..].copy_from_slice(&0x0100_0041_u32.to_ne_bytes());
            assert_eq!(
                read_text(Encoding::Native, &row, &mut String::new()),
                None,
                "beyond Unicode, but for its low byte"
            );
        }
    }

    #[test]
    fn a_nul_inside_a_name_is_part_of_it() {
        let mut buffer = Vec::new();
        let row = native("a\0b", 6);
        assert_eq!(Encoding::Native.canonical(&row, &mut buffer), Ok(&native("a\0b", 3)[..]));
    }

    #[test]
    fn what_is_no_text_is_refused_by_reason() {
        let mut buffer = Vec::new();
        assert_eq!(Encoding::Utf8.canonical(b"\xff", &mut buffer), Err(Reason::ClassNameNotText));
        let long = native(&"x".repeat(MAX_CHARS + 1), MAX_CHARS + 1);
        assert_eq!(Encoding::Native.canonical(&long, &mut buffer), Err(Reason::ClassNameTooLong));
        let long = "x".repeat(MAX_CHARS + 1);
        assert_eq!(Encoding::Utf8.canonical(long.as_bytes(), &mut buffer), Err(Reason::ClassNameTooLong));
        assert_eq!(validate(&0xD800_u32.to_ne_bytes()), Err(Reason::ClassNameSurrogate));
        assert_eq!(validate(&0x0011_0000_u32.to_ne_bytes()), Err(Reason::ClassNameSurrogate));
    }
}
