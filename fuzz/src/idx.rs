//! The text of an `.idx` file, over a `.rec` file of 64 equal records: lines, keys and broken lines against the naive
//! reader.

use fasttriplet::recordio::framing::append_record;
use fasttriplet::recordio::{Header, RecordFile};

use crate::naive::recordio as naive;
use crate::records::check_table;
use crate::scratch::Scratch;

/// Records, of 32 bytes each.
const RECORDS: u64 = 64;
/// Findings of one kind that are kept in full.
const KEPT: usize = 1000;

struct Files {
    idx: Scratch,
    rec: Vec<u8>,
    file: RecordFile,
    _rec: Scratch,
}

impl Files {
    fn new() -> Self {
        let mut rec = Vec::new();
        for id in 0..RECORDS {
            let mut payload = Vec::new();
            Header { id, ..Header::default() }.append_to(&mut payload);
            append_record(&mut rec, &payload);
        }
        let scratch = Scratch::new();
        let file = RecordFile::open(scratch.hold(&rec)).expect("a .rec file");
        Self { idx: Scratch::new(), rec, file, _rec: scratch }
    }
}

thread_local! {
    static FILES: Files = Files::new();
}

/// `text` is that of an `.idx` file.
pub fn check(text: &[u8]) {
    FILES.with(|files| {
        let path = files.idx.hold(text);
        let expected = naive::idx(text, files.rec.len());
        for complete in [true, false] {
            let table = check_table(&files.file, &files.rec, Some((path, text)), complete).expect("records");
            if expected.lines.is_empty() {
                continue; // one line says what the file is instead
            }
            let name = format!("{}, line ", path.display());
            let number = |problem: &String| problem.strip_prefix(&name)?.split(':').next()?.parse().ok();
            let broken: Vec<usize> = table.problems().iter().filter_map(number).collect();
            assert_eq!(broken, &expected.broken[..expected.broken.len().min(KEPT)], "{:?}", table.problems());
        }
    });
}
