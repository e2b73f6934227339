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
