//! Random changes of training images, as `InsightFace` makes them: mirror, colour jitter, cutoff.
//!
//! What happens to an image is a pure function of a seed and the image's id, so that a run can be repeated
//! with any number of threads and any batches. Each choice has a random number of its own, so switching one
//! change on or off does not affect the other changes.

use std::ops::Range;

use super::Size;
use super::planes::{Affine, Pixelwise, interleave, split};
use crate::mix::{mix64, split_mix};
use crate::{Error, Isa, Result};

/// What may happen to an image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Augment {
    /// Mirror half of the images, at random.
    pub mirror: bool,
    /// Side of the square that is filled with grey, in pixels. 0: none.
    pub cutoff: usize,
    /// The factors of brightness, contrast and saturation are uniform in `1 - j .. 1 + j`. 0: unchanged.
    pub jitter: Jitter,
}

/// How far colours move.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Jitter {
    /// Range of the factor of all channels.
    pub brightness: f64,
    /// Range of the factor of the distance to the image's mean grey.
    pub contrast: f64,
    /// Range of the factor of the distance to the pixel's own grey.
    pub saturation: f64,
}

/// The weights of red, green and blue in grey (ITU-R BT.601), as in `MXNet` and `InsightFace`.
const GREY: [f64; 3] = [0.299, 0.587, 0.114];
/// Value of cut pixels: 0 after the `(x - 127.5) / 128` of the networks.
const CUT: f32 = 127.5;

/// The random numbers of one image.
#[derive(Clone, Copy)]
struct Draws(u64);

/// What a random number decides.
#[derive(Clone, Copy)]
enum Choice {
    Mirror,
    CutY,
    CutX,
    Brightness,
    Contrast,
    Saturation,
}

impl Draws {
    const fn new(seed: u64, id: i64) -> Self {
        Self(mix64(split_mix(seed, 3) ^ id as u64))
    }

    const fn number(self, choice: Choice) -> u64 {
        split_mix(self.0, choice as u64 + 1)
    }

    /// Uniform in `0..count`.
    const fn below(self, choice: Choice, count: usize) -> usize {
        ((self.number(choice) as u128 * count as u128) >> 64) as usize
    }

    /// Uniform in `1 - range .. 1 + range`.
    fn factor(self, choice: Choice, range: f64) -> f64 {
        let unit = (self.number(choice) >> 11) as f64 / (1_u64 << 53) as f64;
        1.0 + range * (2.0 * unit - 1.0)
    }
}

/// The order of an image's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All of red, then all of green, then all of blue.
    Planes,
    /// The three channels of a pixel, then those of the next.
    Pixels,
}

impl Order {
    fn write(self, isa: Isa, rgb: &[u8], size: Size, how: &Pixelwise, values: &mut [f32]) {
        match self {
            Self::Planes => split(isa, rgb, size.width, how, values),
            Self::Pixels => interleave(isa, rgb, size.width, how, values),
        }
    }

    /// How many channels take turns in a row of values.
    const fn channels_of_row(self) -> usize {
        match self {
            Self::Planes => 1,
            Self::Pixels => 3,
        }
    }
}

impl Augment {
    /// Writes the augmented image.
    fn write(&self, isa: Isa, draws: Draws, rgb: &[u8], size: Size, order: Order, values: &mut [f32]) {
        let how = Pixelwise {
            mirror: self.mirror && draws.number(Choice::Mirror) >> 63 == 1,
            color: self.jitter.draw(draws, rgb),
        };
        order.write(isa, rgb, size, &how, values);
        if self.cutoff > 0 {
            let span = |choice, length| -> Range<usize> {
                let (centre, half) = (draws.below(choice, length), self.cutoff / 2);
                centre.saturating_sub(half)..centre.saturating_add(half).min(length)
            };
            let (rows, columns) = (span(Choice::CutY, size.height), span(Choice::CutX, size.width));
            let together = order.channels_of_row();
            for plane in values.chunks_exact_mut(together * size.height * size.width) {
                for row in plane.chunks_exact_mut(together * size.width).take(rows.end).skip(rows.start) {
                    row[together * columns.start..together * columns.end].fill(CUT);
                }
            }
        }
    }
}

impl Jitter {
    /// The three changes as one map of a pixel. `None` if nothing is to change.
    ///
    /// Each change mixes a pixel with a grey: black, the image's mean grey, or its own grey. A change alters
    /// the grey of another change by a factor at most, so their order makes no difference.
    fn draw(&self, draws: Draws, rgb: &[u8]) -> Option<Affine> {
        if *self == Self::default() {
            return None;
        }
        let brightness = draws.factor(Choice::Brightness, self.brightness);
        let contrast = draws.factor(Choice::Contrast, self.contrast);
        let saturation = draws.factor(Choice::Saturation, self.saturation);
        let [red, green, blue] = mean(rgb);
        let mean_grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue;
        let of_pixel = brightness * contrast * saturation;
        let of_grey = brightness * contrast * (1.0 - saturation);
        let offset = (brightness * (1.0 - contrast) * mean_grey) as f32;
        let rows = [0, 1, 2].map(|channel| {
            let mut row = GREY.map(|weight| of_grey * weight);
            row[channel] += of_pixel;
            [row[0] as f32, row[1] as f32, row[2] as f32, offset]
        });
        Some(Affine { rows })
    }
}

