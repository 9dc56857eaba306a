//! `kitbag gateway`: what it says, what it refuses to start with, and how it stops.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Client, Server, directory, entry, kitbag, run, run_with_input};

/// A homeserver and a gateway before it, each a program of its own.
pub(crate) struct Lab {
    pub(crate) homeserver: Server,
    pub(crate) gateway: Server,
}

impl Lab {
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        let homeserver = Server::ephemeral(dir, &[]);
        let upstream = format!("http://{}", homeserver.address);
        let gateway = start(dir, &upstream, arguments);
        Self {
            homeserver,
            gateway,
        }
    }

    /// Registers somebody at the homeserver, where that is open to this machine alone, and returns
    /// their client of the gateway.
    pub(crate) fn register(&self, name: &str) -> Client {
        let beside = self.homeserver.client().register(name, "wordpass");
        beside.at(self.gateway.address)
    }

    pub(crate) fn stop(self) {
        self.gateway.stop();
        self.homeserver.stop();
    }
}

pub(crate) fn start(dir: &Path, upstream: &str, arguments: &[&str]) -> Server {
    let mut command = kitbag(dir);
    command.args(["gateway", "--upstream", upstream]);
    Server::start_as(command.args(arguments))
}

/// An address at which nobody listens: the port is of a service that nobody has.
pub(crate) const NOBODY: &str = "http://127.0.0.1:1";

#[cfg(target_os = "linux")]
#[test]
fn threads_are_as_many_as_are_set() {
    let dir = directory();
    // More than there are by themselves.
    let threads = std::thread::available_parallelism().unwrap().get() + 3;
    let setting = format!("runtime.threads={threads}");
    let gateway = start(dir.path(), NOBODY, &["--set", &setting]);
    gateway.await_threads(threads);
    gateway.stop();
}

#[test]
fn it_says_where_it_is_what_is_behind_it_and_what_it_does() {
    let dir = directory();
    let lab = Lab::start(dir.path(), &["--private", "127.0.0.1:0", "--data", "data"]);
    let private = lab.gateway.private();
    let upstream = format!("http://{}", lab.homeserver.address);
    assert_eq!(lab.gateway.line("homeserver:"), upstream);
    assert_eq!(lab.gateway.line("adds:"), "device account data (MSC4331)");
    assert_eq!(lab.gateway.line("protects:"), "m.fully_read, m.push_rules");
    assert_eq!(lab.gateway.line("data:"), "nothing is kept here");
    let expected = format!("kitbag doctor --upstream http://{}", lab.gateway.address);
    assert_eq!(lab.gateway.line("try:"), expected);
    let alice = lab.register("alice");
    assert_eq!(alice.whoami().json()["user_id"], "@alice:localhost");
    let written = alice.send("PUT", &entry("alice", "m.push_rules"), "{}");
    assert_eq!(
        (written.status, &written.json()["errcode"]),
        (405, &"M_BAD_JSON".into())
    );
    let health = private.send("GET", "/health", "");
    assert_eq!(health.status, 200, "{health:?}");
    assert_eq!(health.json()["upstream"]["status"], 200);
    assert_eq!(private.send("GET", "/other", "").status, 404);
    assert_eq!(private.send("PUT", "/health", "").status, 405);
    assert_eq!(private.send("HEAD", "/metrics", "").body, "");
    let ended = lab.gateway.stop();
    assert_eq!(ended.stdout, "", "nothing more on standard output");
    assert!(ended.stderr.contains("the homeserver answers"), "{ended:?}");
    lab.homeserver.stop();
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 0, "the directory of the data is not made");
}

#[test]
fn what_is_switched_otherwise_is_said() {
    let dir = directory();
    let set = ["protect.push_rules=observe", "msc4547.enabled=true"];
    let arguments = set.map(|pair| ["--set", pair]).concat();
    let gateway = start(dir.path(), NOBODY, &arguments);
    let added = "device account data (MSC4331), compare-and-swap (MSC4547)";
    assert_eq!(gateway.line("adds:"), added);
    let protected = "m.fully_read; writes of m.push_rules are only counted";
    assert_eq!(gateway.line("protects:"), protected);
    gateway.stop();
}

