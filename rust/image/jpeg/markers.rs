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

#[cfg(test)]
mod tests {
    use super::*;

    const EOI: [u8; 2] = [0xff, 0xd9];
    const SEQUENTIAL: u8 = 0xc0;
    const PROGRESSIVE: u8 = 0xc2;
    /// Of one component, of two or three, and where the pixels of the second and third are fewer.
    const GRAY: &[(u8, u8)] = &[(1, 0x11)];
    const COLOUR: &[(u8, u8)] = &[(1, 0x22), (2, 0x11), (3, 0x11)];

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        [&[0xff, marker], &(content.len() as u16 + 2).to_be_bytes()[..], content].concat()
    }

    fn frame(kind: u8, (height, width): (u16, u16), components: &[(u8, u8)]) -> Vec<u8> {
        let mut header = vec![8];
        header.extend([height.to_be_bytes(), width.to_be_bytes()].concat());
        header.push(components.len() as u8);
        header.extend(components.iter().flat_map(|&(id, factors)| [id, factors, 0]));
        segment(kind, &header)
    }

    /// A scan of these components, with its parameters (from, to, bits) and its codes.
    fn scan(ids: &[u8], parameters: [u8; 3], codes: &[u8]) -> Vec<u8> {
        let mut header = vec![ids.len() as u8];
        header.extend(ids.iter().flat_map(|&id| [id, 0]));
        header.extend(parameters);
        [segment(0xda, &header), codes.to_vec()].concat()
    }

    fn whole(ids: &[u8]) -> Vec<u8> {
        scan(ids, [0, 63, 0], &[7])
    }

    fn read(parts: &[Vec<u8>]) -> Result<Layout, String> {
        read_with(parts, 0)
    }

    /// With some bytes more at the end, which decoders do not look at.
    fn read_with(parts: &[Vec<u8>], more: usize) -> Result<Layout, String> {
        let file = [&[0xff, 0xd8], parts.concat().as_slice(), &EOI, &vec![0; more]].concat();
        Layout::read(&file, 1 << 30).map_err(|fault| fault.to_string())
    }

    #[track_caller]
    fn is_wrong(found: Result<Layout, String>, words: &str) {
        let message = found.expect_err(words);
        assert!(message.contains(words), "{message}; expected {words}");
    }

    #[test]
    fn what_is_read() {
        let found = read(&[frame(SEQUENTIAL, (16, 40), COLOUR), whole(&[1, 2, 3])]).unwrap();
        assert_eq!((found.size, found.components), (Size { height: 16, width: 40 }, 3));
        assert_eq!(found.factors().unwrap(), [(1, 1), (2, 2), (2, 2)]);
        let gray = read(&[frame(SEQUENTIAL, (8, 8), &[(9, 0x31)]), whole(&[9])]).unwrap();
        assert_eq!(gray.factors().unwrap(), [(1, 1)]);
        for (factors, whole_number) in
            [(0x31, true), (0x13, true), (0x21, false), (0x12, false), (0x33, true)]
        {
            let frame = frame(SEQUENTIAL, (8, 8), &[(1, 0x33), (2, factors), (3, 0x33)]);
            let found = read(&[frame, whole(&[1, 2, 3])]).unwrap().factors();
            assert_eq!(found.is_ok(), whole_number, "{factors:x}");
        }
    }

    #[test]
    fn segments_that_may_be_anywhere_and_those_that_may_not() {
        let with = |part: Vec<u8>| read(&[part, frame(SEQUENTIAL, (8, 8), GRAY), whole(&[1])]);
        for marker in [0xdb, 0xdc, 0xe0, 0xe1, 0xef, 0xfe] {
            assert!(with(segment(marker, b"any")).is_ok(), "{marker:x}");
            assert!(with(segment(marker, b"")).is_ok(), "{marker:x}");
            assert!(with([vec![0xff, 0xff], segment(marker, b"")].concat()).is_ok(), "fill bytes");
            is_wrong(with(vec![0xff, marker, 0, 1]), "a segment of length 1 at byte 4");
            is_wrong(read(&[vec![0xff, marker, 0, 5]]), "cut off");
        }
        for marker in [0xc3, 0xcb] {
            is_wrong(with(segment(marker, b"")), "lossless");
        }
        for marker in [0xc5, 0xc6, 0xc7, 0xcd, 0xce, 0xcf] {
            is_wrong(with(segment(marker, b"")), "hierarchical");
        }
        for marker in [0x01, 0xc8, 0xd0, 0xd8, 0xf0] {
            is_wrong(with(segment(marker, b"")), "where none is allowed");
        }
        is_wrong(with(vec![0, 0]), "byte 2 should start a marker");
        is_wrong(read(&[]), "no frame header");
        is_wrong(read(&[whole(&[1])]), "pixels before the frame header");
        let frame = frame(SEQUENTIAL, (8, 8), GRAY);
        is_wrong(read(&[frame.clone(), frame.clone(), whole(&[1])]), "two frame headers");
        is_wrong(read(&[frame]), "scans are missing");
    }

    #[test]
    fn frame_headers() {
        let of = |header: &[u8]| read(&[segment(SEQUENTIAL, header), whole(&[1])]);
        assert!(of(&[8, 0, 8, 0, 8, 1, 1, 0x11, 0]).is_ok());
        is_wrong(of(&[12, 0, 8, 0, 8, 1, 1, 0x11, 0]), "12 bits");
        is_wrong(of(&[8, 0, 0, 0, 8, 1, 1, 0x11, 0]), "0 x 8 pixels");
        is_wrong(of(&[8, 0, 8, 0, 8, 1, 1, 0x11]), "wrong length");
        is_wrong(of(&[8, 0, 8, 0, 8, 1, 1, 0x11, 0, 0]), "wrong length");
        for length in 0..6 {
            is_wrong(of(&[8, 0, 8, 0, 8, 1][..length]), "cut off");
        }
        let factors = |factors| read(&[frame(SEQUENTIAL, (8, 8), &[(1, factors)]), whole(&[1])]);
        assert!(factors(0x44).is_ok());
        for wrong in [0x01, 0x10, 0x51, 0x15] {
            is_wrong(factors(wrong), "sampling factors");
        }
        let two: &[(u8, u8)] = &[(1, 0x11), (2, 0x11)];
        is_wrong(read(&[frame(SEQUENTIAL, (8, 8), two)]), "2 components");
        is_wrong(read(&[frame(SEQUENTIAL, (8, 8), &[(1, 0x11), (2, 0x11), (1, 0x11)])]), "numbered 1");
        let inks = [(1, 0x11), (2, 0x11), (3, 0x11), (4, 0x11)];
        assert_eq!(read(&[frame(SEQUENTIAL, (8, 8), &inks), whole(&[1, 2, 3, 4])]).unwrap().components, 4);
        for size in [(65_500, 1), (1, 65_500)] {
            assert!(read_with(&[frame(SEQUENTIAL, size, GRAY), whole(&[1])], 2100).is_ok());
        }
        for size in [(65_501, 1), (1, 65_501)] {
            is_wrong(read_with(&[frame(SEQUENTIAL, size, GRAY), whole(&[1])], 2100), "a side above 65500");
        }
    }

    #[test]
    fn a_size_needs_bytes() {
        // With 1 bit for each block there, or 2, or a thousandth of a byte.
        for (kind, blocks_in_byte) in [(0xc0, 4), (0xc1, 4), (PROGRESSIVE, 8), (0xc9, 1024), (0xca, 1024)] {
            let scan = if matches!(kind, PROGRESSIVE | 0xca) {
                [scan(&[1], [0, 0, 0], &[7]), scan(&[1], [1, 63, 0], &[7])].concat()
            } else {
                whole(&[1])
            };
            for size in [(801_u16, 6399_u16), (8000, 8000), (1, 65_500)] {
                let blocks = usize::from(size.0.div_ceil(8)) * usize::from(size.1.div_ceil(8));
                let parts = [frame(kind, size, GRAY), scan.clone()];
                let (length, needed) = (parts.concat().len() + 4, blocks.div_ceil(blocks_in_byte));
                let Some(more) = needed.checked_sub(length) else { continue };
                assert!(read_with(&parts, more).is_ok(), "{kind:x} {size:?} in {needed} bytes");
                is_wrong(read_with(&parts, more - 1), "are too few");
            }
        }
    }

    #[test]
    fn huffman_tables() {
        // The numbers of codes of each length, the longest last, and the symbols.
        let table = |class: u8, counts: &[u8], symbols: &[u8]| {
            let mut lengths = [0; 16];
            lengths[..counts.len()].copy_from_slice(counts);
            [&[class], &lengths[..], symbols].concat()
        };
        let with =
            |content: &[u8]| read(&[segment(0xc4, content), frame(SEQUENTIAL, (8, 8), GRAY), whole(&[1])]);
        assert!(with(&[]).is_ok());
        for (counts, prefix_code) in [
            (&[1][..], true),
            (&[2], false),
            (&[0, 3], true),
            (&[0, 4], false),
            (&[1, 1, 1], true),
            (&[1, 1, 2], false),
            (&[1, 2], false),
            (&[0, 0, 0, 15], true),
            (&[0, 0, 0, 16], false),
            (&[1; 16], true),
            (&[0, 0, 0, 0, 0, 0, 0, 255], true),
        ] {
            let symbols = vec![0; counts.iter().map(|&count| usize::from(count)).sum()];
            let found = with(&table(0x10, counts, &symbols));
            assert_eq!(found.is_ok(), prefix_code, "{counts:?}: {found:?}");
            let twice = [table(0, &[1], &[3]), table(0x11, counts, &symbols)].concat();
            assert_eq!(with(&twice).is_ok(), prefix_code, "as the second: {counts:?}");
        }
        // A size of a DC coefficient has at most 15 bits; 16 is that of lossless JPEG.
        for destination in 0..4 {
            assert!(with(&table(destination, &[0, 2], &[0, 15])).is_ok());
            is_wrong(with(&table(destination, &[0, 2], &[0, 16])), "wrong symbol");
            is_wrong(with(&table(destination, &[0, 2], &[16, 0])), "wrong symbol");
            assert!(with(&table(0x10 + destination, &[0, 2], &[16, 0xff])).is_ok());
        }
        let good = table(0, &[0, 2], &[0, 1]);
        for length in 1..good.len() {
            is_wrong(with(&good[..length]), "cut off");
        }
    }

    #[test]
    fn scans_are_limited() {
        // Each coefficient in 14 scans, from the highest bit to the lowest.
        let mut scans = Vec::new();
        for coefficient in 0..8 {
            scans.push(scan(&[1], [coefficient, coefficient, 13], &[7]));
            scans.extend(
                (0..13)
                    .rev()
                    .map(|left| scan(&[1], [coefficient, coefficient, (left + 1) << 4 | left], &[7])),
            );
        }
        let with =
            |count: usize| read(&[vec![frame(PROGRESSIVE, (8, 8), GRAY)], scans[..count].to_vec()].concat());
        assert!(with(MAX_SCANS).is_ok());
        is_wrong(with(MAX_SCANS + 1), "more than 100 scans");
    }

    #[test]
    fn which_scans_a_progressive_image_has() {
        let with = |parameters: &[[u8; 3]]| {
            let scans = parameters.iter().map(|&parameters| scan(&[1], parameters, &[7]));
            read(&[vec![frame(PROGRESSIVE, (8, 8), GRAY)], scans.collect()].concat())
        };
        let (dc, ac) = ([0, 0, 0], [1, 63, 0]);
        assert!(with(&[dc, ac]).is_ok());
        assert!(with(&[[0, 0, 1], [0, 0, 0x10], ac]).is_ok());
        assert!(with(&[[0, 0, 13], ac]).expect_err("bits are missing").contains("scans are missing"));
        for wrong in [
            [0, 1, 0],
            [0, 63, 0],
            [1, 64, 0],
            [5, 4, 0],
            [0, 0, 14],
            [1, 63, 14],
            [0, 0, 0x20],
            [0, 0, 0x11],
            [0, 0, 0x01 | 0x30],
        ] {
            is_wrong(with(&[dc, ac, wrong]), "scan parameters");
            is_wrong(with(&[wrong]), "scan parameters");
        }
        assert!(with(&[dc, [1, 1, 0], [2, 63, 0]]).is_ok(), "a band of one coefficient");
        is_wrong(with(&[ac, dc]), "details before the coarse picture");
        is_wrong(with(&[dc, dc, ac]), "repeated");
        is_wrong(with(&[dc, ac, [63, 63, 0]]), "repeated");
        is_wrong(with(&[[0, 0, 2], [0, 0, 0x10], ac]), "missing, out of order");
        is_wrong(with(&[dc, [0, 0, 0x10], ac]), "missing, out of order");
        is_wrong(with(&[dc, ac, [1, 5, 0x10]]), "missing, out of order");
        is_wrong(with(&[[0, 0, 0x10]]), "missing, out of order");
        is_wrong(with(&[dc, [1, 63, 0x10]]), "missing, out of order");
        // Without one of the first five details, decoders make them up; others count as zero.
        assert!(with(&[dc, [1, 5, 0]]).is_ok());
        is_wrong(with(&[dc, [1, 4, 0]]), "scans are missing");
        is_wrong(with(&[dc, [2, 63, 0]]), "scans are missing");
        is_wrong(with(&[dc, [1, 5, 1]]), "scans are missing");
        is_wrong(with(&[dc]), "scans are missing");
    }

    #[test]
    fn the_components_of_a_scan() {
        let sequential =
            |scans: &[Vec<u8>]| read(&[vec![frame(SEQUENTIAL, (8, 8), COLOUR)], scans.to_vec()].concat());
        assert!(sequential(&[whole(&[1, 2, 3])]).is_ok());
        assert!(sequential(&[whole(&[3]), whole(&[1]), whole(&[2])]).is_ok());
        is_wrong(sequential(&[whole(&[1, 2]), whole(&[3])]), "some of its components interleaved");
        is_wrong(sequential(&[whole(&[1]), whole(&[2])]), "scans are missing");
        is_wrong(sequential(&[whole(&[1, 2, 3]), whole(&[2])]), "repeated");
        is_wrong(sequential(&[whole(&[4])]), "not in the frame");
        is_wrong(sequential(&[whole(&[1, 1, 2])]), "not in the frame");
        is_wrong(sequential(&[whole(&[])]), "wrong number of components");
        for parameters in [[1, 63, 0], [0, 62, 0], [0, 63, 1], [0, 63, 0x10]] {
            is_wrong(sequential(&[scan(&[1, 2, 3], parameters, &[])]), "scan parameters");
        }
        for header in [&[][..], &[1, 1, 0, 0, 63], &[1, 1, 0, 0, 63, 0, 0], &[2, 1, 0, 0, 63, 0]] {
            let found = sequential(&[segment(0xda, header)]);
            is_wrong(found, if header.is_empty() { "cut off" } else { "wrong length" });
        }
        let progressive =
            |scans: &[Vec<u8>]| read(&[vec![frame(PROGRESSIVE, (8, 8), COLOUR)], scans.to_vec()].concat());
        let details: Vec<_> = [1, 2, 3].iter().map(|&id| scan(&[id], [1, 63, 0], &[7])).collect();
        let coarse = |ids: &[u8]| scan(ids, [0, 0, 0], &[7]);
        assert!(progressive(&[vec![coarse(&[1, 2, 3])], details.clone()].concat()).is_ok());
        assert!(progressive(&[vec![coarse(&[1, 2]), coarse(&[3])], details.clone()].concat()).is_ok());
        let together = scan(&[1, 2], [1, 63, 0], &[7]);
        is_wrong(progressive(&[coarse(&[1, 2, 3]), together]), "wrong number of components");
    }

    /// Codes with so many restart markers.
    fn restarts(count: usize) -> Vec<u8> {
        let mut codes = vec![7, 0xff, 0, 9];
        (0..count).for_each(|number| codes.extend([0xff, 0xd0 + (number % 8) as u8, 0xff, 0, 5]));
        codes
    }

    #[test]
    fn restart_markers_are_counted() {
        let with = |interval: u8, parts: &[Vec<u8>]| {
            read(&[vec![segment(0xdd, &[0, interval])], parts.to_vec()].concat())
        };
        // 20 pixels are 3 blocks of luma, 2 of chroma, and 2 units of all.
        let (height, width) = (24, 20);
        let frame = |kind| frame(kind, (height, width), COLOUR);
        let of = |ids: &[u8], count| scan(ids, [0, 63, 0], &restarts(count));
        for (interval, all, luma, chroma) in
            [(1, 3, 8, 3), (2, 1, 4, 1), (3, 1, 2, 1), (4, 0, 2, 0), (9, 0, 0, 0)]
        {
            for extra in 0..2 {
                let found = with(interval, &[frame(SEQUENTIAL), of(&[1, 2, 3], all + extra)]);
                assert!(found.is_ok(), "{interval}: {found:?}");
                let single = [of(&[1], luma + extra), of(&[2], chroma), of(&[3], chroma)];
                let found = with(interval, &[vec![frame(SEQUENTIAL)], single.to_vec()].concat());
                assert!(found.is_ok(), "{interval}: {found:?}");
            }
            let wrong = "restart markers in a scan that has";
            is_wrong(with(interval, &[frame(SEQUENTIAL), of(&[1, 2, 3], all + 2)]), wrong);
            is_wrong(with(interval, &[frame(SEQUENTIAL), of(&[1], luma + 2)]), wrong);
            is_wrong(with(interval, &[frame(SEQUENTIAL), of(&[2], chroma + 2)]), wrong);
            for (ids, count) in [(&[1, 2, 3][..], all), (&[1], luma), (&[2], chroma)] {
                if count > 0 {
                    is_wrong(with(interval, &[frame(SEQUENTIAL), of(ids, count - 1)]), wrong);
                }
            }
        }
        let wrong_number = scan(&[1, 2, 3], [0, 63, 0], &[7, 0xff, 0xd1]);
        is_wrong(with(2, &[frame(SEQUENTIAL), wrong_number]), "ff d1 out of order");
        is_wrong(with(0, &[frame(SEQUENTIAL), of(&[1, 2, 3], 1)]), "ff d0 out of order");
        assert!(with(0, &[frame(SEQUENTIAL), of(&[1, 2, 3], 0)]).is_ok());
        // Arithmetic codes may have an interval that is not reached.
        assert!(with(4, &[frame(0xc9), of(&[1, 2, 3], 0)]).is_ok());
        assert!(with(0, &[frame(0xc9), of(&[1, 2, 3], 0)]).is_ok());
        is_wrong(with(3, &[frame(0xc9), of(&[1, 2, 3], 1)]), "arithmetic codes with restart markers");
        is_wrong(with(1, &[frame(0xc9), of(&[1, 2, 3], 3)]), "arithmetic codes with restart markers");
    }

    #[test]
    fn codes_end_at_a_marker() {
        let with = |codes: &[u8]| read(&[frame(SEQUENTIAL, (8, 8), GRAY), scan(&[1], [0, 63, 0], codes)]);
        assert!(with(&[]).is_ok());
        assert!(with(&[0xff, 0, 0xff, 0xff, 0xff, 0, 1]).is_ok());
        assert!(with(&[1, 0xff]).is_ok(), "a fill byte before the end");
        let open = [&[0xff, 0xd8][..], &frame(SEQUENTIAL, (8, 8), GRAY), &whole(&[1])].concat();
        for more in [&[][..], &[0xff], &[0xff, 0], &[0xff, 0xff]] {
            let found = Layout::read(&[&open, more].concat(), 100).map_err(|fault| fault.to_string());
            is_wrong(found, "its end is missing");
        }
    }

    #[test]
    fn conditioning_of_arithmetic_codes() {
        let with =
            |content: &[u8]| read(&[segment(0xcc, content), frame(0xc9, (8, 8), GRAY), whole(&[1])]).is_ok();
        assert!(
            with(&[])
                && with(&[0, 0x00])
                && with(&[15, 0x11])
                && with(&[3, 0xf0])
                && with(&[0, 0x54, 0x10, 5])
        );
        assert!(!with(&[0, 0x01]) && !with(&[0, 0x45]) && !with(&[0, 0x54, 0x00, 0x12]));
        assert!(with(&[0x10, 1]) && with(&[0x1f, 63]) && !with(&[0x10, 0]) && !with(&[0x10, 64]));
        assert!(!with(&[0x20, 1]) && !with(&[0]) && !with(&[0, 0x10, 0x10]));
    }
}
