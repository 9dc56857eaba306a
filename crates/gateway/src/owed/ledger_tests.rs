use std::collections::{BTreeSet, VecDeque};

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
        assert_eq!(ledger.standing(&user, &device(1), 0), Standing::Ending);
        assert_eq!(ledger.standing(&user, &device(2), 0), Standing::Free);
        ledger.finish(&user, number, became, false, 0);
        assert_eq!(
            ledger.standing(&user, &device(1), 0),
            expected,
            "{became:?}"
        );
    }
    ledger.add(&user, &Ended::all_but(Some(device(3))), true, 0);
    assert_eq!(ledger.standing(&user, &device(2), 0), Standing::Owed);
    assert_eq!(ledger.standing(&user, &device(3), 0), Standing::Free);
    let (mut ledger, user) = self::ledger();
    let ended = these([1, 3]).and(Ended::others());
    ledger.begin(&user, ended, Some(device(3)));
    for (number, expected) in [
        (1, Standing::Ending),
        (2, Standing::Ending),
        (3, Standing::Free),
    ] {
        assert_eq!(ledger.standing(&user, &device(number), 0), expected);
    }
    ledger.add(&user, &Ended::all(), true, 0);
    assert_eq!(ledger.standing(&user, &device(2), 0), Standing::Owed);
}

#[test]
fn what_is_added_while_a_debt_is_paid_stays() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these([1, 2]), true, 0);
    let debt = ledger.of(&user, 0).unwrap();
    ledger.add(&user, &these([2]), true, 0);
    ledger.settle(&user, &debt, |_| true, 0);
    assert_eq!(ledger.standing(&user, &device(1), 0), Standing::Free);
    assert_eq!(ledger.standing(&user, &device(2), 0), Standing::Owed);
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

/// Tries what is owed in vain.
fn fail(ledger: &mut Ledger, user: &UserId, is_late: bool, now_ms: UnixMs) {
    ledger.give_up(user, now_ms);
    if let Some(debt) = ledger.of(user, now_ms) {
        ledger.failed(user, &debt, is_late, now_ms);
    }
}

#[test]
fn what_failed_rests_for_longer_each_time() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these([1]), true, 0);
    let mut now_ms = 1;
    for (failures, pause_ms) in (0..).zip([30_000, 60_000, 120_000, 240_000, 300_000, 300_000]) {
        assert_eq!(ledger.due(&user, now_ms).unwrap().failures(), failures);
        fail(&mut ledger, &user, false, now_ms);
        assert!(ledger.of(&user, now_ms).is_some(), "at a login");
        assert!(ledger.due(&user, now_ms + pause_ms - 1).is_none());
        now_ms += pause_ms;
    }
    fail(&mut ledger, &user, false, now_ms);
    ledger.add(&user, &Ended::default(), true, now_ms);
    assert!(ledger.due(&user, now_ms).is_none(), "nothing was added");
    ledger.add(&user, &these([2]), true, now_ms);
    let debt = ledger.due(&user, now_ms).unwrap();
    assert_eq!(debt.failures(), 0, "by other credentials it may go");
    // What is left of it is no failure, and waits as long.
    ledger.failed(&user, &debt, false, now_ms);
    ledger.add(&user, &these([3]), false, now_ms);
    let debt = ledger.of(&user, now_ms).unwrap();
    ledger.settle(&user, &debt, |_| true, now_ms);
    assert!(ledger.due(&user, now_ms + PAUSE_MS - 1).is_none());
    let debt = ledger.due(&user, now_ms + PAUSE_MS).unwrap();
    assert_eq!(debt.failures(), 0);
}

