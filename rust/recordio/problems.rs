//! Findings that do not end the work: they are collected, and reported to the user at the end.

use std::fmt::Display;

use crate::error::grouped;

/// Findings of one kind that are kept in full: enough to act on, and 100 kB of text at most.
const KEPT: usize = 1000;

/// Findings of one kind: the first ones in full, the rest counted.
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

    pub fn count(&self) -> u64 {
        self.texts.len() as u64 + self.more
    }

    #[cfg(test)]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    pub fn first(&self) -> Option<&str> {
        self.texts.first().map(String::as_str)
    }
}

/// All findings about a file. One line per kind comes first, so that whoever reads only the start of the list
/// knows of all kinds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    heads: Vec<String>,
    rest: Vec<String>,
}

impl Report {
    /// Adds a finding that stands alone.
    pub fn say(&mut self, line: String) {
        self.heads.push(line);
    }

    /// Adds all findings of a kind. `place` is where they are, `what` is a plural.
    pub fn list(&mut self, place: impl Display, found: Problems, what: &str) {
        let count = found.count();
        let mut lines = found.texts.into_iter().map(|text| format!("{place}, {text}"));
        self.heads.extend(lines.next().map(|line| line + &first_of(count, what)));
        self.rest.extend(lines);
        if found.more > 0 {
            self.rest.push(format!("{place}: {} more {what}", grouped(found.more)));
        }
    }

    /// Adds the `consequence` to the first finding.
    pub fn conclude(&mut self, consequence: &str) {
        if let Some(head) = self.heads.first_mut() {
            head.push_str(consequence);
        }
    }

    pub fn append(&mut self, next: Self) {
        self.heads.extend(next.heads);
        self.rest.extend(next.rest);
    }

    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    pub fn into_lines(mut self) -> Vec<String> {
        self.heads.append(&mut self.rest);
        self.heads
    }
}

/// Says after an example how many there are; nothing if it is the only one. `what` is a plural.
pub(crate) fn first_of(count: u64, what: &str) -> String {
    if count > 1 { format!(" (the first of {} {what})", grouped(count)) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_named_before_the_details() {
        let (mut few, mut many) = (Problems::default(), Problems::default());
        few.add(|| "line 3: odd".into());
        for i in 0..1005 {
            many.add(|| format!("offset {i}: bad"));
        }
        let mut report = Report::default();
        report.list("a.rec", many, "holes");
        report.list("a.idx", few, "lines");
        report.say("a.rec: large".into());
        report.conclude("; so what");
        let lines = report.into_lines();
        assert_eq!(lines[0], "a.rec, offset 0: bad (the first of 1,005 holes); so what");
        assert_eq!(lines[1..4], ["a.idx, line 3: odd", "a.rec: large", "a.rec, offset 1: bad"]);
        assert_eq!((lines.len(), lines[1002].as_str()), (1003, "a.rec: 5 more holes"));
    }
}
