//! Bytes that are read by their offsets, through a buffer that is moved over them.

use std::io;

use crate::error::Location;
use crate::{Error, Result, memory};

/// Where bytes are read by their offsets.
pub trait ReadAt: Sync {
    /// The number of bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on. They lie within the size.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Where the bytes at `offset` are, for errors.
    fn place(&self, offset: u64) -> Location;

    /// An [`Error::Io`] about the bytes at `offset`.
    fn failed(&self, offset: u64, source: io::Error) -> Error {
        Error::Io { location: self.place(offset), source }
    }

    /// Announces that `length` bytes from `offset` on will be read soon.
    fn will_need(&self, _offset: u64, _length: u64) {}
}

impl ReadAt for &[u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let start = offset as usize;
        buffer.copy_from_slice(&self[start..start + buffer.len()]);
        Ok(())
    }

    fn place(&self, offset: u64) -> Location {
        Location { offset: Some(offset), ..Location::default() }
    }
}

/// The first read, and each one after a jump: a header with some labels.
const SMALLEST: usize = 256;
/// The largest read that is not asked for in one piece. What is in the second-level cache is parsed fastest.
const LARGEST: usize = 256 << 10;
/// A gap of at most this many bytes is read over. To copy that many takes about as long as another call.
const NEAR: u64 = 4 << 10;
/// Bytes that are announced at once. Linux reads no more for one announcement.
const ANNOUNCED: u64 = 1 << 20;

/// A stretch of a file in memory, where it was asked for last.
///
/// Each read that follows the one before is twice as large, up to 256 KiB, and one after a jump is small again. So
/// short records are read many at once, and of long ones only the headers.
pub struct Window<'a> {
    source: &'a dyn ReadAt,
    size: u64,
    /// Its first `filled` bytes are those from `start` on.
    buffer: &'a mut Vec<u8>,
    start: u64,
    filled: usize,
    step: usize,
    /// Bytes that the first read is to give, if it can.
    expected: usize,
    /// Up to here the file was announced; `None` if that is somebody else's task.
    announced: Option<u64>,
}

impl<'a> Window<'a> {
    /// A window for a few reads, here and there. What is in the buffer is overwritten.
    pub fn new(source: &'a dyn ReadAt, buffer: &'a mut Vec<u8>) -> Self {
        Self {
            source,
            size: source.size(),
            buffer,
            start: 0,
            filled: 0,
            step: SMALLEST,
            expected: 0,
            announced: None,
        }
    }

    /// A window whose first read is to give `length` bytes, if these are not more than are read at once.
    pub fn expecting(length: usize, source: &'a dyn ReadAt, buffer: &'a mut Vec<u8>) -> Self {
        Self { expected: length, ..Self::new(source, buffer) }
    }

    /// A window that goes through the file, so that what comes next is announced.
    pub fn forward(source: &'a dyn ReadAt, buffer: &'a mut Vec<u8>) -> Self {
        Self { announced: Some(0), ..Self::new(source, buffer) }
    }

    /// The number of bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// `length` bytes from `at` on, or fewer where the file ends.
    #[inline]
    pub fn get(&mut self, at: u64, length: usize) -> Result<&[u8]> {
        let loaded = self.at_least(at, length)?;
        Ok(&loaded[..loaded.len().min(length)])
    }

    /// The bytes from `at` on that are in memory: at least `length`, or all up to the end of the file.
    #[inline]
    pub fn at_least(&mut self, at: u64, length: usize) -> Result<&[u8]> {
        if self.loaded(at).len() < length {
            self.load(at, length)?;
        }
        Ok(self.loaded(at))
    }