#[test]
fn behind_what_may_come_late_nothing_is_tried_nor_written_by_whom_it_may_mean() {
    let late = |ended: &Ended| {
        let (mut ledger, user) = ledger();
        ledger.add(&user, ended, false, 0);
        fail(&mut ledger, &user, true, 0);
        (ledger, user)
    };
    for (ended, other) in [
        (these([1]), Standing::Free),
        (Ended::others(), Standing::Ending),
        (Ended::all(), Standing::Ending),
    ] {
        let (mut ledger, user) = late(&ended);
        // One that fails for sure does not take the late one back.
        let debt = ledger.of(&user, LATE_MS).unwrap();
        ledger.failed(&user, &debt, false, LATE_MS - 1);
        let at = |number, now_ms| ledger.standing(&user, &device(number), now_ms);
        assert_eq!(at(1, LATE_MS - 1), Standing::Ending);
        assert_eq!(at(2, LATE_MS - 1), other, "{ended:?}");
        assert_eq!(at(1, LATE_MS), Standing::Free);
        assert!(ledger.of(&user, LATE_MS - 1).is_none());
        assert!(ledger.of(&user, LATE_MS).is_some());
    }
    let (mut ledger, user) = ledger();
    let number = ledger.begin(&user, these([1]), None);
    ledger.finish(&user, number, Became::MayBeOwed, true, 0);
    assert_eq!(ledger.standing(&user, &device(1), 0), Standing::Ending);
    ledger.add_late(&user, &these([2]), 1);
    assert_eq!(ledger.standing(&user, &device(2), 1), Standing::Owed);
    assert!(ledger.of(&user, LATE_MS).is_none());
    ledger.add_late(&self::user(1), &Ended::default(), 1);
    assert!(!ledger.knows(&self::user(1)));
}

#[test]
fn what_fails_for_a_day_is_given_up_each_by_its_own_time() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these([1]), true, 0);
    // However long nobody tries before.
    let start = 2 * FAILING_MS_MAX;
    let hour = |number: u32| start + u64::from(number) * FAILING_PERIOD_MS;
    for number in 0..FAILURES_MAX - 1 {
        for minute in 0..60 {
            fail(&mut ledger, &user, false, hour(number) + minute * 60_000);
        }
        // Who ends again is not shut out anew.
        ledger.add(&user, &these([1]), true, hour(number));
    }
    ledger.add(&user, &these([2]), true, hour(22));
    assert_eq!(ledger.failing(), 1);
    fail(&mut ledger, &user, true, hour(23));
    assert_eq!(ledger.failing(), 2);
    // Else what comes late would be on what is written then.
    ledger.give_up(&user, hour(23) + LATE_MS - 1);
    let at = |ledger: &Ledger, number| ledger.standing(&user, &device(number), hour(24));
    assert_eq!(at(&ledger, 1), Standing::Owed);
    ledger.give_up(&user, hour(23) + LATE_MS);
    assert_eq!(at(&ledger, 1), Standing::Free);
    assert_eq!(at(&ledger, 2), Standing::Owed);
    assert_eq!((ledger.failing(), ledger.take_lost()), (1, 1));
}

#[test]
fn what_fails_now_and_then_is_given_up_after_a_week() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these([1]), true, 0);
    for days in 0..=7 {
        assert!(ledger.knows(&user), "{days}");
        fail(&mut ledger, &user, false, 1 + days * FAILING_MS_MAX / 7);
    }
    // A clock that goes back does not make it long.
    let (mut back, other) = self::ledger();
    back.add(&other, &these([1]), true, 0);
    fail(&mut back, &other, false, FAILING_MS_MAX);
    fail(&mut back, &other, false, 0);
    fail(&mut back, &other, false, 1);
    for (ledger, user, expected) in [(&mut ledger, &user, 1), (&mut back, &other, 0)] {
        ledger.give_up(user, 8 * FAILING_MS_MAX);
        assert_eq!(ledger.take_lost(), expected);
    }
}

#[test]
fn there_are_bounds_to_one_user_and_to_all() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these(0..OWED_TO_ONE_MAX), true, 0);
    ledger.add(&user, &these([OWED_TO_ONE_MAX]), true, 0);
    assert_eq!(ledger.standing(&user, &device(0), 0), Standing::Free);
    assert_eq!(ledger.standing(&user, &device(1), 0), Standing::Owed);
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
    // To nobody is more than one owed now.
    assert_eq!(ledger.counts.len(), OWED_MAX);
    assert!(ledger.knows(&user));
    ledger.add(&self::user(OWED_MAX), &these([1]), true, 0);
    assert_eq!(ledger.order.len(), OWED_MAX);
    assert!(!ledger.knows(&user), "the oldest falls");
}

