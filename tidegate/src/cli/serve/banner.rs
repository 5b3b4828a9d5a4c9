//! What `tidegate dev` prints: where it is and what to try. The separate roles only log.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use tidegate_gateway::{Budget, TlsFiles};

use crate::app::Addresses;
use crate::version::VERSION;

/// Prints it. Nobody has to read it: a closed standard output is no error.
pub(super) fn print(addresses: &Addresses, data_dir: &Path, budget: &Budget, tls: Option<&TlsFiles>) {
    let (Some(public), Some(api)) = (&addresses.public, &addresses.api) else { return };
    let mut out = std::io::stdout().lock();
    let text = text([public, api, &addresses.admin], data_dir, budget, tls);
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn text(addresses: [&SocketAddr; 3], data_dir: &Path, budget: &Budget, tls: Option<&TlsFiles>) -> String {
    let [public, api, admin] = addresses.map(reachable);
    let server = flag("--server", &public, 8000);
    let (s, trust, tail) = match tls {
        Some(files) => {
            let tail = format!(" --server https://{public} --tls-ca {}", files.cert.display());
            ("s", trust(files), tail)
        }
        None => ("", String::new(), server),
    };
    let curl = tls.map_or_else(String::new, |files| format!(" --cacert {}", files.cert.display()));
    let to_api = flag("--api", &api, 8001);
    format!(
        "Tidegate {version} is ready.

  public  http{s}://{public}  for clients; open it in a browser to see one cursor over five transports
  api     http://{api}  for backends: gRPC and POST /v1/publish
  admin   http://{admin}  /livez /readyz /metrics
  data    {data_dir}
  budget  {files} files: {connections} connections, {memory} MiB when they are idle; {limit}
{trust}
Follow the channel score:42, each in a terminal of its own:

  WebSocket   tidegate tail score:42{tail}
              websocat 'ws{s}://{public}/v1/events?channel=score:42'
  SSE         curl{curl} -N -H 'accept: text/event-stream' 'http{s}://{public}/v1/events?channel=score:42'
  NDJSON      curl{curl} -N -H 'accept: application/x-ndjson' 'http{s}://{public}/v1/events?channel=score:42'
  long poll   curl{curl} 'http{s}://{public}/v1/events?channel=score:42&wait=25s'
  short poll  curl{curl} 'http{s}://{public}/v1/events?channel=score:42&last=10'

Publish to it:

  curl -d '{{\"channel\":\"score:42\",\"event\":\"goal\",\"data\":{{\"home\":1}}}}' http://{api}/v1/publish
  tidegate publish score:42 '{{\"home\":1}}' --event goal{to_api}

Ctrl-C drains and ends.
",
        version = VERSION.number,
        data_dir = data_dir.display(),
        files = budget.files,
        connections = budget.connections,
        memory = (budget.idle_memory_bytes >> 20).max(1),
        limit = memory_limit(budget),
    )
}

fn memory_limit(budget: &Budget) -> String {
    match budget.memory_limit_bytes {
        Some(bytes) => format!("of {} MiB that it may have", bytes >> 20),
        None => "memory without a limit (limits.memory)".to_owned(),
    }
}

/// How to get a client to believe the certificate.
fn trust(files: &TlsFiles) -> String {
    format!(
        "  tls     {cert}
          trust it: curl --cacert FILE; SSL_CERT_FILE=FILE websocat; NODE_EXTRA_CA_CERTS=FILE node;
          in a browser open the page and accept it once, or import FILE as an authority
",
        cert = files.cert.display()
    )
}

/// An address that a client on this machine can use: a socket bound to all addresses is reached by loopback.
fn reachable(address: &SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The flag that a command needs to find this process, if it is not where it looks by itself.
fn flag(name: &str, address: &SocketAddr, default_port: u16) -> String {
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), default_port);
    if *address == default { String::new() } else { format!(" {name} http://{address}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_real_addresses_and_every_transport() {
        let addresses = ["0.0.0.0:41000", "127.0.0.1:8001", "[::]:41002"];
        let addresses = addresses.map(|address| address.parse().expect("address"));
        let budget = Budget {
            files: 20_000,
            connections: 19_744,
            idle_memory_bytes: 19_744 * 1024,
            memory_limit_bytes: Some(512 << 20),
        };
        let data_dir = Path::new("/data/here");
        let with_tls = text(
            addresses.each_ref(),
            data_dir,
            &budget,
            Some(&TlsFiles { cert: "/data/here/tls/cert.pem".into(), key: "/data/here/tls/key.pem".into() }),
        );
        for part in [
            "public  https://127.0.0.1:41000",
            "wss://127.0.0.1:41000/",
            "curl --cacert /data/here/tls/cert.pem -N -H 'accept: text/event-stream' 'https://127.0.0.1:41000/",
            "import FILE",
        ] {
            assert!(with_tls.contains(part), "{part} in {with_tls}");
        }
        let text = text(addresses.each_ref(), data_dir, &budget, None);
        for part in [
            "http://127.0.0.1:41000/v1/events?channel=score:42&wait=25s",
            "text/event-stream",
            "application/x-ndjson",
            "ws://127.0.0.1:41000/",
            "&last=10",
            "tail score:42 --server http://127.0.0.1:41000",
            "http://127.0.0.1:8001/v1/publish",
            "--event goal\n",
            "http://[::1]:41002",
            "/data/here",
            "20000 files: 19744 connections, 19 MiB when they are idle; of 512 MiB",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
