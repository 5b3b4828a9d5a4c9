//! `events.json`, `state.json` and `cursors.json`: what must arrive, on all five transports.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use serde_json::{Value, json};

use super::{cases, name_of, publish_body, repeated, transports, unique};
use crate::follow::{Follow, Transport};
use crate::follower::Follower;
use crate::object::Event;
use crate::server::Server;

/// What one transport was sent in one phase.
struct Heard {
    transport: Transport,
    state: Value,
    events: Vec<Event>,
    cursor: String,
}

/// Runs all cases of a file, one after the other; how many.
///
/// # Panics
/// When a case does not hold.
pub async fn run_deliveries(server: &Server, file: &Value, tag: &str) -> usize {
    for (number, case) in cases(file).iter().enumerate() {
        run_case(server, case, &format!("{tag}{number}")).await;
    }
    cases(file).len()
}

/// `cursors.json`: each case is one phase.
///
/// # Panics
/// When a case does not hold.
pub async fn run_bad_cursors(server: &Server, file: &Value) -> usize {
    for (number, case) in cases(file).iter().enumerate() {
        let cursor = match case["cursor_hex"].as_str() {
            Some(hex) => base64_of_hex(hex),
            None => super::expand_text(case["cursor"].as_str().expect("a cursor")),
        };
        let mut phase = json!({
            "request": {"channels": ["a"], "cursor": cursor},
            "live": [{"channel": "a", "data": number}],
            "expect": file["expect"],
        });
        phase["expect"] =
            json!({"state": file["expect"]["state"], "events": [{"channel": "a", "data": number}]});
        let mut case = case.clone();
        case["phases"] = json!([phase]);
        run_case(server, &case, &format!("cursor{number}")).await;
    }
    cases(file).len()
}

