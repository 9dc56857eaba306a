use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kitbag_gateway::{Homeserver, UpstreamSettings};
use kitbag_testkit::scripted::{Asked, Scripted, whole};

use super::*;

const RULES: &str = r#"{ "global": {"override": []} }"#;

/// What the script does otherwise than a homeserver that takes every write.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Its syncs are larger than what is read.
    EndlessSync,
    /// It says of every device that it is there.
    EveryDevice,
    /// It says of no device that it is not there, but that there is no such path.
    NoSuchPath,
    /// Its logins name no device.
    NoDevice,
    /// What it says to a deletion is larger than what is read.
    EndlessDeletion,
    /// It does not let one of the types be emptied.
    Keeps,
    /// It takes `{}` for a deletion.
    EmptyDeletes,
    /// It takes each request only when it is sent once more, a moment later.
    Hasty,
    /// From the first deletion on it wants to be left alone for five minutes.
    Tired,
    /// There is a proxy before it, which does not reach it when it is asked for a sync.
    Away,
}

type Stored = Arc<Mutex<BTreeMap<String, Bytes>>>;

fn answer(asked: &Asked, stored: &Stored, fault: Fault) -> (u16, Bytes) {
    let mut stored = stored.lock().unwrap();
    let path = asked.target.split('?').next().unwrap().to_owned();
    let json = |status, value: Value| (status, Bytes::from(value.to_string()));
    let none = || json(404, json!({"errcode": "M_NOT_FOUND"}));
    let endless = || (200, vec![b' '; 17 * 1024 * 1024].into());
    let is_empty = *asked.body == *b"{}";
    match (asked.method.as_str(), &*path) {
        ("POST", "/_matrix/client/v3/login") if fault == Fault::NoDevice => {
            json(200, json!({"user_id": "@a:b", "access_token": "t"}))
        }
        ("POST", "/_matrix/client/v3/login") | ("GET", "/_matrix/client/v3/account/whoami") => {
            json(
                200,
                json!({"user_id": "@a:b", "device_id": "D", "access_token": "t"}),
            )
        }
        ("GET", path) if path.starts_with("/_matrix/client/v3/devices/") => {
            match path.ends_with("/D") || fault == Fault::EveryDevice {
                true => json(200, json!({})),
                false if fault == Fault::NoSuchPath => {
                    json(404, json!({"errcode": "M_UNRECOGNIZED"}))
                }
                false => none(),
            }
        }
        ("GET", "/_matrix/client/v3/sync") if fault == Fault::EndlessSync => endless(),
        ("GET", "/_matrix/client/v3/sync") if fault == Fault::Away => {
            (504, "<html>Gateway Time-out</html>".into())
        }
        ("GET", "/_matrix/client/v3/sync") => {
            let events = json!([{"type": MAPPED, "content": {}}]);
            json(200, json!({"account_data": {"events": events}}))
        }
        ("PUT", _) if fault == Fault::EmptyDeletes && is_empty => {
            stored.remove(&path);
            json(200, json!({}))
        }
        ("PUT", path) if fault == Fault::Keeps && path.contains("A%252EB") && is_empty => {
            json(500, json!({"errcode": "M_UNKNOWN"}))
        }
        ("DELETE", _) if fault == Fault::EndlessDeletion => endless(),
        ("PUT", _) => {
            stored.insert(path, asked.body.clone());
            json(200, json!({}))
        }
        ("POST", _) => json(200, json!({})),
        ("GET", _) if path.ends_with("m%2Epush%5Frules") => (200, RULES.into()),
        ("GET", _) => stored
            .get(&path)
            .map_or_else(none, |body| (200, body.clone())),
        _ => none(),
    }
}

struct Examined {
    report: Report,
    looked: Result<()>,
    asked: Vec<Asked>,
    /// What it has at the end.
    left: Vec<Bytes>,
}

/// Has a homeserver looked at, which must see a logout at the end.
async fn examined(fault: Fault) -> Examined {
    let stored = Stored::default();
    let kept = Arc::clone(&stored);
    let (count, deletions) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let scripted = Scripted::start(move |asked| {
        let is_deletion = asked.method == "DELETE";
        let deletions = deletions.fetch_add(is_deletion.into(), Ordering::SeqCst);
        let wait_ms = match fault {
            Fault::Hasty if count.fetch_add(1, Ordering::SeqCst) % 2 == 0 => Some(1),
            Fault::Tired if deletions > 0 || is_deletion => Some(300_000),
            _ => None,
        };
        let (status, body) = match wait_ms {
            Some(wait_ms) => {
                let told = json!({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": wait_ms});
                (429, told.to_string().into())
            }
            None => answer(&asked, &stored, fault),
        };
        async move { whole(status, body) }
    });
    let scripted = scripted.await;
    let homeserver = Homeserver::new(UpstreamSettings {
        url: Some(scripted.url().parse().unwrap()),
        ..UpstreamSettings::default()
    });
    let mut report = Report::new(scripted.url());
    let homeserver = Patient::new(homeserver.unwrap());
    let looked = look(&homeserver, &mut report, "a", "secret").await;
    let kept = kept.lock().unwrap();
    let left = kept
        .iter()
        .filter(|(path, _)| path.contains("org%2Ekitbag%2Edoctor"));
    let left = left.map(|(_, body)| body.clone()).collect();
    let asked = scripted.asked();
    assert!(asked.last().unwrap().target.ends_with("/logout"));
    Examined {
        report,
        looked,
        asked,
        left,
    }
}

fn said<'a>(report: &'a Report, what: &str) -> &'a str {
    let check = report.checks.iter().find(|check| check.what == what);
    &check.unwrap().homeserver
}

