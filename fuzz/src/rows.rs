//! A column as any array may have it: rows of any width, any distance apart, in either direction, at any address.

use crate::input::Input;
use crate::memory::Guarded;
use peakhold::Column;

/// Longer columns take more time and find nothing else.
const MOST_BYTES: usize = 1 << 16;

/// Rows in guarded memory that they fill from end to end.
pub struct Rows {
    memory: Guarded,
    /// Where the first row begins.
    first: usize,
    stride: isize,
    count: usize,
    width: usize,
}

impl Rows {
    /// Lays out at most `most` rows of `width` bytes as the input says; there are fewer if they are far apart.
    pub fn new(input: &mut Input<'_>, most: usize, width: usize) -> Self {
        let rows = input.below(most + 1);
        Self::exactly(input, rows, width)
    }

    /// Lays out `rows` rows of `width` bytes as the input says, or fewer if they are far apart.
    pub fn exactly(input: &mut Input<'_>, rows: usize, width: usize) -> Self {
        let distance = match input.byte() % 4 {
            0 => width,
            1 => 0,
            2 => width + input.below(64),
            _ => input.below(2 * width + 9),
        };
        let backwards = input.flag();
        let rows = rows.min(1 + MOST_BYTES.saturating_sub(width) / distance.max(1));
        let length = if rows == 0 { 0 } else { distance * (rows - 1) + width };
        let at_end = input.flag();
        let memory = Guarded::new(&input.filling(length), at_end);
        let first = if backwards { length - width.min(length) } else { 0 };
        let stride = if backwards { -distance.cast_signed() } else { distance.cast_signed() };
        Self { memory, first, stride, count: rows, width }
    }

    /// Lays out `rows` rows of `width` bytes one after the other.
    pub fn contiguous(input: &mut Input<'_>, rows: usize, width: usize) -> Self {
        let memory = Guarded::new(&input.filling(rows * width), input.flag());
        Self { memory, first: 0, stride: width.cast_signed(), count: rows, width }
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The rows as the core sees them.
    #[must_use]
    pub fn column(&self) -> Column<'_> {
        // SAFETY: `exactly` has made memory that holds each of the rows, and the column borrows it.
        unsafe {
            let first = self.memory.bytes().as_ptr().add(self.first);
            Column::from_raw(first, self.stride, self.count, self.width)
        }
    }

    /// A row by plain arithmetic.
    ///
    /// # Panics
    /// If the row is not within the memory.
    #[must_use]
    pub fn row(&self, row: usize) -> &[u8] {
        let at = self.first.checked_add_signed(self.stride * row.cast_signed()).expect("within the memory");
        &self.memory.bytes()[at..at + self.width]
    }
}
