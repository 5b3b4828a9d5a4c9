//! `tidegate ring`: which members answer for which users and channels, and what a change would move.
//!
//! Computed here from a list of members, without asking anybody: a ring is a pure function of its list.

mod shares;

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::json;
use tidegate_registry::{Listed, MemberId, MemberList, REPLICAS, Ring};
use tidegate_vocab::Channel;

use crate::cli::Failure;
use crate::cli::config_args::ConfigArgs;
use crate::cli::table::OutputArgs;
use crate::config::{self, Profile, members};
use shares::{Moved, Shares};

/// Look at the registry's ring, and at what a change of it would move
///
/// Computed from the list of members (--members, --members-file, or the configuration), the same as every process does; asks
/// nobody. Shares are those of 100,000 keys.
///
/// Examples:
///
///   tidegate ring show --members-file members.toml
///
///   tidegate ring simulate --members 10.0.0.7:8004,10.0.0.8:8004 --add 10.0.0.9:8004
///
///   tidegate ring of user:alice score:42 --members-file members.toml
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RingArgs {
    #[command(subcommand)]
    command: RingCommand,
}

#[derive(Debug, Subcommand)]
enum RingCommand {
    /// Print the members with their shares of keys
    Show(ShowArgs),
    /// Print what a change would move, against the fair share of what is added or removed
    Simulate(SimulateArgs),
    /// Print which members answer for users (`user:<id>`) and channels
    Of(OfArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct SimulateArgs {
    /// Add a member, with a weight other than 1 if need be; may be repeated
    #[arg(long, value_name = "HOST:PORT[=WEIGHT]")]
    add: Vec<String>,
    /// Remove the member with this id; may be repeated
    #[arg(long, value_name = "ID")]
    remove: Vec<u32>,
    /// Give a member another weight; may be repeated
    #[arg(long, value_name = "ID=WEIGHT")]
    weight: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct OfArgs {
    /// Users, as `user:<id>`, and channels
    #[arg(required = true, value_name = "SUBJECT")]
    subjects: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

/// What all of them take.
#[derive(Debug, Args)]
struct CommonArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

impl CommonArgs {
    fn list(&self) -> Result<MemberList, Failure> {
        let config = config::load(&self.config.sources(Profile::Cluster)?)?.config;
        config
            .registry
            .members
            .ok_or_else(|| Failure::usage("which members? Pass --members HOST:PORT,… or --members-file FILE"))
    }

    fn print(&self, text: &str, object: &serde_json::Value) -> Result<(), Failure> {
        self.output.print(object, |_| vec![text.trim_end().to_owned()])
    }
}

pub(super) fn run(args: &RingArgs) -> Result<(), Failure> {
    match &args.command {
        RingCommand::Show(args) => show(args),
        RingCommand::Simulate(args) => simulate(args),
        RingCommand::Of(args) => of(args),
    }
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let list = args.common.list()?;
    let ring = ring_of(&list)?;
    let shares = Shares::of(&ring);
    args.common.print(&table(&list, &ring, &shares), &object(&list, &ring, &shares))
}

fn simulate(args: &SimulateArgs) -> Result<(), Failure> {
    if args.add.is_empty() && args.remove.is_empty() && args.weight.is_empty() {
        return Err(Failure::usage("which change? Pass --add HOST:PORT, --remove ID or --weight ID=WEIGHT"));
    }
    let before = args.common.list()?;
    let after = changed(&before, args)?;
    let (old, new) = (ring_of(&before)?, ring_of(&after)?);
    let (was, is) = (Shares::of(&old), Shares::of(&new));
    let moved = Moved::between(&old, &new);
    let fair = fair_share(&before, &after);
    let mut text = table(&after, &new, &is);
    let _ = write!(
        text,
        "\nfrom digest {:016x} to {:016x}\nprimary changes of      {:5.1} % of keys; a fair share is {:.1} %\n\
         primary or replica of   {:5.1} % of keys\n",
        old.digest(),
        new.digest(),
        moved.primary,
        fair,
        moved.any
    );
    let object = json!({
        "before": object(&before, &old, &was),
        "after": object(&after, &new, &is),
        "primary_moves_percent": moved.primary,
        "fair_share_percent": fair,
        "any_moves_percent": moved.any,
    });
    args.common.print(&text, &object)
}

fn of(args: &OfArgs) -> Result<(), Failure> {
    let list = args.common.list()?;
    let ring = ring_of(&list)?;
    let mut text = String::new();
    let mut found = Vec::new();
    for subject in &args.subjects {
        let subject =
            Channel::parse(subject).map_err(|error| Failure::usage(format!("{subject}: {error}")))?;
        let answering: Vec<MemberId> = ring.replicas(subject.as_str(), REPLICAS).collect();
        let shown = |id: &MemberId| format!("{} {}", id.0, list.address(*id).unwrap_or_default());
        let _ = writeln!(text, "{subject}  {}", answering.iter().map(shown).collect::<Vec<_>>().join("  "));
        let listed = |id: &MemberId| json!({"id": id.0, "address": list.address(*id)});
        found.push(json!({
            "subject": subject.as_str(),
            "members": answering.iter().map(listed).collect::<Vec<_>>(),
        }));
    }
    args.common.print(&text, &json!({"version": list.version, "digest": digest(&ring), "subjects": found}))
}

fn ring_of(list: &MemberList) -> Result<Ring, Failure> {
    list.ring().map_err(Failure::usage)
}

fn digest(ring: &Ring) -> String {
    format!("{:016x}", ring.digest())
}

/// The list as it would be.
fn changed(before: &MemberList, args: &SimulateArgs) -> Result<MemberList, Failure> {
    let mut after = MemberList { version: before.version + 1, ..before.clone() };
    let missing = |id: u32| Failure::usage(format!("there is no member {id} in the list"));
    for id in &args.remove {
        let left = after.members.len();
        after.members.retain(|member| member.id != MemberId(*id));
        if after.members.len() == left {
            return Err(missing(*id));
        }
    }
    for change in &args.weight {
        let form = || Failure::usage(format!("--weight {change}: write --weight ID=WEIGHT"));
        let (id, weight) = change.split_once('=').ok_or_else(form)?;
        let (id, weight) = (id.parse::<u32>().map_err(|_| form())?, weight.parse().map_err(|_| form())?);
        let member = after.members.iter_mut().find(|member| member.id == MemberId(id));
        member.ok_or_else(|| missing(id))?.weight = weight;
    }
    for added in &args.add {
        let form =
            || Failure::usage(format!("--add {added}: write --add HOST:PORT or --add HOST:PORT=WEIGHT"));
        let (address, weight) = added.split_once('=').unwrap_or((added, "1"));
        if !members::is_host_and_port(address) {
            return Err(form());
        }
        // As a StatefulSet that grows: behind the highest.
        let highest = before.members.iter().chain(&after.members).map(|member| member.id.0 + 1).max();
        let id = MemberId(highest.unwrap_or_default());
        let weight = weight.parse().map_err(|_| form())?;
        after.members.push(Listed { id, weight, address: address.to_owned() });
    }
    Ok(after)
}

/// Percent of keys that a change moves if the ring is even: what members gain by their weights.
fn fair_share(before: &MemberList, after: &MemberList) -> f64 {
    let share = |list: &MemberList, id: MemberId| {
        let total: u32 = list.members.iter().map(|member| member.weight).sum();
        let own = list.members.iter().find(|member| member.id == id).map_or(0, |member| member.weight);
        f64::from(own) / f64::from(total.max(1))
    };
    let gains =
        after.members.iter().map(|member| (share(after, member.id) - share(before, member.id)).max(0.0));
    gains.sum::<f64>() * 100.0
}

fn table(list: &MemberList, ring: &Ring, shares: &Shares) -> String {
    let width = list.members.iter().map(|member| member.address.len()).max().unwrap_or(0).max(7);
    let mut text =
        format!("{:>4}  {:width$}  {:>6}  {:>9}  {:>9}\n", "id", "address", "weight", "primary", "replica");
    for member in sorted(list) {
        let _ = writeln!(
            text,
            "{:>4}  {:width$}  {:>6}  {:>7.2} %  {:>7.2} %",
            member.id.0,
            member.address,
            member.weight,
            shares.primary(member.id),
            shares.replica(member.id)
        );
    }
    let _ = writeln!(text, "version {}, digest {}", list.version, digest(ring));
    text
}

fn object(list: &MemberList, ring: &Ring, shares: &Shares) -> serde_json::Value {
    let member = |member: &Listed| {
        json!({
            "id": member.id.0,
            "address": member.address,
            "weight": member.weight,
            "primary_percent": shares.primary(member.id),
            "replica_percent": shares.replica(member.id),
        })
    };
    let members: Vec<_> = sorted(list).into_iter().map(member).collect();
    json!({"version": list.version, "digest": digest(ring), "members": members})
}

fn sorted(list: &MemberList) -> Vec<&Listed> {
    let mut sorted: Vec<&Listed> = list.members.iter().collect();
    sorted.sort_unstable_by_key(|member| member.id);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fair_share_is_what_members_gain() {
        let list = |weights: &[(u32, u32)]| MemberList {
            version: 1,
            members: weights
                .iter()
                .map(|(id, weight)| Listed { id: MemberId(*id), weight: *weight, address: "m:1".into() })
                .collect(),
        };
        for (before, after, percent) in [
            (&[(0, 1), (1, 1)][..], &[(0, 1), (1, 1), (2, 1)][..], 100.0 / 3.0),
            (&[(0, 1), (1, 1), (2, 1)], &[(0, 1), (1, 1)], 100.0 / 3.0),
            (&[(0, 1), (1, 1)], &[(0, 3), (1, 1)], 25.0),
            (&[(0, 1), (1, 1)], &[(0, 2), (1, 2)], 0.0),
        ] {
            let (before, after) = (list(before), list(after));
            assert!((fair_share(&before, &after) - percent).abs() < 1e-9, "{before:?} {after:?}");
            let moved = Moved::between(&before.ring().expect("a ring"), &after.ring().expect("a ring"));
            // Equal doubled weights are more virtual nodes, so another ring.
            if percent > 0.0 {
                assert!((moved.primary - percent).abs() < 6.0, "{} and {percent}", moved.primary);
            }
            assert!(moved.any >= moved.primary);
        }
    }
}
