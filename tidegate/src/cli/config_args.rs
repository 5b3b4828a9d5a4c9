//! The flags that say where the configuration comes from, shared by the commands that read it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::Failure;
use crate::config::{Flag, Profile, Sources};

/// Where the configuration comes from. Defaults < file < environment < flags.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// Configuration as TOML; `tidegate check-config --defaults` prints one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set any key, such as `--set history.age=2h`; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Where clients connect [server.public]
    #[arg(long, value_name = "ADDRESS")]
    public: Option<SocketAddr>,
    /// Where backends publish [server.api]
    #[arg(long, value_name = "ADDRESS")]
    api: Option<SocketAddr>,
    /// Health and metrics [server.admin]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// PEM file with the certificate chain of the public port, which then speaks TLS [tls.cert_file]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM file with its private key [tls.key_file]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Data directory; it is made if need be [store.data_dir]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Kafka brokers to begin with, separated by commas [kafka.bootstrap]
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap: Option<String>,
    /// Routers to attach to, separated by commas [cluster.routers]
    #[arg(long, value_name = "HOST:PORT,…")]
    routers: Option<String>,
    /// Where the other processes of the cluster reach this one [cluster.listen of a router, registry.listen of a member]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Members of the registry in order, separated by commas [registry.members]
    #[arg(long, value_name = "HOST:PORT,…")]
    members: Option<String>,
    /// TOML file with the members of the registry [registry.members_file]
    #[arg(long, value_name = "FILE")]
    members_file: Option<PathBuf>,
    /// How much is logged [logging.level]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// `auto`, `json` or `text` [logging.format]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Allow what is refused because it is dangerous: `?user=` without proof on an address that is not loopback
    #[arg(long)]
    i_know: bool,
}

impl ConfigArgs {
    /// The layers that these flags and the environment make up.
    pub(super) fn sources(&self, profile: Profile) -> Result<Sources, Failure> {
        let mut sources = Sources::of_process(profile);
        sources.file.clone_from(&self.config);
        sources.i_know = self.i_know;
        for assignment in &self.set {
            let Some((key, value)) = assignment.split_once('=') else {
                return Err(Failure::usage(format!("--set {assignment}: write --set SECTION.KEY=VALUE")));
            };
            let (key, value) = (key.trim().to_owned(), value.to_owned());
            sources.flags.push(Flag { name: "--set".into(), key, value });
        }
        let data_dir = utf8("--data-dir", self.data_dir.as_deref())?;
        let tls_cert = utf8("--tls-cert", self.tls_cert.as_deref())?;
        let tls_key = utf8("--tls-key", self.tls_key.as_deref())?;
        let members_file = utf8("--members-file", self.members_file.as_deref())?;
        let listen = if profile == Profile::Registry { "registry.listen" } else { "cluster.listen" };
        let text = |address: &Option<SocketAddr>| address.map(|address| address.to_string());
        for (name, key, value) in [
            ("--public", "server.public", text(&self.public)),
            ("--api", "server.api", text(&self.api)),
            ("--admin", "server.admin", text(&self.admin)),
            ("--tls-cert", "tls.cert_file", tls_cert),
            ("--tls-key", "tls.key_file", tls_key),
            ("--data-dir", "store.data_dir", data_dir),
            ("--bootstrap", "kafka.bootstrap", self.bootstrap.clone()),
            ("--routers", "cluster.routers", self.routers.clone()),
            ("--listen", listen, text(&self.listen)),
            ("--members", "registry.members", self.members.clone()),
            ("--members-file", "registry.members_file", members_file),
            ("--log-level", "logging.level", self.log_level.clone()),
            ("--log-format", "logging.format", self.log_format.clone()),
        ] {
            if let Some(value) = value {
                sources.flags.push(Flag { name: name.into(), key: key.into(), value });
            }
        }
        Ok(sources)
    }
}

fn utf8(flag: &str, path: Option<&Path>) -> Result<Option<String>, Failure> {
    let text = |path: &Path| path.to_str().map(str::to_owned);
    path.map(|path| text(path).ok_or_else(|| Failure::usage(format!("{flag}: not UTF-8")))).transpose()
}
