//! The tokens of operators' programs.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::error::ApiError;

/// Characters that a token must have at least: of 64 kinds each, 16 are 96 bits.
pub const ADMIN_TOKEN_CHARACTERS_MIN: usize = 16;

const UNKNOWN: ApiError = ApiError::UnknownToken { soft_logout: false };

/// The table `admin`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// The tokens by their names, which stand in the log; without any there is no admin API.
    #[serde(deserialize_with = "each_of_its_own")]
    pub tokens: BTreeMap<String, AdminToken>,
}

impl AdminSettings {
    /// Tells whether there is an admin API.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Returns the name of the token, which is compared with all of them in constant time.
    fn name_of(&self, token: &str) -> Option<&str> {
        let presented = AdminToken::hash(token);
        let mut found = None;
        for (name, known) in &self.tokens {
            if bool::from(known.0.ct_eq(&presented.0)) {
                found = Some(name.as_str());
            }
        }
        found
    }

    /// Returns the name of the token in the request's header.
    pub(crate) fn authorize(&self, headers: &HeaderMap) -> Result<&str, ApiError> {
        let header = headers.get(AUTHORIZATION).ok_or(ApiError::MissingToken)?;
        let text = header.to_str().map_err(|_| UNKNOWN)?;
        let (scheme, token) = text.split_once(' ').ok_or(ApiError::MissingToken)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::MissingToken);
        }
        self.name_of(token.trim()).ok_or(UNKNOWN)
    }
}

/// A token, of which only the SHA-256 is kept; neither `Debug` nor `Serialize` shows that.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// Takes a secret.
    ///
    /// # Errors
    /// Says what a token must be where the secret is too short, or has a character that cannot
    /// stand in a header; never quotes it.
    pub fn parse(secret: &str) -> Result<Self, String> {
        if secret.chars().count() < ADMIN_TOKEN_CHARACTERS_MIN {
            return Err(format!(
                "a token must have at least {ADMIN_TOKEN_CHARACTERS_MIN} characters"
            ));
        }
        if !secret.chars().all(|c| c.is_ascii_graphic()) {
            return Err("a token may only have visible ASCII characters".to_owned());
        }
        Ok(Self::hash(secret))
    }

    fn hash(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

impl Serialize for AdminToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("…")
    }
}

impl<'de> Deserialize<'de> for AdminToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Secret)
    }
}

/// Refuses one secret under two names: the log would name one of them for both.
fn each_of_its_own<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, AdminToken>, D::Error> {
    let tokens = BTreeMap::<String, AdminToken>::deserialize(deserializer)?;
    let mut names = BTreeMap::new();
    for (name, token) in &tokens {
        if let Some(other) = names.insert(token.0, name) {
            return Err(D::Error::custom(format!(
                "`{other}` and `{name}` have the same token; each needs one of its own"
            )));
        }
    }
    Ok(tokens)
}

/// Reads a string; what is none is refused without quoting it, as serde would.
struct Secret;

const NO_STRING: &str = "a token is a string: put it into quotes";

impl<'de> Visitor<'de> for Secret {
    type Value = AdminToken;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, secret: &str) -> Result<AdminToken, E> {
        AdminToken::parse(secret).map_err(E::custom)
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<AdminToken, E> {
        Err(E::custom(NO_STRING))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<AdminToken, E> {
        Err(E::custom(NO_STRING))
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<AdminToken, E> {
        Err(E::custom(NO_STRING))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<AdminToken, E> {
        Err(E::custom(NO_STRING))
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<AdminToken, E> {
        Err(E::custom(NO_STRING))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<AdminToken, E> {
        Err(E::custom(NO_STRING))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<AdminToken, A::Error> {
        Err(A::Error::custom(NO_STRING))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<AdminToken, A::Error> {
        Err(A::Error::custom(NO_STRING))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn settings(tokens: &Value) -> Result<AdminSettings, String> {
        let table = json!({"tokens": tokens});
        serde_json::from_value(table).map_err(|error| error.to_string())
    }

    #[test]
    fn each_token_is_told_by_its_name() {
        let other = "fedcba9876543210";
        let settings = settings(&json!({"grafana": SECRET, "ops": other})).unwrap();
        assert_eq!(settings.name_of(SECRET), Some("grafana"));
        assert_eq!(settings.name_of(other), Some("ops"));
        for wrong in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789abcdeF",
        ] {
            assert_eq!(settings.name_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn one_token_has_one_name() {
        let error = settings(&json!({"grafana": SECRET, "ops": SECRET})).unwrap_err();
        let expected = "`grafana` and `ops` have the same token; each needs one of its own";
        assert_eq!(error, expected);
    }

    #[test]
    fn nothing_shows_a_token() {
        let settings = settings(&json!({"ops": SECRET})).unwrap();
        let shown = format!("{settings:?}{}", serde_json::to_string(&settings).unwrap());
        assert!(shown.contains("ops") && !shown.contains(SECRET), "{shown}");
        let hash = &settings.tokens["ops"].0;
        assert!(!shown.contains(&format!("{hash:?}")), "{shown}");
    }

    #[test]
    fn a_wrong_token_is_not_repeated() {
        let rows = [
            (
                json!("canary-canary-c"),
                "a token must have at least 16 characters",
            ),
            (
                json!("canary-canary canary"),
                "a token may only have visible ASCII characters",
            ),
            (
                json!("canary-canary-canäry"),
                "a token may only have visible ASCII characters",
            ),
            (json!(1_234_567_890_123_456_u64), NO_STRING),
            (json!(-5), NO_STRING),
            (json!(1.5), NO_STRING),
            (json!(true), NO_STRING),
            (json!(["canary-canary-canary"]), NO_STRING),
            (json!({"canary-canary-canary": 1}), NO_STRING),
        ];
        for (token, expected) in rows {
            assert_eq!(settings(&json!({"ops": token})).unwrap_err(), expected);
        }
    }
}