#[test]
fn a_homeserver_that_is_not_there_is_warned_of_and_served_for() {
    let dir = directory();
    let gateway = start(dir.path(), NOBODY, &["--private", "127.0.0.1:0"]);
    let private = gateway.private();
    let health = private.send("GET", "/health", "");
    assert_eq!(health.status, 503, "{health:?}");
    assert_eq!(health.json()["upstream"]["reason"], "upstream_down");
    let versions = gateway.client().versions();
    assert_eq!(
        (versions.status, &versions.json()["errcode"]),
        (502, &"M_UNKNOWN".into())
    );
    assert!(!versions.body.contains("refused"), "{versions:?}");
    let ended = gateway.stop();
    let warned = ended.stderr.lines();
    let mut warned = warned.filter(|line| line.contains("the homeserver does not answer"));
    let (line, is_all) = (warned.next().unwrap(), warned.next().is_none());
    assert!(line.contains("connection refused") && is_all, "{ended:?}");
}

#[test]
fn it_does_not_start_without_a_homeserver_or_before_itself() {
    let dir = directory();
    let listen = ["--listen", "127.0.0.1:8008"];
    for (arguments, because) in [
        (
            &[][..],
            "which homeserver? Name it by `--upstream http://HOST:PORT`",
        ),
        (
            &["--upstream", "http://localhost:8008", listen[0], listen[1]],
            "where the gateway itself is to listen: choose another address by `--listen`",
        ),
        (&["--upstream", "127.0.0.1:8008"], "`upstream.url`"),
        (
            &["--upstream", "http://127.0.0.1:8008/_matrix"],
            "without a path behind the host",
        ),
    ] {
        let ended = run(dir.path(), &[&["gateway"], arguments].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains(because),
            "{because}: {}",
            ended.stderr
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn a_taken_address_of_the_gateway_is_told() {
    let dir = directory();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--private"] {
        let mut arguments = vec!["gateway", "--upstream", NOBODY, flag, &address];
        if flag == "--private" {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        let ended = run(dir.path(), &arguments);
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains(&address), "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "it does not say that it listens");
    }
}

#[test]
fn a_sweep_needs_a_token_and_an_admin_api_and_shows_no_token() {
    let dir = directory();
    let homeserver = Server::ephemeral(dir.path(), &[]);
    let client = homeserver.client().register("alice", "wordpass");
    let token = client.token.clone().unwrap();
    fs::write(dir.path().join("token"), &token).unwrap();
    fs::write(dir.path().join("empty"), "\n").unwrap();
    fs::write(dir.path().join("unknown"), "kt_unknown").unwrap();
    let upstream = format!("http://{}", homeserver.address);
    for (arguments, because) in [
        (&[][..], "in the environment as SYNAPSE_ADMIN_TOKEN"),
        (&["--token-file", "empty"], "there is no token"),
        (&["--token-file", "none"], "cannot read the token"),
        (&["--token-file", "unknown"], "does not take the token"),
        (&["--token-file", "token"], "no admin API of Synapse"),
    ] {
        let command = ["gateway", "sweep", "--upstream", &upstream];
        let ended = run(dir.path(), &[&command, arguments].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stderr.contains(because),
            "{because}: {}",
            ended.stderr
        );
        assert!(!ended.stderr.contains(&token));
        assert_eq!(ended.stdout, "");
    }
    // Asked for before a token: that is the same question as of the gateway and of the doctor.
    let ended = run(dir.path(), &["gateway", "sweep"]);
    assert!(
        ended.stderr.starts_with("kitbag: which homeserver?"),
        "{ended:?}"
    );
    let command = [
        "gateway",
        "sweep",
        "--upstream",
        NOBODY,
        "--token-file",
        "token",
    ];
    let ended = run(dir.path(), &[&command[..], &["--json"]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let failure = "the homeserver cannot be asked: connection refused";
    assert_eq!(ended.stderr, format!("kitbag: {failure}\n"));
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told, json!({"dry_run": false, "failure": failure}));
    let mut command = kitbag(dir.path());
    command.args(["gateway", "sweep", "--upstream", &upstream]);
    command.env("SYNAPSE_ADMIN_TOKEN", &token);
    let ended = run_with_input(&mut command, "");
    assert!(ended.stderr.contains("no admin API of Synapse"));
    let mut command = kitbag(dir.path());
    command.args(["gateway", "sweep", "--upstream", &upstream]);
    let ended = run_with_input(command.args(["--token-file", "-"]), &token);
    assert!(ended.stderr.contains("no admin API of Synapse"));
    homeserver.stop();
}
