//! The markers of a JPEG, checked before it is decoded.
//!
//! A decoder for viewing pictures continues after damage and fills missing parts with grey. Here, everything
//! that the markers can prove wrong is an error: a cut-off end, a missing scan, a restart marker out of
//! order, a size in the header for which there are too few bytes. Sections in brackets are those of ITU-T
//! T.81.

use crate::image::{Fault, Size};

mod frame;

use frame::Frame;

/// No encoder writes more scans than this: 10 are usual, and the default of libjpeg for four inks has 18. Each
/// is a pass over the image, for as little as 15 bytes of the file.
pub const MAX_SCANS: usize = 100;

/// What the decoder and its caller need to know about the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The stored size, before the EXIF orientation is applied.
    pub size: Size,
    /// 1 for gray, 3 for colour, 4 for inks.
    pub components: usize,
    /// Sampling factors of each component, horizontal and vertical.
    sampling: Vec<(usize, usize)>,
}

impl Layout {
    /// The factors by which each component is smaller than the image, horizontally and vertically.
    pub fn factors(&self) -> Result<Vec<(usize, usize)>, Fault> {
        let max_h = self.sampling.iter().map(|factors| factors.0).max().unwrap_or(1);
        let max_v = self.sampling.iter().map(|factors| factors.1).max().unwrap_or(1);
        let whole =
            |&(h, v): &(usize, usize)| (max_h % h == 0 && max_v % v == 0).then_some((max_h / h, max_v / v));
        let factors: Option<_> = self.sampling.iter().map(whole).collect();
        factors.ok_or_else(|| unsupported("a JPEG of fractional sampling factors"))
    }

    /// Checks the markers of `jpeg`, which starts with SOI, of an image of at most `max_pixels`.
    pub fn read(jpeg: &[u8], max_pixels: usize) -> Result<Self, Fault> {
        let mut reader = Reader { jpeg, at: 2 };
        let mut frame: Option<Frame> = None;
        let mut restart_interval = 0;
        let mut scans = 0;
        loop {
            match reader.marker()? {
                0xd9 => break, // EOI; decoders ignore what follows
                0xdd => restart_interval = usize::from(word(reader.segment()?, 0)?),
                0xda => {
                    let frame = frame.as_mut().ok_or_else(|| broken("pixels before the frame header"))?;
                    let scan = frame.start_scan(reader.segment()?)?;
                    scans += 1;
                    if scans > MAX_SCANS {
                        return Err(unsupported(format!("a JPEG of more than {MAX_SCANS} scans")));
                    }
                    // The decoder takes it for granted that the codes end at the restart marker.
                    if frame.arithmetic && (1..scan.units).contains(&restart_interval) {
                        return Err(unsupported("a JPEG of arithmetic codes with restart markers"));
                    }
                    reader.scan(restart_interval, scan.units)?;
                }
                kind @ (0xc0..=0xc2 | 0xc9 | 0xca) => {
                    let header = Frame::read(kind, reader.segment()?, jpeg.len(), max_pixels)?;
                    if frame.replace(header).is_some() {
                        return Err(broken("two frame headers"));
                    }
                }
                0xc3 | 0xcb => return Err(unsupported("lossless JPEG")),
                0xc5..=0xc7 | 0xcd..=0xcf => return Err(unsupported("hierarchical JPEG")),
                0xc4 => check_huffman(reader.segment()?)?,
                0xcc => check_conditioning(reader.segment()?)?,
                0xdb | 0xdc | 0xe0..=0xef | 0xfe => {
                    reader.segment()?;
                }
                marker => return Err(broken(format!("marker ff {marker:02x} where none is allowed"))),
            }
        }
        frame.ok_or_else(|| broken("it has no frame header"))?.finish()
    }
}

