//! What is owed, as a machine without a clock: each function is one step, at a time that is told.
//!
//! - An end that is on its way to the homeserver is written down first. Until it is known what became
//!   of it, nobody reads or writes its devices who does not wait for its turn.
//! - What ended surely is owed until the entries under its ID are emptied, whoever uses the ID by
//!   then: as nobody writes it before, these are of the device that ended.
//! - What may have ended, as no answer came, is emptied once the homeserver does not have it, and
//!   forgotten where it lives although no request can still be under way.

use std::collections::{BTreeMap, BTreeSet};

use kitbag_domain::{DeviceId, UnixMs, UserId};

use super::ended::{Ended, Whose};

/// What is owed at most, to all users; beyond it the oldest falls of whom most is owed to, so that
/// users with many devices, or with requests that name many, leave room for the others.
const OWED_MAX: usize = 20_000;

/// What is owed to one user.
pub(crate) const OWED_TO_ONE_MAX: usize = 1_000;

/// How long it is not tried again after it failed once, but at a login.
pub(crate) const PAUSE_MS: u64 = 30_000;

/// The pause after many failures, each of which doubles it: what waits for a device that begins anew
/// does not wait longer than that once the homeserver is well.
const PAUSE_MS_MAX: u64 = 5 * 60 * 1_000;

/// How late the homeserver may do what it did not answer to.
pub(crate) const LATE_MS: u64 = 10_000;

/// Of the failures within that time one counts.
const FAILING_PERIOD_MS: u64 = 60 * 60 * 1_000;

/// Failures that count before it is given up, which is a day of them: longer nobody is kept from using
/// a device again.
const FAILURES_MAX: u32 = 24;

/// How long it fails before it is given up, however rarely somebody tries.
const FAILING_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;

/// What became of an end that was on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Became {
    /// It was refused, or all is emptied already.
    Nothing,
    /// Its devices ended.
    Owed,
    /// They may have ended, or may still end.
    MayBeOwed,
}

/// How it stands with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is read and written.
    Free,
    /// It may be ending right now.
    Ending,
    /// What is stored is of one that ended.
    Owed,
}

/// What is owed to a user, as it was when it was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Debt {
    owing: BTreeMap<Whose, Owing>,
    asked_ms: UnixMs,
    /// How often it was tried in vain.
    failures: u32,
}

#[derive(Clone, Debug)]
struct Owing {
    /// Greater than those of all that was owed before.
    stamp: u64,
    is_sure: bool,
    since_ms: UnixMs,
    failing: Option<Failing>,
}

/// That it was tried in vain.
#[derive(Clone, Copy, Debug)]
struct Failing {
    since_ms: UnixMs,
    /// When a failure counted last.
    counted_ms: UnixMs,
    counted: u32,
}

/// An end on its way to the homeserver.
#[derive(Debug)]
struct OnItsWay {
    ended: Ended,
    /// A device that does not end with them, whatever `ended` says.
    stays: Option<DeviceId>,
}

/// When it was tried last, in vain.
#[derive(Clone, Copy, Debug)]
struct Tried {
    at_ms: UnixMs,
    /// How often.
    failures: u32,
}

#[derive(Debug, Default)]
struct OfUser {
    owing: BTreeMap<Whose, Owing>,
    /// On their way, by their stamps.
    ending: BTreeMap<u64, OnItsWay>,
    tried: Option<Tried>,
    /// When something was to be emptied that may still be.
    late_ms: Option<UnixMs>,
}

/// All that is owed.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    users: BTreeMap<UserId, OfUser>,
    /// What is owed, the oldest first.
    order: BTreeMap<u64, (UserId, Whose)>,
    /// How much is owed to each user, to whom most is owed last.
    counts: BTreeSet<(usize, UserId)>,
    stamp: u64,
    failing: usize,
    lost: usize,
}

impl Owing {
    fn is_sure_of(&self, whose: &Whose) -> bool {
        self.is_sure && *whose != Whose::Others
    }
}

impl Failing {
    fn again(before: Option<Self>, now_ms: UnixMs) -> Self {
        let Some(before) = before else {
            return Self {
                since_ms: now_ms,
                counted_ms: now_ms,
                counted: 1,
            };
        };
        match is_past(before.counted_ms, FAILING_PERIOD_MS, now_ms) {
            true => Self {
                counted_ms: now_ms,
                counted: before.counted + 1,
                ..before
            },
            false => before,
        }
    }

    fn is_too_long(&self) -> bool {
        let failing_ms = self.counted_ms.saturating_sub(self.since_ms);
        self.counted >= FAILURES_MAX || failing_ms >= FAILING_MS_MAX
    }
}

