use std::thread;

use super::*;

#[test]
fn each_method_and_status_has_its_place_and_strange_ones_share_one() {
    let metrics = Metrics::default();
    let route = metrics.route("/a".to_owned());
    for (number, name) in (1..).zip(METHODS) {
        let method = Method::from_bytes(name.as_bytes()).unwrap();
        for _ in 0..number {
            route.begin(&method).answered(StatusCode::OK);
        }
    }
    for method in ["BREW", "PROPFIND"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        route.begin(&method).answered(StatusCode::IM_A_TEAPOT);
    }
    let told = &metrics.read().routes[0];
    let told: Vec<_> = told
        .requests
        .iter()
        .map(|r| (r.method, r.status, r.count))
        .collect();
    let (strange, usual) = told.split_last().unwrap();
    let expected: Vec<_> = METHODS
        .into_iter()
        .map(|method| (method, "200"))
        .zip(1..)
        .collect();
    let usual: Vec<_> = usual
        .iter()
        .map(|(m, s, count)| ((*m, *s), *count))
        .collect();
    assert_eq!(usual, expected);
    assert_eq!(*strange, ("other", "4xx", 2));
}

#[test]
fn a_status_that_is_seldom_is_told_as_its_class() {
    for (status, expected) in [
        (100, "other"),
        (200, "200"),
        (201, "2xx"),
        (303, "3xx"),
        (404, "404"),
        (431, "4xx"),
        (507, "5xx"),
        (524, "5xx"),
        (599, "5xx"),
        (600, "other"),
        (999, "other"),
    ] {
        let metrics = Metrics::default();
        let route = metrics.route("/a".to_owned());
        let status = StatusCode::from_u16(status).unwrap();
        route.begin(&Method::GET).answered(status);
        let told = &metrics.read().routes[0].requests;
        assert_eq!(told[0].status, expected, "{status}");
    }
    for (status, name) in STATUSES {
        assert_eq!(name, status.to_string());
    }
}

#[test]
fn what_several_threads_counted_is_added_up() {
    let metrics = Metrics::default();
    let route = metrics.route("/a".to_owned());
    let take_one = || {
        let counting = route.begin(&Method::GET);
        counting.answered(StatusCode::OK);
        counting.took(1);
    };
    for _ in 0..3 {
        thread::scope(|scope| scope.spawn(take_one).join()).unwrap();
    }
    let told = &metrics.read().routes[0];
    assert_eq!(told.requests[0].count, 3);
    assert_eq!((told.durations_us.count(), told.durations_us.sum), (3, 3));
}

#[test]
fn failures_are_told_before_they_happen() {
    let told = Metrics::default().read().refusals;
    assert_eq!(told.len(), failures().len() + fullnesses().len());
    for error in failures() {
        assert!(error.row().0.is_server_error(), "{error}");
    }
    for error in fullnesses() {
        assert!(error.reason().starts_with("quota_"), "{error}");
    }
    for error in failures().into_iter().chain(fullnesses()) {
        let (_, errcode) = error.row();
        let expected = RefusalStats {
            errcode,
            reason: error.reason(),
            count: 0,
        };
        assert!(told.contains(&expected), "{told:?}");
    }
}

#[test]
fn failures_of_the_homeserver_are_told_before_they_happen() {
    let told = Metrics::of_gateway().read().refusals;
    let told: Vec<_> = told.iter().map(|row| (row.reason, row.count)).collect();
    assert_eq!(told.len(), failures_upstream().len());
    for error in failures_upstream() {
        assert!(told.contains(&(error.reason(), 0)), "{told:?}");
    }
}

#[test]
fn routes_that_are_told_as_one_are_counted_as_one_and_unused_ones_left_out() {
    let metrics = Metrics::default();
    for _ in 0..2 {
        let route = metrics.route("/a".to_owned());
        route.begin(&Method::GET).answered(StatusCode::OK);
    }
    metrics.route("/b".to_owned());
    let routes = metrics.read().routes;
    assert_eq!(routes.len(), 1);
    assert_eq!((&*routes[0].route, routes[0].requests[0].count), ("/a", 2));
}

#[test]
fn what_is_over_is_not_counted_any_more() {
    let metrics = Metrics::default();
    let [first, second] = [(); 2].map(|()| metrics.syncs.wait());
    assert_eq!(metrics.read().syncs_waiting, 2);
    drop(first);
    assert_eq!(metrics.read().syncs_waiting, 1);
    drop(second);
    assert_eq!(metrics.read().syncs_waiting, 0);
}