#[tokio::test]
async fn nothing_is_written_but_types_of_its_own_and_push_rules_as_they_were_read() {
    let examined = examined(Fault::None).await;
    examined.looked.unwrap();
    let Examined { report, left, .. } = examined;
    assert_eq!(said(&report, "PUT of m.push_rules"), "overwritten");
    assert_eq!(
        said(&report, "an entry under a long type"),
        "kept byte for byte"
    );
    assert_eq!(report.is_fit(), Some(true), "{report:?}");
    let mut rules = 0;
    for asked in &examined.asked {
        let is_write = ["PUT", "DELETE"].contains(&asked.method.as_str());
        if asked.target.ends_with("m%2Epush%5Frules") && is_write {
            assert_eq!(
                (asked.method.as_str(), &*asked.body),
                ("PUT", RULES.as_bytes())
            );
            rules += 1;
        } else if is_write {
            let is_own = asked.target.contains("/account_data/org%2Ekitbag%2Edoctor");
            assert!(is_own, "{asked:?}");
        }
    }
    assert_eq!(rules, 1);
    // It cannot delete, so that is what is left, and it is told.
    assert_eq!(left, ["{}", "{}"]);
    assert_eq!(report.left, [MAPPED, USUAL]);
}

#[tokio::test]
async fn where_something_fails_it_empties_and_logs_out_all_the_same() {
    for (fault, expected, left) in [
        (Fault::NoDevice, "no `device_id`", &[][..]),
        (Fault::EndlessSync, "larger than", &["{}", "{}"]),
        (Fault::EndlessDeletion, "larger than", &["{}", "{}"]),
        (
            Fault::Keeps,
            "could not be emptied: 500 M_UNKNOWN",
            &[CONTENT, "{}"],
        ),
    ] {
        let examined = examined(fault).await;
        let error = format!("{:#}", examined.looked.unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert_eq!(examined.left, left, "{expected}");
    }
}

#[tokio::test]
async fn who_is_asked_too_often_is_asked_again_when_it_says() {
    let [well, hasty] = [examined(Fault::None).await, examined(Fault::Hasty).await];
    hasty.looked.unwrap();
    assert_eq!(hasty.left, well.left);
    assert_eq!(hasty.report.left, well.report.left);
    for (hasty, well) in hasty.report.checks.iter().zip(&well.report.checks) {
        let expected = match well.what {
            // What was read is not written later.
            "PUT of m.push_rules" => "not seen (429 M_LIMIT_EXCEEDED)",
            _ => &well.homeserver,
        };
        assert_eq!(hasty.homeserver, expected, "{}", well.what);
    }
}

#[tokio::test]
async fn what_could_not_be_emptied_is_named_each() {
    let Examined {
        mut report,
        looked,
        left,
        ..
    } = examined(Fault::Tired).await;
    let error = format!("{:#}", looked.unwrap_err());
    let again = "it answered 429 M_LIMIT_EXCEEDED: it is to be asked again in 300 s";
    for part in [
        &format!("DELETE of an entry: {again}"),
        &format!("{MAPPED} could not be emptied: {again}"),
        &format!("{USUAL} could not be emptied: {again}"),
        &format!("could not be logged out: {again}"),
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(left, [CONTENT, REVISED]);
    assert_eq!(
        (&report.left[..], &report.kept[..]),
        (&[][..], &[MAPPED.to_owned(), USUAL.to_owned()][..])
    );
    let is_told = |what| report.checks.iter().any(|check| check.what == what);
    assert!(!is_told("DELETE of an entry (MSC3391)"), "nobody saw that");
    report.failure = Some(error);
    let expected = format!("since it could not be emptied:\n  {MAPPED}\n  {USUAL}\n");
    assert!(report.text().contains(&expected), "{}", report.text());
    assert_eq!(report.is_fit(), None);
}

#[tokio::test]
async fn a_proxy_that_does_not_reach_it_is_no_lack_of_it() {
    let Examined {
        mut report, looked, ..
    } = examined(Fault::Away).await;
    let error = format!("{:#}", looked.unwrap_err());
    let expected = "a sync with a filter: it answered 504, as where a homeserver behind it is down";
    assert_eq!(error, expected);
    report.failure = Some(error);
    assert_eq!(report.is_fit(), None);
    assert_eq!(report.left, [MAPPED, USUAL]);
}

#[tokio::test]
async fn a_homeserver_that_takes_an_empty_entry_for_a_deletion_is_told() {
    let expected = [
        (Fault::None, "kept", "as it is"),
        (
            Fault::EmptyDeletes,
            "taken for a deletion",
            "the same: of a device too it reads as none",
        ),
    ];
    for (fault, homeserver, gateway) in expected {
        let Examined { report, .. } = examined(fault).await;
        let what = "an entry that is {}";
        let check = report.checks.iter().find(|check| check.what == what);
        let check = check.unwrap();
        assert_eq!((&*check.homeserver, check.gateway), (homeserver, gateway));
    }
}

#[tokio::test]
async fn what_the_gateway_needs_and_is_not_there_makes_it_unfit() {
    for fault in [Fault::EveryDevice, Fault::NoSuchPath] {
        let Examined { report, .. } = examined(fault).await;
        assert_eq!(report.is_fit(), Some(false));
        let missing = report.checks.iter().filter(|check| check.is_missing);
        let missing: Vec<_> = missing.map(|check| check.what).collect();
        assert_eq!(missing, ["GET of a device"]);
        let text = report.text();
        assert!(text.contains("does not work: the gateway needs this"));
    }
}
