//! Files without a name, in memory where that is possible.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file that is opened by its path, `/proc/self/fd/N`, and is gone when the process ends.
pub struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let file = if memory.is_dir() { tempfile::tempfile_in(memory) } else { tempfile::tempfile() };
        let file = file.expect("a temporary file");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        Self { file, path }
    }

    /// Replaces the content. Returns the path.
    pub fn hold(&self, bytes: &[u8]) -> &Path {
        self.file.set_len(0).expect("an empty file");
        self.file.write_all_at(bytes, 0).expect("a written file");
        &self.path
    }
}
