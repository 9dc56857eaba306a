//! The snippets of docs/gateway in the programs that they are for: what these take them for, and where
//! they send requests.

mod programs;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, ensure};
use serde_json::json;

use self::programs::{Programs, Proxy, Running, without_gateway};
use super::lab::{Lab, User};
use crate::http::{self, Answer, Connection};
use crate::parts::{Outcome, PartResult};

const MAPPED: &str = "org.matrix.msc4331.device_account_data.PHONE.org.example.a";

/// Where a request must go to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum To {
    Gateway,
    Homeserver,
    /// To the gateway, which judges it, or nowhere: which of both is the program's to say.
    NotPast,
    Nowhere,
}

/// Targets, and where the snippets of the second style send them.
const ROUTED: [(&str, To); 29] = [
    ("/_matrix/client/versions", To::Gateway),
    ("/_matrix/client/v3/sync?timeout=0", To::Homeserver),
    ("/_matrix/client/v3/login", To::Gateway),
    ("/_matrix/client/v3/login/sso/redirect", To::Homeserver),
    ("/_matrix/client/v3/logout%2Fall", To::Gateway),
    ("/_matrix/client/v3/devices/A%2FB", To::Gateway),
    ("/_matrix/client/v3/delete%5Fdevices", To::Gateway),
    ("/_matrix/client/v3/delete_devices%0A", To::Gateway),
    ("/_matrix/client/v3/user/@a:x/filter/1", To::Homeserver),
    ("/_matrix/client/v3/user/@a:x/account_data/t", To::Gateway),
    (
        "/_matrix/client/r0/user/%40a%3Ax/account_data/t",
        To::Gateway,
    ),
    (
        "/_matrix/client/api/v1/user/@a:x/account_data/t",
        To::Gateway,
    ),
    (
        "/_matrix/client/v3/%75ser/@a:x/account%5Fdata/t",
        To::Gateway,
    ),
    (
        "/_matrix/client/v3/user/@a:x/account_data/a%2Fb",
        To::Gateway,
    ),
    (
        "/_matrix/client/v3/user/@a:x/account_data/a%0Ab",
        To::Gateway,
    ),
    ("/_matrix/client/v3/user/@a:x/account_data/%FF", To::Gateway),
    (
        "/_matrix/client/v3/user/@a:x/account_data/a;b?c=/../",
        To::Gateway,
    ),
    ("/_matrix/client/v3//user/@a:x/account_data/t", To::Gateway),
    ("/_matrix%2Fclient/v3/user/@a:x/account_data/t", To::Gateway),
    ("/_matrix/client/v3/user/@a:x/account_data/%00", To::NotPast),
    ("/_matrix/client/v3/user/@a:x/account_data/%zz", To::NotPast),
    ("/_matrix/client/v3/user/@a:x/account_data/t#u", To::NotPast),
    (
        "/_matrix/client/v3/user/@a:x/account_data/../filter",
        To::Nowhere,
    ),
    (
        "/_matrix/client/v3/user/@a:x/filter/..%2Faccount_data/t",
        To::Nowhere,
    ),
    (
        "/_matrix/client/v3/user/@a:x/account_data/t/%2E%2e/../../sync",
        To::Nowhere,
    ),
    ("/_matrix/client/v3/x/./delete_devices", To::Nowhere),
    (
        "/_matrix/client/v3/user/@a:x/rooms/!r:x/tags/u.a%2Fb",
        To::Gateway,
    ),
    (
        "/_matrix/client/v3/user/@a:x/rooms/!r:x/tags",
        To::Homeserver,
    ),
    ("/_matrix/federation/v1/send/1", To::Homeserver),
];

/// Tries all snippets; returns how often something was looked at.
pub(super) fn run(lab: &Lab<'_>) -> PartResult {
    let programs = match Programs::find(lab.workspace)? {
        Ok(programs) => programs,
        Err(needed) => return Ok(Outcome::NotRun(needed)),
    };
    println!("gateway, proxies: {}", programs.versions()?);
    let tried = Tried {
        lab,
        programs,
        homeserver: sink("homeserver")?,
        gateways: [sink("one")?, sink("two")?],
    };
    let mut count = 0;
    for proxy in Proxy::ALL {
        count += tried.all(proxy).with_context(|| proxy.snippet("all"))?;
        count += tried
            .routed(proxy)
            .with_context(|| proxy.snippet("routed"))?;
        count += tried
            .guarded(proxy)
            .with_context(|| proxy.snippet("routed"))?;
        count += tried
            .several(proxy)
            .with_context(|| proxy.snippet("several"))?;
        for style in ["all", "routed", "several"] {
            let taken_away = tried.taken_away(proxy, style);
            count += taken_away.with_context(|| format!("{} without it", proxy.snippet(style)))?;
        }
    }
    Ok(Outcome::Passed(Some(count)))
}