impl Tried {
    fn rests(&self, now_ms: UnixMs) -> bool {
        let doubled = self.failures.saturating_sub(1).min(u64::BITS - 1);
        let pause_ms = PAUSE_MS.saturating_mul(1 << doubled).min(PAUSE_MS_MAX);
        !is_past(self.at_ms, pause_ms, now_ms)
    }
}

impl OfUser {
    /// Tells whether something may still be emptied that nobody waits for any more.
    fn is_late(&self, now_ms: UnixMs) -> bool {
        let late_ms = self.late_ms;
        late_ms.is_some_and(|late_ms| !is_past(late_ms, LATE_MS, now_ms))
    }

    /// `is_late` where something was to be emptied just now that may still be.
    fn late(&mut self, is_late: bool, now_ms: UnixMs) {
        if is_late {
            self.late_ms = Some(now_ms);
        }
    }

    /// Tells whether a device is one of those that may have ended.
    fn may_have_ended(&self, device: &DeviceId) -> bool {
        let owes = |whose| self.owing.contains_key(&whose);
        owes(Whose::Others) || owes(Whose::Device(device.clone()))
    }

    fn failures(&self) -> u32 {
        self.tried.map_or(0, |tried| tried.failures)
    }
}

impl OnItsWay {
    fn may_end(&self, device: &DeviceId) -> bool {
        let may_be = self.ended.has(device) || self.ended.contains(&Whose::Others);
        may_be && self.stays.as_ref() != Some(device)
    }
}

impl Debt {
    /// Returns what ended for sure, and by itself what else there is: that can fail alone.
    pub(crate) fn apart(self) -> impl Iterator<Item = Self> {
        let (asked_ms, failures) = (self.asked_ms, self.failures);
        let owing = self.owing.into_iter();
        let (sure, rest): (BTreeMap<_, _>, _) =
            owing.partition(|(whose, owing)| owing.is_sure_of(whose));
        let parts = [sure, rest].into_iter().filter(|owing| !owing.is_empty());
        parts.map(move |owing| Self {
            owing,
            asked_ms,
            failures,
        })
    }

    /// Returns how often it was tried in vain just before.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns what ended for sure, and what is to be emptied where the homeserver does not have it.
    pub(crate) fn parts(&self) -> [Ended; 2] {
        let part = |of_sure: bool| {
            let owing = self.owing.iter();
            let of_it = owing.filter(|(whose, owing)| owing.is_sure_of(whose) == of_sure);
            Ended(of_it.map(|(whose, _)| whose.clone()).collect())
        };
        [part(true), part(false)]
    }
}

impl Ledger {
    /// An end is about to be sent to the homeserver; what `stays` is known not to end. Returns its
    /// number.
    pub(crate) fn begin(&mut self, user: &UserId, ended: Ended, stays: Option<DeviceId>) -> u64 {
        self.stamp += 1;
        let of_user = self.users.entry(user.clone()).or_default();
        let ending = OnItsWay { ended, stays };
        of_user.ending.insert(self.stamp, ending);
        self.stamp
    }

    /// It is known what became of it, and whether some of it may still be emptied.
    pub(crate) fn finish(
        &mut self,
        user: &UserId,
        number: u64,
        became: Became,
        is_late: bool,
        now_ms: UnixMs,
    ) {
        let of_user = self.users.get_mut(user);
        let ended = of_user.and_then(|of_user| {
            of_user.late(is_late, now_ms);
            of_user.ending.remove(&number)
        });
        if let Some(OnItsWay { ended, .. }) = ended {
            match became {
                Became::Nothing => {}
                Became::Owed => self.add(user, &ended, true, now_ms),
                Became::MayBeOwed => self.add(user, &ended, false, now_ms),
            }
        }
        self.tidy(user);
    }

    /// A device is not there any more, and what it had may still be emptied.
    pub(crate) fn add_late(&mut self, user: &UserId, ended: &Ended, now_ms: UnixMs) {
        let of_user = self.users.entry(user.clone()).or_default();
        of_user.late(true, now_ms);
        self.add(user, ended, true, now_ms);
        self.tidy(user);
    }

    /// Devices ended, or may have.
    pub(crate) fn add(&mut self, user: &UserId, ended: &Ended, is_sure: bool, now_ms: UnixMs) {
        if ended.is_empty() {
            return;
        }
        // First those of many, then others, then those that are named.
        for whose in ended.0.iter().take(OWED_TO_ONE_MAX) {
            let whose = match whose {
                // Of all that may have ended those did that are not there any more.
                whose if whose.is_of_many() && !is_sure => Whose::Others,
                whose => whose.clone(),
            };
            self.add_one(user, whose, is_sure, now_ms);
        }
        self.bound(user, ended.0.len(), now_ms);
        if let Some(of_user) = self.users.get_mut(user) {
            // By other credentials it may go.
            of_user.tried = None;
        }
    }