/// The mean of each channel.
fn mean(rgb: &[u8]) -> [f64; 3] {
    let mut sums = [0_u64; 3];
    for pixel in rgb.chunks_exact(3) {
        for (sum, value) in sums.iter_mut().zip(pixel) {
            *sum += u64::from(*value);
        }
    }
    sums.map(|sum| sum as f64 / (rgb.len() / 3) as f64)
}

/// The images of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// Images of one size, one after another.
    pub pixels: &'a [u8],
    /// Their size.
    pub size: Size,
    /// The index of each image of the batch. An image may occur several times.
    pub rows: &'a [i64],
}

/// Writes the chosen images into `values`, in this order. `augment` is how to change them, the seed, and an id
/// for each of the rows.
///
/// Runs on the calling thread: 60 images take a fraction of a millisecond, and a batch is assembled while the
/// network trains on the batch before it.
pub fn assemble(
    chosen: &Chosen<'_>,
    augment: Option<(&Augment, u64, &[i64])>,
    isa: Isa,
    order: Order,
    values: &mut [f32],
) -> Result<()> {
    let Chosen { pixels, size, rows } = *chosen;
    let (frame, count) = (size.bytes(), rows.len());
    if frame == 0 || !pixels.len().is_multiple_of(frame) || Some(values.len()) != frame.checked_mul(count) {
        let (given, room) = (pixels.len(), values.len());
        return Err(Error::Value(format!(
            "{given} bytes of {size} images, of which {count} are chosen, do not fill {room} floats"
        )));
    }
    if let Some(ids) = augment.map(|(_, _, ids)| ids.len()).filter(|ids| *ids != count) {
        return Err(Error::Value(format!("{count} rows are chosen, but there are {ids} ids")));
    }
    for (at, (row, values)) in rows.iter().zip(values.chunks_exact_mut(frame)).enumerate() {
        let image = usize::try_from(*row).ok().and_then(|row| pixels.chunks_exact(frame).nth(row));
        let Some(rgb) = image else {
            let images = pixels.len() / frame;
            return Err(Error::Value(format!("row {row} is chosen, but there are {images} images")));
        };
        match augment {
            None => order.write(isa, rgb, size, &Pixelwise::default(), values),
            Some((augment, seed, ids)) => {
                augment.write(isa, Draws::new(seed, ids[at]), rgb, size, order, values);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { height: 5, width: 7 };

    fn images(count: usize) -> Vec<u8> {
        (0..count * SIZE.bytes()).map(|at| (at * 37 % 251) as u8).collect()
    }

    fn batch(rows: &[i64], augment: Option<(&Augment, u64, &[i64])>) -> Result<Vec<f32>> {
        let pixels = images(4);
        let chosen = Chosen { pixels: &pixels, size: SIZE, rows };
        let in_order = |order| {
            let mut values = vec![f32::NAN; rows.len() * SIZE.bytes()];
            assemble(&chosen, augment, Isa::PORTABLE, order, &mut values).map(|()| values)
        };
        let (planes, pixels) = (in_order(Order::Planes)?, in_order(Order::Pixels)?);
        let (frame, plane) = (SIZE.bytes(), SIZE.bytes() / 3);
        let at = |at: usize| at / frame * frame + at % 3 * plane + at % frame / 3;
        assert_eq!(pixels, (0..planes.len()).map(|value| planes[at(value)]).collect::<Vec<_>>());
        Ok(planes)
    }

    #[test]
    fn an_image_depends_on_its_id_and_the_seed_alone() {
        let jitter = Jitter { brightness: 0.2, contrast: 0.2, saturation: 0.2 };
        let augment = Augment { mirror: true, cutoff: 3, jitter };
        let frame = SIZE.bytes();
        let all = batch(&[0, 1, 2, 3], Some((&augment, 5, &[10, 11, 12, 13]))).unwrap();
        let some = batch(&[3, 1, 3], Some((&augment, 5, &[13, 11, 13]))).unwrap();
        assert_eq!(some[..frame], all[3 * frame..]);
        assert_eq!(some[frame..2 * frame], all[frame..2 * frame]);
        assert_eq!(some[2 * frame..], all[3 * frame..]);
        let other_seed = batch(&[0, 1, 2, 3], Some((&augment, 6, &[10, 11, 12, 13]))).unwrap();
        assert_ne!(all, other_seed);
    }

    /// Number `n` of the sequence that an image's changes are drawn from, and the same between 0 and 1.
    fn drawn(seed: u64, id: i64, n: u64) -> (u64, f64) {
        let number = split_mix(mix64(split_mix(seed, 3) ^ id as u64), n);
        (number, number as f64 / 2_f64.powi(64))
    }

    #[test]
    fn changes_are_as_they_are_defined() {
        let jitter = Jitter { brightness: 0.3, contrast: 0.5, saturation: 0.7 };
        let (seed, frame, plane) = (9, SIZE.bytes(), SIZE.bytes() / 3);
        for (mirror, cutoff, jitter) in [
            (true, 0, Jitter::default()),
            (false, 3, Jitter::default()),
            (false, 4, Jitter::default()),
            (false, 1, Jitter::default()),
            (false, 0, Jitter { brightness: 0.4, ..Jitter::default() }),
            (false, 0, Jitter { contrast: 0.4, ..Jitter::default() }),
            (false, 0, Jitter { saturation: 0.4, ..Jitter::default() }),
            (true, 3, jitter),
        ] {
            let ids: Vec<i64> = (-20..20).collect();
            let rows: Vec<i64> = ids.iter().map(|id| id.rem_euclid(4)).collect();
            let found = batch(&rows, Some((&Augment { mirror, cutoff, jitter }, seed, &ids))).unwrap();
            for ((row, id), found) in rows.iter().zip(&ids).zip(found.chunks_exact(frame)) {
                let rgb = &images(4)[*row as usize * frame..][..frame];
                let draw = |n| drawn(seed, *id, n);
                let grey = |pixel: &[f64]| 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
                let mut pixels: Vec<Vec<f64>> =
                    rgb.chunks_exact(3).map(|p| p.iter().map(|x| f64::from(*x)).collect()).collect();
                let mean = pixels.iter().map(|pixel| grey(pixel)).sum::<f64>() / plane as f64;
                // Towards black, towards the mean grey of the image, and towards the grey of the pixel.
                let factor = |n, range: f64| 1.0 - range + 2.0 * range * draw(n).1;
                let [brightness, contrast, saturation] =
                    [factor(4, jitter.brightness), factor(5, jitter.contrast), factor(6, jitter.saturation)];
                for pixel in &mut pixels {
                    *pixel = pixel.iter().map(|x| mean + contrast * (x - mean)).collect();
                    let own = grey(pixel);
                    *pixel = pixel.iter().map(|x| brightness * (own + saturation * (x - own))).collect();
                }
                if mirror && draw(1).0 >= 1 << 63 {
                    pixels.chunks_exact_mut(SIZE.width).for_each(<[_]>::reverse);
                }
                let centre = |n, length: usize| (draw(n).1 * length as f64) as usize;
                let (y, x) = (centre(2, SIZE.height), centre(3, SIZE.width));
                let is_cut = |at: usize, centre: usize| {
                    let half = cutoff as isize / 2;
                    (-half..half).contains(&(at as isize - centre as isize))
                };
                for (at, pixel) in pixels.iter().enumerate() {
                    let cut = is_cut(at / SIZE.width, y) && is_cut(at % SIZE.width, x);
                    for (channel, value) in pixel.iter().enumerate() {
                        let expected = if cut { 127.5 } else { *value };
                        let found = f64::from(found[channel * plane + at]);
                        assert!((found - expected).abs() < 1e-3, "{found} {expected}: image {id}, {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_factor_of_one_changes_nothing() {
        let tiny = Jitter { brightness: 1e-300, ..Jitter::default() };
        let plain = batch(&[0, 1], None).unwrap();
        let same = batch(&[0, 1], Some((&Augment { jitter: tiny, ..Augment::default() }, 0, &[1, 2])));
        assert_eq!(same.unwrap(), plain);
    }

    #[test]
    fn half_of_the_images_are_mirrored_and_centres_are_everywhere() {
        let draws: Vec<_> = (0..4000).map(|id| Draws::new(1, id)).collect();
        let mirrored = draws.iter().filter(|draw| draw.number(Choice::Mirror) >> 63 == 1).count();
        assert!((1900..2100).contains(&mirrored), "{mirrored}");
        let mut centres = [0; 35];
        for draw in &draws {
            centres[draw.below(Choice::CutY, 5) * 7 + draw.below(Choice::CutX, 7)] += 1;
        }
        assert!(centres.iter().all(|count| (60..180).contains(count)), "{centres:?}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let message = |rows: &[i64]| batch(rows, None).unwrap_err().to_string();
        assert!(message(&[4]).contains("row 4 is chosen, but there are 4 images"));
        assert!(message(&[-1]).contains("row -1 is chosen"));
        let few = batch(&[0, 1], Some((&Augment::default(), 0, &[1])));
        assert!(few.unwrap_err().to_string().contains("there are 1 ids"));
        let chosen = Chosen { pixels: &[0; 10], size: SIZE, rows: &[0] };
        assert!(assemble(&chosen, None, Isa::PORTABLE, Order::Planes, &mut [0.0; 105]).is_err());
        let pixels = images(1);
        let of = |size, room: usize| {
            let chosen = Chosen { pixels: &pixels, size, rows: &[0] };
            assemble(&chosen, None, Isa::PORTABLE, Order::Planes, &mut vec![0.0; room]).is_ok()
        };
        assert!(of(SIZE, 105) && !of(SIZE, 104) && !of(SIZE, 210));
        assert!(!of(Size { height: 0, width: 7 }, 0), "images of no pixels");
    }
}
