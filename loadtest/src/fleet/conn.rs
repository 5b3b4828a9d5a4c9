//! One connection of a worker: its request, and what it makes of what it hears.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::Context as _;
use mio::net::TcpStream;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use super::count::Seen;
use super::order::Group;
use super::reader::Reader;
use crate::history::Receiving;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not connected.
    Closed,
    /// Connecting, or waiting for the first `state` or answer.
    Opening,
    /// It follows.
    Open,
    /// A poll between two requests.
    Resting,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) stream: Option<TcpStream>,
    pub(super) phase: Phase,
    /// Connected, and the request is sent.
    pub(super) has_asked: bool,
    /// Its group, and its number in it.
    pub(super) group: u16,
    pub(super) number: u64,
    pub(super) reader: Reader,
    pub(super) cursor: Option<Box<str>>,
    pub(super) seen: Option<Box<Seen>>,
    /// When it began to connect; of one that is closed, when it does at the earliest.
    pub(super) began_us: u64,
}

impl Conn {
    pub(super) fn new(group: u16, number: u64, transport: Receiving) -> Self {
        Self {
            stream: None,
            phase: Phase::Closed,
            has_asked: false,
            group,
            number,
            reader: Reader::new(transport),
            cursor: None,
            seen: None,
            began_us: 0,
        }
    }

    /// The next request.
    pub(super) fn request(&self, group: &Group) -> String {
        use std::fmt::Write as _;
        let mut request = format!("GET /v1/events?{}", group.follow.query(self.number));
        let (is_poll, is_waiting) = match group.transport {
            Receiving::LongPoll => (true, self.cursor.is_some()),
            Receiving::ShortPoll => (true, false),
            _ => (false, false),
        };
        match &self.cursor {
            // A poll that does not wait asks whether anything is new.
            Some(_) if is_poll && !is_waiting => {}
            Some(cursor) => {
                let _ = write!(request, "&cursor={cursor}");
            }
            None => {}
        }
        if is_waiting {
            request.push_str("&wait=50s");
        }
        request.push_str(" HTTP/1.1\r\nHost: localhost\r\n");
        request.push_str(match group.transport {
            Receiving::Ws => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
            Receiving::Sse => "Accept: text/event-stream\r\n",
            Receiving::Ndjson => "Accept: application/x-ndjson\r\n",
            Receiving::LongPoll | Receiving::ShortPoll => "Accept: application/json\r\n",
        });
        if let Some(cursor) = self.cursor.as_ref().filter(|_| is_poll && !is_waiting) {
            let _ = write!(request, "If-None-Match: \"{cursor}\"\r\n");
        }
        request.push_str("\r\n");
        request
    }
}

/// The source address of this number: 127.0.1.1, 127.0.1.2, and so on.
pub(super) fn source(number: u64) -> Ipv4Addr {
    let number = number as u32;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 1, 0)) + number / 250 * 256 + number % 250 + 1)
}

/// Begins to connect; to a server on loopback from a source address of one's own.
pub(super) fn begin(to: SocketAddr, from: Ipv4Addr) -> anyhow::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None).context("no socket")?;
    if to.ip().is_loopback() && to.is_ipv4() {
        bind(&socket, &SocketAddrV4::new(from, 0))
            .with_context(|| format!("no port of {from} is free: wait until other loads have ended"))?;
    }
    sockopt::set_tcp_nodelay(&socket, true)?;
    // A connection that is dropped goes at once, and its port is free again: no waiting for late segments on loopback.
    sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO))?;
    match connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot connect to {to}")),
    }
    Ok(TcpStream::from_std(std::net::TcpStream::from(socket)))
}

/// The cursor that an object or a line of an event stream holds: the value of its last `id`, or of `cursor`.
pub(super) fn cursor_in(line: &[u8], transport: Receiving) -> Option<&str> {
    if transport == Receiving::Sse {
        return std::str::from_utf8(line.strip_prefix(b"id:")?).ok().map(str::trim);
    }
    let after = |key: &[u8]| {
        let at = line.windows(key.len()).rposition(|window| window == key)? + key.len();
        let end = line[at..].iter().position(|byte| *byte == b'"')?;
        std::str::from_utf8(&line[at..at + end]).ok()
    };
    after(b"\"id\":\"").or_else(|| after(b"\"cursor\":\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::order::{Channels, Follow};

    fn group(transport: Receiving) -> Group {
        Group {
            transport,
            connections: 1,
            gateways: Vec::new(),
            follow: Follow { channel: Some("c{c}".to_owned()), channels: Channels::Own, user: None },
            first: 0,
            poll_interval_ms: 1_000,
            keeps_cursor: true,
            targets: None,
        }
    }

    #[test]
    fn each_transport_goes_on_from_its_cursor_in_its_own_way() {
        for (transport, first, then) in [
            (Receiving::Ws, "Upgrade: websocket", "channel=c5&cursor=K "),
            (Receiving::Sse, "text/event-stream", "&cursor=K "),
            (Receiving::Ndjson, "x-ndjson", "&cursor=K "),
            (Receiving::LongPoll, "channel=c5 HTTP", "&cursor=K&wait=50s "),
            (Receiving::ShortPoll, "channel=c5 HTTP", "If-None-Match: \"K\"\r\n"),
        ] {
            let mut conn = Conn::new(0, 5, transport);
            let request = conn.request(&group(transport));
            assert!(request.contains(first) && !request.contains("wait="), "{request}");
            conn.cursor = Some("K".into());
            let request = conn.request(&group(transport));
            assert!(request.contains(then) && request.ends_with("\r\n\r\n"), "{request}");
        }
    }

    #[test]
    fn a_cursor_is_found_where_it_stands() {
        let event = b"{\"type\":\"event\",\"data\":{\"id\":\"7\"},\"id\":\"K1\"}";
        assert_eq!(cursor_in(event, Receiving::Ws), Some("K1"));
        assert_eq!(
            cursor_in(b"{\"type\":\"state\",\"cursor\":\"K2\",\"lost\":[]}", Receiving::Ndjson),
            Some("K2")
        );
        assert_eq!(cursor_in(b"id: K3", Receiving::Sse), Some("K3"));
        assert_eq!(cursor_in(b"data: {\"id\":\"7\"}", Receiving::Sse), None);
    }

    #[test]
    fn sources_are_addresses_of_loopback_that_differ() {
        let all: std::collections::BTreeSet<_> = (0..1_000).map(source).collect();
        assert_eq!(all.len(), 1_000);
        assert!(all.iter().all(|address| address.is_loopback() && !matches!(address.octets()[3], 0 | 255)));
        assert_eq!(source(0), Ipv4Addr::new(127, 0, 1, 1));
    }
}
