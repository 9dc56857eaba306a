//! What must be stored: a model of a few lines, and a set of what may be, where an outcome is unknown.

use std::collections::BTreeMap;

use kitbag_domain::{DeviceId, Key, Position, Scope, TokenHash, UserId};

/// One write of the load.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Delete(UserId, Key),
    Login(UserId, DeviceId, TokenHash),
    Put(UserId, Vec<(Key, String)>),
    Register(UserId, DeviceId, TokenHash),
    RemoveDevice(UserId, DeviceId),
}

impl Act {
    pub(crate) fn user(&self) -> &UserId {
        match self {
            Self::Delete(user, _)
            | Self::Login(user, ..)
            | Self::Put(user, _)
            | Self::Register(user, ..)
            | Self::RemoveDevice(user, _) => user,
        }
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Done,
    Refused,
    /// Nothing was done.
    Unavailable,
    Unknown,
}

/// What is stored of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) head: Position,
    /// The live entries, with their positions.
    pub(crate) entries: BTreeMap<Key, (Position, String)>,
    /// The devices, with the token of their session.
    pub(crate) devices: BTreeMap<DeviceId, TokenHash>,
}

/// What is stored.
pub(crate) type State = BTreeMap<UserId, User>;

/// Makes a write; tells whether it is refused, in which case nothing was changed.
fn run(state: &mut State, act: &Act) -> Told {
    if let Act::Register(name, device, token) = act {
        if state.contains_key(name) {
            return Told::Refused;
        }
        let mut user = User::default();
        user.head = user.head.next();
        user.devices.insert(device.clone(), *token);
        state.insert(name.clone(), user);
        return Told::Done;
    }
    let Some(user) = state.get_mut(act.user()) else {
        return Told::Refused;
    };
    match act {
        Act::Delete(_, key) => {
            if user.entries.remove(key).is_some() {
                user.head = user.head.next();
            }
        }
        Act::Login(_, device, token) => {
            if user.devices.insert(device.clone(), *token).is_none() {
                user.head = user.head.next();
            }
        }
        Act::Put(_, entries) => {
            let is_missing = |(key, _): &(Key, String)| match &key.scope {
                Scope::Device(device) => !user.devices.contains_key(device),
                Scope::Global | Scope::Room(_) => false,
            };
            if entries.iter().any(is_missing) {
                return Told::Refused;
            }
            for (key, text) in entries {
                user.head = user.head.next();
                let entry = (user.head, text.clone());
                user.entries.insert(key.clone(), entry);
            }
        }
        Act::RemoveDevice(_, device) => {
            if user.devices.remove(device).is_some() {
                let all = user.entries.len();
                user.entries
                    .retain(|key, _| key.scope.device() != Some(device));
                let removed = all - user.entries.len();
                user.head = (0..removed).fold(user.head, |head, _| head.next());
            }
            user.head = user.head.next();
        }
        Act::Register(..) => {}
    }
    Told::Done
}

/// Everything that may be stored, after what callers were told.
#[derive(Debug)]
pub(crate) struct Possible {
    states: Vec<State>,
    /// Whether no write was in doubt since the last one that was answered for certain.
    pub(crate) is_settled: bool,
}

impl Default for Possible {
    fn default() -> Self {
        Self {
            states: vec![State::new()],
            is_settled: true,
        }
    }
}

impl Possible {
    /// Takes in what a caller was told.
    #[track_caller]
    pub(crate) fn note(&mut self, act: &Act, told: Told) {
        let ran = self.states.iter().map(|state| {
            let mut after = state.clone();
            let outcome = run(&mut after, act);
            (state.clone(), after, outcome)
        });
        let ran: Vec<_> = ran.collect();
        match told {
            Told::Unavailable => return,
            Told::Unknown => {
                self.is_settled = false;
                let after = ran
                    .into_iter()
                    .filter(|(_, _, outcome)| *outcome == Told::Done);
                self.states.extend(after.map(|(_, after, _)| after));
            }
            Told::Done | Told::Refused => {
                self.is_settled = true;
                let agree = ran.into_iter().filter(|(_, _, outcome)| *outcome == told);
                self.states = agree.map(|(_, after, _)| after).collect();
            }
        }
        assert!(
            !self.states.is_empty(),
            "{act:?} was {told:?}, which cannot be"
        );
        self.states.dedup();
    }

    /// Takes in the entries of one user, as one snapshot told them.
    ///
    /// While a write is in doubt it may still appear: so a later state stays possible.
    #[track_caller]
    pub(crate) fn glance(
        &mut self,
        user: &UserId,
        head: Position,
        entries: &BTreeMap<Key, (Position, String)>,
    ) {
        let seen = |state: &State| match state.get(user) {
            Some(user) => user.head == head && user.entries == *entries,
            None => head == Position::ZERO && entries.is_empty(),
        };
        let matching = self.states.iter().any(seen);
        assert!(matching, "{user} has {entries:?} at {head}, not {self:?}");
        let is_settled = self.is_settled;
        let head_of = |state: &State| state.get(user).map_or(Position::ZERO, |user| user.head);
        self.states
            .retain(|state| seen(state) || (!is_settled && head_of(state) > head));
    }

    /// Takes in everything, once no write is in doubt.
    #[track_caller]
    pub(crate) fn look(&mut self, seen: &State) {
        let matching = self.states.contains(seen);
        assert!(matching, "{seen:?} is stored, not {self:?}");
        self.states = vec![seen.clone()];
    }

    /// Returns all tokens by which somebody may be logged in.
    pub(crate) fn tokens(&self) -> Vec<(UserId, DeviceId, TokenHash)> {
        let users = self.states.iter().flatten();
        let devices = users.flat_map(|(name, user)| {
            let devices = user.devices.iter();
            devices.map(|(device, token)| (name.clone(), device.clone(), *token))
        });
        devices.collect()
    }
}
