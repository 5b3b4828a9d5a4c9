//! What idle connections keep of a server's user memory.

use std::fmt::Write as _;
use std::time::Duration;

use crate::memory::{Memory, settled_memory};

/// At most so long until memory has settled.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// One of so many comes and goes before anything is counted: they warm what is there once, and leave little room to those that stay.
const WARMING: usize = 10;

/// What each of many connections follows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Following {
    /// A user and channels that no other connection has, instead of the same for all.
    pub own: bool,
    /// Channels beside the first.
    pub further: u16,
    /// Where nothing is own: the further ones are another handful for each, of so many.
    pub of: Option<u16>,
}

impl Following {
    /// What the connection of this number asks for.
    #[must_use]
    pub fn query(&self, number: usize) -> String {
        let who = if self.own { format!("{number}") } else { "shared".to_owned() };
        let mut query = format!("channel=load:idle-{who}");
        for further in 1..=self.further {
            let _ = match self.of {
                Some(of) => write!(query, "&channel=load:idle-of-{}", self.one_of(number, further, of)),
                None => write!(query, "&channel=load:idle-{who}-{further}"),
            };
        }
        if self.own {
            let _ = write!(query, "&user=load-{number}");
        }
        query
    }

    /// Which of the shared channels is this connection's `further`th: none twice, and no two connections have the same
    /// handful while there are others.
    fn one_of(&self, number: usize, further: u16, of: u16) -> usize {
        let of = usize::from(of);
        let step = 1 + number / of % (of / usize::from(self.further));
        (number + usize::from(further) * step) % of
    }

    /// In words.
    #[must_use]
    pub fn title(&self) -> String {
        let channels = self.further + 1;
        match self.of {
            _ if self.own => format!("own user, own channels: {channels}"),
            Some(of) => format!("shared, further ones of {of}, channels: {channels}"),
            None => format!("shared channels: {channels}"),
        }
    }
}

/// A process's memory before connections and with them.
#[derive(Debug)]
pub struct Resident<T> {
    /// Without them.
    pub before: Memory,
    /// With them.
    pub after: Memory,
    /// They are here, and open until this is dropped.
    pub opened: T,
    count: usize,
}

impl<T> Resident<T> {
    /// Opens so many and waits until the process's memory has settled.
    ///
    /// # Errors
    /// When `open`, which opens as many as it is told, fails, or there is no such process.
    pub async fn measure(
        pid: u32,
        count: usize,
        open: impl AsyncFn(usize) -> anyhow::Result<T>,
    ) -> anyhow::Result<Self> {
        drop(open(count.div_ceil(WARMING)).await?);
        let before = settled_memory(pid, SETTLE_TIMEOUT).await?;
        let opened = open(count).await?;
        let after = settled_memory(pid, SETTLE_TIMEOUT).await?;
        Ok(Self { before, after, opened, count })
    }

    /// What each of them added, in bytes.
    #[must_use]
    pub fn bytes_each(&self) -> u64 {
        self.after.0.saturating_sub(self.before.0) / self.count.max(1) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_own_connection_has_a_user_and_channels_that_no_other_has() {
        assert_eq!(Following::default().query(7), "channel=load:idle-shared");
        let own = Following { own: true, further: 2, of: None };
        assert_eq!(
            own.query(7),
            "channel=load:idle-7&channel=load:idle-7-1&channel=load:idle-7-2&user=load-7"
        );
        assert_eq!(own.title(), "own user, own channels: 3");
    }

    #[test]
    fn of_shared_channels_each_connection_has_another_handful() {
        let following = Following { own: false, further: 16, of: Some(200) };
        let handfuls: BTreeSet<BTreeSet<usize>> = (0..2_000)
            .map(|number| (1..=16).map(|further| following.one_of(number, further, 200)).collect())
            .collect();
        assert!(handfuls.iter().all(|handful| handful.len() == 16 && handful.iter().all(|one| *one < 200)));
        assert!(handfuls.len() > 1_900, "{} different ones", handfuls.len());
    }
}
