use std::sync::Mutex;
use std::thread::ThreadId;
use std::time::Instant;

use super::*;

/// A gray PNG, `width` pixels wide and one high, of one value.
fn png(width: u32, value: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, width, 1);
    encoder.set_color(::png::ColorType::Grayscale);
    let data = vec![value; width as usize];
    encoder.write_header().unwrap().write_image_data(&data).unwrap();
    bytes
}

fn encoded<'a>(images: &'a [&'a [u8]]) -> Encoded<'a> {
    Encoded { images, max_pixels: 100 }
}

fn batch(images: &[Vec<u8>], skip: bool) -> Result<(Vec<u8>, Vec<Failure>)> {
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let (source, interrupt) = (encoded(&images), Interrupt::new());
    let size = if skip { usual_size(&source, &interrupt) } else { first_size(&source) };
    let Some(size) = size? else { return Ok((vec![], vec![])) };
    let mut out = vec![0; images.len() * size.bytes()];
    let failures = decode(&source, size, &mut out, &interrupt)?;
    let kept = close_gaps(&mut out, size, &failures);
    out.truncate(kept * size.bytes());
    Ok((out, failures))
}

#[test]
fn rows_in_order() {
    let images: Vec<_> = (0..50).map(|value| png(2, value)).collect();
    let (out, failures) = batch(&images, false).unwrap();
    assert!(failures.is_empty());
    assert_eq!(out, (0..50).flat_map(|value| [value; 6]).collect::<Vec<u8>>());
    assert!(batch(&[], false).unwrap().0.is_empty());
}

#[test]
fn images_of_any_size_and_by_a_table() {
    let images = [png(2, 1), b"GIF89a".to_vec(), png(3, 5)];
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let (source, interrupt) = (encoded(&images), Interrupt::new());
    let (pictures, failures) = decode_each(&source, &interrupt).unwrap();
    let found: Vec<_> = pictures.into_iter().map(|picture| picture.map(|(_, pixels)| pixels)).collect();
    assert_eq!(found, [Some(vec![1; 6]), None, Some(vec![5; 9])]);
    assert_eq!(failures.iter().map(|failure| failure.row).collect::<Vec<_>>(), [1]);
    let (size, table) = (Size { height: 1, width: 2 }, std::array::from_fn(|byte| byte as f32 + 0.5));
    let mut out = vec![0.0; 18];
    let failures = decode_by_table(&source, size, None, &table, &mut out, &interrupt).unwrap();
    assert_eq!(failures.iter().map(|failure| failure.row).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(out[..6], [1.5; 6]);
    assert!(decode_by_table(&source, size, Some(&[true]), &table, &mut out, &interrupt).is_err());
}

/// Images that lie in the order of `places`. Notes who reads them, and in which order.
struct Noted<'a> {
    images: &'a [&'a [u8]],
    places: &'a [i64],
    announced: Mutex<Vec<usize>>,
    read: Mutex<Vec<(usize, ThreadId)>>,
    /// As many reads are waited for, so that they are at the same time.
    together: usize,
}

impl<'a> Noted<'a> {
    fn new(images: &'a [&'a [u8]], places: &'a [i64], together: usize) -> Self {
        Self { images, places, announced: Mutex::default(), read: Mutex::default(), together }
    }

    fn order(&self) -> Vec<usize> {
        self.read.lock().unwrap().iter().map(|(row, _)| *row).collect()
    }
}

impl Source for Noted<'_> {
    fn count(&self) -> usize {
        self.images.len()
    }

    fn max_pixels(&self) -> usize {
        3
    }

    fn bytes<'b>(&'b self, row: usize, _: &'b mut Vec<u8>) -> Result<Cow<'b, [u8]>> {
        self.read.lock().unwrap().push((row, std::thread::current().id()));
        let begin = Instant::now();
        while self.read.lock().unwrap().len() < self.together {
            assert!(begin.elapsed().as_secs() < 20, "the other image is not read at the same time");
            std::thread::yield_now();
        }
        Ok(Cow::Borrowed(self.images[row]))
    }

    fn error(&self, row: usize, reason: String) -> Error {
        encoded(self.images).error(row, reason)
    }

    fn place(&self, row: usize) -> (u32, i64) {
        (0, self.places[row])
    }

    fn announce(&self, rows: impl Iterator<Item = usize>) {
        self.announced.lock().unwrap().extend(rows);
    }
}

