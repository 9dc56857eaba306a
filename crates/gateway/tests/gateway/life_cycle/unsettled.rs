//! Ends whose outcome is not known yet, or whose entries are still to be emptied.

use std::sync::atomic::Ordering;

use kitbag_client::Method;
use serde_json::json;
use tokio::time::timeout;

use super::SOON;
use super::stage::{BRIEF_MS, Stage, Trouble, delete, post};
use crate::support::until;
use crate::toy::{count, entry};

/// It is refused as by the homeserver itself, and not for what its own end left.
#[tokio::test]
async fn a_write_that_waits_while_its_device_deletes_itself_is_told_that_the_session_ended() {
    let stage = Stage::start(30_000).await;
    let permits = stage.holds(Method::DELETE, "/devices/");
    let (questions, deleted) = (
        count(&stage.upstream, "/whoami"),
        stage.send(delete("PHONE")),
    );
    stage.asked("/whoami", questions + 1).await;
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{}");
    let written = stage.send(write);
    stage.asked("/whoami", questions + 2).await;
    // Its session is known, and it waits for its turn, or soon will.
    permits.add_permits(1);
    let statuses = async { (deleted.await.unwrap(), written.await.unwrap()) };
    assert_eq!(timeout(SOON, statuses).await.unwrap(), (200, 401));
}

#[tokio::test]
async fn a_login_of_somebody_that_takes_long_keeps_nobody_from_a_device_that_began_anew() {
    let stage = Stage::start(30_000).await;
    assert_eq!(stage.status(delete("PHONE")).await, 200);
    stage.holds(Method::POST, "/register");
    let register = stage.send(super::post("register").body("{}"));
    stage.asked("/register", 1).await;
    stage.begins("PHONE");
    assert_eq!(stage.read("PHONE").await, 404);
    assert_eq!(stage.write("PHONE").await, 200);
    register.abort();
}

#[tokio::test]
async fn a_logout_with_a_token_that_is_told_nothing_about_leaves_its_device_empty() {
    for status in [401, 500] {
        let stage = Stage::start(30_000).await;
        stage.trouble(Method::GET, "/whoami", Trouble::Says(status));
        assert_eq!(stage.status(post("logout")).await, 200);
        stage.is_well();
        stage.begins("PHONE");
        assert_eq!(stage.read("PHONE").await, 404, "{status}");
        assert_eq!(stage.tombstones(), 1);
    }
}

#[tokio::test]
async fn what_a_dead_token_is_told_is_no_proof_that_devices_ended() {
    for path in ["logout", "logout/all"] {
        for status in [500, 502, 503] {
            let stage = Stage::start(30_000).await;
            assert_eq!(stage.write("LAPTOP").await, 200);
            stage.ends("PHONE");
            stage.trouble(Method::POST, path, Trouble::Says(status));
            assert_eq!(stage.status(post(path)).await, status);
            let looked = if path == "logout" { 1 } else { 2 };
            stage.asked_for_all_devices(looked).await;
            stage.begins("PHONE");
            // It waits for whoever looks.
            assert_eq!(stage.read("LAPTOP").await, 200, "{path} {status}");
            let own = entry(Method::GET, "LAPTOP", "", "alice.LAPTOP");
            assert_eq!(stage.status(own).await, 200, "{path} {status}");
            assert_eq!(stage.tombstones(), 0);
        }
    }
}

#[tokio::test]
async fn a_session_that_is_to_log_in_again_is_no_proof_that_its_device_ended() {
    for (why, expected) in [
        (
            "{\"errcode\":\"M_UNKNOWN_TOKEN\",\"soft_logout\":true}",
            200,
        ),
        ("{\"errcode\":\"M_USER_LOCKED\",\"soft_logout\":true}", 200),
        ("{\"errcode\":\"M_MISSING_TOKEN\"}", 200),
        ("<html>", 200),
        (
            "{\"errcode\":\"M_UNKNOWN_TOKEN\",\"soft_logout\":false}",
            404,
        ),
    ] {
        let stage = Stage::start(30_000).await;
        stage.trouble(Method::DELETE, "/devices/", Trouble::Says(504));
        stage.trouble(Method::GET, "v3/devices", Trouble::Tells(401, why));
        assert_eq!(stage.status(delete("PHONE")).await, 504);
        stage.asked_for_all_devices(1).await;
        stage.is_well();
        assert_eq!(stage.read("PHONE").await, expected, "{why}");
    }
}

