//! What is on the way, and what happens when it arrives.

use std::collections::{BTreeMap, HashMap};

use rand::Rng as _;
use tidegate_registry::{
    AnnounceStream, Ask, AskId, Batch, Current, Hello, Location, MemberId, Refusal, Transition,
};
use tidegate_vocab::Incarnation;

use crate::checks::{Check, hold};
use crate::mutant::Mutant;
use crate::world::{MemberAt, NodeAt, ROUTERS, SLOW_MS_LIMIT, WORD_MS_LIMIT, World};

pub(crate) type StreamAt = usize;

/// One announce stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) node: NodeAt,
    pub(crate) member: MemberAt,
    pub(crate) incarnation: Incarnation,
    pub(crate) session: u64,
    pub(crate) handle: Option<AnnounceStream>,
    /// Nothing arrives any more, and nobody is told.
    pub(crate) is_cut: bool,
    pub(crate) delay_ms_limit: u64,
    /// The node still uses it.
    pub(crate) is_open: bool,
    /// When the last message of each direction arrives.
    up_ms: u64,
    down_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Message {
    Hello(StreamAt, Hello),
    Batch(StreamAt, Batch),
    NodeEnds(StreamAt),
    Welcome(StreamAt),
    Ack(StreamAt, u64),
    MemberEnds(StreamAt),
    Word(NodeAt, usize, Vec<Current>),
    Detach(NodeAt, usize),
    Spoken(NodeAt, usize, u64),
    Ask(usize, Ask),
    Answer(usize, AskId, Incarnation, Vec<Location>),
    Failed(usize, AskId),
    Append(MemberAt, u64, Vec<Transition>),
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) messages: BTreeMap<(u64, u64), Message>,
    count: u64,
    /// Per (kind, from, to): when the last one arrives, for what keeps its order.
    last_ms: HashMap<(u8, usize, usize), u64>,
    /// Mutants renumber batches by this much, per (node, member incarnation).
    extra: HashMap<(NodeAt, Incarnation), u64>,
    /// The last number applied.
    applied: HashMap<(NodeAt, Incarnation), u64>,
}

impl World {
    pub(crate) fn send_at(&mut self, due_ms: u64, message: Message) {
        self.network.count += 1;
        self.network.messages.insert((due_ms, self.network.count), message);
    }

    fn send_in_order(&mut self, way: (u8, usize, usize), delay_ms: u64, message: Message) {
        let due_ms = self.now_ms + delay_ms;
        let last_ms = self.network.last_ms.entry(way).or_default();
        *last_ms = due_ms.max(*last_ms);
        let due_ms = *last_ms;
        self.send_at(due_ms, message);
    }

    pub(crate) fn send_up(&mut self, stream: StreamAt, message: Message) {
        let delay_ms = self.rng.random_range(1..=self.streams[stream].delay_ms_limit);
        let due_ms = (self.now_ms + delay_ms).max(self.streams[stream].up_ms);
        self.streams[stream].up_ms = due_ms;
        if let Message::Batch(_, batch) = &message
            && self.one_in(16)
        {
            let copy = Message::Batch(stream, batch.clone());
            self.send_at(due_ms + SLOW_MS_LIMIT / 2, copy);
        }
        self.send_at(due_ms, message);
    }

    fn send_down(&mut self, stream: StreamAt, message: Message) {
        let delay_ms = self.rng.random_range(1..=self.streams[stream].delay_ms_limit);
        let due_ms = (self.now_ms + delay_ms).max(self.streams[stream].down_ms);
        self.streams[stream].down_ms = due_ms;
        self.send_at(due_ms, message);
    }

    pub(crate) fn dial(&mut self, node: NodeAt, id: MemberId) {
        let Some((hello, session)) = self.nodes[node].announcer.hello(id) else { return };
        let member = id.0 as usize;
        let delay_ms_limit = if self.has_faults && self.one_in(4) { SLOW_MS_LIMIT } else { 30 };
        let incarnation = self.members[member].incarnation;
        self.streams.push(Stream {
            node,
            member,
            incarnation,
            session,
            handle: None,
            is_cut: false,
            delay_ms_limit,
            is_open: true,
            up_ms: 0,
            down_ms: 0,
        });
        let stream = self.streams.len() - 1;
        self.note(|| {
            format!("node {node} dials member {member}: stream {stream}, at most {delay_ms_limit} ms")
        });
        self.send_up(stream, Message::Hello(stream, hello));
    }

