//! The sweep, before a scripted homeserver that has Synapse's admin API.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use kitbag_gateway::{SweepError, SweepEvent, Swept, UpstreamSettings, sweep};
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, cut, json, reset, whole};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::toy::{PREFIX, TOMBSTONE, error};

/// Global account data by user and type.
type Stored = Arc<Mutex<BTreeMap<(String, String), Value>>>;

/// What the homeserver does otherwise.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Its second page of users fails.
    Page,
    /// Its third page of users names the second as the next one.
    Circle,
    /// It logs nobody in, as where the Matrix Authentication Service does.
    Login,
    /// It does not log anybody out.
    Logout,
    /// `GONE` is back as soon as somebody is logged in as its user.
    Back,
    /// Its answers in one place are none: there, and how.
    Broken(At, How),
}

/// Where an answer is none. Of the places that have to do with a user only those of `@a:x`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Whoami,
    /// The second page of them.
    Users,
    AccountData,
    Devices,
    Login,
    /// Of devices, once somebody is logged in as the user.
    DevicesAgain,
    Write,
}

/// How an answer is none.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// It ends in the midst of its body.
    Cut,
    /// It is a page of somebody between.
    Html,
    /// It does not come.
    Reset,
    /// It says that it was asked too often.
    TooMany,
}

impl At {
    /// Tells whether a request goes there, before or behind a login.
    fn is_of(self, asked: &Asked, is_behind_login: bool) -> bool {
        let path = asked.target.split('?').next().unwrap();
        let is_of_a = |end: &str| path.contains("%40a%3Ax") && path.ends_with(end);
        match self {
            Self::Whoami => path.ends_with("/whoami"),
            Self::Users => asked.target.contains("/users?from=1&"),
            Self::AccountData => is_of_a("/accountdata"),
            Self::Devices => is_of_a("/devices"),
            Self::Login => is_of_a("/login"),
            Self::DevicesAgain => is_behind_login && is_of_a("/devices"),
            Self::Write => asked.method == "PUT" && is_of_a(""),
        }
    }
}

impl How {
    fn answer(self) -> http::Response<ScriptedBody> {
        match self {
            Self::Cut => cut(200, "{"),
            Self::Html => whole(200, "<html>It works!</html>"),
            Self::Reset => reset(),
            Self::TooMany => error(429, "M_LIMIT_EXCEEDED"),
        }
    }
}

/// A homeserver with users `@admin:x` (the administrator), `@a:x`, `@b:x` and `@locked:x`, a page
/// each, all of whom have the device `LIVING`; nobody can log in as `@b:x` or `@locked:x`.
async fn synapse(stored: &Stored, fault: Fault) -> Scripted {
    let stored = Arc::clone(stored);
    let (is_back, pages) = (AtomicBool::new(false), AtomicUsize::new(0));
    let is_behind_login = AtomicBool::new(false);
    Scripted::start(move |asked| {
        let path = asked.target.split('?').next().unwrap();
        let was_login = is_behind_login.fetch_or(path.ends_with("/login"), Ordering::SeqCst);
        let answer = match path.rsplit('/').next().unwrap() {
            _ if matches!(fault, Fault::Broken(at, _) if at.is_of(&asked, was_login)) => {
                let Fault::Broken(_, how) = fault else {
                    unreachable!()
                };
                how.answer()
            }
            "users" if fault == Fault::Page && asked.target.contains("from=1") => {
                error(500, "M_UNKNOWN")
            }
            // Not for ever all the same, so that this is seen to fail.
            "users" if fault == Fault::Circle && pages.fetch_add(1, Ordering::SeqCst) < 10 => {
                match asked.target.contains("from=2") {
                    true => page("@b:x", Some("1")),
                    false => answer(&asked, &stored),
                }
            }
            "login" if fault == Fault::Login => error(404, "M_UNRECOGNIZED"),
            "logout" if fault == Fault::Logout => error(500, "M_UNKNOWN"),
            "login" if fault == Fault::Back => {
                is_back.store(true, Ordering::SeqCst);
                answer(&asked, &stored)
            }
            "devices" if is_back.load(Ordering::SeqCst) => json(
                200,
                &json!({"devices": [{"device_id": "LIVING"}, {"device_id": "GONE"}]}),
            ),
            _ => answer(&asked, &stored),
        };
        async move { answer }
    })
    .await
}

