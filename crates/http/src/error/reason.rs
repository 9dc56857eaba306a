//! Why a request was refused, in a word for metrics.

use kitbag_domain::{ContentError, GetError, PermitError, QuotaExceeded, StoreError, WriteError};
use kitbag_push::{EditError, RuleError};

use super::ApiError;
use crate::passwords::PasswordError;

impl ApiError {
    /// Returns the reason as metrics name it: one of a few words, never an ID or a text of a client.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::BadJson(_) => "bad_json",
            Self::BodyBroken => "body_broken",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge { .. } => "too_large",
            Self::Content(error) => of_content(error),
            Self::Forbidden(_) => "forbidden",
            Self::Gateway(error) => error.reason(),
            Self::Get(GetError::NotFound) | Self::NotFound(_) => "not_found",
            Self::Get(GetError::Store(error)) | Self::Store(error) => of_store(error),
            Self::InvalidId(_) => "invalid_id",
            Self::InvalidParam(_) => "invalid_param",
            Self::InvalidUsername(_) => "invalid_username",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::MissingParam(_) => "missing_param",
            Self::MissingToken => "missing_token",
            Self::NameTooLong { .. } => "name_too_long",
            Self::NotJson => "not_json",
            Self::NoPushRulePath => "unknown_endpoint",
            Self::NotOwnAccount => "not_own_account",
            Self::Panicked => "panic",
            Self::Password(PasswordError::Empty) => "password_empty",
            Self::Password(PasswordError::Hash(_)) => "password_hash",
            Self::Password(PasswordError::Overloaded) => "password_overloaded",
            Self::Permit(error) => of_permit(error),
            Self::PushRule(error) => of_rule(error),
            Self::PushRuleEdit(error) => of_rule_edit(error),
            Self::PushRuleId(_) => "invalid_id",
            Self::RateLimited(_) => "rate_limited",
            Self::TooMany(_) => "quota_count",
            Self::Uia(_) => "authentication_needed",
            Self::UnknownCoding => "unknown_coding",
            Self::UnknownLoginType => "unknown_login_type",
            Self::UnknownToken { soft_logout: true } => "expired_token",
            Self::UnknownToken { soft_logout: false } => "unknown_token",
            Self::Unrecognized => "unknown_endpoint",
            Self::UserDeactivated => "user_deactivated",
            Self::UserInUse => "user_in_use",
            Self::Write(error) => of_write(error),
        }
    }
}

fn of_content(error: &ContentError) -> &'static str {
    match error {
        ContentError::NotJson => "not_json",
        ContentError::NotObject => "not_object",
        ContentError::TooDeep { .. } => "too_deep",
        ContentError::TooLarge { .. } => "too_large",
    }
}

fn of_permit(error: &PermitError) -> &'static str {
    match error {
        PermitError::NoSuchDevice => "no_such_device",
        PermitError::NotOwnDevice => "not_own_device",
        PermitError::ServerManaged(_) => "server_managed",
        PermitError::Store(error) => of_store(error),
    }
}

fn of_write(error: &WriteError) -> &'static str {
    match error {
        WriteError::Conflict { .. } => "conflict",
        WriteError::Content(error) => of_content(error),
        WriteError::IgnoresSelf => "ignores_self",
        WriteError::Quota(QuotaExceeded::Entries { .. }) => "quota_entries",
        WriteError::Quota(QuotaExceeded::Bytes { .. }) => "quota_bytes",
        WriteError::Quota(QuotaExceeded::DeviceEntries { .. }) => "quota_device_entries",
        WriteError::SessionGone => "session_gone",
        WriteError::Store(error) => of_store(error),
    }
}

fn of_rule(error: &RuleError) -> &'static str {
    match error {
        RuleError::BadAction { .. }
        | RuleError::BadCondition { .. }
        | RuleError::Malformed { .. }
        | RuleError::Repeated { .. }
        | RuleError::TooMany { .. } => "bad_push_rule",
        RuleError::Missing { .. } => "missing_param",
        RuleError::NotJson => "not_json",
        RuleError::NotObject => "not_object",
        RuleError::TooDeep { .. } => "too_deep",
        RuleError::TooLarge { .. } => "too_large",
    }
}

fn of_rule_edit(error: &EditError) -> &'static str {
    match error {
        EditError::DefaultRule => "default_push_rule",
        EditError::NotFound => "not_found",
        EditError::NoSuchNeighbour => "bad_push_rule",
        EditError::RuleTooLarge { .. } => "too_large",
        EditError::TooLarge { .. } | EditError::TooManyRules { .. } => "quota_push_rules",
    }
}

fn of_store(error: &StoreError) -> &'static str {
    match error {
        StoreError::Corrupt(_) => "store_corrupt",
        StoreError::OutcomeUnknown(_) => "store_outcome_unknown",
        StoreError::Overloaded => "store_overloaded",
        StoreError::Unavailable(_) => "store_unavailable",
    }
}

#[cfg(test)]
mod tests {
    /// The texts in this file up to here are the reasons, and nothing else.
    #[test]
    fn each_reason_is_told_in_the_documentation() {
        let (source, _) = include_str!("reason.rs")
            .split_once("#[cfg(test)]")
            .unwrap();
        let documentation = include_str!("../../../../docs/monitoring.md");
        let (_, table) = documentation.split_once("## Reasons").unwrap();
        let reasons: Vec<_> = source.split('"').skip(1).step_by(2).collect();
        assert!(reasons.contains(&"quota_entries"));
        for reason in reasons {
            assert!(table.contains(&format!("`{reason}`")), "{reason}");
        }
    }
}