    /// The node's word to all routers.
    pub(crate) fn say_word(&mut self, node: NodeAt) {
        let mut word = self.nodes[node].announcer.said();
        let digests: Vec<u64> = self.rings.iter().map(|ring| ring.ring.digest()).collect();
        if self.is(Mutant::OldRingDroppedAtOnce) {
            let members: Vec<_> = word.iter().map(|current| current.member).collect();
            word = members
                .iter()
                .flat_map(|member| digests.iter().map(|digest| Current { member: *member, digest: *digest }))
                .collect();
        }
        if self.is(Mutant::MemberTrustedBlindly) {
            let members: Vec<_> = self.members.iter().map(|member| member.incarnation).collect();
            word = members
                .iter()
                .flat_map(|member| digests.iter().map(|digest| Current { member: *member, digest: *digest }))
                .collect();
        }
        if self.is(Mutant::IncarnationIgnored) {
            for current in &mut word {
                current.member = self.place_of(current.member);
            }
        }
        for router in 0..ROUTERS {
            let delay_ms = self.rng.random_range(1..=WORD_MS_LIMIT);
            self.send_in_order((0, node, router), delay_ms, Message::Word(node, router, word.clone()));
        }
    }

    /// A member's place in the ring, as if it were an incarnation.
    fn place_of(&self, member: Incarnation) -> Incarnation {
        let streams = self.streams.iter().find(|stream| stream.incarnation == member);
        Incarnation(streams.map_or(0, |stream| stream.member as u128 + 1))
    }

    pub(crate) fn say_end(&mut self, node: NodeAt) {
        for router in 0..ROUTERS {
            let delay_ms = self.rng.random_range(1..=WORD_MS_LIMIT);
            self.send_in_order((0, node, router), delay_ms, Message::Detach(node, router));
        }
    }

    pub(crate) fn say_spoken(&mut self, node: NodeAt, router: usize) {
        let digest = self.routers[router].locator.digest();
        let delay_ms = self.rng.random_range(1..=WORD_MS_LIMIT);
        self.send_in_order((1, router, node), delay_ms, Message::Spoken(node, router, digest));
    }

    pub(crate) fn put_asks(&mut self, router: usize) {
        for ask in self.routers[router].locator.take_asks() {
            let delay_ms = self.rng.random_range(1..=25);
            self.send_at(self.now_ms + delay_ms, Message::Ask(router, ask));
        }
    }

    /// Gives a member's transitions to who appends them.
    pub(crate) fn pump(&mut self, member: MemberAt) -> Check {
        let Some(machine) = self.members[member].machine.as_mut() else { return Ok(()) };
        let transitions = machine.take_transitions(100);
        if transitions.is_empty() {
            return Ok(());
        }
        for transition in &transitions {
            self.note(|| format!("member {member}: {transition:?}"));
            self.judge_transition(member, transition)?;
        }
        let pump = self.members[member].pump;
        let delay_ms = self.rng.random_range(1..=400);
        self.send_in_order((2, member, pump as usize), delay_ms, Message::Append(member, pump, transitions));
        Ok(())
    }

    /// Delivers what arrives until then, each message at its time.
    pub(crate) fn deliver_until(&mut self, until_ms: u64) -> Check {
        while let Some(first) = self.network.messages.first_entry().filter(|first| first.key().0 <= until_ms)
        {
            self.now_ms = self.now_ms.max(first.key().0);
            let message = first.remove();
            self.deliver(message)?;
        }
        self.now_ms = until_ms;
        Ok(())
    }