type Decode<'a> = &'a (dyn Fn(&Noted, &Interrupt) -> (Vec<u8>, Vec<usize>) + Sync);

#[test]
fn images_are_read_in_the_order_in_which_they_are_stored() {
    let images = [png(2, 1), png(3, 2), png(2, 3), png(4, 4), png(2, 5)];
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let size = Size { height: 1, width: 2 };
    let rows = |failures: &[Failure]| failures.iter().map(|failure| failure.row).collect::<Vec<_>>();
    let table: [u8; 256] = std::array::from_fn(|byte| byte as u8);
    let ways: [(&str, Decode); 4] = [
        ("bytes", &|source, interrupt| {
            let mut out = vec![0; 30];
            let failures = decode(source, size, &mut out, interrupt).unwrap();
            (out, rows(&failures))
        }),
        ("planes", &|source, interrupt| {
            let mut out = vec![0.0; 30];
            let failures = decode_planes(source, size, Isa::PORTABLE, &mut out, interrupt).unwrap();
            (out.into_iter().map(|value| value as u8).collect(), rows(&failures))
        }),
        ("by a table", &|source, interrupt| {
            let mut out = vec![0; 30];
            let mirrored = Some(&[true, false, true, false, true][..]);
            let failures = decode_by_table(source, size, mirrored, &table, &mut out, interrupt).unwrap();
            (out, rows(&failures))
        }),
        ("each", &|source, interrupt| {
            let (pictures, failures) = decode_each(source, interrupt).unwrap();
            let of_size = |picture: Option<Picture>| {
                picture.filter(|(own, _)| *own == size).map_or(vec![0; 6], |(_, pixels)| pixels)
            };
            (pictures.into_iter().flat_map(of_size).collect(), rows(&failures))
        }),
    ];
    for (name, way) in ways {
        let source = Noted::new(&images, &[7, 6, 9, -1, 8], 0);
        let (out, failed) = way(&source, &Interrupt::new());
        // The image of four pixels is too large, one of three only where all have one size.
        let expected: &[usize] = if name == "each" { &[3] } else { &[1, 3] };
        assert_eq!(failed, expected, "{name}");
        for (row, pixels) in out.chunks_exact(6).enumerate().filter(|(row, _)| row % 2 == 0) {
            assert_eq!(pixels, [row as u8 + 1; 6], "{name}: image {row}");
        }
        // Outside of a pool, by the calling thread, one after another.
        assert_eq!(source.order(), [3, 1, 0, 4, 2], "{name}");
        assert_eq!(*source.announced.lock().unwrap(), [3, 1, 0, 4, 2], "{name}");
        let own = std::thread::current().id();
        assert!(source.read.lock().unwrap().iter().all(|(_, thread)| *thread == own), "{name}");
        // In one, by its threads, at the same time.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let source = Noted::new(&images, &[7, 6, 9, -1, 8], 2);
        let (again, failed) = pool.install(|| way(&source, &Interrupt::new()));
        assert_eq!((again, failed.as_slice()), (out, expected), "{name}");
        let mut order = source.order();
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4], "{name}");
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let source = Noted::new(&images, &[7, 6, 9, -1, 8], 2);
    let size = pool.install(|| usual_size(&source, &Interrupt::new()).unwrap());
    assert_eq!(size, Some(Size { height: 1, width: 2 }));
    assert_eq!(*source.announced.lock().unwrap(), [3, 1, 0, 4, 2]);
}

#[test]
fn why_no_image_can_be_read() {
    let images = [png(2, 1), b"GIF89a".to_vec(), png(4, 2), vec![]];
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let found = unreadable(&Noted::new(&images, &[0; 4], 0), &Interrupt::new()).unwrap();
    let found: Vec<_> = found.iter().map(|failure| (failure.row, failure.error.to_string())).collect();
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(found[0].1.contains("image [1]") && found[0].1.contains("GIF"), "{}", found[0].1);
    assert!(found[1].1.contains("4 in all, and at most 3"), "{}", found[1].1);
    let raised = Interrupt::new();
    raised.raise();
    assert!(unreadable(&Noted::new(&images, &[0; 4], 0), &raised).is_err());
    assert!(decode_each(&Noted::new(&images, &[0; 4], 0), &raised).is_err());
}

