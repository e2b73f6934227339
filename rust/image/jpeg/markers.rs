//! The markers of a JPEG, checked before it is decoded.
//!
//! A decoder for viewing pictures continues after damage and fills missing parts with grey. Here, everything
//! that the markers can prove wrong is an error: a cut-off end, a missing scan, a restart marker out of
//! order, a size in the header for which there are too few bytes. Sections in brackets are those of ITU-T
//! T.81.

use crate::error::counted;
use crate::image::{Fault, Size};

/// No encoder writes more scans than this: 10 are usual, and the default of libjpeg for four inks has 18. Each
/// is a pass over the image, for as little as 15 bytes of the file.
pub const MAX_SCANS: usize = 100;

/// Where every libjpeg stops.
const LONGEST_SIDE: usize = 65_500;

/// The coefficients that are used to smooth unfinished progressive images: DC and the first five.
const SMOOTHED: usize = 6;

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

/// What was transmitted of a component's coefficients.
type Progress = [Option<u8>; 64];

#[derive(Clone, Copy)]
struct Component {
    id: u8,
    h: usize,
    v: usize,
    /// For each coefficient the number of low bits that are missing. `None` before its first scan.
    missing: Progress,
}

struct Frame {
    progressive: bool,
    arithmetic: bool,
    size: Size,
    components: Vec<Component>,
    max_h: usize,
    max_v: usize,
}

struct Scan {
    units: usize,
}

impl Frame {
    fn read(kind: u8, header: &[u8], file: usize, max_pixels: usize) -> Result<Self, Fault> {
        let precision = *header.first().ok_or_else(cut_off)?;
        if precision != 8 {
            return Err(unsupported(format!("a JPEG of {precision} bits per sample")));
        }
        let size = Size::checked(word(header, 1)?.into(), word(header, 3)?.into(), max_pixels)?;
        if size.height.max(size.width) > LONGEST_SIDE {
            return Err(unsupported(format!("a JPEG of {size} pixels, with a side above {LONGEST_SIDE}")));
        }
        let count = *header.get(5).ok_or_else(cut_off)?;
        let table = header.get(6..).unwrap_or_default();
        if table.len() != usize::from(count) * 3 {
            return Err(broken("a frame header of a wrong length"));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(unsupported(format!("a JPEG of {count} components")));
        }
        let mut components = Vec::with_capacity(table.len() / 3);
        for entry in table.chunks_exact(3) {
            let (id, h, v) = (entry[0], usize::from(entry[1] >> 4), usize::from(entry[1] & 15));
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
                return Err(broken(format!("sampling factors {h} x {v}")));
            }
            if components.iter().any(|other: &Component| other.id == id) {
                return Err(broken(format!("two components numbered {id}")));
            }
            components.push(Component { id, h, v, missing: [None; 64] });
        }
        let largest = |factor: fn(&Component) -> usize| components.iter().map(factor).max().unwrap_or(1);
        let (max_h, max_v) = (largest(|c| c.h), largest(|c| c.v));
        let (progressive, arithmetic) = (matches!(kind, 0xc2 | 0xca), kind >= 0xc9);
        let frame = Self { progressive, arithmetic, size, components, max_h, max_v };
        frame.check_claim(kind, file)?;
        Ok(frame)
    }

    /// Rejects a size for which the file is too short: a Huffman-coded block takes at least one bit for its
    /// DC coefficient and, in a sequential file, one for the end of the other coefficients.
    fn check_claim(&self, kind: u8, file: usize) -> Result<(), Fault> {
        let blocks = self.size.height.div_ceil(8) * self.size.width.div_ceil(8);
        let most = match kind {
            0xc0 | 0xc1 => file.saturating_mul(4),
            0xc2 => file.saturating_mul(8),
            _ => file.saturating_mul(1 << 10), // arithmetic coding has no such bound: this is ample
        };
        if blocks > most {
            return Err(broken(format!(
                "the header says {} pixels, for which {} are too few",
                self.size,
                counted(file as u64, "byte")
            )));
        }
        Ok(())
    }

    /// Reads a scan header, and records what the scan transmits.
    fn start_scan(&mut self, header: &[u8]) -> Result<Scan, Fault> {
        let count = usize::from(*header.first().ok_or_else(cut_off)?);
        let (Some(selectors), Some(&[from, to, bits])) =
            (header.get(1..=count * 2), header.get(count * 2 + 1..))
        else {
            return Err(broken("a scan header of a wrong length"));
        };
        let mut members = Vec::with_capacity(4);
        for selector in selectors.chunks_exact(2) {
            let member = self.components.iter().position(|c| c.id == selector[0]);
            let member = member.filter(|member| !members.contains(member));
            members.push(member.ok_or_else(|| broken("a scan of a component that is not in the frame"))?);
        }
        if members.is_empty() || (members.len() > 1 && from > 0 && self.progressive) {
            return Err(broken("a scan of a wrong number of components"));
        }
        if !self.progressive && members.len() != 1 && members.len() != self.components.len() {
            return Err(unsupported("a JPEG with some of its components interleaved"));
        }
        self.note(&members, from, to, bits)?;
        Ok(Scan { units: self.units(&members) })
    }

    fn note(&mut self, members: &[usize], from: u8, to: u8, bits: u8) -> Result<(), Fault> {
        let (before, after) = (bits >> 4, bits & 15);
        let fits = if self.progressive {
            let band = if from == 0 { to == 0 } else { from <= to && to < 64 };
            band && after < 14 && (before == 0 || before == after + 1)
        } else {
            (from, to, bits) == (0, 63, 0)
        };
        if !fits {
            return Err(broken(format!("scan parameters {from}..{to}, {before}, {after}")));
        }
        for member in members {
            let missing = &mut self.components[*member].missing;
            if from > 0 && missing[0].is_none() {
                return Err(broken("a scan of details before the coarse picture"));
            }
            for state in &mut missing[usize::from(from)..=usize::from(to)] {
                let first = state.is_none();
                if first != (before == 0) || state.is_some_and(|left| left != before) {
                    return Err(broken("a scan that is missing, out of order or repeated"));
                }
                *state = Some(after);
            }
        }
        Ok(())
    }

    /// MCUs in a scan. In interleaved scans an MCU covers the sampling pattern, in others one block [A.2].
    fn units(&self, members: &[usize]) -> usize {
        let Size { height, width } = self.size;
        match members {
            [only] => {
                let Component { h, v, .. } = self.components[*only];
                let blocks =
                    |pixels: usize, factor: usize, max: usize| (pixels * factor).div_ceil(max).div_ceil(8);
                blocks(width, h, self.max_h) * blocks(height, v, self.max_v)
            }
            _ => width.div_ceil(8 * self.max_h) * height.div_ceil(8 * self.max_v),
        }
    }

    /// Checks at the end of the file that no part of the image is missing.
    fn finish(self) -> Result<Layout, Fault> {
        for component in &self.components {
            // If a progressive image lacks some of the first coefficients, decoders make them up, each
            // version in its own way. Other coefficients count as zero in all decoders.
            if component.missing[..SMOOTHED].iter().any(|left| *left != Some(0)) {
                return Err(broken("scans are missing; the file was cut off between them"));
            }
        }
        let sampling = self.components.iter().map(|c| (c.h, c.v)).collect();
        Ok(Layout { size: self.size, components: self.components.len(), sampling })
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
