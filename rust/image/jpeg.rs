//! JPEG: the checks that our promise needs, around the decoder `libjpeg-turbo-rs`.
//!
//! The decoder's pixels are libjpeg-turbo's. Two things are ours: the markers are walked and checked first
//! ([`markers`]), so that a damaged file is an error before anything is decoded or allocated; and where
//! the libjpeg-turbo inside `MXNet` 1.9.1 (older than 2.1) decodes otherwise than today's, we follow it.

mod markers;
mod planes;

use libjpeg_turbo_rs::{DecodeLimits, Decoder, PixelFormat};

use self::markers::Layout;
use super::exif;
use super::turn::{turn, turned};
use super::{Fault, MAX_PIXELS, Size};

/// A JPEG whose markers have been checked.
pub struct Jpeg<'a> {
    bytes: &'a [u8],
    layout: Layout,
    orientation: u8,
}

impl<'a> Jpeg<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        Ok(Self { bytes, layout: Layout::read(bytes)?, orientation: exif::orientation(bytes) })
    }

    pub fn size(&self) -> Size {
        if self.orientation >= 5 { turned(self.layout.size) } else { self.layout.size }
    }

    pub fn decode(self, out: &mut [u8]) -> Result<(), Fault> {
        if self.orientation == 1 {
            return self.decode_stored(out);
        }
        let mut pixels = buffer(self.layout.size.bytes())?;
        self.decode_stored(&mut pixels)?;
        turn(&pixels, self.layout.size, self.orientation, out);
        Ok(())
    }

    fn decode_stored(&self, out: &mut [u8]) -> Result<(), Fault> {
        let limits = DecodeLimits {
            max_pixels: MAX_PIXELS as u64,
            max_scans: markers::MAX_SCANS,
            ..DecodeLimits::default()
        };
        let mut decoder = Decoder::new_with_limits(self.bytes, limits).map_err(damaged)?;
        decoder.set_stop_on_warning(true);
        let factors = self.layout.factors()?;
        if self.layout.components > 1 && (factors.contains(&(1, 2)) || factors[0] != (1, 1)) {
            let color = decoder.jpeg_color_space();
            let raw = decoder.decode_raw().map_err(damaged)?;
            return planes::to_rgb(&self.layout, &raw, color, out);
        }
        if self.layout.components == 4 {
            let mut inks = buffer(out.len() / 3 * 4)?;
            self.run(decoder, PixelFormat::Cmyk, &mut inks)?;
            for (pixel, ink) in out.chunks_exact_mut(3).zip(inks.chunks_exact(4)) {
                pixel.copy_from_slice(&rgb_of_inks(ink));
            }
            return Ok(());
        }
        self.run(decoder, PixelFormat::Rgb, out)
    }

    fn run(&self, mut decoder: Decoder<'_>, format: PixelFormat, out: &mut [u8]) -> Result<(), Fault> {
        decoder.set_output_format(format);
        let info = decoder.decode_image_into(out).map_err(damaged)?;
        let Size { height, width } = self.layout.size;
        if (info.height, info.width, info.bytes_written) != (height, width, out.len()) {
            return Err(Fault::new("damaged JPEG: its headers contradict each other"));
        }
        Ok(())
    }
}

fn damaged(error: libjpeg_turbo_rs::JpegError) -> Fault {
    Fault::new(format!("damaged JPEG: {error}"))
}

/// A buffer of zeros; too little memory is an error here and would be an abort with `vec!`.
fn buffer(length: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| Fault::new(format!("no memory for {length} bytes")))?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// `OpenCV`'s rule for the inks that libjpeg gives, which are inverted as Adobe writes them: 255 is none.
fn rgb_of_inks(ink: &[u8]) -> [u8; 3] {
    let black = i32::from(ink[3]);
    let mix = |ink: u8| (black - ((255 - i32::from(ink)) * black >> 8)) as u8;
    [mix(ink[0]), mix(ink[1]), mix(ink[2])]
}
