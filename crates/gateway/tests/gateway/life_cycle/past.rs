//! Ends past the gateway.

use std::sync::{Arc, Mutex};

use kitbag_client::{Client, Method};
use kitbag_testkit::scripted::{Scripted, whole};
use serde_json::json;

use super::{has, kept, login, post, put, three, tombstone, with_password};
use crate::support::{PASSWORD, gateway};
use crate::toy::{self, Stored, entry};

#[tokio::test]
async fn entries_of_a_device_that_was_removed_past_the_gateway_are_emptied_when_they_are_read() {
    let (lab, [phone, laptop, _], user) = three().await;
    let beside = lab.beside().with_session(phone.session().clone());
    beside.logout().await.unwrap();
    assert!(!has(&laptop, "PHONE").await);
    assert_eq!(kept(&lab, &laptop, "PHONE").await, tombstone());
    login(&lab.beside(), &user, "PHONE").await;
    assert!(!has(&laptop, "PHONE").await);
    // The same again: that it was empty once is not taken for granted.
    let again = login(&lab.client(), &user, "PHONE").await;
    put(&again).await;
    let beside = lab.beside().with_session(again.session().clone());
    beside.logout().await.unwrap();
    lab.clock.advance(5_000);
    assert!(!has(&laptop, "PHONE").await);
    assert_eq!(kept(&lab, &laptop, "PHONE").await, tombstone());
}

/// The one documented exception: nothing tells the gateway that it is another device.
#[tokio::test]
async fn a_device_removed_past_the_gateway_and_made_anew_reads_the_entries_of_the_one_before() {
    for is_anew_beside in [true, false] {
        let (lab, [phone, laptop, _], user) = three().await;
        let beside = lab.beside().with_session(phone.session().clone());
        beside.logout().await.unwrap();
        // A login tells nothing of whether there was such a device before.
        let anew = if is_anew_beside {
            lab.beside()
        } else {
            lab.client()
        };
        login(&anew, &user, "PHONE").await;
        assert!(has(&laptop, "PHONE").await, "{is_anew_beside}");
    }
}

/// What is still to be emptied is in memory alone, and so is that an end was not clear.
#[tokio::test]
async fn a_restart_forgets_what_was_to_be_emptied_and_a_device_made_anew_behind_it_reads_that() {
    for is_asked in [true, false] {
        let (lab, [phone, laptop, _], user) = three().await;
        phone.delete_device("PHONE", PASSWORD).await.unwrap();
        let restarted = gateway(&lab.homeserver.url, |_| {}).await;
        let client = Client::new(&restarted.url).unwrap();
        let laptop = client.with_session(laptop.session().clone());
        if is_asked {
            assert!(!has(&laptop, "PHONE").await, "there is no such device");
            assert_eq!(kept(&lab, &laptop, "PHONE").await, tombstone());
        }
        let again = login(&client, &user, "PHONE").await;
        assert_eq!(has(&again, "PHONE").await, !is_asked);
    }
}

#[tokio::test]
async fn what_is_removed_past_the_gateway_can_be_read_for_five_seconds() {
    let (lab, [phone, laptop, _], _) = three().await;
    assert!(has(&laptop, "PHONE").await);
    let beside = lab.beside().with_session(phone.session().clone());
    beside.logout().await.unwrap();
    lab.clock.advance(4_999);
    assert!(has(&laptop, "PHONE").await);
    lab.clock.advance(1);
    assert!(!has(&laptop, "PHONE").await);
}

#[tokio::test]
async fn a_404_that_does_not_say_that_nothing_is_there_is_no_answer() {
    let (stored, lost) = (Stored::default(), Arc::<Mutex<Option<(_, _)>>>::default());
    let losing = Arc::clone(&lost);
    let upstream = Scripted::start(move |asked| {
        let answer = match *losing.lock().unwrap() {
            Some((part, body)) if asked.target.contains(part) => whole(404, body),
            _ => toy::answer(&asked, &stored),
        };
        async move { answer }
    });
    let upstream = upstream.await;
    let nothing = |set: &mut kitbag_gateway::Settings| set.upstream.remember_ms = 0;
    let gateway = gateway(&upstream.url(), nothing).await;
    let client = Client::new(&gateway.url).unwrap();
    let status = async |request| client.send(request).await.unwrap().status;
    let write = || entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    let read = || entry(Method::GET, "PHONE", "", "alice.LAPTOP");
    assert_eq!(status(write()).await, 200);
    let written = || {
        let asked = upstream.asked();
        asked
            .iter()
            .filter(|asked| asked.method == Method::PUT)
            .count()
    };
    for part in ["/devices/", "/account_data/"] {
        for body in ["<html>", "{}", "{\"errcode\":\"M_UNRECOGNIZED\"}"] {
            *lost.lock().unwrap() = Some((part, body));
            assert_eq!(status(read()).await, 502, "{part} {body}");
            assert_eq!(status(write()).await, 502, "{part} {body}");
        }
    }
    assert_eq!(written(), 1, "nothing was emptied or written over");
    *lost.lock().unwrap() = Some(("/devices/", "{\"errcode\":\"M_NOT_FOUND\"}"));
    assert_eq!(status(read()).await, 404);
    assert_eq!(written(), 2, "it was emptied");
}

#[tokio::test]
async fn what_ended_past_the_gateway_is_emptied_where_all_others_end_through_it() {
    for path in ["logout/all", "account/password"] {
        let (lab, [phone, laptop, _], user) = three().await;
        let beside = lab.beside().with_session(phone.session().clone());
        beside.logout().await.unwrap();
        if path == "logout/all" {
            laptop.logout_all().await.unwrap();
        } else {
            let body = json!({"new_password": PASSWORD});
            with_password(&laptop, post(path), &body).await;
        }
        let again = login(&lab.client(), &user, "PHONE").await;
        assert!(!has(&again, "PHONE").await, "{path}");
    }
}
