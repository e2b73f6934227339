//! The rows as the kernels need them: sorted by identity, normalised and padded.

use std::ops::Range;

use rayon::prelude::*;

use super::exact::{self, LANES};
use super::{Input, Options, Rows, hash};
use crate::{Error, Interrupt, Isa, Result};

/// Index of a row in [`Points`], where rows are sorted by (label, id).
pub type Place = u32;

/// The set of anchors, and the set of candidates that their positives and negatives come from.
pub struct Sets {
    /// Where anchors come from.
    pub anchors: Points,
    references: Option<Points>,
    /// The candidates with the label of each of the anchors' identities.
    runs: Vec<Range<Place>>,
    /// Whether ids say which reference is the anchor itself.
    ids_given: bool,
}

impl Sets {
    /// Sorts, copies, pads and (if asked) normalises the caller's rows. Ids must be unique.
    pub fn new(input: &Input<'_>, options: &Options, isa: Isa, interrupt: &Interrupt) -> Result<Self> {
        let points = |rows, name| Points::new(rows, name, input.dim, options, isa, interrupt);
        let anchors = points(&input.anchors, "ids")?;
        let references = input.references.as_ref().map(|rows| points(rows, "reference_ids")).transpose()?;
        let candidates = references.as_ref().unwrap_or(&anchors);
        let runs = anchors.labels.iter().map(|&label| candidates.run_of_label(label)).collect();
        Ok(Self { runs, ids_given: input.anchors.ids.is_some(), anchors, references })
    }

    /// Where positives and negatives come from.
    pub fn candidates(&self) -> &Points {
        self.references.as_ref().unwrap_or(&self.anchors)
    }

    /// Whether the candidates are references.
    pub fn are_two(&self) -> bool {
        self.references.is_some()
    }

    /// The candidates with the anchor's label: its positives, and the anchor itself if it is a candidate.
    pub fn identity_run(&self, anchor: Place) -> Range<Place> {
        self.runs[self.anchors.identity[anchor as usize] as usize].clone()
    }

    /// Whether a candidate is the anchor itself.
    pub fn is_itself(&self, anchor: Place, candidate: Place) -> bool {
        match &self.references {
            None => anchor == candidate,
            Some(references) => {
                self.ids_given && self.anchors.ids[anchor as usize] == references.ids[candidate as usize]
            }
        }
    }
}

/// N rows, sorted by (label, id), so that an identity's rows are one range of places.
pub struct Points {
    /// `(N, width)`, row after row.
    values: Vec<f32>,
    /// Columns, padded with zeros to a multiple of [`LANES`].
    width: usize,
    /// Squared L2 norms.
    pub squared_norms: Vec<f64>,
    /// The hash of each row ([`hash::row_hash`]).
    pub hashes: Vec<u64>,
    /// Their low halves.
    pub hashes_low: Vec<u32>,
    /// The caller's ids, or the rows' indices in the caller's arrays.
    pub ids: Vec<i64>,
    /// Indices in the caller's arrays.
    pub rows: Vec<u32>,
    /// Indices among all ids in ascending order.
    pub ranks: Vec<u32>,
    /// First place of each identity, and N at the end.
    starts: Vec<Place>,
    /// Label of each identity, ascending.
    labels: Vec<i64>,
    /// The identity of each place: an index into `labels`.
    identity: Vec<u32>,
}

impl Points {
    fn new(
        from: &Rows<'_>,
        name_of_ids: &str,
        dim: usize,
        options: &Options,
        isa: Isa,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let n = from.labels.len();
        let id = |row: u32| from.ids.map_or(i64::from(row), |ids| ids[row as usize]);

        let mut by_id: Vec<u32> = (0..n as u32).collect();
        if from.ids.is_some() {
            by_id.par_sort_unstable_by_key(|&row| (id(row), row));
            if let Some(w) = by_id.windows(2).find(|w| id(w[0]) == id(w[1])) {
                return Err(Error::Value(format!(
                    "{name_of_ids} must be unique, but rows {} and {} share the id {}",
                    w[0],
                    w[1],
                    id(w[0])
                )));
            }
        }
        let mut rank_of_row = vec![0; n];
        for (rank, &row) in by_id.iter().enumerate() {
            rank_of_row[row as usize] = rank as u32;
        }
        let mut rows = by_id;
        rows.par_sort_by_key(|&row| from.labels[row as usize]); // stable: ids stay ascending within a label

        let width = dim.next_multiple_of(LANES);
        let mut values = vec![0.0; n * width];
        let mut squared_norms = vec![0.0; n];
        values.par_chunks_mut(width).zip(&mut squared_norms).zip(&rows).try_for_each(
            |((to, squared_norm), &row)| {
                interrupt.check()?;
                to[..dim].copy_from_slice(&from.embeddings[row as usize * dim..][..dim]);
                if options.normalize {
                    exact::normalize(isa, to);
                }
                *squared_norm = exact::squared_norm(isa, to);
                Ok(())
            },
        )?;

        let mut starts = Vec::new();
        let mut labels = Vec::new();
        let mut identity = Vec::with_capacity(n);
        for (place, &row) in rows.iter().enumerate() {
            let label = from.labels[row as usize];
            if labels.last() != Some(&label) {
                starts.push(place as Place);
                labels.push(label);
            }
            identity.push(labels.len() as u32 - 1);
        }
        starts.push(n as Place);

        let ids: Vec<i64> = rows.iter().map(|&row| id(row)).collect();
        let hashes: Vec<u64> = ids.iter().map(|&id| hash::row_hash(options.seed, id)).collect();
        Ok(Self {
            values,
            width,
            squared_norms,
            hashes_low: hashes.iter().map(|&hash| hash as u32).collect(),
            hashes,
            ids,
            ranks: rows.iter().map(|&row| rank_of_row[row as usize]).collect(),
            rows,
            starts,
            labels,
            identity,
        })
    }

    /// N.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Columns with padding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The row at a place, with padding.
    pub fn values(&self, place: Place) -> &[f32] {
        &self.values[place as usize * self.width..][..self.width]
    }

    /// Ids in ascending order.
    pub fn ids_by_rank(&self) -> Vec<i64> {
        let mut ids = vec![0; self.len()];
        for (&rank, &id) in self.ranks.iter().zip(&self.ids) {
            ids[rank as usize] = id;
        }
        ids
    }

    /// A row of another identity, chosen by this row's hash.
    pub fn of_another_identity(&self, place: Place) -> Option<Place> {
        let identity = self.identity[place as usize] as usize;
        let own = self.starts[identity]..self.starts[identity + 1];
        let others = (self.len() - own.len()) as u64;
        let chosen = self.hashes[place as usize].checked_rem(others)? as Place;
        Some(if chosen < own.start { chosen } else { chosen + own.len() as Place })
    }

    /// The places of the rows with this label.
    fn run_of_label(&self, label: i64) -> Range<Place> {
        match self.labels.binary_search(&label) {
            Ok(identity) => self.starts[identity]..self.starts[identity + 1],
            Err(_) => 0..0,
        }
    }
}
