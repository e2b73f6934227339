//! Component planes to pixels, for samplings in which the decoder differs from the libjpeg of `MXNet`.
//!
//! These are 4:4:0 (full width, half height), whose interpolation is rounded in another way since
//! libjpeg-turbo 2.1, and files with finer chroma than luma, which the decoder rejects. This is libjpeg's
//! interpolation, written to be exact, not fast.

use libjpeg_turbo_rs::ColorSpace;
use libjpeg_turbo_rs::api::raw_data::RawImage;

use super::markers::Layout;
use super::rgb_of_inks;
use crate::image::decode::zeros;
use crate::image::{Fault, Size};

/// Interpolates the planes of `raw` to the size of the image and converts them to RGB.
pub fn to_rgb(layout: &Layout, raw: &RawImage, color: ColorSpace, out: &mut [u8]) -> Result<(), Fault> {
    let Size { height, width } = layout.size;
    let mut full = Vec::with_capacity(layout.components);
    for (number, factors) in layout.factors()?.into_iter().enumerate() {
        let stride = raw.plane_widths.get(number).copied().unwrap_or_default();
        let samples = raw.planes.get(number).map(Vec::as_slice).unwrap_or_default();
        let plane =
            Plane { samples, stride, height: height.div_ceil(factors.1), width: width.div_ceil(factors.0) };
        if plane.width > stride || plane.height * stride > samples.len() {
            return Err(Fault::new("damaged JPEG: its headers contradict each other"));
        }
        let mut enlarged = zeros(height * width)?;
        for (y, row) in enlarged.chunks_exact_mut(width).enumerate() {
            plane.enlarge(y, factors, row);
        }
        full.push(enlarged);
    }
    for (at, pixel) in out.chunks_exact_mut(3).enumerate() {
        let sample = |number: usize| full[number][at];
        let rgb = match (color, full.len()) {
            (ColorSpace::YCbCr, 3) => rgb_of_ycc(sample(0), sample(1), sample(2)),
            (ColorSpace::Rgb, 3) => [sample(0), sample(1), sample(2)],
            (ColorSpace::Ycck, 4) => {
                let [r, g, b] = rgb_of_ycc(sample(0), sample(1), sample(2));
                rgb_of_inks(&[255 - r, 255 - g, 255 - b, sample(3)])
            }
            (ColorSpace::Cmyk, 4) => rgb_of_inks(&[sample(0), sample(1), sample(2), sample(3)]),
            _ => return Err(Fault::new(format!("a JPEG of colours {color:?} is not decoded"))),
        };
        pixel.copy_from_slice(&rgb);
    }
    Ok(())
}

struct Plane<'a> {
    samples: &'a [u8],
    stride: usize,
    height: usize,
    width: usize,
}

impl Plane<'_> {
    /// Row `y` of the image, from a plane that is smaller by `factors` (horizontally, vertically).
    fn enlarge(&self, y: usize, (across, down): (usize, usize), out: &mut [u8]) {
        let near = self.row(y / down);
        // The second nearest row. Rows beyond the edges are copies of the edge rows.
        let far = match (down, y % 2) {
            (2, 1) => self.row((y / 2 + 1).min(self.height - 1)),
            (2, _) => self.row((y / 2).max(1) - 1),
            _ => near,
        };
        let blend = |x: usize| i32::from(near[x]) * 3 + i32::from(far[x]);
        match (across, down) {
            (1, 2) => (0..self.width).for_each(|x| out[x] = ((blend(x) + 1) / 4) as u8),
            (2, 1) if self.width > 2 => {
                self.double(|x| i32::from(near[x]) * 4, |sum, bias| (sum + bias * 4) / 16, [1, 2], out);
            }
            (2, 2) if self.width > 2 => {
                self.double(blend, |sum, bias| (sum + bias) / 16, [8, 7], out);
            }
            _ => out.iter_mut().enumerate().for_each(|(x, sample)| *sample = near[x / across]),
        }
    }

    /// Doubles a row horizontally. Each of the two new samples is 3 parts of the value and 1 part of the
    /// neighbour on its side. `biases` are added for rounding, to the left and to the right sample.
    fn double(
        &self,
        value: impl Fn(usize) -> i32,
        scale: impl Fn(i32, i32) -> i32,
        biases: [i32; 2],
        out: &mut [u8],
    ) {
        let last = self.width - 1;
        for (x, sample) in out.iter_mut().enumerate() {
            let (here, right) = (x / 2, x % 2 == 1);
            let other = if right { (here + 1).min(last) } else { here.max(1) - 1 };
            *sample = scale(value(here) * 3 + value(other), biases[usize::from(right)]) as u8;
        }
    }

    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..][..self.width]
    }
}

