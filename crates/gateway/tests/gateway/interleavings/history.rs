//! What happened, and whether it may have.

use std::fmt;

/// From when to when something was done, in steps of all actors, and by the clock.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
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
        for read in self.read.iter().filter(|read| read.told == Told::Done) {
            self.judge_session(read);
            if let Some(number) = read.found {
                self.judge_life(read, number);
            }
            self.judge_loss(read);
        }
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
            // The one before it ended, and is not emptied yet. Past the gateway that is noticed by
            // whoever reads it.
            Told::Fenced => ends().any(|ended| {
                let is_noticed = !ended.is_beside || self.has_faults;
                is_noticed && ended.span.start < begun.span.end
            }),
            Told::Failed(_) => self.has_faults,
            Told::Refused => false,
        };
        assert!(
            is_explained,
            "nothing explains {written:?} of {begun:?}\n{}",
            self.of(&written.device)
        );
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
            is_of_it && is_between && !self.is_excused(ended, read) && !self.had_ended(begun, ended)
        });
        assert!(
            before.is_none(),
            "{read:?} found {written:?} after {before:?}\n{}",
            self.of(&read.device)
        );
    }

    /// Tells whether a device that ended may be read: where it ended past the gateway, which remembers
    /// it, or cannot tell it from the next one of its ID.
    fn is_excused(&self, ended: &Ended, read: &Read) -> bool {
        let mut anew = self.begun.iter().filter(|begun| {
            let is_of_it = begun.device == read.device;
            is_of_it && begun.span.end > ended.span.start && begun.span.start < read.span.end
        });
        ended.is_beside && (self.is_remembered(ended, read) || anew.next().is_some())
    }

    /// Tells whether the device of a session need not have been there any more, where a request ends
    /// those that are there.
    fn had_ended(&self, begun: &Begun, ended: &Ended) -> bool {
        let is_other = |other: &&Ended| !std::ptr::eq(*other, ended) && other.may_be();
        let mut others = self.ended.iter().filter(is_other);
        let is_between =
            |other: &Ended| other.span.end > begun.span.start && other.span.start < ended.span.end;
        let is_gone = others.any(|other| other.which.has(&begun.device) && is_between(other));
        matches!(ended.which, Which::AllBut(_)) && is_gone
    }

    fn is_remembered(&self, ended: &Ended, read: &Read) -> bool {
        read.span.start_ms - ended.span.end_ms < self.remember_ms
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
    /// logout whose session was replaced after its entries were emptied.
    fn may_empty(&self, ended: &Ended) -> bool {
        let mut begun = self.begun.iter().filter(|begun| begun.device == ended.by);
        let is_replaced = begun.any(|begun| begun.span.overlaps(&ended.span));
        ended.may_be() || (ended.is_logout && !ended.is_beside && is_replaced)
    }
}
