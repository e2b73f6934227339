//! The rows as the kernels need them: sorted by identity, normalised and padded.

use std::iter::repeat_n;
use std::ops::Range;

use rayon::prelude::*;

use super::exact::{self, LANES};
use super::shortage::ROWS;
use super::{Input, Options, Rows, hash};
use crate::{Error, Interrupt, Isa, Result, memory};

/// Index of a row in [`Points`], where rows are sorted by (label, id).
pub type Place = u32;

/// The rows that anchors, positives and negatives come from: one, two or three sets.
pub struct Sets {
    /// Where anchors come from.
    pub anchors: Points,
    references: Option<Points>,
    block: Option<Points>,
    /// By place, which rows of the first set are anchors; without it all are.
    only: Option<Vec<bool>>,
    /// Of each of the anchors' identities.
    runs: Vec<Runs>,
    /// Whether ids say which reference is the anchor itself.
    ids_given: bool,
}

/// The rows of one identity.
struct Runs {
    /// Those of the candidates that are no negatives of it.
    own: Range<Place>,
    positives: Range<Place>,
}

impl Sets {
    /// Sorts, copies, pads and (if asked) normalises the caller's rows. Ids must be unique.
    pub fn new(input: &Input<'_>, options: &Options, isa: Isa, interrupt: &Interrupt) -> Result<Self> {
        let points = |rows, name| Points::new(rows, name, input.dim, options, isa, interrupt);
        let anchors = points(&input.anchors, "ids")?;
        let references = input.references.as_ref().map(|rows| points(rows, "reference_ids")).transpose()?;
        let block = input.block.as_ref().map(|rows| points(rows, "the ids of a block")).transpose()?;
        let positives = references.as_ref().unwrap_or(&anchors);
        let candidates = block.as_ref().unwrap_or(positives);
        let own_of_label = |label| match input.between {
            None => candidates.run_of_label(label),
            Some(split) if label < split => 0..candidates.first_from_label(split),
            Some(split) => candidates.first_from_label(split)..candidates.len() as Place,
        };
        let of_label = |&label| Runs { own: own_of_label(label), positives: positives.run_of_label(label) };
        let runs = memory::collect(anchors.labels.iter().map(of_label), ROWS)?;
        let only = input
            .only
            .map(|only| memory::collect(anchors.rows.iter().map(|&row| only[row as usize]), ROWS))
            .transpose()?;
        Ok(Self { runs, only, ids_given: input.anchors.ids.is_some(), anchors, references, block })
    }

    /// Where positives come from.
    pub fn positives(&self) -> &Points {
        self.references.as_ref().unwrap_or(&self.anchors)
    }

    /// Where negatives come from.
    pub fn candidates(&self) -> &Points {
        self.block.as_ref().unwrap_or_else(|| self.positives())
    }

    /// Whether positives come from references.
    pub fn has_references(&self) -> bool {
        self.references.is_some()
    }

    /// Whether anchors and candidates are the same rows.
    pub fn are_one(&self) -> bool {
        self.references.is_none() && self.block.is_none()
    }

    /// Whether a row is an anchor.
    pub fn is_anchor(&self, place: Place) -> bool {
        self.only.as_ref().is_none_or(|only| only[place as usize])
    }

    /// The candidates that are no negatives of an anchor: those with its label, or all of its part of the identities
    /// ([`Input::between`]).
    pub fn own_run(&self, anchor: Place) -> Range<Place> {
        self.runs_of(anchor).own.clone()
    }

    /// The candidates that are no negatives of any of these anchors, where these have the same.
    pub fn own_run_of_all(&self, anchors: &[Place]) -> Range<Place> {
        let mut runs = anchors.iter().map(|&anchor| self.own_run(anchor));
        let first = runs.next().unwrap_or_default();
        if runs.all(|run| run == first) { first } else { 0..0 }
    }

    /// The rows with the anchor's label that positives come from, the anchor itself perhaps included.
    pub fn positive_run(&self, anchor: Place) -> Range<Place> {
        self.runs_of(anchor).positives.clone()
    }

    fn runs_of(&self, anchor: Place) -> &Runs {
        &self.runs[self.anchors.identity[anchor as usize] as usize]
    }

    /// Whether a row that positives come from is the anchor itself.
    pub fn is_itself(&self, anchor: Place, positive: Place) -> bool {
        match &self.references {
            None => anchor == positive,
            Some(references) => {
                self.ids_given && self.anchors.ids[anchor as usize] == references.ids[positive as usize]
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

        let mut by_id = memory::collect(0..n as u32, ROWS)?;
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
        let mut rank_of_row = memory::zeroed::<u32>(n, ROWS)?;
        for (rank, &row) in by_id.iter().enumerate() {
            rank_of_row[row as usize] = rank as u32;
        }
        let mut rows = by_id;
        // In place: the stable sort allocates, and ends the process where it cannot.
        rows.par_sort_unstable_by_key(|&row| (from.labels[row as usize], rank_of_row[row as usize]));

        let width = dim.next_multiple_of(LANES);
        let mut values = memory::zeroed::<f32>(n * width, ROWS)?;
        let mut squared_norms = memory::zeroed::<f64>(n, ROWS)?;
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

        let label = |row: u32| from.labels[row as usize];
        let identities = || rows.chunk_by(|&a, &b| label(a) == label(b));
        let count = identities().count();
        let mut starts = memory::empty(count + 1, ROWS)?;
        let mut labels = memory::empty(count, ROWS)?;
        let mut identity = memory::empty(n, ROWS)?;
        for rows in identities() {
            starts.push(identity.len() as Place);
            identity.extend(repeat_n(labels.len() as u32, rows.len()));
            labels.push(label(rows[0]));
        }
        starts.push(n as Place);

        let ids = memory::collect(rows.iter().map(|&row| id(row)), ROWS)?;
        let hashes = memory::collect(ids.iter().map(|&id| hash::row_hash(options.seed, id)), ROWS)?;
        Ok(Self {
            values,
            width,
            squared_norms,
            hashes_low: memory::collect(hashes.iter().map(|&hash| hash as u32), ROWS)?,
            hashes,
            ids,
            ranks: memory::collect(rows.iter().map(|&row| rank_of_row[row as usize]), ROWS)?,
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
    pub fn ids_by_rank(&self) -> Result<Vec<i64>> {
        let mut ids = memory::zeroed(self.len(), ROWS)?;
        for (&rank, &id) in self.ranks.iter().zip(&self.ids) {
            ids[rank as usize] = id;
        }
        Ok(ids)
    }

    /// A row of another identity, chosen by this row's hash.
    pub fn of_another_identity(&self, place: Place) -> Option<Place> {
        let identity = self.identity[place as usize] as usize;
        let own = self.starts[identity]..self.starts[identity + 1];
        let others = (self.len() - own.len()) as u64;
        let chosen = self.hashes[place as usize].checked_rem(others)? as Place;
        Some(if chosen < own.start { chosen } else { chosen + own.len() as Place })
    }

    /// The first place of the rows with this label or a larger one.
    fn first_from_label(&self, label: i64) -> Place {
        self.starts[self.labels.partition_point(|&other| other < label)]
    }

    /// The places of the rows with this label.
    fn run_of_label(&self, label: i64) -> Range<Place> {
        match self.labels.binary_search(&label) {
            Ok(identity) => self.starts[identity]..self.starts[identity + 1],
            Err(_) => 0..0,
        }
    }
}
