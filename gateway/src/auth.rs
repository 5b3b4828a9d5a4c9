//! Who a connection is: a token's `sub`, or nobody where the configuration allows it.
//!
//! The algorithm is bound to the key, never taken from the token (RFC 8725, section 3.1). Nothing here logs a token.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind as JwtError};
use serde::Deserialize;
use tidegate_vocab::{Channel, ErrorKind, Problem, TokenId, UserId};

use crate::config::AuthConfig;
use crate::control::TokenMark;

/// Seconds by which clocks may differ.
pub(crate) const LEEWAY_SECONDS: u64 = 10;
/// Bytes of a token: what is longer is refused before any cryptography.
const TOKEN_BYTES_LIMIT: usize = 8 * 1024;
/// Patterns of one token's `channels` claim.
const GRANT_PATTERNS_LIMIT: usize = 256;

/// Who a connection is and what it may follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The user; `None` for an anonymous connection.
    pub(crate) user: Option<UserId>,
    /// When the token ends, in seconds since the Unix epoch.
    pub(crate) expires_s: Option<u64>,
    /// What of the token counts against revocations; `None` without a token.
    pub(crate) token: Option<TokenMark>,
    /// The channels that the token grants, names or prefixes ending in `*`; `None` grants all but the reserved.
    pub(crate) grants: Option<Vec<String>>,
}

impl Identity {
    /// The grant that covers `channel` for this identity.
    ///
    /// # Errors
    /// When the channel is reserved or the token does not grant it.
    pub(crate) fn check_channel(&self, channel: &Channel) -> Result<(), Problem> {
        if channel.is_reserved() {
            let detail =
                format!("channel {channel} is reserved: it is followed implicitly and cannot be named");
            return Err(Problem::new(ErrorKind::Forbidden, detail));
        }
        let Some(grants) = &self.grants else { return Ok(()) };
        let covers = |grant: &String| match grant.strip_suffix('*') {
            Some(prefix) => channel.as_str().starts_with(prefix),
            None => grant == channel.as_str(),
        };
        if grants.iter().any(covers) {
            return Ok(());
        }
        Err(Problem::new(ErrorKind::Forbidden, format!("the token does not grant channel {channel}")))
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    iat: Option<f64>,
    #[serde(default)]
    jti: Option<serde_json::Value>,
    #[serde(default)]
    channels: Option<Vec<String>>,
}

/// Checks tokens.
pub(crate) struct Authenticator {
    key: Option<(DecodingKey, Validation)>,
    anonymous: bool,
    insecure: bool,
}

impl Authenticator {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        let key = config.hmac_secret.as_ref().map(|secret| {
            let mut validation = Validation::new(Algorithm::HS256);
            validation.leeway = LEEWAY_SECONDS;
            validation.validate_nbf = true;
            let mut required = vec!["exp", "sub"];
            if let Some(issuer) = &config.issuer {
                validation.set_issuer(&[issuer]);
                required.push("iss");
            }
            match &config.audience {
                Some(audience) => {
                    validation.set_audience(&[audience]);
                    required.push("aud");
                }
                None => validation.validate_aud = false,
            }
            validation.set_required_spec_claims(&required);
            (DecodingKey::from_secret(secret.expose()), validation)
        });
        Self { key, anonymous: config.anonymous, insecure: config.insecure }
    }

    /// Who presents `token`, or claims to be `user` where that needs no proof.
    ///
    /// # Errors
    /// When the token is not valid, or there is none and none is too little.
    pub(crate) fn identify(&self, token: Option<&str>, user: Option<&str>) -> Result<Identity, Problem> {
        if let Some(token) = token {
            return self.check_token(token);
        }
        if let Some(user) = user {
            if !self.insecure {
                let detail = "?user= needs auth.insecure; send a token instead";
                return Err(Problem::new(ErrorKind::Unauthorized, detail));
            }
            let user = UserId::parse(user)
                .map_err(|error| Problem::new(ErrorKind::BadRequest, format!("user: {error}")))?;
            return Ok(Identity { user: Some(user), ..Identity::default() });
        }
        if self.anonymous {
            return Ok(Identity::default());
        }
        let detail =
            "a token is needed: `Authorization: Bearer <token>`, or `?token=` where headers cannot be set";
        Err(Problem::new(ErrorKind::Unauthorized, detail))
    }

    fn check_token(&self, token: &str) -> Result<Identity, Problem> {
        let refuse = |detail: &str| Problem::new(ErrorKind::Unauthorized, detail);
        let Some((key, validation)) = &self.key else {
            return Err(refuse("this server has no key to check tokens with: set auth.hmac_secret"));
        };
        if token.len() > TOKEN_BYTES_LIMIT {
            return Err(refuse("the token is longer than 8 KiB"));
        }
        check_header(token)?;
        let claims =
            jsonwebtoken::decode::<Claims>(token, key, validation).map_err(|error| match error.kind() {
                JwtError::ExpiredSignature => {
                    Problem::new(ErrorKind::TokenExpired, "the token has expired; get a new one")
                }
                JwtError::InvalidAlgorithm | JwtError::InvalidAlgorithmName => {
                    refuse("the token is not signed with HS256")
                }
                JwtError::InvalidSignature => refuse("the token's signature is not valid"),
                JwtError::InvalidIssuer => refuse("the token is of another issuer"),
                JwtError::InvalidAudience => refuse("the token is for another audience"),
                JwtError::ImmatureSignature => refuse("the token is not valid yet"),
                _ => refuse("the token is malformed or lacks `sub` or `exp`"),
            })?;
        let user =
            UserId::parse(&claims.claims.sub).map_err(|_| refuse("the token's `sub` is not a user id"))?;
        if claims.claims.channels.as_ref().is_some_and(|grants| grants.len() > GRANT_PATTERNS_LIMIT) {
            return Err(refuse("the token's `channels` has more than 256 patterns"));
        }
        // One whose id is of no use can be revoked with all others of its user only.
        let id = claims.claims.jti.as_ref().and_then(|id| TokenId::parse(id.as_str()?).ok());
        // RFC 7519 allows fractions; the cast saturates.
        let issued_s = claims.claims.iat.unwrap_or(0.0) as u32;
        let token = TokenMark { issued_s, id: id.map_or(0, |id| id.hash64()) };
        Ok(Identity {
            user: Some(user),
            expires_s: Some(claims.claims.exp),
            token: Some(token),
            grants: claims.claims.channels,
        })
    }
}

/// Refuses critical header parameters, which the library reads and does not enforce (RFC 7515, section 4.1.11).
fn check_header(token: &str) -> Result<(), Problem> {
    use base64::Engine as _;
    let malformed = || Problem::new(ErrorKind::Unauthorized, "the token is malformed");
    let header = token.split('.').next().unwrap_or_default();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).map_err(|_| malformed())?;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|_| malformed())?;
    if header.contains_key("crit") {
        return Err(Problem::new(
            ErrorKind::Unauthorized,
            "the token has critical header parameters that are not known here",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
