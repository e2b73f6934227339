use super::*;

const EOI: [u8; 2] = [0xff, 0xd9];
const SEQUENTIAL: u8 = 0xc0;
const PROGRESSIVE: u8 = 0xc2;
/// Of one component, of two or three, and where the pixels of the second and third are fewer.
const GRAY: &[(u8, u8)] = &[(1, 0x11)];
const COLOUR: &[(u8, u8)] = &[(1, 0x22), (2, 0x11), (3, 0x11)];

fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
    [&[0xff, marker], &(content.len() as u16 + 2).to_be_bytes()[..], content].concat()
}

fn frame(kind: u8, (height, width): (u16, u16), components: &[(u8, u8)]) -> Vec<u8> {
    let mut header = vec![8];
    header.extend([height.to_be_bytes(), width.to_be_bytes()].concat());
    header.push(components.len() as u8);
    header.extend(components.iter().flat_map(|&(id, factors)| [id, factors, 0]));
    segment(kind, &header)
}

/// A scan of these components, with its parameters (from, to, bits) and its codes.
fn scan(ids: &[u8], parameters: [u8; 3], codes: &[u8]) -> Vec<u8> {
    let mut header = vec![ids.len() as u8];
    header.extend(ids.iter().flat_map(|&id| [id, 0]));
    header.extend(parameters);
    [segment(0xda, &header), codes.to_vec()].concat()
}

fn whole(ids: &[u8]) -> Vec<u8> {
    scan(ids, [0, 63, 0], &[7])
}

fn read(parts: &[Vec<u8>]) -> Result<Layout, String> {
    read_with(parts, 0)
}

/// With some bytes more at the end, which decoders do not look at.
fn read_with(parts: &[Vec<u8>], more: usize) -> Result<Layout, String> {
    let file = [&[0xff, 0xd8], parts.concat().as_slice(), &EOI, &vec![0; more]].concat();
    Layout::read(&file, 1 << 30).map_err(|fault| fault.to_string())
}

#[track_caller]
fn is_wrong(found: Result<Layout, String>, words: &str) {
    let message = found.expect_err(words);
    assert!(message.contains(words), "{message}; expected {words}");
}

#[test]
fn what_is_read() {
    let found = read(&[frame(SEQUENTIAL, (16, 40), COLOUR), whole(&[1, 2, 3])]).unwrap();
    assert_eq!((found.size, found.components), (Size { height: 16, width: 40 }, 3));
    assert_eq!(found.factors().unwrap(), [(1, 1), (2, 2), (2, 2)]);
    let gray = read(&[frame(SEQUENTIAL, (8, 8), &[(9, 0x31)]), whole(&[9])]).unwrap();
    assert_eq!(gray.factors().unwrap(), [(1, 1)]);
    for (factors, whole_number) in [(0x31, true), (0x13, true), (0x21, false), (0x12, false), (0x33, true)] {
        let frame = frame(SEQUENTIAL, (8, 8), &[(1, 0x33), (2, factors), (3, 0x33)]);
        let found = read(&[frame, whole(&[1, 2, 3])]).unwrap().factors();
        assert_eq!(found.is_ok(), whole_number, "{factors:x}");
    }
}

#[test]
fn segments_that_may_be_anywhere_and_those_that_may_not() {
    let with = |part: Vec<u8>| read(&[part, frame(SEQUENTIAL, (8, 8), GRAY), whole(&[1])]);
    for marker in [0xdb, 0xdc, 0xe0, 0xe1, 0xef, 0xfe] {
        assert!(with(segment(marker, b"any")).is_ok(), "{marker:x}");
        assert!(with(segment(marker, b"")).is_ok(), "{marker:x}");
        assert!(with([vec![0xff, 0xff], segment(marker, b"")].concat()).is_ok(), "fill bytes");
        is_wrong(with(vec![0xff, marker, 0, 1]), "a segment of length 1 at byte 4");
        is_wrong(read(&[vec![0xff, marker, 0, 5]]), "cut off");
    }
    for marker in [0xc3, 0xcb] {
        is_wrong(with(segment(marker, b"")), "lossless");
    }
    for marker in [0xc5, 0xc6, 0xc7, 0xcd, 0xce, 0xcf] {
        is_wrong(with(segment(marker, b"")), "hierarchical");
    }
    for marker in [0x01, 0xc8, 0xd0, 0xd8, 0xf0] {
        is_wrong(with(segment(marker, b"")), "where none is allowed");
    }
    is_wrong(with(vec![0, 0]), "byte 2 should start a marker");
    is_wrong(read(&[]), "no frame header");
    is_wrong(read(&[whole(&[1])]), "pixels before the frame header");
    let frame = frame(SEQUENTIAL, (8, 8), GRAY);
    is_wrong(read(&[frame.clone(), frame.clone(), whole(&[1])]), "two frame headers");
    is_wrong(read(&[frame]), "scans are missing");
}

