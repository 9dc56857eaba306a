//! The text of a page of metrics.

use std::fmt;

use kitbag_domain::Spread;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// A page under way: each call adds a metric with its HELP and TYPE.
///
/// The names of counters are without their `_total`.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

/// What can be told on a page.
pub(super) trait Figures: fmt::Debug + Send + Sync + 'static {
    /// Writes all figures.
    fn write(&self, page: &mut Page<'_>) -> fmt::Result;
}

/// Figures as the library takes them.
#[derive(Debug)]
struct Collected<F>(F);

/// Returns the page with these figures.
pub(super) fn text(figures: impl Figures) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collected(figures)));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("a string takes all that is written");
    page
}

impl<F: Figures> Collector for Collected<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.write(&mut Page(encoder))
    }
}

impl Page<'_> {
    /// Adds a counter.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.begin(name, help, MetricType::Counter)?)
    }

    /// Adds a counter of fractions.
    pub(super) fn counter_f64(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstCounter::new(value).encode(self.begin(name, help, MetricType::Counter)?)
    }

    /// Adds a counter with a row for each of some labels.
    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.rows(name, help, MetricType::Counter, rows, |value, row| {
            ConstCounter::new(value).encode(row)
        })
    }

    /// Adds a gauge.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.begin(name, help, MetricType::Gauge)?)
    }

    /// Adds a gauge of fractions.
    pub(super) fn gauge_f64(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.begin(name, help, MetricType::Gauge)?)
    }

    /// Adds a gauge with a row for each of some labels.
    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.rows(name, help, MetricType::Gauge, rows, |value, row| {
            ConstGauge::new(value).encode(row)
        })
    }

    /// Adds a histogram of plain numbers.
    pub(super) fn spread(&mut self, name: &str, help: &str, spread: &Spread) -> fmt::Result {
        let histogram = self.begin(name, help, MetricType::Histogram)?;
        write_spread(histogram, spread, whole)
    }

    /// Adds a histogram of times, which are kept in microseconds and told in seconds.
    pub(super) fn duration(&mut self, name: &str, help: &str, spread: &Spread) -> fmt::Result {
        let histogram = self.begin(name, help, MetricType::Histogram)?;
        write_spread(histogram, spread, seconds)
    }

    /// Adds a histogram of times with rows for each of some labels.
    pub(super) fn durations<'s, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, &'s Spread)>,
    ) -> fmt::Result {
        self.rows(name, help, MetricType::Histogram, rows, |spread, row| {
            write_spread(row, spread, seconds)
        })
    }

    /// Adds what is always 1 and tells by its labels.
    pub(super) fn info(
        &mut self,
        name: &str,
        help: &str,
        labels: &impl EncodeLabelSet,
    ) -> fmt::Result {
        self.begin(name, help, MetricType::Info)?
            .encode_info(labels)
    }

    fn rows<L: EncodeLabelSet, T>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        rows: impl IntoIterator<Item = (L, T)>,
        write: impl Fn(T, MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self.begin(name, help, kind)?;
        for (labels, value) in rows {
            write(value, family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn begin<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}

fn write_spread(
    mut histogram: MetricEncoder<'_>,
    spread: &Spread,
    unit: impl Fn(u64) -> f64,
) -> fmt::Result {
    let bounds = spread.bounds.iter().map(|bound| unit(*bound));
    let bounds = bounds.chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(spread.counts.iter().copied()).collect();
    histogram.encode_histogram::<NoLabelSet>(unit(spread.sum), spread.count(), &buckets, None)
}

/// Returns microseconds in seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 microseconds are 285 years"
)]
pub(super) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53")]
fn whole(value: u64) -> f64 {
    value as f64
}
