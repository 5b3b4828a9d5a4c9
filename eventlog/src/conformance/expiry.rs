//! The case that needs time to pass.

use tidegate_vocab::Offset;

use super::{P, Subject, eventually, put, read_all, soon, values};
use crate::ReadError;

pub(super) async fn expired_records_are_gone_and_offsets_go_on(subject: &impl Subject) {
    let log = subject.open("expiry").await;
    let first = put(&*log, P, "old").await;
    for i in 0..2500 {
        let append = log.append(P, bytes::Bytes::new(), i.to_string().into());
        if i % 500 == 0 {
            append.await.expect("acked");
        }
    }
    put(&*log, P, "last of the old").await;
    let end = log.high_watermark(P).await.expect("high watermark");
    let Some(expired) = subject.expire(&log) else {
        eprintln!("NOT RUN: this engine cannot be made to forget on demand");
        return;
    };
    expired.await;
    eventually("the log forgets what expired", || async { log.start(P).await == Ok(end) }).await;
    let gone = Err(ReadError::BelowStart { start: end });
    assert_eq!(log.read(P, first.offset, 10, 1000).await, gone);
    assert_eq!(soon("an answer", log.consume(P, first.offset).next()).await, gone);
    assert_eq!(log.high_watermark(P).await, Ok(end), "forgetting moves the start and not the end");
    assert_eq!(log.offset_at(P, 0).await, Ok(end), "the first that is left");
    assert_eq!(log.read(P, end, 10, 1000).await, Ok(vec![]));
    drop(log);

    let log = subject.open("expiry").await;
    assert_eq!(log.start(P).await, Ok(end), "what is forgotten stays forgotten");
    assert_eq!(log.high_watermark(P).await, Ok(end), "an emptied partition goes on where it was");
    let next = put(&*log, P, "new").await;
    assert!(next.offset >= end && next.time_ms >= first.time_ms);
    assert_eq!(values(&read_all(&*log, P, Offset(end.0)).await), ["new"]);
}
