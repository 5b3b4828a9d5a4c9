//! `tidegate publish`: one event to a channel, a user or everyone, over gRPC.

use std::io::Read as _;
use std::time::Duration;

use clap::Args;
use tidegate_proto::publish::v1::publish_request::Payload;
use tidegate_proto::publish::v1::publisher_client::PublisherClient;
use tidegate_proto::publish::v1::target_result::{Outcome, Target};
use tidegate_proto::publish::v1::{PublishRequest, TargetResult};
use tidegate_vocab::{compact_json, limits};

use crate::cli::api::{ApiArgs, refusal};
use crate::cli::{Failure, client_runtime, print_line};
use crate::config::parse_duration;

/// Publish an event to a channel, a user or everyone
///
/// Answers once the log has the event, with its position: <log epoch>.<partition>.<offset>.
/// Without DATA a counter is sent: {"n":1}. With --user or --everyone alone, CHANNEL is left out.
///
/// Examples:
///
///   tidegate publish score:42 '{"home":1,"away":0}' --event goal
///
///   tidegate publish --user alice '{"text":"your parcel has arrived"}'
///
///   tidegate publish --everyone '{"text":"maintenance at noon"}' --ttl 1h
///
///   tidegate publish ticker:usd --repeat 100 --interval 100ms
///
///   echo 'any text' | tidegate publish log:build --text -
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PublishArgs {
    /// The channel, such as score:42
    channel: Option<String>,
    /// One JSON value; `-` reads standard input
    #[arg(allow_negative_numbers = true)]
    data: Option<String>,
    /// The event's own name; Server-Sent Events dispatch by it
    #[arg(long, value_name = "NAME", default_value = "message")]
    event: String,
    /// A user: every connection of theirs, and their inbox; may be repeated
    #[arg(long, value_name = "USER")]
    user: Vec<String>,
    /// Every connection there is
    #[arg(long)]
    everyone: bool,
    /// DATA is text: send it as a JSON string, without a line break at its end
    #[arg(long, conflicts_with = "binary")]
    text: bool,
    /// DATA is bytes: clients see them as `data_b64`
    #[arg(long)]
    binary: bool,
    /// Skip the log: at most once, to those connected now
    #[arg(long, conflicts_with_all = ["ttl", "key"])]
    ephemeral: bool,
    /// Time after which those who come back are spared it, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// Idempotency key: a second publish with it within 2 minutes is answered with the first one's position
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Publish this many times
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: u64,
    /// Pause between repeats, such as 100ms
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    interval: Duration,
    #[command(flatten)]
    api: ApiArgs,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a whole number with ms, s, m, h or d, such as 100ms".into())
}

pub(super) fn run(mut args: PublishArgs) -> Result<(), Failure> {
    let has_other_target = !args.user.is_empty() || args.everyone;
    if has_other_target && args.data.is_none() {
        args.data = args.channel.take();
    }
    if args.channel.is_none() && !has_other_target {
        return Err(Failure::usage("name a CHANNEL, --user USER or --everyone"));
    }
    let data = args.data.take().map(|data| read_data(&data)).transpose()?;
    client_runtime()?.block_on(publish(&args, data.as_deref()))
}