struct Reader<'a> {
    jpeg: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = self.jpeg.get(self.at).copied().ok_or_else(cut_off)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next marker, after any number of fill bytes [B.1.1.2].
    fn marker(&mut self) -> Result<u8, Fault> {
        let start = self.at;
        if self.byte()? != 0xff {
            return Err(broken(format!("byte {start} should start a marker")));
        }
        loop {
            match self.byte()? {
                0xff => {}
                marker => return Ok(marker),
            }
        }
    }

    /// The content of a marker's segment.
    fn segment(&mut self) -> Result<&'a [u8], Fault> {
        let rest = self.jpeg.get(self.at..).unwrap_or_default();
        let length = usize::from(word(rest, 0).map_err(|_| cut_off())?);
        if length < 2 {
            return Err(broken(format!("a segment of length {length} at byte {}", self.at)));
        }
        let content = rest.get(2..length).ok_or_else(cut_off)?;
        self.at += length;
        Ok(content)
    }

    /// Skips the coded pixels of a scan of `units` MCUs, and counts its restart markers.
    fn scan(&mut self, restart_interval: usize, units: usize) -> Result<(), Fault> {
        let mut restarts = 0;
        loop {
            let rest = self.jpeg.get(self.at..).unwrap_or_default();
            let next = memchr::memchr(0xff, rest).ok_or_else(cut_off)?;
            match rest.get(next + 1).ok_or_else(cut_off)? {
                0 => self.at += next + 2,
                0xff => self.at += next + 1,
                marker @ 0xd0..=0xd7 => {
                    if restart_interval == 0 || *marker != 0xd0 + (restarts % 8) as u8 {
                        return Err(broken(format!("restart marker ff {marker:02x} out of order")));
                    }
                    restarts += 1;
                    self.at += next + 2;
                }
                _ => {
                    self.at += next;
                    break;
                }
            }
        }
        if let Some(expected) = (units - 1).checked_div(restart_interval) {
            // Some encoders write one more after the last unit.
            if restarts != expected && restarts != expected + 1 {
                return Err(broken(format!("{restarts} restart markers in a scan that has {expected}")));
            }
        }
        Ok(())
    }
}

/// Checks that the code lengths of each Huffman table make a prefix code that does not use the code of ones
/// only [C.2], and that the sizes in the DC tables are at most 15 bits.
fn check_huffman(mut segment: &[u8]) -> Result<(), Fault> {
    while let Some((class, rest)) = segment.split_first() {
        let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(cut_off)?;
        let (mut code, mut total) = (0_u32, 0_usize);
        for (length, count) in (1..).zip(counts) {
            code += u32::from(*count);
            total += usize::from(*count);
            if total > 0 && code >= 1 << length {
                return Err(broken("a Huffman table with too many codes"));
            }
            code <<= 1;
        }
        let (symbols, rest) = rest.split_at_checked(total).ok_or_else(cut_off)?;
        if class >> 4 == 0 && symbols.iter().any(|size| *size > 15) {
            return Err(broken("a Huffman table with a wrong symbol"));
        }
        segment = rest;
    }
    Ok(())
}

/// Checks the conditioning of arithmetic codes: for DC a lower bound that is not above the upper one, for AC the index
/// of a coefficient [B.2.4.3].
fn check_conditioning(segment: &[u8]) -> Result<(), Fault> {
    let valid = |entry: &[u8]| match *entry {
        [0..=0x0f, bounds] => bounds & 15 <= bounds >> 4,
        [0x10..=0x1f, index] => (1..64).contains(&index),
        _ => false,
    };
    if segment.chunks(2).all(valid) {
        Ok(())
    } else {
        Err(broken("a wrong conditioning of arithmetic codes"))
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u16, Fault> {
    let pair = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(cut_off)?;
    Ok(u16::from_be_bytes(*pair))
}

fn cut_off() -> Fault {
    Fault::new("damaged JPEG: cut off, its end is missing")
}

fn broken(what: impl std::fmt::Display) -> Fault {
    Fault::new(format!("damaged JPEG: {what}"))
}

fn unsupported(what: impl std::fmt::Display) -> Fault {
    Fault::new(format!("this is {what}, which is not decoded; save it as a baseline JPEG"))
}

#[cfg(test)]
mod tests;
