//! The registry's keys.

use super::*;

const TWO: &str =
    "version = 3\n[[members]]\nid = 0\naddress = \"a:1\"\n[[members]]\nid = 2\naddress = \"b:1\"\n";

fn member(extra: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let mut all = Sources { profile: Profile::Registry, ..sources() };
    for (key, value) in extra {
        all.flags.push(flag("--set", key, value));
    }
    load(&all)
}

fn check_member_refused(extra: &[(&str, &str)], at: &str, text: &str) {
    let errors = errors_of(member(extra));
    assert_eq!(errors.iter().map(|error| error.at.as_str()).collect::<Vec<_>>(), [at], "{errors:?}");
    assert!(errors[0].text.contains(text), "{errors:?}");
}

#[test]
fn a_member_needs_the_list_and_knows_its_place_in_it() {
    let config = member(&[("registry.members", "a:8004, b:8004, c:8004")]).expect("valid").config.registry;
    let list = config.members.expect("a list");
    assert_eq!((list.version, list.members.len(), config.id.0), (0, 3, 2), "the host is registry-2");
    assert_eq!((list.address(config.id), config.debounce_ms), (Some("c:8004"), limits::OFFLINE_DEBOUNCE_MS));
    let one = ("registry.members", "a:8004");
    let config = member(&[one, ("registry.id", "0")]).expect("valid").config;
    assert_eq!((config.registry.id.0, config.gateway.name.as_str()), (0, "registry-2"));
    check_member_refused(&[], "registry.members", "--members");
    check_member_refused(&[("registry.members", "a")], "registry.members", "`a` is not host:port");
    check_member_refused(&[one, ("registry.id", "last")], "registry.id", "`auto`, or a whole number");
    check_member_refused(&[one, ("registry.debounce", "1ms")], "registry.debounce", "from 100ms");
    check_member_refused(&[one, ("registry.listen", "0.0.0.0:1")], "registry.listen", "cluster.key");
    let key = ("cluster.key", "0123456789abcdef");
    assert!(member(&[one, ("registry.listen", "0.0.0.0:1"), key]).is_ok());
    let same = [one, ("registry.listen", "127.0.0.1:8002")];
    check_member_refused(&same, "registry.listen", "is also server.admin");
    let mut unnumbered = Sources { profile: Profile::Registry, host: "laptop".into(), ..sources() };
    unnumbered.flags.push(flag("--members", "registry.members", "a:8004"));
    let errors = errors_of(load(&unnumbered));
    assert!(errors.len() == 1 && errors[0].text.contains("`laptop`"), "{errors:?}");
}

#[test]
fn members_stand_in_the_configuration_or_in_a_file_of_their_own() {
    let (_kept, path) = file(TWO);
    let path = path.to_str().expect("UTF-8");
    let in_file = ("registry.members_file", path);
    let config = member(&[in_file]).expect("valid").config.registry;
    assert_eq!(config.members.map(|list| (list.version, list.members.len())), Some((3, 2)));
    assert_eq!(config.file.as_deref(), Some(path.as_ref()));
    check_member_refused(&[in_file, ("registry.members", "a:1")], "registry.members", "keep one of them");
    let missing = ("registry.members_file", "/nonexistent/members.toml");
    check_member_refused(&[missing], "registry.members_file", "cannot be read");
    assert!(load(&sources()).expect("valid").config.registry.members.is_none());
}

#[test]
fn presence_of_channels_is_by_namespace() {
    let config =
        load_toml("[presence]\nchannels = false\n[namespaces.room]\npresence = true\n[namespaces.score]\n");
    let presence = config.expect("valid").config.gateway.presence;
    assert!(!presence.default);
    assert_eq!(presence.namespaces.into_iter().collect::<Vec<_>>(), [("room".to_owned(), true)]);
    assert!(load(&sources()).expect("valid").config.gateway.presence.default, "in dev");
    check_refused("[namespaces.room]\npresence = 1", "namespaces.room.presence", "`true` or `false`");
    let name = load_toml("[server]\nname = \"edge-7\"").expect("valid").config.gateway.name;
    assert_eq!(name, "edge-7");
    check_refused("[server]\nname = \"a\\nb\"", "server.name", "control character");
}
