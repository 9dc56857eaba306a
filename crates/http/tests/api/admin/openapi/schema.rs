//! Values against schemas, of which it knows the words that the description has.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

type Finding = String;

/// The schemas of a description, and what was seen of them.
pub(super) struct Schemas<'a> {
    description: &'a Value,
    /// Each property of each schema that has a name, as `SCHEMA.PROPERTY`.
    unseen: RefCell<BTreeSet<String>>,
}

impl<'a> Schemas<'a> {
    pub(super) fn of(description: &'a Value) -> Self {
        let mut unseen = BTreeSet::new();
        for (name, schema) in description["components"]["schemas"].as_object().unwrap() {
            let alternatives = schema["anyOf"].as_array().into_iter().flatten();
            for alternative in alternatives.chain([schema]) {
                let properties = alternative["properties"].as_object().into_iter().flatten();
                unseen.extend(properties.map(|(property, _)| format!("{name}.{property}")));
            }
        }
        let unseen = RefCell::new(unseen);
        Self {
            description,
            unseen,
        }
    }

    /// Returns the properties that no value had that was checked.
    pub(super) fn unseen(&self) -> BTreeSet<String> {
        self.unseen.borrow().clone()
    }

    /// Finds what of a value is not as the schema says. Where properties are named, there may be no
    /// others: what a client gets is described.
    pub(super) fn check(&self, schema: &Value, value: &Value) -> Result<(), Finding> {
        self.check_as(schema, value, "")
    }

    /// As [`Schemas::check`], in the schema of this name.
    fn check_as(&self, schema: &Value, value: &Value, name: &str) -> Result<(), Finding> {
        let words = schema.as_object().ok_or("a schema is no object")?;
        for (word, wanted) in words {
            let is_right = match word.as_str() {
                "description" | "format" | "required" | "additionalProperties" => true,
                "$ref" => {
                    let path = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                    let name = path.rsplit('/').next().unwrap();
                    let schema = self.description.pointer(path).unwrap();
                    self.check_as(schema, value, name)?;
                    true
                }
                "type" => match wanted {
                    Value::Array(types) => types.iter().any(|one| is_of_type(one, value)),
                    one => is_of_type(one, value),
                },
                "const" => wanted == value,
                "minimum" => value.is_null() || value.as_i64() >= wanted.as_i64(),
                "items" => {
                    let mut rows = value.as_array().into_iter().flatten();
                    rows.try_for_each(|row| self.check_as(wanted, row, name))?;
                    true
                }
                "anyOf" | "oneOf" => {
                    let mut alternatives = wanted.as_array().unwrap().iter();
                    alternatives.any(|one| self.check_as(one, value, name).is_ok())
                }
                "properties" => true,
                other => return Err(format!("`{other}` is not known here")),
            };
            if !is_right {
                return Err(format!("{value} is not right for `{word}` of {schema}"));
            }
        }
        match value {
            Value::Object(object) => self.check_object(words, object, name),
            _ => Ok(()),
        }
    }

    fn check_object(
        &self,
        schema: &Map<String, Value>,
        object: &Map<String, Value>,
        name: &str,
    ) -> Result<(), Finding> {
        let required = schema.get("required").and_then(Value::as_array);
        for property in required.into_iter().flatten() {
            if !object.contains_key(property.as_str().unwrap()) {
                return Err(format!("{property} is missing"));
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        if properties.is_none() && schema.get("additionalProperties").is_none() {
            return Ok(());
        }
        for (property, value) in object {
            let described = properties.and_then(|properties| properties.get(property));
            let described = described.ok_or_else(|| format!("`{property}` is not described"))?;
            self.check_as(described, value, name)?;
        }
        let mut unseen = self.unseen.borrow_mut();
        for property in object.keys() {
            unseen.remove(&format!("{name}.{property}"));
        }
        Ok(())
    }
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        other => panic!("no such type is used: {other}"),
    }
}

#[test]
fn values_that_are_not_as_described_are_found() {
    let description: Value = serde_json::from_str(
        r##"{"components": {"schemas": {
            "Page": {"type": "object", "required": ["rows"], "properties": {
                "rows": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}},
                "next": {"type": ["string", "null"]}}},
            "Row": {"anyOf": [
                {"type": "object", "required": ["id"], "properties": {
                    "id": {"type": "integer", "minimum": 0}}},
                {"type": "object", "required": ["kind"], "properties": {
                    "kind": {"oneOf": [{"const": "a", "type": "string"}]}}}]}}}}"##,
    )
    .unwrap();
    let schemas = Schemas::of(&description);
    let page = serde_json::json!({"$ref": "#/components/schemas/Page"});
    let check = |text: &str| schemas.check(&page, &serde_json::from_str(text).unwrap());
    for (wrong, because) in [
        ("[]", "is not right for `type`"),
        ("{}", "\"rows\" is missing"),
        (r#"{"rows": [], "more": 1}"#, "`more` is not described"),
        (r#"{"rows": [], "next": 1}"#, "is not right for `type`"),
        (r#"{"rows": [{"id": -1}]}"#, "is not right for `anyOf`"),
        (r#"{"rows": [{"kind": "b"}]}"#, "is not right for `anyOf`"),
        (r#"{"rows": [{"id": 1, "kind": "a"}]}"#, "`anyOf`"),
    ] {
        let finding = check(wrong).expect_err(wrong);
        assert!(finding.contains(because), "{wrong}: {finding}");
    }
    check(r#"{"rows": [{"id": 1}], "next": "2"}"#).unwrap();
    assert_eq!(schemas.unseen(), ["Row.kind".to_owned()].into());
    check(r#"{"rows": [{"kind": "a"}]}"#).unwrap();
    assert_eq!(schemas.unseen(), BTreeSet::new());
    let additional = serde_json::json!({"type": "object", "additionalProperties": false});
    schemas
        .check(&additional, &serde_json::json!({"a": 1}))
        .unwrap_err();
    schemas.check(&additional, &serde_json::json!({})).unwrap();
}
