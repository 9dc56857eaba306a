//! What a disk went through, and what a power cut leaves of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::Part;
use crate::dice::Dice;

/// A file, whatever its name.
pub(super) type Inode = usize;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// One thing that happened to a disk.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A file was made, and is empty.
    Create { inode: Inode, name: String },
    /// A file was there before the disk was watched.
    Found {
        inode: Inode,
        name: String,
        bytes: Arc<[u8]>,
    },
    /// A name was removed.
    Remove { name: String },
    /// A file was synced; `began` events had happened when this began.
    Sync {
        inode: Inode,
        began: usize,
        is_done: bool,
    },
    /// The directory was synced.
    SyncDir,
    /// A file was made shorter.
    Truncate { inode: Inode, size: u64 },
    /// A part of a file was written.
    Write {
        inode: Inode,
        offset: u64,
        bytes: Arc<[u8]>,
    },
}

/// All that happened to a disk, in its order.
#[derive(Clone, Debug)]
pub struct Log {
    events: Arc<[Event]>,
}

/// How often some things happened to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Writes to the database: by checkpoints, once it is in WAL mode.
    pub database_writes: usize,
    /// Removals.
    pub deletes: usize,
    /// Times that a write-ahead log was begun anew over its old content.
    pub log_restarts: usize,
    /// Times that a write-ahead log with content was emptied.
    pub log_truncations: usize,
    /// Syncs that failed.
    pub failed_syncs: usize,
    /// Syncs that succeeded.
    pub syncs: usize,
    /// Writes.
    pub writes: usize,
}

impl Log {
    pub(super) fn new(events: Vec<Event>) -> Self {
        Self {
            events: events.into(),
        }
    }

    /// Returns the number of events; a cut is possible at each number up to this.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Tells whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns the places right before and right after each sync, truncation and removal.
    #[must_use]
    pub fn boundaries(&self) -> Vec<usize> {
        let is_boundary = |event: &Event| {
            matches!(
                event,
                Event::Remove { .. } | Event::Sync { .. } | Event::SyncDir | Event::Truncate { .. }
            )
        };
        let events = self.events.iter().enumerate();
        let boundaries = events.filter(|(_, event)| is_boundary(event));
        let mut places: Vec<_> = boundaries.flat_map(|(at, _)| [at, at + 1]).collect();
        places.dedup();
        places
    }

    /// Returns the places right before each sync that succeeds, or that fails: all that it would make
    /// durable is at stake there.
    #[must_use]
    pub fn syncs(&self, succeeding: bool) -> Vec<usize> {
        let is_wanted = |event: &Event| match event {
            Event::Sync { is_done, .. } => *is_done == succeeding,
            _ => false,
        };
        let events = self.events.iter().enumerate();
        let syncs = events.filter(|(_, event)| is_wanted(event));
        syncs.map(|(at, _)| at).collect()
    }

    /// Counts what happened.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        let mut logs: BTreeMap<Inode, u64> = BTreeMap::new();
        let mut databases = Vec::new();
        for event in self.events.iter() {
            match event {
                Event::Create { inode, name } | Event::Found { inode, name, .. } => {
                    match Part::of(name) {
                        Part::Database => databases.push(*inode),
                        Part::Journal => {}
                        Part::Log => drop(logs.insert(*inode, 0)),
                    }
                }
                Event::Remove { .. } => summary.deletes += 1,
                Event::Sync { is_done, .. } => {
                    summary.syncs += usize::from(*is_done);
                    summary.failed_syncs += usize::from(!*is_done);
                }
                Event::SyncDir => {}
                Event::Truncate { inode, size } => {
                    if let Some(end) = logs.get_mut(inode) {
                        summary.log_truncations += usize::from(*end > 0 && *size == 0);
                        *end = *size;
                    }
                }
                Event::Write {
                    inode,
                    offset,
                    bytes,
                } => {
                    summary.writes += 1;
                    summary.database_writes += usize::from(databases.contains(inode));
                    if let Some(end) = logs.get_mut(inode) {
                        // The header alone is followed by a sync, not by a restart.
                        let is_header = *offset == 0 && (bytes.len() as u64) < SECTOR_BYTES;
                        summary.log_restarts += usize::from(is_header && *end > bytes.len() as u64);
                        *end = (*end).max(offset + bytes.len() as u64);
                    }
                }
            }
        }
        summary
    }

    /// Starts at the beginning, with dice that decide what is lost.
    #[must_use]
    pub fn replay(&self, dice: Dice) -> Replay<'_> {
        Replay {
            log: self,
            at: 0,
            dice,
            files: BTreeMap::new(),
            names: Names::default(),
            losses: Losses::default(),
        }
    }

    /// Returns what may be left of a disk that lost its power after the first `at` events.
    #[must_use]
    pub fn cut(&self, at: usize, dice: Dice) -> Image {
        let mut replay = self.replay(dice);
        replay.forward(at);
        replay.cut()
    }
}