#[tokio::test]
async fn nothing_is_deleted_while_the_homeserver_cannot_say_who_asks() {
    let stage = Stage::start(30_000).await;
    for status in [429, 500] {
        stage.trouble(Method::GET, "/whoami", Trouble::Says(status));
        assert_eq!(stage.status(delete("LAPTOP")).await, status);
    }
    let asked = count(&stage.upstream, "/devices/PHONE");
    assert_eq!(asked, 1, "that of the write");
}

#[tokio::test]
async fn a_new_password_ends_the_others_also_where_nobody_can_name_them() {
    let stage = Stage::start(30_000).await;
    assert_eq!(stage.write("LAPTOP").await, 200);
    stage.trouble(Method::GET, "v3/devices", Trouble::Says(500));
    stage.trouble(Method::GET, "/sync", Trouble::Says(500));
    let password = super::post("account/password").token("alice.LAPTOP");
    let password = password.body("{\"new_password\":\"a\"}");
    assert_eq!(stage.status(password).await, 200);
    stage.is_well();
    // It began anew before anything could be emptied.
    assert_eq!(stage.read("PHONE").await, 404);
    assert_eq!(stage.tombstones(), 1);
}

/// Of a device that ended past the gateway nothing but its entries tells.
#[tokio::test]
async fn what_is_found_where_all_end_and_is_not_emptied_then_is_owed_by_name() {
    for path in ["logout/all", "account/password"] {
        for is_slow in [true, false] {
            let stage = Stage::start(BRIEF_MS).await;
            stage.ends("PHONE");
            match is_slow {
                true => drop(stage.holds(Method::PUT, "/account_data/")),
                false => stage.trouble(Method::PUT, "/account_data/", Trouble::Says(500)),
            }
            let end = super::post(path).token("alice.LAPTOP");
            let end = end.body("{\"new_password\":\"a\"}");
            assert_eq!(stage.status(end).await, 200);
            stage.is_well();
            assert_eq!(stage.status(super::post("login").body("{}")).await, 200);
            // Until then the homeserver may still empty it.
            stage.clock.advance(10_000);
            assert_eq!(stage.read("PHONE").await, 404, "{path} {is_slow}");
            assert_eq!(stage.write("PHONE").await, 200, "{path} {is_slow}");
        }
    }
}

/// A device that ended past the gateway is emptied by whoever asks for it.
#[tokio::test]
async fn what_is_found_of_a_device_that_is_gone_and_is_not_emptied_then_is_owed() {
    for status in [500, 429] {
        let stage = Stage::start(30_000).await;
        stage.ends("PHONE");
        stage.trouble(Method::PUT, "/account_data/", Trouble::Says(status));
        stage.clock.advance(5_000);
        assert_eq!(stage.read("LAPTOP").await, 404);
        assert_eq!(stage.tombstones(), 1, "refused");
        // It is tried once more as what is owed, and then not so soon again.
        for _ in 0..3 {
            assert_eq!(stage.read("LAPTOP").await, 404);
            assert_eq!(stage.tombstones(), 2);
        }
        stage.begins("PHONE");
        assert_eq!(stage.read("PHONE").await, 404, "{status}");
        stage.is_well();
        assert_eq!(stage.status(super::post("login").body("{}")).await, 200);
        assert_eq!(stage.tombstones(), 3);
        assert_eq!(stage.write("PHONE").await, 200);
    }
}

/// It ended, as the homeserver does not have it, and may begin anew before it is tried again.
#[tokio::test]
async fn what_is_found_of_a_device_that_may_have_ended_and_is_not_emptied_then_is_owed() {
    for is_slow in [true, false] {
        let stage = Stage::start(BRIEF_MS).await;
        stage.trouble(Method::DELETE, "/devices/", Trouble::Does(502));
        match is_slow {
            true => drop(stage.holds(Method::PUT, "/account_data/")),
            false => stage.trouble(Method::PUT, "/account_data/", Trouble::Says(500)),
        }
        let laptop = delete("LAPTOP");
        assert_eq!(stage.status(laptop).await, 502);
        // Whoever looks what became of it finds the entry.
        stage.asked("/sync", 2).await;
        stage.emptied(1).await;
        assert_eq!(stage.read("LAPTOP").await, 404);
        stage.is_well();
        stage.begins("PHONE");
        // Until then the homeserver may still empty it, and then it lives.
        stage.clock.advance(10_000);
        assert_eq!(stage.read("PHONE").await, 404, "{is_slow}");
        stage.clock.advance(30_000);
        assert_eq!(stage.read("PHONE").await, 404, "{is_slow}");
        assert_eq!(stage.write("PHONE").await, 200, "{is_slow}");
    }
}

