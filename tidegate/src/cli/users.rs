//! `tidegate where`, `tidegate presence`, `tidegate direct` and `tidegate disconnect`: users as they are connected now.

use clap::Args;
use serde::Serialize;
use tidegate_proto::users::v1 as wire;
use tidegate_proto::users::v1::direct_request::Payload;
use tidegate_proto::users::v1::users_client::UsersClient;
use tidegate_vocab::compact_json;

use crate::cli::api::{ApiArgs, refusal};
use crate::cli::table::{OutputArgs, age, columns};
use crate::cli::{Failure, client_runtime};

/// Show where a user is connected now
///
/// One line per gateway: transports, connections, since when. Exits with 1 when the user is nowhere.
///
/// Examples:
///
///   tidegate where alice
///
///   tidegate where alice -o json | jq -r '.places[].node'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct WhereArgs {
    /// The user's id
    user: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    api: ApiArgs,
}

/// Show who follows a channel now
///
/// Asked of the gateways that have the channel, as of a second ago at most. Users come in the order of their ids, a page
/// at a time; connections without a user are counted only.
///
/// Examples:
///
///   tidegate presence room:1
///
///   tidegate presence room:1 --limit 1000 --after mallory -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct PresenceArgs {
    /// The channel, such as room:1
    channel: String,
    /// At most so many users, up to 1,000
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// Only users behind this one: the last of the page before
    #[arg(long, value_name = "USER", default_value = "", hide_default_value = true)]
    after: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    api: ApiArgs,
}

/// Send a message to a user's connections now, without the log
///
/// At most once: a user who is not connected misses it. Prints what was reached; exits with 1 when nothing was.
///
/// Examples:
///
///   tidegate direct alice '{"text":"your taxi is here"}'
///
///   tidegate direct alice '{"n":1}' --event hint -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DirectArgs {
    /// The user's id
    user: String,
    /// One JSON value
    #[arg(allow_negative_numbers = true)]
    data: String,
    /// The event's own name
    #[arg(long, value_name = "NAME", default_value = "message")]
    event: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    api: ApiArgs,
}

/// Close a user's connections
///
/// The clients are told `disconnected` with the reason. Nothing keeps them from coming back: `tidegate revoke` does.
///
/// Examples:
///
///   tidegate disconnect alice --reason 'signed out elsewhere'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DisconnectArgs {
    /// The user's id
    user: String,
    /// What the clients are told: one line of at most 80 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Serialize)]
struct Where {
    user: String,
    online: bool,
    places: Vec<Place>,
    unanswered: u32,
}

#[derive(Serialize)]
struct Place {
    node: String,
    incarnation: String,
    connections: u32,
    transports: Vec<String>,
    since: u64,
}

pub(super) fn locate(args: WhereArgs) -> Result<(), Failure> {
    client_runtime()?.block_on(async {
        let mut client = UsersClient::new(args.api.connect().await?);
        let request = args.api.request(wire::LocateRequest { user: args.user.clone() })?;
        let answer = client.locate(request).await.map_err(|status| refusal(&status))?.into_inner();
        let places = answer.places.into_iter().map(|place| Place {
            node: place.node,
            incarnation: place.incarnation,
            connections: place.connections,
            transports: place.transports,
            since: place.since_s,
        });
        let found = Where {
            user: args.user,
            online: answer.online,
            places: places.collect(),
            unanswered: answer.unanswered,
        };
        args.output.print(&found, where_table)?;
        if found.online {
            return Ok(());
        }
        Err(match found.unanswered {
            0 => Failure::refused(format!("{} is not connected", found.user)),
            count => {
                Failure::not_now(format!("{count} gateways that may have {} did not answer", found.user))
            }
        })
    })
}

fn where_table(found: &Where) -> Vec<String> {
    let row = |place: &Place| {
        let node = if place.node.is_empty() { &place.incarnation } else { &place.node };
        [node.clone(), place.connections.to_string(), place.transports.join(","), age(place.since)]
    };
    if found.places.is_empty() {
        return Vec::new();
    }
    columns(["GATEWAY", "CONNECTIONS", "TRANSPORTS", "SINCE"], found.places.iter().map(row).collect())
}

#[derive(Serialize)]
struct Present {
    channel: String,
    connections: u64,
    anonymous: u64,
    nodes: u32,
    unanswered: u32,
    users: Vec<Occupant>,
    has_more: bool,
}

