//! What goes through.

use kitbag_client::{Client, Method, Request};
use kitbag_testkit::scripted::{Scripted, whole};

use crate::support::gateway;

#[tokio::test]
async fn the_target_and_the_body_go_through_byte_for_byte() {
    let upstream = Scripted::start(|asked| async move { whole(200, asked.body) }).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let target = "/_matrix/federation/v1/send/%31?a=%7e&b=//../c";
    let request = Request::new(Method::PUT, target).body("{ \"a\": 1.0 }");
    let client = Client::new(&gateway.url).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.body, "{ \"a\": 1.0 }");
    assert_eq!(upstream.asked()[0].target, target);
}