#[tokio::test]
async fn what_is_owed_and_found_again_is_given_up_at_last() {
    let stage = Stage::start(30_000).await;
    assert_eq!(stage.status(delete("PHONE")).await, 200);
    stage.trouble(Method::PUT, "PHONE.org.example.a", Trouble::Says(500));
    for hour in 1..=24 {
        stage.clock.advance(60 * 60 * 1_000);
        assert_eq!(stage.status(super::post("login").body("{}")).await, 200);
        assert_eq!(stage.tombstones(), hour);
    }
    stage.is_well();
    stage.clock.advance(60 * 60 * 1_000);
    assert_eq!(stage.write("PHONE").await, 200);
    assert_eq!(stage.tombstones(), 24);
}

/// Who lives on keeps what it has.
#[tokio::test]
async fn what_is_found_where_all_were_to_end_and_do_not_is_owed_of_those_that_are_gone() {
    for status in [403, 500] {
        let stage = Stage::start(30_000).await;
        assert_eq!(stage.write("LAPTOP").await, 200);
        stage.ends("PHONE");
        stage.trouble(Method::PUT, "/account_data/", Trouble::Says(500));
        stage.trouble(Method::POST, "/logout/all", Trouble::Says(status));
        let logout = super::post("logout/all").token("alice.LAPTOP");
        assert_eq!(stage.status(logout).await, status);
        stage.begins("PHONE");
        // Where no clear answer came it is looked at what became of it; who reads waits for that.
        assert_eq!(stage.read("LAPTOP").await, 404, "{status}");
        let own = entry(Method::GET, "LAPTOP", "", "alice.LAPTOP");
        assert_eq!(stage.status(own).await, 200, "{status}");
        stage.is_well();
        stage.clock.advance(30_000);
        assert_eq!(stage.read("PHONE").await, 404, "{status}");
        assert_eq!(stage.write("PHONE").await, 200, "{status}");
    }
}

#[tokio::test]
async fn what_a_deletion_without_a_clear_answer_ended_is_emptied_before_anybody_asks() {
    for status in [500, 202, 503] {
        let stage = Stage::start(30_000).await;
        stage.trouble(Method::DELETE, "/devices/", Trouble::Does(status));
        assert_eq!(stage.status(delete("LAPTOP")).await, status);
        stage.emptied(1).await;
    }
}

#[tokio::test]
async fn a_device_that_deleted_itself_without_a_clear_answer_starts_empty() {
    let stage = Stage::start(30_000).await;
    stage.trouble(Method::DELETE, "/devices/", Trouble::Does(504));
    assert_eq!(stage.status(delete("PHONE")).await, 504);
    // That its credentials are none any more tells it.
    until(|| stage.state.refused.load(Ordering::SeqCst) > 0).await;
    stage.begins("PHONE");
    let read = stage.read("PHONE").await;
    assert_eq!((read, stage.tombstones()), (404, 1));
    let stage = Stage::start(30_000).await;
    stage.trouble(Method::DELETE, "/devices/", Trouble::Says(504));
    assert_eq!(stage.status(delete("PHONE")).await, 504);
    // It lives, and keeps what it has.
    stage.clock.advance(30_000);
    assert_eq!(stage.read("LAPTOP").await, 200);
}

#[tokio::test]
async fn a_deletion_whose_turn_does_not_come_empties_nothing_yet() {
    let stage = Stage::start(BRIEF_MS).await;
    let permits = stage.holds(Method::PUT, "/account_data/");
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{}");
    let written = stage.send(write);
    stage.asked("PHONE.org.example.a", 4).await;
    // The write may still be done, so that its turn is held for a while.
    assert_eq!(stage.status(delete("LAPTOP")).await, 200);
    assert_eq!(stage.tombstones(), 0, "the write would land behind it");
    assert_eq!(written.await.unwrap(), 504);
    permits.close();
}

#[tokio::test]
async fn while_a_device_is_being_deleted_for_long_others_go_on_and_it_waits() {
    let stage = Stage::start(BRIEF_MS).await;
    let permits = stage.holds(Method::DELETE, "/devices/");
    let deleted = stage.send(delete("LAPTOP"));
    stage.asked("/devices/PHONE", 2).await;
    let others = async {
        // Until the turn is given up.
        while stage.write("LAPTOP").await != 200 {}
    };
    timeout(SOON, others).await.unwrap();
    assert_eq!(stage.read("LAPTOP").await, 503);
    assert_eq!(stage.write("PHONE").await, 503);
    permits.add_permits(1);
    assert_eq!(timeout(SOON, deleted).await.unwrap().unwrap(), 200);
    assert_eq!((stage.read("LAPTOP").await, stage.tombstones()), (404, 1));
}

