use super::*;

const TEXT: &str = "\
about = \"a test\"
seconds = 5

[channels]
shape = \"some\"
follow = 2
of = 4

[[clients]]
transport = \"ws\"
connections = 10

[[clients]]
name = \"away\"
transport = \"short_poll\"
connections = 3

[publish]
rate = 4
bytes = 64

[storm]
clients = \"away\"
at_second = 2
away_ms = 10
";

#[test]
fn every_shipped_scenario_is_valid_and_has_a_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    for Shipped { name, text } in SHIPPED {
        let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(!scenario.about.contains('\n') && scenario.about.len() < 100, "{name}");
        assert_eq!(std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap(), *text);
        let by_path = folder.join(format!("{name}.toml")).display().to_string();
        assert_eq!(Scenario::find(&by_path).unwrap().0, Scenario::find(name).unwrap().0);
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), SHIPPED.len(), "a file that is not built in");
}

#[test]
fn a_mistake_is_named_with_its_line() {
    Scenario::parse(TEXT).unwrap();
    for (right, wrong, said) in [
        ("seconds = 5", "seconds = 0", ["line 2", "seconds"]),
        ("seconds = 5", "second = 5", ["line 2", "unknown field `second`"]),
        ("follow = 2", "follow = 5", ["line 6", "from 1 to 4"]),
        ("connections = 3", "connections = 0", ["line 16", "connections"]),
        ("rate = 4", "rate = -1", ["line 19", "rate"]),
        ("rate = 4", "rate = 4\nas = \"direct\"", ["line 20", "shape = \"user\""]),
        ("transport = \"ws\"", "transport = \"tcp\"", ["line 10", "short_poll"]),
        ("clients = \"away\"", "clients = \"gone\"", ["line 23", "ws, away"]),
        ("[publish]\nrate = 4\nbytes = 64\n", "", ["missing field", "publish"]),
    ] {
        assert!(TEXT.contains(right), "{right}");
        let error = format!("{:#}", Scenario::parse(&TEXT.replacen(right, wrong, 1)).unwrap_err());
        assert!(said.iter().all(|said| error.contains(said)), "{wrong}: {error}");
    }
    let error = Scenario::find("chess").unwrap_err().to_string();
    assert!(error.contains("live-score") && error.contains(".toml"), "{error}");
}

#[test]
fn shapes_say_who_follows_what() {
    let scenario = Scenario::parse(TEXT).unwrap();
    assert_eq!((scenario.connections(), scenario.targets()), (13, 4));
    assert_eq!(scenario.follow("p").numbers(1), [2, 3]);
    let own = Scenario { channels: Shape::User, ..scenario.clone() };
    assert_eq!((own.targets(), own.follow("p").user.as_deref()), (13, Some("p-{n}")));
    let scaled = scenario.scaled(0.1).unwrap();
    assert_eq!(scaled.clients.iter().map(|clients| clients.connections).collect::<Vec<_>>(), [1, 1]);
}
