//! Push rules as plain as can be, for who tests stores and the service: the laws do not depend on
//! what a change is.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};

use kitbag_domain::{Content, PushRules, UserId};

/// Serves the user's ID and what is stored, as it is.
#[derive(Debug)]
pub struct PlainRules {
    fingerprint: AtomicU32,
}

impl Default for PlainRules {
    fn default() -> Self {
        Self {
            fingerprint: AtomicU32::new(1),
        }
    }
}

impl PlainRules {
    /// Makes as if there were other defaults from now on.
    pub fn set_fingerprint(&self, fingerprint: u32) {
        self.fingerprint.store(fingerprint, Ordering::SeqCst);
    }
}

impl PushRules for PlainRules {
    fn served(&self, user: &UserId, stored: Option<&Content>) -> Content {
        let stored = stored.map_or("null", Content::as_str);
        let served = format!("{{\"global\":{{}},\"user\":\"{user}\",\"stored\":{stored}}}");
        Content::from_stored(served.into())
    }

    fn fingerprint(&self) -> u32 {
        self.fingerprint.load(Ordering::SeqCst)
    }
}

/// Returns an edit that adds a rule, whose name is a JSON key, behind those that are stored.
pub fn adding(
    rule: &str,
) -> impl Fn(Option<&Content>) -> Result<Content, Infallible> + Send + use<> {
    let rule = format!("\"{rule}\":{{}}");
    move |stored| {
        let stored = stored.map_or("{}", Content::as_str);
        let known = &stored[..stored.len() - 1];
        let comma = if known == "{" { "" } else { "," };
        let edited = format!("{known}{comma}{rule}}}");
        Ok(Content::from_stored(edited.into()))
    }
}

/// Rules that [`noting`] leaves: then histories do not fill the quota with them.
pub const NOTED_MAX: usize = 3;

/// Returns an edit that adds a number behind those that are stored, of which the last
/// [`NOTED_MAX`] stay: `{"noted":[1,2,3]}`.
pub fn noting(
    number: u64,
) -> impl Fn(Option<&Content>) -> Result<Content, Infallible> + Send + use<> {
    move |stored| {
        let text = stored.map_or("{\"noted\":[]}", Content::as_str);
        let inside = &text["{\"noted\":[".len()..text.len() - "]}".len()];
        let number = number.to_string();
        let mut noted: Vec<&str> = inside
            .split(',')
            .filter(|known| !known.is_empty())
            .collect();
        noted.push(&number);
        let kept = &noted[noted.len().saturating_sub(NOTED_MAX)..];
        let edited = format!("{{\"noted\":[{}]}}", kept.join(","));
        Ok(Content::from_stored(edited.into()))
    }
}
