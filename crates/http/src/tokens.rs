//! Makes access and refresh tokens, and reads what a request bears.

use std::sync::{Mutex, PoisonError};

use kitbag_domain::{
    KeptSession, Seen, Session, SessionTokens, Token, TokenError, TokenHash, TokenKind, UserId,
};
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
/// A connection's requests mostly bear the same one, which is looked at once, and so is its session
/// for as long as the store lets it be kept.
#[derive(Default)]
pub(crate) struct LastToken(Mutex<Option<Known>>);

struct Known {
    /// The header that bore it, as it came.
    header: Box<[u8]>,
    user: UserId,
    hash: TokenHash,
    session: Option<KeptSession>,
}

/// An access token that a request bears, and whose it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Presented {
    pub(crate) user: UserId,
    pub(crate) hash: TokenHash,
    /// Its session, where that was kept and holds.
    pub(crate) session: Option<Session>,
}

impl LastToken {
    /// Returns the token that a header bears, if it bore the last one.
    pub(crate) fn recall(&self, header: &[u8]) -> Option<Presented> {
        let last = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.as_ref()?;
        is_same(&known.header, header).then(|| Presented {
            user: known.user.clone(),
            hash: known.hash,
            session: known.session.as_ref().and_then(KeptSession::get).cloned(),
        })
    }

    /// Looks something up for a header that bore the last token, whose session was kept and holds.
    pub(crate) fn peek<T>(
        &self,
        header: &[u8],
        look: impl FnOnce(&UserId, &Session) -> Option<T>,
    ) -> Option<T> {
        let last = &*self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last
            .as_ref()
            .filter(|known| is_same(&known.header, header))?;
        look(&known.user, known.session.as_ref()?.get()?)
    }

    /// Remembers what token a header bears.
    pub(crate) fn remember(&self, header: &[u8], token: &Presented) {
        let last = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Known {
            header: header.into(),
            user: token.user.clone(),
            hash: token.hash,
            session: None,
        });
    }

    /// Keeps the session of a token, unless another token came meanwhile.
    pub(crate) fn keep(&self, hash: TokenHash, session: KeptSession) {
        let last = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last
            && known.hash == hash
        {
            known.session = Some(session);
        }
    }
}

impl Presented {
    /// Reads an access token.
    pub(crate) fn parse(text: &str) -> Result<Self, TokenError> {
        let token = Token::parse(TokenKind::Access, text)?;
        Ok(Self {
            user: token.user().clone(),
            hash: token.hash(),
            session: None,
        })
    }
}

/// Compares all bytes, wherever they differ: how long that takes says nothing of a token that
/// somebody else sent over this connection, as behind a proxy.
fn is_same(known: &[u8], header: &[u8]) -> bool {
    let ((known_words, known_rest), (words, rest)) = (known.as_chunks(), header.as_chunks());
    let words = known_words.iter().zip(words);
    let words = words.map(|(a, b)| u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b));
    let rest = known_rest.iter().zip(rest).map(|(a, b)| u64::from(a ^ b));
    known.len() == header.len() && words.chain(rest).fold(0, |differ, bits| differ | bits) == 0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kitbag_domain::{DeviceId, Incarnation, SessionChanges};

    use super::*;

    #[test]
    fn a_connection_remembers_whose_token_its_last_header_bore() {
        let token = |kind, user: &str, secret| {
            let token = Token::new(kind, UserId::parse(user).unwrap(), [secret; 32]);
            token.reveal().to_owned()
        };
        let alice = token(TokenKind::Access, "@alice:x", 1);
        let alices_other = token(TokenKind::Access, "@alice:x", 2);
        let bob = token(TokenKind::Access, "@bob:x", 1);
        let last = LastToken::default();
        for text in [&alice, &alices_other, &bob, &alice] {
            let presented = Presented::parse(text).unwrap();
            let header = format!("Bearer {text}").into_bytes();
            assert_eq!(last.recall(&header), None, "another one came between");
            last.remember(&header, &presented);
            assert_eq!(last.recall(&header), Some(presented));
            for place in 0..header.len() {
                let mut other = header.clone();
                other[place] ^= 1;
                assert_eq!(
                    last.recall(&other),
                    None,
                    "byte {place} of {}",
                    header.len()
                );
                assert_eq!(last.recall(&header[..place]), None);
            }
        }
    }

    #[test]
    fn a_refresh_token_is_no_access_token() {
        let alice = UserId::parse("@alice:x").unwrap();
        let refresh = Token::new(TokenKind::Refresh, alice, [1; 32]);
        assert_eq!(Presented::parse(refresh.reveal()), Err(TokenError));
        assert_eq!(Presented::parse(&refresh.reveal()[1..]), Err(TokenError));
    }

    #[test]
    fn a_kept_session_is_told_of_its_own_token_and_until_it_may_have_changed() {
        let token = |secret| {
            let alice = UserId::parse("@alice:x").unwrap();
            Token::new(TokenKind::Access, alice, [secret; 32])
        };
        let (token, other) = (token(1), token(2));
        let session = Session {
            device: DeviceId::parse("PHONE").unwrap(),
            incarnation: Incarnation(1),
            expires_at: None,
            last_seen_at: 0,
            replaces_others: false,
        };
        let changes = Arc::<SessionChanges>::default();
        let kept = || KeptSession::new(&session, &changes);
        let last = LastToken::default();
        let remember = |token: &Token| {
            let presented = Presented::parse(token.reveal()).unwrap();
            last.remember(token.reveal().as_bytes(), &presented);
        };
        let told = |token: &Token| last.recall(token.reveal().as_bytes())?.session;
        remember(&token);
        assert_eq!(told(&token), None);
        last.keep(other.hash(), kept());
        assert_eq!(told(&token), None, "it is that of a token that came before");
        last.keep(token.hash(), kept());
        assert_eq!(told(&token), Some(session.clone()));
        remember(&other);
        assert_eq!(told(&other), None);
        remember(&token);
        assert_eq!(told(&token), None, "another one came between");
        last.keep(token.hash(), kept());
        changes.note();
        assert_eq!(told(&token), None);
    }
}
