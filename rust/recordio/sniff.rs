//! What a file is that was given as a `.rec` or `.idx` file but is not one.

use crate::error::counted;

/// What to do about a file that a copy in text mode has changed.
pub(crate) const COPY_IN_BINARY: &str =
    "copy the file again in binary mode (with git: `*.rec binary` in .gitattributes)";

/// The magic of the first record, after a copy that turned LF into CR LF.
const MAGIC_AS_TEXT: [u8; 5] = *b"\r\n\x23\xd7\xce";

/// Says what `head`, the first bytes of a file of `size` bytes, looks like, and what to do about it. `None`:
/// binary data of an unknown kind.
pub(crate) fn kind(head: &[u8], size: u64) -> Option<String> {
    let starts = |prefix: &[u8]| head.starts_with(prefix);
    let text = if starts(b"version https://git-lfs.github.com/spec/") {
        let real = lfs_size(head).map(|n| format!(" of {}", counted(n, "byte"))).unwrap_or_default();
        format!(
            "this is a Git LFS pointer, a short text that stands for the real file{real}; \
             run `git lfs pull` in its repository to fetch that"
        )
    } else if starts(&MAGIC_AS_TEXT) {
        format!("a copy in text mode has turned each LF (0a) of one into CR LF (0d 0a); {COPY_IN_BINARY}")
    } else if starts(&[0xff, 0xd8, 0xff]) {
        image("JPEG")
    } else if starts(b"\x89PNG") {
        image("PNG")
    } else if starts(b"PK\x03\x04") {
        archive("zip archive")
    } else if starts(&[0x1f, 0x8b]) {
        archive("gzip file")
    } else if head.get(257..262) == Some(b"ustar") {
        archive("tar archive")
    } else if head
        .trim_ascii_start()
        .get(..5)
        .is_some_and(|tag| tag.eq_ignore_ascii_case(b"<html") || tag.eq_ignore_ascii_case(b"<!doc"))
    {
        "this is an HTML page; the download probably ended at a web page instead of the file".into()
    } else if is_idx(head) {
        "this looks like an .idx file (lines of key and offset); give the .rec file itself".into()
    } else if starts(&[0xff, 0xfe]) || starts(&[0xfe, 0xff]) {
        "this is a text in UTF-16; save it as UTF-8".into()
    } else if is_text(head) {
        "this is a text file".into()
    } else if !head.is_empty() && head.iter().all(|byte| *byte == 0) {
        let size = counted(size, "byte");
        format!("the file ({size}) starts with zeros only; was its download or copy cut off?")
    } else {
        return None;
    };
    Some(text)
}

fn image(format: &str) -> String {
    format!("this is a single {format} image; `fasttriplet pack` makes a .rec of a folder of images")
}

fn archive(what: &str) -> String {
    format!("this is a {what}; unpack it first")
}

fn lfs_size(head: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(head).ok()?;
    text.lines().find_map(|line| line.strip_prefix("size "))?.trim().parse().ok()
}

fn is_text(head: &[u8]) -> bool {
    // The head may be cut inside a character.
    let valid = std::str::from_utf8(head).map_or_else(|e| e.error_len().is_none(), |_| true);
    !head.is_empty() && valid && head.iter().all(|b| !b.is_ascii_control() || b.is_ascii_whitespace())
}

/// `text` without the byte order mark of UTF-8.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

fn is_idx(head: &[u8]) -> bool {
    let line = without_mark(head).split(|b| *b == b'\n').next().unwrap_or_default();
    let mut fields = line.trim_ascii().split(|b| *b == b'\t');
    let number = |field: Option<&[u8]>| {
        field.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
    };
    number(fields.next()) && number(fields.next()) && fields.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn what_one_finds_in_place_of_a_rec() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:7a\nsize 12069000\n";
        let cases: [(&[u8], &str); 12] = [
            (pointer, "Git LFS pointer, a short text that stands for the real file of 12,069,000 bytes"),
            (&[0xff, 0xd8, 0xff, 0xe0], "JPEG image"),
            (b"\x89PNG\r\n", "PNG image"),
            (b"PK\x03\x04", "zip archive"),
            (&[0x1f, 0x8b, 8], "gzip"),
            (b"\n<!DOCTYPE html>", "HTML"),
            (b"0\t0\n1\t5500\n", ".idx file"),
            (b"\xef\xbb\xbf0\t0\r\n", ".idx file"),
            (b"\xff\xfe0\0", "UTF-16"),
            (b"\r\n\x23\xd7\xce\x10\0\0\0", "a copy in text mode has turned each LF"),
            (b"hello\n", "text file"),
            (&[0; 64], "zeros"),
        ];
        for (head, expected) in cases {
            let text = kind(head, head.len() as u64).unwrap();
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(kind(&[1, 2, 3, 4], 4), None);
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(kind(&tar, 512).unwrap().contains("tar archive"));
        let more: [(&[u8], &str); 13] = [
            (b"  <HTML>", "HTML"),
            (b"<body>", "text file"),
            (b"\xfe\xff\0\x30", "UTF-16"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:7a\n",
                "the real file; run `git lfs pull`",
            ),
            (b"0\t0\t0\n", "text file"),
            (b"0\tx\n", "text file"),
            (b"\t0\n", "text file"),
            (b"0\n", "text file"),
            ("gr\u{fc}n".as_bytes(), "text file"),
            (&"gr\u{fc}n".as_bytes()[..3], "text file"), // cut inside of a character
            (b"cut\xe2\x82", "text file"),
            (&[0; 1], "the file (1 byte) starts with zeros only"),
            (b"\r\n\x23\xd7\xce", "in text mode"),
        ];
        for (head, expected) in more {
            let text = kind(head, head.len() as u64).unwrap_or_default();
            assert!(text.contains(expected), "{text}; expected {expected}");
        }
        for unknown in [&b""[..], b"a\x01b", b"gr\xfcn", b"0\t\x01", &[0, 0, 1], b"PK\x03"] {
            assert!(kind(unknown, 9).is_none(), "{unknown:?}");
        }
    }
}
