//! One encoded image: its format, its size and its pixels.

use std::borrow::Cow;
use std::fmt;

use super::contain::contain;
use super::jpeg::Jpeg;
use super::png::Png;
use crate::error::{grouped, in_bytes};
use crate::{Error, memory};

/// Why an image cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are not such an image.
    Content(Cow<'static, str>),
    /// There is not enough memory. The image may be good.
    Memory {
        /// Bytes that could not be allocated.
        bytes: u64,
        /// Bytes that are available, if it is known.
        available: Option<u64>,
    },
}

impl Fault {
    pub(super) fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Content(what.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(what) => f.write_str(what),
            Self::Memory { bytes, .. } => write!(f, "not enough memory: {}", in_bytes(*bytes)),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Memory { bytes, available, .. } => Self::Memory { bytes, available },
            other => Self::new(other.to_string()),
        }
    }
}

/// What a decoder needs memory for, in errors.
pub(super) const DECODING: &str = "decoding one image";

/// Bytes for the pixels of one image.
pub(super) fn zeros(length: usize) -> Result<Vec<u8>, Fault> {
    Ok(memory::zeroed(length, DECODING)?)
}

/// Height and width in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Size {
    /// Bytes of such an image in RGB.
    pub fn bytes(self) -> usize {
        self.height * self.width * 3
    }

    /// The size in a header, if an image may have it.
    pub(super) fn checked(height: usize, width: usize, max_pixels: usize) -> Result<Self, Fault> {
        let size = Self { height, width };
        if height == 0 || width == 0 {
            return Err(Fault::new(format!("the header says {size} pixels; the image is damaged")));
        }
        let pixels = (height as u64).saturating_mul(width as u64);
        if pixels > max_pixels as u64 {
            let (pixels, most) = (grouped(pixels), grouped(max_pixels as u64));
            return Err(Fault::new(format!(
                "the header says {size} pixels (height x width), {pixels} in all, and at most {most} are \
                 decoded; if it is right, raise max_pixels"
            )));
        }
        Ok(size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.height, self.width)
    }
}

/// An encoded image with headers that were read and checked.
pub struct Image<'a>(Kind<'a>);

enum Kind<'a> {
    Jpeg(Jpeg<'a>),
    Png(Box<Png<'a>>),
}

impl<'a> Image<'a> {
    /// Reads the headers of an image of at most `max_pixels`, which should not be above 2^30. Allocates
    /// nothing that grows with the size in the header.
    pub fn read(bytes: &'a [u8], max_pixels: usize) -> Result<Self, Fault> {
        contain(|| {
            if bytes.starts_with(&[0xff, 0xd8]) {
                Ok(Self(Kind::Jpeg(Jpeg::read(bytes, max_pixels)?)))
            } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
                Ok(Self(Kind::Png(Box::new(Png::read(bytes, max_pixels)?))))
            } else {
                Err(Fault::new(not_an_image(bytes)))
            }
        })
    }

    /// The size of the decoded image, turned upright.
    pub fn size(&self) -> Size {
        match &self.0 {
            Kind::Jpeg(jpeg) => jpeg.size(),
            Kind::Png(png) => png.size(),
        }
    }

    /// Writes the pixels into `out` as RGB, row by row, [`Size::bytes`] in all. After an error, `out` is
    /// undefined.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn decode(self, out: &mut [u8]) -> Result<(), Fault> {
        assert_eq!(out.len(), self.size().bytes(), "length of the buffer");
        contain(move || match self.0 {
            Kind::Jpeg(jpeg) => jpeg.decode(out),
            Kind::Png(png) => png.decode(out),
        })
    }
}

