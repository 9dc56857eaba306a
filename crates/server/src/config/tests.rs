use std::fs;

use super::*;

fn set(pairs: &[&str]) -> Result<Config> {
    let set = pairs.iter().map(|pair| (*pair).to_owned()).collect();
    Config::load(&ConfigArguments {
        set,
        ..ConfigArguments::default()
    })
}

#[test]
fn later_sources_win() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kitbag.toml");
    fs::write(
        &file,
        "server_name = \"a.example\"\n[log]\nlevel = \"warn\"\n",
    )
    .unwrap();
    let arguments = ConfigArguments {
        config: Some(file),
        server_name: Some("b.example".to_owned()),
        set: vec![
            "log.format=json".to_owned(),
            "limits.entries_max=7".to_owned(),
        ],
        ..ConfigArguments::default()
    };
    let config = Config::load(&arguments).unwrap();
    assert_eq!(config.server_name, "b.example");
    assert_eq!(config.log.level, "warn");
    assert!(matches!(config.log.format, LogFormat::Json));
    assert_eq!(config.limits().quota.entries_max, 7);
}

#[test]
fn lists_and_switches_can_be_set() {
    let pairs = [
        "registration.tokens=[\"a\", \"b\"]",
        "rate_limits.enabled=false",
    ];
    let config = set(&pairs).unwrap();
    assert_eq!(config.registration.tokens, ["a", "b"]);
    assert!(!config.rate_limits.enabled);
    let config = set(&["trusted_proxies=[\"10.0.0.0/8\"]"]).unwrap();
    assert_eq!(config.trusted_proxies.len(), 1);
}

#[test]
fn a_plain_address_is_a_network_of_its_own() {
    let config = set(&["trusted_proxies=[\"127.0.0.1\", \"::1\", \"10.0.0.0/8\"]"]).unwrap();
    let told: Vec<_> = config
        .trusted_proxies
        .iter()
        .map(IpNet::to_string)
        .collect();
    assert_eq!(told, ["127.0.0.1/32", "::1/128", "10.0.0.0/8"]);
    for wrong in ["localhost", "10.0.0.0/99", "10.0.0", ""] {
        let error = set(&[&format!("trusted_proxies=[\"{wrong}\"]")]).unwrap_err();
        let error = error.to_string();
        let expected = format!("`{wrong}`: expected an address or a network such as 10.0.0.0/8");
        assert!(
            error.contains("`trusted_proxies") && error.contains(&expected),
            "{error}"
        );
    }
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    let error = set(&["rate_limits.enable=false"]).unwrap_err().to_string();
    assert!(error.contains("`rate_limits.enable`"), "{error}");
    assert!(error.contains("did you mean `enabled`?"), "{error}");
    let error = set(&["serve_name=x"]).unwrap_err().to_string();
    assert!(error.contains("did you mean `server_name`?"), "{error}");
    let error = set(&["listen=nowhere"]).unwrap_err().to_string();
    assert!(error.contains("`listen`"), "{error}");
}

#[test]
fn a_missing_file_is_an_error() {
    let config = Some("/nowhere/kitbag.toml".into());
    let error = Config::load(&ConfigArguments {
        config,
        ..ConfigArguments::default()
    });
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("/nowhere/kitbag.toml")
    );
}

#[test]
fn set_wins_over_the_flags() {
    let arguments = ServeArguments {
        config: ConfigArguments {
            set: vec!["listen=127.0.0.1:2".to_owned()],
            ..ConfigArguments::default()
        },
        listen: Some(([127, 0, 0, 1], 1).into()),
        ephemeral: false,
        private: None,
    };
    let config = Config::load_for_serve(&arguments).unwrap();
    assert_eq!(config.listen.port(), 2);
}

#[test]
fn the_gateway_has_defaults_of_its_own_and_takes_what_is_set() {
    let load = |pairs: &[&str]| {
        let set = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        let config = ConfigArguments {
            set,
            ..ConfigArguments::default()
        };
        let arguments = GatewayArguments {
            config,
            ..GatewayArguments::default()
        };
        Config::load_for_gateway(&arguments).unwrap()
    };
    let (gateway, serve) = (load(&[]), Config::default());
    assert_eq!((gateway.listen.port(), serve.listen.port()), (8009, 8008));
    assert!(!gateway.gateway().msc4331.in_devices);
    assert!(serve.api(serve.listen).features.msc4331.in_devices);
    let processors = serve.runtime.threads;
    assert_eq!(gateway.runtime.threads, gateway_threads(processors));
    let gateway = load(&["msc4331.in_devices=true", "listen=127.0.0.1:5"]);
    assert!(gateway.gateway().msc4331.in_devices);
    assert_eq!(gateway.listen.port(), 5);
    // All others are those of the one list of defaults.
    let mut told = serde_json::to_value(load(&[])).unwrap();
    let defaults = serde_json::to_value(serve).unwrap();
    told["listen"] = defaults["listen"].clone();
    told["msc4331"]["in_devices"] = defaults["msc4331"]["in_devices"].clone();
    told["runtime"] = defaults["runtime"].clone();
    assert_eq!(told, defaults);
}

