//! PNG to RGB by the words of the specification, pixel by pixel.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// What a file shows.
pub struct Picture {
    /// Rows and columns.
    pub size: (usize, usize),
    /// `(height, width, 3)`.
    pub rgb: Vec<u8>,
    /// The file has nothing but a header, a palette where it needs one, one run of pixels of exactly the right
    /// length, an end, and chunks of unknown types that may be skipped. Such a file has to be decoded.
    pub plain: bool,
}

/// What `IHDR` says.
#[derive(Clone, Copy)]
struct Header {
    width: usize,
    height: usize,
    depth: usize,
    color: u8,
    interlaced: bool,
}

type Chunk<'a> = (&'a [u8], &'a [u8]);

/// The types and contents of the chunks after the signature, up to `IEND`. The checksums are not looked at.
pub fn chunks(png: &[u8]) -> Option<Vec<Chunk<'_>>> {
    let mut rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    let mut chunks = Vec::new();
    loop {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        chunks.push((rest.get(4..8)?, rest.get(8..8 + length)?));
        rest = rest.get(8 + length + 4..)?;
        if chunks.last()?.0 == b"IEND" {
            return Some(chunks);
        }
    }
}

/// The picture, if the file has what it takes to show one of at most `most` pixels.
pub fn decode(png: &[u8], most: usize) -> Option<Picture> {
    let chunks = chunks(png)?;
    let header = Header::read(chunks.first()?).filter(|header| header.width * header.height <= most)?;
    let palette = chunks.iter().find(|chunk| chunk.0 == b"PLTE").map(|chunk| chunk.1);
    let pixels: Vec<u8> =
        chunks.iter().filter(|chunk| chunk.0 == b"IDAT").flat_map(|chunk| chunk.1).copied().collect();
    let (rows, whole) = inflate(&pixels, 9 * most + (1 << 16));
    let (rgb, used) = header.rgb(&rows, palette)?;
    let plain = whole && used == rows.len() && plain(&chunks, header, palette);
    Some(Picture { size: (header.height, header.width), rgb, plain })
}

/// What a zlib stream holds, up to its end or its damage, and whether it ends, right, where the bytes do.
fn inflate(zlib: &[u8], most: usize) -> (Vec<u8>, bool) {
    let mut rows = vec![0; most];
    let flags = TINFL_FLAG_PARSE_ZLIB_HEADER | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, end, length) = decompress(&mut DecompressorOxide::new(), zlib, &mut rows, 0, flags);
    rows.truncate(length);
    (rows, status == TINFLStatus::Done && end == zlib.len())
}

fn plain(chunks: &[Chunk], header: Header, palette: Option<&[u8]>) -> bool {
    let is = |chunk: &Chunk, name: &[u8; 4]| chunk.0 == name;
    let count = |name| chunks.iter().filter(|chunk| is(chunk, name)).count();
    let known = [b"IHDR", b"PLTE", b"IDAT", b"IEND"];
    let skipped =
        |chunk: &Chunk| chunk.0.starts_with(b"x") && chunk.0[1..].iter().all(u8::is_ascii_uppercase);
    let first = chunks.iter().position(|chunk| is(chunk, b"IDAT"));
    let last = chunks.iter().rposition(|chunk| is(chunk, b"IDAT"));
    let (Some(first), Some(last)) = (first, last) else { return false };
    let palette_fits = match palette {
        None => header.color != 3,
        Some(colors) => {
            let room = if header.color == 3 { 3 << header.depth } else { 768 };
            let before = chunks[..first].iter().any(|chunk| is(chunk, b"PLTE"));
            before
                && !matches!(header.color, 0 | 4)
                && colors.len() % 3 == 0
                && (3..=room).contains(&colors.len())
        }
    };
    palette_fits
        && count(b"IHDR") == 1
        && count(b"PLTE") <= 1
        && last - first + 1 == count(b"IDAT")
        && chunks.last().is_some_and(|end| end.1.is_empty())
        && chunks.iter().all(|chunk| known.iter().any(|name| is(chunk, name)) || skipped(chunk))
}