#[test]
fn frame_headers() {
    let of = |header: &[u8]| read(&[segment(SEQUENTIAL, header), whole(&[1])]);
    assert!(of(&[8, 0, 8, 0, 8, 1, 1, 0x11, 0]).is_ok());
    is_wrong(of(&[12, 0, 8, 0, 8, 1, 1, 0x11, 0]), "12 bits");
    is_wrong(of(&[8, 0, 0, 0, 8, 1, 1, 0x11, 0]), "0 x 8 pixels");
    is_wrong(of(&[8, 0, 8, 0, 8, 1, 1, 0x11]), "wrong length");
    is_wrong(of(&[8, 0, 8, 0, 8, 1, 1, 0x11, 0, 0]), "wrong length");
    for length in 0..6 {
        is_wrong(of(&[8, 0, 8, 0, 8, 1][..length]), "cut off");
    }
    let factors = |factors| read(&[frame(SEQUENTIAL, (8, 8), &[(1, factors)]), whole(&[1])]);
    assert!(factors(0x44).is_ok());
    for wrong in [0x01, 0x10, 0x51, 0x15] {
        is_wrong(factors(wrong), "sampling factors");
    }
    let two: &[(u8, u8)] = &[(1, 0x11), (2, 0x11)];
    is_wrong(read(&[frame(SEQUENTIAL, (8, 8), two)]), "2 components");
    is_wrong(read(&[frame(SEQUENTIAL, (8, 8), &[(1, 0x11), (2, 0x11), (1, 0x11)])]), "numbered 1");
    let inks = [(1, 0x11), (2, 0x11), (3, 0x11), (4, 0x11)];
    assert_eq!(read(&[frame(SEQUENTIAL, (8, 8), &inks), whole(&[1, 2, 3, 4])]).unwrap().components, 4);
    for size in [(65_500, 1), (1, 65_500)] {
        assert!(read_with(&[frame(SEQUENTIAL, size, GRAY), whole(&[1])], 2100).is_ok());
    }
    for size in [(65_501, 1), (1, 65_501)] {
        is_wrong(read_with(&[frame(SEQUENTIAL, size, GRAY), whole(&[1])], 2100), "a side above 65500");
    }
}

#[test]
fn a_size_needs_bytes() {
    // With 1 bit for each block there, or 2, or a thousandth of a byte.
    for (kind, blocks_in_byte) in [(0xc0, 4), (0xc1, 4), (PROGRESSIVE, 8), (0xc9, 1024), (0xca, 1024)] {
        let scan = if matches!(kind, PROGRESSIVE | 0xca) {
            [scan(&[1], [0, 0, 0], &[7]), scan(&[1], [1, 63, 0], &[7])].concat()
        } else {
            whole(&[1])
        };
        for size in [(801_u16, 6399_u16), (8000, 8000), (1, 65_500)] {
            let blocks = usize::from(size.0.div_ceil(8)) * usize::from(size.1.div_ceil(8));
            let parts = [frame(kind, size, GRAY), scan.clone()];
            let (length, needed) = (parts.concat().len() + 4, blocks.div_ceil(blocks_in_byte));
            let Some(more) = needed.checked_sub(length) else { continue };
            assert!(read_with(&parts, more).is_ok(), "{kind:x} {size:?} in {needed} bytes");
            is_wrong(read_with(&parts, more - 1), "are too few");
        }
    }
}

