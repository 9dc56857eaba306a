//! Global and room account data: what clients write to the homeserver passes here.
//!
//! Who asks is the homeserver's to judge, and it is asked only where the gateway refuses something: so
//! an ordinary write costs no request more.

use kitbag_domain::{PUSH_RULES, PermitError};
use kitbag_http::shared::GatewayError;

use crate::answer::{Answer, Failure};
use crate::call::{Call, Head};
use crate::gateway::Gateway;
use crate::guard::{self, Guarded};
use crate::pass::pass;
use crate::settings::Protection;

/// `PUT` and `DELETE`: what the server manages is refused before the homeserver sees it (MSC4010), and
/// so is what holds device account data.
pub(crate) async fn write(gateway: &Gateway, call: Call) -> Answer {
    if let Some(guarded) = guard::read_strictly(call.head.parts.uri.path()) {
        permit(gateway, &call.head, guarded).await?;
    }
    pass(gateway, call.into_request()).await
}

/// Refuses a write of a guarded type, but for one that is only observed.
///
/// In the order of the API: what is wrong with the token and the path is told first.
async fn permit(gateway: &Gateway, head: &Head, guarded: Guarded) -> Result<(), Failure> {
    let is_observed = gateway.settings().protect.push_rules == Protection::Observe;
    if is_observed && guarded == Guarded::ServerManaged(PUSH_RULES) {
        return Ok(());
    }
    let credentials = head.credentials();
    let upstream = gateway.upstream();
    let who = gateway.identities().recent(upstream, &credentials).await?;
    let key = head.own_path(&who.user)?.key()?;
    Err(match guarded {
        Guarded::Mapped => GatewayError::MappedType.into(),
        Guarded::ServerManaged(_) => PermitError::ServerManaged(key.event_type).into(),
    })
}
