use tidegate_link::ControlStanding;
use tidegate_vocab::TokenId;

use super::*;

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("valid")
}

fn before(name: &str, seconds: u64) -> Revocation {
    Revocation { user: user(name), scope: RevocationScope::IssuedBefore(seconds) }
}

fn token(name: &str, id: &str) -> Revocation {
    let id = TokenId::parse(id).expect("valid");
    Revocation { user: user(name), scope: RevocationScope::Token(id) }
}

fn answer(epoch: u64, start: u64, records: Vec<(u64, Revocation)>, next: u64) -> ControlAnswer {
    let records = records.into_iter().map(|(offset, revocation)| (Offset(offset), revocation)).collect();
    let standing = ControlStanding::Fresh { age_ms: 0 };
    ControlAnswer { epoch: LogEpoch(epoch), start: Offset(start), records, next: Offset(next), standing }
}

fn identity(name: &str, issued_s: u32, id: &str) -> Identity {
    let id = if id.is_empty() { 0 } else { TokenId::parse(id).expect("valid").hash64() };
    Identity { user: Some(user(name)), token: Some(TokenMark { issued_s, id }), ..Identity::default() }
}

#[test]
fn a_revocation_means_the_tokens_that_it_names() {
    let control = Control::default();
    control.take(answer(1, 0, vec![(0, before("alice", 100)), (1, token("bob", "t1"))], 2));
    for (identity, expected) in [
        (identity("alice", 99, ""), true),
        (identity("alice", 100, ""), false),
        (identity("alice", 0, "t1"), true),
        (identity("bob", 0, ""), false),
        (identity("bob", 99, "t1"), true),
        (identity("bob", 99, "t2"), false),
        (identity("carol", 0, "t1"), false),
        (Identity::default(), false),
        (Identity { user: Some(user("alice")), ..Identity::default() }, false),
    ] {
        assert_eq!(control.is_revoked(&identity), expected, "{identity:?}");
        if let (Some(mark), Some(name)) = (identity.token, &identity.user) {
            let of_user = [before("alice", 100), token("bob", "t1")].into_iter().filter(|r| r.user == *name);
            assert_eq!(of_user.into_iter().any(|r| mark.is_meant_by(&r.scope)), expected, "{identity:?}");
        }
    }
}

#[test]
fn what_two_routers_tell_is_taken_once_and_given_to_shards_once() {
    let control = Control::default();
    let mut applied = 0;
    assert_eq!(control.take(answer(1, 0, vec![(0, before("a", 1)), (4, before("b", 1))], 5)), 2);
    assert_eq!(control.take(answer(1, 0, vec![(0, before("a", 1)), (4, before("b", 1))], 5)), 0);
    assert_eq!(control.take(answer(1, 0, vec![(4, before("b", 1)), (6, before("c", 1))], 7)), 1);
    // A router that is behind takes nothing back.
    assert_eq!(control.take(answer(1, 0, vec![], 3)), 0);
    assert_eq!(control.ask(LogEpoch(1)), ControlAsk { epoch: LogEpoch(1), next: Offset(7) });
    assert_eq!(control.ask(LogEpoch(9)), ControlAsk::default(), "a log that nobody has named");
    assert_eq!(
        control.new_since(&mut applied),
        News::Revoked(vec![before("a", 1), before("b", 1), before("c", 1)])
    );
    assert_eq!(control.new_since(&mut applied), News::Revoked(vec![]));
    control.take(answer(1, 0, vec![(7, before("d", 1))], 8));
    assert_eq!(control.new_since(&mut applied), News::Revoked(vec![before("d", 1)]));
}

#[test]
fn what_has_expired_is_forgotten() {
    let control = Control::default();
    control.take(answer(1, 0, vec![(0, before("a", 100)), (1, before("b", 50)), (2, token("b", "t"))], 3));
    control.take(answer(1, 1, vec![], 3));
    assert!(!control.is_revoked(&identity("a", 70, "")));
    assert!(control.is_revoked(&identity("b", 49, "")) && control.is_revoked(&identity("b", 99, "t")));
    control.take(answer(1, 3, vec![], 3));
    assert!(!control.is_revoked(&identity("b", 49, "")) && !control.is_revoked(&identity("b", 99, "t")));
}

#[test]
fn another_log_revokes_more_and_takes_nothing_back() {
    let control = Control::default();
    control.take(answer(1, 3, vec![(5, before("a", 100))], 6));
    control.take(answer(2, 4, vec![(4, before("b", 100))], 5));
    assert_eq!(control.ask(LogEpoch(1)), ControlAsk { epoch: LogEpoch(1), next: Offset(6) });
    assert_eq!(control.ask(LogEpoch(2)), ControlAsk { epoch: LogEpoch(2), next: Offset(5) });
    control.take(answer(2, 5, vec![], 5));
    assert!(control.is_revoked(&identity("a", 1, "")), "the new log says nothing of it");
    assert!(!control.is_revoked(&identity("b", 1, "")), "its own log has forgotten it");
}

/// A router that has only just started has looked at no log: its answer is none.
#[test]
fn a_router_that_names_no_log_changes_nothing() {
    let control = Control::default();
    control.take(answer(1, 3, vec![(5, before("a", 100))], 6));
    let nothing = ControlAnswer { standing: ControlStanding::Loading, ..answer(0, 0, vec![], 0) };
    assert_eq!(control.take(nothing), 0);
    control.take(answer(1, 3, vec![], 6));
    assert!(control.is_revoked(&identity("a", 1, "")));
    assert_eq!(control.ask(LogEpoch(1)), ControlAsk { epoch: LogEpoch(1), next: Offset(6) });
}

#[test]
fn routers_that_disagree_on_the_log_make_nothing_twice() {
    let control = Control::default();
    let (one, other) =
        (|| answer(1, 0, vec![(0, before("a", 1))], 1), || answer(2, 0, vec![(0, before("b", 1))], 1));
    let taken: Vec<u64> = (0..6).map(|n| control.take(if n % 2 == 0 { one() } else { other() })).collect();
    assert_eq!(taken, [1, 1, 0, 0, 0, 0]);
    for epoch in 3..20 {
        control.take(answer(epoch, 0, vec![(0, before("c", 1))], 1));
    }
    assert_eq!(control.table().logs.len(), LOGS_LIMIT);
}

#[test]
fn a_shard_that_is_far_behind_looks_at_everybody() {
    let control = Control::default();
    let mut applied = 0;
    let many = |from: u64| (from..from + 5_000).map(|n| (n, before("a", n))).collect::<Vec<_>>();
    control.take(answer(1, 0, many(0), 5_000));
    assert!(matches!(control.new_since(&mut applied), News::Revoked(new) if new.len() == 5_000));
    control.take(answer(1, 0, many(5_000), 10_000));
    control.take(answer(1, 0, many(10_000), 15_000));
    control.take(answer(1, 0, many(15_000), 20_000));
    assert_eq!(control.new_since(&mut applied), News::Much);
    assert_eq!(control.new_since(&mut applied), News::Revoked(vec![]));
}

#[test]
fn nothing_is_delivered_before_the_first_word_or_after_the_last() {
    let control = Control::default();
    assert!(!control.is_fresh(0) && !control.is_complete());
    control.vouch(0);
    assert!(!control.is_complete());
    control.vouch(4_000);
    assert!(control.is_complete() && control.is_fresh(3_999) && !control.is_fresh(4_000));
}
