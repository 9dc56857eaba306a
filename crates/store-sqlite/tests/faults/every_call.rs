//! A fault at every call of the load, of each kind, once and lasting.

use std::thread;

use kitbag_testkit::dice::Dice;
use kitbag_testkit::disk::{Call, Error, Fault};
use kitbag_testkit::settings;

use crate::load::{Figures, Load};

/// Calls between two that fail, in the short form.
const STRIDE: u64 = 48;
/// Loads at a time: they mostly wait for threads and for directories to be synced.
const WORKERS: usize = 6;

fn kinds() -> [(&'static str, Fault); 6] {
    let broken = Fault {
        call: None,
        ..Fault::next(Call::Write, Error::Io)
    };
    let full = Fault::next(Call::Write, Error::NoSpace);
    let unsynced = Fault::next(Call::Sync, Error::Io);
    [
        ("any call, once", broken),
        ("any call, lasting", broken.lasting()),
        ("full, once", full),
        ("full, lasting", full.lasting()),
        ("half a write", Fault::next(Call::Write, Error::ShortWrite)),
        ("sync, lasting", unsynced.lasting()),
    ]
}

#[tokio::test]
async fn without_a_fault_nothing_fails() {
    let seen = Load::new(None).run().await;
    assert!(seen.calls > 300, "{seen:?}");
    let Figures {
        faults,
        openings_failed,
        unavailable,
        unknown,
        reads_failed,
        calls: _,
    } = seen;
    let failed = faults + openings_failed + unavailable + unknown + reads_failed;
    assert_eq!(failed, 0, "{seen:?}");
}

/// Runs the load with a fault at some calls; returns what was met, and in how many runs.
fn run_some(fault: Fault, calls: impl Iterator<Item = u64>) -> (u64, Figures) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let (mut runs, mut total) = (0, Figures::default());
    for nth in calls {
        let seen = runtime.block_on(Load::new(Some(fault.nth(nth))).run());
        // Behind the last call there is nothing to fail.
        if seen.faults == 0 {
            break;
        }
        runs += 1;
        total = total + seen;
    }
    (runs, total)
}

#[test]
fn a_fault_at_any_call_loses_nothing_and_passes() {
    let seed = settings::seed().unwrap_or(1);
    let mut dice = Dice::new(seed);
    let mut all = Figures::default();
    for (name, fault) in kinds() {
        let stride = match fault.call {
            _ if settings::is_long() => 1,
            // There are fewer of them.
            Some(Call::Sync) => STRIDE / 8,
            _ => STRIDE,
        };
        let first = 1 + dice.draw() % stride;
        let (runs, total) = thread::scope(|scope| {
            let workers = (0..WORKERS).map(|worker| {
                let calls = (first..).step_by(usize::try_from(stride).unwrap());
                scope.spawn(move || run_some(fault, calls.skip(worker).step_by(WORKERS)))
            });
            let workers: Vec<_> = workers.collect();
            let results = workers.into_iter().map(|worker| {
                let failed = |_| panic!("{name}: run it again with KITBAG_TEST_SEED={seed}");
                worker.join().unwrap_or_else(failed)
            });
            let add = |(runs, total), (more, seen)| (runs + more, total + seen);
            results.fold((0, Figures::default()), add)
        });
        assert!(runs > 0, "{name}");
        all = all + total;
    }
    let Figures {
        openings_failed,
        unavailable,
        unknown,
        reads_failed,
        ..
    } = all;
    let met = [openings_failed, unavailable, unknown, reads_failed];
    assert!(!met.contains(&0), "each was met: {all:?}");
}
