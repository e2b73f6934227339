//! The text of an `.idx` file: lines of `key`, tab, byte offset.

use super::problems::Problems;
use super::sniff;
use super::window::Window;
use crate::Result;
use crate::error::counted;

/// Bytes in which the end of a line is looked for; more than that count as several lines.
const LONGEST_LINE: usize = 64 << 10;

/// What the usable lines of an `.idx` file say.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Keys and offsets, in the order of the lines.
    pub keys: Vec<i64>,
    pub offsets: Vec<u64>,
    /// Lines that are not a key and an offset, or whose offset no record of the `.rec` can have.
    pub broken: Problems,
}

/// Says what a file without a usable line is, if that can be told from its first bytes.
pub(crate) fn instead(text: &mut Window) -> Result<Option<String>> {
    let size = text.size();
    let head = text.get(0, 1024)?;
    if head.is_empty() {
        return Ok(Some("the file is empty".into()));
    }
    let first = sniff::without_mark(head);
    if line(first.split(|b| *b == b'\n').next().unwrap_or_default()).is_some() {
        return Ok(None); // an index, but not of this .rec
    }
    Ok(sniff::kind(head, size).map(|kind| format!("not an index: {kind}")))
}

/// Parses the index of a `.rec` of `rec_size` bytes. Broken lines are named and left out. A byte order mark, which
/// editors on Windows write, is not part of the first line.
pub(crate) fn parse(text: &mut Window, rec_size: u64) -> Result<Lines> {
    let head = text.get(0, 4)?;
    let mut at = (head.len() - sniff::without_mark(head).len()) as u64;
    let guess = text.size().min(rec_size) as usize / 16;
    let mut lines = Lines {
        keys: Vec::with_capacity(guess),
        offsets: Vec::with_capacity(guess),
        broken: Problems::default(),
    };
    for number in 1_u64.. {
        let Some(bytes) = next_line(text, at)? else { break };
        at += bytes.len() as u64;
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let entry = match line(bytes) {
            Some((key, offset)) => usable(offset, rec_size).map(|()| (key, offset)),
            None if bytes.trim_ascii().is_empty() => continue, // a blank line is not an error
            None => Err(format!("expected a key, a tab and a byte offset, found {}", excerpt(bytes))),
        };
        match entry {
            Ok((key, offset)) => {
                lines.keys.push(key);
                lines.offsets.push(offset);
            }
            Err(what) => lines.broken.add(|| format!("line {number}: {what}")),
        }
    }
    Ok(lines)
}

/// The line at `at`, with its end; `None` at the end of the text.
fn next_line<'w>(text: &'w mut Window, at: u64) -> Result<Option<&'w [u8]>> {
    let mut least = 1;
    loop {
        let loaded = text.at_least(at, least)?;
        let (end, length) = (memchr::memchr(b'\n', loaded), loaded.len());
        if end.is_some() || length < least || length >= LONGEST_LINE {
            let line = text.get(at, end.map_or(length, |end| end + 1))?;
            return Ok(Some(line).filter(|line| !line.is_empty()));
        }
        least = length + 1;
    }
}

/// Appends one line.
pub(crate) fn append_line(out: &mut Vec<u8>, key: i64, offset: u64) {
    out.extend_from_slice(format!("{key}\t{offset}\n").as_bytes());
}

fn usable(offset: u64, rec_size: u64) -> Result<(), String> {
    if offset.checked_add(8).is_none_or(|end| end > rec_size) {
        Err(format!("offset {offset} lies beyond the end of the .rec file ({})", counted(rec_size, "byte")))
    } else if !offset.is_multiple_of(4) {
        Err(format!("offset {offset} is not a multiple of 4, as those of records are"))
    } else {
        Ok(())
    }
}

/// Reads two integers with blanks between them.
fn line(bytes: &[u8]) -> Option<(i64, u64)> {
    let bytes = bytes.trim_ascii();
    let key_end = bytes.iter().position(u8::is_ascii_whitespace)?;
    let (key, offset) = bytes.split_at(key_end);
    let key = str::from_utf8(key).ok()?.parse().ok()?;
    Some((key, number(offset.trim_ascii_start())?))
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| value.checked_mul(10)?.checked_add(u64::from(digit)))?
    })
}