    fn deliver(&mut self, message: Message) -> Check {
        match message {
            Message::Hello(stream, hello) => self.hello_arrives(stream, hello),
            Message::Batch(stream, batch) => return self.batch_arrives(stream, batch),
            Message::NodeEnds(stream) => self.node_ended(stream),
            Message::Welcome(..) | Message::Ack(..) | Message::MemberEnds(_) => self.deliver_down(message),
            Message::Word(node, router, word) => {
                if self.routers[router].attached.insert(node) {
                    self.say_spoken(node, router);
                }
                let incarnation = self.nodes[node].incarnation;
                self.note(|| format!("router {router} hears of node {node}: {word:?}"));
                self.routers[router].locator.node_says(incarnation, word);
            }
            Message::Detach(node, router) => {
                self.routers[router].attached.remove(&node);
                self.routers[router].locator.detached(self.nodes[node].incarnation);
            }
            Message::Spoken(node, router, digest) => self.spoken_arrives(node, router, digest),
            Message::Ask(router, ask) => self.ask_arrives(router, &ask),
            Message::Answer(router, id, member, locations) => {
                let now_ms = self.now_ms;
                self.routers[router].locator.answered(id, member, locations, now_ms);
                self.put_asks(router);
            }
            Message::Failed(router, id) => {
                self.routers[router].locator.failed(id, self.now_ms);
                self.put_asks(router);
            }
            Message::Append(member, pump, transitions) => {
                self.note(|| format!("appended from member {member}, pump {pump}: {transitions:?}"));
                self.topic.extend(transitions);
            }
        }
        Ok(())
    }

    /// Whether a message to the member arrives; a stream to a process that is gone is answered by its end.
    fn arrives_up(&mut self, stream: StreamAt) -> bool {
        let it = &self.streams[stream];
        if it.is_cut {
            return false;
        }
        let member = &self.members[it.member];
        let is_up = member.machine.is_some() && member.incarnation == it.incarnation;
        if !is_up && it.is_open {
            self.send_down(stream, Message::MemberEnds(stream));
        }
        is_up
    }

