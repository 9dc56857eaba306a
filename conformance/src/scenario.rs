//! What a scenario is, and how some are selected.

use std::fmt;
use std::pin::Pin;

use serde::Serialize;

use crate::expect::Outcome;
use crate::lab::Lab;

/// What a server must offer beyond the specification for a scenario to make sense.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// A decision or limit of Kitbag where the specification is silent.
    Kitbag,
    /// Deletion of account data.
    Msc3391,
    /// Per-device notification settings that go with their device.
    Msc3890,
    /// Device account data.
    Msc4331,
    /// Compare-and-swap.
    Msc4547,
    /// `PUT {}` deletes in global and room scope (MSC3391), which is against the specification.
    PutEmptyDeletes,
    /// Rooms that users can create.
    Rooms,
    /// Access tokens that can be refreshed live for a few seconds only.
    ShortTokens,
    /// The client-server API as released.
    Spec,
}

impl Feature {
    /// All features.
    pub const ALL: [Self; 9] = [
        Self::Kitbag,
        Self::Msc3391,
        Self::Msc3890,
        Self::Msc4331,
        Self::Msc4547,
        Self::PutEmptyDeletes,
        Self::Rooms,
        Self::ShortTokens,
        Self::Spec,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kitbag => "kitbag",
            Self::Msc3391 => "msc3391",
            Self::Msc3890 => "msc3890",
            Self::Msc4331 => "msc4331",
            Self::Msc4547 => "msc4547",
            Self::PutEmptyDeletes => "put-empty-deletes",
            Self::Rooms => "rooms",
            Self::ShortTokens => "short-tokens",
            Self::Spec => "spec",
        }
    }

    /// The feature of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

type Run = Box<dyn Fn(Lab) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// One fact about a server that can be seen from outside.
pub struct Scenario {
    name: &'static str,
    reference: &'static str,
    text: &'static str,
    features: Vec<Feature>,
    run: Run,
}

impl Scenario {
    /// A scenario of the released specification.
    ///
    /// `name` is stable and says the fact; `reference` is where the fact comes from; `text` says
    /// it in a sentence.
    pub fn new<F, Fut>(
        name: &'static str,
        reference: &'static str,
        text: &'static str,
        run: F,
    ) -> Self
    where
        F: Fn(Lab) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let run: Run = Box::new(move |lab| Box::pin(run(lab)));
        Self {
            name,
            reference,
            text,
            features: vec![Feature::Spec],
            run,
        }
    }

    /// This scenario, for servers that have `feature` (and every other one named).
    #[must_use]
    pub fn needs(mut self, feature: Feature) -> Self {
        self.features
            .retain(|&known| known != Feature::Spec && known != feature);
        self.features.push(feature);
        self
    }

    /// The stable name, `area/fact`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where the fact comes from.
    #[must_use]
    pub fn reference(&self) -> &'static str {
        self.reference
    }

    /// The fact in a sentence.
    #[must_use]
    pub fn text(&self) -> &'static str {
        self.text
    }

    /// What the server must offer, all of them.
    #[must_use]
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    pub(crate) async fn run(&self, lab: Lab) -> Outcome {
        (self.run)(lab).await
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Which scenarios to run. `Default` is all of them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Features that the server has; a scenario is kept if it needs no other. Empty means all.
    pub features: Vec<Feature>,
    /// Parts of names, of which one is enough; empty means all.
    pub filter: Vec<String>,
    /// Parts of names, of which none may be there.
    pub without: Vec<String>,
}

impl Selection {
    /// Whether the scenario is one of these.
    #[must_use]
    pub fn keeps(&self, scenario: &Scenario) -> bool {
        let has = |feature| self.features.is_empty() || self.features.contains(feature);
        let is_chosen = |part: &String| scenario.name.contains(part.as_str());
        scenario.features.iter().all(has)
            && (self.filter.is_empty() || self.filter.iter().any(is_chosen))
            && !self.without.iter().any(is_chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn nothing(_lab: Lab) -> Outcome {
        Ok(())
    }

    #[test]
    fn selection_wants_every_feature_of_a_scenario() {
        let scenario = Scenario::new("a/b", "", "", nothing)
            .needs(Feature::Msc3391)
            .needs(Feature::Rooms);
        let keeps = |features: &[Feature]| {
            Selection {
                features: features.to_vec(),
                ..Selection::default()
            }
            .keeps(&scenario)
        };
        assert!(keeps(&[]));
        assert!(keeps(&[Feature::Msc3391, Feature::Rooms]));
        assert!(!keeps(&[Feature::Msc3391]));
        assert!(!keeps(&[Feature::Spec]));
    }

    #[test]
    fn selection_filters_by_a_part_of_the_name() {
        let scenario = Scenario::new("area/fact", "", "", nothing);
        let parts = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
        let keeps = |filter: &[&str], without: &[&str]| {
            Selection {
                filter: parts(filter),
                without: parts(without),
                ..Selection::default()
            }
            .keeps(&scenario)
        };
        assert!(keeps(&[], &[]));
        assert!(keeps(&["ea/fa"], &["other"]));
        assert!(keeps(&["other", "fact"], &[]));
        assert!(!keeps(&["other"], &[]));
        assert!(!keeps(&[], &["other", "area/"]));
        assert!(!keeps(&["fact"], &["fact"]));
    }

    #[test]
    fn every_feature_is_found_by_its_name_and_reported_by_it() {
        for feature in Feature::ALL {
            assert_eq!(Feature::of_name(feature.name()), Some(feature));
            assert_eq!(serde_json::to_value(feature).unwrap(), feature.name());
        }
        assert_eq!(Feature::of_name("all"), None);
    }
}
