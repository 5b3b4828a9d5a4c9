//! Clients that abuse HTTP/2, frame by frame: each is sent away and counted, memory stays, and others are served meanwhile.

use std::sync::Arc;

use futures::StreamExt as _;
use serde_json::json;
use tidegate_e2e::{PATIENCE, Server, Setup, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::WebSocketStream;

const FAULTS: &str = "tidegate_gateway_h2_faults_total";
/// Sockets that do the same at once.
const SOCKETS: usize = 8;
/// Frames, or pairs of frames, that a client sends at most: who is still there then was not stopped.
const FRAMES: u32 = 200_000;
/// What the server may grow by in all: a bomb of which all is kept takes 47 MB on each socket.
const GROWTH_BYTES: u64 = 64 << 20;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field of HPACK: `prefix` says how it is named and whether it is remembered.
fn field(prefix: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = prefix.to_vec();
    match value.len() {
        length @ ..127 => field.push(length as u8),
        length => {
            let (rest, low) = ((length - 127) / 128, (length - 127) % 128);
            field.extend([127, 128 | low as u8, rest as u8]);
        }
    }
    field.extend(value);
    field
}

/// The fields of a request: `method` is 2 for GET and 3 for POST, as HPACK numbers them.
fn head(method: u8, path: &str) -> Vec<u8> {
    [vec![0x80 | method, 0x87], field(&[4], path.as_bytes()), field(&[1], b"localhost")].concat()
}

fn poll() -> Vec<u8> {
    head(2, "/v1/events?channel=a&wait=20s")
}

/// One way to be a nuisance.
struct Flood {
    name: &'static str,
    /// What it may be counted as.
    kinds: &'static [&'static str],
    opening: Vec<u8>,
    /// What follows, again and again; the number makes odd names of streams.
    each: fn(u32) -> Vec<u8>,
}

fn named(number: u32) -> u32 {
    2 * number + 1
}

fn asked_and_reset(number: u32) -> Vec<u8> {
    let asked = frame(HEADERS, END_STREAM | END_HEADERS, named(number), &poll());
    [asked, frame(RST_STREAM, 0, named(number), &[0, 0, 0, 8])].concat()
}

fn floods() -> Vec<Flood> {
    let quiet = |name, kinds, each| Flood { name, kinds, opening: Vec::new(), each };
    let begun = frame(HEADERS, END_STREAM, 1, &poll());
    vec![
        // CVE-2023-44487.
        quiet("rapid reset", &["unanswered_reset", "reset"], asked_and_reset),
        // So many in what the server reads at once that none of them can have been looked at.
        Flood {
            name: "rapid reset at once",
            kinds: &["unanswered_reset"],
            opening: (0..100).flat_map(asked_and_reset).collect(),
            each: |number| asked_and_reset(100 + number),
        },
        // CVE-2025-8671: it is the server that is made to reset.
        quiet("provoked resets", &["provoked_reset"], |number| {
            let asked = frame(HEADERS, END_STREAM | END_HEADERS, named(number), &poll());
            [asked, frame(WINDOW_UPDATE, 0, named(number), &[0x7f, 0xff, 0xff, 0xff])].concat()
        }),
        Flood {
            name: "continuations",
            kinds: &["continuation"],
            opening: begun.clone(),
            each: |_| frame(CONTINUATION, 0, 1, &field(&[0, 1, b'a'], b"b")),
        },
        Flood {
            name: "empty continuations",
            kinds: &["continuation"],
            opening: begun.clone(),
            each: |_| frame(CONTINUATION, 0, 1, &[]),
        },
        Flood {
            name: "a header list without end",
            kinds: &["header_list", "continuation"],
            opening: begun,
            each: |_| frame(CONTINUATION, 0, 1, &field(&[0, 1, b'a'], &[b'b'; 16_000])),
        },
        quiet("an HPACK bomb", &["header_list"], |number| {
            // One field of 3,900 bytes, remembered, and then named 12,000 times with a byte each.
            let bomb = [poll(), field(&[0x40, 1, b'a'], &[b'b'; 3_900]), vec![0x80 | 62; 12_000]].concat();
            frame(HEADERS, END_STREAM | END_HEADERS, named(number), &bomb)
        }),
        quiet("settings", &["settings"], |_| frame(SETTINGS, 0, 0, &[])),
        quiet("settings that change", &["settings"], |number| {
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, (number >> 8) as u8, number as u8])
        }),
        quiet("pings", &["ping"], |_| frame(PING, 0, 0, &[7; 8])),
        quiet("priorities", &["priority"], |number| frame(PRIORITY, 0, named(number), &[0, 0, 0, 0, 9])),
        quiet("window updates", &["window_update"], |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        quiet("frames of no kind", &["unknown"], |_| frame(0x20, 0, 0, &[0; 100])),
        Flood {
            name: "data without content",
            kinds: &["data"],
            opening: frame(HEADERS, END_HEADERS, 1, &head(3, "/v1/messages")),
            each: |_| frame(DATA, 0, 1, &[]),
        },
    ]
}