/// ITU-R BT.601 full range, in libjpeg's 16-bit fixed point.
fn rgb_of_ycc(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let clamp = |value: i32| value.clamp(0, 255) as u8;
    [
        clamp(y + ((91_881 * cr + HALF) >> 16)),
        clamp(y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16)),
        clamp(y + ((116_130 * cb + HALF) >> 16)),
    ]
}

#[cfg(test)]
mod tests {
    use libjpeg_turbo_rs::{Decoder, Encoder, PixelFormat};

    use super::*;

    const SIZES: [(usize, usize); 8] =
        [(1, 1), (2, 3), (3, 5), (16, 16), (17, 33), (24, 7), (9, 4), (40, 50)];

    /// A picture of colours in a JPEG, with these sampling factors for luma; those of the others are 1 x 1.
    fn encoded(
        (height, width): (usize, usize),
        factors: (u8, u8),
        others: (u8, u8),
        color: ColorSpace,
    ) -> Vec<u8> {
        let inks = matches!(color, ColorSpace::Cmyk | ColorSpace::Ycck);
        let (format, samples) = if inks { (PixelFormat::Cmyk, 4) } else { (PixelFormat::Rgb, 3) };
        let byte = |at: usize| (crate::mix::mix64(at as u64) >> 56) as u8 / 2;
        let pixels: Vec<u8> = (0..height * width * samples).map(byte).collect();
        let sampling = [factors, others, others, factors];
        Encoder::new(&pixels, width, height, format)
            .quality(95)
            .colorspace(color)
            .sampling_factors(sampling[..samples].to_vec())
            .encode()
            .unwrap()
    }

    struct Read {
        layout: Layout,
        raw: RawImage,
        color: ColorSpace,
    }

    fn read(jpeg: &[u8]) -> Read {
        let decoder = Decoder::new(jpeg).unwrap();
        let color = decoder.jpeg_color_space();
        Read { layout: Layout::read(jpeg, 1 << 20).unwrap(), raw: decoder.decode_raw().unwrap(), color }
    }

    fn rgb_of(read: &Read) -> Vec<u8> {
        let mut out = vec![0; read.layout.size.bytes()];
        to_rgb(&read.layout, &read.raw, read.color, &mut out).unwrap();
        out
    }

    #[test]
    fn where_today_s_libjpeg_does_the_same_the_pixels_are_its_own() {
        for size in SIZES {
            for factors in [(1, 1), (2, 1), (2, 2), (4, 1)] {
                let jpeg = encoded(size, factors, (1, 1), ColorSpace::YCbCr);
                let expected = libjpeg_turbo_rs::decompress_to(&jpeg, PixelFormat::Rgb).unwrap().data;
                assert_eq!(rgb_of(&read(&jpeg)), expected, "{size:?} {factors:?}");
            }
            let jpeg = encoded(size, (1, 1), (1, 1), ColorSpace::Rgb);
            let expected = libjpeg_turbo_rs::decompress_to(&jpeg, PixelFormat::Rgb).unwrap().data;
            assert_eq!(rgb_of(&read(&jpeg)), expected, "{size:?}");
        }
    }

    /// A sample of a plane; beyond its edges are copies of the edges.
    fn sample(raw: &RawImage, number: usize, (height, width): (usize, usize), y: isize, x: isize) -> i32 {
        let inside = |at: isize, length: usize| at.clamp(0, length as isize - 1) as usize;
        i32::from(raw.planes[number][inside(y, height) * raw.plane_widths[number] + inside(x, width)])
    }

    #[test]
    fn half_the_height_is_three_parts_of_the_nearer_row() {
        for size in SIZES {
            let read = read(&encoded(size, (1, 2), (1, 1), ColorSpace::YCbCr));
            let (rgb, (height, width)) = (rgb_of(&read), size);
            let small = (height.div_ceil(2), width);
            for y in 0..height as isize {
                let other = if y % 2 == 0 { y / 2 - 1 } else { y / 2 + 1 };
                for x in 0..width as isize {
                    let [cb, cr] = [1, 2].map(|number| {
                        let at = |row| sample(&read.raw, number, small, row, x);
                        ((3 * at(y / 2) + at(other) + 1) / 4) as u8
                    });
                    let luma = sample(&read.raw, 0, size, y, x) as u8;
                    let at = (y as usize * width + x as usize) * 3;
                    assert_eq!(rgb[at..at + 3], rgb_of_ycc(luma, cb, cr), "{size:?} {y} {x}");
                }
            }
        }
    }

