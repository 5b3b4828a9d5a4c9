mod registry;

use std::ffi::OsString;
use std::path::PathBuf;

use tidegate_vocab::limits;

use super::*;

/// A home, so that the data directory has a default.
fn sources() -> Sources {
    let home = (OsString::from("HOME"), OsString::from("/home/someone"));
    let host = "registry-2".into();
    Sources {
        profile: Profile::Dev,
        file: None,
        environment: vec![home],
        flags: Vec::new(),
        i_know: false,
        host,
    }
}

fn variable(sources: &mut Sources, name: &str, value: &str) {
    sources.environment.push((name.into(), value.into()));
}

fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag { name: name.into(), key: key.into(), value: value.into() }
}

/// Keeps the file for as long as the test runs.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("tidegate.toml");
    std::fs::write(&path, text).expect("written");
    (directory, path)
}

fn load_toml(text: &str) -> Result<Loaded, ConfigErrors> {
    let (_kept, path) = file(text);
    load(&Sources { file: Some(path), ..sources() })
}

fn errors_of(loaded: Result<Loaded, ConfigErrors>) -> Vec<ConfigError> {
    loaded.expect_err("refused").0
}

/// Exactly one error, about `at`, that says `text`.
fn check_refused(toml: &str, at: &str, text: &str) {
    let errors = errors_of(load_toml(toml));
    assert_eq!(errors.len(), 1, "{toml}: {errors:?}");
    assert_eq!(errors[0].at, at, "{toml}: {errors:?}");
    assert!(errors[0].text.contains(text), "{toml}: {errors:?}");
}

#[test]
fn the_defaults_are_valid() {
    let config = load(&sources()).expect("valid").config;
    assert_eq!(config.gateway.public, ([127, 0, 0, 1], 8000).into());
    assert_eq!(config.data_dir, PathBuf::from("/home/someone/.local/share/tidegate/dev"));
    assert!(config.gateway.auth.anonymous && config.gateway.auth.insecure && config.gateway.demo_page);
    assert_eq!(config.log.counts, PartitionCounts::same(8));
    assert_eq!(config.gateway.cursor_interval, Duration::from_secs(15 * 60));
    assert_eq!(config.history.of("score"), Retention { rows: 100, age_ms: 3_600_000 });
    assert_eq!(config.history.of("user"), Retention { rows: 1000, age_ms: 7 * 86_400_000 });
    load(&Sources { profile: Profile::Cluster, ..sources() })
        .expect("what all roles have in common is valid");
    let mut cluster = Sources { profile: Profile::Gateway, ..sources() };
    variable(&mut cluster, "TIDEGATE__CLUSTER__ROUTERS", "router.tidegate.svc:8003");
    let errors = errors_of(load(&cluster));
    assert!(errors.len() == 1 && errors[0].text.contains("nobody could connect"), "{errors:?}");
    variable(&mut cluster, "TIDEGATE__AUTH__HMAC_SECRET", &"k".repeat(32));
    let config = load(&cluster).expect("valid").config;
    assert!(!config.gateway.auth.anonymous && !config.gateway.auth.insecure && !config.gateway.demo_page);
    assert_eq!(config.log.counts, PartitionCounts::same(64));
    assert_eq!(config.drain().window, Duration::from_secs(60));
}

/// A router lets no clients in, so it needs no way to know them; it needs brokers, and a key where others reach it.
#[test]
fn each_role_is_asked_for_what_it_needs() {
    let refused_at =
        |sources: &Sources| errors_of(load(sources)).into_iter().map(|error| error.at).collect::<Vec<_>>();
    let mut router = Sources { profile: Profile::Router, ..sources() };
    assert_eq!(refused_at(&router), ["kafka.bootstrap"]);
    variable(&mut router, "TIDEGATE__KAFKA__BOOTSTRAP", "a:9092, b:9092");
    assert_eq!(load(&router).expect("valid").config.kafka.bootstrap, ["a:9092", "b:9092"]);
    variable(&mut router, "TIDEGATE__CLUSTER__LISTEN", "0.0.0.0:8003");
    assert_eq!(refused_at(&router), ["cluster.listen"], "whoever reaches it could read everything");
    variable(&mut router, "TIDEGATE__CLUSTER__KEY", "0123456789abcdef");
    assert!(load(&router).expect("valid").config.cluster.key.is_some());
    variable(&mut router, "TIDEGATE__KAFKA__MIN_INSYNC", "4");
    assert_eq!(refused_at(&router), ["kafka.min_insync"], "more than there are copies");
    let gateway = Sources { profile: Profile::Gateway, ..sources() };
    assert_eq!(refused_at(&gateway), ["auth", "cluster.routers"]);
}

