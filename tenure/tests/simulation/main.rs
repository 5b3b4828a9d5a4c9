//! The two machines under a random scheduler, against a model log (TENURES, "Invariants to assert").
//!
//! One partition, two routers, a few gateways and clients; everything may be late, cut, crashed or told again. A seed
//! decides everything: `SIM_SEED=17 cargo test -p tidegate-tenure --test simulation` runs one and prints its trace,
//! `SIM_SEEDS=20000` runs that many. Mutants prove that the checks would notice.

mod audit;
mod checks;
mod client;
mod gateway;
mod log;
mod mutant;
mod router;
mod scheduler;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

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
        None => 0..number("SIM_SEEDS").unwrap_or(2_000),
    };
    let (count, mut steps) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        match run(seed, None, count == 1) {
            Ok(taken) => steps += taken,
            Err(failure) => {
                let traced = if count == 1 { Err(failure) } else { run(seed, None, true) };
                report(seed, traced);
            }
        }
    }
    println!("simulation: {count} seeds, {steps} steps, 0 violations");
}

fn report(seed: u64, ran: Ran) {
    let Err(failure) = ran else { panic!("seed {seed} failed once and not again: it is not deterministic") };
    for line in &failure.trace {
        println!("  {line}");
    }
    let Violation { invariant, detail } = failure.violation;
    panic!("SIM_SEED={seed} breaks {invariant}: {detail}");
}