/// Goes through a log once, for cuts at places that do not fall.
///
/// What a failed sync lost is decided when it is met, and then the same for all cuts behind it.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    log: &'a Log,
    at: usize,
    dice: Dice,
    files: BTreeMap<Inode, File>,
    names: Names,
    /// What failed syncs did so far.
    losses: Losses,
}

/// A file: what is durable of it, and what may come to be.
#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// Not durable yet, each with its place in the log.
    pending: Vec<(usize, Change)>,
    /// What programs see that have not lost power.
    seen: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Change {
    Truncate(u64),
    Write(u64, Arc<[u8]>),
}

/// The directory.
#[derive(Clone, Debug, Default)]
struct Names {
    durable: BTreeMap<String, Inode>,
    /// What each name is to mean, in order.
    pending: Vec<(String, Option<Inode>)>,
}

/// What became of the changes that were not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Came through whole.
    pub kept: usize,
    /// Came to nothing.
    pub lost: usize,
    /// Came through in part.
    pub torn: usize,
}

/// The files of a disk, by name.
#[derive(Clone, Debug)]
pub struct Image {
    files: BTreeMap<String, Vec<u8>>,
    /// What became of the changes that were not synced at the cut.
    pub losses: Losses,
}

impl Image {
    /// Writes the files into a directory.
    /// # Errors
    /// As the system says.
    pub fn write_to(&self, directory: &Path) -> io::Result<()> {
        let mut files = self.files.iter();
        files.try_for_each(|(name, bytes)| fs::write(directory.join(name), bytes))
    }

    /// Returns a file's content.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// Tells whether the files are those of `other`.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl Replay<'_> {
    /// Returns what failed syncs on the way lost.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.losses
    }

    /// Goes on to where `to` events have happened.
    pub fn forward(&mut self, to: usize) {
        assert!(self.at <= to, "a replay only goes on");
        for at in self.at..to {
            self.step(at);
        }
        self.at = to;
    }

    fn step(&mut self, at: usize) {
        match &self.log.events[at] {
            Event::Create { inode, name } => {
                self.files.insert(*inode, File::default());
                self.names.pending.push((name.clone(), Some(*inode)));
            }
            Event::Found { inode, name, bytes } => {
                let file = File {
                    durable: bytes.to_vec(),
                    pending: Vec::new(),
                    seen: bytes.to_vec(),
                };
                self.files.insert(*inode, file);
                self.names.durable.insert(name.clone(), *inode);
            }
            Event::Remove { name } => self.names.pending.push((name.clone(), None)),
            Event::SyncDir => self.names.sync(),
            Event::Sync {
                inode,
                began,
                is_done,
            } => {
                let dice = &mut self.dice;
                let file = self.files.get_mut(inode).expect("it was made");
                file.sync(*began, *is_done, dice, &mut self.losses);
            }
            Event::Truncate { inode, size } => self.change(*inode, at, Change::Truncate(*size)),
            Event::Write {
                inode,
                offset,
                bytes,
            } => self.change(*inode, at, Change::Write(*offset, Arc::clone(bytes))),
        }
    }

    fn change(&mut self, inode: Inode, at: usize, change: Change) {
        let file = self.files.get_mut(&inode).expect("it was made");
        change.apply(&mut file.seen);
        file.pending.push((at, change));
    }

    /// Returns the files as a process sees them that was killed here, without a loss of power.
    #[must_use]
    pub fn kill(&self) -> Image {
        let mut names = self.names.clone();
        names.sync();
        let content = |inode: &Inode| self.files[inode].seen.clone();
        Image {
            files: names
                .durable
                .iter()
                .map(|(n, i)| (n.clone(), content(i)))
                .collect(),
            losses: Losses::default(),
        }
    }

    /// Returns what may be left after a loss of power here: another one each time.
    pub fn cut(&mut self) -> Image {
        let mut losses = Losses::default();
        let mut files = BTreeMap::new();
        for (name, inode) in self.names.cut(&mut self.dice) {
            let file = &self.files[&inode];
            let mut bytes = file.durable.clone();
            let pending = file.pending.iter().map(|(_, change)| change);
            settle(
                &mut bytes,
                &pending.collect::<Vec<_>>(),
                &mut self.dice,
                &mut losses,
            );
            files.insert(name, bytes);
        }
        Image { files, losses }
    }
}

