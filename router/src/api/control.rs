//! What holds for the whole cluster: `tidegate.control.v1.Control` and `POST /v1/revoke`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use tidegate_proto::control::v1::control_server::Control;
use tidegate_proto::control::v1::{self as wire, revoke_request::Scope};
use tidegate_vocab::{
    ErrorKind, Position, Problem, Revocation, RevocationScope, TokenId, UserId, push_json_string,
};
use tonic::Status;

use super::{answer, json};
use crate::Router;

/// Bytes of one request: a user and a token's id, with room.
pub(super) const REQUEST_BYTES_LIMIT: usize = 4 * 1024;

pub(super) struct ControlService(pub(super) Arc<Router>);

#[tonic::async_trait]
impl Control for ControlService {
    async fn revoke(
        &self,
        request: tonic::Request<wire::RevokeRequest>,
    ) -> Result<tonic::Response<wire::RevokeResponse>, Status> {
        let request = request.into_inner();
        let (before_s, token_id) = match request.scope {
            Some(Scope::IssuedBeforeS(seconds)) => (Some(seconds), None),
            Some(Scope::TokenId(id)) => (None, Some(id)),
            None => (None, None),
        };
        let revoking =
            async { self.0.revoke(&revocation(&request.user, before_s, token_id.as_deref())?).await };
        let position = revoking.await.map_err(|problem| answer::status(&problem, None))?;
        Ok(tonic::Response::new(wire::RevokeResponse { pos: position.to_string() }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    user: String,
    issued_before: Option<u64>,
    token_id: Option<String>,
}

pub(super) async fn revoke(State(router): State<Arc<Router>>, request: Request) -> Response {
    match revoke_as_asked(&router, request).await {
        Ok(position) => {
            let mut out = b"{\"pos\":".to_vec();
            push_json_string(&mut out, &position.to_string());
            out.push(b'}');
            json::json(false, out)
        }
        Err(problem) => answer::http(&problem, None),
    }
}

async fn revoke_as_asked(router: &Router, request: Request) -> Result<Position, Problem> {
    let body = json::read(request.into_body()).await?;
    let body: Body = serde_json::from_slice(&body).map_err(|error| {
        let form =
            r#"{"user":"alice"}, with "issued_before" (Unix seconds) or "token_id" where not all are meant"#;
        Problem::new(ErrorKind::BadRequest, format!("the body is not of the form {form}: {error}"))
    })?;
    router.revoke(&revocation(&body.user, body.issued_before, body.token_id.as_deref())?).await
}

/// Without a scope: all tokens that there are.
fn revocation(user: &str, before_s: Option<u64>, token_id: Option<&str>) -> Result<Revocation, Problem> {
    let bad = |detail: String| Problem::new(ErrorKind::BadRequest, detail);
    let user = UserId::parse(user).map_err(|error| bad(format!("user: {error}")))?;
    let scope = match (before_s, token_id) {
        (Some(_), Some(_)) => return Err(bad("give issued_before or token_id, not both".into())),
        (Some(seconds), None) => RevocationScope::IssuedBefore(seconds),
        (None, Some(id)) => {
            RevocationScope::Token(TokenId::parse(id).map_err(|error| bad(format!("token_id: {error}")))?)
        }
        (None, None) => RevocationScope::IssuedBefore(now_s()),
    };
    Ok(Revocation { user, scope })
}

/// The second after this one: a token that was issued in it is meant as well. By this router's clock: a backend whose
/// own differs passes `issued_before`.
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) + 1
}
