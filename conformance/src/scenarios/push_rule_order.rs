//! Push rules: the order of a user's rules, and how clients choose it.

use kitbag_client::path;
use serde_json::json;

use crate::actor::Actor;
use crate::expect::{Outcome, check_json};
use crate::lab::Lab;
use crate::rules::{KINDS, expect_ids, make, make_room_rules, rule_of};
use crate::scenario::{Feature, Scenario};

const API: &str = "CS API, Push rules API";
const SYTEST: &str = "CS API, Push rules API; Sytest 61push/02add_rules.pl";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "push_rule_order/new_rule_goes_first",
            SYTEST,
            "in each kind the newest rule is the most important of the user's, before defaults",
            newest_first,
        ),
        Scenario::new(
            "push_rule_order/before_is_directly_before",
            SYTEST,
            "`before` puts a new rule directly before that one",
            before,
        ),
        Scenario::new(
            "push_rule_order/after_is_directly_after",
            SYTEST,
            "`after` puts a new rule directly after that one",
            after,
        ),
        Scenario::new(
            "push_rule_order/before_wins_over_after",
            "CS API, Push rules API; D14",
            "with both the rule stands directly before `before`",
            both,
        ),
        Scenario::new(
            "push_rule_order/existing_rule_can_be_moved",
            API,
            "a PUT with before or after moves a rule and leaves it disabled",
            moved,
        ),
        Scenario::new(
            "push_rule_order/unknown_neighbour_is_400_unknown",
            "CS API, Push rules API, example of 400; D14",
            "before and after must name a rule of the user, in the same kind",
            unknown_neighbour,
        ),
        Scenario::new(
            "push_rule_order/default_neighbour_is_400_unknown",
            "CS API, Push rules API; D14",
            "before and after cannot name a default rule",
            default_neighbour,
        )
        .needs(Feature::Kitbag),
    ]
}

async fn newest_first(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        for rule_id in ["a", "b", "c"] {
            make(&user, kind, rule_id).await?;
        }
        expect_ids(&user, kind, &["c", "b", "a"]).await?;
    }
    let rules = user
        .read(&format!("{}/pushrules/global/", path::V3))
        .await?;
    let message = rules["underride"][2]["rule_id"].clone();
    check_json(&message, &json!("a"), "the third underride rule")
}

async fn before(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make_room_rules(&user, &["b", "a"]).await?;
    put_beside(&user, "c", "before=a").await?;
    expect_ids(&user, "room", &["b", "c", "a"]).await?;
    put_beside(&user, "d", "before=b").await?;
    expect_ids(&user, "room", &["d", "b", "c", "a"]).await
}

async fn after(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make_room_rules(&user, &["b", "a"]).await?;
    put_beside(&user, "c", "after=b").await?;
    expect_ids(&user, "room", &["b", "c", "a"]).await?;
    put_beside(&user, "d", "after=a").await?;
    expect_ids(&user, "room", &["b", "c", "a", "d"]).await?;
    // IDs in the query are decoded as in the path.
    put_beside(&user, "#é:x", "after=%61").await?;
    put_beside(&user, "e", "before=%23%C3%A9%3Ax").await?;
    expect_ids(&user, "room", &["b", "c", "a", "e", "#é:x", "d"]).await
}

async fn both(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make_room_rules(&user, &["a", "b", "c", "d"]).await?;
    put_beside(&user, "new", "before=d&after=a").await?;
    expect_ids(&user, "room", &["a", "b", "c", "new", "d"]).await
}

async fn moved(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make_room_rules(&user, &["a", "b", "c"]).await?;
    let place = path::push_rule("room", "c");
    user.set(&format!("{place}/enabled"), &json!({"enabled": false}))
        .await?;
    put_beside(&user, "c", "before=a").await?;
    expect_ids(&user, "room", &["c", "a", "b"]).await?;
    put_beside(&user, "a", "after=b").await?;
    expect_ids(&user, "room", &["c", "b", "a"]).await?;
    user.get(&format!("{place}/enabled"))
        .await?
        .expect_json(&json!({"enabled": false}))
}

async fn unknown_neighbour(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make_room_rules(&user, &["a", "b"]).await?;
    make(&user, "sender", "other kind").await?;
    for neighbour in ["nothing", "other%20kind", ""] {
        refuses_beside(&user, "room", neighbour).await?;
    }
    expect_ids(&user, "room", &["a", "b"]).await
}

async fn default_neighbour(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for neighbour in [".m.rule.master", ".m.rule.unknown"] {
        refuses_beside(&user, "override", neighbour).await?;
    }
    expect_ids(&user, "override", &[]).await
}

/// Makes or replaces a room rule beside another one, which must succeed.
async fn put_beside(user: &Actor, rule_id: &str, query: &str) -> Outcome {
    let place = path::push_rule("room", rule_id);
    let rule = json!({"actions": ["notify"]});
    user.set(&format!("{place}?{query}"), &rule).await
}

async fn refuses_beside(user: &Actor, kind: &str, neighbour: &str) -> Outcome {
    let rule = rule_of(kind, &json!(["notify"]));
    for (rule_id, name) in [("new", "before"), ("new", "after"), ("a", "before")] {
        if kind != "room" && rule_id == "a" {
            continue;
        }
        let place = path::push_rule(kind, rule_id);
        let path = format!("{place}?{name}={neighbour}");
        let reply = user.put(&path, &rule).await?;
        reply.expect_error(400, "M_UNKNOWN")?;
    }
    Ok(())
}
