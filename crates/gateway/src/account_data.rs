//! Global and room account data: what clients write to the homeserver passes here.

use kitbag_domain::{PermitError, WritePolicy};

use crate::answer::Answer;
use crate::call::Call;
use crate::gateway::Gateway;
use crate::pass::pass;

/// `PUT` and `DELETE`: what the server manages is refused before the homeserver sees it (MSC4010).
pub(crate) async fn write(gateway: &Gateway, call: Call) -> Answer {
    let credentials = call.head.credentials();
    let upstream = gateway.upstream();
    let who = gateway.identities().recent(upstream, &credentials).await?;
    let key = call.head.own_path(&who.user)?.key()?;
    if WritePolicy::of(&key) == WritePolicy::ServerManaged {
        return Err(PermitError::ServerManaged(key.event_type).into());
    }
    pass(gateway, call.into_request()).await
}