#[test]
fn an_address_of_all_interfaces_is_told_to_nobody() {
    let config = Config::default();
    let url = |address: &str| config.api(address.parse().unwrap()).public_base_url;
    assert_eq!(url("0.0.0.0:8008"), None);
    assert_eq!(url("[::]:8008"), None);
    let loopback = url("127.0.0.1:8008");
    assert_eq!(loopback.as_deref(), Some("http://127.0.0.1:8008"));
}

#[test]
fn the_example_file_is_of_the_defaults() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/kitbag.example.toml"
    );
    let arguments = ConfigArguments {
        config: Some(file.into()),
        ..ConfigArguments::default()
    };
    let told = serde_json::to_value(Config::load(&arguments).unwrap()).unwrap();
    let defaults = serde_json::to_value(Config::default()).unwrap();
    assert_eq!(told, defaults);
}

#[test]
fn a_wrong_token_is_not_repeated() {
    let error = set(&["registration.tokens=s3cret"])
        .unwrap_err()
        .to_string();
    assert!(!error.contains("s3cret"), "{error}");
    assert!(
        error.contains("`registration.tokens`: expected a sequence"),
        "{error}"
    );
    let config = set(&["registration.tokens=[\"s3cret\"]"]).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kitbag.toml");
    fs::write(&file, "[registration]\ntokens = [\"s3cret]\n").unwrap();
    let error = read(&file, &[]).unwrap_err().to_string();
    let expected = "configuration: TOML parse error at line 2, column 19, invalid basic string";
    assert_eq!(error, format!("{expected} (in `{}`)", file.display()));
}

#[test]
fn of_what_is_no_pair_the_key_alone_is_repeated() {
    for key in ["admin.tokens.ops", "registration.tokens"] {
        for pair in [
            format!("{key}: s3cret-long-enough"),
            format!("{key}: s3cret-long-enough=="),
            format!("{key} s3cret-long-enough"),
            format!("{key}[\"s3cret-long-enough\"]"),
        ] {
            let error = set(&[&pair]).unwrap_err().to_string();
            assert_eq!(error, format!("`--set {key}`: expected KEY=VALUE"));
        }
    }
    for key in ["admin.tokens.", "registration..tokens", ""] {
        let pair = format!("{key}=s3cret-long-enough");
        let error = set(&[&pair]).unwrap_err().to_string();
        let because = "the key is empty, or a part of it";
        assert_eq!(error, format!("`--set {key}`: {because}"));
    }
}

#[test]
fn one_admin_token_has_one_name() {
    let pairs = ["ops", "dashboard"].map(|name| format!("admin.tokens.{name}=s3cret-long-enough"));
    let error = set(&[&pairs[0], &pairs[1]]).unwrap_err().to_string();
    let because = "`dashboard` and `ops` have the same token; each needs one of its own";
    let expected = format!("configuration: setting `admin.tokens`: {because}");
    assert_eq!(error, expected);
}

#[test]
fn a_wrong_admin_token_is_not_repeated() {
    let rows = [
        (
            "admin.tokens.ops=s3cret-too-shor",
            "setting `admin.tokens.ops`: a token must have at least 16 characters",
        ),
        (
            "admin.tokens.ops=1234567890123456",
            "setting `admin.tokens.ops`: a token is a string: put it into quotes",
        ),
        (
            "admin.tokens=[\"s3cret-long-enough\"]",
            "setting `admin.tokens`: expected a map",
        ),
        (
            "admin=s3cret-long-enough",
            "setting `admin`: expected struct AdminSettings",
        ),
    ];
    for (pair, expected) in rows {
        let error = set(&[pair]).unwrap_err().to_string();
        assert_eq!(error, format!("configuration: {expected}"));
    }
    let secret = "s3cret-long-enough";
    let config = set(&[&format!("admin.tokens.ops={secret}")]).unwrap();
    let shown = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
    assert!(shown.contains("ops") && !shown.contains(secret), "{shown}");
}

#[test]
fn the_gateway_has_half_of_the_processors_and_no_more_than_4() {
    for (processors, expected) in [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (9, 4), (128, 4)] {
        let processors = NonZeroUsize::new(processors).unwrap();
        assert_eq!(gateway_threads(processors).get(), expected, "{processors}");
    }
}
