//! PNG to RGB, by the crate `png`.
//!
//! The pixels are those of `OpenCV` in `mx.image.imdecode`: palettes and 1, 2 and 4 bits are expanded, the
//! high byte of 16 bits is kept, gray is repeated, and alpha is dropped, not blended. Gamma, orientation and
//! animation are ignored.

use std::io::Cursor;

use ::png::{ColorType, DecodeOptions, Decoder, DecodingError, Limits, Reader, Transformations};

use super::decode::zeros;
use super::{Fault, Size};
use crate::error::counted;

/// The most bytes that `Deflate` can make of one byte.
const EXPANSION: usize = 1032;

/// The most bytes of chunks that are kept in memory. Texts and colour profiles, which may be compressed, are
/// skipped.
const MAX_CHUNKS: usize = 64 << 20;

/// A PNG whose chunks were read up to the first pixels.
pub struct Png<'a> {
    reader: Reader<Cursor<&'a [u8]>>,
    size: Size,
}

impl<'a> Png<'a> {
    pub fn read(bytes: &'a [u8], max_pixels: usize) -> Result<Self, Fault> {
        let mut options = DecodeOptions::default();
        options.set_ignore_text_chunk(true);
        options.set_ignore_iccp_chunk(true);
        // A wrong checksum is an error in any chunk, because the damage may have changed its type.
        options.set_skip_ancillary_crc_failures(false);
        let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
        decoder.set_limits(Limits { bytes: MAX_CHUNKS });
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let info = decoder.read_header_info().map_err(damaged)?;
        let size = Size::checked(info.height as usize, info.width as usize, max_pixels)?;
        let raw = info.raw_bytes().min(usize::MAX / 2);
        if raw > bytes.len().saturating_mul(EXPANSION) {
            return Err(Fault::new(format!(
                "damaged PNG: the header says {size} pixels, for which {} are too few",
                counted(bytes.len() as u64, "byte")
            )));
        }
        // The decoder counts one line of at most four samples, too.
        decoder.set_limits(Limits { bytes: MAX_CHUNKS + 4 * size.width });
        let reader = decoder.read_info().map_err(damaged)?;
        // The decoder takes a palette of any other length, and panics when it looks up a colour.
        let info = reader.info();
        let palette = info.palette.as_ref().map_or(0, |palette| palette.len());
        if info.color_type == ColorType::Indexed && palette % 3 != 0 {
            return Err(Fault::new(format!(
                "damaged PNG: its palette has {palette} bytes; expected 3 for each colour"
            )));
        }
        Ok(Self { reader, size })
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
            let mut pixels = zeros(out.len() / 3 * samples)?;
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
        DecodingError::LimitsExceeded => Fault::new(format!(
            "a PNG with more than {MAX_CHUNKS} bytes of data about the image is not decoded"
        )),
        error => Fault::new(format!("damaged PNG: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use ::png::{BitDepth, ColorType, Encoder};

    use crate::image::Image;

    fn encoded(color: ColorType, depth: BitDepth, data: &[u8], width: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, width, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![1, 2, 3, 4, 5, 6]);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    fn decoded(png: &[u8]) -> Result<Vec<u8>, String> {
        let image = Image::read(png, 2).map_err(|fault| fault.to_string())?;
        let mut out = vec![0; image.size().bytes()];
        image.decode(&mut out).map(|()| out).map_err(|fault| fault.to_string())
    }

    #[test]
    fn every_kind_becomes_rgb() {
        let cases: [(ColorType, BitDepth, &[u8], &[u8]); 7] = [
            (ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6]),
            (ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 0, 4, 5, 6, 9], &[1, 2, 3, 4, 5, 6]),
            (ColorType::Grayscale, BitDepth::Eight, &[7, 8], &[7, 7, 7, 8, 8, 8]),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, &[7, 0, 8, 1], &[7, 7, 7, 8, 8, 8]),
            (ColorType::Grayscale, BitDepth::One, &[0b0100_0000], &[0, 0, 0, 255, 255, 255]),
            (ColorType::Grayscale, BitDepth::Sixteen, &[7, 255, 8, 0], &[7, 7, 7, 8, 8, 8]),
            (ColorType::Indexed, BitDepth::One, &[0b1000_0000], &[4, 5, 6, 1, 2, 3]),
        ];
        for (color, depth, data, expected) in cases {
            assert_eq!(decoded(&encoded(color, depth, data, 2)).unwrap(), expected, "{color:?} {depth:?}");
        }
    }

    #[test]
    fn a_palette_is_of_whole_colours() {
        let good = encoded(ColorType::Indexed, BitDepth::One, &[0b1000_0000], 2);
        let at = good.windows(4).position(|name| name == b"PLTE").unwrap();
        for bytes in [5, 7] {
            let mut chunk = b"PLTE".to_vec();
            chunk.resize(4 + bytes, 1);
            let mut bad = good[..at - 4].to_vec();
            bad.extend(u32::try_from(bytes).unwrap().to_be_bytes());
            bad.extend(&chunk);
            bad.extend(crc_of(&chunk).to_be_bytes());
            bad.extend(&good[at + 4 + 6 + 4..]);
            let message = decoded(&bad).unwrap_err();
            assert!(message.starts_with(&format!("damaged PNG: its palette has {bytes} bytes")), "{message}");
        }
    }

    fn crc_of(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ ((crc & 1) * 0xEDB8_8320))
        })
    }

    /// A picture that says it is of another size, and has bytes of any kind at its end.
    fn claiming(mut png: Vec<u8>, width: u32, height: u32, more: usize) -> Vec<u8> {
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc_of(&png[12..29]).to_be_bytes();
        png[29..33].copy_from_slice(&crc);
        png.resize(png.len() + more, 0);
        png
    }

    #[test]
    fn a_size_needs_bytes() {
        let good = encoded(ColorType::Grayscale, BitDepth::Eight, &[7, 8], 2);
        let length = good.len() + 100;
        // A line has one byte more than its pixels, and a byte of the file may stand for 1032.
        let (width, height) = (length as u32 - 1, 1032);
        let message = |more| {
            let png = claiming(good.clone(), width, height, more);
            Image::read(&png, 1 << 20).err().map(|fault| fault.to_string()).unwrap_or_default()
        };
        assert!(!message(100).contains("too few"), "{}", message(100));
        assert!(
            message(99).contains(&format!("for which {} bytes are too few", length - 1)),
            "{}",
            message(99)
        );
    }

    #[test]
    fn a_long_line_is_not_data_about_the_image() {
        // Of four samples, one line is more than what is kept of such data.
        let width = 17_000_000;
        let png = encoded(ColorType::Rgba, BitDepth::Eight, &vec![0; 4 * width as usize], width);
        assert!(Image::read(&png, 1 << 25).is_ok());
    }

    #[test]
    fn damage_is_an_error_wherever_it_is() {
        let good = encoded(ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6], 2);
        for length in 0..good.len() {
            assert!(decoded(&good[..length]).is_err(), "cut to {length}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert!(decoded(&bad).is_err(), "byte {at}");
        }
    }
}
