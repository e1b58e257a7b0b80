//! Choices drawn from the bytes that the fuzzer varies.

use peakhold::{Encoding, Number};

const NUMBERS: [Number; 12] = [
    Number::F16,
    Number::F32,
    Number::F64,
    Number::I8,
    Number::I16,
    Number::I32,
    Number::I64,
    Number::U8,
    Number::U16,
    Number::U32,
    Number::U64,
    Number::Bool,
];

/// The bytes that are left; past their end, zeros.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    /// A number below `limit`, which is at most 65,536.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % limit
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn number(&mut self) -> Number {
        NUMBERS[usize::from(self.byte()) % NUMBERS.len()]
    }

    pub fn encoding(&mut self) -> Encoding {
        [Encoding::Native, Encoding::Swapped, Encoding::Utf8][usize::from(self.byte()) % 3]
    }

    /// A piece of the input, repeated until it has `length` bytes: long rows take few bytes to describe.
    pub fn filling(&mut self, length: usize) -> Vec<u8> {
        let (piece, rest) = self.0.split_at(usize::from(self.byte()).min(self.0.len()));
        self.0 = rest;
        let piece = if piece.is_empty() { &[0] } else { piece };
        piece.iter().copied().cycle().take(length).collect()
    }
}
