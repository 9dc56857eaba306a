use serde_json::json;

use super::{Lab, over_each_store};
use crate::support::{Call, PASSWORD, Reply};

impl Lab {
    async fn accountdata(&self, user: &str) -> Reply {
        let path = format!("/_synapse/admin/v1/users/{user}/accountdata");
        self.send(Call::get(path).admin()).await
    }
}

#[tokio::test]
async fn it_has_the_shape_of_synapse_and_contents_as_they_were_put() {
    over_each_store(|_| {}, async |lab| {
        for (path, content) in [
            (lab.alice.global("m.direct"), "{\"a\":  1.0}"),
            (lab.alice.global("x \"y\""), "{\"b\" : 2}"),
            (lab.alice.room("!r:x", "m.tag"), "{\"tags\":{ }}"),
            (lab.alice.room("!r:x", "app.test"), "{}"),
            (lab.alice.room("!a:x", "m.tag"), "{\"c\":3}"),
        ] {
            let path = path.replace(" \"", "%20%22").replace('"', "%22");
            let put = Call::put(path, content).by(&lab.alice);
            lab.send(put).await.assert_ok();
        }
        lab.tell(&lab.alice, "app.test", "{\"of\":\"the device\"}").await;
        let rules = Call::get(lab.alice.global("m.push_rules")).by(&lab.alice);
        let rules = lab.send(rules).await;
        let expected = format!(
            "{{\"account_data\":{{\"global\":{{\"m.push_rules\":{},\"m.direct\":{{\"a\":  1.0}},\
             \"x \\\"y\\\"\":{{\"b\" : 2}}}},\"rooms\":{{\"!a:x\":{{\"m.tag\":{{\"c\":3}}}},\
             \"!r:x\":{{\"app.test\":{{}},\"m.tag\":{{\"tags\":{{ }}}}}}}}}}}}",
            rules.text()
        );
        assert_eq!(lab.accountdata("@alice:localhost").await.text(), expected);
    })
    .await;
}

#[tokio::test]
async fn who_is_not_there_is_told_as_by_synapse() {
    over_each_store(
        |_| {},
        async |lab| {
            let nobody = lab.accountdata("@nobody:localhost").await;
            nobody.assert_is(404, "M_NOT_FOUND");
            assert_eq!(nobody.json()["error"], "User not found");
            for user in ["@alice:elsewhere.example", "alice"] {
                let reply = lab.accountdata(user).await;
                reply.assert_is(400, "M_INVALID_PARAM");
            }
            let auth = json!({"auth": lab.bob.password_auth(PASSWORD)});
            let path = "/_matrix/client/v3/account/deactivate";
            let end = Call::post(path, auth.to_string()).by(&lab.bob);
            lab.send(end).await.assert_ok();
            let empty = json!({"account_data": {"global": {}, "rooms": {}}});
            let told = lab.accountdata("@bob:localhost").await.assert_ok();
            assert_eq!(told, empty);
        },
    )
    .await;
}
