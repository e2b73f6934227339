//! JPEG, by the decoder `libjpeg-turbo-rs` and checks around it.
//!
//! The pixels are those of libjpeg-turbo. Two things are added. The markers are checked first ([`markers`]),
//! so that a damaged file is an error before anything is decoded or allocated. And where the libjpeg-turbo in
//! `MXNet` 1.9.1 (older than 2.1) gives other pixels than today's, this gives the older ones.

mod markers;
mod planes;

use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat};

use self::markers::Layout;
use super::decode::zeros;
use super::turn::{turn, turned};
use super::{Fault, Size, exif};

/// A JPEG whose markers were checked.
pub struct Jpeg<'a> {
    bytes: &'a [u8],
    layout: Layout,
    orientation: u8,
}

impl<'a> Jpeg<'a> {
    pub fn read(bytes: &'a [u8], max_pixels: usize) -> Result<Self, Fault> {
        let layout = Layout::read(bytes, max_pixels)?;
        Ok(Self { bytes, layout, orientation: exif::orientation(bytes) })
    }

    pub fn size(&self) -> Size {
        if self.orientation >= 5 { turned(self.layout.size) } else { self.layout.size }
    }

    pub fn decode(self, out: &mut [u8]) -> Result<(), Fault> {
        if self.orientation == 1 {
            return self.decode_stored(out);
        }
        let mut pixels = zeros(self.layout.size.bytes())?;
        self.decode_stored(&mut pixels)?;
        turn(&pixels, self.layout.size, self.orientation, out);
        Ok(())
    }