#[tokio::test]
async fn what_may_have_ended_before_all_others_did_has() {
    let stage = Stage::start(30_000).await;
    stage.trouble(Method::DELETE, "/devices/", Trouble::Does(504));
    // So that nobody can look what became of it.
    stage.trouble(Method::GET, "v3/devices", Trouble::Says(500));
    assert_eq!(stage.status(delete("LAPTOP")).await, 504);
    stage.is_well();
    stage.trouble(Method::GET, "/sync", Trouble::Says(500));
    let logout = super::post("logout/all").token("alice.LAPTOP");
    assert_eq!(stage.status(logout).await, 200);
    stage.is_well();
    stage.begins("PHONE");
    stage.clock.advance(30_000);
    assert_eq!(stage.read("PHONE").await, 404);
}

/// Sends what ends devices in its last stage, and has PHONE end meanwhile unless it stays.
async fn last_stage(stage: &Stage, path: &'static str, body: &str, is_to_stay: bool) {
    let permits = stage.holds(Method::POST, path);
    let request = super::post(path).token("alice.LAPTOP");
    let told = stage.send(request.body(body.to_owned()));
    stage.asked(path, 1).await;
    if !is_to_stay {
        stage.ends("PHONE");
    }
    permits.add_permits(1);
    assert_eq!(timeout(SOON, told).await.unwrap().unwrap(), 200);
}

/// Synapse knows from the first stage which these are, and whether they are to stay.
#[tokio::test]
async fn a_last_stage_that_has_auth_alone_empties_devices_that_are_gone_and_none_that_lives() {
    for path in ["account/password", "delete_devices"] {
        for body in ["{\"auth\":{}}", "{\"auth\":{},\"logout_devices\":true}"] {
            for (is_to_stay, expected) in [(true, (200, 0)), (false, (404, 1))] {
                let stage = Stage::start(30_000).await;
                last_stage(&stage, path, body, is_to_stay).await;
                let read = stage.read("LAPTOP").await;
                assert_eq!((read, stage.tombstones()), expected, "{path} {body}");
            }
        }
    }
}

#[tokio::test]
async fn of_more_devices_than_can_be_owed_those_are_emptied_that_are_gone() {
    let stage = Stage::start(30_000).await;
    assert_eq!(stage.write("LAPTOP").await, 200);
    let devices = (0..999).map(|number| format!("D{number}"));
    let devices = devices.chain(["PHONE", "LAPTOP"].map(str::to_owned));
    let body = json!({"devices": devices.collect::<Vec<_>>()}).to_string();
    last_stage(&stage, "delete_devices", &body, false).await;
    assert_eq!((stage.read("LAPTOP").await, stage.tombstones()), (404, 1));
}

#[tokio::test]
async fn while_a_password_is_being_set_for_long_its_device_goes_on_and_others_wait() {
    for body in ["{\"auth\":{}}", "{\"new_password\":\"a\"}"] {
        let stage = Stage::start(BRIEF_MS).await;
        let permits = stage.holds(Method::POST, "account/password");
        let password = super::post("account/password").token("alice.LAPTOP");
        let told = stage.send(password.body(body));
        stage.asked("account/password", 1).await;
        let own = async {
            // Until the turn is given up.
            while stage.write("LAPTOP").await != 200 {}
        };
        timeout(SOON, own).await.unwrap();
        assert_eq!(stage.read("LAPTOP").await, 503, "{body}");
        assert_eq!(stage.write("PHONE").await, 503, "{body}");
        permits.add_permits(1);
        assert_eq!(timeout(SOON, told).await.unwrap().unwrap(), 200);
    }
}

#[tokio::test]
async fn what_ended_for_sure_is_paid_also_where_nobody_can_tell_what_else_did() {
    let stage = Stage::start(30_000).await;
    stage.trouble(Method::GET, "/sync", Trouble::Says(500));
    let logout = super::post("logout/all").token("alice.LAPTOP");
    assert_eq!(stage.status(logout).await, 200);
    stage.is_well();
    stage.trouble(Method::GET, "v3/devices", Trouble::Says(500));
    stage.begins("LAPTOP");
    stage.clock.advance(30_000);
    assert_eq!((stage.write("LAPTOP").await, stage.tombstones()), (500, 1));
    stage.is_well();
    assert_eq!(
        stage.write("LAPTOP").await,
        200,
        "it waits for what is paid"
    );
}
