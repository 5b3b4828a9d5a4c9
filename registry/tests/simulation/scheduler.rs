//! Picks what happens next.

use std::collections::HashMap;
use std::sync::Arc;

use rand::Rng as _;
use tidegate_registry::{Count, MemberId, Transports};

use crate::Ran;
use crate::checks::{Begun, Check};
use crate::mutant::Mutant;
use crate::network::Message;
use crate::world::{MEMBERS, NODES, NodeAt, ROUTERS, STEP_MS_LIMIT, Truth, UserAt, World};

/// Steps in which anything may happen.
const STEPS: u32 = 700;
/// Until everything has healed: lease and debounce by the slowest clock, what is on the way, and the grace after a start.
const SETTLE_MS: u64 = 16_000;

/// Runs one seed to its end.
pub(crate) fn run(seed: u64, mutant: Option<Mutant>, is_traced: bool) -> Ran {
    let mut world = World::new(seed, mutant, is_traced);
    let ended = world.wander().and_then(|()| world.settle());
    match ended {
        Ok(()) => Ok(world.seen),
        Err(violation) => Err((violation, world.trace.unwrap_or_default())),
    }
}

impl World {
    fn wander(&mut self) -> Check {
        // How often each kind happens, out of 1,000 steps.
        let mut draw = |choices: [u32; 4]| choices[self.rng.random_range(0..4)];
        let odds = [
            draw([50, 100, 200, 400]),
            draw([50, 100, 200, 300]),
            draw([0, 2, 4, 8]),
            draw([0, 0, 3, 6]),
            draw([0, 5, 10, 20]),
            draw([0, 5, 10, 20]),
            draw([0, 0, 3, 6]),
            draw([0, 10, 20, 60]),
            draw([100, 200, 300, 300]),
        ];
        for _ in 0..STEPS {
            for (kind, odds) in odds.iter().enumerate() {
                if self.rng.random_range(0..1_000) < *odds {
                    self.act(kind);
                }
            }
            self.step()?;
        }
        Ok(())
    }

    fn act(&mut self, kind: usize) {
        match kind {
            0 => self.connect_any(),
            1 => self.disconnect_any(),
            2 => self.crash_node(),
            3 => self.crash_member(),
            4 => self.cut_any(),
            5 => self.redial_any(),
            6 => self.change_ring(),
            7 => self.break_pump(),
            _ => self.look_up(),
        }
        self.start_what_is_missing();
        if self.one_in(8) {
            self.learn_any();
        }
    }

    fn connect_any(&mut self) {
        let Some(node) = self.any_node() else { return };
        let user = self.rng.random_range(0..self.names.len());
        let now_ms = self.now_ms;
        let truth = self.nodes[node].users.entry(user);
        let truth = truth.or_insert(Truth { since_ms: now_ms, connections: 0, linger_until_ms: None });
        truth.connections += 1;
        truth.linger_until_ms = None;
        let connections = truth.connections;
        self.note(|| format!("user {user} has {connections} on node {node}"));
        self.tell(node, user, connections, 0);
    }

    fn disconnect_any(&mut self) {
        let Some(node) = self.any_node() else { return };
        let here: Vec<UserAt> = self.nodes[node].users.keys().copied().collect();
        if here.is_empty() {
            return;
        }
        let user = here[self.rng.random_range(0..here.len())];
        let (lingers, moves) = (self.one_in(6), self.one_in(3));
        let linger_ms = if lingers { 2_000 } else { 0 };
        let now_ms = self.now_ms;
        let Some(truth) = self.nodes[node].users.get_mut(&user) else { return };
        if truth.connections == 0 {
            return;
        }
        truth.connections -= 1;
        let connections = truth.connections;
        if connections == 0 && lingers {
            truth.linger_until_ms = Some(now_ms + linger_ms);
        } else if connections == 0 {
            self.nodes[node].users.remove(&user);
            self.nodes[node].left.insert(user, now_ms);
        }
        self.note(|| format!("user {user} has {connections} on node {node}, lingers: {lingers}"));
        self.tell(node, user, connections, linger_ms);
        if moves {
            self.connect_any();
        }
    }