#[test]
fn who_has_many_devices_end_takes_no_room_from_who_has_few() {
    let (mut ledger, user) = ledger();
    ledger.add(&user, &these([1, 2]), true, 0);
    let many = OWED_MAX / OWED_TO_ONE_MAX;
    for number in 1..=many + 1 {
        ledger.add(&self::user(number), &these(0..OWED_TO_ONE_MAX), true, 0);
    }
    assert_eq!(ledger.order.len(), OWED_MAX);
    for number in [1, 2] {
        let standing = ledger.standing(&user, &device(number), 0);
        assert_eq!(standing, Standing::Owed);
    }
    // Of those it is the oldest that fall, as much of each.
    for number in 1..=many {
        let [sure, _] = ledger.of(&self::user(number), 0).unwrap().parts();
        let left = sure.devices().count();
        assert!(left.abs_diff(OWED_MAX / (many + 1)) <= 1, "{left}");
        assert!(!sure.has(&device(0)) && sure.has(&device(OWED_TO_ONE_MAX - 1)));
    }
    // What is paid counts no more.
    for number in 0..=many + 1 {
        let user = self::user(number);
        let debt = ledger.of(&user, 0).unwrap();
        ledger.settle(&user, &debt, |_| false, 0);
    }
    assert!(ledger.counts.is_empty() && ledger.order.is_empty());
}

/// Devices with two IDs, and the gateway before them: what it may do is asked of the ledger.
#[derive(Default)]
struct World {
    ledger: Ledger,
    /// The numbers of the devices that live, by their IDs.
    lives: [Option<u64>; DEVICES],
    /// Whose write is stored, and of which step.
    stored: [Option<(u64, u64)>; DEVICES],
    /// Numbers given.
    given: u64,
    /// Those that ended for sure and were named.
    told: BTreeSet<u64>,
    ending: Vec<OnTheWay>,
    paying: Option<Payment>,
    /// What may still be emptied.
    late: Vec<Late>,
    now_ms: u64,
    step: u64,
    /// Reads and writes done after the first end.
    done: [usize; 2],
}

const DEVICES: usize = 2;

/// An end on its way.
struct OnTheWay {
    number: u64,
    asked: Ended,
    stays: Option<usize>,
    /// Devices that ended by it, of those that were named.
    ended: Vec<u64>,
    step: Step,
    /// Whether something was to be emptied beforehand that may still be.
    is_late: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Sent,
    Done,
    Refused,
}

/// What is paid, part by part.
struct Payment {
    parts: VecDeque<Debt>,
    /// The devices that lived as they were asked for.
    lived: Option<[bool; DEVICES]>,
    is_emptied: bool,
}

/// A tombstone that was sent and not answered.
struct Late {
    device: usize,
    sent: u64,
    until_ms: u64,
}

impl World {
    fn standing(&self, number: usize) -> Standing {
        self.ledger.standing(&user(0), &device(number), self.now_ms)
    }

    fn is_free(&self, number: usize) -> bool {
        // Reads and writes share a turn, which payments do not.
        let is_there = self.paying.is_none() && self.lives[number].is_some();
        is_there && self.standing(number) == Standing::Free
    }

    /// A device logs in; where one lives, it is the same.
    fn log_in(&mut self, number: usize) {
        if self.lives[number].is_none() {
            self.given += 1;
            self.lives[number] = Some(self.given);
        }
    }

    fn write(&mut self, number: usize) {
        if self.is_free(number) {
            self.stored[number] = self.lives[number].map(|own| (own, self.step));
            self.done[1] += usize::from(!self.told.is_empty());
        }
    }

    fn read(&mut self, number: usize) {
        if self.is_free(number) {
            let ended = self.stored[number].filter(|(of, _)| self.told.contains(of));
            assert_eq!(ended, None, "the entry of a device that ended");
            self.done[0] += usize::from(!self.told.is_empty());
        }
    }

