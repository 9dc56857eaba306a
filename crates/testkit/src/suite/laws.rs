use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kitbag_domain::Requester;
use proptest::collection::vec;
use proptest::prelude::{Strategy as _, any};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, block_in_place};

use crate::Opener;
use crate::dice::Dice;
use crate::driver::{Mind, World};
use crate::history::{Event, History, Tally};
use crate::ops::{Rare, Since, Step, USERS, small_limits};
use crate::oracle;
use crate::outside;
use crate::settings;

/// How long a waiting sync may wait; it waits this long only where a wake-up was lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much is run: a few seconds, or with `KITBAG_TEST_LONG=1` some minutes.
struct Extent {
    sequential: u32,
    concurrent: u64,
}

fn extent() -> Extent {
    if settings::is_long() {
        Extent {
            sequential: 4_000,
            concurrent: 600,
        }
    } else {
        Extent {
            sequential: 60,
            concurrent: 10,
        }
    }
}

/// One caller at a time: every answer is the model's. A failure is made small.
pub async fn sequential_histories_are_those_of_the_model(open: Opener) {
    let seed = settings::seed().unwrap_or(1);
    let config = Config {
        cases: extent().sequential,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let rare = Rare {
        deactivation: true,
        ticks: true,
    };
    let step = any::<u64>()
        .no_shrink()
        .prop_map(move |seed| Step::draw(&mut Dice::new(seed), rare));
    let tally = std::cell::RefCell::new(Tally::default());
    let outcome = runner.run(&vec(step, 1..160), |steps| {
        let run = run_in_turn(&open, &steps);
        let history = block_in_place(|| Handle::current().block_on(run));
        tally.borrow_mut().count(&history);
        oracle::check(&history).map_err(|v| TestCaseError::fail(v[0].to_string()))?;
        outside::check(&history).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Abort(why)) => unreachable!("nothing is left out: {why}"),
        Err(TestError::Fail(why, steps)) => {
            let steps: Vec<String> = steps.iter().map(|step| format!("{step:?}")).collect();
            let steps = steps.join("\n");
            unreachable!("KITBAG_TEST_SEED={seed}: {why}, after\n{steps}");
        }
    }
    expect_eventful(&tally.into_inner(), false);
}

async fn run_in_turn(open: &Opener, steps: &[Step]) -> History {
    let limits = small_limits(4);
    let fixture = open.open_with(limits.clone()).await;
    let world = World::new(fixture.store(), limits.clone()).await;
    let mut mind = Mind::default();
    let mut events = Vec::new();
    for step in steps {
        events.extend(world.run(step, &mut mind, None).await);
        // Every step is looked at: by its own user, and by the other whom it must not touch.
        for user in 0..USERS {
            events.push(world.sync(user, Since::Latest, &mut mind).await);
        }
    }
    History { limits, events }
}

/// Many callers at once: what was acknowledged and what was read fit together by the laws.
pub async fn concurrent_histories_obey_the_laws(open: Opener) {
    let seeds = match settings::seed() {
        Some(seed) => seed..seed + 1,
        None => 0..extent().concurrent,
    };
    let mut tally = Tally::default();
    for seed in seeds.clone() {
        let history = run_at_once(&open, seed).await;
        tally.count(&history);
        let verdict = block_in_place(|| oracle::check(&history));
        if let Err(violations) = verdict {
            let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
            let user = &violations[0].event.user;
            let whole = history.of(user);
            unreachable!("KITBAG_TEST_SEED={seed}: {}, in\n{whole}", told.join("\n"));
        }
        if let Err(why) = block_in_place(|| outside::check(&history)) {
            unreachable!("KITBAG_TEST_SEED={seed}: {why}");
        }
    }
    if seeds.end - seeds.start > 1 {
        expect_eventful(&tally, true);
    }
}

/// Callers of a concurrent history, and what each does.
const CALLERS: u64 = 8;
const STEPS: usize = 50;

async fn run_at_once(open: &Opener, seed: u64) -> History {
    // Sometimes few tombstones are kept, so that chains of tokens fall behind the horizon.
    let limits = small_limits(if seed % 3 == 2 { 3 } else { 1_000 });
    let fixture = open.open_with(limits.clone()).await;
    let world = Arc::new(World::new(fixture.store(), limits.clone()).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut waiters = JoinSet::new();
    for user in 0..USERS {
        waiters.spawn(wait_along(Arc::clone(&world), user, Arc::clone(&is_over)));
    }
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let dice = Dice::new(seed * CALLERS + caller);
        callers.spawn(call_along(Arc::clone(&world), dice));
    }
    let mut events = callers.join_all().await.concat();
    is_over.store(true, Ordering::SeqCst);
    for user in 0..USERS {
        events.push(world.remove_all(user).await);
    }
    events.extend(waiters.join_all().await.concat());
    for user in 0..USERS {
        events.extend(world.final_word(user).await);
    }
    History { limits, events }
}

async fn call_along(world: Arc<World>, mut dice: Dice) -> Vec<Event> {
    let mut mind = Mind::default();
    let mut events = Vec::new();
    for _ in 0..STEPS {
        let step = Step::draw(&mut dice, Rare::default());
        let patience = dice.chance(4).then(|| dice.below(4));
        events.extend(world.run(&step, &mut mind, patience).await);
    }
    events
}

/// A long poll (law 3): subscribes, reads, waits. The last change must wake it, or it never ends.
async fn wait_along(world: Arc<World>, user: usize, is_over: Arc<AtomicBool>) -> Vec<Event> {
    let requester = Requester {
        user: world.users()[user].clone(),
        device: None,
        user_agent: None,
    };
    let mut subscription = world.service().subscribe(&requester);
    let mut mind = Mind::default();
    let mut events = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        events.push(world.sync(user, Since::Latest, &mut mind).await);
        let woken = tokio::time::timeout(PATIENCE, subscription.changed()).await;
        assert!(woken.is_ok(), "a wake-up was lost");
    }
    events.push(world.sync(user, Since::Latest, &mut mind).await);
    events
}

/// A run without conflicts, deaths and refusals would show nothing.
fn expect_eventful(tally: &Tally, concurrent: bool) {
    let occurred = [
        tally.writes > 200,
        tally.swaps > 20,
        tally.conflicts > 5,
        tally.quota > 5,
        tally.managed > 5,
        tally.not_own > 5,
        tally.no_device > 5,
        tally.session_gone > 2,
        tally.deaths > 10,
        tally.tombstones > 20,
        tally.past_horizon > 0,
        tally.edits > 5,
        tally.erasures > 5,
        tally.full_states > 20,
        tally.refreshes > 2,
        (tally.overlaps > 100) == concurrent,
        (tally.unknown > 5) == concurrent,
        (tally.deactivations > 0) != concurrent,
    ];
    assert!(occurred.iter().all(|occurred| *occurred), "{tally:?}");
}