#[test]
fn bytes_of_a_batch() {
    let image = png(2, 1);
    let images = [image.as_slice(); 3];
    let of = |height, width, bytes| bytes_of(&encoded(&images), Size { height, width }, bytes);
    assert_eq!(of(5, 7, 1), 3 * 105);
    assert_eq!(of(5, 7, 4), 3 * 420);
    assert_eq!(of(1 << 40, 1 << 40, 4), u64::MAX);
}

#[test]
fn failures_are_named_and_close_up() {
    let images = [b"GIF89a".to_vec(), png(2, 1), png(3, 2), png(2, 3), vec![], png(2, 4)];
    let (out, failures) = batch(&images, true).unwrap();
    assert_eq!(out, [1, 3, 4].iter().flat_map(|value| [*value; 6]).collect::<Vec<u8>>());
    assert_eq!(failures.iter().map(|failure| failure.row).collect::<Vec<_>>(), [0, 2, 4]);
    let message = failures[1].error.to_string();
    assert!(message.starts_with("image [2]: the image is 1 x 3 pixels"), "{message}");
    assert!(message.contains("1 x 2"), "{message}");
    assert!(batch(&images, false).unwrap_err().to_string().contains("GIF"));
}

#[test]
fn the_usual_size_is_the_most_frequent_and_of_equals_the_first() {
    let usual = |widths: &[u32]| {
        let images: Vec<_> =
            widths.iter().map(|&width| if width == 0 { vec![] } else { png(width, 1) }).collect();
        let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        usual_size(&encoded(&images), &Interrupt::new()).unwrap().map(|size| size.width)
    };
    assert_eq!(usual(&[3, 2, 2]), Some(2));
    assert_eq!(usual(&[0, 3, 2, 2, 3]), Some(3));
    assert_eq!(usual(&[0, 0]), None);
    assert_eq!(usual(&[]), None);
}

#[test]
fn an_interrupt_ends_the_batch() {
    let image = png(2, 1);
    let (images, interrupt) = ([image.as_slice()], Interrupt::new());
    interrupt.raise();
    assert!(matches!(usual_size(&encoded(&images), &interrupt), Err(Error::Interrupted)));
    let size = Size { height: 1, width: 2 };
    assert!(matches!(decode(&encoded(&images), size, &mut [0; 6], &interrupt), Err(Error::Interrupted)));
    assert!(matches!(decode(&encoded(&images), size, &mut [0; 5], &interrupt), Err(Error::Value(_))));
}

#[test]
fn a_batch_without_memory_names_the_first_image_of_its_size() {
    let images = [png(2, 1), png(3, 1), png(3, 2)];
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let message = |height, width| too_large(&encoded(&images), Size { height, width }, 4, None).to_string();
    let found = message(1, 3);
    let expected = "not enough memory: 108 bytes for the pixels of a batch, 3 images of 1 x 3 (height x \
                    width); the first of this size is image [1]. ";
    assert!(found.starts_with(expected), "{found}");
    let beyond = message(1 << 40, 1 << 40);
    assert!(beyond.contains("none of them has this size"), "{beyond}");
}

#[test]
fn too_little_memory_ends_a_batch() {
    let image = png(2, 1);
    let images = [image.as_slice()];
    let (source, size) = (encoded(&images), Size { height: 1, width: 2 });
    let no_memory = |row, _: &mut [u8], (): &mut ()| {
        Err(explain(&source, row, &Fault::Memory { bytes: 7, available: None }))
    };
    let Err(error) = each(&source, size, &mut [0; 6], &Interrupt::new(), || (), no_memory) else {
        panic!("expected an error");
    };
    let message = error.to_string();
    assert_eq!(
        message,
        "not enough memory: 7 bytes for decoding one image, image [0]; fewer threads take less"
    );
}
