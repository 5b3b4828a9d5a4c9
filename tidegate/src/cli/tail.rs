//! `tidegate tail`: follows channels over a WebSocket and comes back by itself, with its cursor.

mod follow;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures::{SinkExt as _, StreamExt as _};
use rand::Rng as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::cli::tail::follow::{Ended, Follower, refusal};
use crate::cli::tls::{Trust, distrust};
use crate::cli::{Failure, client_runtime, print_line};
use crate::config::parse_duration;

/// A connection on which nothing comes, not even a ping, for this long is dead: the longest ping interval and some.
const SILENCE_LIMIT: Duration = Duration::from_secs(75);
/// Time for the connection to be made and upgraded.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first pause before coming back is up to this long; it doubles with every failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The longest pause before coming back.
const BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// Follow channels and print their events, across restarts of the server
///
/// One line an event: time, channel, the event's name, partition:offset in the log (Kafka's own numbers), data.
/// What concerns the connection goes to standard error. On Ctrl-C the cursor is printed, with which a later
/// call goes on where this one ended.
///
/// Examples:
///
///   tidegate tail score:42 news
///
///   tidegate tail score:42 --since 10m
///
///   tidegate tail score:42 --last 20 --count 20 --json
///
///   tidegate tail --user alice
///
///   tidegate tail news --server https://events.example.org
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TailArgs {
    /// The channels
    #[arg(value_name = "CHANNEL", required_unless_present_any = ["user", "token"])]
    channels: Vec<String>,
    /// Begin with what came since then: 10m, or `start` for all that is kept
    #[arg(long, value_name = "DURATION|start", value_parser = since)]
    since: Option<String>,
    /// Begin with the last N events of each channel
    #[arg(long, value_name = "N", conflicts_with = "since")]
    last: Option<u32>,
    /// Go on where this cursor ends
    #[arg(long, value_name = "CURSOR", conflicts_with_all = ["since", "last"])]
    cursor: Option<String>,
    /// End after N events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Print the objects as they come, one a line
    #[arg(long)]
    json: bool,
    /// The public port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    server: String,
    /// With https: trust this PEM file's certificates instead of the system's
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Be this user; needs auth.insecure, as in `tidegate dev`
    #[arg(long, value_name = "USER", conflicts_with = "token")]
    user: Option<String>,
    /// A token; `tidegate token` makes one
    #[arg(long, value_name = "TOKEN", env = "TIDEGATE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

fn since(text: &str) -> Result<String, String> {
    if text == "start" || parse_duration(text).is_some() {
        return Ok(text.to_owned());
    }
    Err("write a whole number with ms, s, m, h or d, such as 10m, or `start`".into())
}

pub(super) fn run(args: TailArgs) -> Result<(), Failure> {
    client_runtime()?.block_on(async {
        let mut follower = Follower::new(args.json, args.count, args.cursor.clone());
        let interrupted = tokio::signal::ctrl_c();
        let ended = tokio::select! {
            ended = follow(&args, &mut follower) => ended,
            _ = interrupted => Ok(()),
        };
        if let Some(cursor) = follower.cursor() {
            eprintln!("# to go on from here: --cursor {cursor}");
        }
        ended
    })
}

/// TCP, or TLS over it.
trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Io for S {}

type Socket = WebSocketStream<Box<dyn Io>>;

async fn connect(request: Request, trust: Option<&Trust>) -> Result<Socket, WsError> {
    let host = request.uri().host().unwrap_or_default().to_owned();
    let port = request.uri().port_u16().unwrap_or(if trust.is_some() { 443 } else { 80 });
    let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    tcp.set_nodelay(true)?;
    let stream: Box<dyn Io> = match trust {
        Some(trust) => Box::new(trust.connect(&host, tcp).await?),
        None => Box::new(tcp),
    };
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, _response)| socket)
}

