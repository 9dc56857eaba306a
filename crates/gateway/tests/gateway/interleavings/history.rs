//! What happened, and whether it may have.

use std::fmt;

/// From when to when something was done, in steps of all actors, and by the clock.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
    /// Whether entries may not have been listed that were to be emptied meanwhile.
    pub(super) may_have_missed: bool,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}..{} at {}",
            self.start,
            self.end,
            self.end_ms % 10_000_000
        )
    }
}

impl Span {
    fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// A session that began.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub(super) device: String,
    pub(super) span: Span,
    pub(super) is_beside: bool,
}

/// Which devices a request ends.
#[derive(Clone, Debug)]
pub(super) enum Which {
    These(Vec<String>),
    AllBut(String),
    All,
}

impl Which {
    fn is_of_many(&self) -> bool {
        matches!(self, Self::All | Self::AllBut(_))
    }

    fn has(&self, device: &str) -> bool {
        match self {
            Self::These(devices) => devices.iter().any(|ended| ended == device),
            Self::AllBut(kept) => kept != device,
            Self::All => true,
        }
    }
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Done,
    /// 401: the session is none.
    NoSession,
    /// The password is not the one any more, or is set anew just now.
    Refused,
    /// 404 `M_NOT_FOUND`.
    Nothing,
    /// 503: something is still to be emptied.
    Fenced,
    /// Another 5xx.
    Failed(u16),
}

#[derive(Debug)]
pub(super) struct Ended {
    pub(super) which: Which,
    /// The device of whoever asked for it.
    pub(super) by: String,
    pub(super) span: Span,
    pub(super) told: Told,
    pub(super) is_logout: bool,
    pub(super) is_beside: bool,
}

impl Ended {
    fn is_sure(&self) -> bool {
        self.told == Told::Done
    }

    fn may_be(&self) -> bool {
        matches!(self.told, Told::Done | Told::Fenced | Told::Failed(_))
    }
}

#[derive(Debug)]
pub(super) struct Written {
    pub(super) device: String,
    /// The number of the session.
    pub(super) session: usize,
    pub(super) span: Span,
    pub(super) told: Told,
}

#[derive(Debug)]
pub(super) struct Read {
    pub(super) device: String,
    /// The number of the session.
    pub(super) session: usize,
    pub(super) told: Told,
    /// The number of the write.
    pub(super) found: Option<usize>,
    pub(super) span: Span,
}

/// What happened, and how.
#[derive(Debug, Default)]
pub(super) struct History {
    /// By the number of the session.
    pub(super) begun: Vec<Begun>,
    pub(super) ended: Vec<Ended>,
    /// By the number of the write; `None` while it is under way.
    pub(super) written: Vec<Option<Written>>,
    pub(super) read: Vec<Read>,
    /// How long an identity and a device may be remembered.
    pub(super) remember_ms: u64,
    /// Whether the homeserver failed at times.
    pub(super) has_faults: bool,
}

impl History {
    pub(super) fn judge(&self) {
        for written in self.written.iter().flatten() {
            self.judge_refusal(written);
        }
        let is_done = |read: &&Read| read.told == Told::Done;
        for read in self.read.iter().filter(is_done) {
            self.judge_session(read);
            if let Some(number) = read.found {
                self.judge_life(read, number);
            }
            self.judge_loss(read);
        }
        for read in self.read.iter().filter(|read| read.told == Told::Fenced) {
            let is_explained = self.explains_fence(&read.device, &read.span);
            assert!(
                is_explained,
                "nothing explains {read:?}\n{}",
                self.of(&read.device)
            );
        }
        let found = self
            .read
            .iter()
            .filter(is_done)
            .filter_map(|read| read.found);
        let written = self.written.iter().flatten();
        let written = written.filter(|written| written.told == Told::Done);
        let judged = (found.count(), written.count(), self.ended.len());
        let is_used = judged.0 > 0 && judged.1 > 0 && judged.2 > 0;
        assert!(is_used, "there was nothing to judge: {judged:?}");
    }

    /// Returns how many reads would have found what a device of the same ID wrote before it ended
    /// through the gateway, had that end emptied nothing: nothing else happened that hides it.
    pub(super) fn behind_ends(&self) -> usize {
        let reads = self.read.iter().filter(|read| {
            let begun = &self.begun[read.session];
            let mut ends = self.ended.iter();
            let is_own = read.told == Told::Done && read.device == begun.device;
            is_own && ends.any(|end| self.hides_alone(end, begun, read))
        });
        reads.count()
    }

    /// Tells whether an end came before a session began, and is all that can keep what was written
    /// before from being read by it.
    fn hides_alone(&self, end: &Ended, begun: &Begun, read: &Read) -> bool {
        let is_of_it = end.is_sure() && !end.is_beside && end.which.has(&read.device);
        if !is_of_it || end.span.end > begun.span.start {
            return false;
        }
        let of_device = |written: &&Written| written.device == read.device;
        let written = || self.written.iter().flatten().filter(of_device);
        let before = written()
            .filter(|written| written.told == Told::Done && written.span.end < end.span.start);
        let Some(last) = before.map(|written| written.span.end).max() else {
            return false;
        };
        let is_between = |span: &Span| span.end > last && span.start < read.span.end;
        let mut writes = written().filter(|written| is_between(&written.span));
        let mut ends = self.ended.iter().filter(|other| {
            let is_other = !std::ptr::eq(*other, end) && self.may_empty(other);
            is_other && other.which.has(&read.device) && is_between(&other.span)
        });
        writes.next().is_none() && ends.next().is_none()
    }