    /// What ends are like, and who stays at them.
    fn asked(&self, dice: &mut Dice) -> (Ended, Option<usize>) {
        let number = dice.below(DEVICES);
        let living = (0..DEVICES).filter(|number| self.lives[*number].is_some());
        match dice.below(6) {
            0 => (Ended::all(), None),
            1 => (Ended::all_but(Some(device(number))), Some(number)),
            2 => (Ended::others(), Some(number).filter(|_| dice.chance(50))),
            // All, as far as they are known.
            3 => {
                let uncertain = self.ledger.uncertain(&user(0));
                let named = living.map(device).chain(uncertain);
                (Ended::these(named).and(Ended::others()), None)
            }
            _ => (these([number]), None),
        }
    }

    fn end(&mut self, dice: &mut Dice) {
        let at = (!self.ending.is_empty()).then(|| dice.below(self.ending.len()));
        match (dice.below(4), at) {
            (0, _) if self.ending.len() < 3 => {
                let (asked, stays) = self.asked(dice);
                let staying = stays.map(device);
                let number = self.ledger.begin(&user(0), asked.clone(), staying);
                let is_late = dice.chance(20);
                if is_late {
                    let named: Vec<_> = (0..DEVICES).filter(|it| asked.has(&device(*it))).collect();
                    self.send_late(named);
                }
                self.ending.push(OnTheWay {
                    number,
                    asked,
                    stays,
                    ended: Vec::new(),
                    step: Step::Sent,
                    is_late,
                });
            }
            (1 | 2, Some(at)) if self.ending[at].step == Step::Sent => match dice.chance(70) {
                true => self.is_done(at, dice),
                false => self.ending[at].step = Step::Refused,
            },
            (3, Some(at)) if self.ending[at].step != Step::Sent => {
                let known = dice.chance(80);
                self.finish(at, known);
            }
            _ => {}
        }
    }

    /// The homeserver ends devices.
    fn is_done(&mut self, at: usize, dice: &mut Dice) {
        let end = &mut self.ending[at];
        end.step = Step::Done;
        for number in 0..DEVICES {
            let is_named = end.asked.has(&device(number));
            let is_other = end.asked.contains(&Whose::Others) && dice.chance(50);
            if (is_named || is_other) && end.stays != Some(number) {
                let ended = self.lives[number].take();
                end.ended.extend(ended.filter(|_| is_named));
            }
        }
    }

    /// The gateway is told of an end, or is not.
    fn finish(&mut self, at: usize, known: bool) {
        let end = self.ending.swap_remove(at);
        let became = match end.step {
            Step::Done if known => Became::Owed,
            Step::Refused if known && !end.is_late => Became::Nothing,
            _ => Became::MayBeOwed,
        };
        if became == Became::Owed {
            self.told.extend(end.ended);
        }
        let (number, now_ms) = (end.number, self.now_ms);
        self.ledger
            .finish(&user(0), number, became, end.is_late, now_ms);
        // Its time began before; what is still to come is bound to this.
        self.tidy_late();
    }

    /// Tombstones are sent that nobody answers.
    fn send_late(&mut self, devices: Vec<usize>) {
        let (sent, until_ms) = (self.step, self.now_ms + LATE_MS);
        let late = devices.into_iter().map(|device| Late {
            device,
            sent,
            until_ms,
        });
        self.late.extend(late);
    }

    fn tidy_late(&mut self) {
        self.late.retain(|late| late.until_ms > self.now_ms);
    }

    /// One that was not answered is done now, or never.
    fn land(&mut self, dice: &mut Dice) {
        self.tidy_late();
        if self.late.is_empty() {
            return;
        }
        let at = dice.below(self.late.len());
        let late = self.late.swap_remove(at);
        if dice.chance(50) {
            let lost = self.stored[late.device].take();
            let is_own = lost.is_some_and(|(of, _)| self.lives[late.device] == Some(of));
            let is_behind = lost.is_some_and(|(_, step)| step > late.sent);
            assert!(
                !(is_own && is_behind),
                "a late tombstone took a later write"
            );
        }
    }

