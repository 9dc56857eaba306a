//! How a user changes their rules.

use thiserror::Error;

use crate::changes::{Override, OwnRule, Slot};
use crate::rule::{Actions, with_actions};
use crate::{Changes, Defaults, Kind, Limits, NewRule, RuleId};

/// One change that a user makes, as one request of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Makes a rule, or replaces one of the user's own: `PUT …/global/{kind}/{ruleId}`.
    ///
    /// A new rule is on, and comes before all others of the user's own of its kind. One that
    /// replaces another keeps whether that was on, and its place. `place` overrules the places.
    Put {
        /// The ID within the kind of `rule`.
        id: RuleId,
        /// The rule, which has its kind.
        rule: NewRule,
        /// Where the rule is to stand.
        place: Place,
    },
    /// Removes a rule of the user's own: `DELETE …/global/{kind}/{ruleId}`.
    Delete {
        /// The kind of the rule.
        kind: Kind,
        /// Its ID.
        id: String,
    },
    /// Switches a rule on or off, a default one too: `PUT …/{ruleId}/enabled`.
    SetEnabled {
        /// The kind of the rule.
        kind: Kind,
        /// Its ID.
        id: String,
        /// Whether it is to be on.
        enabled: bool,
    },
    /// Replaces the actions of a rule, of a default one too: `PUT …/{ruleId}/actions`.
    SetActions {
        /// The kind of the rule.
        kind: Kind,
        /// Its ID.
        id: String,
        /// The actions.
        actions: Actions,
    },
}

/// Where a rule is to stand among the user's own of its kind: beside another one.
///
/// With both given, `before` is obeyed and `after` is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The ID of the rule that is to be the next less important one.
    pub before: Option<String>,
    /// The ID of the rule that is to be the next more important one.
    pub after: Option<String>,
}

/// Why an edit is not done. Nothing has changed then.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EditError {
    /// A default rule cannot be deleted; it can be switched off.
    #[error("default rules cannot be deleted, only switched off")]
    DefaultRule,
    /// There is no such rule, neither the user's own nor a default one.
    #[error("there is no such rule")]
    NotFound,
    /// What `before` or `after` names is no rule of the user's own of this kind.
    #[error("`before` and `after` must name a rule of your own of this kind")]
    NoSuchNeighbour,
    /// The rule would be larger than allowed with these actions.
    #[error("the rule would be larger than {limit_bytes} bytes")]
    RuleTooLarge {
        /// The size allowed.
        limit_bytes: usize,
    },
    /// The changes would be larger than allowed.
    #[error("your rules would be larger than {limit_bytes} bytes")]
    TooLarge {
        /// The size allowed, of the stored form.
        limit_bytes: usize,
    },
    /// The user has as many rules of their own as allowed.
    #[error("you have {limit} rules, which is the limit")]
    TooManyRules {
        /// The number allowed.
        limit: usize,
    },
}

impl Changes {
    /// Returns the changes after an edit; one that changes nothing succeeds too.
    ///
    /// It depends on its arguments alone. So edits of several devices never lose one, if each is
    /// applied to what the one before it left, within the transaction that stores it.
    ///
    /// Of edits that make the changes larger, those over a limit are refused; deleting and
    /// switching off or on never are.
    /// # Errors
    /// [`EditError`] says why nothing is done.
    pub fn apply(
        &self,
        defaults: &Defaults,
        edit: Edit,
        limits: &Limits,
    ) -> Result<Self, EditError> {
        let mut changes = self.clone();
        match edit {
            Edit::Put { id, rule, place } => {
                changes.put(&id, &rule, &place, limits)?;
                self.check_growth(&changes, limits)?;
            }
            Edit::Delete { kind, id } => changes.delete(defaults, kind, &id)?,
            Edit::SetEnabled { kind, id, enabled } => match changes.target(defaults, kind, &id)? {
                Target::Own(rule) => rule.is_enabled = enabled,
                Target::Default(rule) => rule.is_enabled = Some(enabled),
            },
            Edit::SetActions { kind, id, actions } => {
                match changes.target(defaults, kind, &id)? {
                    Target::Own(rule) => {
                        let body = with_actions(&rule.body, &actions);
                        let limit_bytes = limits.rule_bytes_max;
                        if body.len() > limit_bytes.max(rule.body.len()) {
                            return Err(EditError::RuleTooLarge { limit_bytes });
                        }
                        rule.body = body;
                    }
                    Target::Default(rule) => rule.actions = Some(actions.as_str().into()),
                }
                self.check_growth(&changes, limits)?;
            }
        }
        Ok(changes)
    }

