use kitbag_testkit::dice::Dice;

use super::*;

fn user(number: usize) -> UserId {
    UserId::parse(format!("@{number:05}:x")).unwrap()
}

fn device(number: usize) -> DeviceId {
    DeviceId::parse(format!("D{number:05}")).unwrap()
}

fn these(numbers: impl IntoIterator<Item = usize>) -> Ended {
    Ended::these(numbers.into_iter().map(device))
}

/// A ledger and a user of its own.
fn ledger() -> (Ledger, UserId) {
    (Ledger::default(), user(0))
}

#[test]
fn an_end_keeps_its_device_waiting_until_it_is_known_what_became_of_it() {
    let (mut ledger, user) = ledger();
    for (became, expected) in [
        (Became::Nothing, Standing::Free),
        (Became::MayBeOwed, Standing::Free),
        (Became::Owed, Standing::Owed),
    ] {
        let number = ledger.begin(&user, these([1]), None);
        assert_eq!(ledger.standing(&user, &device(1)), Standing::Ending);
        assert_eq!(ledger.standing(&user, &device(2)), Standing::Free);
        ledger.finish(&user, number, became, 0);
        assert_eq!(ledger.standing(&user, &device(1)), expected, "{became:?}");
    }
    ledger.add(&user, &Ended::all_but(Some(device(3))), true, 0);
    assert_eq!(ledger.standing(&user, &device(2)), Standing::Owed);
    assert_eq!(ledger.standing(&user, &device(3)), Standing::Free);
    let (mut ledger, user) = self::ledger();
    let ended = these([1, 3]).and(Ended::others());
    ledger.begin(&user, ended, Some(device(3)));
    for (number, expected) in [
        (1, Standing::Ending),
        (2, Standing::Ending),
        (3, Standing::Free),
    ] {
        assert_eq!(ledger.standing(&user, &device(number)), expected);
    }
    ledger.add(&user, &Ended::all(), true, 0);
    assert_eq!(ledger.standing(&user, &device(2)), Standing::Owed);
}

#[test]
fn what_is_added_while_a_debt_is_paid_stays() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these([1, 2]), true, 0);
    let debt = ledger.of(&user, 0).unwrap();
    ledger.add(&user, &these([2]), true, 0);
    ledger.settle(&user, &debt, |_| true, 0);
    assert_eq!(ledger.standing(&user, &device(1)), Standing::Free);
    assert_eq!(ledger.standing(&user, &device(2)), Standing::Owed);
    let debt = ledger.of(&user, 0).unwrap();
    ledger.settle(&user, &debt, |_| true, 0);
    assert!(ledger.is_empty());
}

#[test]
fn what_may_have_ended_is_looked_at_until_nothing_can_be_under_way() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these([1, 2]), false, 0);
    let debt = ledger.of(&user, 0).unwrap();
    assert_eq!(debt.parts(), [Ended::default(), these([1, 2])]);
    ledger.settle(&user, &debt, |lives| *lives == device(1), LATE_MS - 1);
    assert!(ledger.due(&user, LATE_MS).is_none(), "not again so soon");
    let debt = ledger.of(&user, LATE_MS - 1).unwrap();
    assert_eq!(debt.parts(), [Ended::default(), these([1])]);
    // It lived as it was asked for, and may have ended since.
    ledger.settle(&user, &debt, |_| true, LATE_MS);
    let debt = ledger.of(&user, LATE_MS).unwrap();
    ledger.settle(&user, &debt, |_| true, LATE_MS);
    assert!(ledger.is_empty());
    // What ended for sure does not become less so; of all, those did that are not there.
    ledger.add(&user, &these([1]), true, 0);
    ledger.add(&user, &these([1]), false, 0);
    for all in [Ended::all(), Ended::all_but(Some(device(7)))] {
        ledger.add(&user, &all, false, 0);
    }
    let parts = ledger.of(&user, 0).unwrap().parts();
    assert_eq!(parts, [these([1]), Ended::others()]);
}

