//! A homeserver that fails at times to empty what the gateway has it empty, and to say what it did.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, HttpBody as _};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use futures_util::stream;
use kitbag_http::{Edge, ListenerSettings, Service};
use kitbag_testkit::dice::Dice;

/// In a hundred requests that it may fail at.
const FAULTS: usize = 25;

const TOMBSTONE: &str = "{\"org.matrix.msc4331.deleted\": true}";

/// Whether it fails, and when.
#[derive(Debug)]
pub(super) struct Faults {
    pub(super) is_on: AtomicBool,
    pub(super) dice: Mutex<Dice>,
}

#[derive(Clone)]
pub(super) struct Failing {
    pub(super) edge: Edge,
    pub(super) faults: Arc<Faults>,
}

impl Failing {
    /// Tells whether a request is one of those that it may fail at: what the gateway asks to empty
    /// something, and what ends devices.
    fn may_fail(&self, request: &Request<Body>) -> bool {
        let path = request.uri().path();
        let is_it = match *request.method() {
            Method::GET => path.ends_with("/sync") || path.ends_with("/devices"),
            Method::PUT => {
                let bytes = request.body().size_hint().exact();
                path.contains("device_account_data.") && bytes == Some(TOMBSTONE.len() as u64)
            }
            Method::DELETE => path.contains("/devices/"),
            Method::POST => path.ends_with("/logout") || path.ends_with("/delete_devices"),
            _ => false,
        };
        is_it && self.faults.is_on.load(Ordering::SeqCst)
    }
}

impl Service for Failing {
    const HEAD_BYTES_MAX: usize = Edge::HEAD_BYTES_MAX;

    type Connected = <Edge as Service>::Connected;

    fn listener(&self) -> ListenerSettings {
        self.edge.listener()
    }

    fn apart(&self) -> Self {
        Self {
            edge: self.edge.apart(),
            faults: Arc::clone(&self.faults),
        }
    }

    fn connected(&self) -> Self::Connected {
        self.edge.connected()
    }

    async fn answer(&self, peer: IpAddr, request: Request<Body>) -> Response {
        let (fails, is_done) = match self.may_fail(&request) {
            true => {
                let mut dice = self.faults.dice.lock().unwrap();
                (dice.chance(FAULTS), dice.chance(50))
            }
            false => (false, true),
        };
        let is_end = matches!(*request.method(), Method::DELETE | Method::POST);
        match (fails, is_done) {
            (false, _) => self.edge.answer(peer, request).await,
            // Refused, and nothing is done. An end that fails so may be done all the same.
            (true, false) if !is_end => {
                let mut response = Response::new(Body::from("{\"errcode\":\"M_UNKNOWN\"}"));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
            (true, _) => {
                drop(self.edge.answer(peer, request).await);
                // The connection ends within the answer.
                let cut = io::Error::from(io::ErrorKind::ConnectionReset);
                let cut = stream::iter([Err::<&str, _>(cut)]);
                Response::new(Body::from_stream(cut))
            }
        }
    }
}
