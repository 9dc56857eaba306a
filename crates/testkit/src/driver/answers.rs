//! What the service answers, as histories record it.

use kitbag_domain::{
    ApplyError, Entry, PermitError, QuotaExceeded, Refusal, Snapshot, StoreError, WriteError,
    Writer,
};

use crate::history::{Answer, Told, ToldEntry, Why};

pub(super) fn told(snapshot: &Snapshot) -> Told {
    let entry = |entry: &Entry| ToldEntry {
        key: entry.key.clone(),
        text: entry
            .content
            .as_ref()
            .map(|content| content.as_str().into()),
        position: entry.position.0,
        writer: match &entry.writer {
            Writer::Device { id, .. } => Some(id.clone()),
            Writer::Admin | Writer::Server => None,
        },
        at: entry.written_at,
    };
    Told {
        entries: snapshot.entries.iter().map(entry).collect(),
        head: snapshot.next.position.0,
        is_full: snapshot.is_full,
        rules: snapshot
            .push_rules
            .as_ref()
            .map(|rules| rules.as_str().into()),
    }
}

pub(super) fn forbidden(error: &PermitError) -> Answer {
    Answer::Refused(match error {
        PermitError::NoSuchDevice => Why::NoSuchDevice,
        PermitError::NotOwnDevice => Why::NotOwnDevice,
        PermitError::ServerManaged(_) => Why::ServerManaged,
        PermitError::Store(error) => unreachable!("a read failed: {error}"),
    })
}

pub(super) fn refused(error: WriteError) -> Answer {
    Answer::Refused(match error {
        WriteError::Conflict { current, .. } => Why::Conflict(current.as_str().into()),
        WriteError::Quota(QuotaExceeded::Bytes { .. }) => Why::QuotaBytes,
        WriteError::Quota(QuotaExceeded::DeviceEntries { .. }) => Why::QuotaDevice,
        WriteError::Quota(QuotaExceeded::Entries { .. }) => Why::QuotaEntries,
        WriteError::SessionGone => Why::SessionGone,
        WriteError::Store(StoreError::OutcomeUnknown(_)) => return Answer::Unknown,
        other => unreachable!("no generated write is refused so: {other}"),
    })
}

pub(super) fn gone(error: ApplyError) -> Answer {
    match error {
        ApplyError::Refused(Refusal::SessionGone) => Answer::Refused(Why::SessionGone),
        other => unreachable!("no guarded operation is refused so: {other}"),
    }
}