fn read_data(data: &str) -> Result<Vec<u8>, Failure> {
    if data != "-" {
        return Ok(data.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    let most = limits::API_REQUEST_BYTES_LIMIT as u64;
    std::io::stdin()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::refused(format!("standard input cannot be read: {error}")))?;
    Ok(bytes)
}

async fn publish(args: &PublishArgs, data: Option<&[u8]>) -> Result<(), Failure> {
    let mut client = PublisherClient::new(args.api.connect().await?);
    for n in 1..=args.repeat {
        if n > 1 {
            tokio::time::sleep(args.interval).await;
        }
        let request = args.api.request(request(args, data, n)?)?;
        let response = client.publish(request).await.map_err(|status| refusal(&status))?.into_inner();
        for result in &response.results {
            print_line(&describe(result))?;
        }
        if response.failed > 0 {
            let count = response.results.len();
            return Err(Failure::refused(format!("{} of {count} targets failed", response.failed)));
        }
    }
    Ok(())
}

fn request(args: &PublishArgs, data: Option<&[u8]>, n: u64) -> Result<PublishRequest, Failure> {
    let payload = match data {
        Some(bytes) if args.binary => Payload::Binary(bytes.to_vec().into()),
        Some(bytes) if args.text => {
            let text =
                std::str::from_utf8(bytes).map_err(|_| Failure::usage("DATA is not UTF-8: pass --binary"))?;
            let text = text.strip_suffix('\n').unwrap_or(text);
            Payload::Json(serde_json::Value::from(text).to_string())
        }
        Some(bytes) => Payload::Json(json(bytes)?),
        None => Payload::Json(format!("{{\"n\":{n}}}")),
    };
    Ok(PublishRequest {
        channels: args.channel.iter().cloned().collect(),
        users: args.user.clone(),
        everyone: args.everyone,
        event: args.event.clone(),
        payload: Some(payload),
        idempotency_key: args.key.clone().unwrap_or_default(),
        ttl_ms: args.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        ephemeral: args.ephemeral,
    })
}

fn json(bytes: &[u8]) -> Result<String, Failure> {
    let compact = compact_json(bytes).map_err(|error| {
        Failure::usage(format!("DATA: {error}; write it as '{{\"text\":\"hello\"}}', or pass --text"))
    })?;
    String::from_utf8(compact.to_vec()).map_err(|_| Failure::usage("DATA is not UTF-8: pass --binary"))
}

fn describe(result: &TargetResult) -> String {
    let target = match &result.target {
        Some(Target::Channel(channel)) => channel.clone(),
        Some(Target::User(user)) => format!("user {user}"),
        Some(Target::Everyone(_)) => "everyone".into(),
        None => "?".into(),
    };
    match &result.outcome {
        Some(Outcome::Durable(durable)) if durable.duplicate => {
            format!("{target}  pos {}  (published before with this key)", durable.pos)
        }
        Some(Outcome::Durable(durable)) => format!("{target}  pos {}", durable.pos),
        Some(Outcome::Ephemeral(ephemeral)) => format!("{target}  routed to {} nodes", ephemeral.routed),
        Some(Outcome::Problem(problem)) => format!("{target}  failed: {}: {}", problem.kind, problem.message),
        None => format!("{target}  ?"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        args: PublishArgs,
    }

    fn args(line: &[&str]) -> PublishArgs {
        Only::try_parse_from([&["publish"], line].concat()).expect("valid command line").args
    }

    #[test]
    fn requests_say_what_the_command_line_said() {
        let line = ["score:42", "--event", "goal", "--user", "alice", "--ttl", "1h", "--key", "k1"];
        let built = request(&args(&line), Some(b"{ \"a\": 1 }"), 1).expect("valid");
        assert_eq!(built.channels, ["score:42"]);
        assert_eq!(built.users, ["alice"]);
        assert_eq!(
            (built.event.as_str(), built.ttl_ms, built.idempotency_key.as_str()),
            ("goal", 3_600_000, "k1")
        );
        assert_eq!(built.payload, Some(Payload::Json("{\"a\":1}".into())));
        let payload =
            |line: &[&str], data: Option<&[u8]>| request(&args(line), data, 3).map(|built| built.payload);
        assert_eq!(payload(&["c"], None).expect("valid"), Some(Payload::Json("{\"n\":3}".into())));
        let text = payload(&["c", "--text"], Some(b"a\"b\n")).expect("valid");
        assert_eq!(text, Some(Payload::Json("\"a\\\"b\"".into())));
        let binary = payload(&["c", "--binary"], Some(&[0xff])).expect("valid");
        assert_eq!(binary, Some(Payload::Binary(vec![0xff].into())));
        assert_eq!(args(&["c", "-1"]).data.as_deref(), Some("-1"));
        let failure = payload(&["c"], Some(b"hello")).expect_err("not JSON");
        assert!(failure.code == 2 && failure.text.contains("--text"), "{failure:?}");
    }
}