#[test]
fn later_layers_win() {
    let (_kept, path) =
        file("[server]\npublic = \"127.0.0.1:1\"\napi = \"127.0.0.1:2\"\nadmin = \"127.0.0.1:3\"\n");
    let mut all = Sources { file: Some(path.clone()), ..sources() };
    variable(&mut all, "TIDEGATE__SERVER__API", "127.0.0.1:22");
    variable(&mut all, "TIDEGATE__SERVER__ADMIN", "127.0.0.1:33");
    variable(&mut all, "TIDEGATE_SERVICE_HOST", "10.0.0.1"); // what Kubernetes puts there: one underscore is not ours
    all.flags.push(flag("--admin", "server.admin", "127.0.0.1:333"));
    let loaded = load(&all).expect("valid");
    let config = &loaded.config;
    let ports = [config.gateway.public.port(), config.api.port(), config.admin.port()];
    assert_eq!(ports, [1, 22, 333]);
    for line in [
        format!("public = \"127.0.0.1:1\"  # {}", path.display()),
        "api = \"127.0.0.1:22\"  # TIDEGATE__SERVER__API".into(),
        "admin = \"127.0.0.1:333\"  # --admin".into(),
        "shards = 0".into(),
    ] {
        assert!(loaded.effective.lines().any(|shown| shown == line), "{line} in {}", loaded.effective);
    }
}

#[test]
fn the_environment_says_every_kind_of_value() {
    let mut all = sources();
    for (name, value) in [
        ("TIDEGATE__LOG__PARTITIONS", "16"),
        ("TIDEGATE__HISTORY__AGE", "90s"),
        ("TIDEGATE__LIMITS__OUTBOX_SIZE", "2MiB"),
        ("TIDEGATE__AUTH__INSECURE", "false"),
        ("TIDEGATE__AUTH__HMAC_SECRET", "12345678901234567890123456789012"),
        ("TIDEGATE__CORS__ALLOWED_ORIGINS", "https://a.example, https://b.example:*"),
        ("TIDEGATE__NAMESPACES__SCORE__HISTORY_ROWS", "7"),
        ("TIDEGATE__LOGGING__FORMAT", "json"),
    ] {
        variable(&mut all, name, value);
    }
    let config = load(&all).expect("valid").config;
    assert_eq!(config.log.counts, PartitionCounts::same(16));
    assert_eq!(config.history.of("score"), Retention { rows: 7, age_ms: 90_000 });
    assert_eq!(config.gateway.outbox_bytes_limit, 2 << 20);
    assert!(!config.gateway.auth.insecure && config.gateway.auth.hmac_secret.is_some());
    assert_eq!(config.gateway.allowed_origins, ["https://a.example", "https://b.example:*"]);
    assert_eq!(config.logging.format, LogFormat::Json);
}