    #[test]
    fn other_factors_repeat_samples() {
        for size in SIZES {
            for (down, across) in [(3, 1), (1, 3), (4, 1), (1, 4), (4, 2), (2, 4)] {
                let read = read(&encoded(size, (across, down), (1, 1), ColorSpace::YCbCr));
                let (rgb, (height, width)) = (rgb_of(&read), size);
                let (down, across) = (usize::from(down), usize::from(across));
                let small = (height.div_ceil(down), width.div_ceil(across));
                for y in 0..height {
                    for x in 0..width {
                        let at = |number, size, y, x| {
                            sample(&read.raw, number, size, y as isize, x as isize) as u8
                        };
                        let [cb, cr] = [1, 2].map(|number| at(number, small, y / down, x / across));
                        let expected = rgb_of_ycc(at(0, size, y, x), cb, cr);
                        let found = (y * width + x) * 3;
                        assert_eq!(rgb[found..found + 3], expected, "{size:?} {down} {across}: {y} {x}");
                    }
                }
            }
        }
    }

    #[test]
    fn colours_are_those_of_the_standard() {
        for y in (0..=255).step_by(5) {
            for cb in (0..=255).step_by(5) {
                for cr in (0..=255).step_by(5) {
                    let (luma, blue, red) = (f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0);
                    let expected =
                        [luma + 1.402 * red, luma - 0.344_136 * blue - 0.714_136 * red, luma + 1.772 * blue];
                    for (found, expected) in rgb_of_ycc(y, cb, cr).into_iter().zip(expected) {
                        let error = f64::from(found) - expected.clamp(0.0, 255.0);
                        assert!(error.abs() < 0.51, "{y} {cb} {cr}: {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn inks_are_mixed_with_black() {
        for size in SIZES {
            let read = read(&encoded(size, (2, 1), (2, 1), ColorSpace::Cmyk));
            assert_eq!((read.color, read.raw.planes.len()), (ColorSpace::Cmyk, 4));
            let rgb = rgb_of(&read);
            let mut read_ycck = self::read(&encoded(size, (2, 2), (1, 1), ColorSpace::Cmyk));
            read_ycck.color = ColorSpace::Ycck;
            // The same colours by the other way: as luma and chroma, and black apart.
            let of_ycck = rgb_of(&read_ycck);
            let ycc = rgb_of(&Read { color: ColorSpace::YCbCr, ..of_three(&read_ycck, size) });
            let (height, width) = size;
            for y in 0..height {
                for x in 0..width {
                    let at = y * width + x;
                    let ink =
                        |read: &Read, number| sample(&read.raw, number, size, y as isize, x as isize) as u8;
                    let inks = [0, 1, 2, 3].map(|number| ink(&read, number));
                    assert_eq!(rgb[3 * at..3 * at + 3], rgb_of_inks(&inks), "{size:?} {y} {x}");
                    let inks =
                        [255 - ycc[3 * at], 255 - ycc[3 * at + 1], 255 - ycc[3 * at + 2], ink(&read_ycck, 3)];
                    assert_eq!(of_ycck[3 * at..3 * at + 3], rgb_of_inks(&inks), "{size:?} {y} {x}");
                }
            }
        }
    }

    /// The first three planes, as if they were all.
    fn of_three(read: &Read, size: (usize, usize)) -> Read {
        let layout = Layout::read(&encoded(size, (2, 2), (1, 1), ColorSpace::YCbCr), 1 << 20).unwrap();
        let (mut raw, color) =
            (self::read(&encoded(size, (2, 2), (1, 1), ColorSpace::YCbCr)).raw, read.color);
        raw.planes = read.raw.planes[..3].to_vec();
        raw.plane_widths = read.raw.plane_widths[..3].to_vec();
        Read { layout, raw, color }
    }

    #[test]
    fn planes_that_are_too_small_and_unknown_colours_are_errors() {
        let good = || read(&encoded((16, 16), (1, 2), (1, 1), ColorSpace::YCbCr));
        let message = |read: &Read| {
            let mut out = vec![0; read.layout.size.bytes()];
            to_rgb(&read.layout, &read.raw, read.color, &mut out).map_err(|fault| fault.to_string())
        };
        assert!(message(&good()).is_ok());
        for number in 0..3 {
            let mut bad = good();
            let width = bad.raw.plane_widths[number];
            let rows = if number == 0 { 16 } else { 8 };
            bad.raw.planes[number].truncate(rows * width);
            assert!(message(&bad).is_ok(), "just as many rows as are needed");
            bad.raw.planes[number].truncate(rows * width - 1);
            assert!(message(&bad).unwrap_err().contains("contradict"));
            let mut bad = good();
            bad.raw.plane_widths[number] = 15;
            assert!(message(&bad).unwrap_err().contains("contradict"));
            bad.raw.plane_widths.truncate(number);
            assert!(message(&bad).unwrap_err().contains("contradict"));
        }
        let unknown = Read { color: ColorSpace::Cmyk, ..good() };
        assert!(message(&unknown).unwrap_err().contains("colours Cmyk"));
    }
}
