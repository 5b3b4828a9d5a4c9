use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::config::Secret;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn authenticator(edit: impl FnOnce(&mut AuthConfig)) -> Authenticator {
    let mut config = AuthConfig {
        hmac_secret: Some(Secret::new(KEY)),
        issuer: None,
        audience: None,
        anonymous: false,
        insecure: false,
    };
    edit(&mut config);
    Authenticator::new(&config)
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

fn token(algorithm: Algorithm, claims: &Value, key: &[u8]) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key)).expect("signable")
}

fn check(authenticator: &Authenticator, token: &str, expected: Result<&str, ErrorKind>) {
    let identity = authenticator.identify(Some(token), None);
    let got = identity
        .as_ref()
        .map(|id| id.user.as_ref().map_or("", UserId::as_str))
        .map_err(|problem| problem.kind);
    assert_eq!(got, expected, "{token}");
}

#[test]
fn wrong_expired_and_alg_confused_tokens() {
    let auth = authenticator(|_| {});
    let (now, ahead) = (now_s(), now_s() + 60);
    let hs256 = |claims: Value| token(Algorithm::HS256, &claims, KEY);
    check(&auth, &hs256(json!({"sub": "alice", "exp": ahead})), Ok("alice"));
    check(&auth, &hs256(json!({"sub": "alice", "exp": now - 60})), Err(ErrorKind::TokenExpired));
    check(&auth, &hs256(json!({"sub": "alice"})), Err(ErrorKind::Unauthorized));
    check(&auth, &hs256(json!({"exp": ahead})), Err(ErrorKind::Unauthorized));
    check(&auth, &hs256(json!({"sub": "a b", "exp": ahead})), Err(ErrorKind::Unauthorized));
    check(&auth, &hs256(json!({"sub": "alice", "exp": ahead, "nbf": ahead})), Err(ErrorKind::Unauthorized));
    check(
        &auth,
        &token(Algorithm::HS256, &json!({"sub": "a", "exp": ahead}), &[7; 32]),
        Err(ErrorKind::Unauthorized),
    );
    check(
        &auth,
        &token(Algorithm::HS512, &json!({"sub": "a", "exp": ahead}), KEY),
        Err(ErrorKind::Unauthorized),
    );
    for garbage in ["", ".", "a.b.c", &"x".repeat(9000), "eyJhbGciOiJIUzI1NiJ9..", "\u{0}"] {
        check(&auth, garbage, Err(ErrorKind::Unauthorized));
    }
}

/// `alg: none`, in any spelling, and unknown critical parameters: made by hand, for no library signs them.
#[test]
fn unsigned_tokens_and_critical_headers_are_refused() {
    use base64::Engine as _;
    let auth = authenticator(|_| {});
    let b64 = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let claims = b64(&json!({"sub": "alice", "exp": now_s() + 60}).to_string());
    for header in ["{\"alg\":\"none\"}", "{\"alg\":\"NoNe\"}", "{\"alg\":\"RS256\"}", "{\"typ\":\"JWT\"}"] {
        check(&auth, &format!("{}.{claims}.", b64(header)), Err(ErrorKind::Unauthorized));
    }
    let good = token(Algorithm::HS256, &json!({"sub": "alice", "exp": now_s() + 60}), KEY);
    let signature = good.rsplit('.').next().expect("three parts");
    check(
        &auth,
        &format!("{}.{claims}.{signature}", b64("{\"alg\":\"HS256\",\"crit\":[\"x\"]}")),
        Err(ErrorKind::Unauthorized),
    );
}

#[test]
fn issuer_and_audience_bind_when_configured() {
    let auth = authenticator(|config| {
        config.issuer = Some("issuer".into());
        config.audience = Some("tidegate".into());
    });
    let claims = |iss: &str, aud: &str| json!({"sub": "a", "exp": now_s() + 60, "iss": iss, "aud": aud});
    check(&auth, &token(Algorithm::HS256, &claims("issuer", "tidegate"), KEY), Ok("a"));
    check(&auth, &token(Algorithm::HS256, &claims("other", "tidegate"), KEY), Err(ErrorKind::Unauthorized));
    check(&auth, &token(Algorithm::HS256, &claims("issuer", "other"), KEY), Err(ErrorKind::Unauthorized));
    check(
        &auth,
        &token(Algorithm::HS256, &json!({"sub": "a", "exp": now_s() + 60}), KEY),
        Err(ErrorKind::Unauthorized),
    );
}

#[test]
fn nobody_is_let_in_unless_configured() {
    let kind =
        |auth: &Authenticator, user: Option<&str>| auth.identify(None, user).map_err(|problem| problem.kind);
    let closed = authenticator(|_| {});
    assert_eq!(kind(&closed, None), Err(ErrorKind::Unauthorized));
    assert_eq!(kind(&closed, Some("alice")), Err(ErrorKind::Unauthorized));
    let open = authenticator(|config| (config.anonymous, config.insecure) = (true, true));
    assert_eq!(kind(&open, None), Ok(Identity::default()));
    assert_eq!(kind(&open, Some("alice")).expect("insecure").user, UserId::parse("alice").ok());
    assert_eq!(kind(&open, Some("a b")), Err(ErrorKind::BadRequest));
    let keyless = authenticator(|config| (config.hmac_secret, config.insecure) = (None, true));
    check(&keyless, "a.b.c", Err(ErrorKind::Unauthorized));
}

#[test]
fn grants_and_reserved_channels() {
    let auth = authenticator(|_| {});
    let claims = json!({"sub": "alice", "exp": now_s() + 60, "channels": ["score:*", "chat:lobby"]});
    let identity = auth.identify(Some(&token(Algorithm::HS256, &claims, KEY)), None).expect("valid");
    let may = |name: &str| identity.check_channel(&Channel::parse(name).expect("valid")).is_ok();
    assert!(may("score:42") && may("chat:lobby") && may("score:"));
    assert!(
        !may("chat:lobby2") && !may("scores") && !may("user:alice") && !may("user:bob") && !may("everyone")
    );
    let all = Identity::default();
    assert!(all.check_channel(&Channel::parse("anything").expect("valid")).is_ok());
    assert!(all.check_channel(&Channel::parse("user:alice").expect("valid")).is_err());
}
