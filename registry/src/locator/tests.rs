use super::*;

const NODE: Incarnation = Incarnation(1);
const MEMBERS: [Incarnation; 2] = [Incarnation(10), Incarnation(11)];

fn ring(members: u32) -> Arc<Ring> {
    let list: Vec<_> = (0..members).map(|member| (MemberId(member), 1)).collect();
    Arc::new(Ring::build(&list).expect("valid"))
}

fn current(member: Incarnation) -> Current {
    Current { member, digest: ring(2).digest() }
}

fn subjects() -> Vec<Channel> {
    vec![Channel::parse("alice").expect("valid")]
}

fn asked(locator: &mut Locator, now_ms: u64) -> Ask {
    locator.lookup(&subjects(), now_ms).expect("few");
    locator.take_asks().pop().expect("one question")
}

fn member(ask: &Ask) -> Incarnation {
    MEMBERS[ask.member.0 as usize]
}

/// What is found when the member answers that it knows of nobody.
fn also(locator: &mut Locator, ask: &Ask, now_ms: u64) -> Vec<Incarnation> {
    locator.answered(ask.id, member(ask), vec![Location::default()], now_ms);
    let (_, found) = locator.take_done().pop().expect("done");
    found[0].also.to_vec()
}

#[test]
fn an_answer_is_completed_by_the_nodes_own_word() {
    let check = |word: &dyn Fn(Incarnation) -> Vec<Current>, expected: &[Incarnation]| {
        let mut locator = Locator::new(ring(2));
        let of = asked(&mut Locator::new(ring(2)), 0);
        locator.node_says(NODE, word(member(&of)));
        let ask = asked(&mut locator, 0);
        assert_eq!(also(&mut locator, &ask, 10), expected);
    };
    check(&|member| vec![current(member)], &[]);
    check(&|_| vec![], &[NODE]);
    check(&|member| vec![Current { digest: 7, ..current(member) }], &[NODE]);
    check(&|_| vec![current(Incarnation(99))], &[NODE]);
}

#[test]
fn a_word_that_changed_since_the_question_covers_nothing() {
    let mut locator = Locator::new(ring(2));
    let ask = asked(&mut locator, 0);
    locator.node_says(NODE, [current(member(&ask))]);
    assert_eq!(also(&mut locator, &ask, 10), [NODE], "it came after the question");
    let ask = asked(&mut locator, 20);
    assert_eq!(also(&mut locator, &ask, 30), []);
    let ask = asked(&mut locator, 40);
    locator.set_ring(ring(3));
    locator.set_ring(ring(2));
    assert_eq!(also(&mut locator, &ask, 50), [NODE], "nodes may have withdrawn what the old ring assigned");
}

#[test]
fn after_the_deadline_the_replica_and_then_all_nodes() {
    let mut locator = Locator::new(ring(2));
    locator.node_says(NODE, MEMBERS.map(current));
    let first = asked(&mut locator, 0);
    locator.tick(limits::LOOKUP_DEADLINE_MS - 1);
    assert!(locator.take_asks().is_empty());
    locator.tick(limits::LOOKUP_DEADLINE_MS);
    let second = locator.take_asks().pop().expect("the other replica");
    assert_ne!(second.member, first.member);
    locator.answered(first.id, member(&first), vec![Location::default()], 51);
    assert!(locator.take_done().is_empty(), "too late");
    locator.failed(second.id, 60);
    let (_, found) = locator.take_done().pop().expect("done");
    assert_eq!(found[0].also[..], [NODE]);
    // Both were late, the second last: who was late longest ago is not preferred, but who is not late is.
    let third = asked(&mut locator, 1_055);
    assert_eq!(third.member, first.member, "its second is over");
}

#[test]
fn the_member_that_is_current_about_more_nodes_is_asked_first() {
    let mut locator = Locator::new(ring(2));
    let first = asked(&mut locator, 0);
    assert_eq!(also(&mut locator, &first, 1), []);
    locator.failed(first.id, 2);
    let other = MEMBERS[1 - first.member.0 as usize];
    locator.node_says(NODE, [current(other)]);
    // Known by an answer only: the primary is tried as long as both are equally unknown.
    locator.members.entry(MemberId(1 - first.member.0)).or_default().incarnation = Some(other);
    assert_ne!(asked(&mut locator, 10).member, first.member);
}

#[test]
fn what_is_too_much_is_refused() {
    let mut locator = Locator::new(ring(2));
    let many = vec![subjects().remove(0); limits::LOOKUP_KEYS_LIMIT + 1];
    assert_eq!(locator.lookup(&many, 0).expect_err("too many").kind, ErrorKind::TooMany);
    for _ in 0..limits::LOOKUPS_IN_FLIGHT_LIMIT {
        locator.lookup(&subjects(), 0).expect("room");
    }
    assert_eq!(locator.lookup(&subjects(), 0).expect_err("full").kind, ErrorKind::Overloaded);
    assert_eq!(Locator::new(ring(2)).lookup(&[], 0), Ok(1));
}
