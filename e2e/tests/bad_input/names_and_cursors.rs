//! Cursors, channels, event names, payloads.

use serde_json::json;
use tidegate_e2e::{Follow, Follower, Setup, Transport, http};

use crate::Rig;

/// Each is answered `lost: bad_cursor` on each transport, and the connection goes on from now.
async fn lost_as_bad(rig: &mut Rig, cursors: &[String]) {
    for cursor in cursors {
        for transport in Transport::ALL {
            let follow = Follow::channels(["a"]).resume(cursor);
            let mut client = Follower::open(rig.server.public(), transport, &follow).await;
            let mut state = client.state().await;
            let lost = json!({"channel": "a", "reason": "bad_cursor"});
            assert!(state["lost"].as_array().expect("a list").contains(&lost), "{transport:?}: {state}");
            // Its own cursor and connection are random letters, in which a short one stands by chance.
            for random in ["cursor", "connection"] {
                state.as_object_mut().expect("an object").remove(random);
            }
            let told = state.to_string();
            assert!(cursor.len() < 2 || !told.contains(cursor.as_str()), "nothing of it is echoed: {told}");
            let pos = rig.server.publish(json!({"channel": "a", "data": 1})).await["pos"].clone();
            assert_eq!(json!(client.event().await.pos), pos, "{transport:?} goes on live");
            let next = client.cursor().to_owned();
            assert_ne!(&next, cursor);
        }
    }
    rig.unharmed().await;
}

/// A cursor of this server for channel `a`.
async fn good_cursor(rig: &Rig) -> String {
    let mut client = Follower::open(rig.server.public(), Transport::Sse, &Follow::channels(["a"])).await;
    client.state().await;
    client.cut().cursor
}

#[tokio::test]
async fn malformed_cursors() {
    let mut rig = Rig::start(Setup::new()).await;
    let good = good_cursor(&rig).await;
    let flipped: String = good.chars().rev().collect();
    let mut cursors: Vec<String> =
        ["x", "-1", "null", "AAAA", "AQ==", "....", "0000000000000abc.1.2"].map(str::to_owned).to_vec();
    cursors.extend([good[..good.len() - 1].to_owned(), good[1..].to_owned(), format!("{good}A"), flipped]);
    lost_as_bad(&mut rig, &cursors).await;
    let metric = "tidegate_gateway_subscriptions_total";
    assert!(rig.server.metric(metric, &["outcome=\"bad_cursor\""]).await >= 55.0);
    rig.end().await;
}

#[tokio::test]
async fn oversized_cursors() {
    let mut rig = Rig::start(Setup::new()).await;
    lost_as_bad(&mut rig, &["A".repeat(4_096), "A".repeat(4_097), "z".repeat(8_000)]).await;
    rig.end().await;
}

/// A cursor of another server, whose log is another one: told as such, never believed.
#[tokio::test]
async fn foreign_cursors() {
    let mut rig = Rig::start(Setup::new()).await;
    let other = Rig::start(Setup::new()).await;
    for n in 0..10 {
        other.server.publish(json!({"channel": "a", "data": n})).await;
    }
    let foreign = good_cursor(&other).await;
    rig.server.publish(json!({"channel": "a", "data": "before"})).await;
    for transport in Transport::ALL {
        let follow = Follow::channels(["a"]).resume(&foreign);
        let mut client = Follower::open(rig.server.public(), transport, &follow).await;
        let state = client.state().await;
        let lost = json!({"channel": "a", "reason": "epoch"});
        assert!(state["lost"].as_array().expect("a list").contains(&lost), "{transport:?}: {state}");
    }
    // Somebody else's cursor opens nothing of theirs.
    let mut alice =
        Follower::open(rig.server.public(), Transport::Sse, &Follow::default().user("alice")).await;
    alice.state().await;
    let cursor = alice.cut().cursor;
    rig.server.publish(json!({"user": "alice", "data": "private"})).await;
    for transport in Transport::ALL {
        let follow = Follow::channels(["a"]).user("mallory").resume(&cursor);
        let mut client = Follower::open(rig.server.public(), transport, &follow).await;
        let state = client.state().await.to_string();
        assert!(!state.contains("alice"), "{transport:?}: {state}");
        let heard = client.quiet().await;
        assert!(heard.iter().all(|object| !object.raw.contains("private")), "{transport:?}: {heard:?}");
    }
    rig.unharmed().await;
    rig.end().await;
}

#[tokio::test]
async fn bad_channel_names() {
    let mut rig = Rig::start(Setup::new()).await;
    let long = "x".repeat(256);
    for name in
        ["", " ", "a b", "a\nb", "a\rb", "a\0b", "a\x7f", "café", "a\"b", "a<b>", "{a}", "\u{202e}a", &long]
    {
        rig.refused_everywhere(&Follow::channels([name]), 400, "bad_channel").await;
        let body = json!({"channel": name, "data": 1}).to_string();
        assert_eq!(rig.server.try_publish(&body).await.problem(), "bad_channel", "{name:?}");
        let said = http::post(rig.server.public(), "/v1/messages", &[], &body).await;
        assert_eq!(said.problem(), "bad_channel", "{name:?}");
    }
    let longest = "x".repeat(255);
    let mut client =
        Follower::open(rig.server.public(), Transport::Ndjson, &Follow::channels([&longest])).await;
    client.state().await;
    rig.server.publish(json!({"channel": longest, "data": 1})).await;
    assert_eq!(client.event().await.channel, longest);
    rig.end().await;
}

