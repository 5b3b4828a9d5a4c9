//! WebSocket handshake: any request head. What is granted must be a request the standard allows, and the answer must
//! read back, by another parser, as exactly the lines we mean to send.
//!
//! Input: one byte for method and version, then header lines `name: value`.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::choice;
use tidegate_wire::ws::handshake;

const SUBPROTOCOLS: [&str; 2] = ["json.v1", "proto.v1"];

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..)?.trim_ascii();
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
}

fuzz_target!(|data: &[u8]| {
    let mut lines = data;
    let first = choice(&mut lines);
    let method = if first & 0x10 == 0 { Method::GET } else { Method::POST };
    let version = match first & 0x03 {
        0 | 1 => Version::HTTP_11,
        2 => Version::HTTP_10,
        _ => Version::HTTP_2,
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.split(|byte| *byte == b'\n').take(50).filter_map(header) {
        headers.append(name, value);
    }

    let accept = match handshake::check(&method, version, &headers, &SUBPROTOCOLS) {
        Ok(accept) => accept,
        Err(error) => {
            assert!(error.status().is_client_error());
            return;
        }
    };
    assert_eq!((&method, version), (&Method::GET, Version::HTTP_11));
    for name in ["host", "sec-websocket-key", "sec-websocket-version"] {
        assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
    }
    assert_eq!(headers["sec-websocket-version"], "13");
    assert_eq!(headers["sec-websocket-key"].len(), 24);

    let head = accept.response_head(&[]);
    let mut lines = [httparse::EMPTY_HEADER; 8];
    let mut response = httparse::Response::new(&mut lines);
    assert_eq!(response.parse(&head), Ok(httparse::Status::Complete(head.len())));
    assert_eq!(response.code, Some(101));
    assert_eq!(response.headers.len(), 3 + usize::from(accept.subprotocol.is_some()));
    if let Some(chosen) = accept.subprotocol {
        let is_offered = headers
            .get_all("sec-websocket-protocol")
            .iter()
            .any(|line| line.to_str().is_ok_and(|line| line.contains(chosen)));
        assert!(is_offered && SUBPROTOCOLS.contains(&chosen), "{chosen}");
    }
});
