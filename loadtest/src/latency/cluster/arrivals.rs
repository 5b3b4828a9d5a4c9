//! What an event looks like, and noting when it comes: the same code for the probe's sockets and for WebSockets.

use std::time::Instant;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout_at;

use super::Measured;
use super::pace::{Pace, Share};

/// What precedes an event's number, which ends its data.
const MARK: &[u8] = b"#lat-";
/// Digits of that number.
const DIGITS: usize = 8;

/// The data of an event: as many bytes, though no fewer than its mark.
pub(super) fn data(seq: u64, bytes: usize) -> String {
    let padding = "x".repeat(bytes.saturating_sub(MARK.len() + DIGITS));
    format!("{padding}{}{seq:0DIGITS$}", String::from_utf8_lossy(MARK))
}

/// Takes the numbers of all whole marks out of `bytes`; what may be the start of another stays.
fn take_marks(bytes: &mut Vec<u8>, mut found: impl FnMut(u64)) {
    let mut at = 0;
    while let Some(next) = bytes[at..].windows(MARK.len() + DIGITS).position(|part| part.starts_with(MARK)) {
        let digits = at + next + MARK.len();
        at = digits + DIGITS;
        if let Some(seq) = std::str::from_utf8(&bytes[digits..at]).ok().and_then(|text| text.parse().ok()) {
            found(seq);
        }
    }
    let keep = at.max(bytes.len().saturating_sub(MARK.len() + DIGITS - 1));
    bytes.drain(..keep);
}

/// What a receiver waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    pub(super) pace: Pace,
    /// Which of the events are for it.
    pub(super) share: Share,
    /// Events that are sent at most once may stay out; any other that does is a failure.
    pub(super) may_miss: bool,
}

/// Reads until every awaited event that counts has come once; returns how long after it was due each came.
pub(super) async fn receive(
    mut stream: impl AsyncRead + Unpin,
    mut bytes: Vec<u8>,
    awaited: Awaited,
) -> Measured {
    let Awaited { pace, share, may_miss } = awaited;
    let count = pace.count_of(share);
    let (mut latencies, mut has_come) = (Vec::with_capacity(count), vec![false; pace.count()]);
    loop {
        let now = Instant::now();
        take_marks(&mut bytes, |seq| {
            let has_come = pace.place(seq).and_then(|place| has_come.get_mut(place));
            if has_come.is_some_and(|has_come| share.has(seq) && !std::mem::replace(has_come, true)) {
                latencies.push(pace.since_due(seq, now));
            }
        });
        let missing = count - latencies.len();
        if missing == 0 {
            return Ok(latencies);
        }
        let read = match timeout_at(pace.deadline().into(), stream.read_buf(&mut bytes)).await {
            Err(_) if may_miss => return Ok(latencies),
            reading => reading.with_context(|| format!("{missing} of {count} events did not come"))??,
        };
        if read == 0 {
            bail!("closed before {missing} of {count} events came");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_wherever_reads_cut_them() {
        let text = format!("{{\"data\":\"{}\"}}{{\"data\":\"{}\"}}", data(7, 100), data(12_345_678, 16));
        for cut in 0..text.len() {
            let (mut bytes, mut found) = (Vec::new(), Vec::new());
            for part in [&text[..cut], &text[cut..]] {
                bytes.extend_from_slice(part.as_bytes());
                take_marks(&mut bytes, |seq| found.push(seq));
            }
            assert_eq!(found, [7, 12_345_678], "cut at {cut}");
        }
    }

    #[test]
    fn data_is_as_long_as_was_asked() {
        assert_eq!(data(1, 100).len(), 100);
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_a_failure() {
        let events = data(3, 20);
        let awaited = Awaited { pace: Pace::new(1, 2), share: Share::ALL, may_miss: true };
        let outcome = receive(events.as_bytes(), Vec::new(), awaited).await;
        assert!(outcome.is_err_and(|error| error.to_string().contains("1 of 2")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_stay_out_ends_no_measurement_and_what_is_for_another_is_not_awaited() {
        let (mut server, client) = tokio::io::duplex(4_096);
        let share = Share { number: 1, of: 2 };
        let events: String = (2..=5).map(|seq| data(seq, 20)).collect();
        tokio::io::AsyncWriteExt::write_all(&mut server, events.as_bytes()).await.expect("written");
        let awaited = Awaited { pace: Pace::new(1, 8), share, may_miss: true };
        let came = receive(client, Vec::new(), awaited).await.expect("the deadline is no failure");
        assert_eq!(came.len(), 2, "3 and 5 of 3, 5, 7 and 9");
    }
}