fn excerpt(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).chars().take(40).collect();
    format!("{:?}{}", text, if bytes.len() > 40 { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &[u8], rec_size: u64) -> Lines {
        parse(&mut Window::new(&text, &mut Vec::new()), rec_size).unwrap()
    }

    #[test]
    fn tolerates_and_names_broken_lines() {
        let text = b"1\t0\nrubbish\n\n2\t40\r\n3\t18446744073709551615\n4 80\n5\t42\n6\t99999\n-7\t120";
        let lines = parsed(text, 200);
        assert_eq!(lines.keys, [1, 2, 4, -7]);
        assert_eq!(lines.offsets, [0, 40, 80, 120]);
        let broken = lines.broken.texts();
        assert_eq!(broken[0], "line 2: expected a key, a tab and a byte offset, found \"rubbish\"");
        assert_eq!(
            broken[1],
            "line 5: offset 18446744073709551615 lies beyond the end of the .rec file (200 bytes)"
        );
        assert!(broken[2].starts_with("line 7: offset 42 is not a multiple of 4"));
        assert!(broken[3].starts_with("line 8: offset 99999 lies beyond"));
    }

    #[test]
    fn an_offset_has_room_for_the_start_of_a_record() {
        let broken = |offset: u64, size| parsed(format!("1\t{offset}").as_bytes(), size).broken.count();
        assert_eq!([broken(0, 8), broken(0, 7), broken(4, 12), broken(4, 11)], [0, 1, 0, 1]);
        assert_eq!([broken(u64::MAX, u64::MAX), broken(u64::MAX - 7, u64::MAX)], [1, 1]);
        assert_eq!(parsed(b"1\t18446744073709551616\n1\t\n1\t4x\n1\t-4\n", 99).broken.count(), 4);
    }

    #[test]
    fn long_lines_are_shown_in_part_and_end_somewhere() {
        let shown = |text: &[u8]| parsed(text, 99).broken.texts()[0].clone();
        let found = "line 1: expected a key, a tab and a byte offset, found ";
        assert_eq!(shown(&[b'a'; 40]), format!("{found}\"{}\"", "a".repeat(40)));
        assert_eq!(shown(&[b'a'; 41]), format!("{found}\"{}\"...", "a".repeat(40)));
        let spaces = [&b" ".repeat(60_000)[..], b"1\t0\n2\t8\n"].concat();
        assert_eq!(parsed(&spaces, 99).keys, [1, 2]);
        // A line is looked at in pieces of 64 KiB, or a little more.
        let endless = [&b"x".repeat(300_000)[..], b"\n1\t0\n"].concat();
        let lines = parsed(&endless, 99);
        assert_eq!(lines.keys, [1]);
        assert!((2..=5).contains(&lines.broken.count()), "{}", lines.broken.count());
    }

    #[test]
    fn what_is_there_in_place_of_an_index() {
        let of = |text: &[u8]| instead(&mut Window::new(&text, &mut Vec::new())).unwrap();
        assert_eq!(of(b"").unwrap(), "the file is empty");
        assert_eq!(of(b"1\t0\n"), None);
        assert_eq!(of(b"\xef\xbb\xbf1\t0"), None);
        assert!(of(b"\x1f\x8b\x08").unwrap().starts_with("not an index: this is a gzip file"));
        assert_eq!(of(b"\x01\x02"), None);
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_key() {
        let lines = parsed(b"\xef\xbb\xbf1\t0\r\n2\t40\r\n", 200);
        assert_eq!((lines.keys, lines.offsets, lines.broken.count()), (vec![1, 2], vec![0, 40], 0));
        // What PowerShell's `>` writes.
        let utf16 = b"\xff\xfe1\0\t\x000\0\n\0";
        assert!(parsed(utf16, 200).keys.is_empty());
        assert!(
            instead(&mut Window::new(&utf16.as_slice(), &mut Vec::new()))
                .unwrap()
                .unwrap()
                .contains("UTF-16")
        );
    }

    proptest! {
        #[test]
        fn round_trip(entries in prop::collection::vec((any::<i64>(), 0_u64..1 << 60), 0..20)) {
            let mut text = Vec::new();
            for (key, offset) in &entries {
                append_line(&mut text, *key, offset * 4);
            }
            let lines = parsed(&text, u64::MAX);
            prop_assert_eq!(lines.broken.count(), 0);
            let read: Vec<_> = lines.keys.iter().copied().zip(lines.offsets.iter().copied()).collect();
            let expected: Vec<_> = entries.iter().map(|(key, offset)| (*key, offset * 4)).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_parse(text in prop::collection::vec(prop_oneof![any::<u8>(), b'0'..=b'9', Just(b'\t'), Just(b'\n')], 0..200)) {
            let lines = parsed(&text, 1 << 20);
            prop_assert_eq!(lines.keys.len(), lines.offsets.len());
        }
    }
}