fn answer(asked: &Asked, stored: &Stored) -> http::Response<ScriptedBody> {
    let token = asked.headers["authorization"].to_str().unwrap();
    let who = match token {
        "Bearer kt_admin" => "@admin:x",
        "Bearer kt_of-a" => "@a:x",
        _ => return error(401, "M_UNKNOWN_TOKEN"),
    };
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let decoded = |segment: &str| {
        percent_decode_str(segment)
            .decode_utf8()
            .unwrap()
            .into_owned()
    };
    let segments: Vec<String> = path.split('/').skip(1).map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (asked.method.as_str(), segments.as_slice()) {
        ("GET", [.., "account", "whoami"]) => json(200, &json!({"user_id": who})),
        ("GET", ["_synapse", "admin", "v2", "users"]) => match query.split('&').next().unwrap() {
            "from=0" => page("@admin:x", Some("1")),
            "from=1" => page("@a:x", Some("2")),
            "from=2" => page("@b:x", Some("3")),
            // As Synapse has it.
            _ if query.contains("&locked=true") => json(
                200,
                &json!({"users": [{"name": "@locked:x", "locked": true}], "total": 4}),
            ),
            _ => json(200, &json!({"users": [], "total": 3})),
        },
        ("GET", [.., "users", user, "accountdata"]) => {
            let stored = stored.lock().unwrap();
            let of_user = stored.iter().filter(|((owner, _), _)| owner == user);
            let global = of_user.map(|((_, kind), content)| (kind.clone(), content.clone()));
            let global: serde_json::Map<_, _> = global.collect();
            json(
                200,
                &json!({"account_data": {"global": global, "rooms": {}}}),
            )
        }
        ("GET", [.., "users", _, "devices"]) => json(
            200,
            &json!({"devices": [{"device_id": "LIVING"}], "total": 1}),
        ),
        ("POST", [.., "users", "@a:x", "login"]) => json(200, &json!({"access_token": "kt_of-a"})),
        ("POST", [.., "logout"]) => json(200, &json!({})),
        ("PUT", [.., "user", user, "account_data", kind]) if *user == who => {
            let content = serde_json::from_slice(&asked.body).unwrap();
            let key = (who.to_owned(), (*kind).to_owned());
            stored.lock().unwrap().insert(key, content);
            json(200, &json!({}))
        }
        _ => error(403, "M_FORBIDDEN"),
    }
}

fn page(user: &str, next: Option<&str>) -> http::Response<ScriptedBody> {
    let mut page = json!({"users": [{"name": user}], "total": 4});
    if let Some(next) = next {
        page["next_token"] = json!(next);
    }
    json(200, &page)
}

async fn run(url: &str, token: &str, is_dry_run: bool) -> (Result<Swept, SweepError>, Vec<String>) {
    let settings = UpstreamSettings {
        url: Some(url.parse().unwrap()),
        ..UpstreamSettings::default()
    };
    let mut told = Vec::new();
    let mut progress = |event: SweepEvent<'_>| {
        told.push(match event {
            SweepEvent::Emptied { user, entries } => format!("{user}: {entries} emptied"),
            SweepEvent::Failed { user, error } => format!("{user}: {error}"),
        });
    };
    let clock = TestClock::default();
    let swept = sweep(settings, token, &clock, is_dry_run, &mut progress).await;
    (swept, told)
}

fn stored() -> Stored {
    let stored = Stored::default();
    for user in ["@admin:x", "@a:x", "@b:x", "@locked:x"] {
        for kind in ["m.direct", "LIVING.t", "GONE.t", "GONE.u"] {
            let kind = match kind.split_once('.') {
                Some((device, _)) if device != "m" => format!("{PREFIX}{kind}"),
                _ => kind.to_owned(),
            };
            let key = (user.to_owned(), kind);
            stored.lock().unwrap().insert(key, json!({"a": 1}));
        }
    }
    stored
}

fn tombstones(stored: &Stored) -> Vec<(String, String)> {
    let tombstone: Value = serde_json::from_str(TOMBSTONE).unwrap();
    let stored = stored.lock().unwrap();
    let emptied = stored.iter().filter(|(_, content)| **content == tombstone);
    emptied.map(|(key, _)| key.clone()).collect()
}

