//! Writes the first inputs of each target: `cargo run --example seeds FOLDER`.

use std::fs;
use std::path::Path;

use fasttriplet::recordio::Header;
use fasttriplet::recordio::framing::{MAGIC_BYTES, append_record};
use fasttriplet_fuzz::naive::png::passes;
use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};

fn main() {
    let folder = std::env::args().nth(1).expect("a folder");
    let folder = Path::new(&folder);
    let targets = [
        ("header", headers()),
        ("idx", indexes()),
        ("jpeg", jpegs()),
        ("mining", cases()),
        ("png", pngs()),
        ("records", files()),
    ];
    for (target, inputs) in targets {
        fs::create_dir_all(folder.join(target)).expect("a folder");
        for (name, bytes) in inputs {
            fs::write(folder.join(target).join(name), bytes).expect("a written file");
        }
    }
}

type Inputs = Vec<(String, Vec<u8>)>;

fn payload(labels: &[f32], id: u64, content: &[u8]) -> Vec<u8> {
    let (label, labels) = if let [label] = labels { (*label, Vec::new()) } else { (0.0, labels.to_vec()) };
    let mut payload = Vec::new();
    Header { label, id, labels, ..Header::default() }.append_to(&mut payload);
    payload.extend(content);
    payload
}

fn headers() -> Inputs {
    let objects = [2.0, 5.0, 0.0, 0.1, 0.2, 0.5, 0.6];
    let cases: [(&str, &[f32]); 4] =
        [("label", &[7.0]), ("two-labels", &[7.0, 0.0]), ("objects", &objects), ("nan", &[f32::NAN])];
    cases.map(|(name, labels)| (name.into(), payload(labels, 1 << 40, b"content"))).into()
}

fn indexes() -> Inputs {
    let all = (0..64).map(|key| format!("{key}\t{}\n", 32 * key)).collect::<Vec<_>>().concat();
    let cases = [
        ("all", all.clone()),
        ("bom-and-cr", format!("\u{feff}{}", all.replace('\n', "\r\n"))),
        ("backwards", all.lines().rev().collect::<Vec<_>>().join("\n")),
        ("broken-lines", format!("key\toffset\n{all}1 2 3\n\n5\t12\n6\t18446744073709551616\n+7\t96")),
        ("some", "-9223372036854775808\t0\n9223372036854775807 \t 64".into()),
        ("twice", format!("{all}{all}")),
    ];
    cases.map(|(name, text)| (name.into(), text.into_bytes())).into()
}

/// `.idx` and `.rec` with a zero byte between them, and the `.rec` alone.
fn files() -> Inputs {
    let mut inputs = Inputs::new();
    let picture = |id: u64| [vec![id as u8; 9], MAGIC_BYTES.repeat(id as usize % 3)].concat();
    let plain: Vec<_> = (1..6).map(|id| payload(&[(id / 2) as f32], id, &picture(id))).collect();
    let insightface: Vec<_> = [payload(&[4.0, 6.0], 0, b"")]
        .into_iter()
        .chain((1..4).map(|id| payload(&[(id / 2) as f32, 0.0], id, &picture(id))))
        .chain([payload(&[1.0, 2.0], 4, b""), payload(&[2.0, 4.0], 5, b"")])
        .collect();
    let same_ids: Vec<_> = (0..4).map(|_| payload(&[3.0], 0, b"picture")).collect();
    let odd = vec![
        payload(&[0.5], 1, b"x"),
        payload(&[1.0], u64::MAX, b"x"),
        payload(&[1.0], 2, b"x"),
        b"y".to_vec(),
    ];
    for (name, payloads) in
        [("plain", plain), ("insightface", insightface), ("same-ids", same_ids), ("odd", odd)]
    {
        let (mut lines, mut rec) = (Vec::new(), Vec::new());
        for (key, payload) in payloads.iter().enumerate() {
            lines.push(format!("{key}\t{}\n", rec.len()));
            append_record(&mut rec, payload);
        }
        let idx = lines.concat();
        let with = |idx: &str, rec: &[u8]| [idx.as_bytes(), &[0], rec].concat();
        inputs.push((format!("{name}-idx"), with(&idx, &rec)));
        inputs.push((name.into(), with("", &rec)));
        inputs.push((format!("{name}-cut"), with(&idx, &rec[..rec.len() - 5])));
        let mut damaged = rec;
        damaged[4] = 60;
        inputs.push((format!("{name}-damaged"), with(&idx, &damaged)));
    }
    inputs
}

