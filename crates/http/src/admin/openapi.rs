//! `GET /_kitbag/admin/v1/openapi.json`: the admin API as OpenAPI 3.1 describes it.

#[cfg(test)]
mod description;

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;

use crate::json::json_response;

/// The description: a test makes it of the table of operations and the types of the rows, and
/// compares. So what makes it is no part of the server.
const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");

pub(crate) async fn openapi() -> Response {
    json_response(StatusCode::OK, Bytes::from_static(DOCUMENT.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::{env, fs};

    use axum::extract::State;
    use serde::de::value::Error;
    use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};

    use super::*;
    use crate::admin::{changes, device_data, entries, users};
    use crate::endpoints::account_data::PutQuery;
    use crate::extract::MatrixQuery;
    use crate::state::App;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

    /// `KITBAG_TEST_REWRITE=1` writes the file anew instead; what serves it is then built again.
    #[test]
    fn the_description_is_that_of_the_operations_and_rows() {
        let mut text = serde_json::to_string_pretty(&description::document()).unwrap();
        text.push('\n');
        if env::var_os("KITBAG_TEST_REWRITE").is_some() {
            fs::write(FILE, text).unwrap();
        } else {
            assert!(
                text == DOCUMENT,
                "docs/openapi.json is not of this code: run this test with KITBAG_TEST_REWRITE=1"
            );
        }
    }

    /// Hands out the names that a struct is read from, and no value.
    struct Names<'a>(&'a mut BTreeSet<&'static str>);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("only structs have names"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            names: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            self.0.extend(names);
            Err(Error::custom("the names are all that is wanted"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn names<Query: DeserializeOwned>() -> BTreeSet<&'static str> {
        let mut names = BTreeSet::new();
        let nothing = Query::deserialize(Names(&mut names));
        assert!(nothing.is_err() && !names.is_empty());
        names
    }

    /// The parameters of the query that a handler takes.
    fn of<Query: DeserializeOwned, Answer>(
        _: impl Fn(State<App>, MatrixQuery<Query>) -> Answer,
    ) -> BTreeSet<&'static str> {
        names::<Query>()
    }

    /// The same of one that is about something of the path.
    fn of_target<Target, Query: DeserializeOwned, Answer>(
        _: impl Fn(State<App>, Target, MatrixQuery<Query>) -> Answer,
    ) -> BTreeSet<&'static str> {
        names::<Query>()
    }

    #[test]
    fn the_parameters_of_each_query_are_those_that_its_handler_takes() {
        let mut taken = BTreeMap::new();
        for (path, names) in [
            ("changes", of(changes)),
            ("device_account_data", of(device_data::list)),
            ("device_account_data/lacking", of(device_data::lacking)),
            ("device_account_data/summary", of(device_data::summary)),
            ("users", of(users::list)),
            ("users/{user}/account_data", of_target(entries::list)),
        ] {
            taken.insert(("get", format!("/_kitbag/admin/v1/{path}")), names);
        }
        for scope in ["", "/devices/{device}", "/rooms/{room}"] {
            let path = format!("/_kitbag/admin/v1/users/{{user}}{scope}/account_data/{{type}}");
            taken.insert(("put", path), names::<PutQuery>());
        }
        let document = description::document();
        let mut described = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let parameters = operation["parameters"].as_array().unwrap().iter();
                let of_query = parameters.filter(|parameter| parameter["in"] == "query");
                let names: BTreeSet<&str> =
                    of_query.map(|one| one["name"].as_str().unwrap()).collect();
                if !names.is_empty() {
                    described.insert((method.as_str(), path.clone()), names);
                }
            }
        }
        assert_eq!(described, taken);
    }
}