    fn add_one(&mut self, user: &UserId, whose: Whose, is_sure: bool, now_ms: UnixMs) {
        let before = self.take(user, &whose);
        let was_sure = before.as_ref().map(|before| before.is_sure);
        let is_sure = match whose {
            // All of them did, or one may still.
            Whose::Others => is_sure && was_sure.unwrap_or(true),
            _ => is_sure || was_sure.unwrap_or(false),
        };
        // Who ends again and again is not shut out for longer.
        let failing = before.and_then(|before| before.failing);
        self.failing += usize::from(failing.is_some());
        self.stamp += 1;
        self.order.insert(self.stamp, (user.clone(), whose.clone()));
        let owing = Owing {
            stamp: self.stamp,
            is_sure,
            since_ms: now_ms,
            failing,
        };
        let of_user = self.users.entry(user.clone()).or_default();
        let before = of_user.owing.len();
        of_user.owing.insert(whose, owing);
        self.recount(user, before);
    }

    /// Lets the oldest fall where there is too much.
    fn bound(&mut self, user: &UserId, added: usize, now_ms: UnixMs) {
        let owing = self.users.get(user).map(|of_user| &of_user.owing);
        let owing = owing.into_iter().flatten();
        let named = owing.filter(|(whose, _)| matches!(whose, Whose::Device(_) | Whose::AllBut(_)));
        let mut named: Vec<_> = named.map(|(whose, owing)| (owing.stamp, whose)).collect();
        let too_many = named.len().saturating_sub(OWED_TO_ONE_MAX);
        named.sort_unstable();
        let oldest: Vec<Whose> = named[..too_many]
            .iter()
            .map(|(_, whose)| (*whose).clone())
            .collect();
        for whose in &oldest {
            self.take(user, whose);
        }
        if too_many > 0 || added > OWED_TO_ONE_MAX {
            // There they are found as long as nobody uses their IDs again.
            self.add_one(user, Whose::Others, true, now_ms);
        }
        while self.order.len() > OWED_MAX
            && let Some((of, whose)) = self.next_to_fall()
        {
            self.take(&of, &whose);
            self.tidy(&of);
            self.lost += 1;
        }
    }

    fn next_to_fall(&self) -> Option<(UserId, Whose)> {
        let (count, most) = self.counts.last()?;
        if *count == 1 {
            return self.order.first_key_value().map(|(_, of)| of.clone());
        }
        let owing = self.users.get(most)?.owing.iter();
        let (whose, _) = owing.min_by_key(|(_, owing)| owing.stamp)?;
        Some((most.clone(), whose.clone()))
    }

    /// Tells how it stands with a device.
    pub(crate) fn standing(&self, user: &UserId, device: &DeviceId, now_ms: UnixMs) -> Standing {
        let Some(of_user) = self.users.get(user) else {
            return Standing::Free;
        };
        let of_many = of_user.owing.iter();
        let mut of_many = of_many.take_while(|(whose, _)| whose.is_of_many());
        let of_one = of_user.owing.get(&Whose::Device(device.clone()));
        let is_ending = || of_user.ending.values().any(|end| end.may_end(device));
        // What it writes now could be emptied behind that.
        let is_late = || of_user.is_late(now_ms) && of_user.may_have_ended(device);
        // Of many it is always sure.
        if of_many.any(|(whose, _)| whose.has(device)) || of_one.is_some_and(|one| one.is_sure) {
            Standing::Owed
        } else if is_ending() || is_late() {
            Standing::Ending
        } else {
            Standing::Free
        }
    }

    /// Returns the devices of a user that may have ended.
    pub(crate) fn uncertain(&self, user: &UserId) -> Vec<DeviceId> {
        let owing = self.users.get(user).map(|of_user| of_user.owing.iter());
        let uncertain = owing.into_iter().flatten().filter_map(|(whose, owing)| {
            let device = match whose {
                Whose::Device(device) => Some(device.clone()),
                Whose::All | Whose::AllBut(_) | Whose::Others => None,
            };
            device.filter(|_| !owing.is_sure)
        });
        uncertain.collect()
    }

    /// Tells whether nothing is known of anybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Tells whether something is owed to a user, or may soon be.
    pub(crate) fn knows(&self, user: &UserId) -> bool {
        self.users.contains_key(user)
    }

    /// Returns what is owed to a user, where it can be tried: what was tried a moment ago and may
    /// still be done would be done behind the next write.
    pub(crate) fn of(&self, user: &UserId, now_ms: UnixMs) -> Option<Debt> {
        let of_user = self.users.get(user)?;
        let can_be_tried = !of_user.owing.is_empty() && !of_user.is_late(now_ms);
        can_be_tried.then(|| Debt {
            owing: of_user.owing.clone(),
            asked_ms: now_ms,
            failures: of_user.failures(),
        })
    }