#[test]
fn unknown_config_keys() {
    for (toml, at, nearest) in [
        ("[server]\npubic = \"127.0.0.1:1\"", "server.pubic", "`server.public`"),
        ("[sever]\npublic = \"127.0.0.1:1\"", "sever.public", "`server.public`"),
        ("[sever]", "sever", "`server.public`"),
        ("public = \"127.0.0.1:1\"", "public", "`server.public`"),
        ("server = 8000", "server", "`server."),
        ("[auth]\nsecret = \"x\"", "auth.secret", "`auth.hmac_secret`"),
        ("[namespaces.score]\nrows = 5", "namespaces.score.rows", "`namespaces.score.history_rows`"),
        ("[namespaces]\nscore = 5", "namespaces.score", "`namespaces.score.history_"),
    ] {
        check_refused(toml, at, nearest);
        let source = errors_of(load_toml(toml))[0].source.clone();
        assert!(source.is_some_and(|source| source.ends_with("tidegate.toml")), "{toml}");
    }
    for (name, nearest) in [
        ("TIDEGATE__SERVER__PUBIC", "TIDEGATE__SERVER__PUBLIC"),
        ("TIDEGATE__PUBLIC", "TIDEGATE__SERVER__PUBLIC"),
        ("TIDEGATE__SERVER_PUBLIC", "TIDEGATE__SERVER__PUBLIC"),
        ("TIDEGATE__", "TIDEGATE__"),
        ("TIDEGATE__NAMESPACES__SCORE__ROWS", "TIDEGATE__NAMESPACES__SCORE__HISTORY_ROWS"),
    ] {
        let mut all = sources();
        variable(&mut all, name, "x");
        let errors = errors_of(load(&all));
        assert!(errors.len() == 1 && errors[0].at == name && errors[0].text.contains(nearest), "{errors:?}");
    }
    let mut all = sources();
    all.flags.push(flag("--set", "history.row", "5"));
    let errors = errors_of(load(&all));
    assert!(
        errors[0].text.contains("`history.row`") && errors[0].text.contains("`history.rows`"),
        "{errors:?}"
    );
}

