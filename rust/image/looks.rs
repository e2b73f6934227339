//! What decoded images look like, in a few numbers: enough to find pictures that show nothing, and pictures that
//! occur twice.
//!
//! All numbers are functions of one image, from sums of whole numbers: they depend on nothing else in the batch.

use rayon::prelude::*;

use super::Size;
use crate::{Error, Interrupt, Result, memory};

/// Cells of the grid that an image is reduced to, in each direction.
const CELLS: usize = 16;
/// Lowest frequencies that are kept in each direction.
const WAVES: usize = 8;
/// Numbers in a sketch: all frequencies but 0 and 0, which is the brightness.
pub const SKETCH: usize = WAVES * WAVES - 1;
/// Of brightness, contrast and detail.
pub const MEASURES: usize = 3;
/// Images that a thread takes between two looks at the interrupt, 70 us each for 112 x 112.
const UNIT: usize = 32;

/// Writes for each image of (B, H, W, 3) its brightness (mean of the gray levels), its contrast (their standard
/// deviation) and its detail (that of their Laplacian), and its sketch.
///
/// A sketch is a unit vector, or zero for a uniform image, and changes little if an image is shifted a little
/// or encoded again. The mirrored image has the same first 31 numbers, which are those of horizontally even
/// frequencies, and the negative of the other 32.
pub fn look(
    pixels: &[u8],
    size: Size,
    measures: &mut [f32],
    sketches: &mut [f32],
    interrupt: &Interrupt,
) -> Result<()> {
    let frame = size.bytes();
    let count = measures.len() / MEASURES;
    if frame == 0 || pixels.len() != frame * count || sketches.len() != SKETCH * count {
        let (bytes, room) = (pixels.len(), sketches.len());
        return Err(Error::Value(format!("{bytes} bytes of {size} images do not fill {room} floats")));
    }
    let waves = Waves::new();
    pixels
        .par_chunks(UNIT * frame)
        .zip(measures.par_chunks_mut(UNIT * MEASURES))
        .zip(sketches.par_chunks_mut(UNIT * SKETCH))
        .try_for_each_init(Vec::new, |gray, ((pixels, measures), sketches)| {
            interrupt.check()?;
            let numbers = measures.chunks_exact_mut(MEASURES).zip(sketches.chunks_exact_mut(SKETCH));
            for (rgb, (measures, sketch)) in pixels.chunks_exact(frame).zip(numbers) {
                memory::resize(gray, frame / 3, 0, "the gray levels of an image")?;
                for (level, rgb) in gray.iter_mut().zip(rgb.chunks_exact(3)) {
                    *level = luma([rgb[0], rgb[1], rgb[2]]);
                }
                let [brightness, contrast] = mean_and_deviation(gray.iter().map(|level| i32::from(*level)));
                let [_, detail] = mean_and_deviation(laplacian(gray, size.width));
                measures.copy_from_slice(&[brightness, contrast, detail]);
                waves.sketch(&cells(gray, size), sketch);
            }
            Ok(())
        })
}

/// The gray level of a colour: ITU-R BT.601 in 8 bits.
pub fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((77 * u32::from(r) + 150 * u32::from(g) + 29 * u32::from(b) + 128) >> 8) as u8
}

fn mean_and_deviation(values: impl Iterator<Item = i32>) -> [f32; 2] {
    let (mut count, mut sum, mut squares) = (0_i64, 0_i64, 0_i64);
    for value in values {
        count += 1;
        sum += i64::from(value);
        squares += i64::from(value * value);
    }
    let count = count.max(1) as f64;
    let mean = sum as f64 / count;
    [mean as f32, (squares as f64 / count - mean * mean).max(0.0).sqrt() as f32]
}

/// Four times each inner pixel, less its neighbours.
fn laplacian(gray: &[u8], width: usize) -> impl Iterator<Item = i32> {
    let (inner, two_rows) = (width.saturating_sub(2), 2 * width);
    gray.windows(two_rows + width.max(1)).step_by(width.max(1)).flat_map(move |rows| {
        let [above, row, below] = [0, width, two_rows].map(|from| &rows[from..from + width]);
        (1..=inner).map(move |x| {
            let sides = i32::from(row[x - 1]) + i32::from(row[x + 1]);
            4 * i32::from(row[x]) - sides - i32::from(above[x]) - i32::from(below[x])
        })
    })
}

/// Means of the gray levels in a grid over the image. An image of fewer pixels repeats some.
fn cells(gray: &[u8], size: Size) -> [[f64; CELLS]; CELLS] {
    let bounds = |cell: usize, pixels: usize| {
        let from = cell * pixels / CELLS;
        from..((cell + 1) * pixels / CELLS).max(from + 1)
    };
    std::array::from_fn(|down| {
        let mut row = [0.0; CELLS];
        let lines = bounds(down, size.height);
        for (across, mean) in row.iter_mut().enumerate() {
            let columns = bounds(across, size.width);
            let sum: u64 = lines
                .clone()
                .flat_map(|y| &gray[y * size.width..][columns.clone()])
                .map(|level| u64::from(*level))
                .sum();
            *mean = sum as f64 / (lines.len() * columns.len()) as f64;
        }
        row
    })
}