#[test]
fn huffman_tables() {
    // The numbers of codes of each length, the longest last, and the symbols.
    let table = |class: u8, counts: &[u8], symbols: &[u8]| {
        let mut lengths = [0; 16];
        lengths[..counts.len()].copy_from_slice(counts);
        [&[class], &lengths[..], symbols].concat()
    };
    let with = |content: &[u8]| read(&[segment(0xc4, content), frame(SEQUENTIAL, (8, 8), GRAY), whole(&[1])]);
    assert!(with(&[]).is_ok());
    for (counts, prefix_code) in [
        (&[1][..], true),
        (&[2], false),
        (&[0, 3], true),
        (&[0, 4], false),
        (&[1, 1, 1], true),
        (&[1, 1, 2], false),
        (&[1, 2], false),
        (&[0, 0, 0, 15], true),
        (&[0, 0, 0, 16], false),
        (&[1; 16], true),
        (&[0, 0, 0, 0, 0, 0, 0, 255], true),
    ] {
        let symbols = vec![0; counts.iter().map(|&count| usize::from(count)).sum()];
        let found = with(&table(0x10, counts, &symbols));
        assert_eq!(found.is_ok(), prefix_code, "{counts:?}: {found:?}");
        let twice = [table(0, &[1], &[3]), table(0x11, counts, &symbols)].concat();
        assert_eq!(with(&twice).is_ok(), prefix_code, "as the second: {counts:?}");
    }
    // A size of a DC coefficient has at most 15 bits; 16 is that of lossless JPEG.
    for destination in 0..4 {
        assert!(with(&table(destination, &[0, 2], &[0, 15])).is_ok());
        is_wrong(with(&table(destination, &[0, 2], &[0, 16])), "wrong symbol");
        is_wrong(with(&table(destination, &[0, 2], &[16, 0])), "wrong symbol");
        assert!(with(&table(0x10 + destination, &[0, 2], &[16, 0xff])).is_ok());
    }
    let good = table(0, &[0, 2], &[0, 1]);
    for length in 1..good.len() {
        is_wrong(with(&good[..length]), "cut off");
    }
}

#[test]
fn scans_are_limited() {
    // Each coefficient in 14 scans, from the highest bit to the lowest.
    let mut scans = Vec::new();
    for coefficient in 0..8 {
        scans.push(scan(&[1], [coefficient, coefficient, 13], &[7]));
        scans.extend(
            (0..13).rev().map(|left| scan(&[1], [coefficient, coefficient, (left + 1) << 4 | left], &[7])),
        );
    }
    let with =
        |count: usize| read(&[vec![frame(PROGRESSIVE, (8, 8), GRAY)], scans[..count].to_vec()].concat());
    assert!(with(MAX_SCANS).is_ok());
    is_wrong(with(MAX_SCANS + 1), "more than 100 scans");
}

#[test]
fn which_scans_a_progressive_image_has() {
    let with = |parameters: &[[u8; 3]]| {
        let scans = parameters.iter().map(|&parameters| scan(&[1], parameters, &[7]));
        read(&[vec![frame(PROGRESSIVE, (8, 8), GRAY)], scans.collect()].concat())
    };
    let (dc, ac) = ([0, 0, 0], [1, 63, 0]);
    assert!(with(&[dc, ac]).is_ok());
    assert!(with(&[[0, 0, 1], [0, 0, 0x10], ac]).is_ok());
    assert!(with(&[[0, 0, 13], ac]).expect_err("bits are missing").contains("scans are missing"));
    for wrong in [
        [0, 1, 0],
        [0, 63, 0],
        [1, 64, 0],
        [5, 4, 0],
        [0, 0, 14],
        [1, 63, 14],
        [0, 0, 0x20],
        [0, 0, 0x11],
        [0, 0, 0x01 | 0x30],
    ] {
        is_wrong(with(&[dc, ac, wrong]), "scan parameters");
        is_wrong(with(&[wrong]), "scan parameters");
    }
    assert!(with(&[dc, [1, 1, 0], [2, 63, 0]]).is_ok(), "a band of one coefficient");
    is_wrong(with(&[ac, dc]), "details before the coarse picture");
    is_wrong(with(&[dc, dc, ac]), "repeated");
    is_wrong(with(&[dc, ac, [63, 63, 0]]), "repeated");
    is_wrong(with(&[[0, 0, 2], [0, 0, 0x10], ac]), "missing, out of order");
    is_wrong(with(&[dc, [0, 0, 0x10], ac]), "missing, out of order");
    is_wrong(with(&[dc, ac, [1, 5, 0x10]]), "missing, out of order");
    is_wrong(with(&[[0, 0, 0x10]]), "missing, out of order");
    is_wrong(with(&[dc, [1, 63, 0x10]]), "missing, out of order");
    // Without one of the first five details, decoders make them up; others count as zero.
    assert!(with(&[dc, [1, 5, 0]]).is_ok());
    is_wrong(with(&[dc, [1, 4, 0]]), "scans are missing");
    is_wrong(with(&[dc, [2, 63, 0]]), "scans are missing");
    is_wrong(with(&[dc, [1, 5, 1]]), "scans are missing");
    is_wrong(with(&[dc]), "scans are missing");
}

