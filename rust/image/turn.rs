//! Turns and mirrors an RGB image upright, as its EXIF orientation says.

use super::Size;

/// Writes `pixels`, an image of `stored` size, into `out` as the EXIF `orientation` (2 to 8) says.
///
/// Orientations 5 to 8 exchange height and width. 1, and any other number, changes nothing.
pub fn turn(pixels: &[u8], stored: Size, orientation: u8, out: &mut [u8]) {
    let (transposed, flip_rows, flip_columns) = match orientation {
        2 => (false, false, true),
        3 => (false, true, true),
        4 => (false, true, false),
        5 => (true, false, false),
        6 => (true, true, false),
        7 => (true, true, true),
        8 => (true, false, true),
        _ => (false, false, false),
    };
    let Size { height, width } = if transposed { turned(stored) } else { stored };
    for (row, line) in out.chunks_exact_mut(width * 3).take(height).enumerate() {
        for (column, pixel) in line.chunks_exact_mut(3).enumerate() {
            let (y, x) = if transposed { (column, row) } else { (row, column) };
            let y = if flip_rows { stored.height - 1 - y } else { y };
            let x = if flip_columns { stored.width - 1 - x } else { x };
            let from = (y * stored.width + x) * 3;
            pixel.copy_from_slice(&pixels[from..from + 3]);
        }
    }
}

/// Height and width exchanged.
pub fn turned(size: Size) -> Size {
    Size { height: size.width, width: size.height }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_two_by_three() {
        // a b c
        // d e f
        let size = Size { height: 2, width: 3 };
        let pixels: Vec<u8> = b"abcdef".iter().flat_map(|p| [*p; 3]).collect();
        let cases = [
            (1, "abcdef"),
            (2, "cbafed"),
            (3, "fedcba"),
            (4, "defabc"),
            (5, "adbecf"),
            (6, "daebfc"),
            (7, "fcebda"),
            (8, "cfbead"),
        ];
        for (orientation, expected) in cases {
            let mut out = vec![0; 18];
            turn(&pixels, size, orientation, &mut out);
            let got: Vec<u8> = out.iter().step_by(3).copied().collect();
            assert_eq!(String::from_utf8(got).unwrap(), expected, "orientation {orientation}");
        }
    }
}