#[test]
fn every_rule_refuses_what_breaks_it() {
    let long = "k".repeat(257);
    for (toml, at, text) in [
        ("[server]\npublic = \"localhost\"", "server.public", "`localhost` is not what is expected: address"),
        ("[server]\nshards = 257", "server.shards", "from 0 to 256"),
        ("[server]\nshards = -1", "server.shards", "`-1` is not what is expected: whole number"),
        ("[server]\napi = \"127.0.0.1:8000\"", "server.api", "is also server.public"),
        (
            "[server]\napi = \"0.0.0.0:8001\"",
            "server.api",
            "Without API keys the API port binds loopback only",
        ),
        ("[limits]\nconnections = 0", "limits.connections", "from 1 to"),
        ("[limits]\nchannels = 129", "limits.channels", "from 1 to 128"),
        ("[limits]\nmessage_size = \"65KiB\"", "limits.message_size", "from 1B to 64KiB"),
        ("[limits]\nmessage_size = \"0\"", "limits.message_size", "from 1B to 64KiB"),
        ("[limits]\noutbox_size = \"64KiB\"", "limits.outbox_size", "from 128KiB to 1GiB"),
        ("[limits]\noutbox_size = 65536", "limits.outbox_size", "size: a whole number with `B`"),
        ("[limits]\noutbox_age = \"0s\"", "limits.outbox_age", "from 1s to 1h"),
        ("[limits]\nping_interval = \"60s\"", "limits.ping_interval", "from 1s to 55s"),
        ("[limits]\nsse_retry = \"1ms\"", "limits.sse_retry", "from 100ms to 1m"),
        ("[limits]\nhead_timeout = \"2m\"", "limits.head_timeout", "from 1s to 1m"),
        ("[auth]\nhmac_secret = \"short\"", "auth.hmac_secret", "has 5 bytes and needs at least 32"),
        ("[auth]\nhmac_secret = 5", "auth.hmac_secret", "put it in quotes"),
        ("[auth]\nhmac_secret_file = \"/nonexistent/key\"", "auth.hmac_secret_file", "cannot be read"),
        ("[auth]\nanonymous = false\ninsecure = false", "auth", "nobody could connect"),
        ("[auth]\nanonymous = \"maybe\"", "auth.anonymous", "`true` or `false`"),
        ("[cors]\nallowed_origins = [\"https://a.example/\"]", "cors.allowed_origins", "is not an origin"),
        ("[cors]\nallowed_origins = [\"*\"]", "cors.allowed_origins", "`*` is not an origin"),
        ("[cors]\nallowed_origins = [5]", "cors.allowed_origins", "`5` is not"),
        ("[history]\nrows = 100001", "history.rows", "from 0 to 100000"),
        ("[history]\nage = \"25h\"", "history.age", "raise log.retention_events, or lower history.age"),
        ("[history]\nage = 60", "history.age", "`60` is not what is expected: duration"),
        ("[log]\nretention_events = \"30m\"", "history.age", "1h is longer than log.retention_events = 30m"),
        ("[inbox]\nrows = 100001", "inbox.rows", "from 0 to 100000"),
        ("[inbox]\nage = \"8d\"", "inbox.age", "8d is longer than log.retention_inbox = 7d"),
        ("[namespaces.score]\nhistory_age = \"2d\"", "namespaces.score.history_age", "2d is longer"),
        ("[namespaces.score]\nhistory_rows = 100001", "namespaces.score.history_rows", "from 0 to 100000"),
        ("[namespaces.score]\nhistory_rows = \"x\"", "namespaces.score.history_rows", "`x` is not"),
        ("[namespaces.user]\nhistory_rows = 5", "namespaces.user", "set inbox.rows and inbox.age instead"),
        ("[namespaces.\"a b\"]\nhistory_rows = 5", "namespaces.a b", "is not a namespace"),
        ("[namespaces.\"a:b\"]\nhistory_rows = 5", "namespaces.a:b", "is not a namespace"),
        ("[log]\npartitions = 0", "log.partitions", "from 1 to 1024"),
        ("[log]\npartitions = 1025", "log.partitions", "from 1 to 1024"),
        ("[log]\nretention_inbox = \"400d\"", "log.retention_inbox", "to 366d"),
        ("[log]\nretention_upstream = \"1s\"", "log.retention_upstream", "from 1m to"),
        ("[log]\ndisk_reserve = \"1MiB\"", "log.disk_reserve", "from 64MiB"),
        ("[store]\ncache_size = \"1KiB\"", "store.cache_size", "from 1MiB"),
        ("[drain]\nwait = \"2h\"", "drain.wait", "from 0s to 1h"),
        ("[drain]\nwindow = \"2h\"", "drain.window", "from 0s to 1h"),
        ("[drain]\nretry_window = \"2h\"", "drain.retry_window", "from 0s to 1h"),
        ("[api]\nkeys = [\"tooshort\"]", "api.keys", "key number 1 is not 16 to 256"),
        ("[api]\nkeys = [\"sixteen letters k\"]", "api.keys", "key number 1"),
        (&format!("[api]\nkeys = [\"0123456789abcdef\", \"{long}\"]"), "api.keys", "key number 2"),
        ("[logging]\nlevel = \"a=b=c\"", "logging.level", "is no filter"),
        ("[logging]\nformat = \"xml\"", "logging.format", "`auto`, `json` or `text`"),
    ] {
        check_refused(toml, at, text);
    }
    let both = format!("[auth]\nhmac_secret = \"{long}\"\nhmac_secret_file = \"/k\"");
    check_refused(&both, "auth.hmac_secret", "keep one of them");
    check_refused("[namespaces.user]\n", "namespaces.user", "set inbox.rows");
}

#[test]
fn non_loopback_insecure_is_refused() {
    let exposed = |insecure: bool, i_know: bool| {
        let mut all = sources();
        all.flags.push(flag("--public", "server.public", "0.0.0.0:8000"));
        all.flags.push(flag("--set", "auth.insecure", if insecure { "true" } else { "false" }));
        all.i_know = i_know;
        load(&all)
    };
    let errors = errors_of(exposed(true, false));
    assert_eq!((errors[0].at.as_str(), errors[0].source.as_deref()), ("server.public", Some("--public")));
    assert!(
        errors[0].text.contains("auth.insecure = false") && errors[0].text.contains("--i-know"),
        "{errors:?}"
    );
    assert!(exposed(true, true).is_ok() && exposed(false, false).is_ok());
}

