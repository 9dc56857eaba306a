//! The least that can stand behind the gateway: fixed answers to what the gateway asks by itself, the
//! same bytes to all reading, `{}` to a body once it was read, and syncs that wait for such a body.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response};
use tokio::sync::watch;

use super::fixed;

/// The one user, with the one device.
pub(crate) const USER_ID: &str = "@user:localhost";
pub(crate) const DEVICE_ID: &str = "DEVICE";

const WHOAMI: &[u8] = br#"{"user_id":"@user:localhost","device_id":"DEVICE","is_guest":false}"#;
const DEVICE: &[u8] = br#"{"device_id":"DEVICE","display_name":"A device of the bench"}"#;
const DONE: &[u8] = b"{}";
/// What each sync tells of: the first type of the bench, see `server::kind`.
const SYNCED_TYPE: &str = "org.example.bench.0";

/// How many bodies were read, which is where the stream of syncs stands.
pub(super) type Written = watch::Sender<u64>;

/// Answers as a homeserver whose every entry is `entry`.
pub(super) async fn answer(
    entry: &'static [u8],
    written: &Written,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let body = if path.ends_with("/sync") {
        let since = waits_from(request.uri().query().unwrap_or_default());
        drop(request);
        return Ok(sync(written.subscribe(), since).await);
    } else if path.ends_with("/account/whoami") {
        WHOAMI
    } else if path.ends_with("/devices/DEVICE") {
        DEVICE
    } else if request.body().is_end_stream() {
        entry
    } else {
        read(request.into_body()).await;
        written.send_modify(|count| *count += 1);
        DONE
    };
    fixed::answer(body).await
}

/// Returns where the sync stands that a client asks to wait; none where it is to be answered at once.
fn waits_from(query: &str) -> Option<u64> {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    };
    value("timeout").filter(|timeout| *timeout != "0")?;
    value("since")?.strip_prefix('s')?.parse().ok()
}

/// Answers a sync, once there is more than it stands at.
async fn sync(mut written: watch::Receiver<u64>, since: Option<u64>) -> Response<Full<Bytes>> {
    let stands = match since {
        // The sender lives as long as the process.
        Some(since) => written.wait_for(|count| *count > since).await.map(|n| *n),
        None => Ok(*written.borrow()),
    };
    let next = stands.unwrap_or_default();
    let body = format!(
        r#"{{"next_batch":"s{next}","account_data":{{"events":[{{"type":"{SYNCED_TYPE}","content":{{}}}}]}}}}"#
    );
    let Ok(mut response) = fixed::answer(b"").await;
    *response.body_mut() = Full::new(body.into());
    response
}

/// Reads a body to its end, or to where its client leaves.
async fn read(mut body: Incoming) {
    while let Some(Ok(_piece)) = body.frame().await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_waits_from_its_token_where_it_is_given_time() {
        assert_eq!(waits_from("timeout=10&since=s7"), Some(7));
        assert_eq!(waits_from("timeout=0&since=s7"), None);
        assert_eq!(waits_from("timeout=10"), None);
        assert_eq!(SYNCED_TYPE, crate::server::kind(0));
    }

    #[tokio::test]
    async fn a_sync_that_waits_is_answered_by_what_is_written() {
        use std::time::Duration;

        use tokio::time::timeout;

        let written = Written::new(3);
        let mut waiting = std::pin::pin!(sync(written.subscribe(), Some(3)));
        let early = timeout(Duration::from_millis(1), &mut waiting).await;
        assert!(early.is_err(), "nothing was written");
        written.send_modify(|count| *count += 1);
        let body = waiting
            .await
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["next_batch"], "s4");
        let at_once = sync(written.subscribe(), None).await;
        assert_eq!(at_once.status(), 200);
    }

    #[test]
    fn what_is_told_of_the_device_is_of_the_user_who_asks() {
        let whoami: serde_json::Value = serde_json::from_slice(WHOAMI).unwrap();
        let device: serde_json::Value = serde_json::from_slice(DEVICE).unwrap();
        assert_eq!(whoami["user_id"], USER_ID);
        assert_eq!(whoami["device_id"], DEVICE_ID);
        assert_eq!(device["device_id"], DEVICE_ID);
    }
}