#[test]
fn the_components_of_a_scan() {
    let sequential =
        |scans: &[Vec<u8>]| read(&[vec![frame(SEQUENTIAL, (8, 8), COLOUR)], scans.to_vec()].concat());
    assert!(sequential(&[whole(&[1, 2, 3])]).is_ok());
    assert!(sequential(&[whole(&[3]), whole(&[1]), whole(&[2])]).is_ok());
    is_wrong(sequential(&[whole(&[1, 2]), whole(&[3])]), "some of its components interleaved");
    is_wrong(sequential(&[whole(&[1]), whole(&[2])]), "scans are missing");
    is_wrong(sequential(&[whole(&[1, 2, 3]), whole(&[2])]), "repeated");
    is_wrong(sequential(&[whole(&[4])]), "not in the frame");
    is_wrong(sequential(&[whole(&[1, 1, 2])]), "not in the frame");
    is_wrong(sequential(&[whole(&[])]), "wrong number of components");
    for parameters in [[1, 63, 0], [0, 62, 0], [0, 63, 1], [0, 63, 0x10]] {
        is_wrong(sequential(&[scan(&[1, 2, 3], parameters, &[])]), "scan parameters");
    }
    for header in [&[][..], &[1, 1, 0, 0, 63], &[1, 1, 0, 0, 63, 0, 0], &[2, 1, 0, 0, 63, 0]] {
        let found = sequential(&[segment(0xda, header)]);
        is_wrong(found, if header.is_empty() { "cut off" } else { "wrong length" });
    }
    let progressive =
        |scans: &[Vec<u8>]| read(&[vec![frame(PROGRESSIVE, (8, 8), COLOUR)], scans.to_vec()].concat());
    let details: Vec<_> = [1, 2, 3].iter().map(|&id| scan(&[id], [1, 63, 0], &[7])).collect();
    let coarse = |ids: &[u8]| scan(ids, [0, 0, 0], &[7]);
    assert!(progressive(&[vec![coarse(&[1, 2, 3])], details.clone()].concat()).is_ok());
    assert!(progressive(&[vec![coarse(&[1, 2]), coarse(&[3])], details.clone()].concat()).is_ok());
    let together = scan(&[1, 2], [1, 63, 0], &[7]);
    is_wrong(progressive(&[coarse(&[1, 2, 3]), together]), "wrong number of components");
}

/// Codes with so many restart markers.
fn restarts(count: usize) -> Vec<u8> {
    let mut codes = vec![7, 0xff, 0, 9];
    (0..count).for_each(|number| codes.extend([0xff, 0xd0 + (number % 8) as u8, 0xff, 0, 5]));
    codes
}

