//! The headers that every answer carries.

use std::sync::LazyLock;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_TYPE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use crate::request_id::{REQUEST_ID_HEADER, RequestId};

/// [spec, "Web Browser Clients"]
const CORS: [(HeaderName, HeaderValue); 4] = [
    (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    ),
    (
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization, Date"),
    ),
    (
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Retry-After, X-Request-Id"),
    ),
];

/// What almost all answers have, made once: a copy takes a third of what it takes to insert them.
static OF_JSON: LazyLock<HeaderMap> = LazyLock::new(|| {
    let json = HeaderValue::from_static("application/json");
    // The ID has its place, so that the copy need not grow for it.
    let id = (REQUEST_ID_HEADER, HeaderValue::from_static(""));
    HeaderMap::from_iter([(CONTENT_TYPE, json), id].into_iter().chain(CORS))
});

/// Returns the headers of an answer with a JSON body, which [`finish`] completes.
pub(crate) fn of_json() -> HeaderMap {
    OF_JSON.clone()
}

/// Tells whether an answer lacks what [`finish`] puts on: that of a homeserver mostly has it.
#[must_use]
pub fn is_unfinished(response: &Response) -> bool {
    let headers = response.headers();
    let is_ours = headers
        .get(REQUEST_ID_HEADER)
        .is_some_and(HeaderValue::is_empty);
    is_ours || !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
}

/// Puts the headers on that every answer carries, and takes those off that only answers to browsers
/// do.
pub fn finish(response: &mut Response, request_id: RequestId<'_>, has_cors: bool) {
    let headers = response.headers_mut();
    // To insert what is there already would make room for one more first.
    if let Some(id) = headers.get_mut(REQUEST_ID_HEADER) {
        *id = request_id.header();
    } else {
        headers.insert(REQUEST_ID_HEADER, request_id.header());
    }
    if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) == has_cors {
        return;
    }
    for (name, value) in CORS {
        if has_cors {
            headers.insert(name, value);
        } else {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::json::EmptyObject;
    use crate::request_id::RequestIds;
    use axum::response::IntoResponse as _;

    #[test]
    fn each_answer_has_an_id_and_those_to_browsers_alone_have_cors() {
        struct Zeros;
        impl crate::random::Random for Zeros {
            fn fill(&self, _bytes: &mut [u8]) {}
        }
        let ids = RequestIds::new(&Zeros);
        let answers: [fn() -> Response; 2] = [
            || EmptyObject.into_response(),
            || Response::new(Body::empty()),
        ];
        for (answer, has_cors) in answers.into_iter().flat_map(|a| [(a, true), (a, false)]) {
            let id = ids.next();
            let mut response = answer();
            assert!(is_unfinished(&response));
            finish(&mut response, id, has_cors);
            let headers = response.headers();
            assert_eq!(headers[REQUEST_ID_HEADER], id.to_string());
            assert_eq!(is_unfinished(&response), !has_cors);
            for (name, value) in CORS {
                let told = headers.get_all(&name).iter().collect::<Vec<_>>();
                let expected = if has_cors { vec![&value] } else { vec![] };
                assert_eq!(told, expected, "{name}");
            }
        }
    }
}