async fn connect(server: &Server, cert: &CertificateDer<'static>, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).expect("a certificate");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let tcp = TcpStream::connect(server.public()).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("secure")
}

/// Floods until the server closes the socket.
async fn until_sent_away(socket: TlsStream<TcpStream>, opening: Vec<u8>, each: fn(u32) -> Vec<u8>) -> bool {
    let (mut reading, mut writing) = tokio::io::split(socket);
    let closed = async {
        let mut buffer = [0; 16 * 1024];
        while matches!(reading.read(&mut buffer).await, Ok(1..)) {}
    };
    let flooding = async {
        let begin =
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[]), &opening].concat();
        let mut open = writing.write_all(&begin).await.is_ok();
        for number in (0..FRAMES).step_by(10) {
            let frames: Vec<u8> = (number..number + 10).flat_map(each).collect();
            open = open && writing.write_all(&frames).await.is_ok();
            if !open {
                return true;
            }
        }
        let _ = writing.flush().await;
        false
    };
    let both = async {
        tokio::select! {
            () = closed => true,
            was_stopped = flooding => was_stopped,
        }
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap_or(false)
}

/// A figure of the process's memory, in bytes.
fn memory(server: &Server, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).expect("a figure");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// How many sockets were closed for one of these.
async fn faults(server: &Server, kinds: &[&str]) -> f64 {
    let mut count = 0.0;
    for kind in kinds {
        count += server.metric(FAULTS, &[&format!("kind=\"{kind}\"")]).await;
    }
    count
}

async fn hears(neighbour: &mut WebSocketStream<TlsStream<TcpStream>>, text: &str) {
    let heard = async {
        while !neighbour.next().await.expect("open").expect("no error").to_string().contains(text) {}
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("{text} did not come"));
}

#[tokio::test]
async fn who_floods_is_sent_away_and_others_are_served() {
    let directory = tempfile::tempdir().expect("directory");
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("signed");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("crt"), signed.cert.pem()).expect("written");
    std::fs::write(path("key"), signed.signing_key.serialize_pem()).expect("written");
    let (cert_file, key_file) = (path("crt"), path("key"));
    let setup =
        Setup::new().set("tls.cert_file", cert_file.display()).set("tls.key_file", key_file.display());
    let server = Server::start(setup).await;
    let cert = signed.cert.der().clone();
    let url = format!("wss://{}/v1/events?channel=a", server.public());
    let stream = connect(&server, &cert, b"http/1.1").await;
    let (mut neighbour, _) = tokio_tungstenite::client_async(url, stream).await.expect("opens");
    hears(&mut neighbour, "\"state\"").await;
    let before = memory(&server, "VmHWM");
    for Flood { name, kinds, opening, each } in floods() {
        let counted_before = faults(&server, kinds).await;
        let mut sockets = JoinSet::new();
        for _ in 0..SOCKETS {
            sockets.spawn(until_sent_away(connect(&server, &cert, b"h2").await, opening.clone(), each));
        }
        server.publish(json!({"channel": "a", "data": name})).await;
        hears(&mut neighbour, name).await;
        for was_stopped in sockets.join_all().await {
            assert!(was_stopped, "{name}: {FRAMES} were let through; {}", server.stderr());
        }
        let counted = eventually(&format!("{name} is counted"), async || {
            let counted = faults(&server, kinds).await - counted_before;
            (counted >= SOCKETS as f64).then_some(counted)
        })
        .await;
        assert_eq!(counted, SOCKETS as f64, "{name}: each once");
        println!("{name}: {} MiB at most so far", memory(&server, "VmHWM") >> 20);
    }
    let grown = memory(&server, "VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "{grown} bytes more than before");
    eventually("only the neighbour is left", async || {
        (server.metric("tidegate_gateway_connections", &[]).await == 1.0).then_some(())
    })
    .await;
    server.publish(json!({"channel": "a", "data": "the end"})).await;
    hears(&mut neighbour, "the end").await;
}