#[test]
fn restart_markers_are_counted() {
    let with = |interval: u8, parts: &[Vec<u8>]| {
        read(&[vec![segment(0xdd, &[0, interval])], parts.to_vec()].concat())
    };
    // 20 pixels are 3 blocks of luma, 2 of chroma, and 2 units of all.
    let (height, width) = (24, 20);
    let frame = |kind| frame(kind, (height, width), COLOUR);
    let of = |ids: &[u8], count| scan(ids, [0, 63, 0], &restarts(count));
    for (interval, all, luma, chroma) in
        [(1, 3, 8, 3), (2, 1, 4, 1), (3, 1, 2, 1), (4, 0, 2, 0), (9, 0, 0, 0)]
    {
        for extra in 0..2 {
            let found = with(interval, &[frame(SEQUENTIAL), of(&[1, 2, 3], all + extra)]);
            assert!(found.is_ok(), "{interval}: {found:?}");
            let single = [of(&[1], luma + extra), of(&[2], chroma), of(&[3], chroma)];
            let found = with(interval, &[vec![frame(SEQUENTIAL)], single.to_vec()].concat());
            assert!(found.is_ok(), "{interval}: {found:?}");
        }
        let wrong = "restart markers in a scan that has";
        is_wrong(with(interval, &[frame(SEQUENTIAL), of(&[1, 2, 3], all + 2)]), wrong);
        is_wrong(with(interval, &[frame(SEQUENTIAL), of(&[1], luma + 2)]), wrong);
        is_wrong(with(interval, &[frame(SEQUENTIAL), of(&[2], chroma + 2)]), wrong);
        for (ids, count) in [(&[1, 2, 3][..], all), (&[1], luma), (&[2], chroma)] {
            if count > 0 {
                is_wrong(with(interval, &[frame(SEQUENTIAL), of(ids, count - 1)]), wrong);
            }
        }
    }
    let wrong_number = scan(&[1, 2, 3], [0, 63, 0], &[7, 0xff, 0xd1]);
    is_wrong(with(2, &[frame(SEQUENTIAL), wrong_number]), "ff d1 out of order");
    is_wrong(with(0, &[frame(SEQUENTIAL), of(&[1, 2, 3], 1)]), "ff d0 out of order");
    assert!(with(0, &[frame(SEQUENTIAL), of(&[1, 2, 3], 0)]).is_ok());
    // Arithmetic codes may have an interval that is not reached.
    assert!(with(4, &[frame(0xc9), of(&[1, 2, 3], 0)]).is_ok());
    assert!(with(0, &[frame(0xc9), of(&[1, 2, 3], 0)]).is_ok());
    is_wrong(with(3, &[frame(0xc9), of(&[1, 2, 3], 1)]), "arithmetic codes with restart markers");
    is_wrong(with(1, &[frame(0xc9), of(&[1, 2, 3], 3)]), "arithmetic codes with restart markers");
}

#[test]
fn codes_end_at_a_marker() {
    let with = |codes: &[u8]| read(&[frame(SEQUENTIAL, (8, 8), GRAY), scan(&[1], [0, 63, 0], codes)]);
    assert!(with(&[]).is_ok());
    assert!(with(&[0xff, 0, 0xff, 0xff, 0xff, 0, 1]).is_ok());
    assert!(with(&[1, 0xff]).is_ok(), "a fill byte before the end");
    let open = [&[0xff, 0xd8][..], &frame(SEQUENTIAL, (8, 8), GRAY), &whole(&[1])].concat();
    for more in [&[][..], &[0xff], &[0xff, 0], &[0xff, 0xff]] {
        let found = Layout::read(&[&open, more].concat(), 100).map_err(|fault| fault.to_string());
        is_wrong(found, "its end is missing");
    }
}

#[test]
fn conditioning_of_arithmetic_codes() {
    let with =
        |content: &[u8]| read(&[segment(0xcc, content), frame(0xc9, (8, 8), GRAY), whole(&[1])]).is_ok();
    assert!(
        with(&[]) && with(&[0, 0x00]) && with(&[15, 0x11]) && with(&[3, 0xf0]) && with(&[0, 0x54, 0x10, 5])
    );
    assert!(!with(&[0, 0x01]) && !with(&[0, 0x45]) && !with(&[0, 0x54, 0x00, 0x12]));
    assert!(with(&[0x10, 1]) && with(&[0x1f, 63]) && !with(&[0x10, 0]) && !with(&[0x10, 64]));
    assert!(!with(&[0x20, 1]) && !with(&[0]) && !with(&[0, 0x10, 0x10]));
}
