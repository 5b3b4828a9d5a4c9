//! The registry of a cluster: its members, and the file in which all processes read who they are.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::node::Node;

/// See the module.
#[derive(Debug)]
pub struct Members {
    /// In the order of their ids.
    pub nodes: Vec<Node>,
    pub(crate) addresses: Vec<SocketAddr>,
    directory: TempDir,
    version: u64,
}

impl Members {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        Self { nodes: Vec::new(), addresses: Vec::new(), directory, version: 0 }
    }

    pub(crate) fn spawn(&mut self, address: SocketAddr, settings: &[String]) {
        let id = self.nodes.len();
        self.addresses.push(address);
        if self.version == 0 {
            self.write(); // A member wants a list with itself in it.
        }
        let mut arguments =
            vec!["--id".to_owned(), id.to_string(), "--listen".to_owned(), address.to_string()];
        arguments.extend(self.file_arguments());
        arguments.extend(settings.iter().cloned());
        self.nodes.push(Node::spawn(&format!("member {id}"), "registry", arguments));
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("members.toml")
    }

    fn file_arguments(&self) -> [String; 2] {
        ["--set".to_owned(), format!("registry.members_file={}", self.file().display())]
    }

    /// What other processes are started with; nothing without a registry.
    pub(crate) fn arguments(&self) -> Vec<String> {
        if self.nodes.is_empty() { Vec::new() } else { self.file_arguments().to_vec() }
    }

    /// Writes a newer list, of all members that were started. Whoever runs reads it within a second or two.
    pub fn write_list(&mut self) {
        if !self.nodes.is_empty() {
            self.version += 1;
            self.write();
        }
    }

    /// At once, as a renamed file is: nobody reads half of it.
    fn write(&self) {
        let mut text = format!("version = {}\n", self.version);
        for (id, address) in self.addresses.iter().enumerate() {
            write!(text, "\n[[members]]\nid = {id}\naddress = \"{address}\"\nweight = 1\n").expect("room");
        }
        let half = self.directory.path().join("half");
        std::fs::write(&half, text).expect("written");
        std::fs::rename(half, self.file()).expect("renamed");
    }
}
