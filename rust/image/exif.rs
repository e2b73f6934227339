//! The EXIF orientation of a JPEG, as the `OpenCV` 3.4.2 inside `MXNet` 1.9.1 sees it.
//!
//! `mx.image.imdecode` turns images upright, but not all of them. It overlooks the orientation in a file that
//! starts with a JFIF header (which most software writes, also Pillow), it looks at the first APP1 segment
//! only, and it drops the whole directory if one known entry points outside. Models were trained on the
//! pixels that `MXNet` decodes, so this code does the same. The rules were found by experiments, and the
//! tests compare with `MXNet`.

/// Bytes before the TIFF header in an APP1 segment: `Exif\0\0`, which OpenCV does not check.
const PREFIX: usize = 6;
/// Offset of the count of directory entries, whatever the header says.
const COUNT_AT: usize = 8;
const ENTRY_SIZE: usize = 12;
const ORIENTATION: u16 = 0x112;

/// The orientation to apply, 1 to 8; 1 means none.
pub fn orientation(jpeg: &[u8]) -> u8 {
    if jpeg.starts_with(&[0xff, 0xd8, 0xff, 0xe0]) && jpeg.get(6..11) == Some(b"JFIF\0") {
        return 1;
    }
    first_app1(jpeg)
        .and_then(directory)
        .filter(|value| (1..=8).contains(value))
        .map_or(1, |value| value as u8)
}

/// The TIFF data of the first APP1 segment.
fn first_app1(jpeg: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        let marker = *jpeg.get(at + 1)?; // the byte before it should be ff
        at += 2;
        match marker {
            0xd8 | 0xd9 => {}
            0xe1 => {
                // OpenCV reads two bytes more than the segment has.
                let end = (at + 2 + length(jpeg, at)?).min(jpeg.len());
                return jpeg.get(at + 2 + PREFIX..end).filter(|tiff| !tiff.is_empty());
            }
            0xc0 | 0xc2 | 0xc4 | 0xda | 0xdb | 0xdd | 0xe0..=0xef | 0xfe | 0xd0..=0xd7 => {
                at += length(jpeg, at).filter(|length| *length >= 2)?;
            }
            _ => return None,
        }
    }
}

fn length(jpeg: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(jpeg.get(at..at + 2)?.try_into().ok()?)))
}

/// The orientation entry of the first directory. `None` if any known entry is inconsistent.
fn directory(data: &[u8]) -> Option<u16> {
    let tiff = Tiff { data, little: data.starts_with(b"II") };
    if tiff.short(2)? != 42 {
        return None;
    }
    let mut found = None;
    let mut at = tiff.long(4)?.wrapping_add(2);
    for _ in 0..tiff.short(COUNT_AT)? {
        let entry = at as usize;
        let tag = tiff.short(entry)?;
        if tag == ORIENTATION {
            let value = tiff.short(entry + 8)?;
            found = found.or(Some(value));
        } else {
            tiff.check(tag, entry)?;
        }
        at = at.wrapping_add(ENTRY_SIZE as u32);
    }
    found
}

struct Tiff<'a> {
    data: &'a [u8],
    little: bool,
}

