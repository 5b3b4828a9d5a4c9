//! Properties over generated streams.

use super::*;
use proptest::prelude::*;

/// What a client means to say.
#[derive(Debug, Clone)]
enum Said {
    Text(Vec<String>),
    Binary(Vec<Vec<u8>>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn said() -> impl Strategy<Value = Said> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    prop_oneof![
        prop::collection::vec(any::<String>(), 1..4).prop_map(Said::Text),
        prop::collection::vec(bytes(300), 1..4).prop_map(Said::Binary),
        bytes(126).prop_map(Said::Ping),
        bytes(126).prop_map(Said::Pong),
    ]
}

/// The client's frames, masked with `key`, and what the server must hear.
fn encode_all(all: &[Said], key: [u8; 4]) -> (Vec<u8>, Vec<String>) {
    let mut out = Vec::new();
    let mut heard = Vec::new();
    let message = |opcode, parts: Vec<&[u8]>, out: &mut Vec<u8>| {
        for (i, payload) in parts.iter().enumerate() {
            let opcode = if i == 0 { opcode } else { Continuation };
            super::super::client::encode_into(i + 1 == parts.len(), opcode, payload, key, out);
        }
    };
    for said in all {
        match said {
            Said::Text(parts) => {
                message(Text, parts.iter().map(String::as_bytes).collect(), &mut out);
                heard.push(format!("{:?}", Incoming::Text(&parts.concat())));
            }
            Said::Binary(parts) => {
                message(Binary, parts.iter().map(Vec::as_slice).collect(), &mut out);
                heard.push(format!("{:?}", Incoming::Binary(&parts.concat())));
            }
            Said::Ping(payload) => {
                message(Ping, vec![payload], &mut out);
                heard.push(format!("{:?}", Incoming::Ping(payload)));
            }
            Said::Pong(payload) => {
                message(Pong, vec![payload], &mut out);
                heard.push(format!("{:?}", Incoming::Pong(payload)));
            }
        }
    }
    (out, heard)
}

/// Feeds `bytes` cut at these places.
fn run_cut(
    bytes: &[u8],
    cuts: &[prop::sample::Index],
    limits: &DecoderLimits,
) -> (Vec<String>, Result<(), Violation>) {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    for place in places.windows(2) {
        let mut piece = bytes[place[0]..place[1]].to_vec();
        let fed = decoder.feed(&mut piece, limits, &mut |incoming| seen.push(format!("{incoming:?}")));
        if fed.is_err() {
            return (seen, fed);
        }
    }
    (seen, Ok(()))
}

proptest! {
    /// What was said is heard, whatever the mask and the pieces.
    #[test]
    fn said_is_heard(
        all in prop::collection::vec(said(), 0..6),
        key: [u8; 4],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let (bytes, heard) = encode_all(&all, key);
        prop_assert_eq!(run_cut(&bytes, &cuts, &DecoderLimits::default()), (heard, Ok(())));
    }

    /// Any bytes at all: no panic, and the pieces do not matter. Bytes that look like heads are likelier than chance.
    #[test]
    fn pieces_do_not_matter(
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(0x81), Just(0x80), Just(0x01), Just(0x00), Just(0x89), Just(0x88), Just(0x84)],
            0..200,
        ),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let (seen, outcome, _) = run(&bytes, bytes.len().max(1), &LIMITS);
        prop_assert_eq!(run_cut(&bytes, &cuts, &LIMITS), (seen, outcome));
    }

    /// A server's frame is a client's frame without its mask: masked, it reads back.
    #[test]
    fn server_frames_have_the_right_head(payload in prop::collection::vec(any::<u8>(), 0..1000), key: [u8; 4]) {
        let server = frame::binary(&payload);
        let client = encode(true, Binary, &payload, key);
        let head_len = server.len() - payload.len();
        prop_assert_eq!(server[0], client[0]);
        prop_assert_eq!(server[1] | 0x80, client[1]);
        prop_assert_eq!(&server[2..head_len], &client[2..head_len]);
        prop_assert_eq!(client.len(), server.len() + 4);
    }
}
