//! Bad input gets a clear error and nothing is lost: one test for each line of the catalogue, of its name. After each,
//! a neighbour still receives, and nothing has panicked.

mod frames;
mod http_shapes;
mod names_and_cursors;
mod operations;
mod revoked;
mod storage;
mod tokens;

use serde_json::json;
use tidegate_e2e::http::Response;
use tidegate_e2e::{Follow, Follower, Heard, Server, Setup, Transport};

/// A server, and a client of it that does nothing wrong.
struct Rig {
    server: Server,
    neighbour: Follower,
    count: u64,
}

impl Rig {
    async fn start(setup: Setup) -> Self {
        let server = Server::start(setup).await;
        let neighbour = Self::neighbour(&server, &Follow::channels(["neighbour"])).await;
        Self { server, neighbour, count: 0 }
    }

    async fn neighbour(server: &Server, follow: &Follow) -> Follower {
        let mut neighbour = Follower::open(server.public(), Transport::WebSocket, follow).await;
        neighbour.state().await;
        neighbour
    }

    /// The neighbour receives what is published now.
    async fn unharmed(&mut self) {
        self.count += 1;
        self.server.publish(json!({"channel": "neighbour", "data": self.count})).await;
        assert_eq!(self.neighbour.event().await.json(), self.count, "the neighbour still receives");
    }

    /// As [`Rig::unharmed`], and the server is well.
    async fn end(mut self) {
        self.unharmed().await;
        self.server.assert_well().await;
    }

    async fn refused_count(&self, kind: &str) -> f64 {
        self.server.metric("tidegate_gateway_refused_total", &[&format!("kind=\"{kind}\"")]).await
    }

    /// Asks on all transports; each must be refused with this kind: a problem of this status, but for an event source
    /// 200, `retry:` and `tidegate.close`. Counted once each.
    async fn refused_everywhere(&mut self, follow: &Follow, status: u16, kind: &str) {
        let before = self.refused_count(kind).await;
        for transport in Transport::ALL {
            match attempt(&self.server, transport, follow).await {
                Refusal::Problem(response) => {
                    assert_eq!(
                        (response.status(), response.problem().as_str()),
                        (status, kind),
                        "{transport:?}"
                    );
                    let is_final = status == 401 || status == 403;
                    assert!(transport != Transport::Sse || is_final, "an EventSource would give up for good");
                }
                Refusal::Stream { reason } => {
                    assert_eq!((transport, reason.as_str()), (Transport::Sse, kind));
                    assert!(status != 401 && status != 403, "these are final, by intent");
                }
            }
        }
        assert_eq!(self.refused_count(kind).await, before + 5.0, "each is counted, once");
    }
}

/// How a request was refused.
enum Refusal {
    Problem(Box<Response>),
    Stream { reason: String },
}

async fn attempt(server: &Server, transport: Transport, follow: &Follow) -> Refusal {
    let opened = Follower::try_open(server.public(), transport, follow).await.expect("an answer");
    let mut client = match opened {
        Err(response) => return Refusal::Problem(response),
        Ok(client) => client,
    };
    match client.hear().await {
        Heard::Refused(response) => Refusal::Problem(response),
        Heard::Retry(_) => {
            let (close, after) = client.closed().await;
            assert!(matches!(after.as_slice(), [Heard::End { is_clean: true }]), "{after:?}");
            Refusal::Stream { reason: close["reason"].as_str().expect("a reason").to_owned() }
        }
        other => panic!("{transport:?} {follow:?}: not refused: {other:?}"),
    }
}