    /// As [`get`](Self::get), for the last time.
    pub fn into_bytes(mut self, at: u64, length: usize) -> Result<&'a [u8]> {
        let length = self.get(at, length)?.len();
        let from = at.saturating_sub(self.start) as usize;
        Ok(self.buffer.get(from..from + length).unwrap_or_default()) // nothing after the end of the file
    }

    #[inline]
    fn loaded(&self, at: u64) -> &[u8] {
        let from = at.checked_sub(self.start).map_or(usize::MAX, |from| from as usize);
        self.buffer.get(from..self.filled).unwrap_or_default()
    }

    #[cold]
    fn load(&mut self, at: u64, length: usize) -> Result<()> {
        let left = self.size.saturating_sub(at);
        let least = left.min(length as u64) as usize;
        let kept = self.loaded(at).len();
        if kept >= least {
            return Ok(()); // up to the end of the file
        }
        let end = self.start + self.filled as u64;
        let follows = self.filled > 0 && (self.start..=end + NEAR).contains(&at);
        self.step = if follows { LARGEST.min(2 * self.step) } else { SMALLEST };
        self.buffer.copy_within(self.filled - kept..self.filled, 0);
        (self.start, self.filled) = (at, kept);
        let expected = LARGEST.min(std::mem::take(&mut self.expected));
        let wanted = left.min(least.max(self.step).max(expected) as u64) as usize;
        if self.announced.is_some_and(|until| until < at + wanted as u64) {
            self.source.will_need(at, ANNOUNCED);
            self.announced = Some(at + ANNOUNCED);
        }
        // What goes beyond `least` is a guess, and may hold a block that the disk cannot read.
        self.read_up_to(wanted)
            .or_else(|error| if least < wanted { self.read_up_to(least) } else { Err(error) })
    }

    fn read_up_to(&mut self, wanted: usize) -> Result<()> {
        let at = self.start + self.filled as u64;
        if self.buffer.len() < wanted {
            let where_to = |error: Error| error.with_advice(format!(", {}", self.source.place(at)));
            memory::resize(self.buffer, wanted, 0, "reading one record").map_err(where_to)?;
        }
        if self.filled < wanted {
            self.source.read_at(at, &mut self.buffer[self.filled..wanted])?;
            self.filled = wanted;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    /// Bytes of which a block cannot be read, as on a disk with a bad sector.
    pub(crate) struct BadBlock<'a> {
        pub bytes: &'a [u8],
        pub bad: std::ops::Range<u64>,
        /// Where reads began, and how long they were.
        pub reads: Mutex<Vec<(u64, usize)>>,
    }

    impl<'a> BadBlock<'a> {
        pub fn new(bytes: &'a [u8], bad: std::ops::Range<u64>) -> Self {
            Self { bytes, bad, reads: Mutex::default() }
        }
    }

    impl ReadAt for BadBlock<'_> {
        fn size(&self) -> u64 {
            self.bytes.size()
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            self.reads.lock().unwrap().push((offset, buffer.len()));
            if offset < self.bad.end && self.bad.start < offset + buffer.len() as u64 {
                return Err(self.failed(offset, io::Error::from_raw_os_error(5)));
            }
            self.bytes.read_at(offset, buffer)
        }

        fn place(&self, offset: u64) -> Location {
            Location { file: Some("bad.rec".into()), ..self.bytes.place(offset) }
        }
    }

    #[test]
    fn what_follows_is_read_in_ever_larger_pieces_and_jumps_cost_little() {
        let bytes = vec![1; 8 << 20];
        let source = BadBlock::new(&bytes, 0..0);
        let mut buffer = Vec::new();
        let mut window = Window::new(&source, &mut buffer);
        for at in (0..4 << 20).step_by(64) {
            assert_eq!(window.get(at, 64).unwrap().len(), 64);
        }
        let read = source.reads.lock().unwrap().len();
        assert!(read < 30, "{read} reads");
        for at in (5 << 20..8 << 20).step_by(1 << 15) {
            window.get(at, 32).unwrap();
        }
        let reads = source.reads.lock().unwrap();
        assert_eq!(reads.len(), read + 96);
        assert!(reads[read..].iter().all(|(_, length)| *length == SMALLEST));
    }

    #[test]
    fn a_block_that_cannot_be_read_costs_only_what_is_in_it() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
        let source = BadBlock::new(&bytes, 5000..5001);
        let mut buffer = Vec::new();
        let mut window = Window::new(&source, &mut buffer);
        for at in (0..1 << 16).step_by(100) {
            let got = window.get(at as u64, 100).map(<[u8]>::to_vec);
            match got {
                Ok(got) => assert_eq!(got, bytes[at..(at + 100).min(1 << 16)]),
                Err(error) => {
                    assert_eq!(
                        (at, error.to_string().as_str()),
                        (5000, "bad.rec, offset 5000: Input/output error (os error 5)")
                    );
                }
            }
        }
    }

    #[test]
    fn too_little_memory_is_told_with_the_place() {
        struct Endless;
        impl ReadAt for Endless {
            fn size(&self) -> u64 {
                1 << 62
            }

            fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
                Ok(())
            }

            fn place(&self, offset: u64) -> Location {
                Location { file: Some("a.rec".into()), ..(&[][..]).place(offset) }
            }
        }
        let mut buffer = Vec::new();
        let error = Window::new(&Endless, &mut buffer).get(8, 1 << 50).unwrap_err();
        assert!(matches!(error, Error::Memory { .. }));
        let message = error.to_string();
        assert!(message.starts_with("not enough memory: 1125899.9 GB for reading one record"), "{message}");
        assert!(message.ends_with(", a.rec, offset 8"), "{message}");
    }

    proptest! {
        #[test]
        fn it_gives_the_bytes_of_the_file(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
            requests in prop::collection::vec((0_u64..3100, 0_usize..700), 1..40),
        ) {
            let source = bytes.as_slice();
            let mut buffer = Vec::new();
            let mut window = Window::forward(&source, &mut buffer);
            for (at, length) in requests {
                let rest = &bytes[bytes.len().min(at as usize)..];
                let least = rest.len().min(length);
                prop_assert_eq!(window.get(at, length).unwrap(), &rest[..least]);
                let loaded = window.at_least(at, length).unwrap();
                prop_assert!(loaded.len() >= least && loaded == &rest[..loaded.len()]);
                let mut other = Vec::new();
                let last = Window::new(&source, &mut other).into_bytes(at, length).unwrap();
                prop_assert_eq!(last, &rest[..least]);
            }
        }
    }
}