/// First column and row, and steps, of each pass over the picture.
pub fn passes(interlaced: bool) -> &'static [(usize, usize, usize, usize)] {
    if interlaced {
        &[(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    } else {
        &[(0, 0, 1, 1)]
    }
}

impl Header {
    fn read((name, content): &Chunk) -> Option<Self> {
        let &[w0, w1, w2, w3, h0, h1, h2, h3, depth, color, 0, 0, interlaced @ 0..=1] = *content else {
            return None;
        };
        let [width, height] =
            [[w0, w1, w2, w3], [h0, h1, h2, h3]].map(|side| u32::from_be_bytes(side) as usize);
        let fits = match color {
            0 => matches!(depth, 1 | 2 | 4 | 8 | 16),
            3 => matches!(depth, 1 | 2 | 4 | 8),
            2 | 4 | 6 => matches!(depth, 8 | 16),
            _ => false,
        };
        let valid = *name == b"IHDR" && width > 0 && height > 0 && width.max(height) < 1 << 31 && fits;
        valid.then_some(Self { width, height, depth: depth.into(), color, interlaced: interlaced == 1 })
    }

    fn samples(self) -> usize {
        match self.color {
            2 => 3,
            4 => 2,
            6 => 4,
            _ => 1,
        }
    }

    /// The pixels, and how many bytes of `data`, the filtered rows, they take.
    fn rgb(self, data: &[u8], palette: Option<&[u8]>) -> Option<(Vec<u8>, usize)> {
        let mut rgb = vec![0; self.width * self.height * 3];
        let mut used = 0;
        for &(x0, y0, dx, dy) in passes(self.interlaced) {
            let columns = self.width.saturating_sub(x0).div_ceil(dx);
            let length = (columns * self.samples() * self.depth).div_ceil(8);
            let mut before = vec![0; length];
            for y in (y0..self.height).step_by(dy).filter(|_| columns > 0) {
                let row = data.get(used..=used + length)?;
                used += 1 + length;
                before = unfilter(row, &before, (self.samples() * self.depth).div_ceil(8))?;
                for column in 0..columns {
                    let at = 3 * (y * self.width + x0 + column * dx);
                    rgb[at..at + 3].copy_from_slice(&self.pixel(&before, column, palette)?);
                }
            }
        }
        Some((rgb, used))
    }

    fn pixel(self, row: &[u8], column: usize, palette: Option<&[u8]>) -> Option<[u8; 3]> {
        let sample = |number: usize| {
            let bit = (column * self.samples() + number) * self.depth;
            match self.depth {
                8 | 16 => row[bit / 8], // of 16 bits the high byte
                depth => row[bit / 8] >> (8 - depth - bit % 8) & ((1 << depth) - 1),
            }
        };
        Some(match self.color {
            3 => {
                let at = 3 * usize::from(sample(0));
                palette?.get(at..at + 3).map_or([0; 3], |color| [color[0], color[1], color[2]])
            }
            2 | 6 => [sample(0), sample(1), sample(2)],
            _ => [sample(0) * if self.depth < 8 { 255 / ((1 << self.depth) - 1) } else { 1 }; 3],
        })
    }
}

/// A row without its filter. `step` is the distance to the pixel before, in bytes.
fn unfilter(row: &[u8], above: &[u8], step: usize) -> Option<Vec<u8>> {
    let (filter, row) = row.split_first()?;
    let mut out: Vec<u8> = Vec::new();
    for (at, byte) in row.iter().enumerate() {
        let left = if at < step { 0 } else { out[at - step] };
        let corner = if at < step { 0 } else { above[at - step] };
        let (a, b, c) = (i32::from(left), i32::from(above[at]), i32::from(corner));
        let guess = match filter {
            0 => 0,
            1 => a,
            2 => b,
            3 => i32::midpoint(a, b),
            4 => [a, b, c].into_iter().min_by_key(|near| (a + b - c - near).abs())?,
            _ => return None,
        };
        out.push(byte.wrapping_add(guess as u8));
    }
    Some(out)
}