/// Says what the bytes are if they are neither a JPEG nor a PNG.
fn not_an_image(bytes: &[u8]) -> String {
    let starts = |prefix: &[u8]| bytes.starts_with(prefix);
    let format = if bytes.is_empty() {
        return "the record has no content; expected a JPEG or PNG image".to_owned();
    } else if starts(b"BM") {
        "BMP"
    } else if starts(b"GIF8") {
        "GIF"
    } else if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        "WebP"
    } else if starts(b"II*\0") || starts(b"MM\0*") {
        "TIFF"
    } else if starts(b"\0\0\0\x0cjP  ") || starts(&[0xff, 0x4f, 0xff, 0x51]) {
        "JPEG 2000"
    } else if starts(&[0xff, 0x0a]) || starts(b"\0\0\0\x0cJXL ") {
        "JPEG XL"
    } else if bytes.get(4..8) == Some(b"ftyp") {
        "HEIF or AVIF"
    } else if starts(b"\x93NUMPY") {
        return "this is a NumPy array, not an encoded image; expected JPEG or PNG".to_owned();
    } else {
        let head: Vec<_> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        return format!("not an image: starts with the bytes {}; expected JPEG or PNG", head.join(" "));
    };
    format!(
        "this is a {format} image; only JPEG and PNG are decoded, so convert it with Pillow, for instance"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        Image::read(bytes, 1).err().map(|fault| fault.to_string()).unwrap_or_default()
    }

    #[test]
    fn other_formats_are_named() {
        for (bytes, name) in [
            (&b"RIFF1234WAVEfmt "[..], "not an image"),
            (b"RIFF1234", "not an image"),
            (b"1234WEBPWEBP", "not an image"),
            (b"MM\0*", "TIFF"),
            (b"II*\0", "TIFF"),
            (b"MM*\0", "not an image"),
            (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
            (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
            (b"\xff\x0a\0", "JPEG XL"),
            (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
            (b"\0\0\0\x0cABC \r\n", "not an image"),
            (b"123ftypavif", "not an image"),
        ] {
            assert!(message(bytes).contains(name), "{name}: {}", message(bytes));
        }
        assert!(
            message(b"0123456789").contains("30 31 32 33 34 35 36 37; expected"),
            "the first eight bytes"
        );
        assert!(message(b"").contains("no content"));
        assert!(message(b"BM12").contains("BMP"));
        assert!(message(b"GIF89a").contains("GIF"));
        assert!(message(b"RIFF1234WEBPVP8 ").contains("WebP"));
        assert!(message(b"II*\0").contains("TIFF"));
        assert!(message(b"\0\0\0\x20ftypavif").contains("AVIF"));
        assert!(message(b"\x93NUMPY\x01\0").contains("NumPy"));
        assert!(message(b"hello").contains("68 65 6c 6c 6f; expected JPEG or PNG"));
    }

    #[test]
    fn a_fault_is_about_the_image_or_the_memory() {
        let error = || Error::Memory {
            bytes: 5_000_000,
            what: DECODING.into(),
            available: Some(7),
            advice: String::new(),
        };
        let fault = Fault::from(error());
        assert_eq!(fault, Fault::Memory { bytes: 5_000_000, available: Some(7) });
        assert_eq!(fault.to_string(), format!("not enough memory: {}", in_bytes(5_000_000)));
        let fault = Fault::from(Error::Value("wrong".into()));
        assert_eq!((fault.to_string(), fault), (error_text("wrong"), Fault::new(error_text("wrong"))));
    }

    fn error_text(what: &'static str) -> String {
        Error::Value(what.into()).to_string()
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(Size::checked(0, 5, 100).is_err() && Size::checked(5, 0, 100).is_err());
        assert_eq!(Size { height: 5, width: 7 }.bytes(), 105);
        assert!(Size::checked(usize::MAX, 2, usize::MAX - 1).is_err());
        let message = Size::checked(65_500, 65_501, 1 << 28).unwrap_err().to_string();
        assert!(message.contains("65500 x 65501 pixels (height x width), 4,290,315,500 in all"), "{message}");
        assert!(message.contains("at most 268,435,456"), "{message}");
        assert_eq!(Size::checked(112, 96, 112 * 96).unwrap().to_string(), "112 x 96");
        assert!(Size::checked(112, 96, 112 * 96 - 1).is_err());
    }
}
