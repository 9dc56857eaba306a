//! Power cuts: what was acknowledged before is there afterwards, and what is there is sound.
//!
//! A load runs on the disk of the testkit, which logs what SQLite writes and syncs. Then the log is
//! cut, at random and around syncs and truncations; of each cut an image is made as the disk may be
//! left with, opened as at the next start, and judged.
//!
//! A seed fixes what the clients do, not how they meet: a failure keeps its image and names it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends where something is not as it should be, and tells what it did"
)]

mod facts;
mod feed;
mod judge;
mod load;

use kitbag_testkit::dice::Dice;
use kitbag_testkit::disk::{Losses, Summary};
use kitbag_testkit::settings;
use tempfile::TempDir;

use judge::Verdict;
use load::{Kind, Load};

/// Cuts of each kind of disk.
const CUTS: usize = 50;
const CUTS_LONG: usize = 500;
/// Cuts of one load: enough to make it worth its time, few enough to have several loads.
const CUTS_OF_LOAD: usize = 25;
/// Calls behind a failed sync, some ten commits.
const BEHIND_FAILURE: usize = 200;
const SEED: u64 = 1;

/// What all cuts were together, to see that they were of use.
#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    /// Images that are not what a process sees that was only killed.
    differing: usize,
    losses: Losses,
    /// Writes under way at a cut that came through, and that did not.
    survived: usize,
    vanished: usize,
    summary: Summary,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_power_cut() {
    survive(Kind::Whole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_on_a_failing_disk_survives_a_power_cut() {
    survive(Kind::Failing).await;
}

async fn survive(kind: Kind) {
    let cuts = if settings::is_long() { CUTS_LONG } else { CUTS };
    let seeds = match settings::seed() {
        Some(seed) => seed..seed + 1,
        None => SEED..SEED + (cuts / CUTS_OF_LOAD) as u64,
    };
    let mut tally = Tally::default();
    for seed in seeds.clone() {
        let load = load::run(seed, kind).await;
        cut(seed, &load, &mut tally).await;
    }
    eprintln!("{kind:?} disk, seeds {seeds:?}: {tally:#?}");
    if settings::seed().is_none() {
        tally.must_be_of_use(kind);
    }
}

async fn cut(seed: u64, load: &Load, tally: &mut Tally) {
    let mut dice = Dice::new(seed);
    let log = &load.log;
    let (boundaries, ripe, failed) = (log.boundaries(), log.syncs(true), log.syncs(false));
    let mut places: Vec<_> = (0..CUTS_OF_LOAD)
        .map(|number| match number % 5 {
            0 => boundaries[dice.below(boundaries.len())],
            1 => ripe[dice.below(ripe.len())],
            // While the log still holds what a failed sync left in it.
            2 | 3 if !failed.is_empty() => {
                let at = failed[dice.below(failed.len())] + dice.below(BEHIND_FAILURE);
                at.min(log.len())
            }
            _ => dice.below(log.len() + 1),
        })
        .collect();
    places.sort_unstable();
    let mut replay = log.replay(dice);
    for at in places {
        replay.forward(at);
        let image = replay.cut();
        let dir = directory();
        image.write_to(dir.path()).unwrap();
        let Verdict { survived, vanished } = match judge::judge(dir.path(), &load.facts, at).await {
            Ok(verdict) => verdict,
            Err(what) => {
                let dir = dir.keep();
                let length = log.len();
                unreachable!(
                    "seed {seed}, cut at {at} of {length}: {what}\nthe image is in {dir:?}; \
                     KITBAG_TEST_SEED={seed} runs the load again"
                );
            }
        };
        tally.cuts += 1;
        tally.differing += usize::from(!image.is_same(&replay.kill()));
        tally.losses.kept += image.losses.kept;
        tally.losses.lost += image.losses.lost;
        tally.losses.torn += image.losses.torn;
        tally.survived += survived;
        tally.vanished += vanished;
    }
    let Summary {
        database_writes,
        deletes,
        log_restarts,
        log_truncations,
        failed_syncs,
        syncs,
        writes,
    } = log.summary();
    let sum = &mut tally.summary;
    sum.database_writes += database_writes;
    sum.deletes += deletes;
    sum.log_restarts += log_restarts;
    sum.log_truncations += log_truncations;
    sum.failed_syncs += failed_syncs;
    sum.syncs += syncs;
    sum.writes += writes;
}

impl Tally {
    fn must_be_of_use(&self, kind: Kind) {
        let Losses { kept, lost, torn } = self.losses;
        assert!(kept > 0 && lost > 0 && torn > 0, "{self:?}");
        assert!(self.differing > self.cuts / 4, "{self:?}");
        assert!(self.survived > 0 && self.vanished > 0, "{self:?}");
        let summary = self.summary;
        assert!(summary.log_restarts > 0, "{summary:?}");
        assert!(summary.log_truncations > 0, "{summary:?}");
        assert!(summary.deletes > 0, "{summary:?}");
        assert_eq!(
            summary.failed_syncs > 0,
            kind == Kind::Failing,
            "{summary:?}"
        );
    }
}

/// Returns a directory in memory where the system has one: nothing in it is meant to last.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}
