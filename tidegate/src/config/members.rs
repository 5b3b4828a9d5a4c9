//! The registry as configured, and the file in which its members may stand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::providers::{Format as _, Toml};
use serde::Deserialize;
use tidegate_registry::{Listed, MemberId, MemberList};

/// The registry, for those who speak to it and for its members.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// The members; none where there is no registry.
    pub members: Option<MemberList>,
    /// The file that they were read from, to be looked at again.
    pub file: Option<PathBuf>,
    /// Where a member serves.
    pub listen: SocketAddr,
    /// Which of them this process is, if it is one.
    pub id: MemberId,
    /// Milliseconds that a user must be gone before it is offline.
    pub debounce_ms: u64,
}

/// Why a file of members is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MembersError {
    /// The file cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, String),
    /// It is not of the form.
    #[error(
        "{0} is not a list of members: {1}; write `version = 1`, and for each `[[members]]` with id and address"
    )]
    Form(String, String),
    /// An address is none.
    #[error("{0} has the address `{1}`, which is not host:port")]
    Address(String, String),
    /// The members make no ring.
    #[error("{0}: {1}")]
    Ring(String, String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    #[serde(default)]
    members: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: u32,
    address: String,
    #[serde(default = "one")]
    weight: u32,
}

fn one() -> u32 {
    1
}

/// A list that never changes: the place in it is the id.
pub(crate) fn in_order(addresses: &[String]) -> MemberList {
    let listed =
        |(id, address): (u32, &String)| Listed { id: MemberId(id), weight: 1, address: address.clone() };
    MemberList { version: 0, members: (0..).zip(addresses).map(listed).collect() }
}

/// Reads a file of members that makes a ring.
pub(crate) fn read(path: &Path) -> Result<MemberList, MembersError> {
    parse(path, &text_of(path)?)
}

/// What stands in a file of members.
pub(crate) fn text_of(path: &Path) -> Result<String, MembersError> {
    let shown = path.display().to_string();
    std::fs::read_to_string(path).map_err(|error| MembersError::Unreadable(shown, error.to_string()))
}

/// Takes the members out of the text of a file.
pub(crate) fn parse(path: &Path, text: &str) -> Result<MemberList, MembersError> {
    let shown = || path.display().to_string();
    let file: File =
        Toml::from_str(text).map_err(|error| MembersError::Form(shown(), error.message().to_owned()))?;
    if let Some(bad) = file.members.iter().find(|member| !is_host_and_port(&member.address)) {
        return Err(MembersError::Address(shown(), bad.address.clone()));
    }
    let listed =
        |entry: Entry| Listed { id: MemberId(entry.id), weight: entry.weight, address: entry.address };
    let list = MemberList { version: file.version, members: file.members.into_iter().map(listed).collect() };
    list.ring().map_err(|error| MembersError::Ring(shown(), error.to_string()))?;
    Ok(list)
}

/// Whether somebody can be dialled at it.
pub(crate) fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains([' ', '/', ',']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// The number behind the last `-` of a host's name, as a StatefulSet names its pods.
pub(crate) fn ordinal_of(host: &str) -> Option<u32> {
    let name = host.split('.').next().unwrap_or(host);
    let (_, number) = name.rsplit_once('-')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_members_is_a_ring_or_is_refused() {
        let check = |text: &str| parse(Path::new("members.toml"), text);
        let list = check(
            "version = 7\n[[members]]\nid = 1\naddress = \"b:1\"\nweight = 2\n[[members]]\nid = 0\naddress = \"a:1\"\n",
        )
        .expect("a list");
        assert_eq!((list.version, list.members.len(), list.address(MemberId(0))), (7, 2, Some("a:1")));
        assert_eq!(list.members[0].weight, 2);
        let member = "[[members]]\nid = 0\naddress = \"a:1\"\n";
        for (text, said) in [
            ("version = 1\n".to_owned(), "ring has no members"),
            (member.to_owned(), "version"),
            (format!("version = 1\n{member}{member}"), "listed twice"),
            (format!("version = 1\n{member}weight = 0\n"), "weight"),
            (format!("version = 1\n{member}wieght = 1\n"), "wieght"),
            ("version = 1\n[[members]]\nid = 0\naddress = \"a\"\n".into(), "`a`, which is not host:port"),
            ("version = -1\n".into(), "not a list of members"),
            ("<html>".into(), "not a list of members"),
        ] {
            let error = check(&text).expect_err("refused").to_string();
            assert!(error.starts_with("members.toml") && error.contains(said), "{error}");
        }
        assert!(read(Path::new("/nonexistent/members.toml")).is_err());
    }

    #[test]
    fn a_pod_s_name_ends_with_its_ordinal() {
        for (host, expected) in [
            ("tidegate-registry-12", Some(12)),
            ("registry-0.registry.tidegate.svc", Some(0)),
            ("registry", None),
            ("registry-", None),
            ("registry-a1", None),
            ("registry-+1", None),
            ("registry-99999999999", None),
            ("", None),
        ] {
            assert_eq!(ordinal_of(host), expected, "{host}");
        }
    }
}
