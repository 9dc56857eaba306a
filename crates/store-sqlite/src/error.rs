//! How work inside a transaction ends early, and what callers are told then.

use kitbag_domain::{ApplyError, Refusal, StoreError};
use rusqlite::{ErrorCode, ffi};
use thiserror::Error;

/// Why SQLite, or a row that it returned, was of no use.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// All connections are being closed after a fault, or since the store is.
    #[error("the files are being closed")]
    Closing,
    /// Another program has the database open, so that SQLite does not look at the log anew.
    #[error("another program has the database open")]
    Held,
    /// The log could not be used beside SQLite.
    #[error("the write-ahead log could not be written again: {0}")]
    Log(#[from] std::io::Error),
    /// A row that this store cannot have written.
    #[error("{0}")]
    Row(String),
    /// SQLite refused or failed. Its texts hold no values: all of them are bound to `?`.
    #[error("{}", text(.0))]
    Sql(#[from] rusqlite::Error),
}

impl Failure {
    /// Tells whether the files or the connection cannot be trusted to work any more.
    ///
    /// Everything but the few errors that lie in a statement and its values.
    pub(crate) fn is_fault(&self) -> bool {
        match self {
            Self::Closing | Self::Held | Self::Row(_) => false,
            Self::Log(_) => true,
            Self::Sql(error) => !matches!(
                error.sqlite_error_code(),
                None | Some(
                    ErrorCode::ConstraintViolation
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::OperationInterrupted
                        | ErrorCode::TooBig
                        | ErrorCode::TypeMismatch
                )
            ),
        }
    }

    /// Tells whether a sync failed, so that what was to be written may be lost, and counts as
    /// written.
    pub(crate) fn is_lost_sync(&self) -> bool {
        self.extended_code() == Some(ffi::SQLITE_IOERR_FSYNC)
    }

    /// Tells whether another program is at the database.
    pub(crate) fn is_busy(&self) -> bool {
        let code = match self {
            Self::Sql(error) => error.sqlite_error_code(),
            _ => None,
        };
        code == Some(ErrorCode::DatabaseBusy)
    }

    /// Tells whether the disk is full.
    pub(crate) fn is_full_disk(&self) -> bool {
        self.extended_code() == Some(ffi::SQLITE_FULL)
    }

    fn extended_code(&self) -> Option<i32> {
        match self {
            Self::Sql(rusqlite::Error::SqliteFailure(error, _)) => Some(error.extended_code),
            _ => None,
        }
    }

    /// Tells whether a row holds what it cannot hold, which concerns only those who read it.
    pub(crate) fn is_unreadable_row(&self) -> bool {
        use rusqlite::Error;
        match self {
            Self::Closing | Self::Held | Self::Log(_) => false,
            Self::Row(_) => true,
            Self::Sql(error) => matches!(
                error,
                Error::FromSqlConversionFailure(..)
                    | Error::IntegralValueOutOfRange(..)
                    | Error::InvalidColumnType(..)
                    | Error::Utf8Error(..)
            ),
        }
    }

    fn is_damage(&self) -> bool {
        let is_damaged_file = matches!(self, Self::Sql(error) if is_damaged_file(error));
        is_damaged_file || self.is_unreadable_row()
    }
}

/// Says of a value that is not as it should be what that means, and not of which kind Rust's is.
fn text(error: &rusqlite::Error) -> String {
    use rusqlite::Error;
    match error {
        Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..) => {
            "a value is none that Kitbag writes".to_owned()
        }
        Error::IntegralValueOutOfRange(_, number) => format!("the number {number} is out of range"),
        error => error.to_string(),
    }
}

/// Tells whether SQLite found the file itself to be damaged.
pub(crate) fn is_damaged_file(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        if failure.is_damage() {
            Self::Corrupt(failure.to_string())
        } else {
            Self::Unavailable(failure.to_string())
        }
    }
}

/// Why an operation ended early: `E` is what its caller must choose on.
#[derive(Debug)]
pub(crate) enum Halt<E> {
    /// The operation itself failed, which touches the whole batch.
    Failed(Failure),
    /// A rule forbids the operation; nothing was written.
    Refused(E),
}

impl<E> From<Failure> for Halt<E> {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Refusal> for Halt<ApplyError> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}
