//! Shows that the judge sees what it looks for: one event removed, one repeated, two swapped, each in a copy of the history
//! at hand, must give exactly one more fault, of the right kind, at the right client and position.

use std::collections::{HashMap, HashSet};

use super::delivery::{self, Finding, Kind};
use super::index::{Index, Pos};
use crate::history::{ClientLine, Delivery, History};

/// What was found, one sentence a copy.
///
/// # Errors
/// What the judge did not see, or that the history is too small to be doctored.
pub fn prove(history: &History) -> Result<Vec<String>, String> {
    let before: HashSet<Finding> = findings(history).into_iter().collect();
    let at = place(history)?;
    let mut proofs = Vec::new();
    for (what, kind) in [("removed", Kind::Missing), ("repeated", Kind::Twice), ("swapped", Kind::Order)] {
        let mut doctored = history.clone();
        match kind {
            Kind::Missing => drop(doctored.clients.remove(at.first)),
            Kind::Twice => doctored.clients.insert(at.first + 1, doctored.clients[at.first].clone()),
            _ => doctored.clients.swap(at.first, at.second),
        }
        let new: Vec<Finding> =
            findings(&doctored).into_iter().filter(|found| !before.contains(found)).collect();
        match new.as_slice() {
            [found] if found.kind == kind && found.client == Some(at.client) && found.pos == Some(at.pos) => {
                let (label, client, pos) = (kind.label(), at.client, at.pos);
                proofs.push(format!("one event {what}: {label}, client {client}, pos {pos}"));
            }
            other => {
                let (client, pos) = (at.client, at.pos);
                return Err(format!("{what} pos {pos} at client {client}, and found {other:?}"));
            }
        }
    }
    Ok(proofs)
}

fn findings(history: &History) -> Vec<Finding> {
    delivery::check(&Index::of(history)).findings
}

/// Two lines of one channel on one connection that follow each other there.
struct Place {
    first: usize,
    second: usize,
    client: u32,
    pos: Pos,
}

/// The place nearest to the middle where all three copies have one fault only: both events had to be received, and were,
/// once.
fn place(history: &History) -> Result<Place, String> {
    let index = Index::of(history);
    let mut times: HashMap<(u32, &str), u32> = HashMap::new();
    for line in &history.clients {
        if let ClientLine::Event(event) = line {
            *times.entry((event.client, event.pos.as_str())).or_default() += 1;
        }
    }
    let is_fit = |event: &Delivery| {
        let published = index.events.get(event.key.as_str());
        let client = index.clients.get(&event.client);
        let since_us = client.and_then(|client| client.established.get(event.channel.as_str()));
        let is_acked = published.is_some_and(|published| {
            let is_due = since_us.is_some_and(|since_us| published.published_us > *since_us);
            let is_told = client.is_some_and(|client| client.told.contains_key(event.channel.as_str()));
            let acked = published.acked.map(|(_, pos)| pos);
            is_due && !is_told && acked.is_some() && acked == Pos::parse(&event.pos)
        });
        is_acked && times.get(&(event.client, event.pos.as_str())) == Some(&1)
    };
    let mut last: HashMap<(u32, u32, &str), (usize, &Delivery)> = HashMap::new();
    let mut best: Option<(usize, Place)> = None;
    for (second, line) in history.clients.iter().enumerate() {
        let ClientLine::Event(event) = line else { continue };
        let on = (event.client, event.connection, event.channel.as_str());
        if let Some((first, earlier)) = last.insert(on, (second, event)) {
            let distance = first.abs_diff(history.clients.len() / 2);
            let is_nearer = best.as_ref().is_none_or(|(nearest, _)| distance < *nearest);
            let (low, high) = (Pos::parse(&earlier.pos), Pos::parse(&event.pos));
            if let Some(pos) =
                low.filter(|low| is_nearer && Some(*low) < high && is_fit(earlier) && is_fit(event))
            {
                best = Some((distance, Place { first, second, client: event.client, pos }));
            }
        }
    }
    best.map(|(_, place)| place).ok_or_else(|| {
        "no client received two events of one channel in a row, once each: run longer".to_owned()
    })
}
