//! What a router asks of this node's users now: direct messages, disconnects, who follows a channel.
//!
//! Comes beside the items of the node task and waits behind none of them. A direct message goes out like an event without an
//! offset, and only while somebody vouches for what is revoked (rule 18): it is not held for later.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_link::{Held, OccupantsPage, Reached};
use tidegate_vocab::{Channel, ErrorKind, Problem, UserId};
use tokio::sync::oneshot;

use super::conn::{Mode, Phase};
use super::fan_out::Frames;
use super::item::SharedEvent;
use super::outbox::Tag;
use super::table::ConnIdx;
use super::{Out, State};
use crate::request::Transport;

/// What a shard is asked, and where its answer goes.
#[derive(Debug)]
pub(crate) enum ShardAsk {
    /// A direct message; nothing is given while nobody vouches for what is revoked.
    Direct(Arc<SharedEvent>, oneshot::Sender<Option<Reached>>),
    /// Close the user's connections; says how many.
    Disconnect(UserId, Arc<Problem>, oneshot::Sender<u32>),
    /// Who follows a channel, users behind one of them, at most so many.
    Occupants(Channel, Option<UserId>, usize, oneshot::Sender<OccupantsPage>),
}

impl State {
    /// Answers; true when that was little work. Whoever has given up waiting is not told.
    pub(super) fn asked(&mut self, ask: ShardAsk) -> bool {
        let is_little = matches!(ask, ShardAsk::Direct(..));
        match ask {
            ShardAsk::Direct(event, done) => {
                let reached = self.may_deliver().then(|| self.direct(&event));
                let _ = done.send(reached);
            }
            ShardAsk::Disconnect(user, problem, done) => {
                let meant = self.following(&Channel::of_user(&user));
                let open =
                    meant.iter().filter(|(idx, _)| self.conns[*idx as usize].phase == Phase::Open).count();
                for (idx, _) in meant {
                    self.close(idx, &problem);
                }
                self.flush_pending();
                self.flush_commands();
                let _ = done.send(u32::try_from(open).unwrap_or(u32::MAX));
            }
            ShardAsk::Occupants(channel, after, limit, done) => {
                drop(done.send(self.occupants(&channel, after.as_ref(), limit)));
            }
        }
        is_little
    }

    /// The connections that follow a channel, with their generations.
    fn following(&self, channel: &Channel) -> Vec<(ConnIdx, u32)> {
        let Some(channel) = self.table.find(channel) else { return Vec::new() };
        let members = self.table.sets_of(channel).iter().flat_map(|set| self.table.set(*set).members());
        members.map(|idx| (*idx, self.conns[*idx as usize].generation)).collect()
    }

    fn direct(&mut self, event: &Arc<SharedEvent>) -> Reached {
        self.flush_pending(); // So that what is sent below is this message alone.
        let (mut frames, mut count, mut taken) = (Frames::default(), [0; 4], Vec::new());
        for (idx, generation) in self.following(&event.event.channel) {
            let conn = &self.conns[idx as usize];
            if conn.phase != Phase::Open {
                continue;
            }
            let transport = conn.transport();
            // Whatever is known of the channel yet: a message without an offset is in no history that could bring it.
            let is_taken = match conn.mode {
                Mode::Stream(framing) => {
                    let frame = frames.get(framing, event, None);
                    self.emit(idx, frame.clone(), Tag::Keep);
                    true
                }
                Mode::Poll => {
                    let fits = self.add_to_poll(idx, event);
                    self.owe(idx, Out::Poll);
                    fits
                }
            };
            if is_taken {
                count[transport as usize] += 1;
                taken.push((idx, generation, transport));
            }
        }
        self.flush_pending();
        self.flush_commands();
        self.count_deliveries(event, count);
        let mut reached = Reached::default();
        for (idx, generation, transport) in taken {
            match self.conn(idx, generation) {
                Some(conn) if conn.phase == Phase::Open => {
                    let is_held = conn.opening.as_ref().is_some_and(|opening| !opening.state_sent);
                    let is_written = transport != Transport::Poll && !is_held && conn.queued_bytes() == 0;
                    reached.accepted += 1;
                    reached.written += u32::from(is_written);
                }
                // A poll that has been answered with it is gone from here; its answer is on its way to the socket.
                None if transport == Transport::Poll => reached.accepted += 1,
                _ => {}
            }
        }
        reached
    }

    /// One pass over the channel's connections that keeps no more users than were asked for.
    fn occupants(&self, channel: &Channel, after: Option<&UserId>, limit: usize) -> OccupantsPage {
        let mut page = OccupantsPage::default();
        let mut users: BTreeMap<&UserId, Held> = BTreeMap::new();
        let Some(channel) = self.table.find(channel) else { return page };
        for idx in self.table.sets_of(channel).iter().flat_map(|set| self.table.set(*set).members()) {
            let conn = &self.conns[*idx as usize];
            page.connections += 1;
            let Some(user) = &conn.user else {
                page.anonymous += 1;
                continue;
            };
            if after.is_some_and(|after| user <= after) {
                continue;
            }
            let held = users.entry(user).or_default();
            held.connections += 1;
            held.transports |= 1 << (conn.transport() as u8);
            if users.len() > limit {
                page.has_more = true;
                users.pop_last();
            }
        }
        page.users = users.into_iter().map(|(user, held)| (user.clone(), held)).collect();
        page
    }
}

/// What the clients of a disconnected user are told.
pub(crate) fn disconnected(reason: String) -> Problem {
    Problem::new(ErrorKind::Disconnected, reason)
}