#[tokio::test]
async fn entries_of_devices_that_are_gone_are_emptied_for_each_user() {
    let stored = stored();
    let upstream = synapse(&stored, Fault::None).await;
    let (dry, _) = run(&upstream.url(), "kt_admin", true).await;
    assert_eq!(tombstones(&stored), []);
    let (swept, told) = run(&upstream.url(), "kt_admin", false).await;
    let expected = Swept {
        users: 4,
        living_entries: 4,
        emptied_entries: 4,
        locked_entries: 2,
        failed_users: 1,
    };
    assert_eq!(swept.unwrap(), expected);
    // Nobody was to be logged in as then.
    let dry = dry.unwrap();
    assert_eq!((dry.emptied_entries, dry.failed_users), (6, 0));
    let emptied = ["@a:x", "@admin:x"]
        .map(|user| ["GONE.t", "GONE.u"].map(|kind| (user.to_owned(), format!("{PREFIX}{kind}"))));
    assert_eq!(tombstones(&stored), emptied.concat());
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[2].contains("@b:x") && told[2].contains("403"),
        "{told:?}"
    );
    // The login ends with the work, and says when it ends else.
    let asked = upstream.asked();
    let logout = asked.iter().find(|asked| asked.target.ends_with("/logout"));
    assert_eq!(logout.unwrap().headers["authorization"], "Bearer kt_of-a");
    let login = asked.iter().find(|asked| asked.target.ends_with("/login"));
    let login: Value = serde_json::from_slice(&login.unwrap().body).unwrap();
    let until_ms = TestClock::START_MS + 600_000;
    assert_eq!(login, json!({"valid_until_ms": until_ms}));
    // What is empty is not emptied again.
    let (again, _) = run(&upstream.url(), "kt_admin", false).await;
    assert_eq!(again.unwrap().emptied_entries, 0);
}

#[tokio::test]
async fn a_list_of_users_that_fails_or_does_not_end_ends_the_sweep() {
    for (fault, expected) in [
        (Fault::Page, "500 at /_synapse/admin/v2/users"),
        (Fault::Circle, "the same page of users again"),
    ] {
        let stored = stored();
        let upstream = synapse(&stored, fault).await;
        let (swept, told) = run(&upstream.url(), "kt_admin", false).await;
        let error = swept.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        // What was done before is told.
        assert!(
            told[0].contains("@admin:x") || told[1].contains("@admin:x"),
            "{told:?}"
        );
        assert!(tombstones(&stored).len() >= 2);
    }
}

#[tokio::test]
async fn a_logout_that_fails_is_told_beside_what_was_emptied() {
    let stored = stored();
    let upstream = synapse(&stored, Fault::Logout).await;
    let (swept, told) = run(&upstream.url(), "kt_admin", false).await;
    let swept = swept.unwrap();
    assert_eq!((swept.emptied_entries, swept.failed_users), (4, 2));
    assert_eq!(tombstones(&stored).len(), 4);
    let failed = told.iter().find(|told| told.contains("logout")).unwrap();
    assert!(
        failed.contains("@a:x") && failed.contains("500"),
        "{told:?}"
    );
}

