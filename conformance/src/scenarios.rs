//! The scenarios, by area.

mod accounts;
mod compare_and_swap;
mod delete;
mod device;
mod device_contents;
mod device_sync;
mod devices;
mod filters;
mod global;
mod http;
mod life_cycle;
mod protected;
mod push_rule_edits;
mod push_rule_explanations;
mod push_rule_order;
mod push_rule_refusals;
mod push_rule_sync;
mod push_rules;
mod put_empty;
mod refusals;
mod room;
mod short_tokens;
mod sync;
mod tokens;

use crate::scenario::Scenario;

/// All scenarios: the one list.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        global::scenarios(),
        refusals::scenarios(),
        room::scenarios(),
        protected::scenarios(),
        delete::scenarios(),
        put_empty::scenarios(),
        push_rules::scenarios(),
        push_rule_edits::scenarios(),
        push_rule_order::scenarios(),
        push_rule_refusals::scenarios(),
        push_rule_sync::scenarios(),
        push_rule_explanations::scenarios(),
        compare_and_swap::scenarios(),
        device::scenarios(),
        device_contents::scenarios(),
        life_cycle::scenarios(),
        device_sync::scenarios(),
        sync::scenarios(),
        filters::scenarios(),
        accounts::scenarios(),
        tokens::scenarios(),
        short_tokens::scenarios(),
        devices::scenarios(),
        http::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let mut seen = HashSet::new();
        for scenario in all() {
            assert!(
                seen.insert(scenario.name()),
                "{} is there twice",
                scenario.name()
            );
        }
    }

    #[test]
    fn names_are_an_area_and_a_fact_in_snake_case() {
        for scenario in all() {
            let (area, fact) = scenario.name().split_once('/').expect("an area and a fact");
            let is_snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(area.chars().all(is_snake), "{}", scenario.name());
            assert!(fact.chars().all(is_snake), "{}", scenario.name());
        }
    }

    #[test]
    fn every_scenario_says_what_it_shows_and_why() {
        for scenario in all() {
            assert!(!scenario.text().is_empty(), "{}", scenario.name());
            assert!(!scenario.reference().is_empty(), "{}", scenario.name());
        }
    }
}