#[derive(Serialize)]
struct Occupant {
    user: String,
    connections: u32,
    transports: Vec<String>,
    nodes: u32,
}

pub(super) fn presence(args: PresenceArgs) -> Result<(), Failure> {
    client_runtime()?.block_on(async {
        let mut client = UsersClient::new(args.api.connect().await?);
        let (channel, after) = (args.channel.clone(), args.after.clone());
        let request = args.api.request(wire::OccupantsRequest { channel, after, limit: args.limit })?;
        let page = client.occupants(request).await.map_err(|status| refusal(&status))?.into_inner();
        let users = page.users.into_iter().map(|occupant| Occupant {
            user: occupant.user,
            connections: occupant.connections,
            transports: occupant.transports,
            nodes: occupant.nodes,
        });
        let present = Present {
            channel: args.channel,
            connections: page.connections,
            anonymous: page.anonymous,
            nodes: page.nodes,
            unanswered: page.unanswered,
            users: users.collect(),
            has_more: page.has_more,
        };
        args.output.print(&present, presence_table)
    })
}

fn presence_table(present: &Present) -> Vec<String> {
    let row = |it: &Occupant| {
        [it.user.clone(), it.connections.to_string(), it.transports.join(","), it.nodes.to_string()]
    };
    let mut lines = vec![format!(
        "{}: {} connections on {} gateways, {} of them without a user",
        present.channel, present.connections, present.nodes, present.anonymous
    )];
    if !present.users.is_empty() {
        let rows = present.users.iter().map(row).collect();
        lines.extend(columns(["USER", "CONNECTIONS", "TRANSPORTS", "GATEWAYS"], rows));
    }
    if let (true, Some(last)) = (present.has_more, present.users.last()) {
        lines.push(format!("there are more: --after {}", last.user));
    }
    if present.unanswered > 0 {
        lines.push(format!("{} gateways did not answer: what they have is missing", present.unanswered));
    }
    lines
}

#[derive(Serialize)]
struct Reached {
    user: String,
    routed: u32,
    accepted: u32,
    written: u32,
    unanswered: u32,
}

pub(super) fn direct(args: DirectArgs) -> Result<(), Failure> {
    let json = compact_json(args.data.as_bytes()).map_err(|error| {
        Failure::usage(format!("DATA is not one JSON value ({error}); quote text: '\"like this\"'"))
    })?;
    client_runtime()?.block_on(async {
        let mut client = UsersClient::new(args.api.connect().await?);
        let request = args.api.request(wire::DirectRequest {
            users: vec![args.user.clone()],
            event: args.event.clone(),
            payload: Some(Payload::Json(String::from_utf8_lossy(&json).into_owned())),
        })?;
        let answer = client.direct(request).await.map_err(|status| refusal(&status))?.into_inner();
        let one = answer.results.into_iter().next().unwrap_or_default();
        let reached = Reached {
            user: one.user,
            routed: one.routed,
            accepted: one.accepted,
            written: one.written,
            unanswered: one.unanswered,
        };
        args.output.print(&reached, |reached| {
            vec![format!(
                "{}: {} gateways, {} connections took it, {} have it in their socket",
                reached.user, reached.routed, reached.accepted, reached.written
            )]
        })?;
        match (reached.accepted, reached.unanswered) {
            (0, 0) => Err(Failure::refused(format!("{} is not connected", args.user))),
            (0, count) => Err(Failure::not_now(format!("{count} gateways did not answer"))),
            _ => Ok(()),
        }
    })
}

#[derive(Serialize)]
struct Disconnected {
    user: String,
    routed: u32,
    closed: u32,
    unanswered: u32,
}

pub(super) fn disconnect(args: DisconnectArgs) -> Result<(), Failure> {
    client_runtime()?.block_on(async {
        let mut client = UsersClient::new(args.api.connect().await?);
        let (user, reason) = (args.user.clone(), args.reason.clone());
        let request = args.api.request(wire::DisconnectRequest { user, reason })?;
        let answer = client.disconnect(request).await.map_err(|status| refusal(&status))?.into_inner();
        let wire::DisconnectResponse { routed, closed, unanswered } = answer;
        let done = Disconnected { user: args.user, routed, closed, unanswered };
        args.output.print(&done, |done| {
            vec![format!("{}: {} connections closed on {} gateways", done.user, done.closed, done.routed)]
        })?;
        match done.unanswered {
            0 => Ok(()),
            count => Err(Failure::not_now(format!("{count} gateways did not answer; say it again"))),
        }
    })
}