struct Tried<'a> {
    lab: &'a Lab<'a>,
    programs: Programs,
    /// What answers there tells its name and the request.
    homeserver: SocketAddr,
    gateways: [SocketAddr; 2],
}

impl Tried<'_> {
    fn snippet(&self, proxy: Proxy, style: &str) -> PathBuf {
        let folder = self.lab.workspace.path("docs/gateway");
        folder.join(proxy.snippet(style))
    }

    fn text(&self, proxy: Proxy, style: &str) -> anyhow::Result<String> {
        let snippet = self.snippet(proxy, style);
        fs::read_to_string(&snippet).with_context(|| format!("cannot read {}", snippet.display()))
    }

    fn start(&self, proxy: Proxy, style: &str) -> anyhow::Result<Running> {
        // As it is; that of nginx is a part only, and is looked at where it stands in a whole.
        if proxy != Proxy::Nginx {
            self.programs.check(proxy, &self.snippet(proxy, style))?;
        }
        let text = self.text(proxy, style)?;
        self.start_text(proxy, &proxy.snippet(style), &text)
    }

    fn start_text(&self, proxy: Proxy, name: &str, text: &str) -> anyhow::Result<Running> {
        self.programs
            .start(proxy, name, text, self.homeserver, self.gateways)
    }

    /// The address is told that the proxy sees, and none that a client says.
    fn all(&self, proxy: Proxy) -> anyhow::Result<u64> {
        let running = self.start(proxy, "all")?;
        let said = [
            "X-Forwarded-For: 192.0.2.1",
            "Forwarded: for=192.0.2.1",
            "X-Real-IP: 192.0.2.1",
        ];
        let answer = ask(&running, "/_matrix/client/v3/user/%40a:x/a?b=%2F", &said)?;
        let got = String::from_utf8_lossy(&answer.body).to_lowercase();
        ensure!(
            got.starts_with("one get /_matrix/client/v3/user/%40a:x/a?b=%2f http"),
            "{got}"
        );
        ensure!(got.contains("x-forwarded-for: 127.0.0.1\r\n"), "{got}");
        ensure!(!got.contains("192.0.2.1"), "{got}");
        Ok(1)
    }

    fn routed(&self, proxy: Proxy) -> anyhow::Result<u64> {
        let running = self.start(proxy, "routed")?;
        for (target, expected) in ROUTED {
            let answer = ask(&running, target, &[])?;
            let place = place(&answer);
            let is_right = match expected {
                To::Gateway => place == Some("one"),
                To::Homeserver => place == Some("homeserver"),
                To::NotPast => place != Some("homeserver"),
                To::Nowhere => place.is_none() && answer.status == 404,
            };
            ensure!(is_right, "{target} went to {place:?}, not {expected:?}");
            let got = String::from_utf8_lossy(&answer.body);
            let is_whole = got.contains(&format!(" GET {target} HTTP/1.1\r\n"));
            // Caddy writes a `#` otherwise, for whoever gets it.
            ensure!(
                place.is_none() || is_whole || expected == To::NotPast,
                "{target} came as {got}"
            );
        }
        Ok(ROUTED.len() as u64)
    }

    /// Before the gateway and Synapse: no spelling writes what only the gateway may.
    fn guarded(&self, proxy: Proxy) -> anyhow::Result<u64> {
        let (synapse, gateway) = (self.lab.synapse.address(), self.lab.gateway.address()?);
        let text = self.text(proxy, "routed")?;
        let name = proxy.snippet("routed");
        let programs = &self.programs;
        let running = programs.start(proxy, &name, &text, synapse, [gateway; 2])?;
        let user = User::register(running.address)?;
        let (id, entry) = (&user.user_id, json!({"a": 1}));
        let device = format!(
            "/_matrix/client/v3/user/{id}/devices/{}/net.zemos.account_data/org.example.a",
            user.device_id
        );
        user.ask(running.address, "PUT", &device, &entry)?;
        let stored = user.ask(running.address, "GET", &device, &json!(null))?;
        ensure!(stored == entry, "{stored}");
        let encoded = MAPPED.replace('.', "%2E");
        let paths = [
            format!("/v3/user/{id}/account_data/{MAPPED}"),
            format!("/r0/%75ser/{id}/account%5Fdata/{encoded}"),
            format!("/api/v1/user/{id}/account_data/{MAPPED}"),
            format!("/v3/user/{id}/account_data/{MAPPED}/"),
            format!("/v3/user/{id}/account_data//{MAPPED}"),
            format!("/v3/user/{id}/account_data/x/../{MAPPED}"),
            format!("/v3/user/{id}/account_data/{MAPPED}/../../../sync/../../x"),
            format!("/v3/user/{id}/account_data/{MAPPED}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/sync"),
            format!("/v3/sync/../user/{id}/account_data/{MAPPED}"),
            format!("/v3/user/{id}/account_data/{MAPPED}#x"),
            format!("/v3/user/{id}/account_data%2F{MAPPED}"),
        ];
        for path in &paths {
            let target = format!("/_matrix/client{path}");
            let authorization = user.authorization();
            let request = http::request("PUT", &target, &[&authorization], b"{\"a\":1}");
            let status = Connection::open(running.address)?
                .exchange(&request)?
                .status;
            ensure!((400..500).contains(&status), "PUT {target} is {status}");
        }
        let path = format!("/_matrix/client/v3/user/{id}/account_data/{MAPPED}");
        let request = http::request("GET", &path, &[&user.authorization()], b"");
        let status = Connection::open(synapse)?.exchange(&request)?.status;
        ensure!(status == 404, "something was written: {status}");
        Ok(paths.len() as u64)
    }

    /// Behind the step that the snippet says, the homeserver gets what the gateway got, and the rest
    /// as before.
    fn taken_away(&self, proxy: Proxy, style: &str) -> anyhow::Result<u64> {
        let text = without_gateway(&self.text(proxy, style)?)?;
        let name = format!("without-{}", proxy.snippet(style));
        let running = self.start_text(proxy, &name, &text)?;
        let of_clients = |(_, to): &&(_, To)| matches!(to, To::Gateway | To::Homeserver);
        let targets: Vec<_> = ROUTED.iter().filter(of_clients).collect();
        for (target, _) in &targets {
            let answer = ask(&running, target, &[])?;
            let place = place(&answer);
            ensure!(place == Some("homeserver"), "{target} went to {place:?}");
        }
        u64::try_from(targets.len()).context("targets fit in 64 bits")
    }

    /// All spellings of a user meet one gateway, requests of a token too, and users meet both.
    fn several(&self, proxy: Proxy) -> anyhow::Result<u64> {
        let running = self.start(proxy, "several")?;
        let of_user = |name: String| {
            [
                format!("v3/user/@{name}:x/account_data/t"),
                format!("r0/user/%40{name}%3Ax/account_data/t?a=/user/b/"),
                format!("unstable/org.matrix.msc3391/user/@{name}:x/account_data/t"),
                format!("api/v1/%75ser/@{name}:x/rooms/!r:x/account_data/t"),
                format!("v3/user/@{name}:x/devices/D/net.zemos.account_data/t"),
                format!("v3/user/@{name}:x/account_data/a%2Fuser%2Fb%2Fc"),
                format!("v3/user/@{name}:x/account_data/a%0Ab"),
            ]
        };
        let of_token = ["v3/logout", "v3/devices/D", "v3/delete_devices"].map(str::to_owned);
        let mut met = BTreeSet::new();
        for number in 0..12 {
            // Users are known by their path, whatever their device's token.
            let of_user = of_user(format!("user{number}"));
            let tokens = (0..of_user.len()).map(|at| 100 * number + at);
            met.insert(one_place(&running, of_user.iter().zip(tokens))?);
            met.insert(one_place(&running, of_token.iter().zip([number; 3]))?);
        }
        ensure!(met.len() == 2, "all went to {met:?}");
        Ok(12 * 10)
    }
}

