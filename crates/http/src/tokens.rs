//! Makes access and refresh tokens.

use kitbag_domain::{Seen, SessionTokens, Token, TokenKind, UserId};
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
