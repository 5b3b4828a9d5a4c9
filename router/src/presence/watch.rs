//! A backend's watch: what the topic says of presence, from its start or from now on, at any router.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_eventlog::{LogRecord, ReadError};
use tidegate_proto::registry::v1 as wire;
use tidegate_registry::Presence;
use tidegate_vocab::{Channel, ErrorKind, Offset, Problem};

use super::tail::Cursor;
use super::{Read, read};
use crate::Router;

/// Of whom a watch tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subjects {
    /// Everybody and everything.
    All,
    /// Users.
    Users,
    /// Channels, those of users apart.
    Channels,
}

impl Subjects {
    fn have(self, subject: &Channel) -> bool {
        match self {
            Self::All => true,
            Self::Users => subject.is_user(),
            Self::Channels => !subject.is_user(),
        }
    }
}

/// What has become of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceChange {
    /// A user, as `user:<id>`, or another channel.
    pub subject: Channel,
    /// Whether somebody is there.
    pub presence: Presence,
    /// Since when, seconds since the Unix epoch.
    pub since_s: u32,
}

/// What a watch comes upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceItem {
    /// A state; one that is said twice changes nothing.
    Change(PresenceChange),
    /// All that was known when the watch began has come. Comes once.
    CaughtUp,
}

/// See the module. [`PresenceWatch::next`] ends with an error only.
pub struct PresenceWatch {
    cursor: Cursor,
    subjects: Subjects,
    until: Offset,
    is_caught_up: bool,
    ready: VecDeque<PresenceItem>,
}

impl Router {
    /// Opens a watch. From the start, all that the topic has comes first: the last that comes of a subject counts, and one that
    /// does not come is offline.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn watch_presence(
        self: &Arc<Self>,
        from_start: bool,
        subjects: Subjects,
    ) -> Result<PresenceWatch, Problem> {
        let tail = self.presence.tail(&self.context);
        let (cursor, until) = match from_start {
            true => tail.from_start().await.map(|(cursor, _, until)| (cursor, until)),
            false => tail.from_now().await.map(|cursor| (cursor, Offset(0))),
        }
        .map_err(|error| unavailable(&error))?;
        let mut watch =
            PresenceWatch { cursor, subjects, until, is_caught_up: false, ready: VecDeque::new() };
        watch.mark();
        Ok(watch)
    }
}

impl PresenceWatch {
    /// The next item; waits for one. Dropping a call loses nothing.
    ///
    /// # Errors
    /// When the topic cannot be read on: the watch is over, and another one has to begin at the start.
    pub async fn next(&mut self) -> Result<PresenceItem, Problem> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            let records = self.cursor.next().await.map_err(|error| unavailable(&error))?;
            for record in &records {
                self.take(record)?;
            }
            self.mark();
        }
    }

    fn take(&mut self, record: &LogRecord) -> Result<(), Problem> {
        match read(record) {
            Read::Transition(transition) => {
                let change = change(&transition).filter(|change| self.subjects.have(&change.subject));
                self.ready.extend(change.map(PresenceItem::Change));
                Ok(())
            }
            // The router that holds the streams counts what is malformed.
            Read::Tombstone | Read::Malformed => Ok(()),
            Read::UnknownVersion(version) => {
                let detail = format!("a presence record of version {version} needs a newer router");
                Err(Problem::new(ErrorKind::LogUnavailable, detail).retry_after_ms(5_000))
            }
        }
    }

    fn mark(&mut self) {
        if !self.is_caught_up && self.cursor.place() >= self.until {
            self.is_caught_up = true;
            self.ready.push_back(PresenceItem::CaughtUp);
        }
    }
}

/// What was read is well-formed already.
fn change(transition: &wire::Transition) -> Option<PresenceChange> {
    let presence = match transition.state() {
        wire::PresenceState::Online => Presence::Online,
        wire::PresenceState::Offline => Presence::Offline,
        wire::PresenceState::Unspecified => return None,
    };
    let subject = Channel::parse(&transition.subject).ok()?;
    Some(PresenceChange { subject, presence, since_s: transition.since_s })
}

fn unavailable(error: &ReadError) -> Problem {
    let detail = format!("the presence topic cannot be read: {error}");
    Problem::new(ErrorKind::LogUnavailable, detail).retry_after_ms(1_000)
}
