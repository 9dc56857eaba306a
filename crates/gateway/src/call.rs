//! A request as the gateway's endpoints meet it.

use axum::body::Body;
use axum::http::Request;
use axum::http::request::Parts;
use kitbag_domain::UserId;
use kitbag_http::shared::{Denial, PathParams, VARIABLES_MAX, Variables};

use crate::credentials::Credentials;

/// A request on its way, and what the route table knows of its path.
pub(crate) struct Call {
    pub(crate) head: Head,
    pub(crate) body: Body,
}

/// All of a request but its body.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) parts: Parts,
    /// The names of the variable segments, and where these stand in the path.
    pub(crate) names: [&'static str; VARIABLES_MAX],
    pub(crate) variables: Variables,
}

impl Call {
    /// Returns the request as it goes to the homeserver.
    pub(crate) fn into_request(self) -> Request<Body> {
        Request::from_parts(self.head.parts, self.body)
    }
}

impl Head {
    /// Returns what the request shows of who sent it.
    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::of(&self.parts)
    }

    /// Returns the variable segments of the path.
    pub(crate) fn path(&self) -> Result<PathParams<'_>, Denial> {
        let path = self.parts.uri.path();
        let named = self.names.into_iter().zip(self.variables.of(path));
        PathParams::decode(named)
    }

    /// Returns the variable segments of a path below `/user/{user}`, which must be of this user.
    pub(crate) fn own_path(&self, user: &UserId) -> Result<PathParams<'_>, Denial> {
        let path = self.parts.uri.path();
        let named = self.names.into_iter().zip(self.variables.of(path));
        PathParams::of_owner(named, user)
    }
}