#[test]
fn what_failed_rests_and_is_given_up_after_a_day_each_by_its_own_time() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these([1]), true, 0);
    let fail = |ledger: &mut Ledger, is_late, now_ms| {
        let debt = ledger.of(&user, now_ms).unwrap();
        ledger.failed(&user, &debt, is_late, now_ms);
    };
    // However long nobody tries.
    let start = 2 * FAILING_MS_MAX;
    fail(&mut ledger, false, start);
    assert!(ledger.of(&user, start).is_some(), "at a login");
    assert!(ledger.due(&user, start + PAUSE_MS - 1).is_none());
    assert!(ledger.due(&user, start + PAUSE_MS).is_some());
    fail(&mut ledger, true, start);
    assert!(ledger.of(&user, start + LATE_MS - 1).is_none());
    assert!(ledger.of(&user, start + LATE_MS).is_some());
    let late = start + FAILING_MS_MAX - 1;
    let hourly = UNTRIED_MS_MAX - 1;
    for hour in 1..=FAILING_MS_MAX / hourly {
        fail(&mut ledger, false, start + hour * hourly);
    }
    ledger.add(&user, &these([2]), true, late);
    assert!(ledger.due(&user, late).is_some());
    fail(&mut ledger, false, late);
    assert_eq!(ledger.failing(), 2);
    fail(&mut ledger, false, late + 1);
    assert_eq!(ledger.standing(&user, &device(1)), Standing::Free);
    assert_eq!(ledger.standing(&user, &device(2)), Standing::Owed);
    assert_eq!((ledger.failing(), ledger.take_lost()), (1, 1));
}

#[test]
fn what_nobody_tried_for_an_hour_did_not_fail_all_the_while() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these([1]), true, 0);
    for now_ms in [0, FAILING_MS_MAX, FAILING_MS_MAX + UNTRIED_MS_MAX] {
        let debt = ledger.of(&user, now_ms).unwrap();
        ledger.failed(&user, &debt, false, now_ms);
    }
    assert_eq!(ledger.standing(&user, &device(1)), Standing::Owed);
    assert_eq!((ledger.failing(), ledger.take_lost()), (1, 0));
}

#[test]
fn there_are_bounds_to_one_user_and_to_all() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these(0..OWED_TO_ONE_MAX), true, 0);
    ledger.add(&user, &these([OWED_TO_ONE_MAX]), true, 0);
    assert_eq!(ledger.standing(&user, &device(0)), Standing::Free);
    assert_eq!(ledger.standing(&user, &device(1)), Standing::Owed);
    let [_, gone] = ledger.of(&user, 0).unwrap().parts();
    assert_eq!(gone, Ended::others());
    ledger.add(&self::user(1), &these(0..100_000), true, 0);
    let [sure, gone] = ledger.of(&self::user(1), 0).unwrap().parts();
    assert_eq!(sure.devices().count(), OWED_TO_ONE_MAX);
    assert_eq!(gone, Ended::others());
    for number in 2..OWED_MAX {
        ledger.add(&self::user(number), &these([1]), true, 0);
    }
    assert_eq!(ledger.order.len(), OWED_MAX);
    assert_eq!(ledger.lost, 2 * OWED_TO_ONE_MAX);
    assert!(!ledger.knows(&user), "the oldest falls");
}

/// Devices with one ID, and the gateway before them: what it may do is asked of the ledger.
#[derive(Default)]
struct World {
    ledger: Ledger,
    /// The number of the device that lives.
    lives: Option<u64>,
    /// Whose write is stored.
    stored: Option<u64>,
    /// Numbers given.
    given: u64,
    /// Those that ended for sure, or of which nobody told.
    told: BTreeSet<u64>,
    /// Ends on their way: the number, and which device they ended.
    ending: Vec<(u64, Option<u64>, Step)>,
    paying: Option<(Debt, Look)>,
    now_ms: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Sent,
    Done,
    Refused,
}

#[derive(Clone, Copy)]
enum Look {
    Asked,
    /// Whether it lived.
    Told(bool),
    Emptied(bool),
}