#[test]
fn an_exposed_api_port_needs_keys_whatever_one_knows() {
    let mut all = sources();
    all.i_know = true;
    all.flags.push(flag("--api", "server.api", "[::]:8001"));
    assert_eq!(errors_of(load(&all))[0].at, "server.api");
    all.flags.push(flag("--set", "api.keys", "0123456789abcdef"));
    assert_eq!(load(&all).expect("valid").config.api_keys.len(), 1);
}

#[test]
fn all_errors_are_reported_at_once_with_who_said_it() {
    let (_kept, path) = file("[server]\npubic = \"x\"\n[log]\npartitions = 0\n");
    let mut all = Sources { file: Some(path), ..sources() };
    variable(&mut all, "TIDEGATE__HISTORY__AGE", "soon");
    variable(&mut all, "TIDEGATE__HISTORY__AGES", "1h");
    all.flags.push(flag("--set", "drain.wait", "9h"));
    let errors = load(&all).expect_err("refused");
    let text = errors.to_string();
    assert_eq!(errors.0.len(), 5, "{text}");
    for part in
        ["5 errors", "tidegate.toml", "(from TIDEGATE__HISTORY__AGE)", "(from --set)", "HISTORY__AGES: "]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn files_that_do_not_read_are_named() {
    let missing = load(&Sources { file: Some("/nonexistent/tidegate.toml".into()), ..sources() });
    assert!(errors_of(missing)[0].to_string().starts_with("/nonexistent/tidegate.toml: cannot be read"));
    let errors = errors_of(load_toml("[server\n"));
    assert!(errors.len() == 1 && errors[0].text.contains("is not TOML") && errors[0].text.contains("line 1"));
}

#[test]
fn secrets_come_from_files_without_their_line_break() {
    let (_kept, path) = file(&format!("{}\r\n", "k".repeat(32)));
    let toml = format!("[auth]\nhmac_secret_file = \"{}\"\n", path.display());
    let secret = load_toml(&toml).expect("valid").config.gateway.auth.hmac_secret.expect("set");
    assert_eq!(secret.expose(), "k".repeat(32).as_bytes());
}

#[test]
fn secrets_are_not_printed() {
    let canary = "canary-0123456789-0123456789-0123456789";
    let toml = format!("[auth]\nhmac_secret = \"{canary}\"\n[api]\nkeys = [\"{canary}\"]\n");
    let loaded = load_toml(&toml).expect("valid");
    assert!(!format!("{loaded:?}").contains("canary"), "{loaded:?}");
    assert_eq!(loaded.effective.matches("(redacted)").count(), 2, "{}", loaded.effective);
    // Nor by an error about them, or about what stands next to them.
    for toml in [
        "[auth]\nhmac_secret = \"canary\"".to_owned(),
        "[auth]\nhmac_secret = [\"canary\"]".into(),
        "[api]\nkeys = \"canary, canary canary canary canary\"".into(),
        "[api]\nkeys = {canary = 1}".into(),
        format!("{toml}[server]\nshards = 1000"),
    ] {
        let errors = load_toml(&toml).expect_err("refused");
        assert!(
            !errors.to_string().contains("canary") && !format!("{errors:?}").contains("canary"),
            "{errors}"
        );
    }
}

#[test]
fn a_toml_error_does_not_print_the_line_of_a_secret() {
    let errors = load_toml("[auth]\nhmac_secret = canary-without-quotes\n").expect_err("refused");
    assert!(!errors.to_string().contains("canary"), "{errors}");
}

#[test]
fn the_data_directory_is_the_user_s() {
    let mut all = sources();
    variable(&mut all, "XDG_DATA_HOME", "/data");
    assert_eq!(load(&all).expect("valid").config.data_dir, PathBuf::from("/data/tidegate/dev"));
    variable(&mut all, "TIDEGATE__STORE__DATA_DIR", "here");
    assert_eq!(load(&all).expect("valid").config.data_dir, PathBuf::from("here"));
    all.environment.clear();
    let errors = errors_of(load(&all));
    assert!(errors[0].at == "store.data_dir" && errors[0].text.contains("--data-dir"), "{errors:?}");
}
