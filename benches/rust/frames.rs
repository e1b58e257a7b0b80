//! Frames for the benchmarks: columns as `NumPy` holds them, the same in every run.

use peakhold::{Column, Confidences, Encoding, Frame, Names, Number, Texts};

/// Bytes of a class name: eight code points, `<U8`.
pub const NAME_WIDTH: usize = 32;

const CONFIDENCE_WIDTH: usize = size_of::<f32>();
const CLASS_ID_WIDTH: usize = size_of::<u64>();
const ID_WIDTH: usize = 144;

/// The columns of one frame.
pub struct Columns {
    rows: usize,
    names: Vec<u8>,
    confidences: Vec<u8>,
    class_ids: Vec<u8>,
}

impl Columns {
    /// Makes a frame of `rows` detections of `classes` classes; another `seed` is another frame.
    #[must_use]
    pub fn new(rows: usize, classes: u64, seed: u64) -> Self {
        let mut random = Random(seed + 1);
        let mut columns = Self { rows, names: Vec::new(), confidences: Vec::new(), class_ids: Vec::new() };
        for _ in 0..rows {
            let class = random.below(classes);
            columns.names.extend(code_points(&format!("class{class:03}")));
            columns.class_ids.extend(class.to_ne_bytes());
            // A multiple of 2^-20 is exact in an f32.
            let numerator = u16::try_from(random.below(1 << 16)).unwrap_or(u16::MAX);
            columns.confidences.extend((f32::from(numerator) / 65_536.0).to_ne_bytes());
        }
        columns
    }

    /// Makes `count` different frames.
    #[must_use]
    pub fn several(count: u64, rows: usize, classes: u64) -> Vec<Self> {
        (0..count).map(|seed| Self::new(rows, classes, seed)).collect()
    }

    /// The frame with its class ids, as a model makes it.
    #[must_use]
    pub fn frame(&self) -> Frame<'_> {
        self.frame_of_names().with_hints(Column::from_bytes(&self.class_ids, CLASS_ID_WIDTH))
    }

    /// The frame as it is when nobody kept the class ids.
    ///
    /// # Panics
    /// Never: the columns are of one length.
    #[must_use]
    pub fn frame_of_names(&self) -> Frame<'_> {
        let confidences = Confidences::Numbers {
            column: Column::from_bytes(&self.confidences, CONFIDENCE_WIDTH),
            number: Number::F32,
            swapped: false,
        };
        let names = Names::Rows { column: Column::from_bytes(&self.names, NAME_WIDTH), encoding: Encoding::Native };
        Frame::new(self.rows, confidences, names).expect("columns of one length")
    }

    /// Name, as its bytes lie in memory, and confidence of each row.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], f32)> {
        let (confidences, _) = self.confidences.as_chunks::<CONFIDENCE_WIDTH>();
        self.names.chunks_exact(NAME_WIDTH).zip(confidences).map(|(name, bytes)| (name, f32::from_ne_bytes(*bytes)))
    }
}

/// The texts of a frame that one inference made.
pub struct OneInference;

impl OneInference {
    /// Its id.
    pub const ID: &str = "0b8cf2ee-2c4c-4a5c-9f3a-6a3c0e5f7c11";
    /// The type of its predictions.
    pub const TYPE: &str = "object-detection";
}

impl Texts for OneInference {
    fn inference_id(&mut self, _: usize, text: &mut String) -> bool {
        text.clear();
        text.push_str(Self::ID);
        true
    }

    fn prediction_type(&mut self, _: usize, text: &mut String) -> bool {
        text.clear();
        text.push_str(Self::TYPE);
        true
    }
}

/// A column of `rows` inference ids, `different` of them in turn.
#[must_use]
pub fn inference_ids(rows: usize, different: usize) -> Vec<u8> {
    (0..rows).flat_map(|row| code_points(&format!("{:036}", row % different))).collect()
}

/// An id column, borrowed.
#[must_use]
pub fn id_column(ids: &[u8]) -> Column<'_> {
    Column::from_bytes(ids, ID_WIDTH)
}

fn code_points(text: &str) -> Vec<u8> {
    text.chars().flat_map(|character| u32::from(character).to_ne_bytes()).collect()
}

/// Marsaglia's xorshift: the same numbers everywhere, without a dependency.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}
