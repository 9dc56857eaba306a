//! Looking through a whole store: what is not as Kitbag writes it, and what of that can be mended.
//!
//! Everything is read from a file that nobody writes meanwhile: the data directory under its lock,
//! or a copy. So nothing here has to be quick, and all of it is of one state.

mod books;
mod feed;
mod mend;
mod structure;

use std::collections::BTreeSet;
use std::path::Path;
use std::{fmt, fs};

use rusqlite::Connection;

use crate::error::Failure;
use crate::format::{self, Header, MIGRATIONS};
use crate::lock;
use crate::open::{self, OpenError};
pub use mend::{Mend, Mended, Mending};

/// Findings that a report holds; the others are counted. More are of no use to anybody.
pub const FINDINGS_MAX: usize = 1_000;

/// Stands before the number of the process in the name of a copy for a check.
pub(crate) const COPY_NAME: &str = "kitbag-check-";
/// Stands behind it.
pub(crate) const COPY_NAME_END: &str = ".tmp";

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// SQLite found the file itself to be damaged.
    Damage,
    /// A table or an index is missing or differs from its format.
    Schema,
    /// The store does not say whose it is, or holds what is not its server's.
    Identity,
    /// A value that the store cannot have written, and cannot read.
    Unreadable,
    /// A row whose user or device is gone.
    Orphan,
    /// A position is lower than one that was given out.
    Position,
    /// A number in the feed of device account data, its head or its floor is not what it must be.
    Feed,
    /// The count or the size of a user's entries is not what is there.
    Usage,
}

impl Kind {
    /// Tells whether what is right follows from the other rows.
    #[must_use]
    pub fn is_derivable(self) -> bool {
        match self {
            Self::Damage | Self::Schema | Self::Identity | Self::Unreadable => false,
            Self::Feed | Self::Orphan | Self::Position | Self::Usage => true,
        }
    }

    /// Returns its name, as in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Damage => "damage",
            Self::Schema => "schema",
            Self::Identity => "identity",
            Self::Unreadable => "unreadable",
            Self::Orphan => "orphan",
            Self::Position => "position",
            Self::Feed => "feed",
            Self::Usage => "usage",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something that is not as Kitbag writes it. Holds no content and no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing it is.
    pub kind: Kind,
    /// Whose it is, where it is one user's.
    pub user: Option<String>,
    /// What was found.
    pub text: String,
}

/// Returns a number with the word for that many.
#[must_use]
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The server whose accounts the store holds.
    pub server_name: Option<String>,
    /// The version of the file's format.
    pub format: u32,
    /// Accounts, deactivated ones too.
    pub users: u64,
    /// Live entries.
    pub entries: u64,
    /// Bytes of the live entries, as the quota counts them.
    pub bytes: u64,
    /// What is not as it should be, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub findings_left_out: u64,
    /// Of what kinds they all are.
    kinds: BTreeSet<Kind>,
}

impl Report {
    /// Tells whether nothing was found.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// Tells whether the file itself is damaged, so that nothing may be mended in it.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.kinds.contains(&Kind::Damage) || self.kinds.contains(&Kind::Schema)
    }

    /// Tells whether a repair can mend any of it.
    #[must_use]
    pub fn is_mendable(&self) -> bool {
        !self.is_damaged() && self.kinds.iter().any(|kind| kind.is_derivable())
    }

    /// A damage that shows at once is a finding like one that shows later.
    fn of_damage(error: OpenError) -> Result<Self, OpenError> {
        let OpenError::Corrupt { reason, .. } = error else {
            return Err(error);
        };
        Ok(Self::damaged(reason))
    }

    /// Returns the report of a file that cannot be looked through for its damage.
    #[must_use]
    pub fn damaged(reason: String) -> Self {
        let mut report = Self::default();
        report.add(Kind::Damage, None, reason);
        report
    }

    fn add(&mut self, kind: Kind, user: Option<&str>, text: String) {
        self.kinds.insert(kind);
        if self.findings.len() < FINDINGS_MAX {
            let user = user.map(str::to_owned);
            self.findings.push(Finding { kind, user, text });
        } else {
            self.findings_left_out += 1;
        }
    }

    /// Runs a part of the check; where it cannot read, that is a finding too.
    fn part(&mut self, what: &str, part: impl FnOnce(&mut Self) -> Result<(), Failure>) {
        if let Err(failure) = part(self) {
            self.add(Kind::Damage, None, format!("cannot read {what}: {failure}"));
        }
    }
}