    /// Nobody reads whose device had ended.
    fn judge_session(&self, read: &Read) {
        let begun = &self.begun[read.session];
        let before = self.ended.iter().find(|ended| {
            let is_of_it = ended.is_sure() && ended.which.has(&begun.device);
            let is_between = begun.span.end < ended.span.start && ended.span.end < read.span.start;
            is_of_it && is_between && !(ended.is_beside && self.is_remembered(ended, read))
        });
        assert!(before.is_none(), "{read:?} of {begun:?} after {before:?}");
    }

    /// A session that lives writes its device, unless something explains that it does not.
    fn judge_refusal(&self, written: &Written) {
        let begun = &self.begun[written.session];
        let ends = || {
            let ends = self.ended.iter().filter(|ended| ended.may_be());
            ends.filter(|ended| ended.which.has(&written.device))
        };
        let is_explained = match written.told {
            Told::Done | Told::NoSession => true,
            // It ended, and as it began the session was not over.
            Told::Nothing => ends().any(|ended| {
                ended.span.end > begun.span.start && ended.span.start < written.span.end
            }),
            Told::Fenced => self.explains_fence(&written.device, &written.span),
            Told::Failed(_) => self.has_faults,
            Told::Refused => false,
        };
        assert!(
            is_explained,
            "nothing explains {written:?} of {begun:?}\n{}",
            self.of(&written.device)
        );
    }

    /// Tells whether an end explains that a device is not read or written: it is under way, or, where
    /// the homeserver fails, its entries could not be emptied yet. Past the gateway that is noticed by
    /// whoever reads it.
    fn explains_fence(&self, device: &str, span: &Span) -> bool {
        self.ended.iter().any(|ended| {
            let is_under_way = !ended.is_beside && ended.span.overlaps(span);
            let is_owed = self.has_faults
                && ended.span.start < span.end
                && !self.is_settled(ended, device, span);
            // One that names nobody may be of any device.
            let is_of_it = ended.which.has(device) || self.has_faults && ended.which.is_of_many();
            is_of_it && (is_under_way || is_owed)
        })
    }

    /// Tells whether all that a device had was emptied behind an end: it was written since.
    fn is_settled(&self, ended: &Ended, device: &str, span: &Span) -> bool {
        let is_known = ended.is_sure() && !ended.which.is_of_many() && !ended.is_beside;
        let mut since = self.written.iter().flatten().filter(|written| {
            let is_of_it = written.device == device && written.told == Told::Done;
            is_of_it && written.span.start > ended.span.end && written.span.end < span.start
        });
        is_known && since.next().is_some()
    }

    /// What was read is not of a device that had ended.
    fn judge_life(&self, read: &Read, number: usize) {
        let written = self.written[number].as_ref().unwrap();
        assert_eq!(
            written.device, read.device,
            "an entry of another device: {read:?}"
        );
        let begun = &self.begun[written.session];
        let before = self.ended.iter().find(|ended| {
            let is_of_it = ended.is_sure() && ended.which.has(&read.device);
            let is_between = begun.span.end < ended.span.start && ended.span.end < read.span.start;
            let is_excused =
                || self.is_excused(ended, read, written) || self.had_ended(begun, ended);
            is_of_it && is_between && !is_excused()
        });
        assert!(
            before.is_none(),
            "{read:?} found {written:?} after {before:?}\n{}",
            self.of(&read.device)
        );
    }

    /// Tells whether a device that ended may be read: where it ended past the gateway, which remembers
    /// it, or cannot tell it from the next one of its ID, as nobody asked for its entries in between.
    fn is_excused(&self, ended: &Ended, read: &Read, written: &Written) -> bool {
        let mut anew = self.begun.iter().filter(|begun| {
            let is_of_it = begun.device == read.device;
            let is_between = begun.span.end > ended.span.start && begun.span.start < read.span.end;
            is_of_it && is_between && !self.was_noticed(ended, begun, written)
        });
        ended.is_beside && (self.is_remembered(ended, read) || anew.next().is_some())
    }

    /// Tells whether somebody read that a device has nothing, behind its end and before it began anew:
    /// so what it had was found, and then emptied or owed.
    fn was_noticed(&self, ended: &Ended, anew: &Begun, written: &Written) -> bool {
        let mut empty = self.read.iter().filter(|read| {
            let is_empty = read.told == Told::Done && read.found.is_none();
            let is_of_it = is_empty && read.device == anew.device;
            let is_behind = read.span.start > ended.span.end.max(written.span.end);
            let is_before = read.span.end < anew.span.start && !self.is_remembered(ended, read);
            let is_listed = !read.span.may_have_missed && self.is_undisturbed(read);
            is_of_it && is_behind && is_before && is_listed
        });
        empty.next().is_some()
    }