impl World {
    fn standing(&self) -> Standing {
        self.ledger.standing(&user(0), &device(0))
    }

    /// A device logs in; where one lives, it is the same.
    fn log_in(&mut self) {
        if self.lives.is_none() {
            self.given += 1;
            self.lives = Some(self.given);
        }
    }

    fn write(&mut self) {
        // Writes share a turn, which payments do not.
        if self.paying.is_none() && self.standing() == Standing::Free && self.lives.is_some() {
            self.stored = self.lives;
        }
    }

    fn read(&self) {
        if self.paying.is_none() && self.standing() == Standing::Free && self.lives.is_some() {
            let ended = self.stored.filter(|number| self.told.contains(number));
            assert_eq!(ended, None, "the entry of a device that ended");
        }
    }

    fn end(&mut self, dice: &mut Dice) {
        match dice.below(4) {
            0 if self.ending.len() < 3 => {
                let number = self.ledger.begin(&user(0), these([0]), None);
                self.ending.push((number, None, Step::Sent));
            }
            1 | 2 if !self.ending.is_empty() => {
                let at = dice.below(self.ending.len());
                if self.ending[at].2 != Step::Sent {
                    return;
                }
                match dice.chance(70) {
                    true => {
                        self.ending[at].1 = self.lives.take();
                        self.ending[at].2 = Step::Done;
                    }
                    false => self.ending[at].2 = Step::Refused,
                }
            }
            _ if !self.ending.is_empty() => {
                let at = dice.below(self.ending.len());
                if self.ending[at].2 == Step::Sent {
                    return;
                }
                let (number, ended, step) = self.ending.swap_remove(at);
                let became = match step {
                    Step::Done if dice.chance(80) => Became::Owed,
                    Step::Refused if dice.chance(80) => Became::Nothing,
                    _ => Became::MayBeOwed,
                };
                if became == Became::Owed {
                    self.told.extend(ended);
                }
                self.ledger.finish(&user(0), number, became, self.now_ms);
            }
            _ => {}
        }
    }

    /// One step of a payment, alone.
    fn pay(&mut self, dice: &mut Dice) {
        let Some((debt, look)) = self.paying.take() else {
            let debt = self.ledger.of(&user(0), self.now_ms);
            self.paying = debt.map(|debt| (debt, Look::Asked));
            return;
        };
        if dice.chance(15) {
            let is_late = dice.chance(50);
            self.ledger.failed(&user(0), &debt, is_late, self.now_ms);
            return;
        }
        let look = match look {
            Look::Asked => Look::Told(self.lives.is_some()),
            Look::Told(lived) => {
                let [sure, gone] = debt.parts();
                let may_be = gone.has(&device(0)) || gone.contains(&Whose::Others);
                if sure.has(&device(0)) || (may_be && !lived) {
                    let lost = self.stored.take();
                    let is_own = lost.is_some() && lost == self.lives;
                    // What is asked to end may lose its entries.
                    let is_ending = self.standing() == Standing::Ending;
                    assert!(!is_own || is_ending, "what a living device wrote is lost");
                }
                Look::Emptied(lived)
            }
            Look::Emptied(lived) => {
                self.ledger.settle(&user(0), &debt, |_| lived, self.now_ms);
                return;
            }
        };
        self.paying = Some((debt, look));
    }
}

/// Ends take no turn here, as where it did not come in time: the ledger alone keeps what is right.
#[test]
fn whatever_the_order_nothing_that_ended_is_read_and_nothing_that_lives_is_lost() {
    for seed in 0..2_000 {
        let mut dice = Dice::new(seed);
        let mut world = World::default();
        for _ in 0..600 {
            match dice.below(10) {
                0 => world.log_in(),
                1 | 2 => world.write(),
                3 | 4 => world.read(),
                5..8 => world.end(&mut dice),
                8 => world.pay(&mut dice),
                _ => world.now_ms += dice.draw() % 5_000,
            }
        }
        let is_used = world.given > 5 && !world.told.is_empty();
        assert!(is_used, "nothing was tried with the seed {seed}");
    }
}