/// Checks the store in `dir`, which nobody can open meanwhile; writes nothing.
///
/// Where a crash left a log, SQLite makes its index (`-shm`) beside it.
/// # Errors
/// [`OpenError`] where it cannot be looked at, as where a server uses it, it is missing, is not
/// Kitbag's or of a newer format, or something is to be completed first.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    match open::look(dir) {
        Ok((file, lock)) => {
            let report = examine_file(&file)?;
            if lock.is_none() {
                lock::check_none(dir)?;
            }
            Ok(report)
        }
        Err(error) => Report::of_damage(error),
    }
}

/// Checks a copy that nobody uses, for tests; writes nothing.
/// # Errors
/// As [`check()`].
#[doc(hidden)]
pub fn check_copy(file: &Path) -> Result<Report, OpenError> {
    examine_file(file)
}

/// Returns the name, in the data directory, of a copy that is made for a check by this process.
///
/// What a kill left of such a name is removed when the store is opened next.
#[must_use]
pub fn copy_name(process: u32) -> String {
    format!("{COPY_NAME}{process}{COPY_NAME_END}")
}

/// Checks a copy that was made for that, and removes it.
///
/// Its name goes at once, so that nothing is left of it however the process ends.
/// # Errors
/// As [`check()`].
pub fn check_and_remove(file: &Path) -> Result<Report, OpenError> {
    let opened = open::quietly(file);
    let removed = fs::remove_file(file);
    let report = examine_opened(opened)?;
    removed.map_err(|source| OpenError::Io {
        action: "remove",
        file: file.to_owned(),
        source,
    })?;
    Ok(report)
}

/// Checks the store in `dir` and mends what follows from other rows, after a copy was made.
///
/// Where the file itself is damaged, nothing is touched. Writes a copy of the database beside it
/// first, and mends in one transaction.
/// # Errors
/// As [`check()`], and where the copy or the transaction fails: then nothing was mended.
pub fn mend(dir: &Path, mending: &Mending) -> Result<Mended, OpenError> {
    match open::lock_and_settle(dir) {
        Ok((file, _lock)) => mend::mend(&file, examine_file(&file)?, mending),
        Err(error) => Report::of_damage(error).map(Mended::nothing),
    }
}

fn examine_file(file: &Path) -> Result<Report, OpenError> {
    examine_opened(open::quietly(file))
}

fn examine_opened(opened: Result<(Connection, Header), OpenError>) -> Result<Report, OpenError> {
    match opened {
        Ok((connection, header)) => {
            let mut report = examine(&connection, MIGRATIONS);
            report.format = header.version;
            Ok(report)
        }
        Err(error) => Report::of_damage(error),
    }
}

/// Looks at everything; fails never, since what cannot be read is a finding.
fn examine(connection: &Connection, migrations: &[format::Migration]) -> Report {
    let mut report = Report::default();
    report.part("the file", |report| structure::pages(connection, report));
    report.part("the tables", |report| {
        structure::schema(connection, migrations, report)
    });
    if report.kinds.contains(&Kind::Schema) {
        return report;
    }
    report.part("whose it is", |report| {
        structure::identity(connection, report)
    });
    report.part("the references", |report| {
        structure::references(connection, report)
    });
    books::audit(connection, &mut report);
    report.part("the feed", |report| feed::audit(connection, report));
    report
}
