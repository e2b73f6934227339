//! The header of a payload: the crate's two readers against the naive one, and what is written is read again.

use fasttriplet::recordio::Header;
use fasttriplet::recordio::framing::append_record;
use fasttriplet::recordio::header::Fixed;

use crate::naive::recordio as naive;

/// `payload` is that of a record.
pub fn check(payload: &[u8]) {
    let expected = naive::header(payload);
    let (header, fixed) = (Header::parse(payload), Fixed::parse(payload));
    let Some(expected) = expected else {
        assert!(header.is_err() && fixed.is_err(), "a header in {} bytes", payload.len());
        return;
    };
    let (header, size) = header.expect("a header");
    let fixed = fixed.expect("a header");
    assert_eq!((size, fixed.size), (expected.size, expected.size));
    assert_eq!((header.flag, header.id, header.id2), (expected.flag, expected.id, expected.id2));
    assert_eq!((fixed.flag, fixed.id, fixed.id2), (expected.flag, expected.id, expected.id2));
    assert_eq!(bits(&[header.label, fixed.label]), bits(&[expected.label; 2]));
    assert_eq!(bits(&header.labels), bits(&expected.labels));
    let two: Vec<f32> = expected.labels.iter().copied().take(2).collect();
    assert_eq!(bits(&fixed.labels.into_iter().flatten().collect::<Vec<_>>()), bits(&two));
    let first = two.first().copied().unwrap_or(expected.label);
    assert_eq!(bits(&[header.first_label(), fixed.first_label()]), bits(&[first; 2]));
    let _ = fixed.names_objects(payload); // any answer

    // The label field of a record with labels is 0 when it is written; everything else comes back.
    let mut written = Vec::new();
    header.append_to(&mut written);
    written.extend(&payload[size..]);
    let mut same = payload.to_vec();
    if header.flag > 0 {
        same[4..8].fill(0);
    }
    assert_eq!(written, same);
    let mut record = Vec::new();
    append_record(&mut record, payload);
    let read = naive::record_at(&record, 0).expect("a record");
    assert_eq!((read.end, read.payload.as_slice()), (record.len(), payload));
}

fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|float| float.to_bits()).collect()
}
