//! What the demonstration page publishes: one event to one channel, the shortest form of `POST /v1/publish`.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_gateway::DemoPublish;
use tidegate_router::publish::{Accepted, Data, PublishRequest, Target};
use tidegate_router::{Api, Router};
use tidegate_vocab::{ErrorKind, Problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    channel: String,
    event: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    ephemeral: bool,
}

/// Publishes through `router`.
pub(super) fn publisher(router: Arc<Router>) -> DemoPublish {
    Arc::new(move |body| {
        let router = Arc::clone(&router);
        Box::pin(async move {
            match publish(&router, &body).await {
                Ok(answer) => (200, "application/json", Bytes::from(answer)),
                Err(problem) => {
                    (problem.kind.http_status(), "application/problem+json", problem.to_json().into())
                }
            }
        })
    })
}

async fn publish(router: &Router, body: &[u8]) -> Result<String, Problem> {
    let request = request(body)?;
    let published = router.publish(Api::Http, request).await.map_err(|error| error.problem)?;
    match published.results.into_iter().next().map(|result| result.outcome) {
        Some(Ok(Accepted::Durable { pos, .. })) => Ok(format!("{{\"pos\":\"{pos}\"}}")),
        Some(Ok(Accepted::Ephemeral { routed })) => Ok(format!("{{\"routed\":{routed}}}")),
        Some(Err(problem)) => Err(problem),
        None => Err(Problem::new(ErrorKind::Internal, "the router gave no result")),
    }
}

fn request(body: &[u8]) -> Result<PublishRequest, Problem> {
    let body: Body<'_> = serde_json::from_slice(body).map_err(|error| {
        Problem::new(
            ErrorKind::BadJson,
            format!("the body is not {{\"channel\",\"event\",\"data\"}}: {error}"),
        )
    })?;
    Ok(PublishRequest {
        targets: vec![Target::Channel(body.channel)],
        event: body.event,
        data: Data::Json(Bytes::copy_from_slice(body.data.get().as_bytes())),
        idempotency_key: None,
        ttl_ms: None,
        ephemeral: body.ephemeral,
        trace: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_s_body_is_one_event_for_one_channel() {
        let built = request(
            b"{\"channel\":\"score:42\",\"event\":\"goal\",\"data\":{ \"a\": 1 },\"ephemeral\":true}",
        );
        let built = built.expect("valid");
        assert_eq!(built.targets, [Target::Channel("score:42".into())]);
        assert!(built.ephemeral && built.data == Data::Json("{ \"a\": 1 }".into()));
        for bad in ["", "[]", "{\"channel\":\"a\"}", "{\"channel\":\"a\",\"data\":1,\"x\":2}"] {
            assert!(
                request(bad.as_bytes()).is_err_and(|problem| problem.kind == ErrorKind::BadJson),
                "{bad}"
            );
        }
    }
}
