//! Medians and their spread.

use serde::Serialize;

/// The median of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Returns that of `figures`; none where there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (&min, &max) = (figures.first()?, figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            f64::midpoint(figures[middle - 1], figures[middle])
        };
        Some(Self { median, min, max })
    }

    /// As [`Spread::of`], where one missing figure makes the whole meaningless.
    pub(crate) fn of_all(figures: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let figures: Option<Vec<f64>> = figures.into_iter().collect();
        Self::of(figures?)
    }
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
    fn percentile_is_the_nearest_rank() {
        let sorted: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&sorted, 500), Some(100.0));
        assert_eq!(percentile(&sorted, 990), Some(198.0));
        assert_eq!(percentile(&[7], 990), Some(7.0));
        assert_eq!(percentile(&[], 500), None);
    }
}