    fn tell(&mut self, node: NodeAt, user: UserAt, connections: u32, linger_ms: u64) {
        let count = Count { connections, transports: Transports::SSE, linger_ms };
        let (name, now_ms) = (self.names[user].clone(), self.now_ms);
        self.nodes[node].announcer.count(&name, count, 7, now_ms);
    }

    fn crash_node(&mut self) {
        let Some(node) = self.any_node() else { return };
        self.note(|| format!("node {node} ends"));
        self.see("a node was lost");
        let now_ms = self.now_ms;
        let process = &mut self.nodes[node];
        process.is_alive = false;
        let users: Vec<UserAt> = process.users.keys().copied().collect();
        process.left.extend(users.into_iter().map(|user| (user, now_ms)));
        process.users.clear();
        self.say_end(node);
        // The host may be gone too: then nobody says that the streams ended.
        let is_told = self.one_in(2);
        for stream in 0..self.streams.len() {
            if self.streams[stream].node == node && self.streams[stream].is_open {
                self.streams[stream].is_open = false;
                if is_told {
                    self.send_up(stream, Message::NodeEnds(stream));
                }
            }
        }
    }

    fn crash_member(&mut self) {
        let member = self.rng.random_range(0..MEMBERS);
        self.note(|| format!("member {member} ends"));
        self.members[member].machine = None;
        self.is_unsure = true;
    }

    fn cut_any(&mut self) {
        let open: Vec<usize> = (0..self.streams.len()).filter(|at| self.streams[*at].is_open).collect();
        if !open.is_empty() {
            let stream = open[self.rng.random_range(0..open.len())];
            self.note(|| format!("stream {stream} is cut"));
            self.see("a stream was cut");
            self.streams[stream].is_cut = true;
        }
    }

    /// A node gives a stream up and dials anew; what it sent may still arrive.
    fn redial_any(&mut self) {
        let open: Vec<usize> = (0..self.streams.len()).filter(|at| self.streams[*at].is_open).collect();
        if !open.is_empty() {
            let stream = open[self.rng.random_range(0..open.len())];
            self.hang_up(stream);
            let (node, member) = (self.streams[stream].node, self.streams[stream].member);
            if self.nodes[node].is_alive {
                self.dial(node, MemberId(member as u32));
            }
        }
    }

    fn hang_up(&mut self, stream: usize) {
        self.note(|| format!("stream {stream} is given up"));
        let it = &mut self.streams[stream];
        it.is_open = false;
        let (node, id, session) = (it.node, MemberId(it.member as u32), it.session);
        self.nodes[node].announcer.closed(id, session);
        self.send_up(stream, Message::NodeEnds(stream));
    }

    fn change_ring(&mut self) {
        let last = self.rings.last().expect("a ring").members.clone();
        let member = self.rng.random_range(0..MEMBERS);
        let mut members = last.clone();
        match last.iter().position(|it| *it == member) {
            Some(at) if last.len() > 2 => drop(members.remove(at)),
            Some(_) => return,
            None => members.push(member),
        }
        self.note(|| format!("ring {members:?}"));
        self.see("a ring changed");
        self.is_unsure = true;
        self.add_ring(members);
    }

    /// Somebody learns the newest member list.
    fn learn_any(&mut self) {
        let last = self.rings.len() - 1;
        match self.rng.random_range(0..3) {
            0 => {
                if let Some(node) = self.any_node() {
                    self.node_learns(node, last);
                }
            }
            1 => self.member_learns(self.now_ms as usize % MEMBERS, last),
            _ => self.router_learns(self.now_ms as usize % ROUTERS, last),
        }
    }

    fn node_learns(&mut self, node: NodeAt, ring: usize) {
        if self.nodes[node].ring == ring {
            return;
        }
        self.note(|| format!("node {node} learns ring {ring}"));
        let (now_ms, new) = (self.now_ms, Arc::clone(&self.rings[ring].ring));
        let is_hasty = self.is(Mutant::OldRingDroppedAtOnce);
        let process = &mut self.nodes[node];
        process.ring = ring;
        process.announcer.set_ring(Arc::clone(&new), now_ms);
        if is_hasty {
            process.announcer.routers_speak(&[new.digest()], now_ms);
        }
    }

