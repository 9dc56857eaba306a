//! What a path could mean to the homeserver, and does not get there.

use kitbag_client::{Client, Method, Request};
use kitbag_testkit::scripted::{Scripted, whole};
use serde_json::json;

use crate::support::{gateway, told};

#[tokio::test]
async fn a_path_that_could_mean_a_guarded_write_never_reaches_the_homeserver() {
    let upstream = Scripted::start(|_| async { whole(200, "{}") }).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for target in [
        "/_matrix/client/v3/user/@a:x/account_data//m.push_rules",
        "/_matrix/client/v3/user/@a:x/x/../account_data/m.push_rules",
        "/_matrix/client/v3/user/@a:x/x/%2E%2e/account_data/m.push_rules",
        "/_matrix/client/v3/user/@a:x/account_data/m.push_rules/x",
        "/_matrix/client/v3/user/@a:x/account_data/m%252epush_rules",
        "/_matrix/client/v3/user/@a:x/rooms/!r/account%5Fdata/m.fully_read?a=b",
        "/_matrix/client/v3/%75ser/@a:x/account_data/m.push_rules",
        "//_matrix/client/v3/user/@a:x/account_data/m.push_rules",
        "/_matrix/client/v2/user/@a:x/account_data/m.push_rules",
        "/_matrix/client/v3/user/@a:x/account_data/org.matrix.msc4331.device_account_data.D.a/",
        "/_matrix/client/v3/user/@a:x/account_data/m.direct/x",
        "/_matrix/client/v3/delete_devices/x",
        "/_matrix/client/unstable/org/matrix/msc3391/user/@a:x/account_data/m.push_rules",
        "/_matrix/client/unstable/org/matrix.msc3391/user/@a:x/account_data/m.direct",
    ] {
        for method in [Method::PUT, Method::DELETE, Method::POST] {
            let request = Request::new(method.clone(), target).body("{}");
            let response = client.send(request).await.unwrap();
            let refused = (404, json!("M_UNRECOGNIZED"));
            assert_eq!(told(&response), refused, "{method} {target}");
        }
    }
    assert_eq!(upstream.asked().len(), 0, "{:?}", upstream.asked());
    let target = "/_matrix/client/v3/user/@a:x/account_data/a%252Fb";
    let request = Request::new(Method::PUT, target).body("{}");
    assert_eq!(client.send(request).await.unwrap().status, 200);
}

#[tokio::test]
async fn below_a_user_no_path_with_odd_segments_is_read_either() {
    let upstream = Scripted::start(|_| async { whole(200, "{}") }).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for below in [
        "account_data//a",
        "x/../account_data/a",
        "x/%2e%2e/account_data/a",
        "account_data/./a",
        "account_data/a/",
    ] {
        let target = format!("/_matrix/client/v3/user/@a:x/{below}");
        let head = client.send(Request::new(Method::HEAD, &target)).await;
        assert_eq!(head.unwrap().status, 404, "{below}");
        let read = client.send(Request::new(Method::GET, &target)).await;
        let refused = (404, json!("M_UNRECOGNIZED"));
        assert_eq!(told(&read.unwrap()), refused, "{below}");
    }
    assert_eq!(upstream.asked().len(), 0, "{:?}", upstream.asked());
}
