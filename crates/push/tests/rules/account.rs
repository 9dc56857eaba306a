//! A user whose changes go through the stored text, as in a store.

use kitbag_push::{
    Actions, Changes, Defaults, Edit, EditError, Kind, Limits, NewRule, Place, RuleId, find_rules,
    served,
};
use serde_json::Value;

pub(crate) const USER: &str = "@alice:example.org";

/// The stored text, and what it is read and edited with.
pub(crate) struct Account {
    pub(crate) stored: String,
    pub(crate) defaults: Defaults,
    pub(crate) limits: Limits,
}

impl Account {
    pub(crate) fn new() -> Self {
        Self::of(&Changes::default().to_json())
    }

    pub(crate) fn of(stored: &str) -> Self {
        Self {
            stored: stored.to_owned(),
            defaults: Defaults::spec(),
            limits: Limits::default(),
        }
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes::parse(&self.stored).unwrap()
    }

    pub(crate) fn edit(&mut self, edit: Edit) -> Result<(), EditError> {
        let changes = self.changes().apply(&self.defaults, edit, &self.limits)?;
        self.stored = changes.to_json();
        assert_eq!(self.changes(), changes, "what is stored is read as it was");
        Ok(())
    }

    pub(crate) fn put_at(
        &mut self,
        kind: Kind,
        id: &str,
        body: &str,
        place: Place,
    ) -> Result<(), EditError> {
        self.edit(Edit::Put {
            id: RuleId::parse(id, &self.limits).unwrap(),
            rule: NewRule::parse(kind, body, &self.limits).unwrap(),
            place,
        })
    }

    /// Puts a rule of a body that says nothing.
    pub(crate) fn put(&mut self, kind: Kind, id: &str) {
        self.put_at(kind, id, body(kind), Place::default()).unwrap();
    }

    pub(crate) fn delete(&mut self, kind: Kind, id: &str) -> Result<(), EditError> {
        let id = id.to_owned();
        self.edit(Edit::Delete { kind, id })
    }

    pub(crate) fn switch(&mut self, kind: Kind, id: &str, enabled: bool) -> Result<(), EditError> {
        let id = id.to_owned();
        self.edit(Edit::SetEnabled { kind, id, enabled })
    }

    pub(crate) fn act(&mut self, kind: Kind, id: &str, actions: &str) -> Result<(), EditError> {
        let body = format!("{{\"actions\":{actions}}}");
        let actions = Actions::parse(&body, &self.limits).unwrap();
        let id = id.to_owned();
        self.edit(Edit::SetActions { kind, id, actions })
    }

    pub(crate) fn served(&self) -> String {
        served(&self.changes(), &self.defaults, USER)
    }

    pub(crate) fn rules(&self, kind: Kind) -> Vec<Value> {
        let served = self.served();
        serde_json::from_str(find_rules(&served, kind).unwrap()).unwrap()
    }

    pub(crate) fn rule(&self, kind: Kind, id: &str) -> Option<Value> {
        let mut rules = self.rules(kind).into_iter();
        rules.find(|rule| rule["rule_id"] == id)
    }

    /// The IDs of the user's own rules.
    pub(crate) fn own(&self, kind: Kind) -> Vec<String> {
        let rules = self.rules(kind);
        let own = rules.iter().filter(|rule| rule["default"] == false);
        own.map(|rule| rule["rule_id"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// A rule of this kind that has what it must have.
pub(crate) fn body(kind: Kind) -> &'static str {
    match kind {
        Kind::Override | Kind::Underride => r#"{"conditions":[],"actions":["notify"]}"#,
        Kind::Content => r#"{"pattern":"cake","actions":["notify"]}"#,
        Kind::Room | Kind::Sender => r#"{"actions":["notify"]}"#,
    }
}

pub(crate) fn before(id: &str) -> Place {
    Place {
        before: Some(id.to_owned()),
        after: None,
    }
}

pub(crate) fn after(id: &str) -> Place {
    Place {
        before: None,
        after: Some(id.to_owned()),
    }
}