/// The cosines that a sketch is made of.
struct Waves([[f64; CELLS]; WAVES]);

impl Waves {
    fn new() -> Self {
        let wave = |frequency: usize, cell: usize| {
            (std::f64::consts::PI * (cell as f64 + 0.5) * frequency as f64 / CELLS as f64).cos()
        };
        Self(std::array::from_fn(|frequency| std::array::from_fn(|cell| wave(frequency, cell))))
    }

    /// Weights grow with the square root of the frequency. In photographs amplitudes fall with it, so that
    /// without weights the lowest frequencies, in which many pictures agree, would be most of a sketch.
    fn sketch(&self, cells: &[[f64; CELLS]; CELLS], sketch: &mut [f32]) {
        let dot = |a: &[f64; CELLS], b: &[f64; CELLS]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut found = [0.0; WAVES * WAVES];
        let even_first = (0..WAVES).step_by(2).chain((1..WAVES).step_by(2));
        for (across, found) in even_first.zip(found.chunks_exact_mut(WAVES)) {
            let column = std::array::from_fn(|down| dot(&cells[down], &self.0[across]));
            for (down, found) in found.iter_mut().enumerate() {
                let weight = ((down * down + across * across) as f64).sqrt().sqrt();
                *found = weight * dot(&column, &self.0[down]);
            }
        }
        let length = found.iter().map(|value| value * value).sum::<f64>().sqrt();
        // What rounding leaves of a uniform image is not a direction.
        let scale = if length > 1e-6 { 1.0 / length } else { 0.0 };
        for (value, found) in sketch.iter_mut().zip(&found[1..]) {
            *value = (found * scale) as f32;
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // the numbers are exact
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn looks(pixels: &[u8], size: Size) -> ([f32; MEASURES], [f32; SKETCH]) {
        let (mut measures, mut sketch) = ([f32::NAN; MEASURES], [f32::NAN; SKETCH]);
        look(pixels, size, &mut measures, &mut sketch, &Interrupt::new()).unwrap();
        (measures, sketch)
    }

    #[test]
    fn a_uniform_image_has_no_contrast_and_no_sketch() {
        for level in [0, 7, 255] {
            let (measures, sketch) = looks(&[level; 20 * 9 * 3], Size { height: 20, width: 9 });
            assert_eq!(measures, [f32::from(level), 0.0, 0.0]);
            assert_eq!(sketch, [0.0; SKETCH]);
        }
    }

    #[test]
    fn detail_is_the_deviation_of_the_laplacian() {
        // One bright pixel in the middle of 3 x 3: a single inner pixel, so its Laplacian does not vary.
        let mut pixels = [0; 27];
        pixels[12..15].fill(100);
        assert_eq!(looks(&pixels, Size { height: 3, width: 3 }).0[2], 0.0);
        // In 3 x 4 there are two: 4 * 100, and -100.
        let mut pixels = [0; 36];
        pixels[15..18].fill(100);
        assert_eq!(looks(&pixels, Size { height: 3, width: 4 }).0[2], 250.0);
    }

    /// All numbers of an image of colours by their definitions, one by one.
    #[test]
    fn numbers_are_as_they_are_defined() {
        for (height, width) in [(16, 16), (33, 21), (5, 40), (1, 3), (2, 2), (3, 1), (112, 96)] {
            let mut state = 7 * height as u64;
            let rgb: Vec<u8> = (0..height * width * 3)
                .map(|_| {
                    state += 1;
                    (crate::mix::mix64(state) >> 56) as u8
                })
                .collect();
            let gray: Vec<f64> = rgb
                .chunks_exact(3)
                .map(|p| {
                    (0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2])).round()
                })
                .collect();
            let at = |y: usize, x: usize| gray[y * width + x];
            let deviation = |values: &[f64]| {
                let count = values.len().max(1) as f64;
                let mean = values.iter().sum::<f64>() / count;
                (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt()
            };
            let inner = (1..height.max(1) - 1).flat_map(|y| (1..width.max(1) - 1).map(move |x| (y, x)));
            let laplacian: Vec<f64> = inner
                .map(|(y, x)| 4.0 * at(y, x) - at(y - 1, x) - at(y + 1, x) - at(y, x - 1) - at(y, x + 1))
                .collect();
            let mean = gray.iter().sum::<f64>() / gray.len() as f64;
            let (measures, sketch) = looks(&rgb, Size { height, width });
            // Weights of 8 bits are up to 0.002 from those of the definition.
            for (found, expected) in measures.iter().zip([mean, deviation(&gray), deviation(&laplacian)]) {
                assert!((f64::from(*found) - expected).abs() < 1.5, "{found} {expected}: {height} x {width}");
            }
            // Means of 16 x 16 parts, and how much of each wave is in these.
            let part = |cell: usize, pixels: usize| {
                let from = cell * pixels / 16;
                from..((cell + 1) * pixels / 16).max(from + 1)
            };
            let cell = |down: usize, across: usize| {
                let (rows, columns) = (part(down, height), part(across, width));
                let count = (rows.len() * columns.len()) as f64;
                rows.flat_map(|y| columns.clone().map(move |x| (y, x))).map(|(y, x)| at(y, x)).sum::<f64>()
                    / count
            };
            let wave = |frequency: usize, cell: usize| {
                (std::f64::consts::PI / 16.0 * frequency as f64 * (cell as f64 + 0.5)).cos()
            };
            let mut expected = Vec::new();
            for across in [0, 2, 4, 6, 1, 3, 5, 7] {
                for down in 0..8 {
                    let mut sum = 0.0;
                    for y in 0..16 {
                        for x in 0..16 {
                            sum += cell(y, x) * wave(down, y) * wave(across, x);
                        }
                    }
                    expected.push(sum * ((down * down + across * across) as f64).powf(0.25));
                }
            }
            let length = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
            for (number, (found, expected)) in sketch.iter().zip(&expected[1..]).enumerate() {
                let expected = if length > 1.0 { expected / length } else { 0.0 };
                assert!((f64::from(*found) - expected).abs() < 0.02, "{number}: {found} {expected}");
            }
        }
    }

    #[test]
    fn a_gray_level_is_the_nearest_to_a_mean_with_weights() {
        let of = |r, g, b| i32::from(luma([r, g, b]));
        assert_eq!([of(255, 0, 0), of(0, 255, 0), of(0, 0, 255), of(255, 255, 255)], [77, 149, 29, 255]);
        assert_eq!([of(0, 0, 0), of(1, 1, 1), of(2, 0, 0), of(0, 1, 0)], [0, 1, 1, 1]);
    }

    proptest! {
        #[test]
        fn a_mirrored_image_has_the_same_sketch(height in 1_usize..40, width in 1_usize..40, seed: u8) {
            let width = width.next_multiple_of(CELLS); // else cells are of different widths
            let pixels: Vec<u8> =
                (0..height * width).flat_map(|i| [(i * i / 7) as u8 ^ seed; 3]).collect();
            let mirrored: Vec<u8> = pixels
                .chunks_exact(3 * width)
                .flat_map(|row| row.chunks_exact(3).rev().flatten().copied())
                .collect();
            let size = Size { height, width };
            let ((a, sketch), (b, other)) = (looks(&pixels, size), looks(&mirrored, size));
            prop_assert_eq!(a, b);
            for (at, (one, other)) in sketch.iter().zip(other).enumerate() {
                let other = if at < SKETCH / 2 { other } else { -other };
                prop_assert!((one - other).abs() < 1e-5);
            }
        }

        #[test]
        fn an_image_looks_the_same_in_any_batch(count in 1_usize..80, height in 1_usize..5, width in 1_usize..5) {
            let size = Size { height, width };
            let pixels: Vec<u8> = (0..count * size.bytes()).map(|i| (i * i / 5) as u8).collect();
            let (mut measures, mut sketches) = (vec![0.0; count * MEASURES], vec![0.0; count * SKETCH]);
            look(&pixels, size, &mut measures, &mut sketches, &Interrupt::new()).unwrap();
            for (at, image) in pixels.chunks_exact(size.bytes()).enumerate() {
                let (alone, sketch) = looks(image, size);
                prop_assert_eq!(&measures[at * MEASURES..][..MEASURES], &alone);
                prop_assert_eq!(&sketches[at * SKETCH..][..SKETCH], &sketch);
            }
        }
    }

    #[test]
    fn images_must_fill_the_numbers() {
        let (mut measures, mut sketches) = ([0.0; 3], [0.0; SKETCH]);
        let size = Size { height: 1, width: 1 };
        assert!(look(&[0; 6], size, &mut measures, &mut sketches, &Interrupt::new()).is_err());
        assert!(look(&[0; 3], size, &mut measures, &mut sketches[1..], &Interrupt::new()).is_err());
        let none = Size { height: 0, width: 1 };
        assert!(look(&[], none, &mut measures, &mut sketches, &Interrupt::new()).is_err());
        assert!(look(&[0; 3], size, &mut measures, &mut sketches, &Interrupt::new()).is_ok());
        let raised = Interrupt::new();
        raised.raise();
        assert!(look(&[0; 3], size, &mut measures, &mut sketches, &raised).is_err());
    }
}