async fn follow(args: &TailArgs, follower: &mut Follower) -> Result<(), Failure> {
    let mut failures = 0;
    let mut was_connected = false;
    let is_tls = request(args, None)?.uri().scheme_str() == Some("wss");
    if args.tls_ca.is_some() && !is_tls {
        return Err(Failure::usage("--tls-ca is for --server https://HOST:PORT"));
    }
    let trust = if is_tls { Some(Trust::new(args.tls_ca.as_deref())?) } else { None };
    loop {
        let request = request(args, follower.cursor())?;
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect(request, trust.as_ref())).await;
        let ended = match connecting {
            Ok(Ok(socket)) => {
                (was_connected, failures) = (true, 0);
                read(socket, follower).await?
            }
            Ok(Err(WsError::Http(response))) => refusal(&response),
            Ok(Err(WsError::Io(error))) if !was_connected => return Err(no_connection(args, Some(&error))),
            Err(_) if !was_connected => return Err(no_connection(args, None)),
            Ok(Err(error)) => Ended::Again { why: error.to_string(), retry: None },
            Err(_) => Ended::Again { why: "no answer in time".into(), retry: None },
        };
        match ended {
            Ended::Done => return Ok(()),
            Ended::Refused { text } => return Err(Failure::refused(text)),
            Ended::Again { why, retry } => {
                let pause = retry.unwrap_or_else(|| backoff(failures));
                failures += 1;
                eprintln!("# connection ended ({why}); coming back in {} ms", pause.as_millis());
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Why the first connection could not be made.
fn no_connection(args: &TailArgs, error: Option<&std::io::Error>) -> Failure {
    let server = &args.server;
    if let Some(text) = error.and_then(distrust) {
        return Failure::usage(format!("{server}: {text}"));
    }
    if let Some(error) = error.filter(|error| error.get_ref().is_some()) {
        return Failure::not_now(format!("{server}: no TLS with it ({error}); is it http://?"));
    }
    Failure::not_now(format!(
        "nothing answers at {server}: is `tidegate dev` running? Name another with --server"
    ))
}

/// Full jitter: anything up to a bound that doubles.
fn backoff(failures: u32) -> Duration {
    let bound = BACKOFF_FIRST.saturating_mul(1 << failures.min(16)).min(BACKOFF_LONGEST);
    bound.mul_f64(rand::rng().random_range(0.0..1.0))
}

async fn read(mut socket: Socket, follower: &mut Follower) -> Result<Ended, Failure> {
    loop {
        let message = match tokio::time::timeout(SILENCE_LIMIT, socket.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return Ok(follower.ended(&error.to_string())),
            Ok(None) => return Ok(follower.ended("it was cut")),
            Err(_) => return Ok(follower.ended("it was silent for too long")),
        };
        match message {
            Message::Text(text) => {
                let said = follower.on_object(&text);
                said.out.as_deref().map(print_line).transpose()?;
                said.note.iter().for_each(|note| eprintln!("# {note}"));
            }
            Message::Close(frame) => {
                let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                return Ok(follower.closed(&reason));
            }
            _ => {} // Pings are answered by the socket itself, and nothing else is sent.
        }
        if follower.has_enough() {
            // Good manners only: what was wanted is here.
            let _ = socket.close(None).await;
            return Ok(Ended::Done);
        }
        // A pong that waits in the socket leaves with the flush.
        if let Err(error) = socket.flush().await {
            return Ok(follower.ended(&error.to_string()));
        }
    }
}

fn request(args: &TailArgs, cursor: Option<&str>) -> Result<Request, Failure> {
    let wrong =
        || Failure::usage(format!("--server {}: write http://HOST:PORT or https://HOST:PORT", args.server));
    let (scheme, base) = match args.server.split_once("://") {
        Some(("http" | "ws", rest)) => ("ws", rest.trim_end_matches('/')),
        Some(("https" | "wss", rest)) => ("wss", rest.trim_end_matches('/')),
        _ => return Err(wrong()),
    };
    let mut url = format!("{scheme}://{base}/v1/events?as=ws");
    let mut push = |name: &str, value: &str| {
        url.push_str(&format!("&{name}="));
        push_encoded(&mut url, value);
    };
    args.channels.iter().for_each(|channel| push("channel", channel));
    if let Some(user) = &args.user {
        push("user", user);
    }
    match (cursor, &args.since, args.last) {
        (Some(cursor), _, _) => push("cursor", cursor),
        (None, Some(since), _) => push("since", since),
        (None, None, Some(last)) => push("last", &last.to_string()),
        (None, None, None) => {}
    }
    let mut request = url.into_client_request().map_err(|_| wrong())?;
    if let Some(token) = &args.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Failure::usage("--token has characters that a header cannot have"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    Ok(request)
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
fn push_encoded(url: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests;