    fn member_learns(&mut self, member: usize, ring: usize) {
        if self.members[member].ring == ring {
            return;
        }
        self.note(|| format!("member {member} learns ring {ring}"));
        self.members[member].ring = ring;
        let new = self.ring_for(member);
        let length = self.topic.len();
        let process = &mut self.members[member];
        if let Some(machine) = process.machine.as_mut() {
            machine.set_ring(new);
            process.read = 0;
            process.to_read = length;
            process.has_caught_up = false;
        }
    }

    fn router_learns(&mut self, router: usize, ring: usize) {
        if self.routers[router].ring == ring {
            return;
        }
        self.note(|| format!("router {router} learns ring {ring}"));
        self.routers[router].ring = ring;
        let new = Arc::clone(&self.rings[ring].ring);
        self.routers[router].locator.set_ring(new);
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_alive {
                self.say_spoken(node, router);
            }
        }
    }

    /// Whoever appends a member's transitions is gone; what it had may be lost, or come late.
    fn break_pump(&mut self) {
        let (any, is_lost) = (self.rng.random_range(0..MEMBERS), self.one_in(2));
        let pending = self.network.messages.values().find_map(|message| match message {
            Message::Append(member, ..) => Some(*member),
            _ => None,
        });
        let member = pending.unwrap_or(any);
        let messages = &mut self.network.messages;
        let is_its = |message: &Message| matches!(message, Message::Append(of, ..) if *of == member);
        let had = messages.values().any(is_its);
        if is_lost {
            messages.retain(|_, message| !is_its(message));
        }
        self.members[member].pump += 1;
        self.is_unsure |= had && !is_lost;
        if had && is_lost {
            self.see("transitions were lost");
        }
        if !self.is(Mutant::TransitionsNotResent)
            && let Some(machine) = self.members[member].machine.as_mut()
        {
            machine.resend_transitions();
        }
    }

    fn look_up(&mut self) {
        let router = self.rng.random_range(0..ROUTERS);
        let users: Vec<UserAt> = (0..self.names.len()).filter(|_| self.one_in(2)).collect();
        let names: Vec<_> = users.iter().map(|user| self.names[*user].clone()).collect();
        let attached = self.routers[router].attached.iter().copied().collect();
        let now_ms = self.now_ms;
        let id = self.routers[router].locator.lookup(&names, now_ms).expect("few");
        let begun = Begun { at_ms: now_ms, users, attached };
        self.routers[router].lookups.insert(id, begun);
        self.put_asks(router);
    }

    fn start_what_is_missing(&mut self) {
        let alive = self.nodes.iter().filter(|node| node.is_alive).count();
        if alive < NODES && self.one_in(20) {
            self.start_node();
        }
        for member in 0..MEMBERS {
            if self.members[member].machine.is_none() && self.one_in(60) {
                self.note(|| format!("member {member} starts"));
                self.see("a member restarted");
                self.start_member(member);
            }
        }
    }

    /// Time goes on, and everyone does what is due.
    fn step(&mut self) -> Check {
        let until_ms = self.now_ms + self.rng.random_range(5..=STEP_MS_LIMIT);
        self.deliver_until(until_ms)?;
        self.note_known();
        for member in 0..MEMBERS {
            self.step_member(member)?;
        }
        if self.is(Mutant::LeaseOutlivesStream) {
            self.renew_dead_leases();
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_alive {
                self.step_node(node);
            }
        }
        for router in 0..ROUTERS {
            let now_ms = self.now_ms;
            self.routers[router].locator.tick(now_ms);
            self.put_asks(router);
            for (id, found) in self.routers[router].locator.take_done() {
                let begun: Option<Begun> = self.routers[router].lookups.remove(&id);
                self.judge_lookup(router, &begun.expect("a lookup that was begun"), &found)?;
            }
        }
        Ok(())
    }

    fn step_member(&mut self, member: usize) -> Check {
        let slices = self.rng.random_range(0..16);
        let upto = self.topic.len().saturating_sub(self.rng.random_range(0..2));
        let process = &mut self.members[member];
        let now_ms = process.clock(self.now_ms);
        let Some(machine) = process.machine.as_mut() else { return Ok(()) };
        for record in self.topic.iter().take(upto).skip(process.read) {
            machine.read_back(record, now_ms);
        }
        process.read = upto.max(process.read);
        if process.read >= process.to_read && !process.has_caught_up {
            process.has_caught_up = true;
            machine.caught_up(machine.reading(), now_ms);
        }
        machine.tick(now_ms, slices);
        self.pump(member)
    }

    fn step_node(&mut self, node: NodeAt) {
        let now_ms = self.now_ms;
        let process = &mut self.nodes[node];
        process.announcer.tick(now_ms);
        let over = |truth: &Truth| truth.linger_until_ms.is_some_and(|until| until <= now_ms);
        let gone: Vec<UserAt> =
            process.users.iter().filter(|(_, truth)| over(truth)).map(|(user, _)| *user).collect();
        for user in gone {
            process.users.remove(&user);
            process.left.insert(user, now_ms);
        }
        for (id, session) in process.announcer.stuck(now_ms) {
            self.see("a stream was stuck");
            let stream = self
                .streams
                .iter()
                .position(|it| it.node == node && it.session == session && it.member == id.0 as usize);
            self.hang_up(stream.expect("a stream that was dialled"));
        }
        for id in self.nodes[node].announcer.unlinked() {
            if self.one_in(4) {
                self.dial(node, id);
            }
        }
        self.forget_dials(node);
        self.send_batches(node);
        if self.nodes[node].announcer.current(now_ms).is_some() {
            self.say_word(node);
        }
    }

    /// A stream to a member that no ring has any more, or that never opened, is given up.
    fn forget_dials(&mut self, node: NodeAt) {
        let wanted: Vec<MemberId> = self.nodes[node].announcer.wanted().collect();
        for stream in 0..self.streams.len() {
            let it = &self.streams[stream];
            let is_wanted = wanted.contains(&MemberId(it.member as u32));
            let is_deaf = it.handle.is_none() && it.is_cut;
            if it.node == node && it.is_open && (!is_wanted || is_deaf) {
                self.hang_up(stream);
            }
        }
    }

    fn send_batches(&mut self, node: NodeAt) {
        let now_ms = self.now_ms;
        let open: HashMap<usize, (MemberId, u64)> = (0..self.streams.len())
            .filter(|at| self.streams[*at].node == node && self.streams[*at].is_open)
            .map(|at| (at, (MemberId(self.streams[at].member as u32), self.streams[at].session)))
            .collect();
        let mut streams: Vec<usize> = open.keys().copied().collect();
        streams.sort_unstable();
        for stream in streams {
            let (id, session) = open[&stream];
            while let Some(batch) = self.nodes[node].announcer.next_batch(id, session, now_ms) {
                if self.is(Mutant::CurrentWhenSent) {
                    self.nodes[node].announcer.acked(id, session, batch.seq);
                }
                self.send_up(stream, Message::Batch(stream, batch));
            }
        }
    }

    /// Everything heals, and goes on for a lease and a debounce.
    fn settle(&mut self) -> Check {
        self.note(|| "everything heals".to_owned());
        self.has_faults = false;
        let last = self.rings.len() - 1;
        for member in 0..MEMBERS {
            if self.members[member].machine.is_none() {
                self.start_member(member);
            }
            self.member_learns(member, last);
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_alive {
                self.node_learns(node, last);
            }
        }
        (0..ROUTERS).for_each(|router| self.router_learns(router, last));
        for stream in 0..self.streams.len() {
            let is_slow = self.streams[stream].delay_ms_limit > 30;
            if self.streams[stream].is_open && (self.streams[stream].is_cut || is_slow) {
                self.hang_up(stream);
            }
        }
        let until_ms = self.now_ms + SETTLE_MS;
        while self.now_ms < until_ms {
            if self.one_in(10) {
                self.look_up();
            }
            self.step()?;
        }
        self.judge_settled()
    }
}
