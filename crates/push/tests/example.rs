//! The example of the README does what it says.

#[path = "../examples/evaluate.rs"]
#[expect(dead_code, reason = "its `main` prints what the test reads")]
mod evaluate;

#[test]
fn the_example_tells_whom_an_event_notifies() {
    let told = [
        "@alice:example.org: notified false, highlighted false",
        "@bob:example.org: notified true, highlighted true",
        "@carol:example.org: notified true, highlighted false",
    ];
    assert_eq!(evaluate::told().unwrap(), told);
}