#[tokio::test]
async fn where_nobody_can_be_logged_in_as_a_sweep_says_so_of_each_and_empties_its_own_users() {
    let stored = stored();
    let upstream = synapse(&stored, Fault::Login).await;
    let (swept, told) = run(&upstream.url(), "kt_admin", false).await;
    let expected = Swept {
        users: 4,
        living_entries: 4,
        emptied_entries: 2,
        locked_entries: 2,
        failed_users: 2,
    };
    assert_eq!(swept.unwrap(), expected);
    let own = ["GONE.t", "GONE.u"].map(|kind| ("@admin:x".to_owned(), format!("{PREFIX}{kind}")));
    assert_eq!(tombstones(&stored), own);
    for user in ["@a:x", "@b:x"] {
        let failed = told.iter().find(|told| told.contains(user)).unwrap();
        let path = format!(
            "users/{}/login",
            user.replace('@', "%40").replace(':', "%3A")
        );
        let expected =
            format!("{user}: nobody can be logged in as a user at /_synapse/admin/v1/{path},");
        assert!(failed.starts_with(&expected), "{told:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_fails_the_user_or_the_sweep_and_empties_no_living_device() {
    const ADMIN: &str = "/_synapse/admin";
    const PLACES: [(At, &str); 7] = [
        (At::Whoami, "/_matrix/client/v3/account/whoami"),
        (At::Users, "v2/users"),
        (At::AccountData, "v1/users/%40a%3Ax/accountdata"),
        (At::Devices, "v2/users/%40a%3Ax/devices"),
        (At::Login, "v1/users/%40a%3Ax/login"),
        (At::DevicesAgain, "v2/users/%40a%3Ax/devices"),
        (At::Write, "/_matrix/client/v3/user/"),
    ];
    for (at, path) in PLACES {
        for how in [How::Cut, How::Html, How::Reset, How::TooMany] {
            let path = match path.starts_with('/') {
                true => path.to_owned(),
                false => format!("{ADMIN}/{path}"),
            };
            let expected = match how {
                How::Cut | How::Reset => {
                    "the homeserver cannot be asked: it gave no usable answer".to_owned()
                }
                How::Html => format!("the answer of the homeserver at {path}"),
                How::TooMany => format!("the homeserver answered 429 at {path}"),
            };
            let stored = stored();
            let upstream = synapse(&stored, Fault::Broken(at, how)).await;
            let (swept, told) = run(&upstream.url(), "kt_admin", false).await;
            if matches!(at, At::Whoami | At::Users) {
                let error = swept.unwrap_err().to_string();
                assert!(error.starts_with(&expected), "{at:?} {how:?}: {error}");
            } else {
                let swept = swept.unwrap();
                let is_of_a = |told: &&String| told.starts_with("@a:x: ");
                let of_a: Vec<_> = told.iter().filter(is_of_a).collect();
                let expected = format!("@a:x: {expected}");
                assert!(of_a[0].starts_with(&expected), "{at:?} {how:?}: {of_a:?}");
                // `@b:x` is one of those for whom nobody can do it.
                let counts = (swept.emptied_entries, swept.failed_users);
                assert_eq!((of_a.len(), counts), (1, (2, 2)), "{at:?} {how:?}");
            }
            let own = ["GONE.t", "GONE.u"];
            let own = own.map(|kind| ("@admin:x".to_owned(), format!("{PREFIX}{kind}")));
            let expected = if at == At::Whoami { &own[..0] } else { &own };
            assert_eq!(tombstones(&stored), expected, "{at:?} {how:?}");
            // Who was logged in as is logged out.
            let count = |end: &str| {
                let asked = upstream.asked();
                asked
                    .iter()
                    .filter(|asked| asked.target.ends_with(end))
                    .count()
            };
            let is_logged_in = matches!(at, At::DevicesAgain | At::Write);
            assert_eq!(
                count("/logout"),
                usize::from(is_logged_in),
                "{at:?} {how:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_a_device_wrote_that_came_back_meanwhile_stays() {
    let stored = stored();
    let upstream = synapse(&stored, Fault::Back).await;
    let (swept, _) = run(&upstream.url(), "kt_admin", false).await;
    let swept = swept.unwrap();
    let own = ["GONE.t", "GONE.u"].map(|kind| ("@admin:x".to_owned(), format!("{PREFIX}{kind}")));
    assert_eq!(tombstones(&stored), own);
    // Its own are emptied before; from then on the script has the device back for all.
    assert_eq!((swept.emptied_entries, swept.living_entries), (2, 10));
}

#[tokio::test]
async fn where_there_is_no_admin_api_or_no_administrator_a_sweep_says_so() {
    for (status, expected) in [(404, "no admin API"), (403, "not take the token")] {
        let upstream = Scripted::start(move |asked| async move {
            match asked.target.contains("whoami") {
                true => json(200, &json!({"user_id": "@a:x"})),
                false => error(status, "M_UNRECOGNIZED"),
            }
        });
        let upstream = upstream.await;
        let (swept, _) = run(&upstream.url(), "kt_token", false).await;
        let error = swept.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let upstream = synapse(&stored(), Fault::None).await;
    let (swept, _) = run(&upstream.url(), "kt_nobody", false).await;
    assert!(matches!(swept, Err(SweepError::NotAdmin { status: 401 })));
    let (swept, _) = run(&upstream.url(), "a\nb", false).await;
    assert!(matches!(swept, Err(SweepError::BadToken)));
}
