//! Which negatives qualify for a pair: an interval of distances that depends on `d_ap`.

/// Limits of a band, at most.
pub const MOST_LIMITS: usize = 4;

/// Limits on `d_an`, all of which hold for a negative that qualifies. By default there are none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Band {
    limits: [Limit; MOST_LIMITS],
}

/// A limit on `d_an`: its edge is `slope * d_ap + offset`, evaluated in float64, with two roundings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// On which side of the edge `d_an` is.
    pub side: Side,
    /// Whether it may be at the edge.
    pub inclusive: bool,
    /// Factor of `d_ap`, finite.
    pub slope: f64,
    /// On the metric's scale, may be infinite.
    pub offset: f64,
}

/// A side of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `d_an` is larger.
    Above,
    /// `d_an` is smaller.
    Below,
}

impl Default for Limit {
    /// No limit.
    fn default() -> Self {
        Self::NONE
    }
}

impl Limit {
    const NONE: Self = Self { side: Side::Above, inclusive: true, slope: 0.0, offset: f64::NEG_INFINITY };

    const fn new(side: Side, inclusive: bool, slope: f64, offset: f64) -> Self {
        Self { side, inclusive, slope, offset }
    }
}

impl Band {
    /// Every negative.
    pub const ANY: Self = Self { limits: [Limit::NONE; MOST_LIMITS] };

    /// `d_an <= d_ap`.
    pub const HARD: Self = Self::ANY.with(0, Limit::new(Side::Below, true, 1.0, 0.0));

    /// `d_ap < d_an < d_ap + margin`.
    pub const fn semihard(margin: f64) -> Self {
        Self::violating(margin).with(1, Limit::new(Side::Above, false, 1.0, 0.0))
    }

    /// `d_an < d_ap + margin`.
    pub const fn violating(margin: f64) -> Self {
        Self::ANY.with(0, Limit::new(Side::Below, false, 1.0, margin))
    }

    /// `d_an >= d_ap + margin`.
    pub const fn easy(margin: f64) -> Self {
        Self::ANY.with(0, Limit::new(Side::Above, true, 1.0, margin))
    }

    /// All of these limits, `None` if they are more than [`MOST_LIMITS`].
    pub fn of(limits: &[Limit]) -> Option<Self> {
        let mut band = Self::ANY;
        band.limits.get_mut(..limits.len())?.copy_from_slice(limits);
        Some(band)
    }

    const fn with(mut self, number: usize, limit: Limit) -> Self {
        self.limits[number] = limit;
        self
    }

    /// Its limits. Those that are not used hold for every distance.
    pub const fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// The open interval of distances that qualify.
    pub fn interval(&self, d_ap: f64) -> (f64, f64) {
        let (mut above, mut below) = (f64::NEG_INFINITY, f64::INFINITY);
        for limit in &self.limits {
            let edge = limit.slope * d_ap + limit.offset;
            match limit.side {
                Side::Above => above = above.max(if limit.inclusive { edge.next_down() } else { edge }),
                Side::Below => below = below.min(if limit.inclusive { edge.next_up() } else { edge }),
            }
        }
        (above, below)
    }
}
