//! A chat room backend: what a client says in a room is published to everyone in the room.
//!
//! Client -> log -> this backend -> log -> everyone who follows `chat:<room>`. The backend holds no connection and no
//! history; it keeps one small file with the token of what it has dealt with. A crash between a publish and the file
//! makes it deal with the message again, under the same idempotency key, so everyone still sees it once.

mod token_file;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tidegate_proto::publish::v1::publisher_client::PublisherClient;
use tidegate_proto::publish::v1::{PublishRequest, publish_request};
use tidegate_proto::upstream::v1::read_request::From;
use tidegate_proto::upstream::v1::read_response::Item;
use tidegate_proto::upstream::v1::upstream_client::UpstreamClient;
use tidegate_proto::upstream::v1::{Message, ReadRequest, message};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use token_file::TokenFile;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// A chat room backend: reads what clients say in `chat:<room>` and publishes it to everyone in the room.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "tidegate-example-chat")]
pub struct Options {
    /// The API port of a router
    #[arg(long, env = "TIDEGATE_API", default_value = "http://127.0.0.1:8001")]
    pub api: String,
    /// The API key, if the router asks for one
    #[arg(long, env = "TIDEGATE_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// The file that keeps how far this backend has read
    #[arg(long, default_value = "chat.resume")]
    pub state: PathBuf,
}

/// The backend.
pub struct Chat {
    endpoint: Endpoint,
    key: ApiKey,
    state: TokenFile,
}

type Service = InterceptedService<Channel, ApiKey>;

impl Chat {
    /// Checks the options; connects to nothing yet.
    ///
    /// # Errors
    /// When the address or the key cannot be used.
    pub fn new(options: Options) -> Result<Self> {
        let endpoint = Endpoint::from_shared(options.api.clone())
            .with_context(|| format!("--api {:?} is not an address like http://127.0.0.1:8001", options.api))?
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true);
        let bearer = options.api_key.map(|key| format!("Bearer {key}").parse()).transpose();
        let key = ApiKey(bearer.context("--api-key has characters that a header cannot carry")?);
        Ok(Self { endpoint, key, state: TokenFile::new(options.state) })
    }

    /// Serves the rooms; comes back only with what no retry would mend.
    ///
    /// # Errors
    /// When the token cannot be read or kept, or the router refuses us for good.
    pub async fn run(&self) -> Result<()> {
        loop {
            match self.read_and_publish().await {
                Ok(()) => {}
                Err(error) => match error.downcast_ref::<Status>() {
                    Some(status) if !is_final(status) => {
                        eprintln!("chat: {}; trying again", status.message())
                    }
                    _ if error.is::<tonic::transport::Error>() => eprintln!("chat: no router; trying again"),
                    _ => return Err(error),
                },
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read_and_publish(&self) -> Result<()> {
        let channel = self.endpoint.connect().await?;
        let mut upstream = UpstreamClient::with_interceptor(channel.clone(), self.key.clone());
        let mut publisher = PublisherClient::with_interceptor(channel, self.key.clone());
        let from = self.state.read()?.map_or(From::Start(true), From::Resume);
        let mut said = upstream.read(ReadRequest { from: Some(from) }).await?.into_inner();
        while let Some(response) = said.message().await? {
            match response.item {
                Some(Item::Message(message)) => publish(&mut publisher, &message).await?,
                Some(Item::Lost(lost)) => {
                    eprintln!(
                        "chat: messages {}..{} of partition {} are lost: {}",
                        lost.from, lost.upto, lost.partition, lost.reason
                    );
                }
                None => {}
            }
            // Only now: what is not in the file is dealt with again after a crash.
            self.state.write(&response.resume)?;
        }
        Ok(())
    }
}

/// Publishes a message to its room, until the router took it or says that it never will.
async fn publish(publisher: &mut PublisherClient<Service>, message: &Message) -> Result<()> {
    let Some(request) = room_event(message) else { return Ok(()) };
    loop {
        match publisher.publish(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::InvalidArgument => {
                eprintln!("chat: message {} is left out: {}", message.pos, status.message());
                return Ok(());
            }
            Err(status) if is_final(&status) => bail!(status),
            Err(status) => {
                eprintln!("chat: {}; trying again", status.message());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What everyone in the room gets to see: who said it, and what. `None` for what is not about a room.
fn room_event(message: &Message) -> Option<PublishRequest> {
    if !message.channel.starts_with("chat:") {
        return None;
    }
    let Some(message::Payload::Json(said)) = &message.payload else { return None };
    let name = if message.user.is_empty() { "guest" } else { &message.user };
    let from = serde_json::to_string(name).ok()?;
    Some(PublishRequest {
        channels: vec![message.channel.clone()],
        payload: Some(publish_request::Payload::Json(format!("{{\"from\":{from},\"said\":{said}}}"))),
        // A client's node may hand a message over twice, with the same number: that is one message, too.
        idempotency_key: format!("{}:{}", message.connection, message.seq),
        ..PublishRequest::default()
    })
}

/// True for what comes back the same however often it is asked.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
    )
}

#[derive(Debug, Clone)]
struct ApiKey(Option<MetadataValue<Ascii>>);

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(channel: &str, user: &str, json: &str) -> Message {
        Message {
            connection: "c-1".into(),
            user: user.into(),
            channel: channel.into(),
            payload: Some(message::Payload::Json(json.into())),
            seq: 7,
            ..Message::default()
        }
    }

    #[test]
    fn a_message_is_published_to_its_room_under_its_own_number() {
        let event = room_event(&said("chat:lobby", "al\"ice", "{\"text\":\"hi\"}")).expect("about a room");
        assert_eq!(event.channels, ["chat:lobby"]);
        assert_eq!(event.idempotency_key, "c-1:7");
        let Some(publish_request::Payload::Json(json)) = event.payload else { panic!("json") };
        assert_eq!(json, "{\"from\":\"al\\\"ice\",\"said\":{\"text\":\"hi\"}}");
        assert!(room_event(&said("score:1", "alice", "1")).is_none());
    }
}
