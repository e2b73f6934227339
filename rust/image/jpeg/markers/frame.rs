//! The frame of a JPEG: its components, and which of their coefficients the scans have transmitted.
//!
//! Sections in brackets are those of ITU-T T.81.

use super::{Layout, broken, cut_off, unsupported, word};
use crate::error::counted;
use crate::image::{Fault, Size};

/// Where every libjpeg stops.
const LONGEST_SIDE: usize = 65_500;

/// The coefficients that are used to smooth unfinished progressive images: DC and the first five.
const SMOOTHED: usize = 6;

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

/// An image whose header was read, and some of its scans.
pub struct Frame {
    progressive: bool,
    /// Whether its codes are arithmetic.
    pub arithmetic: bool,
    size: Size,
    components: Vec<Component>,
    max_h: usize,
    max_v: usize,
}

/// A scan whose header was read.
pub struct Scan {
    /// Its MCUs.
    pub units: usize,
}

impl Frame {
    /// Reads the header that follows the marker `kind`, of a file of `file` bytes and an image of at most `max_pixels`.
    pub fn read(kind: u8, header: &[u8], file: usize, max_pixels: usize) -> Result<Self, Fault> {
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
    pub fn start_scan(&mut self, header: &[u8]) -> Result<Scan, Fault> {
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
    pub fn finish(self) -> Result<Layout, Fault> {
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