    /// As [`Ledger::of`], where it has not failed a short time ago.
    pub(crate) fn due(&self, user: &UserId, now_ms: UnixMs) -> Option<Debt> {
        let tried = self.users.get(user)?.tried;
        match tried.is_some_and(|tried| tried.rests(now_ms)) {
            true => None,
            false => self.of(user, now_ms),
        }
    }

    /// Gives up what was tried in vain for too long; not while something of it may still be done.
    pub(crate) fn give_up(&mut self, user: &UserId, now_ms: UnixMs) {
        let Some(of_user) = self.users.get(user) else {
            return;
        };
        if of_user.is_late(now_ms) {
            return;
        }
        let is_too_long = |owing: &Owing| owing.failing.is_some_and(|it| it.is_too_long());
        let given_up = of_user.owing.iter().filter(|(_, it)| is_too_long(it));
        let given_up: Vec<Whose> = given_up.map(|(whose, _)| whose.clone()).collect();
        for whose in &given_up {
            self.take(user, whose);
            self.lost += 1;
        }
        self.tidy(user);
    }

    /// A debt was paid, but for what was added since. `lives` tells which devices the homeserver had:
    /// those of them that only may have ended kept what they have.
    pub(crate) fn settle(
        &mut self,
        user: &UserId,
        paid: &Debt,
        lives: impl Fn(&DeviceId) -> bool,
        now_ms: UnixMs,
    ) {
        let mut is_left = false;
        for (whose, seen) in &paid.owing {
            let is_gone = matches!(whose, Whose::Device(device) if !lives(device));
            // Not as of now: what lived as it was asked for may have ended since.
            let is_over = is_past(seen.since_ms, LATE_MS, paid.asked_ms);
            let is_known = seen.is_sure || is_gone || is_over;
            if !self.is_same(user, whose, seen) {
                continue;
            }
            match is_known {
                true => drop(self.take(user, whose)),
                false => is_left = true,
            }
        }
        if is_left && let Some(of_user) = self.users.get_mut(user) {
            let failures = of_user.failures();
            of_user.tried = Some(Tried {
                at_ms: now_ms,
                failures,
            });
        }
        self.tidy(user);
    }

    /// A debt could not be paid now. `is_late` where something of it may still be done.
    pub(crate) fn failed(&mut self, user: &UserId, debt: &Debt, is_late: bool, now_ms: UnixMs) {
        if let Some(of_user) = self.users.get_mut(user) {
            of_user.late(is_late, now_ms);
            of_user.tried = Some(Tried {
                at_ms: now_ms,
                failures: debt.failures.saturating_add(1),
            });
        }
        for (whose, seen) in &debt.owing {
            if self.is_same(user, whose, seen)
                && let Some(of_user) = self.users.get_mut(user)
                && let Some(owing) = of_user.owing.get_mut(whose)
            {
                self.failing += usize::from(owing.failing.is_none());
                owing.failing = Some(Failing::again(owing.failing, now_ms));
            }
        }
    }

    /// Returns how much is owed that could not be emptied when that was tried.
    pub(crate) fn failing(&self) -> usize {
        self.failing
    }

    /// Returns how much was given up since this was asked last.
    pub(crate) fn take_lost(&mut self) -> usize {
        std::mem::take(&mut self.lost)
    }

    fn is_same(&self, user: &UserId, whose: &Whose, seen: &Owing) -> bool {
        let known = self.users.get(user).and_then(|user| user.owing.get(whose));
        known.is_some_and(|known| known.stamp == seen.stamp)
    }

    fn take(&mut self, user: &UserId, whose: &Whose) -> Option<Owing> {
        let owing = &mut self.users.get_mut(user)?.owing;
        let before = owing.len();
        let taken = owing.remove(whose)?;
        self.recount(user, before);
        self.order.remove(&taken.stamp);
        self.failing -= usize::from(taken.failing.is_some());
        Some(taken)
    }

    /// Counts anew what is owed to a user, where it was so much before.
    fn recount(&mut self, user: &UserId, before: usize) {
        let now = self.users.get(user).map_or(0, |of| of.owing.len());
        self.counts.remove(&(before, user.clone()));
        if now > 0 {
            self.counts.insert((now, user.clone()));
        }
    }

    /// Forgets a user to whom nothing is owed.
    fn tidy(&mut self, user: &UserId) {
        let is_settled = |user: &OfUser| user.owing.is_empty() && user.ending.is_empty();
        if self.users.get(user).is_some_and(is_settled) {
            self.users.remove(user);
        }
    }
}

/// Where a clock went back it is past too.
fn is_past(since_ms: UnixMs, allowed_ms: u64, now_ms: UnixMs) -> bool {
    let age_ms = now_ms.checked_sub(since_ms);
    age_ms.is_none_or(|age_ms| age_ms >= allowed_ms)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