    fn put(
        &mut self,
        id: &RuleId,
        rule: &NewRule,
        place: &Place,
        limits: &Limits,
    ) -> Result<(), EditError> {
        let kind = rule.kind();
        let old = self.own.find(kind, id.as_str());
        let count = self.own_rules();
        if old.is_none() && count >= limits.rules_max {
            let limit = limits.rules_max;
            return Err(EditError::TooManyRules { limit });
        }
        let neighbour = match (&place.before, &place.after) {
            (Some(before), _) => Some((before, 0)),
            (None, Some(after)) => Some((after, 1)),
            (None, None) => None,
        };
        // Before the rule is taken out: it can be named as its own neighbour, and stays then.
        let missing = |(neighbour, _): &(&String, usize)| self.own.find(kind, neighbour).is_none();
        if neighbour.as_ref().is_some_and(missing) {
            return Err(EditError::NoSuchNeighbour);
        }
        let slots = self.own.slots_mut(kind);
        let removed = old.map(|at| slots.remove(at));
        let mut new = OwnRule::new(id, rule);
        if let Some(Slot::Record(old)) = removed {
            new.is_enabled = old.is_enabled;
            new.rest = old.rest;
        }
        let beside = neighbour.and_then(|(neighbour, offset)| {
            let at = self.own.find(kind, neighbour);
            at.map(|at| at + offset)
        });
        let at = beside.or(old).unwrap_or(0);
        self.own.slots_mut(kind).insert(at, Slot::Record(new));
        Ok(())
    }

    fn delete(&mut self, defaults: &Defaults, kind: Kind, id: &str) -> Result<(), EditError> {
        if defaults.has(kind, id) {
            return Err(EditError::DefaultRule);
        }
        let at = self.own.find(kind, id).ok_or(EditError::NotFound)?;
        self.own.slots_mut(kind).remove(at);
        Ok(())
    }

    /// Finds what an edit of an existing rule changes; that of a default rule begins as nothing.
    fn target(
        &mut self,
        defaults: &Defaults,
        kind: Kind,
        id: &str,
    ) -> Result<Target<'_>, EditError> {
        if !defaults.has(kind, id) {
            let rule = self.own.get_mut(kind, id);
            return rule.map(Target::Own).ok_or(EditError::NotFound);
        }
        if self.defaults.find(kind, id).is_none() {
            let slot = Slot::Record(Override::new(id));
            self.defaults.slots_mut(kind).push(slot);
        }
        let rule = self.defaults.get_mut(kind, id);
        Ok(Target::Default(
            rule.expect("it was added where it was not there"),
        ))
    }

    /// Refuses what is over the limit of bytes, unless it was larger before.
    fn check_growth(&self, changed: &Self, limits: &Limits) -> Result<(), EditError> {
        let limit_bytes = limits.changes_bytes_max;
        let bytes = changed.to_json().len();
        if bytes > limit_bytes && bytes > self.to_json().len() {
            return Err(EditError::TooLarge { limit_bytes });
        }
        Ok(())
    }
}

enum Target<'a> {
    Own(&'a mut OwnRule),
    Default(&'a mut Override),
}

impl OwnRule {
    fn new(id: &RuleId, rule: &NewRule) -> Self {
        Self {
            id: id.as_str().into(),
            is_enabled: true,
            body: rule.as_str().into(),
            rest: Vec::new(),
        }
    }
}

impl Override {
    fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            is_enabled: None,
            actions: None,
            rest: Vec::new(),
        }
    }
}