impl Names {
    fn sync(&mut self) {
        for (name, inode) in self.pending.drain(..) {
            match inode {
                Some(inode) => self.durable.insert(name, inode),
                None => self.durable.remove(&name),
            };
        }
    }

    /// Lets each name have gone through some of its changes, in their order.
    fn cut(&self, dice: &mut Dice) -> BTreeMap<String, Inode> {
        let mut names = self.durable.clone();
        let mut stopped: Vec<&str> = Vec::new();
        for (name, inode) in &self.pending {
            if stopped.contains(&name.as_str()) {
                continue;
            }
            if dice.chance(40) {
                stopped.push(name);
                continue;
            }
            match inode {
                Some(inode) => names.insert(name.clone(), *inode),
                None => names.remove(name),
            };
        }
        names
    }
}

impl File {
    /// Makes durable what was pending at `began`, or lets any part of it be lost for good.
    fn sync(&mut self, began: usize, is_done: bool, dice: &mut Dice, losses: &mut Losses) {
        let (before, after) = self.pending.drain(..).partition(|(at, _)| *at < began);
        self.pending = after;
        let before: Vec<(usize, Change)> = before;
        let changes: Vec<_> = before.iter().map(|(_, change)| change).collect();
        if is_done {
            for change in changes {
                change.apply(&mut self.durable);
            }
        } else {
            settle(&mut self.durable, &changes, dice, losses);
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Truncate(size) => bytes.resize(index(*size), 0),
            Self::Write(offset, content) => {
                put(bytes, *offset, content);
            }
        }
    }

    /// Applies what comes through by `keeps`, which is asked for each sector.
    fn settle(&self, bytes: &mut Vec<u8>, mut keeps: impl FnMut() -> bool) -> Fate {
        match self {
            Self::Truncate(size) if keeps() => {
                bytes.resize(index(*size), 0);
                Fate::Kept
            }
            Self::Truncate(_) => Fate::Lost,
            Self::Write(offset, content) => {
                let (mut kept, mut lost) = (0, 0);
                for part in sectors(*offset, content.len()) {
                    if keeps() {
                        put(bytes, offset + part.start as u64, &content[part]);
                        kept += 1;
                    } else {
                        lost += 1;
                    }
                }
                match (kept, lost) {
                    (_, 0) => Fate::Kept,
                    (0, _) => Fate::Lost,
                    _ => Fate::Torn,
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// Applies some of the changes. A sector ends as any of its versions, and the file at any length.
///
/// The ways are those of disks, and those that are hardest on a log: everything but one sector, the
/// later without the earlier.
fn settle(bytes: &mut Vec<u8>, changes: &[&Change], dice: &mut Dice, losses: &mut Losses) {
    let way = dice.below(8);
    let chosen = dice.below(changes.len().max(1));
    for (number, change) in changes.iter().enumerate() {
        let whole = dice.chance(50);
        let hole = dice.below(9);
        let mut sector = 0;
        let fate = change.settle(bytes, || {
            sector += 1;
            match way {
                0 => false,
                1 => true,
                2 => whole,
                3 => dice.chance(50),
                4 => number < chosen || (number == chosen && dice.chance(50)),
                5 => number > chosen || (number == chosen && dice.chance(50)),
                6 => number != chosen,
                _ => number != chosen || sector != hole + 1,
            }
        });
        match fate {
            Fate::Kept => losses.kept += 1,
            Fate::Lost => losses.lost += 1,
            Fate::Torn => losses.torn += 1,
        }
        // The new length may come through without the content.
        if let Change::Write(offset, content) = change
            && dice.chance(10)
        {
            let end = index(offset + content.len() as u64);
            if way != 0 && end > bytes.len() {
                bytes.resize(end, 0);
            }
        }
    }
}

/// Splits a write where sectors end.
fn sectors(offset: u64, length: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == length {
            return None;
        }
        let left = SECTOR_BYTES - (offset + start as u64) % SECTOR_BYTES;
        let part = start..length.min(start + index(left));
        start = part.end;
        Some(part)
    })
}

fn put(bytes: &mut Vec<u8>, offset: u64, content: &[u8]) {
    let start = index(offset);
    let end = start + content.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(content);
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("files of tests fit into memory")
}
