//! A page of metrics, read as Prometheus would.

use std::collections::{BTreeMap, BTreeSet};

/// What is behind a suffix of a histogram's samples.
const HISTOGRAM_SUFFIXES: [&str; 3] = ["_bucket", "_count", "_sum"];

/// One metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metric {
    pub(crate) kind: String,
    /// The labels of its samples, `le` of buckets excepted.
    pub(crate) labels: BTreeSet<String>,
    /// The value of each sample, by its name and labels as they are written.
    pub(crate) samples: BTreeMap<String, f64>,
}

/// A page, by the names that queries take: of counters with `_total`, of histograms without suffix.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Page(pub(crate) BTreeMap<String, Metric>);

impl Page {
    /// Reads a page, and refuses what Prometheus would.
    pub(crate) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let body = text.strip_suffix("# EOF\n").expect("the page is whole");
        let mut described = None;
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(!help.is_empty(), "{line}");
                described = Some(name);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (family, kind) = kind.split_once(' ').unwrap();
                assert_eq!(described, Some(family), "the help comes first: {line}");
                let suffix = match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                let metric = Metric {
                    kind: kind.to_owned(),
                    ..Metric::default()
                };
                let known = page.0.insert(format!("{family}{suffix}"), metric);
                assert_eq!(known, None, "twice: {family}");
            } else {
                page.add_sample(line);
            }
        }
        page
    }

    /// Returns the name of the metric that has samples of this name.
    pub(crate) fn metric_of(&self, sample: &str) -> Option<&str> {
        let suffixes = HISTOGRAM_SUFFIXES.into_iter();
        let family = suffixes.filter_map(|suffix| sample.strip_suffix(suffix));
        let is_histogram = |name: &str| self.0.get(name).map(|m| m.kind == "histogram");
        let mut names = family.filter(|name| is_histogram(name) == Some(true));
        let plain = Some(sample).filter(|name| is_histogram(name) == Some(false));
        let (name, _) = self.0.get_key_value(plain.or_else(|| names.next())?)?;
        Some(name)
    }

    /// Returns the value of a sample, written as on the page.
    pub(crate) fn value(&self, sample: &str) -> Option<f64> {
        let name = sample.split('{').next().unwrap();
        let metric = self.0.get(self.metric_of(name)?)?;
        metric.samples.get(sample).copied()
    }

    fn add_sample(&mut self, line: &str) {
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let labels = labels.strip_suffix('}').unwrap();
        let metric = self.metric_of(name);
        let metric = metric
            .unwrap_or_else(|| panic!("not described: {line}"))
            .to_owned();
        let metric = self.0.get_mut(&metric).unwrap();
        // No value on the page has a comma or a quote in it, which `route` could not have either.
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
            if label != "le" {
                metric.labels.insert(label.to_owned());
            }
        }
        let known = metric
            .samples
            .insert(sample.to_owned(), value.parse().unwrap());
        assert_eq!(known, None, "twice: {line}");
    }
}
