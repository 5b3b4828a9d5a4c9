//! Tokens as a backend signs them.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;

/// The key that tests give to the server as `auth.hmac_secret`.
pub const SECRET: &str = "a-secret-of-the-end-to-end-tests-only";

/// A token with these claims, signed with [`SECRET`].
///
/// # Panics
/// When it cannot be signed.
#[must_use]
pub fn token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("signed")
}

/// Seconds since the Unix epoch.
///
/// # Panics
/// When the clock is before it.
#[must_use]
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
