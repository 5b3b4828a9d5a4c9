//! The two machines under a random scheduler, against a model log (TENURES, "Invariants to assert").
//!
//! A topic of a few partitions, two routers, a few gateways and clients; everything may be late, cut, crashed, told
//! again, or made anew. A seed
//! decides everything: `SIM_SEED=17 cargo test -p tidegate-tenure --test simulation` runs one and prints its trace,
//! `SIM_SEEDS=20000` runs that many. Mutants prove that the checks would notice.

mod audit;
mod checks;
mod client;
mod config;
mod frames;
mod gateway;
mod kinds;
mod log;
mod mutant;
mod router;
mod scheduler;
mod settle;
mod shard;
mod streams;
mod world;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use checks::Violation;
use mutant::Mutant;
use world::{Failure, Ran};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs a seed; a failed assertion inside a machine is a violation like any other.
fn run(seed: u64, mutant: Option<Mutant>, traced: bool) -> Ran {
    catch_unwind(AssertUnwindSafe(|| scheduler::run(seed, mutant, traced))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let detail = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = Violation { invariant: "machine_assertion", detail: detail.unwrap_or_default() };
        Err(Failure { violation, trace: Vec::new() })
    })
}

#[test]
fn random_schedules_break_no_invariant() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(5_000),
    };
    let (count, mut steps, mut seen) = (seeds.end - seeds.start, 0, BTreeMap::new());
    for seed in seeds {
        match run(seed, None, count == 1) {
            Ok((taken, saw)) => {
                steps += taken;
                for (what, times) in saw {
                    *seen.entry(what).or_insert(0) += times;
                }
            }
            Err(failure) => {
                let traced = if count == 1 { Err(failure) } else { run(seed, None, true) };
                report(seed, traced);
            }
        }
    }
    println!("simulation: {count} seeds, {steps} steps, 0 violations");
    println!("{seen:?}");
    for what in MUST_HAPPEN.iter().filter(|_| count >= 1_000) {
        assert!(seen.get(what).is_some_and(|times| *times >= count / 100), "hardly ever: {what}: {seen:?}");
    }
}

/// What a simulation worth its name runs into.
const MUST_HAPPEN: [&str; 19] = [
    "a Cancel",
    "a History chunk",
    "a Resume",
    "a node's own fresh",
    "a node's own recovered",
    "a retake",
    "a paused History",
    "a stale frame was dropped",
    "a topic made anew",
    "an Unwant",
    "an event delivered",
    "another log while live",
    "bad_cursor",
    "epoch",
    "expired",
    "lost while live",
    "recovered",
    "the log was gone",
    "the log was read",
];

fn report(seed: u64, ran: Ran) {
    let Err(failure) = ran else { panic!("seed {seed} failed once and not again: it is not deterministic") };
    for line in &failure.trace {
        println!("  {line}");
    }
    let Violation { invariant, detail } = failure.violation;
    panic!("SIM_SEED={seed} breaks {invariant}: {detail}");
}

thread_local! {
    /// This thread expects assertions to fail.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs seeds with a misreading planted until a check notices; it must be one of those expected, and soon.
fn caught(mutant: Mutant, expected: &[&str]) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                hook(panic);
            }
        }));
    });
    QUIET.set(true);
    let broken = (0..MUTANT_SEEDS)
        .find_map(|seed| run(seed, Some(mutant), false).err().map(|it| (seed, it.violation)));
    QUIET.set(false);
    let Some((seed, violation)) = broken else { panic!("{mutant:?} survived {MUTANT_SEEDS} seeds") };
    println!("{mutant:?}: seed {seed}, {}: {}", violation.invariant, violation.detail);
    assert!(expected.contains(&violation.invariant), "{mutant:?} broke {} first", violation.invariant);
}

/// Some need a rare crossing.
const MUTANT_SEEDS: u64 = 20_000;