/// Sends requests with their tokens, and returns where all of them went.
fn one_place<'a>(
    proxy: &Running,
    requests: impl Iterator<Item = (&'a String, usize)>,
) -> anyhow::Result<&'static str> {
    let mut met = BTreeSet::new();
    for (path, token) in requests {
        let header = format!("Authorization: Bearer {token}");
        let answer = ask(proxy, &format!("/_matrix/client/{path}"), &[&header])?;
        let place = place(&answer).with_context(|| format!("{path} went nowhere"))?;
        met.insert(place);
        ensure!(
            met.len() == 1,
            "{path} went to {place}, and those before it to the other"
        );
    }
    met.pop_first().context("there is no request")
}

fn ask(proxy: &Running, target: &str, headers: &[&str]) -> anyhow::Result<Answer> {
    let request = http::request("GET", target, headers, b"");
    let answer = Connection::open(proxy.address)?.exchange(&request);
    answer.with_context(|| format!("at {target}"))
}

/// Returns the name of who answered, unless that was the proxy.
fn place(answer: &Answer) -> Option<&'static str> {
    let names = ["homeserver", "one", "two"].into_iter();
    { names }.find(|name| answer.body.starts_with(format!("{name} GET ").as_bytes()))
}

/// Starts a server that answers with its name and the head of the request; returns where it listens.
fn sink(name: &'static str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no address is free")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever breaks off is told by its proxy.
            thread::spawn(move || answer(name, &stream).ok());
        }
    });
    Ok(address)
}

fn answer(name: &str, mut stream: &TcpStream) -> std::io::Result<()> {
    let mut head = Vec::from(format!("{name} "));
    let mut reader = BufReader::new(stream);
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Ok(());
        }
    }
    let length = head.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )?;
    stream.write_all(&head)
}
