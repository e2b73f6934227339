//! From the pixels of decoders to what networks take: `H x W x 3` bytes to floats, `3 x H x W` or `H x W x 3`.

use crate::simd::{Simd, per_isa};

/// Pixels whose channels are separated at a time, as bytes, before they are widened: an image of 112 x 112
/// takes 3 us. In one step it takes 15 us, because compilers make poor code of a conversion together with
/// loads that have a stride of three.
const STAGE: usize = 256;

/// What happens to each pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pixelwise {
    /// Exchange left and right.
    pub mirror: bool,
    /// A new colour for each pixel.
    pub color: Option<Affine>,
}

/// A linear map of a pixel plus an offset: one row for each of red, green and blue of the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// For each channel three factors, of red, green and blue, and the offset.
    pub rows: [[f32; 4]; 3],
}

per_isa! {
    /// Writes the image `rgb`, whose rows are `width` pixels, as three planes.
    pub fn split(rgb: &[u8], width: usize, how: &Pixelwise, planes: &mut [f32]) => split_body
}

#[inline(always)]
fn split_body(_: impl Simd, rgb: &[u8], width: usize, how: &Pixelwise, planes: &mut [f32]) {
    in_stages(rgb, width, how.mirror, planes, |[r, g, b], planes| {
        if let Some(color) = how.color {
            for (row, plane) in color.rows.iter().zip(planes) {
                mix(row, r, g, b, plane);
            }
        } else {
            for (bytes, plane) in [r, g, b].into_iter().zip(planes) {
                widen(bytes, plane);
            }
        }
    });
}

per_isa! {
    /// Writes the image `rgb`, whose rows are `width` pixels, as pixels of three channels.
    pub fn interleave(rgb: &[u8], width: usize, how: &Pixelwise, pixels: &mut [f32]) => interleave_body
}

#[inline(always)]
fn interleave_body(simd: impl Simd, rgb: &[u8], width: usize, how: &Pixelwise, pixels: &mut [f32]) {
    if *how == Pixelwise::default() {
        return widen(rgb, pixels);
    }
    let mut planes = [0.0; 3 * STAGE];
    for (rgb, pixels) in rgb.chunks_exact(3 * width).zip(pixels.chunks_exact_mut(3 * width)) {
        for from in (0..width).step_by(STAGE) {
            let count = STAGE.min(width - from);
            let to = if how.mirror { width - from - count } else { from };
            let planes = &mut planes[..3 * count];
            split_body(simd, &rgb[3 * from..3 * (from + count)], count, how, planes);
            let (red, rest) = planes.split_at(count);
            let (green, blue) = rest.split_at(count);
            let pixels = pixels[3 * to..3 * (to + count)].chunks_exact_mut(3);
            for (((pixel, red), green), blue) in pixels.zip(red).zip(green).zip(blue) {
                pixel.copy_from_slice(&[*red, *green, *blue]);
            }
        }
    }
}

/// Calls `write` with the separated channels of some neighbouring pixels and their places in the planes, until the
/// image is written.
#[inline(always)]
fn in_stages<T>(
    rgb: &[u8],
    width: usize,
    mirror: bool,
    planes: &mut [T],
    write: impl Fn([&[u8]; 3], [&mut [T]; 3]),
) {
    let (red, rest) = planes.split_at_mut(planes.len() / 3);
    let (green, blue) = rest.split_at_mut(rest.len() / 2);
    // If nothing is mirrored, the image is one long row.
    let width = if mirror { width } else { red.len() };
    let rows = rgb.chunks_exact(width * 3).zip(red.chunks_exact_mut(width));
    for (((rgb, red), green), blue) in
        rows.zip(green.chunks_exact_mut(width)).zip(blue.chunks_exact_mut(width))
    {
        let mut bytes = [[0; STAGE]; 3];
        let mut from = 0;
        while from < width {
            let count = STAGE.min(width - from);
            let staged = bytes.each_mut().map(|plane| &mut plane[..count]);
            let staged = stage(&rgb[3 * from..3 * (from + count)], mirror, staged);
            let to = if mirror { width - from - count } else { from };
            write(staged, [&mut *red, &mut *green, &mut *blue].map(|plane| &mut plane[to..to + count]));
            from += count;
        }
    }
}

