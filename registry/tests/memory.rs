//! What a million users cost, and how long telling about them takes: the one is asserted, the other printed.

use std::sync::Arc;
use std::time::Instant;

use tidegate_registry::{Batch, Hello, Holding, Member, MemberId, MemberOptions, Ring, Transports, Update};
use tidegate_vocab::{Channel, Incarnation};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USERS: u32 = 1_000_000;
const NODES: u32 = 10;
/// Every fiftieth user is on two nodes.
const TWICE: u32 = 50;
/// A node's own users in a batch, besides those of the next node.
const OWN: u32 = 800;
const BYTES_LIMIT: usize = 150 * 1024 * 1024;

fn allocated() -> usize {
    tikv_jemalloc_ctl::epoch::advance().expect("counts");
    tikv_jemalloc_ctl::stats::allocated::read().expect("counts")
}

/// An id of 12 to 20 bytes.
fn user(number: u32) -> Channel {
    Channel::parse(&format!("user:{number:0width$}", width = 12 + number as usize % 9)).expect("valid")
}

/// What a node has, one batch at a time, so that what is measured is the member.
fn batch(node: u32, seq: u64) -> Batch {
    let state = Holding { connections: 1, transports: Transports::WEBSOCKET, since_s: 1 };
    let first = (seq as u32 - 1) * OWN;
    let at = first..first + OWN;
    let update = |number: u32| Update { subject: user(number), state: Some(state) };
    let own = at.clone().map(|at| at * NODES + node);
    let others =
        at.map(|at| at * NODES + (node + 1) % NODES).filter(|number| (number / NODES).is_multiple_of(TWICE));
    let updates = own.chain(others).map(update).collect();
    Batch { seq, updates, ends_snapshot: first + OWN == USERS / NODES }
}

fn announce(member: &mut Member, session: u64, from_seq: u64) -> std::time::Duration {
    let mut spent = std::time::Duration::ZERO;
    for node in 0..NODES {
        let hello = Hello { node: Incarnation(u128::from(node) + 10), digest: 0, address: String::new() };
        let stream = member.hello(hello, session, 0).expect("room");
        for seq in 1..=u64::from(USERS / NODES / OWN) {
            let batch = Batch { seq: from_seq + seq, ..batch(node, seq) };
            let begun = Instant::now();
            member.batch(stream, &batch, 0).expect("applies");
            spent += begun.elapsed();
        }
    }
    spent
}

#[test]
fn a_million_users_fit_in_150_megabytes() {
    let ring = Arc::new(Ring::build(&[(MemberId(0), 1), (MemberId(1), 1)]).expect("valid"));
    let before = allocated();
    let mut member = Member::new(MemberId(0), Incarnation(1), ring, MemberOptions::default());
    let told = announce(&mut member, 1, 0);
    member.tick(0, 64);
    let bytes = allocated() - before;
    let table = member.table();
    assert_eq!(table.stored(), USERS as usize);
    assert_eq!(table.locate(&[user(0), user(10)])[0].places.len(), 2);
    println!("registry: {} users in {} MiB, told in {told:?}", table.stored(), bytes >> 20);
    assert!(bytes <= BYTES_LIMIT, "{bytes} bytes");

    let again = announce(&mut member, 2, 1_000_000);
    member.tick(0, 64);
    let bytes = allocated() - before;
    println!("registry: told again, over what was there, in {again:?}, {} MiB", bytes >> 20);
    assert!(bytes <= BYTES_LIMIT, "{bytes} bytes");

    // A lease's end is one step, whatever the node had; the sweep comes after it, in slices.
    let begun = Instant::now();
    member.tick(10_000, 0);
    println!("registry: {NODES} leases ended in {:?}", begun.elapsed());
    assert!(table.locate(&[user(0)])[0].places.is_empty(), "answers are right at once");
    assert!(table.stored() > 900_000, "and nothing is swept yet");
    let mut longest = std::time::Duration::ZERO;
    while member.is_sweeping() {
        let begun = Instant::now();
        member.tick(10_000, 1);
        longest = longest.max(begun.elapsed());
    }
    println!("registry: swept in slices of at most {longest:?}");
    assert_eq!(table.stored(), 0);
    let left = allocated().saturating_sub(before);
    assert!(left < 1024 * 1024, "{left} bytes are left");
}