fn base64_of_hex(hex: &str) -> String {
    use base64::Engine as _;
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

async fn run_case(server: &Server, case: &Value, prefix: &str) {
    let phases = case["phases"].as_array().expect("phases");
    let channels: BTreeSet<String> = channels_of(phases, prefix);
    let mut before: Vec<Heard> = Vec::new();
    for (number, phase) in phases.iter().enumerate() {
        let what = format!("{:?}, phase {number}", name_of(case));
        publish_all(server, &phase["publish"], prefix).await;
        let mut followers = Vec::new();
        for (at, transport) in transports(case).into_iter().enumerate() {
            let mut follow = follow_of(&phase["request"], prefix);
            if follow.cursor.as_deref() == Some("$previous") {
                // The cursor of another transport.
                follow.cursor = Some(before[(at + 1) % before.len()].cursor.clone());
            }
            followers.push((transport, follow));
        }
        let opened = join_all(followers.into_iter().map(async |(transport, follow)| {
            let mut follower = Follower::open(server.public(), transport, &follow).await;
            let state = follower.state().await;
            (follower, state)
        }));
        let opened = opened.await;
        publish_all(server, &phase["live"], prefix).await;
        let earlier: BTreeSet<String> =
            before.iter().flat_map(|heard| &heard.events).filter_map(|event| event.pos.clone()).collect();
        let listening = opened.into_iter().map(|(follower, state)| {
            listen(follower, state, &phase["expect"], &channels, &earlier, prefix, &what)
        });
        let heard = join_all(listening).await;
        check_states(&heard, &phase["expect"]["state"], &channels, prefix, &what);
        check_positions(&heard, &what);
        check_cursors(&heard, phase, &what);
        before = heard;
    }
}

/// All channels that a case names, itself or through a user.
fn channels_of(phases: &[Value], prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for phase in phases {
        let expected = [&phase["expect"]["events"], &phase["expect"]["events_end_with"]];
        let events = expected.into_iter().flat_map(|list| list.as_array().into_iter().flatten());
        names.extend(events.filter_map(|event| event["channel"].as_str()));
        let asked = phase["request"]["channels"].as_array().into_iter().flatten();
        names.extend(asked.filter_map(Value::as_str));
        let state = &phase["expect"]["state"];
        let told = [&state["recovered"], &state["fresh"]];
        names.extend(
            told.into_iter().flat_map(|list| list.as_array().into_iter().flatten()).filter_map(Value::as_str),
        );
    }
    names.into_iter().map(|name| unique(name, prefix)).collect()
}

async fn publish_all(server: &Server, bodies: &Value, prefix: &str) {
    for body in repeated(bodies) {
        let text = publish_body(&body, prefix);
        let answer = server.try_publish(&text).await;
        assert_eq!(answer.status(), 200, "{text}: {}", answer.text());
    }
}

fn follow_of(request: &Value, prefix: &str) -> Follow {
    let text = |name: &str| request[name].as_str().map(str::to_owned);
    Follow {
        channels: request["channels"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|name| unique(name.as_str().expect("a name"), prefix))
            .collect(),
        cursor: text("cursor"),
        since: text("since"),
        last: request["last"].as_u64(),
        user: text("user").map(|user| format!("{prefix}.{user}")),
        ..Follow::default()
    }
}

/// Takes what must come, checks it and that nothing else comes.
async fn listen(
    mut follower: Follower,
    state: Value,
    expect: &Value,
    channels: &BTreeSet<String>,
    earlier: &BTreeSet<String>,
    prefix: &str,
    what: &str,
) -> Heard {
    let transport = follower.transport;
    let what = format!("{what}, {transport:?}");
    let ends_with = expect.get("events_end_with");
    let mut expected = repeated(ends_with.unwrap_or(&expect["events"]));
    if transport.is_poll() {
        expected.retain(|event| event["ephemeral"] != true);
    }
    let mut events: Vec<Event> = Vec::new();
    let is_own = |event: &Event| {
        let is_extra = transport.is_poll() && event.pos.is_none();
        channels.contains(&event.channel) && !is_extra
    };
    let may_repeat = expect["repeats"] == "allowed";
    let is_repeat = |event: &Event| event.pos.as_ref().is_some_and(|pos| earlier.contains(pos));
    loop {
        let is_there = match (ends_with, expected.last()) {
            (_, None) => true,
            (Some(_), Some(last)) => events.last().is_some_and(|event| matches(event, last, prefix)),
            (None, Some(_)) => events.len() >= expected.len(),
        };
        if is_there {
            break;
        }
        let event = follower.event().await;
        if is_own(&event) && !(may_repeat && is_repeat(&event)) {
            events.push(event);
        }
    }
    for object in follower.quiet().await {
        let event = object.event().unwrap_or_else(|| panic!("{what}: not asked for: {}", object.raw));
        let is_known = !is_own(&event) || (may_repeat && is_repeat(&event));
        assert!(is_known, "{what}: not asked for: {}", object.raw);
    }
    if ends_with.is_some() {
        let start = events.len() - expected.len();
        check_events(&events[start..], &expected, prefix, &what);
    } else {
        check_events(&events, &expected, prefix, &what);
    }
    let cursor = follower.cursor().to_owned();
    Heard { transport, state, events, cursor }
}

/// Channel by channel: across channels there is no order.
fn check_events(events: &[Event], expected: &[Value], prefix: &str, what: &str) {
    let mut by_channel: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for event in events {
        by_channel.entry(event.channel.clone()).or_default().push(event);
    }
    for want in expected {
        let channel = unique(want["channel"].as_str().expect("a name"), prefix);
        let list = by_channel.get_mut(&channel).filter(|list| !list.is_empty());
        let event = list.unwrap_or_else(|| panic!("{what}: missing: {want}")).remove(0);
        assert!(matches(event, want, prefix), "{what}: {event:?} is not {want}");
        match &event.pos {
            None => assert_eq!(want["ephemeral"], true, "{what}: {event:?}"),
            Some(pos) => assert!(is_position(pos), "{what}: {pos}"),
        }
    }
    let more: Vec<_> = by_channel.values().flatten().collect();
    assert!(more.is_empty(), "{what}: not asked for: {more:?}");
    for list in events.iter().filter(|event| event.pos.is_some()).fold(BTreeMap::new(), by_name).values() {
        assert!(list.is_sorted_by(|a, b| a < b), "{what}: offsets rise: {list:?}");
    }
}

fn by_name(mut offsets: BTreeMap<String, Vec<u64>>, event: &Event) -> BTreeMap<String, Vec<u64>> {
    offsets.entry(event.channel.clone()).or_default().push(event.offset());
    offsets
}

fn matches(event: &Event, want: &Value, prefix: &str) -> bool {
    let has_data = if let Some(text) = want["data_text"].as_str() {
        event.data.as_deref() == Some(text)
    } else if let Some(base64) = want["data_b64"].as_str() {
        event.data_b64.as_deref() == Some(base64)
    } else {
        event.data.is_some() && event.json() == want["data"]
    };
    has_data
        && event.channel == unique(want["channel"].as_str().expect("a name"), prefix)
        && event.name == want["event"].as_str().unwrap_or("message")
        && event.pos.is_none() == (want["ephemeral"] == true)
        && event.time > 1_600_000_000_000
}

fn is_position(pos: &str) -> bool {
    let parts: Vec<&str> = pos.split('.').collect();
    let is_decimal = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_epoch =
        |text: &str| text.len() == 16 && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
    matches!(parts.as_slice(), [epoch, partition, offset] if is_epoch(epoch) && is_decimal(partition) && is_decimal(offset))
}

fn check_states(heard: &[Heard], expected: &Value, channels: &BTreeSet<String>, prefix: &str, what: &str) {
    for Heard { transport, state, .. } in heard {
        for list in ["recovered", "fresh"] {
            let Some(want) = expected[list].as_array() else { continue };
            let want: BTreeSet<String> =
                want.iter().map(|name| unique(name.as_str().expect("a name"), prefix)).collect();
            let told: BTreeSet<String> = state[list]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .filter(|name| channels.contains(name))
                .collect();
            assert_eq!(told, want, "{what}, {transport:?}: {list} of {state}");
        }
        if let Some(want) = expected["lost"].as_array() {
            let pair = |lost: &Value, name: String| (name, lost["reason"].as_str().map(str::to_owned));
            let want: BTreeSet<_> = want
                .iter()
                .map(|lost| pair(lost, unique(lost["channel"].as_str().expect("a name"), prefix)))
                .collect();
            let told = state["lost"].as_array().into_iter().flatten();
            let told: BTreeSet<_> = told
                .map(|lost| pair(lost, lost["channel"].as_str().unwrap_or_default().to_owned()))
                .filter(|(name, _)| channels.contains(name))
                .collect();
            assert_eq!(told, want, "{what}, {transport:?}: lost of {state}");
        }
    }
}

/// The same positions on all transports.
fn check_positions(heard: &[Heard], what: &str) {
    let of = |heard: &Heard| -> BTreeSet<(String, String)> {
        let durable =
            heard.events.iter().filter_map(|event| Some((event.channel.clone(), event.pos.clone()?)));
        durable.collect()
    };
    for other in heard.iter().skip(1) {
        assert_eq!(of(&heard[0]), of(other), "{what}: {:?} and {:?}", heard[0].transport, other.transport);
    }
}

/// A poll's first answer may hold the events already: its cursor has advanced where something came later.
fn check_cursors(heard: &[Heard], phase: &Value, what: &str) {
    if phase["expect"]["cursor"] != "advanced" {
        return;
    }
    for Heard { transport, state, cursor, .. } in heard {
        if !transport.is_poll() || !repeated(&phase["live"]).is_empty() {
            assert_ne!(state["cursor"], cursor.as_str(), "{what}, {transport:?}");
        }
    }
}
