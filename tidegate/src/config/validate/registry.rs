//! The registry: which members there are, which of them this is, and of which channels it is known who is there.

use std::path::PathBuf;
use std::time::Duration;

use tidegate_gateway::PresenceConfig;
use tidegate_registry::{MemberId, MemberList};

use super::Check;
use crate::config::keys::Raw;
use crate::config::source::Sources;
use crate::config::value::{Ordinal, show_duration};
use crate::config::{Profile, RegistryConfig, members, millis};

/// Bytes of a process's name for operators: those of a host's.
const NAME_BYTES_LIMIT: usize = 255;

impl Check {
    pub(super) fn registry(&mut self, raw: &Raw, sources: &Sources) -> RegistryConfig {
        let registry = &raw.registry;
        let is_member = sources.profile == Profile::Registry;
        let list = self.members(raw);
        if is_member && registry.members.is_empty() && registry.members_file.is_empty() {
            self.refuse(
                "registry.members",
                "is empty: a member needs the list of all members, itself among them: pass --members \
                 registry-0:8004,registry-1:8004, or set registry.members_file",
            );
        }
        let id = match registry.id {
            Ordinal::Number(id) => Some(id),
            Ordinal::Auto => members::ordinal_of(&sources.host),
        };
        if is_member && id.is_none() {
            let text = format!(
                "is auto, and the host's name `{}` does not end with `-` and a number: say which member of the list \
                 this is with --id NUMBER",
                sources.host
            );
            self.refuse("registry.id", text);
        }
        let is_exposed = !registry.listen.ip().is_loopback();
        if is_member && is_exposed && raw.cluster.key.expose().is_empty() && !sources.i_know {
            let text = format!(
                "{} is not loopback and cluster.key is empty: whoever reaches it could say and ask where users are. \
                 Set cluster.key, or pass --i-know where the network keeps others out",
                registry.listen
            );
            self.refuse("registry.listen", text);
        }
        let debounce = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
        self.range("registry.debounce", &registry.debounce, debounce, |duration| show_duration(*duration));
        RegistryConfig {
            members: list,
            file: Some(PathBuf::from(&registry.members_file)).filter(|path| !path.as_os_str().is_empty()),
            listen: registry.listen,
            id: MemberId(id.unwrap_or_default()),
            debounce_ms: millis(registry.debounce),
        }
    }

    fn members(&mut self, raw: &Raw) -> Option<MemberList> {
        let (listed, file) = (&raw.registry.members, &raw.registry.members_file);
        match (listed.is_empty(), file.is_empty()) {
            (true, true) => None,
            (false, false) => {
                self.refuse(
                    "registry.members",
                    "is set together with registry.members_file: keep one of them",
                );
                None
            }
            (true, false) => match members::read(file.as_ref()) {
                Ok(list) => Some(list),
                Err(error) => {
                    self.refuse("registry.members_file", error.to_string());
                    None
                }
            },
            (false, true) => {
                for address in listed {
                    self.host_and_port("registry.members", address);
                }
                let list = members::in_order(listed);
                if let Err(error) = list.ring() {
                    self.refuse("registry.members", error.to_string());
                }
                Some(list)
            }
        }
    }

    /// Namespaces are checked with their history.
    pub(super) fn presence(&self, raw: &Raw) -> PresenceConfig {
        let named = |(name, namespace): &(String, _)| {
            let namespace: &crate::config::keys::Namespace = namespace;
            Some((name.clone(), namespace.presence?))
        };
        PresenceConfig {
            default: raw.presence.channels,
            namespaces: raw.namespaces.iter().filter_map(named).collect(),
        }
    }

    /// What operators call this process.
    pub(super) fn name(&mut self, raw: &Raw, sources: &Sources) -> String {
        let name = Some(&raw.server.name).filter(|name| !name.is_empty()).unwrap_or(&sources.host);
        if name.len() > NAME_BYTES_LIMIT || name.chars().any(char::is_control) {
            let text = format!("has {} bytes or a control character: 255 bytes are the most", name.len());
            self.refuse("server.name", text);
        }
        name.clone()
    }
}
