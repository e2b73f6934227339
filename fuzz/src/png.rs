//! PNG files with right checksums, against the naive decoder.

use fasttriplet::image::Image;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

use crate::naive::png as naive;

/// Larger pictures are not decoded.
const MOST: usize = 1 << 16;

/// `data` is a PNG file, whose checksums are put right first.
pub fn check(data: &[u8]) {
    let png = with_checksums(data);
    let Ok(image) = Image::read(&png, MOST) else {
        let expected = naive::decode(&png, MOST);
        assert!(!expected.is_some_and(|picture| picture.plain), "a plain PNG is not read");
        return;
    };
    let size = image.size();
    let expected = naive::decode(&png, MOST);
    let mut out = vec![0; size.bytes()];
    match image.decode(&mut out) {
        Ok(()) => {
            let expected = expected.expect("a PNG that is decoded by its definition, too");
            assert_eq!((size.height, size.width), expected.size);
            assert!(out == expected.rgb, "other pixels");
        }
        Err(fault) => {
            let text = fault.to_string();
            assert!(!text.contains("panic"), "{text}");
            assert!(!expected.is_some_and(|picture| picture.plain), "a plain PNG: {text}");
        }
    }
}

/// The file with the checksum of each chunk, and of the pixels in all of them.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut png = data.to_vec();
    let mut pixels = Vec::new(); // the places of their bytes
    let mut crcs = Vec::new();
    let mut at = 8;
    while let Some(length) = png.get(at..at + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let end = at + 8 + length;
        if png.len() < end + 4 {
            break;
        }
        if &png[at + 4..at + 8] == b"IDAT" {
            pixels.extend(at + 8..end);
        }
        crcs.push((at + 4, end));
        at = end + 4;
    }
    let zlib: Vec<u8> = pixels.iter().map(|place| png[*place]).collect();
    if let Some((end, adler)) = end_of_pixels(&zlib) {
        for (place, byte) in pixels[..end].iter().rev().zip(adler.to_le_bytes()) {
            png[*place] = byte;
        }
    }
    for (from, end) in crcs {
        let crc = crc32fast::hash(&png[from..end]);
        png[end..end + 4].copy_from_slice(&crc.to_be_bytes());
    }
    png
}

/// Where a zlib stream with a wrong checksum ends, and the right one.
fn end_of_pixels(zlib: &[u8]) -> Option<(usize, u32)> {
    const FLAGS: u32 = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
        | inflate_flags::TINFL_FLAG_COMPUTE_ADLER32
        | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut inflater = DecompressorOxide::new();
    let mut out = vec![0; 9 * MOST + (1 << 16)];
    let (status, end, _) = decompress(&mut inflater, zlib, &mut out, 0, FLAGS);
    (status == TINFLStatus::Adler32Mismatch).then(|| Some((end, inflater.adler32()?)))?
}
