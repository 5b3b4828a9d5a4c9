//! `tidegate token`: a token for trying things out, signed with the key that the gateway checks with.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use tidegate_gateway::{AuthConfig, Secret};
use tidegate_vocab::UserId;

use crate::cli::config_args::ConfigArgs;
use crate::cli::{Failure, print_line};
use crate::config::{self, Flag, Profile, parse_duration};

/// Print a token that lets a user connect
///
/// The token is a JWT signed with HS256 by the key the gateway checks with: auth.hmac_secret or
/// auth.hmac_secret_file of the configuration, unless --secret-file or --secret says otherwise.
///
/// Examples:
///
///   export TIDEGATE__AUTH__HMAC_SECRET=$(openssl rand -base64 48)
///
///   tidegate token --user alice
///
///   tidegate token --user alice --ttl 15m --channels 'score:*' --channels news
///
///   curl -N -H "authorization: Bearer $(tidegate token --user alice)" \
///     -H 'accept: text/event-stream' 'http://127.0.0.1:8000/v1/events?channel=score:42'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TokenArgs {
    /// Whose token it is [sub]
    #[arg(long, value_name = "USER")]
    user: String,
    /// How long it is good, such as 15m or 1h [exp]
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// What it may follow: a channel, or a prefix that ends in `*`; may be repeated. Without it, all but reserved ones
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    channels: Vec<String>,
    /// Its id, by which it can be revoked alone [jti]
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
    /// The issuer, if not the configured one [iss]
    #[arg(long, value_name = "TEXT")]
    issuer: Option<String>,
    /// The audience, if not the configured one [aud]
    #[arg(long, value_name = "TEXT")]
    audience: Option<String>,
    /// File with the key
    #[arg(long, value_name = "FILE", conflicts_with = "secret")]
    secret_file: Option<PathBuf>,
    /// The key itself; others on this machine can see it in the list of processes
    #[arg(long, value_name = "KEY")]
    secret: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a whole number with ms, s, m, h or d, such as 90s".into())
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    channels: &'a [String],
}

pub(super) fn run(args: &TokenArgs) -> Result<(), Failure> {
    let mut sources = args.config.sources(Profile::Dev)?;
    let path = args.secret_file.as_ref().map(|path| path.display().to_string());
    for (name, key, other_key, value) in [
        ("--secret", "auth.hmac_secret", "auth.hmac_secret_file", args.secret.clone()),
        ("--secret-file", "auth.hmac_secret_file", "auth.hmac_secret", path),
    ] {
        if let Some(value) = value {
            let flag = |key: &str, value| Flag { name: name.into(), key: key.into(), value };
            sources.flags.extend([flag(key, value), flag(other_key, String::new())]);
        }
    }
    let auth = config::load(&sources)?.config.gateway.auth;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    print_line(&sign(args, &auth, now.as_secs())?)
}

fn sign(args: &TokenArgs, auth: &AuthConfig, now_s: u64) -> Result<String, Failure> {
    UserId::parse(&args.user).map_err(|error| Failure::usage(format!("--user: {error}")))?;
    let secret = auth.hmac_secret.as_ref().ok_or_else(|| {
        Failure::usage(
            "there is no key: pass --secret-file FILE, or set TIDEGATE__AUTH__HMAC_SECRET for the gateway and for \
             this command",
        )
    })?;
    let claims = Claims {
        sub: &args.user,
        iat: now_s,
        exp: now_s.saturating_add(args.ttl.as_secs()),
        jti: args.id.as_deref(),
        iss: args.issuer.as_deref().or(auth.issuer.as_deref()),
        aud: args.audience.as_deref().or(auth.audience.as_deref()),
        channels: &args.channels,
    };
    encode(&claims, secret)
}

fn encode(claims: &Claims<'_>, secret: &Secret) -> Result<String, Failure> {
    let key = EncodingKey::from_secret(secret.expose());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key)
        .map_err(|error| Failure::refused(format!("token could not be signed: {error}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        args: TokenArgs,
    }

    fn args(line: &[&str]) -> TokenArgs {
        Only::try_parse_from([&["token"], line].concat()).expect("valid command line").args
    }

    fn auth() -> AuthConfig {
        AuthConfig {
            hmac_secret: Some(Secret::new([7; 32])),
            issuer: Some("backend".into()),
            audience: None,
            anonymous: false,
            insecure: false,
        }
    }

    #[test]
    fn a_token_says_who_until_when_and_what() {
        let args = args(&[
            "--user",
            "alice",
            "--ttl",
            "15m",
            "--channels",
            "score:*,news",
            "--audience",
            "web",
            "--id",
            "4f1d",
        ]);
        let token = sign(&args, &auth(), 4_000_000_000).expect("signed");
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&["web"]);
        validation.set_issuer(&["backend"]);
        let key = DecodingKey::from_secret(&[7; 32]);
        let claims =
            jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation).expect("valid").claims;
        assert_eq!(
            claims,
            serde_json::json!({"sub": "alice", "iat": 4_000_000_000_u64, "exp": 4_000_000_900_u64, "jti": "4f1d",
                "iss": "backend", "aud": "web", "channels": ["score:*", "news"]})
        );
    }

    #[test]
    fn what_cannot_be_signed_is_explained() {
        let failure = sign(&args(&["--user", "a b"]), &auth(), 0).expect_err("refused");
        assert!(failure.code == 2 && failure.text.contains("--user"), "{failure:?}");
        let keyless = AuthConfig { hmac_secret: None, ..auth() };
        let failure = sign(&args(&["--user", "alice"]), &keyless, 0).expect_err("refused");
        assert!(failure.code == 2 && failure.text.contains("--secret-file"), "{failure:?}");
    }
}
