//! JPEG files, against libjpeg-turbo in C.
//!
//! Whatever is decoded must be what libjpeg decodes, pixel for pixel, even if that warns of damage. A file that is not
//! decoded must not have made the decoder panic; why it is not cannot be compared, because many errors here are warnings
//! there. Blocks that leave the range of samples by far have no defined pixels: libjpeg's C and assembler differ.

use std::panic::catch_unwind;

use fasttriplet::image::{Image, Size};
use libjpeg_turbo_rs::read_coefficients;
use mozjpeg::{ColorSpace, Decompress};

/// Larger pictures are not decoded.
const MOST: usize = 1 << 18;
/// 4:4:0 is interpolated with the rounding of libjpeg-turbo before 2.1, as in `MXNet`; each sample then differs by 1
/// at most, and a colour by what the conversion makes of that.
const ROUNDING: u8 = 3;

/// `data` is a JPEG file.
pub fn check(data: &[u8]) {
    let Ok(image) = Image::read(data, MOST) else { return };
    let size = image.size();
    if !data.starts_with(&[0xff, 0xd8]) {
        return;
    }
    let mut out = vec![0; size.bytes()];
    if let Err(fault) = image.decode(&mut out) {
        let text = fault.to_string();
        assert!(!text.contains("panic"), "{text}");
        return;
    }
    let expected = libjpeg(data).expect("libjpeg decodes it");
    if leaves_the_range(data) {
        return;
    }
    let limit = if expected.half_height { ROUNDING } else { 0 };
    // Orientations that EXIF data may ask for.
    let turns = if data.windows(2).any(|pair| pair == [0xff, 0xe1]) { 1..=8 } else { 1..=1 };
    let equal = |turn| {
        let turned = turned(&expected, turn);
        (turned.0 == size)
            .then(|| turned.1.iter().zip(&out).all(|(one, other)| one.abs_diff(*other) <= limit))
    };
    assert!(turns.into_iter().any(|turn| equal(turn) == Some(true)), "other pixels than libjpeg");
}

struct Picture {
    size: Size,
    rgb: Vec<u8>,
    /// A component has half the height of the image and its whole width.
    half_height: bool,
}

/// What libjpeg shows. Four inks become RGB by the rule of `OpenCV`.
fn libjpeg(data: &[u8]) -> Option<Picture> {
    // Errors unwind without a call of the panic hook, with which libFuzzer would end the process.
    let picture = catch_unwind(|| {
        let decoder = Decompress::new_mem(data).ok()?;
        let largest = decoder.components().iter().map(|c| (c.h_samp_factor, c.v_samp_factor));
        let (h, v) = largest.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))?;
        let half_height =
            decoder.components().iter().any(|c| c.h_samp_factor == h && 2 * c.v_samp_factor == v);
        let inks = decoder.components().len() == 4;
        let mut decoder =
            decoder.to_colorspace(if inks { ColorSpace::JCS_CMYK } else { ColorSpace::JCS_RGB }).ok()?;
        let size = Size { height: decoder.height(), width: decoder.width() };
        let mut rgb = decoder.read_scanlines::<u8>().ok()?;
        decoder.finish().ok()?;
        if inks {
            let mix = |ink: &u8, black: u8| black - (((255 - u32::from(*ink)) * u32::from(black)) >> 8) as u8;
            rgb = rgb.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|i| mix(&p[i], p[3]))).collect();
        }
        Some(Picture { size, rgb, half_height })
    });
    picture.ok()?
}

/// Whether a block, transformed back to samples around 0, has one beyond 500. libjpeg's C takes samples modulo 1024
/// before it limits them to -128 to 127.
fn leaves_the_range(data: &[u8]) -> bool {
    let Ok(file) = read_coefficients(data) else { return true };
    file.components.iter().any(|component| {
        let steps = file.quant_tables.get(usize::from(component.quant_table_index));
        let Some(steps) = steps else { return true };
        component.blocks.iter().any(|block| {
            let mut coefficients = [0.0; 64];
            for (place, value) in ZIGZAG.into_iter().zip(block) {
                coefficients[place] = f32::from(*value) * f32::from(steps[place]);
            }
            // The sum of all is a bound that settles most blocks.
            coefficients.iter().map(|c| c.abs()).sum::<f32>() > 500.0 * 4.0
                && transformed(&coefficients).iter().any(|sample| sample.abs() > 500.0)
        })
    })
}

/// The inverse cosine transform [A.3.3 of T.81], first of the columns, then of the rows.
fn transformed(block: &[f32; 64]) -> [f32; 64] {
    let wave = |x: usize, u: usize| {
        let height = if u == 0 { std::f32::consts::FRAC_1_SQRT_2 } else { 1.0 };
        height / 2.0 * ((2 * x + 1) as f32 * u as f32 * std::f32::consts::PI / 16.0).cos()
    };
    let sum = |x: usize, values: &dyn Fn(usize) -> f32| (0..8).map(|u| wave(x, u) * values(u)).sum::<f32>();
    let columns: [f32; 64] = std::array::from_fn(|at| sum(at / 8, &|v| block[8 * v + at % 8]));
    std::array::from_fn(|at| sum(at % 8, &|u| columns[8 * (at / 8) + u]))
}

/// The place of each coefficient in its block, in the order of the file.
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A picture in one of the 8 orientations of EXIF.
fn turned(picture: &Picture, orientation: u8) -> (Size, Vec<u8>) {
    let Size { height, width } = picture.size;
    let size = if orientation >= 5 { Size { height: width, width: height } } else { picture.size };
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    for y in 0..size.height {
        for x in 0..size.width {
            let (row, column) = match orientation {
                1 => (y, x),
                2 => (y, width - 1 - x),
                3 => (height - 1 - y, width - 1 - x),
                4 => (height - 1 - y, x),
                5 => (x, y),
                6 => (height - 1 - x, y),
                7 => (height - 1 - x, width - 1 - y),
                _ => (x, width - 1 - y),
            };
            let at = 3 * (row * width + column);
            rgb.extend_from_slice(&picture.rgb[at..at + 3]);
        }
    }
    (size, rgb)
}
