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
    use std::{env, fs};

    use super::*;

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
}
