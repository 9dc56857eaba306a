//! The lives of devices: their account data end with them.

mod anew;
mod late;
mod logout;
mod past;
mod places;
mod removal;
mod stage;
mod unsettled;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kitbag_client::{Account, Client, Login, Method, Request, Scope};
use kitbag_testkit::scripted::{Asked, Scripted, json};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{Lab, PASSWORD, SOON, gateway, until};
use crate::toy::{self, Stored, entry};

const KIND: &str = "org.example.a";

/// Logs in through the gateway, or past it.
async fn login(client: &Client, user: &str, device: &str) -> Account {
    let login = Login {
        device_id: Some(device),
        ..Login::password(user, PASSWORD)
    };
    client.login(&login).await.unwrap()
}

async fn put(account: &Account) {
    let device = account.session().device_id.clone();
    let content = json!({"of": device});
    let scope = Scope::Device(&device);
    account.put(scope, KIND, &content).await.unwrap();
}

async fn has(account: &Account, device: &str) -> bool {
    let stored = account.get(Scope::Device(device), KIND).await.unwrap();
    stored.is_some()
}

/// Returns what is said of an entry that cannot be read.
async fn why_not(account: &Account, device: &str) -> String {
    let user = account.session().user_id.replace('@', "%40");
    let user = user.replace(':', "%3A");
    let path = format!("/_matrix/client/v3/user/{user}/devices/{device}/account_data/{KIND}");
    let read = account.send(Request::new(Method::GET, path)).await.unwrap();
    let told: Value = read.json().unwrap();
    told["error"].as_str().unwrap().to_owned()
}

/// Tells what the homeserver has under the type of an entry.
async fn kept(lab: &Lab, account: &Account, device: &str) -> Option<Value> {
    let beside = lab.beside().with_session(account.session().clone());
    let kind = format!("org.matrix.msc4331.device_account_data.{device}.{KIND}");
    beside.get(Scope::Global, &kind).await.unwrap()
}

fn tombstone() -> Option<Value> {
    Some(json!({"org.matrix.msc4331.deleted": true}))
}

/// A homeserver with a gateway, and a user with three devices that have an entry each.
async fn three() -> (Lab, [Account; 3], String) {
    let lab = Lab::start().await;
    let phone = lab.user("PHONE").await;
    let user = phone.session().user_id.clone();
    let laptop = login(&lab.client(), &user, "LAPTOP").await;
    let tablet = login(&lab.client(), &user, "TABLET").await;
    let all = [phone, laptop, tablet];
    for account in &all {
        put(account).await;
    }
    (lab, all, user)
}

/// Sends a request that needs the password; the first answer is a challenge.
async fn with_password(account: &Account, request: Request, body: &Value) -> (Value, u16) {
    let challenge = account.send(request.clone().json(body)).await.unwrap();
    assert_eq!(challenge.status, 401);
    let state: Value = challenge.json().unwrap();
    let mut body = body.clone();
    body["auth"] = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": account.session().user_id},
        "password": PASSWORD,
        "session": state["session"],
    });
    let response = account.send(request.json(&body)).await.unwrap();
    (state, response.status)
}

fn post(path: &str) -> Request {
    Request::new(Method::POST, format!("/_matrix/client/v3/{path}"))
}

#[tokio::test]
async fn what_ends_through_the_gateway_ends_at_once_for_those_who_read_it_a_moment_ago() {
    let (lab, [phone, laptop, tablet], user) = three().await;
    for reader in [&laptop, &tablet] {
        assert!(has(reader, "PHONE").await);
    }
    phone.logout().await.unwrap();
    assert_eq!(
        why_not(&laptop, "PHONE").await,
        "the user has no such device"
    );
    tablet.logout().await.unwrap();
    let refused = tablet.get(Scope::Device("PHONE"), KIND).await;
    assert_eq!(refused.unwrap_err().errcode(), Some("M_UNKNOWN_TOKEN"));
    let desktop = login(&lab.client(), &user, "DESKTOP").await;
    put(&desktop).await;
    assert!(has(&laptop, "DESKTOP").await && has(&desktop, "LAPTOP").await);
    laptop.delete_device("DESKTOP", PASSWORD).await.unwrap();
    assert_eq!(
        why_not(&laptop, "DESKTOP").await,
        "the user has no such device"
    );
    let refused = desktop.get(Scope::Device("LAPTOP"), KIND).await;
    assert_eq!(refused.unwrap_err().errcode(), Some("M_UNKNOWN_TOKEN"));
}

/// A toy whose syncs fail while `is_broken`, that ends sessions, and that holds answers to writes
/// up where there are `permits`.
async fn homeserver(is_broken: &Arc<AtomicBool>, permits: Option<&Arc<Semaphore>>) -> Scripted {
    let (stored, is_broken) = (Stored::default(), Arc::clone(is_broken));
    let is_gone = AtomicBool::new(false);
    let permits = permits.cloned();
    let answer = move |asked: &Asked| {
        let path = asked.target.as_str();
        if is_broken.load(Ordering::SeqCst) && path.contains("/sync") {
            toy::error(500, "M_UNKNOWN")
        } else if path.ends_with("/login") {
            is_gone.store(false, Ordering::SeqCst);
            let session = json!({
                "user_id": "@alice:x",
                "access_token": "alice.PHONE",
                "device_id": "PHONE",
            });
            json(200, &session)
        } else if path.contains("/logout") || asked.method == Method::DELETE {
            is_gone.store(true, Ordering::SeqCst);
            json(200, &json!({}))
        } else if path.ends_with("/devices") && is_gone.load(Ordering::SeqCst) {
            json(200, &json!({"devices": [{"device_id": "LAPTOP"}]}))
        } else {
            toy::answer(asked, &stored)
        }
    };
    let answer = Arc::new(answer);
    Scripted::start(move |asked| {
        let is_write = asked.method == Method::PUT;
        let permits = permits.clone().filter(|_| is_write);
        let answer = Arc::clone(&answer);
        async move {
            if let Some(permits) = permits {
                permits.acquire().await.unwrap().forget();
            }
            // Not before: what nobody waits for any more is not done.
            answer(&asked)
        }
    })
    .await
}

#[tokio::test]
async fn what_is_still_to_be_emptied_is_not_told_with_the_device_either() {
    let is_broken = Arc::<AtomicBool>::default();
    let upstream = homeserver(&is_broken, None).await;
    let gateway = gateway(&upstream.url(), |set| set.msc4331.in_devices = true).await;
    let client = Client::new(&gateway.url).unwrap();
    let told = async || {
        let request = Request::new(Method::GET, "/_matrix/client/v3/devices/PHONE");
        let request = request.token("alice.LAPTOP");
        client.send(request).await.unwrap().json::<Value>().unwrap()
    };
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    client.send(write).await.unwrap();
    assert!(told().await["account_data"].is_object());
    is_broken.store(true, Ordering::SeqCst);
    let logout = post("logout").token("alice.PHONE");
    assert_eq!(client.send(logout).await.unwrap().status, 200);
    is_broken.store(false, Ordering::SeqCst);
    assert_eq!(told().await, json!({"device_id": "PHONE"}));
}

/// Waits until the homeserver has got so many requests of a method.
async fn got(upstream: &Scripted, method: &Method, times: usize) {
    let is_it = |asked: &&Asked| asked.method == *method;
    until(|| upstream.asked().iter().filter(is_it).count() >= times).await;
}