/// `count` bytes that repeat late.
fn noise(count: usize) -> Vec<u8> {
    (1..=count as u32).map(|i| (i.wrapping_mul(i).wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

fn jpegs() -> Inputs {
    let mut inputs = Inputs::new();
    let samplings = [
        Subsampling::S444,
        Subsampling::S422,
        Subsampling::S420,
        Subsampling::S440,
        Subsampling::S411,
        Subsampling::S441,
    ];
    let (height, width) = (19, 35);
    let pixels: Vec<u8> =
        noise(height * width * 4).iter().enumerate().map(|(i, n)| (i / 9) as u8 ^ (n % 32)).collect();
    for (format, name) in
        [(PixelFormat::Rgb, "rgb"), (PixelFormat::Grayscale, "gray"), (PixelFormat::Cmyk, "cmyk")]
    {
        for sampling in samplings {
            for (kind, progressive, arithmetic) in [
                ("huffman", false, false),
                ("progressive", true, false),
                ("arithmetic", false, true),
                ("both", true, true),
            ] {
                if (name == "gray" || name == "cmyk") && sampling != Subsampling::S444 {
                    continue;
                }
                let encoder = Encoder::new(&pixels, width, height, format).quality(30).subsampling(sampling);
                let encoder = encoder.progressive(progressive).arithmetic(arithmetic);
                let restarting = if progressive || arithmetic { encoder } else { encoder.restart_blocks(2) };
                if let Ok(jpeg) = restarting.encode() {
                    inputs.push((format!("{name}-{sampling:?}-{kind}").to_lowercase(), jpeg));
                }
            }
        }
    }
    inputs
}

fn cases() -> Inputs {
    let bytes = noise(4096);
    (0..48).map(|i| (format!("{i:02}"), bytes[i * 61..i * 61 + 150 + 20 * (i % 7)].to_vec())).collect()
}

/// All colours and depths, interlaced or not, with stored pixels, so that most changed bytes are changed pixels.
fn pngs() -> Inputs {
    let mut inputs = Inputs::new();
    let kinds = [
        (0, 1),
        (0, 2),
        (0, 4),
        (0, 8),
        (0, 16),
        (2, 8),
        (2, 16),
        (3, 1),
        (3, 2),
        (3, 4),
        (3, 8),
        (4, 8),
        (6, 16),
    ];
    let (width, height) = (9_usize, 7_usize);
    for (color, depth) in kinds {
        for interlaced in [false, true] {
            let samples = [1, 0, 3, 1, 2, 0, 4][color as usize];
            let mut rows = Vec::new();
            for &(x0, y0, dx, dy) in passes(interlaced) {
                let bits = (width - x0).div_ceil(dx) * samples * depth;
                for y in (y0..height).step_by(dy) {
                    rows.push((y % 5) as u8);
                    rows.extend(noise(bits.div_ceil(8)).iter().map(|byte| byte.wrapping_add(y as u8)));
                }
            }
            let mut header = [(width as u32).to_be_bytes(), (height as u32).to_be_bytes()].concat();
            header.extend([depth as u8, color, 0, 0, u8::from(interlaced)]);
            let zlib = miniz_oxide::deflate::compress_to_vec_zlib(&rows, if depth == 8 { 6 } else { 0 });
            let (some, more) = zlib.split_at(zlib.len() / 2);
            let palette = noise(3 << depth.min(4));
            let mut chunks: Vec<(&[u8; 4], &[u8])> = vec![(b"IHDR", &header), (b"gAMA", &[0, 0, 0xb1, 0x8f])];
            if color == 3 {
                chunks.extend([(b"PLTE", palette.as_slice()), (b"tRNS", &[7])]);
            }
            chunks.extend([(b"IDAT", some), (b"IDAT", more), (b"tEXt", b"a\0b"), (b"IEND", b"")]);
            let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
            for (name, content) in chunks {
                png.extend((content.len() as u32).to_be_bytes());
                png.extend(name.iter().chain(content));
                png.extend([0; 4]); // the target puts it right
            }
            inputs
                .push((format!("color-{color}-{depth}{}", if interlaced { "-interlaced" } else { "" }), png));
        }
    }
    inputs
}