    fn decode_stored(&self, out: &mut [u8]) -> Result<(), Fault> {
        // The size was checked before, against the limit of the caller.
        let limits = DecodeLimits { max_scans: markers::MAX_SCANS, ..DecodeLimits::default() };
        let mut decoder = Decoder::new_with_limits(self.bytes, limits).map_err(damaged)?;
        decoder.set_stop_on_warning(true);
        let factors = self.layout.factors()?;
        let odd = match self.layout.components {
            1 => false,
            // The decoder panics on four inks with some samplings.
            4 => factors.iter().any(|factor| *factor != (1, 1)),
            _ => factors.contains(&(1, 2)) || factors[0] != (1, 1),
        };
        if odd {
            let color = decoder.jpeg_color_space();
            let raw = decoder.decode_raw().map_err(damaged)?;
            return planes::to_rgb(&self.layout, &raw, color, out);
        }
        if self.layout.components == 4 {
            let mut inks = zeros(out.len() / 3 * 4)?;
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

#[allow(clippy::needless_pass_by_value)] // for map_err
fn damaged(error: JpegError) -> Fault {
    match error {
        JpegError::AllocationFailed { bytes, .. } => Fault::Memory { bytes, available: None },
        error => Fault::new(format!("damaged JPEG: {error}")),
    }
}

/// `OpenCV`'s rule for the four inks that libjpeg gives. They are inverted, as Adobe writes them: 255 is no
/// ink.
fn rgb_of_inks(ink: &[u8]) -> [u8; 3] {
    let black = i32::from(ink[3]);
    let mix = |ink: u8| (black - (((255 - i32::from(ink)) * black) >> 8)) as u8;
    [mix(ink[0]), mix(ink[1]), mix(ink[2])]
}

#[cfg(test)]
mod tests {
    use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};
    use proptest::prelude::*;

    use crate::image::{Image, Size};

    fn encoded(height: usize, width: usize, subsampling: Subsampling, progressive: bool) -> Vec<u8> {
        let pixels: Vec<u8> = (0..height * width * 3).map(|at| (at * 37 % 251) as u8).collect();
        let encoder = Encoder::new(&pixels, width, height, PixelFormat::Rgb);
        encoder.quality(90).subsampling(subsampling).progressive(progressive).encode().unwrap()
    }

    fn decoded(jpeg: &[u8]) -> Result<Vec<u8>, String> {
        let image = Image::read(jpeg, 1 << 20).map_err(|fault| fault.to_string())?;
        let mut out = vec![0; image.size().bytes()];
        image.decode(&mut out).map(|()| out).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_common_samplings_go_straight_to_the_decoder() {
        for subsampling in [Subsampling::S444, Subsampling::S422, Subsampling::S420, Subsampling::S411] {
            for progressive in [false, true] {
                let jpeg = encoded(19, 33, subsampling, progressive);
                let size = Image::read(&jpeg, 19 * 33).ok().map(|image| image.size());
                assert_eq!(size, Some(Size { height: 19, width: 33 }));
                let expected = libjpeg_turbo_rs::decompress_to(&jpeg, PixelFormat::Rgb).unwrap().data;
                assert_eq!(decoded(&jpeg).unwrap(), expected);
            }
        }
    }

    #[test]
    fn half_height_chroma_is_rounded_as_before_2_1() {
        // Today's libjpeg-turbo adds 2 instead of 1 before it divides by 4 in every other row.
        let jpeg = encoded(16, 16, Subsampling::S440, false);
        let today = libjpeg_turbo_rs::decompress_to(&jpeg, PixelFormat::Rgb).unwrap().data;
        let ours = decoded(&jpeg).unwrap();
        let row = |y: usize| y * 48..(y + 1) * 48;
        for y in (0..16).step_by(2) {
            assert_eq!(ours[row(y)], today[row(y)], "row {y}");
        }
        assert_ne!(ours, today);
        assert!(ours.iter().zip(&today).all(|(a, b)| a.abs_diff(*b) <= 3));
    }

    #[test]
    fn four_inks_are_those_of_the_decoder_mixed_with_black() {
        let pixels: Vec<u8> = (0..19 * 33 * 4).map(|at| (at * 37 % 251) as u8).collect();
        let encoder = |factors: &[(u8, u8)]| {
            let encoder = Encoder::new(&pixels, 33, 19, PixelFormat::Cmyk).quality(90);
            encoder.sampling_factors(factors.to_vec()).encode().unwrap()
        };
        let plain = encoder(&[(1, 1); 4]);
        let inks = libjpeg_turbo_rs::decompress_to(&plain, PixelFormat::Cmyk).unwrap().data;
        // As OpenCV has it: what an ink leaves of black, in whole numbers.
        let mix = |ink: u8, black: u8| i32::from(black) - (((255 - i32::from(ink)) * i32::from(black)) >> 8);
        let expected: Vec<u8> =
            inks.chunks_exact(4).flat_map(|inks| [0, 1, 2].map(|at| mix(inks[at], inks[3]) as u8)).collect();
        assert_eq!(decoded(&plain).unwrap(), expected);
        // All inks at half the width are enlarged all the same way: to what the planes give.
        let half = decoded(&encoder(&[(2, 1), (1, 1), (1, 1), (2, 1)])).unwrap();
        assert_eq!(half.len(), expected.len());
        assert_ne!(half, expected);
        let distance = half.iter().zip(&expected).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
        assert!(distance / half.len() as u64 <= 64, "{}", distance / half.len() as u64);
    }

    #[test]
    fn a_turned_picture_keeps_its_colours() {
        let upright = encoded(19, 33, Subsampling::S420, false);
        let stored = decoded(&upright).unwrap();
        for orientation in 1..=8 {
            let exif = [
                &b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"[..],
                &[orientation],
                &[0; 6],
            ];
            // MXNet overlooks it after a JFIF header, which is 18 bytes.
            let jpeg = [&upright[..2], &exif.concat(), &upright[20..]].concat();
            let size = Size { height: 19, width: 33 };
            let (mut expected, turned) = (vec![0; stored.len()], super::turned(size));
            super::turn(&stored, size, orientation, &mut expected);
            let image = Image::read(&jpeg, 1 << 20).ok().unwrap();
            assert_eq!(image.size(), if orientation < 5 { size } else { turned });
            assert_eq!(decoded(&jpeg).unwrap(), expected, "orientation {orientation}");
        }
    }

    #[test]
    fn what_the_markers_prove_wrong() {
        type Edit<'a> = &'a dyn Fn(&mut Vec<u8>);
        let good = encoded(16, 16, Subsampling::S444, false);
        let message = |edit: Edit| {
            let mut bad = good.clone();
            edit(&mut bad);
            decoded(&bad).expect_err("an error")
        };
        let find = |marker: u8| good.windows(2).position(|pair| pair == [0xff, marker]).unwrap();
        let (frame, tables, scan, end) = (find(0xc0), find(0xc4), find(0xda), good.len() - 2);
        let cases: [(&str, Edit); 12] = [
            ("its end is missing", &|b| b.truncate(end)),
            ("its end is missing", &|b| b.truncate(scan + 1)),
            ("should start a marker", &|b| b.insert(frame, 7)),
            ("marker ff 02 where none is allowed", &|b| b[frame + 1] = 2),
            ("lossless", &|b| b[frame + 1] = 0xc3),
            ("hierarchical", &|b| b[frame + 1] = 0xc5),
            ("12 bits", &|b| b[frame + 4] = 12),
            ("sampling factors 0 x 1", &|b| b[frame + 11] = 1),
            ("two frame headers", &|b| {
                let copy = b[frame..frame + 19].to_vec();
                b.splice(frame..frame, copy);
            }),
            ("too many codes", &|b| b[tables + 5] = 3),
            ("scan parameters", &|b| b[scan + 11] = 1),
            ("restart marker ff d3 out of order", &|b| {
                b.splice(end..end, [0xff, 0xd3]);
            }),
        ];
        for (expected, edit) in cases {
            let text = message(edit);
            assert!(text.contains(expected), "{text}; expected {expected}");
        }
        assert!(decoded(&[good.as_slice(), b"trailing"].concat()).is_ok());
        assert!(decoded(&[0xff, 0xd8, 0xff, 0xd9]).unwrap_err().contains("no frame header"));
    }

    #[test]
    fn arithmetic_codes_need_a_valid_conditioning() {
        let pixels = [7; 16 * 16 * 3];
        let encoder = Encoder::new(&pixels, 16, 16, PixelFormat::Rgb).arithmetic(true);
        let good = encoder.encode().unwrap();
        let at = good.windows(2).position(|pair| pair == [0xff, 0xcc]).unwrap() + 4;
        assert_eq!(good[at..at + 4], [0, 0x10, 0x10, 5]);
        assert!(decoded(&good).is_ok());
        for (place, byte) in [(0, 0x20), (1, 0x01), (3, 0), (3, 64)] {
            let mut bad = good.clone();
            bad[at + place] = byte;
            assert!(decoded(&bad).unwrap_err().contains("conditioning"), "byte {place}");
        }
    }

    #[test]
    fn arithmetic_codes_with_restart_markers_are_not_decoded() {
        let pixels: Vec<u8> = (0..32 * 16 * 3).map(|at| (at * 37 % 251) as u8).collect();
        let encoded = |progressive, restarts| {
            let encoder = Encoder::new(&pixels, 32, 16, PixelFormat::Rgb).subsampling(Subsampling::S444);
            encoder.arithmetic(true).progressive(progressive).restart_blocks(restarts).encode().unwrap()
        };
        for progressive in [false, true] {
            let message = decoded(&encoded(progressive, 3)).unwrap_err();
            assert!(message.contains("arithmetic codes with restart markers"), "{message}");
        }
        let one_interval = encoded(false, 8);
        assert!(one_interval.windows(2).any(|pair| pair == [0xff, 0xdd]));
        let expected = libjpeg_turbo_rs::decompress_to(&one_interval, PixelFormat::Rgb).unwrap().data;
        assert_eq!(decoded(&one_interval).unwrap(), expected);
    }

    #[test]
    fn a_progressive_image_needs_all_its_scans() {
        let good = encoded(16, 16, Subsampling::S444, true);
        let scans: Vec<usize> =
            good.windows(2).enumerate().filter(|(_, pair)| *pair == [0xff, 0xda]).map(|(at, _)| at).collect();
        assert!(scans.len() > 3);
        for cut in &scans[1..3] {
            let bad = [&good[..*cut], &[0xff, 0xd9]].concat();
            assert!(decoded(&bad).unwrap_err().contains("scans are missing"));
        }
        let twice = [&good[..scans[1]], &good[scans[0]..]].concat();
        assert!(decoded(&twice).unwrap_err().contains("repeated"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn damage_ends_in_a_message(
            subsampling in prop::sample::select(vec![Subsampling::S444, Subsampling::S420, Subsampling::S440]),
            progressive: bool,
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut jpeg = encoded(17, 9, subsampling, progressive);
            for (at, byte) in edits {
                let at = at.index(jpeg.len());
                jpeg[at] = byte;
            }
            if let Some(cut) = cut {
                jpeg.truncate(cut.index(jpeg.len()));
            }
            if let Err(message) = decoded(&jpeg) {
                prop_assert!(!message.contains("gave up"), "{message}");
            }
        }
    }
}
