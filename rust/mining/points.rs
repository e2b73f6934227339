//! The rows as the kernels want them: normalised, padded, identities contiguous.

use std::ops::Range;

use rayon::prelude::*;

use super::exact::{self, LANES};
use super::{Input, Isa, Options, hash};
use crate::{Error, Result};

/// A row's place in [`Points`]: rows are sorted by (label, id).
pub type Place = u32;

/// N rows, sorted by (label, id), so that an identity's rows are one range of places.
pub struct Points {
    /// `(N, width)`, row after row.
    values: Vec<f32>,
    /// Columns, padded with zeros to a multiple of [`LANES`].
    width: usize,
    /// Squared L2 norms.
    pub squared_norms: Vec<f64>,
    /// Low halves of the rows' [`hash::code`]s: what a scan for the smallest hash reads.
    pub codes_low: Vec<u32>,
    /// The rows' [`hash::code`]s.
    pub codes: Vec<u64>,
    /// Position in the caller's arrays.
    pub rows: Vec<u32>,
    /// Position among all ids in ascending order.
    pub ranks: Vec<u32>,
    /// First place of each identity, and N at the end.
    starts: Vec<Place>,
    /// Which identity a place belongs to.
    identity: Vec<u32>,
}

impl Points {
    /// Sorts, copies, pads and (if asked) normalises the caller's rows. Ids must be unique.
    pub fn new(input: &Input<'_>, options: &Options, isa: Isa) -> Result<Self> {
        let (labels, dim) = (input.labels, input.dim);
        let n = labels.len();
        let id = |row: u32| input.ids.map_or(i64::from(row), |ids| ids[row as usize]);

        let mut by_id: Vec<u32> = (0..n as u32).collect();
        if input.ids.is_some() {
            by_id.par_sort_unstable_by_key(|&row| (id(row), row));
            if let Some(w) = by_id.windows(2).find(|w| id(w[0]) == id(w[1])) {
                return Err(Error::Value(format!(
                    "ids must be unique, but rows {} and {} share the id {}",
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
        rows.par_sort_by_key(|&row| labels[row as usize]); // stable: ids stay ascending within a label

        let width = dim.next_multiple_of(LANES);
        let mut values = vec![0.0; n * width];
        values.par_chunks_mut(width.max(1)).zip(&rows).for_each(|(to, &row)| {
            let from = &input.embeddings[row as usize * dim..][..dim];
            to[..dim].copy_from_slice(from);
            if options.normalize {
                exact::normalize(isa, to);
            }
        });
        let squared_norms =
            (0..n).into_par_iter().map(|i| exact::squared_norm(isa, &values[i * width..][..width])).collect();
        let codes: Vec<u64> = rows.iter().map(|&row| hash::code(options.seed, id(row))).collect();

        let mut starts = Vec::new();
        let mut identity = Vec::with_capacity(n);
        for (place, &row) in rows.iter().enumerate() {
            if place == 0 || labels[row as usize] != labels[rows[place - 1] as usize] {
                starts.push(place as Place);
            }
            identity.push(starts.len() as u32 - 1);
        }
        starts.push(n as Place);

        Ok(Self {
            values,
            width,
            squared_norms,
            codes_low: codes.iter().map(|&code| code as u32).collect(),
            codes,
            ranks: rows.iter().map(|&row| rank_of_row[row as usize]).collect(),
            rows,
            starts,
            identity,
        })
    }

    /// N.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Columns, padding included.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The row at a place, padding included.
    pub fn values(&self, place: Place) -> &[f32] {
        &self.values[place as usize * self.width..][..self.width]
    }

    /// The places of all rows with the same label, the given one among them.
    pub fn identity_run(&self, place: Place) -> Range<Place> {
        let identity = self.identity[place as usize] as usize;
        self.starts[identity]..self.starts[identity + 1]
    }
}
