//! Queries of Prometheus, checked against a page of metrics.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, BinaryExpr, Call, Expr, LabelModifier, VectorSelector};
use regex::Regex;

use super::page::{Metric, Page};

/// Labels that Prometheus itself puts on each sample.
const TARGET_LABELS: [&str; 2] = ["instance", "job"];
/// The status of an answer: a number, or the class of one that is seldom.
const STATUS_LABEL: &str = "status";
const STATUSES: RangeInclusive<u16> = 100..=599;
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "other"];
/// What Prometheus itself tells of each target.
const TARGET_METRIC: &str = "up";
/// Functions that make sense of a counter alone, each of which knows that it may begin anew.
const OF_COUNTERS: [&str; 3] = ["increase", "irate", "rate"];

/// Finds what is wrong with queries that are to be asked of this page.
pub(crate) struct Checker<'a>(pub(crate) &'a Page);

type Labels = BTreeSet<String>;
type Finding = String;

impl Checker<'_> {
    /// Returns nothing, or the first thing that is wrong with a query.
    pub(crate) fn check(&self, query: &str) -> Result<(), Finding> {
        self.labels_of(&parser::parse(query)?).map(drop)
    }

    /// The same of a variable of a dashboard: `label_values(SELECTOR, LABEL)`.
    pub(crate) fn check_variable(&self, query: &str) -> Result<(), Finding> {
        let inside = query.strip_prefix("label_values(");
        let inside = inside.and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "));
        let (selector, label) = inside.ok_or_else(|| format!("{query} is not label_values"))?;
        let Expr::VectorSelector(selector) = parser::parse(selector)? else {
            return Err(format!("{selector} is no selector"));
        };
        let (_, labels) = self.select(&selector)?;
        includes(&labels, &Labels::from([label.to_owned()]))
    }

    /// Returns the labels of what an expression comes to.
    fn labels_of(&self, expression: &Expr) -> Result<Labels, Finding> {
        match expression {
            Expr::Aggregate(aggregate) => {
                let labels = self.labels_of(&aggregate.expr)?;
                match &aggregate.modifier {
                    None => Ok(Labels::new()),
                    Some(LabelModifier::Include(kept)) => {
                        let kept: Labels = kept.labels.iter().cloned().collect();
                        includes(&labels, &kept)?;
                        Ok(kept)
                    }
                    Some(LabelModifier::Exclude(dropped)) => Ok(without(labels, &dropped.labels)),
                }
            }
            Expr::Binary(binary) => self.binary(binary),
            Expr::Call(call) => self.call(call),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
            Expr::Paren(paren) => self.labels_of(&paren.expr),
            Expr::Unary(unary) => self.labels_of(&unary.expr),
            Expr::VectorSelector(selector) => {
                let (is_counter, labels) = self.select(selector)?;
                match is_counter {
                    true => Err(format!("{selector} is a counter without its rate")),
                    false => Ok(labels),
                }
            }
            Expr::MatrixSelector(_) | Expr::Subquery(_) | Expr::Extension(_) => {
                Err(format!("{expression} is of no use here"))
            }
        }
    }

    fn call(&self, call: &Call) -> Result<Labels, Finding> {
        let (name, arguments) = (call.func.name, &call.args.args);
        match (name, arguments.as_slice()) {
            ("time", []) => Ok(Labels::new()),
            ("histogram_quantile", [_, of]) => {
                let labels = self.labels_of(of)?;
                includes(&labels, &Labels::from(["le".to_owned()]))?;
                Ok(without(labels, &["le".to_owned()]))
            }
            (_, [of]) if OF_COUNTERS.contains(&name) => match &**of {
                Expr::MatrixSelector(range) => {
                    let (is_counter, labels) = self.select(&range.vs)?;
                    match is_counter {
                        true => Ok(labels),
                        false => Err(format!("{} is no counter: {name}", range.vs)),
                    }
                }
                _ => Err(format!("{name} is not of a range")),
            },
            _ => Err(format!("the checker does not know {name}")),
        }
    }

    fn binary(&self, binary: &BinaryExpr) -> Result<Labels, Finding> {
        let (left, right) = (self.labels_of(&binary.lhs)?, self.labels_of(&binary.rhs)?);
        let modifier = binary.modifier.as_ref();
        let matching = modifier.and_then(|modifier| modifier.matching.as_ref());
        let is_number = |side: &Expr| {
            matches!(side, Expr::NumberLiteral(_))
                || matches!(side, Expr::Call(call) if call.func.name == "time")
        };
        if is_number(&binary.lhs) {
            return Ok(right);
        }
        if is_number(&binary.rhs) {
            return Ok(left);
        }
        let matched = |labels: &Labels| match matching {
            None => labels.clone(),
            Some(LabelModifier::Include(on)) => labels
                .iter()
                .filter(|label| on.labels.contains(label))
                .cloned()
                .collect(),
            Some(LabelModifier::Exclude(ignoring)) => without(labels.clone(), &ignoring.labels),
        };
        if matched(&left) != matched(&right) {
            return Err(format!("{left:?} never match {right:?}"));
        }
        Ok(left)
    }

    /// Returns whether a selector is of a counter, and the labels of its samples.
    fn select(&self, selector: &VectorSelector) -> Result<(bool, Labels), Finding> {
        let name = selector.name.as_deref().unwrap_or_default();
        let mut labels: Labels = TARGET_LABELS.map(str::to_owned).into();
        let mut is_counter = false;
        if name != TARGET_METRIC {
            let metric = self.0.metric_of(name);
            let metric = &self.0.0[metric.ok_or_else(|| format!("there is no {name}"))?];
            labels.extend(metric.labels.iter().cloned());
            if name.ends_with("_bucket") {
                labels.insert("le".to_owned());
            }
            is_counter = ["counter", "histogram"].contains(&metric.kind.as_str());
            for matcher in &selector.matchers.matchers {
                let label = Labels::from([matcher.name.clone()]);
                includes(&labels, &label).map_err(|finding| format!("{name}: {finding}"))?;
                // What the scrape adds, everybody chooses.
                if !TARGET_LABELS.contains(&matcher.name.as_str()) {
                    is_told(metric, matcher).map_err(|finding| format!("{name} {finding}"))?;
                }
            }
        }
        Ok((is_counter, labels))
    }
}

