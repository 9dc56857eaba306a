//! Device account data, kept in the homeserver.

use kitbag_client::{Login, Scope};
use serde_json::json;

use crate::support::{Lab, PASSWORD};

#[tokio::test]
async fn what_a_device_writes_its_siblings_read_and_the_homeserver_has_as_global_data() {
    let lab = Lab::start().await;
    let phone = lab.user("A.B").await;
    let user = phone.session().user_id.clone();
    let login = Login::password(&user, PASSWORD);
    let sibling = lab.client().login(&login).await.unwrap();
    let scope = Scope::Device("A.B");
    assert_eq!(sibling.get(scope, "org.example.a").await.unwrap(), None);
    let content = json!({"versions": ["12"]});
    phone.put(scope, "org.example.a", &content).await.unwrap();
    let stored = sibling.get(scope, "org.example.a").await.unwrap();
    assert_eq!(stored, Some(content.clone()));
    let beside = lab.beside().with_session(phone.session().clone());
    let mapped = "org.matrix.msc4331.device_account_data.A%2EB.org.example.a";
    let upstream = beside.get(Scope::Global, mapped).await.unwrap();
    assert_eq!(upstream, Some(content));
    phone.delete(scope, "org.example.a").await.unwrap();
    assert_eq!(sibling.get(scope, "org.example.a").await.unwrap(), None);
}
