//! PNG into RGB, by the crate `png`.
//!
//! What `OpenCV` does for `mx.image.imdecode`: palettes and 1, 2 and 4 bits are expanded, of 16 bits the
//! high byte is kept, gray is repeated, and alpha is dropped, not blended. Gamma, orientation and animation
//! are not looked at.

use std::io::Cursor;

use ::png::{ColorType, Decoder, DecodingError, Limits, Reader, Transformations};

use super::{Fault, Size};

/// Bytes that `Deflate` can make of one, at most.
const EXPANSION: usize = 1032;

/// A PNG whose chunks up to the first pixels have been read.
pub struct Png<'a> {
    reader: Reader<Cursor<&'a [u8]>>,
    size: Size,
}

impl<'a> Png<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: 64 << 20 });
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        let info = decoder.read_header_info().map_err(damaged)?;
        let size = Size::checked(info.height as usize, info.width as usize)?;
        let raw = info.raw_bytes().min(usize::MAX / 2);
        if raw > bytes.len().saturating_mul(EXPANSION) {
            return Err(Fault::new(format!(
                "damaged PNG: the header says {size} pixels, for which {} bytes are too few",
                bytes.len()
            )));
        }
        Ok(Self { reader: decoder.read_info().map_err(damaged)?, size })
    }

    pub fn size(&self) -> Size {
        self.size
    }

    pub fn decode(mut self, out: &mut [u8]) -> Result<(), Fault> {
        let (color, _) = self.reader.output_color_type();
        let samples = color.samples();
        let frame = if color == ColorType::Rgb {
            self.reader.next_frame(out).map_err(damaged)?
        } else {
            let mut pixels = Vec::new();
            let length = out.len() / 3 * samples;
            pixels
                .try_reserve_exact(length)
                .map_err(|_| Fault::new(format!("no memory for {length} bytes")))?;
            pixels.resize(length, 0);
            let frame = self.reader.next_frame(&mut pixels).map_err(damaged)?;
            for (pixel, from) in out.chunks_exact_mut(3).zip(pixels.chunks_exact(samples)) {
                match from {
                    [gray] | [gray, _] => pixel.fill(*gray),
                    from => pixel.copy_from_slice(&from[..3]),
                }
            }
            frame
        };
        if (frame.height as usize, frame.width as usize) != (self.size.height, self.size.width) {
            return Err(Fault::new("damaged PNG: its first frame does not cover the image"));
        }
        self.reader.finish().map_err(damaged)
    }
}

fn damaged(error: DecodingError) -> Fault {
    match error {
        DecodingError::IoError(_) => Fault::new("damaged PNG: cut off, its end is missing"),
        error => Fault::new(format!("damaged PNG: {error}")),
    }
}