/// Separates the channels, and reverses them if they are to be mirrored.
#[inline(always)]
fn stage<'a>(rgb: &[u8], mirror: bool, [r, g, b]: [&'a mut [u8]; 3]) -> [&'a [u8]; 3] {
    for (pixel, ((r, g), b)) in rgb.chunks_exact(3).zip(r.iter_mut().zip(g.iter_mut()).zip(b.iter_mut())) {
        [*r, *g, *b] = [pixel[0], pixel[1], pixel[2]];
    }
    if mirror {
        r.reverse();
        g.reverse();
        b.reverse();
    }
    [r, g, b]
}

#[inline(always)]
fn widen(bytes: &[u8], plane: &mut [f32]) {
    for (value, byte) in plane.iter_mut().zip(bytes) {
        *value = f32::from(*byte);
    }
}

/// Computes in this order, and rounds each product and sum, so that all instruction sets give the same bits.
#[inline(always)]
fn mix(&[of_r, of_g, of_b, offset]: &[f32; 4], r: &[u8], g: &[u8], b: &[u8], plane: &mut [f32]) {
    for (value, ((r, g), b)) in plane.iter_mut().zip(r.iter().zip(g).zip(b)) {
        *value = of_r * f32::from(*r) + of_g * f32::from(*g) + of_b * f32::from(*b) + offset;
    }
}

/// Writes the image `rgb`, whose rows are `width` pixels, as three planes of what `table` has for each byte.
///
/// An image of 112 x 112 takes 20 us. Looked up in one step with the separation of the channels it takes 50 us.
pub fn look_up<T: Copy>(rgb: &[u8], width: usize, mirror: bool, table: &[T; 256], planes: &mut [T]) {
    in_stages(rgb, width, mirror, planes, |bytes, planes| {
        for (bytes, plane) in bytes.into_iter().zip(planes) {
            for (value, byte) in plane.iter_mut().zip(bytes) {
                *value = table[usize::from(*byte)];
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;

    proptest! {
        #[test]
        fn every_pixel_goes_where_it_belongs(
            height in 1_usize..4,
            width in prop_oneof![1_usize..70, 250_usize..600],
            mirror: bool,
            factors in prop::option::of(prop::array::uniform3(prop::array::uniform4(-2.0_f32..2.0))),
            seed: u8,
        ) {
            let rgb: Vec<u8> = (0..height * width * 3).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
            let how = Pixelwise { mirror, color: factors.map(|rows| Affine { rows }) };
            for isa in Isa::available() {
                let mut planes = vec![f32::NAN; rgb.len()];
                split(isa, &rgb, width, &how, &mut planes);
                for (channel, plane) in planes.chunks_exact(height * width).enumerate() {
                    for (at, found) in plane.iter().enumerate() {
                        let (y, x) = (at / width, at % width);
                        let x = if mirror { width - 1 - x } else { x };
                        let pixel = &rgb[(y * width + x) * 3..][..3];
                        let [r, g, b] = [0, 1, 2].map(|c| f32::from(pixel[c]));
                        let expected = match factors {
                            None => [r, g, b][channel],
                            Some(rows) => {
                                let [of_r, of_g, of_b, offset] = rows[channel];
                                of_r * r + of_g * g + of_b * b + offset
                            }
                        };
                        prop_assert_eq!(found.to_bits(), expected.to_bits(), "{} {} {}", channel, y, x);
                    }
                }
                let mut pixels = vec![f32::NAN; rgb.len()];
                interleave(isa, &rgb, width, &how, &mut pixels);
                for (at, found) in pixels.iter().enumerate() {
                    let expected = planes[at % 3 * height * width + at / 3];
                    prop_assert_eq!(found.to_bits(), expected.to_bits(), "{} of the pixels", at);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn each_byte_is_looked_up(height in 1_usize..4, width in 1_usize..40, mirror: bool, seed: u8) {
            let rgb: Vec<u8> = (0..height * width * 3).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
            let table = std::array::from_fn(|byte| byte as f32 * 0.5 - 1.0);
            let (mut found, mut expected) = (vec![f32::NAN; rgb.len()], vec![f32::NAN; rgb.len()]);
            look_up(&rgb, width, mirror, &table, &mut found);
            split(Isa::PORTABLE, &rgb, width, &Pixelwise { mirror, color: None }, &mut expected);
            prop_assert_eq!(found, expected.iter().map(|value| value * 0.5 - 1.0).collect::<Vec<_>>());
        }
    }
}
