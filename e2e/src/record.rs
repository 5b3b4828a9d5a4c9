//! What one client was given, connection by connection, and whether it is what it was promised.

use std::collections::BTreeMap;

use crate::object::Event;
use crate::publisher::Acked;

/// One event as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its channel.
    pub channel: String,
    /// Its number.
    pub n: u64,
    /// Its position.
    pub pos: String,
    /// The offset in its position.
    pub offset: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Record {
    /// The events of each connection.
    pub connections: Vec<Vec<Seen>>,
    /// Repeats that [`Record::check`] found.
    pub repeats: usize,
}

impl Record {
    /// A new connection begins.
    pub fn connected(&mut self) {
        self.connections.push(Vec::new());
    }

    /// An event came.
    ///
    /// # Panics
    /// When it has no position or no number.
    pub fn saw(&mut self, event: &Event) {
        let seen = Seen {
            channel: event.channel.clone(),
            n: event.json()["n"].as_u64().expect("a number"),
            pos: event.pos.clone().expect("a position"),
            offset: event.offset(),
        };
        self.connections.last_mut().expect("connected").push(seen);
    }

    /// Everything that was seen.
    pub fn all(&self) -> impl Iterator<Item = &Seen> {
        self.connections.iter().flatten()
    }

    /// Whether an event of this number was seen.
    #[must_use]
    pub fn has(&self, channel: &str, n: u64) -> bool {
        self.all().any(|seen| seen.n == n && seen.channel == channel)
    }

    /// Checks that nothing acked is missing, that each channel came in order, and that what came twice came right
    /// after a resume, before anything new of its channel, with the same position. Says so with `who`.
    ///
    /// # Panics
    /// When any of that is not so.
    pub fn check(&mut self, who: &str, acked: &[Acked]) {
        let expected: BTreeMap<(&str, u64), &str> =
            acked.iter().map(|acked| ((acked.channel.as_str(), acked.n), acked.pos.as_str())).collect();
        let missing: Vec<_> = expected.keys().filter(|(channel, n)| !self.has(channel, *n)).collect();
        assert!(missing.is_empty(), "{who}: acked and missing: {missing:?}");
        let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
        let mut repeats = 0;
        for (number, connection) in self.connections.iter().enumerate() {
            let mut within: BTreeMap<&str, u64> = BTreeMap::new();
            for seen in connection {
                let at = format!("{who}, connection {number}: {seen:?}");
                let pos = expected.get(&(seen.channel.as_str(), seen.n));
                assert_eq!(pos, Some(&seen.pos.as_str()), "the position that the ack said; {at}");
                if let Some(before) = within.insert(&seen.channel, seen.offset) {
                    assert!(before < seen.offset, "in order, and once; {at} came after {before}");
                }
                let newest = newest.entry(&seen.channel).or_insert(0);
                if *newest >= seen.offset
                    && self.connections[..number].iter().flatten().any(|old| old == seen)
                {
                    repeats += 1;
                    assert!(number > 0, "{at}");
                } else {
                    assert!(seen.offset >= *newest, "late; {at}");
                    *newest = seen.offset;
                }
            }
        }
        self.repeats = repeats;
    }
}
