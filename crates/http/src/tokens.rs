//! Makes access and refresh tokens, and reads what a request bears.

use std::sync::{Mutex, PoisonError};

use kitbag_domain::{Seen, SessionTokens, Token, TokenError, TokenHash, TokenKind, UserId};
use serde::Serialize;

use crate::extract::Client;
use crate::state::App;

/// The members of an answer that hand tokens to the client.
#[derive(Serialize)]
pub(crate) struct TokensBody {
    access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
}

impl App {
    /// Returns new tokens of `user`: what to keep of them, and what to answer.
    pub(crate) fn new_tokens(
        &self,
        user: &UserId,
        can_refresh: bool,
    ) -> (SessionTokens, TokensBody) {
        let lifetime_ms = self.settings.sessions.access_token_lifetime_ms;
        let token = |kind| {
            let mut secret = [0; 32];
            self.random.fill(&mut secret);
            Token::new(kind, user.clone(), secret)
        };
        let access = token(TokenKind::Access);
        let refresh = can_refresh.then(|| token(TokenKind::Refresh));
        let kept = SessionTokens {
            access: access.hash(),
            access_expires_at: can_refresh.then(|| self.clock.now_ms().saturating_add(lifetime_ms)),
            refresh: refresh.as_ref().map(Token::hash),
        };
        let body = TokensBody {
            access_token: access.reveal().to_owned(),
            refresh_token: refresh.map(|token| token.reveal().to_owned()),
            expires_in_ms: can_refresh.then_some(lifetime_ms),
        };
        (kept, body)
    }

    /// Returns what to note of a client that uses its session now.
    pub(crate) fn seen(&self, client: &Client) -> Seen {
        Seen {
            at: self.clock.now_ms(),
            ip: Some(client.address.to_string()),
            user_agent: client.user_agent.clone(),
        }
    }
}

/// The access token that a connection's last request bore.
///
/// A connection's requests mostly bear the same one, whose parts are looked at once. It is told by
/// its hash, so that how long that takes says nothing of a token that somebody else sent over this
/// connection, as behind a proxy.
#[derive(Default)]
pub(crate) struct LastToken(Mutex<Option<(TokenHash, UserId)>>);

impl LastToken {
    /// Returns whose access token this is, as it says itself, and its hash.
    pub(crate) fn read(&self, text: &str) -> Result<(UserId, TokenHash), TokenError> {
        let hash = TokenHash::of(text);
        let last = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, user)) = last
            && *known == hash
        {
            return Ok((user.clone(), hash));
        }
        let user = Token::parse(TokenKind::Access, text)?.user().clone();
        *last = Some((hash, user.clone()));
        Ok((user, hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_of_a_connection_is_read_for_itself() {
        let token = |kind, user: &str, secret| {
            let token = Token::new(kind, UserId::parse(user).unwrap(), [secret; 32]);
            token.reveal().to_owned()
        };
        let alice = token(TokenKind::Access, "@alice:x", 1);
        let alices_other = token(TokenKind::Access, "@alice:x", 2);
        let bob = token(TokenKind::Access, "@bob:x", 1);
        let refresh = token(TokenKind::Refresh, "@alice:x", 1);
        let last = LastToken::default();
        for text in [&alice, &alice, &alices_other, &bob, &alice] {
            let parsed = Token::parse(TokenKind::Access, text).unwrap();
            let expected = (parsed.user().clone(), parsed.hash());
            assert_eq!(last.read(text), Ok(expected));
            assert_eq!(last.read(&refresh), Err(TokenError));
            assert_eq!(last.read(&text[1..]), Err(TokenError));
        }
    }
}
