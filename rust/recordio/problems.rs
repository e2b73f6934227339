//! Findings that do not end the work: they are collected, and reported to the user at the end.

/// Findings of one kind that are kept in full.
const KEPT: usize = 10;

/// Findings of one kind: the first few in full, the rest counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problems {
    texts: Vec<String>,
    more: u64,
}

impl Problems {
    pub fn add(&mut self, text: impl FnOnce() -> String) {
        if self.texts.len() < KEPT {
            self.texts.push(text());
        } else {
            self.more += 1;
        }
    }

    pub fn append(&mut self, next: Self) {
        self.more += next.more;
        for text in next.texts {
            self.add(|| text);
        }
    }

    /// One line per finding. `what` is a plural for those that were only counted.
    pub fn into_lines(mut self, what: &str) -> Vec<String> {
        if self.more > 0 {
            self.texts.push(format!("... and {} more {what}", self.more));
        }
        self.texts
    }
}
