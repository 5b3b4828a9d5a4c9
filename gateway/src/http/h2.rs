//! HTTP/2 on a TLS socket whose client asked for it: each stream of events, WebSocket and poll is a stream of the socket.
//!
//! The h2 library keeps the socket. A request that is a stream is adopted by the shard with an [`H2Stream`] in the place of
//! a socket, and counts as a connection of its own against the limits. What its client may make us do without asking for
//! anything is counted ([`meter`]); who overdoes it is sent away.

mod body;
mod meter;
mod request;
mod serving;
mod stream;

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;

use h2::Reason;
use h2::server::Builder;
use tidegate_vocab::limits;
use tokio::sync::watch;

use crate::admission::{Entry, Permit};
use crate::shard::Shard;
use crate::socket::ClientSocket;
use meter::{MeteredSocket, Seen};
use serving::Serving;
pub(crate) use stream::H2Stream;

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits::H2_STREAMS_LIMIT)
        .max_pending_accept_reset_streams(limits::H2_PENDING_RESETS_LIMIT)
        .max_local_error_reset_streams(Some(limits::H2_LOCAL_RESETS_LIMIT))
        .max_header_list_size(limits::REQUEST_HEAD_BYTES_LIMIT as u32)
        .max_send_buffer_size(limits::H2_SEND_BYTES_LIMIT)
        .initial_window_size(limits::H2_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_WINDOW_BYTES)
        .enable_connect_protocol();
    builder
}

/// Serves requests until the socket closes, is idle for too long, is abused or the node drains.
pub(crate) async fn serve(
    shard: Rc<Shard>,
    socket: ClientSocket,
    permit: Permit,
    entry: Entry,
    mut accepting: watch::Receiver<bool>,
) {
    let seen = Rc::<Seen>::default();
    let handshake = builder().handshake(MeteredSocket::new(socket, Rc::clone(&seen)));
    let idle_after = shard.shared.config.head_timeout;
    let ended = match tokio::time::timeout(idle_after, handshake).await {
        Ok(Ok(connection)) => {
            let mut serving = Serving::new(&shard, connection, Rc::clone(&seen), entry);
            let mut draining = pin!(accepting.wait_for(|accepting| !accepting));
            poll_fn(|cx| {
                if !serving.is_ending && draining.as_mut().poll(cx).is_ready() {
                    serving.say_goodbye();
                }
                serving.poll(cx)
            })
            .await
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(()), // It never began.
    };
    if let (Err(error), Some(tls)) = (ended, &shard.shared.tls)
        && let Some(kind) = seen.flood.get().or_else(|| fault_of(&error, &seen))
    {
        tls.metrics.h2_faults.with_label_values(&[kind]).inc();
    }
    drop(permit);
}

/// What the client did, where it is the client's fault, as the metric's label.
fn fault_of(error: &h2::Error, seen: &Seen) -> Option<&'static str> {
    if !error.is_library() {
        return None; // It went, or its network did.
    }
    if error.reason() != Some(Reason::ENHANCE_YOUR_CALM) {
        return Some("protocol");
    }
    // One reason for all that is too much: of what, the library says to the client alone, in the words of its GOAWAY. Should
    // they change, `e2e/tests/floods.rs` fails, which wants each of these kinds.
    let known = [
        ("too_many_resets", "unanswered_reset"),
        ("too_many_internal_resets", "provoked_reset"),
        ("too_many_continuations", "continuation"),
        ("header_list_way_too_large", "header_list"),
        ("too_many_data_frames", "data"),
    ];
    let known = known.iter().find(|(words, _)| seen.ends_in(words));
    Some(known.map_or("too_much", |(_, kind)| kind))
}

/// Bytes of the future that such a function makes.
const fn future_bytes<A, B, C, D, E, F>(_: &impl Fn(A, B, C, D, E) -> F) -> usize {
    size_of::<F>()
}

// What a socket of HTTP/2 keeps beside the library's buffers, and what a request and a stream take. 4,176, 3,112, 1,824, 96 and
// 40 bytes when this was written.
const _: () = assert!(future_bytes(&crate::tls::serve) <= 4_352, "a TLS socket's task stays small");
const _: () = assert!(future_bytes(&serve) <= 3_328, "an HTTP/2 socket's loop stays small");
const _: () = assert!(future_bytes(&request::handle) <= 2_048, "a request's task stays small");
const _: () = assert!(size_of::<H2Stream>() <= 96 && size_of::<ClientSocket>() <= 40, "a stream stays small");