    /// One step of a payment, alone.
    fn pay(&mut self, dice: &mut Dice, is_good: bool) {
        let Some(payment) = &mut self.paying else {
            let ask = if dice.chance(50) || is_good {
                Ledger::of
            } else {
                Ledger::due
            };
            let debt = ask(&self.ledger, &user(0), self.now_ms);
            self.paying = debt.map(|debt| Payment {
                parts: debt.apart().collect(),
                lived: None,
                is_emptied: false,
            });
            return;
        };
        let Some(part) = payment.parts.front().cloned() else {
            self.paying = None;
            return;
        };
        let lives = [0, 1].map(|number| self.lives[number].is_some());
        let lived = *payment.lived.get_or_insert(lives);
        let [sure, gone] = part.parts();
        let is_emptied = |number: &usize| {
            let may_be = gone.has(&device(*number)) || gone.contains(&Whose::Others);
            sure.has(&device(*number)) || (may_be && !lived[*number])
        };
        let emptied: Vec<usize> = (0..DEVICES).filter(is_emptied).collect();
        if !is_good && dice.chance(15) {
            let is_late = dice.chance(50);
            self.ledger.failed(&user(0), &part, is_late, self.now_ms);
            payment.parts.pop_front();
            (payment.lived, payment.is_emptied) = (None, false);
            if is_late {
                self.paying = None;
                self.send_late(emptied);
            }
        } else if std::mem::replace(&mut payment.is_emptied, true) {
            let lives = |one: &DeviceId| (0..DEVICES).any(|it| lived[it] && *one == device(it));
            self.ledger.settle(&user(0), &part, lives, self.now_ms);
            payment.parts.pop_front();
            (payment.lived, payment.is_emptied) = (None, false);
        } else {
            emptied.into_iter().for_each(|number| self.empty(number));
        }
    }

    fn empty(&mut self, number: usize) {
        let lost = self.stored[number].take();
        let is_own = lost.is_some_and(|(of, _)| self.lives[number] == Some(of));
        // What is asked to end may lose its entries.
        let may_end =
            |end: &OnTheWay| end.asked.has(&device(number)) || end.asked.contains(&Whose::Others);
        let is_ending = self.ending.iter().any(may_end);
        assert!(!is_own || is_ending, "what a living device wrote is lost");
    }

    /// All that is on its way comes to its end, and what is owed is paid.
    fn come_to_rest(&mut self, dice: &mut Dice) {
        while !self.ending.is_empty() {
            if self.ending[0].step == Step::Sent {
                self.ending[0].step = Step::Refused;
            }
            self.finish(0, true);
        }
        while self.paying.is_some() {
            self.pay(dice, true);
        }
        for _ in 0..2 {
            self.now_ms += LATE_MS;
            self.pay(dice, true);
            while self.paying.is_some() {
                self.pay(dice, true);
            }
        }
        for number in 0..DEVICES {
            assert_eq!(self.standing(number), Standing::Free);
        }
        assert!(self.ledger.is_empty(), "{:?}", self.ledger);
    }
}

/// Ends take no turn here, as where it did not come in time: the ledger alone keeps what is right.
#[test]
fn whatever_the_order_nothing_that_ended_is_read_and_nothing_that_lives_is_lost() {
    let mut done = [0, 0];
    for seed in 0..2_000 {
        let mut dice = Dice::new(seed);
        let mut world = World::default();
        for _ in 0..600 {
            world.step += 1;
            let number = dice.below(DEVICES);
            match dice.below(24) {
                0 | 1 => world.log_in(number),
                2..5 => world.write(number),
                5..8 => world.read(number),
                8..11 => world.end(&mut dice),
                11..20 => world.pay(&mut dice, false),
                20 => world.land(&mut dice),
                _ => world.now_ms += dice.draw() % 10_000,
            }
        }
        world.come_to_rest(&mut dice);
        done = [0, 1].map(|at| done[at] + world.done[at]);
    }
    // In each run some, on the whole.
    assert!(done.iter().all(|times| *times > 10_000), "{done:?}");
}