/// Checks that each thing that a matcher looks for can be on the page, also what it leaves out.
fn is_told(metric: &Metric, matcher: &Matcher) -> Result<(), Finding> {
    let told = values(metric, &matcher.name);
    let looked_for = match &matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![regex::escape(&matcher.value)],
        MatchOp::Re(_) | MatchOp::NotRe(_) => alternatives(&matcher.value),
    };
    for value in looked_for {
        // As Prometheus does: it must match the whole.
        let regex = Regex::new(&format!("^(?:{value})$")).map_err(|error| error.to_string())?;
        if !told.iter().any(|known| regex.is_match(known)) {
            return Err(format!("is never told with {}=\"{value}\"", matcher.name));
        }
    }
    Ok(())
}

/// Returns the values that a label of a metric can have.
fn values(metric: &Metric, label: &str) -> BTreeSet<String> {
    if label == STATUS_LABEL {
        // The only one whose values are told once they happen, as no server makes all of them happen.
        let classes = CLASSES.map(str::to_owned);
        return STATUSES
            .map(|status| status.to_string())
            .chain(classes)
            .collect();
    }
    let start = format!("{label}=\"");
    let samples = metric.samples.keys();
    let inside = samples.filter_map(|sample| sample.split_once('{')?.1.strip_suffix('}'));
    // No value has a comma or a quote in it, see `Page`.
    let pairs = inside.flat_map(|labels| labels.split(','));
    let values = pairs.filter_map(|pair| pair.strip_prefix(&start)?.strip_suffix('"'));
    values.map(str::to_owned).collect()
}

/// Returns the alternatives of a regular expression, also those of its groups: one that matches
/// nothing is a mistake, although another one matches.
fn alternatives(regex: &str) -> Vec<String> {
    if let Some((before, rest)) = regex.split_once('(')
        && let Some((group, after)) = rest.split_once(')')
    {
        let of_group = group.split('|').map(|one| format!("{before}{one}{after}"));
        return of_group.flat_map(|one| alternatives(&one)).collect();
    }
    regex.split('|').map(str::to_owned).collect()
}

fn includes(labels: &Labels, wanted: &Labels) -> Result<(), Finding> {
    match wanted.difference(labels).next() {
        None => Ok(()),
        Some(missing) => Err(format!("there is no label {missing} among {labels:?}")),
    }
}

fn without(mut labels: Labels, dropped: &[String]) -> Labels {
    labels.retain(|label| !dropped.contains(label));
    labels
}
