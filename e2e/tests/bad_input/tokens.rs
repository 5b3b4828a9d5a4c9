//! Who a client is: tokens that are wrong, and tokens that must be seen by nobody.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tidegate_e2e::{Follow, Follower, SECRET, Setup, Transport, http, now_s, percent_encoded, token};

use crate::Rig;

fn strict() -> Setup {
    Setup::new().set("auth.hmac_secret", SECRET).set("auth.insecure", false).set("auth.anonymous", false)
}

/// A server that lets nobody in without a token, and a neighbour with one.
async fn rig(setup: Setup) -> Rig {
    let server = tidegate_e2e::Server::start(setup).await;
    let claims = json!({"sub": "neighbour", "exp": now_s() + 600, "iss": "tests", "aud": "gateway"});
    let follow =
        Follow::channels(["neighbour"]).header("authorization", &format!("Bearer {}", token(&claims)));
    let neighbour = Rig::neighbour(&server, &follow).await;
    Rig { server, neighbour, count: 0 }
}

fn with(token: &str) -> Follow {
    Follow::channels(["a"]).header("authorization", &format!("Bearer {token}"))
}

fn unsigned(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

fn signed(header: &Header, claims: &Value, secret: &[u8]) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret)).expect("signed")
}

#[tokio::test]
async fn wrong_expired_and_alg_confused_tokens() {
    let mut rig = rig(strict().set("auth.issuer", "tests").set("auth.audience", "gateway")).await;
    let good = json!({"sub": "alice", "exp": now_s() + 600, "iss": "tests", "aud": "gateway"});
    let changed = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(name);
        claims
    };
    let mut client = Follower::open(rig.server.public(), Transport::Sse, &with(&token(&good))).await;
    client.state().await;
    rig.refused_everywhere(&with(&token(&changed("exp", json!(now_s() - 60)))), 401, "token_expired").await;
    let genuine = token(&good);
    let (body, signature) = genuine.rsplit_once('.').expect("three parts");
    let mut crit = Header::new(Algorithm::HS256);
    crit.kid = Some("../../etc/passwd".to_owned());
    let hs256 = Header::new(Algorithm::HS256);
    let wrong = [
        signed(&hs256, &good, b"another secret, which is not the server's"),
        signed(&hs256, &good, b""),
        signed(&Header::new(Algorithm::HS384), &good, SECRET.as_bytes()),
        signed(&Header::new(Algorithm::HS512), &good, SECRET.as_bytes()),
        unsigned(&json!({"alg": "none"}), &good, ""),
        unsigned(&json!({"alg": "NoNe", "typ": "JWT"}), &good, ""),
        unsigned(&json!({"alg": "RS256"}), &good, signature),
        unsigned(&json!({"alg": "HS256", "crit": ["exp"]}), &good, signature),
        unsigned(&json!({"typ": "JWT"}), &good, signature),
        format!("{body}."),
        format!("{body}.{}", signature.chars().rev().collect::<String>()),
        format!("{genuine}.x"),
        token(&without("exp")),
        token(&without("sub")),
        token(&without("iss")),
        token(&without("aud")),
        token(&changed("iss", json!("others"))),
        token(&changed("aud", json!("another"))),
        token(&changed("nbf", json!(now_s() + 300))),
        token(&changed("sub", json!("a b"))),
        token(&changed("sub", json!(""))),
        token(&changed("sub", json!("x".repeat(10_000)))),
        token(&changed("sub", json!(7))),
        token(&changed("exp", json!("tomorrow"))),
        "x".repeat(9_000),
        String::from("x"),
        String::from("..."),
    ];
    for wrong in &wrong {
        rig.refused_everywhere(&with(wrong), 401, "unauthorized").await;
        let bearer = format!("Bearer {wrong}");
        let headers = [("authorization", bearer.as_str())];
        let body = "{\"channel\":\"a\",\"data\":1}";
        let said = http::post(rig.server.public(), "/v1/messages", &headers, body).await;
        assert_eq!(said.problem(), "unauthorized", "{wrong}");
    }
    for follow in [
        Follow::channels(["a"]),
        Follow::channels(["a"]).user("alice"),
        Follow::channels(["a"]).header("authorization", "Basic eDp5"),
        Follow::channels(["a"]).header("authorization", "Bearer"),
        Follow::channels(["a"]).header("authorization", "Bearer "),
        Follow::channels(["a"]).query("token="),
    ] {
        rig.refused_everywhere(&follow, 401, "unauthorized").await;
    }
    // A key id is a name and nothing else: it opens no file.
    let mut client = Follower::open(
        rig.server.public(),
        Transport::Ndjson,
        &with(&signed(&crit, &good, SECRET.as_bytes())),
    )
    .await;
    client.state().await;
    // What a token does not grant.
    let narrow = token(&changed("channels", json!(["score:*", "news"])));
    let follow = |names: &[&str]| Follow { channels: Follow::channels(names).channels, ..with(&narrow) };
    for names in [&["a"][..], &["news2"], &["score"], &["news", "a"], &["Score:1"], &["*"]] {
        rig.refused_everywhere(&follow(names), 403, "forbidden").await;
    }
    let mut client = Follower::open(rig.server.public(), Transport::Sse, &follow(&["score:1", "news"])).await;
    client.state().await;
    rig.end().await;
}

#[tokio::test]
async fn token_in_query_is_never_logged() {
    let mut rig = rig(strict().set("logging.level", "trace")).await;
    let user = "canary-user-6b1f";
    let canary = token(&json!({"sub": user, "exp": now_s() + 600}));
    let signature = canary.rsplit('.').next().expect("three parts").to_owned();
    let broken = format!("{canary}broken");
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        let follow = Follow::channels(["a"]).query(&format!("token={}", percent_encoded(&canary)));
        let mut client = Follower::open(rig.server.public(), transport, &follow).await;
        client.state().await;
        clients.push(client);
    }
    rig.refused_everywhere(&Follow::channels(["a"]).query(&format!("token={broken}")), 401, "unauthorized")
        .await;
    rig.refused_everywhere(&with(&broken), 401, "unauthorized").await;
    let refused = http::get(rig.server.public(), &format!("/v1/events?channel=&token={canary}"), &[]).await;
    assert!(!refused.text().contains(&signature), "not in an answer");
    let missing = http::get(rig.server.public(), &format!("/nothing?token={canary}"), &[]).await;
    assert!(!missing.text().contains(&signature), "not in an answer");
    for response in [&refused, &missing] {
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
    }
    drop(clients);
    let metrics = rig.server.metrics().await;
    rig.unharmed().await;
    rig.server.sigterm();
    assert_eq!(rig.server.exit_code().await, Some(0));
    for (place, text) in [("the log", rig.server.stderr()), ("the metrics", metrics)] {
        assert!(!text.is_empty(), "{place}");
        for secret in [signature.as_str(), SECRET] {
            assert!(!text.contains(secret), "{place} has a secret");
        }
    }
}
