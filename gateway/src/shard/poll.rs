//! Polls: one answer, at once or when something comes, and the socket goes back to HTTP. A poll holds no session.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, DATE, ETAG, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use tidegate_tenure::Outcome;
use tidegate_vocab::limits;
use tidegate_wire::http1::{self, JSON};
use tidegate_wire::object::{self, Told};

use super::State;
use super::conn::{Mode, Poll, Progress, Sub};
use super::item::SharedEvent;
use super::table::{ChannelIdx, ConnIdx};
use crate::http::{answer_and_go_on, date};
use crate::socket::ClientSocket;

impl State {
    fn poll(&mut self, idx: ConnIdx) -> Option<&mut Poll> {
        self.conns.get_mut(idx as usize)?.opening.as_mut()?.poll.as_deref_mut()
    }

    /// Adds a past or live event to a poll's answer; false when it no longer fits.
    pub(super) fn add_to_poll(&mut self, idx: ConnIdx, event: &Arc<SharedEvent>) -> bool {
        let Some(poll) = self.poll(idx) else { return false };
        let bytes = event.body().len() + 2;
        let fits =
            poll.events.len() < limits::POLL_EVENTS_LIMIT && poll.bytes + bytes <= limits::POLL_BYTES_LIMIT;
        poll.is_full |= !fits;
        if poll.is_full {
            return false;
        }
        poll.bytes += bytes;
        poll.events.push(Arc::clone(event));
        true
    }

    /// A live event for a waiting poll. One that does not fit is where the cursor of its channel stays.
    pub(super) fn event_for_poll(&mut self, idx: ConnIdx, channel: ChannelIdx, event: &Arc<SharedEvent>) {
        let fits = self.add_to_poll(idx, event);
        if let (false, Some(offset)) = (fits, event.event.offset) {
            // Live until now, so the node holds a subscription for it that goes before the answer does.
            self.release(channel);
            let opening = self.conns.get_mut(idx as usize).and_then(|conn| conn.opening.as_mut());
            if let Some(sub) =
                opening.and_then(|opening| opening.subs.iter_mut().find(|sub| sub.channel == channel))
            {
                sub.progress = Progress::Stalled { epoch: event.epoch, next: offset };
            }
        }
        self.owe(idx, super::Out::Poll);
    }

    fn release(&mut self, channel: ChannelIdx) {
        let (partition, channel) = (self.table.partition(channel), self.table.entry(channel).name.clone());
        self.commands.push_back(super::NodeCommand::Release { partition, channel });
    }

    /// Answers a poll that has something to say, or that does not wait and knows all.
    pub(super) fn poll_may_be_ready(&mut self, idx: ConnIdx) {
        let tick = self.tick_now();
        let Some(opening) = self.conns.get(idx as usize).and_then(|conn| conn.opening.as_ref()) else {
            return;
        };
        let Some(poll) = &opening.poll else { return };
        let is_resolved = opening.subs.iter().all(|sub| !matches!(sub.progress, Progress::Pending { .. }));
        let has_lost = opening.subs.iter().any(|sub| matches!(sub.outcome, Some(Outcome::Lost(_))));
        let has_news = !poll.events.is_empty() || has_lost;
        let is_settled = is_resolved || tick >= opening.grace_tick;
        if poll.is_full
            || (is_settled && (has_news || (!poll.waits && is_resolved)))
            || tick >= poll.deadline_tick
        {
            self.answer_poll(idx);
        }
    }

    /// Answers now, whatever there is, and gives the socket back.
    pub(super) fn answer_poll(&mut self, idx: ConnIdx) {
        let cursor = self.conn_cursor(idx);
        let Some(opening) = self.conns.get_mut(idx as usize).and_then(|conn| conn.opening.as_mut()) else {
            return;
        };
        let Some(poll) = opening.poll.take() else { return };
        let is_live = |sub: &Sub| matches!(sub.progress, Progress::Live { .. });
        if !poll.waits && opening.subs.iter().all(is_live) {
            let channels: Vec<_> = opening.subs.iter().map(|sub| sub.channel).collect();
            self.note_polled(&channels);
        }
        let told = self.conns[idx as usize]
            .opening
            .as_ref()
            .map(|opening| self.told(opening, true))
            .unwrap_or_default();
        let Some(conn) = self.take(idx, "answered") else { return };
        debug_assert_eq!(conn.mode, Mode::Poll);
        let keep_alive = poll.keep_alive && !self.shared.is_refusing();
        let (status, headers, body) = answer_parts(&poll, &cursor, &told);
        if let ClientSocket::H2(stream) = conn.stream {
            self.shared.metrics.bytes_out.inc_by(body.len() as u64);
            let mut head = http::Response::new(());
            *head.status_mut() = status;
            head.headers_mut().extend(headers);
            return stream.answer(head, body);
        }
        let response = http1::full_response(status, &headers, &body, keep_alive);
        self.shared.metrics.bytes_out.inc_by(response.len() as u64);
        if let Some(shard) = self.shard.upgrade() {
            let again = keep_alive.then(|| Bytes::from(poll.leftover));
            answer_and_go_on(shard, conn.stream, conn.permit, response, again);
        }
    }
}

/// 200 with the answer, or 304 for a poll that does not wait and whose tag is still right.
fn answer_parts(
    poll: &Poll,
    cursor: &str,
    told: &Told,
) -> (StatusCode, Vec<(HeaderName, HeaderValue)>, Vec<u8>) {
    let mut headers = headers(cursor, &poll.headers);
    let is_unchanged = !poll.waits
        && poll.events.is_empty()
        && told.lost.is_empty()
        && poll.if_none_match.as_deref() == Some(cursor);
    if is_unchanged {
        return (StatusCode::NOT_MODIFIED, headers, Vec::new());
    }
    headers.push((CONTENT_TYPE, JSON));
    let body = object::poll_answer(poll.events.iter().map(|event| event.body().as_ref()), cursor, told);
    (StatusCode::OK, headers, body)
}

/// The headers of every answer to a poll but those of its body.
pub(crate) fn headers(cursor: &str, extra: &[(HeaderName, HeaderValue)]) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers: Vec<(HeaderName, HeaderValue)> = vec![
        (CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (DATE, date()),
    ];
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{cursor}\"")) {
        headers.push((ETAG, tag));
    }
    headers.extend(extra.iter().cloned());
    headers
}
