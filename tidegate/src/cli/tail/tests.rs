use clap::Parser as _;
use tokio_tungstenite::tungstenite::http::{Response, StatusCode};

use super::follow::Said;
use super::*;

#[derive(clap::Parser)]
struct Only {
    #[command(flatten)]
    args: TailArgs,
}

fn args(line: &[&str]) -> Result<TailArgs, clap::Error> {
    Only::try_parse_from([&["tail"], line].concat()).map(|only| only.args)
}

fn event(channel: &str, offset: u64, id: &str) -> String {
    format!(
        "{{\"type\":\"event\",\"channel\":\"{channel}\",\"event\":\"goal\",\"data\":{{\"a\":1}},\"time\":45296789,\
         \"pos\":\"0000000000000abc.7.{offset}\",\"id\":\"{id}\"}}"
    )
}

#[test]
fn the_request_names_everything_in_the_query_and_the_token_in_a_header() {
    let line = ["score:42", "a&b=c", "--last", "5", "--token", "canary"];
    let built = request(&args(&line).expect("valid"), None).expect("valid");
    let expected = "ws://127.0.0.1:8000/v1/events?as=ws&channel=score%3A42&channel=a%26b%3Dc&last=5";
    assert_eq!(built.uri().to_string(), expected);
    assert_eq!(built.headers()[header::AUTHORIZATION], "Bearer canary");
    assert!(!format!("{built:?}").contains("canary"));
    let resumed = request(&args(&["c", "--since", "10m"]).expect("valid"), Some("AbC_")).expect("valid");
    assert!(resumed.uri().to_string().ends_with("&channel=c&cursor=AbC_"));
    for bad in [&["c", "--since", "soon"] as &[&str], &[], &["c", "--since", "1m", "--last", "1"]] {
        assert!(args(bad).is_err(), "{bad:?}");
    }
    let secure = args(&["c", "--server", "https://x:1/"]).expect("valid");
    let built = request(&secure, None).expect("valid");
    assert_eq!(built.uri().to_string(), "wss://x:1/v1/events?as=ws&channel=c");
    for server in ["localhost:8000", "ftp://x", ""] {
        let args = args(&["c", "--server", server]).expect("valid");
        assert!(request(&args, None).is_err_and(|failure| failure.code == 2), "{server}");
    }
}

#[test]
fn events_are_lines_and_repeats_are_dropped() {
    let mut follower = Follower::new(false, Some(2), None);
    let line = "12:34:56.789 score:42 goal 7:42 {\"a\":1}".to_owned();
    let said = follower.on_object(&event("score:42", 42, "c1"));
    assert_eq!(said, Said { out: Some(line), note: Vec::new() });
    assert_eq!(follower.cursor(), Some("c1"));
    assert_eq!(follower.on_object(&event("score:42", 42, "c1")), Said::default());
    assert_eq!(follower.on_object(&event("score:42", 41, "c1")), Said::default());
    assert!(!follower.has_enough());
    assert!(follower.on_object(&event("news", 41, "c2")).out.is_some());
    assert!(follower.has_enough());
}

#[test]
fn states_and_gaps_are_notes() {
    let mut follower = Follower::new(false, None, None);
    let said = follower.on_object(
        "{\"type\":\"state\",\"cursor\":\"c0\",\"recovered\":[\"a\"],\"lost\":[{\"channel\":\"b\",\
         \"reason\":\"expired\"}],\"fresh\":[\"c\",\"d\"]}",
    );
    assert_eq!(said.note, ["from now on: c d", "recovered, nothing lost: a", "lost (expired): b"]);
    assert_eq!(follower.cursor(), Some("c0"));
    let said = follower.on_object("{\"type\":\"gap\",\"channel\":\"a\",\"reason\":\"expired\"}");
    assert_eq!(said.note, ["gap in a: expired"]);
    assert!(follower.on_object("{\"type\":\"ping\",\"id\":\"c9\"}").out.is_none());
    assert_eq!(follower.cursor(), Some("c9"));
    assert_eq!(follower.on_object("nonsense").note.len(), 1);
}

#[test]
fn a_close_says_when_to_come_back_or_that_it_is_final() {
    let close = |code: u16, reason: &str, retry: &str| {
        let mut follower = Follower::new(false, None, None);
        follower.on_object(&format!("{{\"type\":\"close\",\"code\":{code},\"reason\":\"{reason}\"{retry}}}"));
        follower.closed("ignored")
    };
    let draining = close(1012, "draining", ",\"retry_ms\":1500");
    assert_eq!(draining, Ended::Again { why: "draining".into(), retry: Some(Duration::from_millis(1500)) });
    assert!(matches!(close(4401, "token_expired", ""), Ended::Refused { .. }));
    let cut = Follower::new(false, None, None).ended("it was cut");
    assert_eq!(cut, Ended::Again { why: "it was cut".into(), retry: None });
}

#[test]
fn refusals_are_final_only_for_what_the_client_did() {
    let refused = |status: StatusCode, body: &str| {
        let response =
            Response::builder().status(status).body(Some(body.as_bytes().to_vec())).expect("valid");
        refusal(&response)
    };
    let unauthorized = refused(StatusCode::UNAUTHORIZED, "{\"detail\":\"a token is needed\"}");
    assert!(
        matches!(unauthorized, Ended::Refused { text } if text.contains("a token is needed; pass --token"))
    );
    let overloaded = refused(StatusCode::SERVICE_UNAVAILABLE, "{\"detail\":\"full\",\"retry_ms\":250}");
    assert!(matches!(overloaded, Ended::Again { retry: Some(retry), .. } if retry.as_millis() == 250));
    assert!(matches!(refused(StatusCode::BAD_GATEWAY, "<html>"), Ended::Again { retry: None, .. }));
}

#[test]
fn the_pause_grows_up_to_a_bound() {
    for failures in [0, 1, 5, 20, u32::MAX] {
        let bound = BACKOFF_FIRST.saturating_mul(1 << failures.min(16)).min(BACKOFF_LONGEST);
        assert!((0..100).all(|_| backoff(failures) <= bound));
    }
}