macro_rules! mutants {
    ($($name:ident: $mutant:ident => $expected:expr;)*) => {
        $(#[test] fn $name() { caught(Mutant::$mutant, &$expected); })*
    };
}

mutants! {
    history_for_every_subscriber_is_caught: HistoryToEverySubscriber => ["cursor_passes_nothing", "lost_has_a_cause"];
    history_without_a_want_id_is_caught: HistoryWithoutWantId => ["cursor_passes_nothing", "lost_has_a_cause", "epoch_is_told"];
    dedupe_by_partition_is_caught: DedupeByPartition => ["cursor_passes_nothing"];
    a_live_event_for_a_pending_subscription_is_caught: LiveEventToPending => ["cursor_passes_nothing", "lost_has_a_cause"];
    a_mark_for_a_pending_subscription_is_caught: MarkToPending => ["cursor_passes_nothing"];
    joining_a_held_channel_without_a_want_is_caught: JoinLocally => ["cursor_passes_nothing"];
    a_mark_before_queued_events_is_caught: MarkBeforeQueuedEvents => ["machine_assertion", "cursor_passes_nothing"];
    a_mark_of_h_is_caught: MarkSaysH => ["cursor_passes_nothing", "machine_assertion"];
    a_mark_before_the_resume_is_caught: MarkBeforeResume => ["cursor_passes_nothing", "machine_assertion"];
    heeding_a_lower_term_is_caught: HeedLowerTerm => ["machine_assertion", "cursor_passes_nothing"];
    heeding_live_frames_of_a_lower_term_is_caught: HeedLowerTermLive => ["machine_assertion", "cursor_passes_nothing"];
    heeding_an_old_resume_number_is_caught: HeedOldNumber => ["machine_assertion", "cursor_passes_nothing"];
    following_a_lower_term_is_caught: OwnedOfLowerTerm => ["everyone_is_established", "resume_goes_on"];
    ignoring_an_equal_term_is_caught: IgnoreEqualTerm => ["nothing_is_missing", "everyone_is_established"];
    resuming_from_the_head_is_caught: ResumeFromHead => ["cursor_passes_nothing"];
    folding_pending_into_a_resume_is_caught: ResumeFoldsPending => ["cursor_passes_nothing"];
    not_repeating_wants_is_caught: WantsNotRepeated => ["everyone_is_established", "owned_is_not_repeated"];
    history_that_moves_next_is_caught: HistoryMovesNext => ["cursor_passes_nothing", "machine_assertion"];
    an_unwant_that_changes_places_with_a_want_is_caught: UnwantOvertakesWant => ["owned_is_not_repeated", "cursor_passes_nothing"];
    dropping_lost_is_caught: LostIsDropped => ["cursor_passes_nothing"];
    knowing_a_takeover_by_name_is_caught: TakeoverByName => ["serves_by_its_own_takeover"];
    serving_before_the_takeover_is_consumed_is_caught: ServesBeforeConsumed => ["serves_by_its_own_takeover"];
    going_on_after_a_foreign_takeover_is_caught: ForeignTakeoverIgnored => ["serves_by_its_own_takeover"];
    not_taking_over_again_is_caught: NoRetake => ["the_assigned_router_serves"];
    forgetting_evictions_is_caught: EvictedForgotten => ["history_is_complete"];
    judging_a_cursor_by_h_is_caught: WatermarkIsOwnH => ["lost_has_a_cause"];
    a_hold_that_begins_at_a_cursor_is_caught: HoldBeginsAtCursor => ["cursor_passes_nothing"];
    an_own_answer_over_a_gap_in_the_ring_is_caught: RingHasGap => ["cursor_passes_nothing"];
    a_hold_that_survives_a_lost_is_caught: HoldSurvivesLost => ["cursor_passes_nothing"];
    a_hold_that_survives_an_unwant_is_caught: HoldSurvivesUnwant => ["cursor_passes_nothing"];
    a_hold_that_survives_another_log_is_caught: HoldSurvivesEpoch => ["cursor_passes_nothing"];
    a_position_that_survives_another_log_is_caught: NextSurvivesEpoch => ["cursor_passes_nothing"];
    not_telling_of_another_log_is_caught: EpochUntold => ["epoch_is_told", "everyone_is_in_the_log"];
    a_cursor_of_another_log_that_is_believed_is_caught: EpochNotCompared => ["epoch_is_told", "lost_has_a_cause"];
    a_cancel_that_unwants_at_the_owner_only_is_caught: CancelUnwantsAtOwner => ["owned_is_not_repeated"];
    a_cancel_that_unwants_at_the_node_only_is_caught: CancelUnwantsAtNode => ["owned_is_not_repeated"];
    a_cancel_of_another_want_is_caught: CancelOfAnother => ["everyone_is_established"];
    a_cancel_that_is_ignored_is_caught: CancelIgnored => ["nothing_for_a_cancelled_want"];
}
