//! The `IRHeader` at the start of a payload: `flag u32, label f32, id u64, id2 u64`, then as many float32
//! labels as `flag` says.

use std::borrow::Cow;
use std::fmt;

use super::framing::Span;
use super::window::Window;
use crate::error::counted;

/// Bytes of the fixed part.
pub const HEADER_SIZE: usize = 24;

/// What a record says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// 0: the label is in `label`. Otherwise the count of `labels`.
    pub flag: u32,
    /// The label if `flag` is 0. Otherwise unused: `MXNet` writes 0 in Python, the first label in C++.
    pub label: f32,
    /// The record's key, in files that follow the convention.
    pub id: u64,
    /// Higher bits of the id; 0 in all known files.
    pub id2: u64,
    /// The labels if `flag` is above 0.
    pub labels: Vec<f32>,
}

/// A payload is too short for its header: its length, and the length that the header needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortPayload {
    length: usize,
    flag: Option<u32>,
}

impl fmt::Display for ShortPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |length: usize| counted(length as u64, "byte");
        match self.flag {
            None => write!(
                f,
                "the record has {}, too few for the {HEADER_SIZE} bytes of an IRHeader; \
                 was it written without recordio.pack?",
                bytes(self.length)
            ),
            Some(flag) => write!(
                f,
                "the IRHeader announces {} (its flag) and the record has only {} left for them; \
                 was it written without recordio.pack?",
                counted(flag.into(), "label"),
                bytes(self.length - HEADER_SIZE)
            ),
        }
    }
}

/// The fixed part with the first labels, read without allocating.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    /// 0: the label is in `label`. Otherwise the count of labels.
    pub flag: u32,
    /// The header's own label field.
    pub label: f32,
    /// The record's key, in files that follow the convention.
    pub id: u64,
    /// Higher bits of the id.
    pub id2: u64,
    /// The first two labels after the fixed part, as far as there are any.
    pub labels: [Option<f32>; 2],
    /// Bytes of the header with its labels; the content follows.
    pub size: usize,
}

/// What [`Fixed::read`] found, and the bytes that it read.
type HeaderAndBytes<'w> = (Result<Fixed, ShortPayload>, Cow<'w, [u8]>);

impl Fixed {
    /// Reads the header of a record, and no more. Also gives its bytes.
    pub fn read<'w>(span: &Span, window: &'w mut Window) -> crate::Result<HeaderAndBytes<'w>> {
        let flag = span.head(window, HEADER_SIZE)?.first_chunk().map_or(0, |flag| u32::from_le_bytes(*flag));
        let bytes = span.head(window, HEADER_SIZE.saturating_add(4 * flag as usize))?;
        Ok((Self::parse(&bytes), bytes))
    }

    /// Reads the fixed part of `payload`, which may end after the header, and checks that its labels are there.
    pub fn parse(payload: &[u8]) -> Result<Self, ShortPayload> {
        let short = ShortPayload { length: payload.len(), flag: None };
        let (fixed, rest) = payload.split_first_chunk::<HEADER_SIZE>().ok_or(short)?;
        let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let flag = word(0);
        let labels = (flag as usize).checked_mul(4).and_then(|bytes| rest.get(..bytes));
        let labels = labels.ok_or(ShortPayload { flag: Some(flag), ..short })?;
        let mut first = labels.chunks_exact(4).map(float);
        Ok(Self {
            flag,
            label: f32::from_bits(word(4)),
            id: long(8),
            id2: long(16),
            labels: [first.next(), first.next()],
            size: HEADER_SIZE + labels.len(),
        })
    }

    /// The label that names the identity: the first of several.
    pub fn first_label(&self) -> f32 {
        self.labels[0].unwrap_or(self.label)
    }

    /// Whether the labels of this header, which was read from `payload`, seem to be those of objects in an image,
    /// as `im2rec` packs them for `ImageDetIter`: the length of this start (2 or more), the length of an object (5
    /// or more), perhaps more numbers, then of each object its class and the left, top, right and bottom of
    /// its box.
    pub fn names_objects(&self, payload: &[u8]) -> bool {
        let [Some(start), Some(object)] = self.labels else { return false };
        let count = self.flag as usize;
        // First what settles nearly all images of identities.
        if count < 7 || start < 2.0 || object < 5.0 || start.fract() != 0.0 || object.fract() != 0.0 {
            return false;
        }
        let (start, object) = (start as usize, object as usize);
        if count <= start || object > count || !(count - start).is_multiple_of(object) {
            return false;
        }
        let objects = payload.get(HEADER_SIZE + 4 * start..self.size).unwrap_or_default();
        objects.chunks_exact(4 * object).any(|object| {
            let edge = |i: usize| float(&object[4 * i..4 * i + 4]);
            edge(1) < edge(3) && edge(2) < edge(4)
        })
    }
}

