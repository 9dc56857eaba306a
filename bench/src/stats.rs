//! Medians and their spread.

use serde::{Deserialize, Serialize};

/// The median of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) first_quartile: f64,
    pub(crate) third_quartile: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// How many figures there were.
    pub(crate) count: usize,
}

impl Spread {
    /// Returns that of `figures`; none where there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (&min, &max) = (figures.first()?, figures.last()?);
        Some(Self {
            median: quantile(&figures, 2),
            first_quartile: quantile(&figures, 1),
            third_quartile: quantile(&figures, 3),
            min,
            max,
            count: figures.len(),
        })
    }

    /// As [`Spread::of`], where one missing figure makes the whole meaningless.
    pub(crate) fn of_all(figures: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let figures: Option<Vec<f64>> = figures.into_iter().collect();
        Self::of(figures?)
    }
}

/// The figure below which so many quarters of the sorted ones lie, between two where none is there.
fn quantile(sorted: &[f64], quarters: usize) -> f64 {
    let (steps, rest) = (
        (sorted.len() - 1) * quarters / 4,
        (sorted.len() - 1) * quarters % 4,
    );
    let below = sorted[steps];
    let above = sorted.get(steps + 1).copied().unwrap_or(below);
    #[expect(clippy::cast_precision_loss, reason = "a rest is below 4")]
    let part = rest as f64 / 4.0;
    below + (above - below) * part
}

/// Returns the smallest figure that `part` of a thousand figures do not exceed.
pub(crate) fn percentile(sorted: &[u32], part: usize) -> Option<f64> {
    let rank = (sorted.len() * part).div_ceil(1_000).max(1);
    sorted.get(rank - 1).copied().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_of_the_sorted_figures() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of_all([Some(1.0), None]), None);
    }

    #[test]
    fn quartiles_hold_the_middle_half_of_the_figures() {
        let nine = Spread::of((1..=9).map(f64::from)).unwrap();
        assert_eq!((nine.first_quartile, nine.third_quartile), (3.0, 7.0));
        assert_eq!(nine.count, 9);
        let two = Spread::of([1.0, 2.0]).unwrap();
        assert_eq!((two.first_quartile, two.third_quartile), (1.25, 1.75));
        let one = Spread::of([5.0]).unwrap();
        assert_eq!((one.first_quartile, one.third_quartile), (5.0, 5.0));
    }

    #[test]
    fn percentile_is_the_nearest_rank() {
        let sorted: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&sorted, 500), Some(100.0));
        assert_eq!(percentile(&sorted, 990), Some(198.0));
        assert_eq!(percentile(&[7], 990), Some(7.0));
        assert_eq!(percentile(&[], 500), None);
    }
}
