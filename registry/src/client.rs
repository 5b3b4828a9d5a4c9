//! The tasks that speak to members: a gateway's announcing, a router's locating.

mod announce;
mod locate;

use std::time::Duration;

use tidegate_proto::registry::v1::registry_client::RegistryClient;
use tidegate_vocab::limits;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use crate::server::{PING_INTERVAL, PING_TIMEOUT};
pub use announce::{AnnounceHandle, AnnounceTask};
pub use locate::{LocateHandle, LocateTask};
use tidegate_proto::key::{Bearer, Key};

/// Time in which a member's socket answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The Registry service of one member, with the key.
pub type RegistryClientWithKey = RegistryClient<InterceptedService<Channel, Bearer>>;

/// A member at `host:port`; connects when it is first called, and again whenever it must. `None` when that is no address.
#[must_use]
pub fn connect(address: &str, key: Option<Key>) -> Option<RegistryClientWithKey> {
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .ok()?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_lazy();
    let client = RegistryClient::with_interceptor(channel, Bearer(key))
        .max_decoding_message_size(limits::REGISTRY_MESSAGE_BYTES_LIMIT)
        .max_encoding_message_size(limits::REGISTRY_MESSAGE_BYTES_LIMIT);
    Some(client)
}
