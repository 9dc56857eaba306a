//! What every handler can reach.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRef;
use bytes::Bytes;
use kitbag_domain::{AccountData, Clock, Limits, ServerName, Store};
use tokio::sync::watch;

use crate::dispatch::{VARIABLES_MAX, Variables};
use crate::endpoints::{explain::ExplainTurns, versions};
use crate::{
    answers::Answers, failures::Failures, metrics::Metrics, metrics::RenderMetrics, metrics::Stats,
    passwords::Passwords, push_rules::SpecRules, random::Random, rate_limit::RateLimits,
    request_id::RequestIds, settings::Settings, sync::SyncTurns, tokens::LastToken,
    uia::UiaSessions,
};

/// What the application is made of; everything comes in from outside.
pub struct Parts {
    /// Where accounts and entries are kept.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The limits of the domain.
    pub limits: Arc<Limits>,
    /// The name behind the colon of the users' IDs.
    pub server_name: ServerName,
    /// Hashes and checks passwords.
    pub passwords: Passwords,
    /// What the operator set.
    pub settings: Settings,
    /// Writes the page of `GET /metrics` on the private listener, on a thread that may block.
    pub render_metrics: RenderMetrics,
    /// Turns true when the server stops: waiting syncs then answer.
    pub stopping: watch::Receiver<bool>,
}

/// The application, shared by all requests.
#[derive(Clone)]
pub(crate) struct App(Arc<Handle>);

/// What the requests of one connection share.
struct Handle {
    inner: Arc<Inner>,
    last_token: LastToken,
}

/// The application as one request meets it: with what the edge knows beside the request itself.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) app: App,
    /// The address at the other end of the connection.
    pub(crate) peer: IpAddr,
    /// The path as the route table has it.
    pub(crate) template: &'static str,
    /// The names of its variable segments.
    pub(crate) names: [&'static str; VARIABLES_MAX],
    /// Where these stand in the path of the request.
    pub(crate) variables: Variables,
}

impl Call {
    /// Returns the names of the path's variable segments with these, in their order.
    pub(crate) fn named<'a>(&self, path: &'a str) -> impl Iterator<Item = (&'static str, &'a str)> {
        self.names.into_iter().zip(self.variables.of(path))
    }
}

impl FromRef<Call> for App {
    fn from_ref(call: &Call) -> Self {
        call.app.clone()
    }
}

/// What [`App`] points to.
pub(crate) struct Inner {
    pub(crate) data: AccountData,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) rules: Arc<SpecRules>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) server_name: ServerName,
    pub(crate) passwords: Passwords,
    pub(crate) rate_limits: RateLimits,
    pub(crate) request_ids: RequestIds,
    pub(crate) sync_turns: SyncTurns,
    pub(crate) explain_turns: ExplainTurns,
    pub(crate) answers: Answers,
    pub(crate) uia: UiaSessions,
    pub(crate) failures: Failures,
    pub(crate) metrics: Metrics,
    pub(crate) render_metrics: RenderMetrics,
    /// The body of `GET /_matrix/client/versions`.
    pub(crate) versions: Bytes,
    pub(crate) settings: Settings,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl App {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            store,
            clock,
            limits,
            random,
            server_name,
            ..
        } = parts;
        let Parts {
            passwords,
            settings,
            render_metrics,
            stopping,
            ..
        } = parts;
        let (compat, bytes_max) = (settings.compat, settings.cache.push_rules_bytes_max);
        let rules = Arc::new(SpecRules::new(compat, bytes_max, limits.content_bytes_max));
        let data = AccountData::new(
            Arc::clone(&store),
            Arc::clone(&rules) as _,
            Arc::clone(&clock),
            Arc::clone(&limits),
        );
        Self::of(Arc::new(Inner {
            data,
            store,
            rules,
            rate_limits: RateLimits::new(settings.rate_limits, Arc::clone(&clock)),
            clock,
            request_ids: RequestIds::new(&*random),
            random,
            server_name,
            passwords,
            sync_turns: SyncTurns::default(),
            explain_turns: ExplainTurns::default(),
            answers: Answers::new(settings.cache.answers_bytes_max),
            uia: UiaSessions::default(),
            failures: Failures::default(),
            metrics: Metrics::default(),
            render_metrics,
            versions: versions::body(&settings),
            settings,
            stopping,
        }))
    }

    fn of(inner: Arc<Inner>) -> Self {
        Self(Arc::new(Handle {
            inner,
            last_token: LastToken::default(),
        }))
    }

    /// Returns the same application for one connection.
    ///
    /// Every request takes hold of it some times: on one count for all, the cores would wait for
    /// each other.
    pub(crate) fn apart(&self) -> Self {
        Self::of(Arc::clone(&self.0.inner))
    }

    /// Returns what the last token of the connection was.
    pub(crate) fn last_token(&self) -> &LastToken {
        &self.0.last_token
    }
}

impl App {
    /// Returns all figures.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            password_checks_waiting: self.passwords.waiting(),
            ..self.metrics.read()
        }
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0.inner
    }
}