    /// Tells whether the session of a read lived all the while: else it may have emptied nothing.
    fn is_undisturbed(&self, read: &Read) -> bool {
        let device = &self.begun[read.session].device;
        let mut ends = self.ended.iter().filter(|ended| ended.may_be());
        let mut begins = self.begun.iter().filter(|begun| begun.device == *device);
        let is_ended = ends.any(|end| end.which.has(device) && end.span.overlaps(&read.span));
        !is_ended && !begins.any(|begun| begun.span.overlaps(&read.span))
    }

    /// Tells whether the device of a session need not have been there any more where a new password
    /// ends those that are there: then nobody names it, and it may have begun anew before its entries
    /// are emptied. All that are found where all end are emptied, or owed.
    fn had_ended(&self, begun: &Begun, ended: &Ended) -> bool {
        let is_found = match ended.which {
            Which::These(_) => true,
            Which::AllBut(_) => false,
            Which::All => !ended.span.may_have_missed,
        };
        if is_found {
            return false;
        }
        let is_other = |other: &&Ended| !std::ptr::eq(*other, ended) && other.may_be();
        let mut others = self.ended.iter().filter(is_other);
        others.any(|other| {
            let is_between = other.span.end > begun.span.start && other.span.start < ended.span.end;
            // Else it emptied the entries itself, or they are owed.
            let is_unnamed = other.is_beside
                || !other.is_sure()
                || other.which.is_of_many()
                || other.span.overlaps(&ended.span);
            let is_of_it = other.which.has(&begun.device) && is_between;
            is_of_it && is_unnamed && !self.is_there_again(&begun.device, other, ended)
        })
    }

    /// Tells whether a device began anew behind one end and before the next, which so names it.
    fn is_there_again(&self, device: &str, one: &Ended, next: &Ended) -> bool {
        self.begun.iter().any(|begun| {
            let is_between = begun.span.start > one.span.end && begun.span.end < next.span.start;
            begun.device == device && is_between
        })
    }

    fn is_remembered(&self, ended: &Ended, read: &Read) -> bool {
        read.span.start_ms.saturating_sub(ended.span.end_ms) < self.remember_ms
    }

    /// What was acknowledged before is read, or something newer.
    fn judge_loss(&self, read: &Read) {
        let of_device = |written: &&Written| written.device == read.device;
        let written = self.written.iter().flatten().filter(of_device);
        let acknowledged = written
            .filter(|written| written.told == Told::Done && written.span.end < read.span.start);
        for written in acknowledged {
            let is_excused = self.ended.iter().any(|ended| {
                let is_between =
                    ended.span.end > written.span.start && ended.span.start < read.span.end;
                ended.which.has(&read.device) && is_between && self.may_empty(ended)
            });
            let found = read
                .found
                .map(|number| self.written[number].as_ref().unwrap());
            let is_there = found.is_some_and(|found| found.span.end >= written.span.end);
            // One of an older span may be newer, where both were under way at once.
            let is_at_once = found.is_some_and(|found| found.span.end > written.span.start);
            assert!(
                is_excused || is_there || is_at_once,
                "{read:?} does not find {written:?}\n{}",
                self.of(&read.device)
            );
        }
    }

    /// Returns what happened to a device, in the order in which it began.
    fn of(&self, device: &str) -> String {
        let mut lines = Vec::new();
        for (number, begun) in self.begun.iter().enumerate() {
            if begun.device == device {
                let way = if begun.is_beside { "past" } else { "through" };
                let span = begun.span;
                lines.push((span, format!("session {number} begun {way}: {span:?}")));
            }
        }
        for ended in self.ended.iter().filter(|ended| ended.which.has(device)) {
            lines.push((ended.span, format!("{ended:?}")));
        }
        for (number, written) in self.written.iter().enumerate() {
            if let Some(written) = written.as_ref().filter(|written| written.device == device) {
                lines.push((written.span, format!("write {number}: {written:?}")));
            }
        }
        for read in self.read.iter().filter(|read| read.device == device) {
            lines.push((read.span, format!("{read:?}")));
        }
        lines.sort_by_key(|(span, _)| span.start);
        let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
        lines.join("\n")
    }

    /// Tells whether an end may have emptied something: one that was refused did not, but for a
    /// logout whose session was replaced, or ended by others, after its entries were emptied.
    fn may_empty(&self, ended: &Ended) -> bool {
        let mut begun = self.begun.iter().filter(|begun| begun.device == ended.by);
        let is_replaced = begun.any(|begun| begun.span.overlaps(&ended.span));
        let mut others = self.ended.iter().filter(|other| {
            let is_other = !std::ptr::eq(*other, ended) && other.may_be();
            is_other && other.which.has(&ended.by)
        });
        let is_ended = others.any(|other| other.span.overlaps(&ended.span));
        let is_of_it = ended.is_logout && !ended.is_beside;
        ended.may_be() || (is_of_it && (is_replaced || is_ended))
    }
}