    fn hello_arrives(&mut self, stream: StreamAt, hello: Hello) {
        if !self.arrives_up(stream) {
            return;
        }
        let (member, session) = (self.streams[stream].member, self.streams[stream].session);
        let process = &mut self.members[member];
        let now_ms = process.clock(self.now_ms);
        match process.machine.as_mut().expect("up").hello(hello, session, now_ms) {
            Ok(handle) => {
                self.streams[stream].handle = Some(handle);
                self.send_down(stream, Message::Welcome(stream));
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::StaleHello);
                self.see("a stale hello");
                self.send_down(stream, Message::MemberEnds(stream));
            }
        }
    }

    fn node_ended(&mut self, stream: StreamAt) {
        if self.is(Mutant::LeaseOutlivesStream) || !self.arrives_up(stream) {
            return;
        }
        let it = &self.streams[stream];
        if let (Some(handle), Some(machine)) = (it.handle, self.members[it.member].machine.as_mut()) {
            machine.closed(handle);
        }
    }

    fn batch_arrives(&mut self, stream: StreamAt, mut batch: Batch) -> Check {
        if !self.arrives_up(stream) {
            return Ok(());
        }
        let (node, member) = (self.streams[stream].node, self.streams[stream].member);
        let Some(mut handle) = self.streams[stream].handle else { return Ok(()) };
        let (key, seq) = ((node, self.streams[stream].incarnation), batch.seq);
        let applied = self.network.applied.get(&key).copied().unwrap_or_default();
        let extra = self.network.extra.get(&key).copied().unwrap_or_default();
        if self.is(Mutant::SnapshotEndIgnored) {
            batch.ends_snapshot = false;
        }
        if self.is(Mutant::SnapshotIncomplete) && batch.ends_snapshot {
            batch.updates.pop();
        }
        if self.is(Mutant::WithdrawalLost) {
            batch.updates.retain(|update| update.state.is_some());
        }
        batch.seq += extra;
        if batch.seq <= applied {
            self.see("a batch came twice");
            if self.is(Mutant::StaleSequenceAccepted) {
                batch.seq = applied + 1;
                self.network.extra.insert(key, extra + 1);
            }
        }
        let newer = self
            .streams
            .iter()
            .rev()
            .find(|other| other.node == node && other.incarnation == key.1 && other.handle.is_some());
        let newest = newer.and_then(|other| other.handle).filter(|newest| *newest != handle);
        if self.is(Mutant::OldStreamAccepted)
            && let Some(newest) = newest
            && !batch.updates.is_empty()
        {
            handle = newest;
            batch.seq = applied + 1;
            self.network.extra.insert(key, extra + 1);
        }
        let process = &mut self.members[member];
        let now_ms = process.clock(self.now_ms);
        self.note(|| format!("member {member} hears of node {node} on stream {stream}: {batch:?}"));
        match self.members[member].machine.as_mut().expect("up").batch(handle, &batch, now_ms) {
            Ok(_) => {
                self.network.applied.insert(key, applied.max(batch.seq));
                self.send_down(stream, Message::Ack(stream, seq));
            }
            Err(Refusal::Ended) => {
                self.see("a late batch was refused");
                self.send_down(stream, Message::MemberEnds(stream));
            }
            Err(refusal) => {
                hold(self.mutant.is_some(), "a_stream_has_no_gaps", || {
                    format!("stream {stream}: {refusal}")
                })?;
                self.send_down(stream, Message::MemberEnds(stream));
            }
        }
        Ok(())
    }

    fn deliver_down(&mut self, message: Message) {
        let (Message::Welcome(stream) | Message::Ack(stream, _) | Message::MemberEnds(stream)) = message
        else {
            return;
        };
        let it = &self.streams[stream];
        let (id, session, incarnation) = (MemberId(it.member as u32), it.session, it.incarnation);
        if it.is_cut || !it.is_open || !self.nodes[it.node].is_alive {
            return;
        }
        let now_ms = self.now_ms;
        let announcer = &mut self.nodes[it.node].announcer;
        match message {
            Message::Welcome(_) => announcer.opened(id, session, incarnation, now_ms),
            Message::Ack(_, seq) => announcer.acked(id, session, seq),
            _ => {
                announcer.closed(id, session);
                self.streams[stream].is_open = false;
            }
        }
    }

    fn spoken_arrives(&mut self, node: NodeAt, router: usize, digest: u64) {
        let now_ms = self.now_ms;
        let process = &mut self.nodes[node];
        process.spoken.insert(router, digest);
        if process.is_alive && process.spoken.len() == ROUTERS {
            let digests: Vec<u64> = process.spoken.values().copied().collect();
            process.announcer.routers_speak(&digests, now_ms);
            self.see("an old ring was dropped");
        }
    }

    fn ask_arrives(&mut self, router: usize, ask: &Ask) {
        let member = ask.member.0 as usize;
        let delay_ms = self.rng.random_range(1..=35);
        let process = &self.members[member];
        let answer = match &process.machine {
            None => Message::Failed(router, ask.id),
            Some(machine) => {
                let is_nameless = self.is(Mutant::IncarnationIgnored);
                let name = if is_nameless { Incarnation(member as u128 + 1) } else { process.incarnation };
                Message::Answer(router, ask.id, name, machine.table().locate(&ask.subjects))
            }
        };
        self.send_at(self.now_ms + delay_ms, answer);
    }

    /// A planted fault: leases of streams that are gone are renewed.
    pub(crate) fn renew_dead_leases(&mut self) {
        for stream in 0..self.streams.len() {
            let it = &self.streams[stream];
            let is_gone = it.is_cut || !it.is_open || !self.nodes[it.node].is_alive;
            let (key, member) = ((it.node, it.incarnation), it.member);
            let is_same = self.members[member].incarnation == it.incarnation;
            let Some(handle) = it.handle.filter(|_| is_gone && is_same) else { continue };
            let seq = self.network.applied.get(&key).copied().unwrap_or_default() + 1;
            let now_ms = self.members[member].clock(self.now_ms);
            let Some(machine) = self.members[member].machine.as_mut() else { continue };
            if machine.batch(handle, &Batch { seq, ..Batch::default() }, now_ms).is_ok() {
                self.network.applied.insert(key, seq);
                *self.network.extra.entry(key).or_default() += 1;
            }
        }
    }
}