impl Tiff<'_> {
    fn short(&self, at: usize) -> Option<u16> {
        let bytes = self.data.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = self.data.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// `None` if the value of a known tag is outside the data.
    fn check(&self, tag: u16, entry: usize) -> Option<()> {
        let rationals = match tag {
            // description, maker, model, software, date, copyright
            0x10e | 0x10f | 0x110 | 0x131 | 0x132 | 0x8298 => {
                let size = self.long(entry + 4)? as usize;
                let start = if size > 4 { self.long(entry + 8)? as usize } else { 8 };
                return (start + size <= self.data.len()).then_some(());
            }
            0x128 | 0x213 => return self.short(entry + 8).map(|_| ()), // unit, chroma position
            0x11a | 0x11b => 1,                                        // resolution
            0x13e => 2,                                                // white point
            0x211 => 3,                                                // luma coefficients
            0x13f | 0x214 => 6,                                        // primaries, black and white
            _ => return Some(()),
        };
        let start = self.long(entry + 8)?;
        (0..rationals).try_for_each(|n| self.long(start.wrapping_add(n * 8 + 4) as usize).map(|_| ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u16 + 2).to_be_bytes();
        [&[0xff, marker], length.as_slice(), data].concat()
    }

    fn exif(value: u8, entries: u8, extra: &[u8]) -> Vec<u8> {
        let mut data = b"Exif\0\0MM\0*\0\0\0\x08\0".to_vec();
        data.push(entries);
        data.extend_from_slice(&[1, 0x12, 0, 3, 0, 0, 0, 1, 0, value, 0, 0]);
        data.extend_from_slice(extra);
        data.extend_from_slice(&[0; 4]);
        segment(0xe1, &data)
    }

    fn file(segments: &[Vec<u8>]) -> Vec<u8> {
        [vec![0xff, 0xd8], segments.concat()].concat()
    }

    #[test]
    fn as_mxnet_does() {
        let jfif = segment(0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
        for value in 1..=8 {
            assert_eq!(orientation(&file(&[exif(value, 1, &[])])), value);
        }
        assert_eq!(orientation(&file(&[exif(0, 1, &[])])), 1);
        assert_eq!(orientation(&file(&[exif(9, 1, &[])])), 1);
        assert_eq!(orientation(&file(&[jfif.clone(), exif(6, 1, &[])])), 1);
        assert_eq!(orientation(&file(&[exif(6, 1, &[]), jfif])), 6);
        assert_eq!(orientation(&file(&[segment(0xfe, b"hello"), exif(6, 1, &[])])), 6);
        assert_eq!(orientation(&file(&[segment(0xe1, b"http://ns.adobe.com"), exif(6, 1, &[])])), 1);
        assert_eq!(orientation(&file(&[exif(6, 9, &[])])), 1, "announces more entries than there are");
        let outside = [1, 0x0f, 0, 2, 0, 0, 0, 100, 0, 0, 0x13, 0x88];
        assert_eq!(orientation(&file(&[exif(6, 2, &outside)])), 1, "maker lies outside");
        assert_eq!(orientation(&[0xff, 0xd8]), 1);
    }

    /// A tag of any kind, with its count and its value or offset.
    type Tag = (u16, u32, u32);

    const UPRIGHT: u8 = 6;

    /// An APP1 segment with a directory of these tags at `at`, and the orientation [`UPRIGHT`] as the last one.
    fn directory_of(tags: &[Tag], at: u32, little: bool) -> Vec<u8> {
        let short = |x: u16| if little { x.to_le_bytes() } else { x.to_be_bytes() };
        let long = |x: u32| if little { x.to_le_bytes() } else { x.to_be_bytes() };
        let mut data = if little { b"Exif\0\0II".to_vec() } else { b"Exif\0\0MM".to_vec() };
        data.extend(short(42));
        data.extend(long(at));
        data.extend(short(tags.len() as u16 + 1)); // of the first directory, wherever it is
        data.resize(PREFIX + at as usize + 2, 0);
        for &(tag, count, value) in tags {
            data.extend([short(tag), short(0)].concat());
            data.extend([long(count), long(value)].concat());
        }
        data.extend([short(ORIENTATION), short(3)].concat());
        data.extend([long(1).as_slice(), &short(UPRIGHT.into()), &[0; 2]].concat());
        segment(0xe1, &data)
    }

    fn is_seen(segment: &[u8]) -> bool {
        match orientation(&file(&[segment.to_vec()])) {
            UPRIGHT => true,
            1 => false,
            other => panic!("orientation {other}"),
        }
    }

    #[test]
    fn in_either_order_of_bytes_wherever_the_directory_is() {
        for little in [false, true] {
            for at in [8, 9, 30] {
                let good = directory_of(&[], at, little);
                assert!(is_seen(&good), "directory at {at}");
                let mut other = good.clone();
                let (forty_two, byte) = (4 + PREFIX + 2 + usize::from(!little), 43);
                other[forty_two] = byte;
                assert!(!is_seen(&other), "the number 43 instead of 42");
            }
        }
        let cut = |length: usize| is_seen(&directory_of(&[], 8, false)[..4 + PREFIX + length]);
        assert!(cut(20) && !cut(19), "the value has two bytes");
    }

    #[test]
    fn a_text_is_inside_or_in_the_entry_itself() {
        let length = 10 + 2 * ENTRY_SIZE as u32;
        for tag in [0x10e, 0x10f, 0x110, 0x131, 0x132, 0x8298] {
            let seen = |count, value| is_seen(&directory_of(&[(tag, count, value)], 8, false));
            assert!(seen(5, length - 5) && !seen(5, length - 4), "tag {tag:x}");
            assert!(seen(length, 0) && !seen(length + 1, 0) && !seen(u32::MAX, 0), "tag {tag:x}");
            assert!(!seen(5, u32::MAX), "tag {tag:x}");
            // Up to four bytes are in the entry, whatever they would be as an offset.
            assert!([0, 1, 4].iter().all(|&count| seen(count, u32::MAX)), "tag {tag:x}");
        }
    }

    #[test]
    fn fractions_are_inside() {
        let length = 10 + 2 * ENTRY_SIZE as u32;
        for (tag, fractions) in [(0x11a, 1), (0x11b, 1), (0x13e, 2), (0x211, 3), (0x13f, 6), (0x214, 6)] {
            // Where there is no room for them inside, others lie before them.
            let others = [(0xff00, 0, 0); 3];
            let seen = |value| is_seen(&directory_of(&[&others[..], &[(tag, 1, value)]].concat(), 8, false));
            let last = length + 36 - 8 * fractions;
            assert!(seen(0) && seen(last) && !seen(last + 1) && !seen(1 << 31), "tag {tag:x}");
        }
        let unknown = [(0x9999, u32::MAX, u32::MAX), (0x8769, 1, u32::MAX)];
        assert!(is_seen(&directory_of(&unknown, 8, true)), "nobody looks at what other tags say");
    }

    #[test]
    fn a_short_number_may_be_cut_after_its_value() {
        for tag in [0x128_u16, 0x213] {
            let mut data = exif(UPRIGHT, 2, &[]);
            data.truncate(data.len() - 4);
            data[2..4].fill(0xff); // up to the end of the file
            data.extend([tag.to_be_bytes().as_slice(), &[0, 3, 0, 0, 0, 1, 0, 1]].concat());
            assert!(is_seen(&data), "tag {tag:x}");
            assert!(!is_seen(&data[..data.len() - 1]), "tag {tag:x}");
        }
    }

    #[test]
    fn the_segment_has_two_bytes_more() {
        let seen = |from| {
            let tags = [(0x10f, 5, 10 + 2 * ENTRY_SIZE as u32 - 5 + from)];
            is_seen(&[directory_of(&tags, 8, false), segment(0xfe, b"what follows")].concat())
        };
        assert!(seen(0) && seen(2) && !seen(3));
    }

    #[test]
    fn the_first_entry_counts_and_the_first_segment() {
        let other = [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0];
        assert_eq!(orientation(&file(&[exif(UPRIGHT, 2, &other)])), UPRIGHT);
        let good = exif(UPRIGHT, 1, &[]);
        assert_eq!(orientation(&file(&[exif(3, 1, &[]), good.clone()])), 3);
        for marker in [0xc0, 0xc2, 0xc4, 0xda, 0xdb, 0xdd, 0xe0, 0xe2, 0xef, 0xfe, 0xd0, 0xd7] {
            assert_eq!(orientation(&file(&[segment(marker, b"12"), good.clone()])), UPRIGHT, "{marker:x}");
            assert_eq!(orientation(&file(&[segment(marker, b""), good.clone()])), UPRIGHT, "{marker:x}");
            let short = vec![0xff, marker, 0, 1];
            assert_eq!(orientation(&file(&[short, good.clone()])), 1, "{marker:x}");
        }
        for marker in [0xd8, 0xd9] {
            assert_eq!(orientation(&file(&[vec![0xff, marker], good.clone()])), UPRIGHT, "{marker:x}");
        }
        for marker in [0x01, 0xc1, 0xf0] {
            assert_eq!(orientation(&file(&[segment(marker, b"12"), good.clone()])), 1, "{marker:x}");
        }
        let jfxx = segment(0xe0, b"JFXX\0");
        assert_eq!(orientation(&file(&[jfxx, good.clone()])), UPRIGHT);
        assert_eq!(orientation(&file(&[segment(0xe1, &good[4..4 + PREFIX])])), 1, "nothing but the name");
    }

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut tiff = b"Exif\0\0MM\0*\0\0\0\x08".to_vec();
            tiff.extend_from_slice(&data);
            prop_assert!((1..=8).contains(&orientation(&file(&[segment(0xe1, &tiff)]))));
            prop_assert!((1..=8).contains(&orientation(&data)));
        }
    }
}