#[tokio::test]
async fn reserved_user_channels() {
    let mut rig = Rig::start(Setup::new()).await;
    for name in ["user:alice", "user:", "user:bob", "everyone"] {
        rig.refused_everywhere(&Follow::channels([name]), 403, "forbidden").await;
        rig.refused_everywhere(&Follow::channels(["a", name]).user("alice"), 403, "forbidden").await;
        let body = json!({"channel": name, "data": 1}).to_string();
        let said = http::post(rig.server.public(), "/v1/messages?user=alice", &[], &body).await;
        assert_eq!(said.problem(), "forbidden", "{name}");
    }
    rig.end().await;
}

#[tokio::test]
async fn sse_breaking_newlines_in_event_names() {
    let rig = Rig::start(Setup::new()).await;
    let follow = Follow::channels(["a"]);
    let mut client = Follower::open(rig.server.public(), Transport::Sse, &follow).await;
    client.state().await;
    let names = [
        "x\ny",
        "x\ry",
        "x\r\ny",
        "\n",
        "x\n\ndata: forged",
        "x\0",
        "x\u{85}",
        "x\u{2028}y",
        "\u{2029}",
        "",
        "tidegate.close",
    ];
    for name in names {
        for ephemeral in [false, true] {
            let body = json!({"channel": "a", "event": name, "data": 1, "ephemeral": ephemeral}).to_string();
            let refused = rig.server.try_publish(&body).await;
            assert_eq!((refused.status(), refused.problem().as_str()), (400, "bad_event_name"), "{name:?}");
        }
    }
    let data =
        json!({"text": "one\ntwo\rthree\r\nid: four\n\ndata: five\nevent: tidegate.close", "\n": "\u{2028}"});
    rig.server.publish(json!({"channel": "a", "event": "goal: id: 7", "data": data})).await;
    let event = client.event().await;
    assert_eq!((event.name.as_str(), event.json()), ("goal: id: 7", data));
    rig.end().await;
}

#[tokio::test]
async fn payloads_over_the_limit() {
    let mut rig = Rig::start(Setup::new()).await;
    let mut client = Follower::open(rig.server.public(), Transport::Sse, &Follow::channels(["a"])).await;
    client.state().await;
    let of = |bytes: usize| json!({"channel": "a", "data": "x".repeat(bytes - 2)}).to_string();
    for bytes in [65_537, 100_000, 1_000_000] {
        let refused = rig.server.try_publish(&of(bytes)).await;
        assert_eq!((refused.status(), refused.problem().as_str()), (413, "too_large"), "{bytes}");
        let said = http::post(rig.server.public(), "/v1/messages", &[], &of(bytes)).await;
        assert_eq!((said.status(), said.problem().as_str()), (413, "too_large"), "{bytes}");
    }
    let refused = rig.server.try_publish(&of(5_000_000)).await;
    assert_eq!((refused.status(), refused.problem().as_str()), (413, "too_large"));
    assert_eq!(rig.server.try_publish(&of(65_536)).await.status(), 200);
    assert_eq!(client.event().await.data.map(|data| data.len()), Some(65_536));
    rig.unharmed().await;
    rig.end().await;
}

#[tokio::test]
async fn bad_json() {
    let rig = Rig::start(Setup::new()).await;
    let deep = format!("{{\"channel\":\"a\",\"data\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let texts = [
        "",
        "{",
        "}",
        "hello",
        "{\"channel\":\"a\",\"data\":}",
        "{\"channel\":\"a\",\"data\":01}",
        "{'channel':'a'}",
        "{\"channel\":\"a\",\"data\":1}x",
        "{\"channel\":\"a\",\"data\":NaN}",
        "{\"channel\":\"a\",\"data\":\"\\x\"}",
        "{\"channel\":\"a\",\"data\":\"\u{1}\"}",
        "{\"channel\":\"a\",\"data\":\"\\ud800",
        &deep,
    ];
    for text in texts {
        let shown = &text[..text.len().min(60)];
        let refused = rig.server.try_publish(text).await;
        assert_eq!((refused.status(), refused.problem().as_str()), (400, "bad_json"), "{shown}");
        let said = http::post(rig.server.public(), "/v1/messages", &[], text).await;
        let kind = said.problem();
        assert!(kind == "bad_json" || (kind == "too_large" && text.len() > 65_536), "{shown}: {kind}");
    }
    let mut binary = b"POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n".to_vec();
    binary.extend_from_slice(&[0xff, 0xfe, 0, b'{']);
    assert_eq!(http::exchange(rig.server.api(), &binary).await.problem(), "bad_json");
    rig.end().await;
}
