//! Where the homeserver listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use axum::http::Uri;
use axum::http::uri::{Authority, Scheme};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The address of a homeserver: `http://HOST:PORT`, `https://HOST` or `unix:/PATH`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum UpstreamAddress {
    /// Over TCP.
    Tcp {
        /// Whether with TLS.
        is_tls: bool,
        /// Host and, where it is not the usual one, port.
        authority: Authority,
    },
    /// Over a socket of this machine.
    Unix(PathBuf),
}

/// Why a text is no address of a homeserver.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "expected http://HOST:PORT, https://HOST or unix:/PATH, without a path behind the host: \
     requests go on as they came"
)]
pub struct UpstreamAddressError;

impl UpstreamAddress {
    pub(crate) fn scheme(&self) -> Scheme {
        match self {
            Self::Tcp { is_tls: true, .. } => Scheme::HTTPS,
            Self::Tcp { is_tls: false, .. } | Self::Unix(_) => Scheme::HTTP,
        }
    }

    /// Returns what stands in `Host` where a request has none.
    pub(crate) fn authority(&self) -> Authority {
        match self {
            Self::Tcp { authority, .. } => authority.clone(),
            Self::Unix(_) => Authority::from_static("localhost"),
        }
    }
}

impl FromStr for UpstreamAddress {
    type Err = UpstreamAddressError;

    fn from_str(text: &str) -> Result<Self, UpstreamAddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_absolute = path.starts_with('/') && !path.starts_with("//");
            return match is_absolute {
                true => Ok(Self::Unix(path.into())),
                false => Err(UpstreamAddressError),
            };
        }
        let uri: Uri = text.parse().map_err(|_| UpstreamAddressError)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(UpstreamAddressError),
        };
        let has_target = uri.path() != "/" || uri.query().is_some();
        match uri.authority() {
            Some(authority) if !has_target && !authority.as_str().contains('@') => Ok(Self::Tcp {
                is_tls,
                authority: authority.clone(),
            }),
            _ => Err(UpstreamAddressError),
        }
    }
}

impl TryFrom<String> for UpstreamAddress {
    type Error = UpstreamAddressError;

    fn try_from(text: String) -> Result<Self, UpstreamAddressError> {
        text.parse()
    }
}

impl From<UpstreamAddress> for String {
    fn from(address: UpstreamAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { authority, .. } => write!(f, "{}://{authority}", self.scheme()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_as_they_were_given() {
        for text in [
            "http://127.0.0.1:8008",
            "https://matrix.example.org",
            "http://[::1]:8008",
            "unix:/run/synapse/main.sock",
        ] {
            assert_eq!(text.parse::<UpstreamAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "127.0.0.1:8008",
            "ftp://host",
            "http://",
            "http://user@host",
            "http://host/path",
            "http://host?query",
            "unix:relative",
            "unix://host/path",
        ] {
            assert!(text.parse::<UpstreamAddress>().is_err(), "{text}");
        }
    }
}