impl Header {
    /// Reads the header of `payload`. Also returns its size, after which the content starts.
    pub fn parse(payload: &[u8]) -> Result<(Self, usize), ShortPayload> {
        let fixed = Fixed::parse(payload)?;
        let labels = payload.get(HEADER_SIZE..fixed.size).unwrap_or_default();
        let header = Self {
            flag: fixed.flag,
            label: fixed.label,
            id: fixed.id,
            id2: fixed.id2,
            labels: labels.chunks_exact(4).map(float).collect(),
        };
        Ok((header, fixed.size))
    }

    /// Appends the header as `recordio.pack` writes it: flag 0 and the label, or the count of labels, a label
    /// field of 0, and the labels.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let label = if self.labels.is_empty() { self.label } else { 0.0 };
        out.extend_from_slice(&(self.labels.len() as u32).to_le_bytes());
        out.extend_from_slice(&label.to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.id2.to_le_bytes());
        for label in &self.labels {
            out.extend_from_slice(&label.to_le_bytes());
        }
    }

    /// The label that names the identity: the first of several.
    pub fn first_label(&self) -> f32 {
        self.labels.first().copied().unwrap_or(self.label)
    }
}

fn float(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scalar_and_vector_labels() {
        let mut bytes = Vec::new();
        Header { label: 7.0, id: 5, ..Header::default() }.append_to(&mut bytes);
        bytes.extend_from_slice(b"content");
        let (header, size) = Header::parse(&bytes).unwrap();
        assert_eq!((header.flag, header.first_label(), header.id, size), (0, 7.0, 5, 24));

        let mut bytes = Vec::new();
        Header { label: 9.0, labels: vec![3.0, 1.0], ..Header::default() }.append_to(&mut bytes);
        let (header, size) = Header::parse(&bytes).unwrap();
        assert_eq!((header.flag, header.label, header.first_label(), size), (2, 0.0, 3.0, 32));
    }

    #[test]
    fn the_first_label_is_the_arrays_also_where_the_header_repeats_it() {
        let mut bytes = Vec::new();
        Header { labels: vec![3.0, 1.0], ..Header::default() }.append_to(&mut bytes);
        bytes[4..8].copy_from_slice(&3.0_f32.to_le_bytes()); // as the C++ im2rec writes it
        let (header, _) = Header::parse(&bytes).unwrap();
        assert_eq!((header.label, header.first_label()), (3.0, 3.0));
    }

    #[test]
    fn labels_of_objects() {
        let names_objects = |labels: &[f32]| {
            let mut bytes = Vec::new();
            Header { labels: labels.to_vec(), ..Header::default() }.append_to(&mut bytes);
            Fixed::parse(&bytes).unwrap().names_objects(&bytes)
        };
        assert!(names_objects(&[2.0, 5.0, 7.0, 0.1, 0.2, 0.3, 0.4]));
        assert!(names_objects(&[2.0, 6.0, 7.0, 0.1, 0.2, 0.3, 0.4, 0.0, 7.0, 0.5, 0.2, 0.3, 0.4, 0.0]));
        assert!(names_objects(&[4.0, 5.0, 640.0, 480.0, 0.0, 10.0, 20.0, 30.0, 40.0]));
        assert!(!names_objects(&[2.0, 5.0, 7.0, 0.1, 0.2, 0.3, 0.4, 0.5])); // not whole objects
        assert!(!names_objects(&[2.0, 5.0, 7.0, 0.3, 0.2, 0.1, 0.4])); // no box
        assert!(!names_objects(&[1.0, 6.0, 7.0, 0.1, 0.2, 0.3, 0.4]));
        assert!(!names_objects(&[2.0, 5.0]));
        assert!(!names_objects(&[f32::NAN, 5.0, 7.0, 0.1, 0.2, 0.3, 0.4]));
        assert!(!names_objects(&[f32::INFINITY, 1e30, 7.0, 0.1, 0.2, 0.3, 0.4]));
        assert!(!names_objects(&[3.0]));
        // Of as many objects as fit, one must have a box, and all numbers must be whole.
        let two = [2.0, 5.0, 7.0, 0.3, 0.2, 0.1, 0.4, 7.0, 0.1, 0.2, 0.3, 0.4];
        assert!(names_objects(&two) && !names_objects(&two[..11]) && !names_objects(&two[..7]));
        assert!(!names_objects(&[2.5, 5.0, 7.0, 0.1, 0.2, 0.3, 0.4]));
        assert!(!names_objects(&[2.0, 5.5, 7.0, 0.1, 0.2, 0.3, 0.4]));
        assert!(!names_objects(&[2.0, 4.0, 7.0, 0.1, 0.2, 0.3]));
        assert!(
            !names_objects(&[2.0, 4.0, 7.0, 0.1, 0.2, 0.3, 7.0, 0.1, 0.2, 0.3]),
            "objects of four numbers"
        );
        assert!(!names_objects(&[7.0, 5.0, 7.0, 0.1, 0.2, 0.3, 0.4]), "nothing follows");
        assert!(!names_objects(&[8.0, 5.0, 7.0, 0.1, 0.2, 0.3, 0.4]), "it starts after the end");
        assert!(!names_objects(&[2.0, 9.0, 7.0, 0.1, 0.2, 0.3, 0.4]), "an object of more than there are");
        assert!(!names_objects(&[2.0, 5.0, 7.0, 0.1, 0.2, 0.1, 0.4]), "a box of no width");
        assert!(!names_objects(&[2.0, 5.0, 7.0, 0.1, 0.2, 0.3, 0.2]), "a box of no height");
    }

    #[test]
    fn short_payloads_are_named() {
        let message = |bytes: &[u8]| Header::parse(bytes).unwrap_err().to_string();
        assert!(message(b"abc").contains("3 bytes, too few"));
        assert!(message(b"a").contains("1 byte, too few"));
        let mut bytes = [0; 28];
        bytes[0] = 2;
        assert!(message(&bytes).contains("announces 2 labels"));
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(message(&bytes).contains("announces 4,294,967,295 labels"));
    }

    proptest! {
        #[test]
        fn round_trip(
            label in any::<u32>().prop_map(f32::from_bits),
            id: u64,
            id2: u64,
            labels in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..5),
        ) {
            let header = Header { flag: 0, label, id, id2, labels };
            let mut bytes = Vec::new();
            header.append_to(&mut bytes);
            let (read, size) = Header::parse(&bytes).unwrap();
            prop_assert_eq!(size, bytes.len());
            prop_assert_eq!((read.id, read.id2, read.flag as usize), (id, id2, header.labels.len()));
            let mut again = Vec::new();
            read.append_to(&mut again);
            prop_assert_eq!(again, bytes);
        }

        #[test]
        fn any_bytes_parse_or_say_why(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((header, size)) = Header::parse(&bytes) {
                prop_assert!(size <= bytes.len());
                prop_assert_eq!(header.labels.len(), header.flag as usize);
            }
        }
    }
}
