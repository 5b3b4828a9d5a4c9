//! Where users are, and who follows channels: members of the registry, the ring over them, and both sides that speak to them.
//!
//! [`Announcer`] (in a gateway) says what a node has, [`Member`] keeps it, [`Locator`] (in a router) decides whom to ask
//! and what to make of the answer. The three are sans-io; `docs/adr/0013-registry.md` tells how they fit together.

mod announcer;
pub mod client;
mod convert;
mod frame;
mod id;
mod locator;
mod member;
mod members;
mod metrics;
mod ring;
pub mod server;
mod table;

pub use announcer::{Announcer, Count};
pub use frame::{
    Batch, Current, Hello, Holding, Location, Place, Presence, SubjectKind, Transition, Transports, Update,
};
pub use locator::{Ask, AskId, Done, Found, Locator, LookupId, Outcome};
pub use member::{AnnounceStream, Figures, Member, MemberOptions, NodeEvent, NodeInfo, Online, Refusal};
pub use members::{Listed, MemberList, Members, follow};
pub use metrics::{AnnounceMetrics, LocateMetrics, MemberMetrics};
pub use ring::{MemberId, REPLICAS, Ring, RingError};
pub use table::Table;
pub use tidegate_proto::key::{Key, KeyError};
