//! Logins, refreshes and registrations against what ends or takes the account meanwhile.

use serde_json::json;

use super::{C3, Lab, login_call, session_of, until};
use crate::support::{Call, PASSWORD, Session};

fn whoami(session: &Session) -> Call {
    Call::get(format!("{C3}/account/whoami")).by(session)
}

/// The password was right when it was checked; the account has another one, or none, when the
/// session is to be made.
#[tokio::test]
async fn a_login_meets_the_end_of_its_password() {
    for path in ["/account/password", "/account/deactivate"] {
        let lab = Lab::new().await;
        let mut stop = lab.pausing.stop_before("login");
        let mut login = lab.start(login_call("NEW"));
        until(&mut stop, &mut login).await;
        let auth = lab.tablet.password_auth(PASSWORD);
        let body = json!({"auth": auth, "new_password": "x"}).to_string();
        let change = Call::post(format!("{C3}{path}"), body).by(&lab.tablet);
        assert_eq!(lab.send(change).await.status, 200, "{path}");
        stop.go_on();
        login.await.assert_is(403, "M_FORBIDDEN");
        let devices = lab
            .send(Call::get(format!("{C3}/devices")).by(&lab.tablet))
            .await;
        assert!(!devices.text().contains("NEW"), "{path}: {devices:?}");
    }
}

/// The other order: the session is made, its answer is on the way, and the change removes it.
#[tokio::test]
async fn a_login_before_a_new_password_ends_with_the_old_one() {
    let lab = Lab::new().await;
    let mut stop = lab.pausing.stop_after("login");
    let mut login = lab.start(login_call("NEW"));
    until(&mut stop, &mut login).await;
    let auth = lab.tablet.password_auth(PASSWORD);
    let body = json!({"auth": auth, "new_password": "x"}).to_string();
    let change = Call::post(format!("{C3}/account/password"), body).by(&lab.tablet);
    assert_eq!(lab.send(change).await.status, 200);
    stop.go_on();
    let newcomer = session_of(&lab.alice, "NEW", &login.await.assert_ok());
    lab.send(whoami(&newcomer))
        .await
        .assert_is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(lab.send(whoami(&lab.tablet)).await.status, 200);
}

/// The device goes between the two looks of a refresh, or right behind it.
#[tokio::test]
async fn a_refresh_meets_a_logout() {
    for is_before in [true, false] {
        let lab = Lab::new().await;
        let login = lab.send(login_call("FRESH")).await.assert_ok();
        let device = session_of(&lab.alice, "FRESH", &login);
        let body = json!({"refresh_token": login["refresh_token"]}).to_string();
        let refresh = Call::post(format!("{C3}/refresh"), body);
        let mut stop = match is_before {
            true => lab.pausing.stop_before("refresh"),
            false => lab.pausing.stop_after("refresh"),
        };
        let mut begun = lab.start(refresh.clone());
        until(&mut stop, &mut begun).await;
        let logout = Call::post(format!("{C3}/logout"), "").by(&device);
        assert_eq!(lab.send(logout).await.status, 200);
        stop.go_on();
        let reply = begun.await;
        if is_before {
            reply.assert_is(401, "M_UNKNOWN_TOKEN");
        } else {
            let renewed = session_of(&lab.alice, "FRESH", &reply.assert_ok());
            lab.send(whoami(&renewed))
                .await
                .assert_is(401, "M_UNKNOWN_TOKEN");
        }
        lab.send(refresh).await.assert_is(401, "M_UNKNOWN_TOKEN");
        assert_eq!(lab.send(whoami(&lab.tablet)).await.status, 200);
    }
}

/// A client that asks twice, since it missed the first answer: one of the two pairs is good.
#[tokio::test]
async fn two_refreshes_with_one_token_leave_one_session() {
    let lab = Lab::new().await;
    let login = lab.send(login_call("FRESH")).await.assert_ok();
    let body = json!({"refresh_token": login["refresh_token"]}).to_string();
    let refresh = Call::post(format!("{C3}/refresh"), body);
    let mut stop = lab.pausing.stop_before("refresh");
    let mut first = lab.start(refresh.clone());
    until(&mut stop, &mut first).await;
    let second = lab.send(refresh).await.assert_ok();
    stop.go_on();
    let first = first.await.assert_ok();
    let session = |told| session_of(&lab.alice, "FRESH", told);
    // The later one replaced what was not used yet.
    lab.send(whoami(&session(&second)))
        .await
        .assert_is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(lab.send(whoami(&session(&first))).await.status, 200);
    lab.send(whoami(&session(&login)))
        .await
        .assert_is(401, "M_UNKNOWN_TOKEN");
}

/// The name was free when it was looked at.
#[tokio::test]
async fn two_registrations_of_one_name_make_one_account() {
    let lab = Lab::new().await;
    let call = |password: &str| {
        let auth = json!({"type": "m.login.dummy"});
        let body = json!({"username": "carol", "password": password, "auth": auth});
        Call::post(format!("{C3}/register"), body.to_string())
    };
    let mut stop = lab.pausing.stop_before("register");
    let mut first = lab.start(call("one"));
    until(&mut stop, &mut first).await;
    assert_eq!(lab.send(call("two")).await.status, 200);
    stop.go_on();
    first.await.assert_is(400, "M_USER_IN_USE");
    for (password, status) in [("one", 403), ("two", 200)] {
        let body = json!({"type": "m.login.password", "user": "carol", "password": password});
        let login = Call::post(format!("{C3}/login"), body.to_string());
        assert_eq!(lab.send(login).await.status, status, "{password}");
    }
}
