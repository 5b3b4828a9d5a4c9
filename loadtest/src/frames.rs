//! WebSocket frames as a receiver of a load counts them: as cheap as can be, since it shares the machine with the server.
//!
//! Most reads hold whole frames, which are looked at where they lie. Only what a read has cut off is copied, so that an idle
//! connection owns no buffer. Extensions, fragments and masks do not occur from these servers; a mask is an error.

use std::fmt;

/// Longest frame that is believed: what a peer declares reserves nothing beyond it.
const FRAME_BYTES_LIMIT: u64 = 1 << 20;

/// The server says something; all else counts as nothing.
pub(crate) const TEXT: u8 = 1;
/// As [`TEXT`], of bytes.
pub(crate) const BINARY: u8 = 2;
/// The server ends the connection.
pub(crate) const CLOSE: u8 = 8;
/// The server wants a pong with the same content.
pub(crate) const PING: u8 = 9;

/// What came is no WebSocket frame of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAFrame;

impl fmt::Display for NotAFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "what came is no WebSocket frame of a server: masked, or longer than {FRAME_BYTES_LIMIT} bytes"
        )
    }
}

impl std::error::Error for NotAFrame {}

/// The reading side of one connection.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The beginning of a frame of which more is to come.
    cut_off: Vec<u8>,
}

impl Frames {
    /// Takes what was read; calls `on` with the opcode and the payload of every frame that is whole now.
    ///
    /// # Errors
    /// When it is no frame: nothing more can be read from this connection then.
    pub(crate) fn feed(&mut self, read: &[u8], mut on: impl FnMut(u8, &[u8])) -> Result<(), NotAFrame> {
        if self.cut_off.is_empty() {
            let used = whole_frames(read, &mut on)?;
            self.cut_off.extend_from_slice(&read[used..]);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.cut_off);
        joined.extend_from_slice(read);
        let used = whole_frames(&joined, &mut on)?;
        if used < joined.len() {
            joined.drain(..used);
            self.cut_off = joined;
        }
        Ok(())
    }
}

/// How many bytes the whole frames at the front take.
fn whole_frames(bytes: &[u8], on: &mut impl FnMut(u8, &[u8])) -> Result<usize, NotAFrame> {
    let mut used = 0;
    while let Some((opcode, head, length)) = head_of(&bytes[used..])? {
        let Some(payload) = bytes.get(used + head..used + head + length) else { break };
        on(opcode, payload);
        used += head + length;
    }
    Ok(used)
}

/// Opcode, length of the head and of the payload; nothing if the head is not all there.
fn head_of(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, NotAFrame> {
    let (head, length) = match *bytes {
        [_, short @ 0..=125, ..] => (2, u64::from(short)),
        [_, 126, high, low, ..] => (4, u64::from(u16::from_be_bytes([high, low]))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        [_, 128..=255, ..] => return Err(NotAFrame),
        _ => return Ok(None),
    };
    if length > FRAME_BYTES_LIMIT {
        return Err(NotAFrame);
    }
    Ok(Some((bytes[0] & 0x0F, head, length as usize)))
}

/// A whole text frame of a server, as the floor sends it.
#[must_use]
pub(crate) fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | TEXT];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => frame.push(short),
        (_, Ok(middle)) => {
            frame.push(126);
            frame.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// A client's answer to a ping. The mask is four zeros: content that is masked with nothing.
#[must_use]
pub(crate) fn pong(ping: &[u8]) -> Vec<u8> {
    let content = &ping[..ping.len().min(125)];
    let mut frame = vec![0x8A, 0x80 | content.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(content);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> (Vec<u8>, Vec<(u8, usize)>) {
        let sizes = [0, 1, 125, 126, 300, 65_535, 65_536, 100];
        let bytes = sizes
            .iter()
            .flat_map(|size| text_frame(&vec![b'x'; *size]))
            .chain([0x89, 2, b'h', b'i'])
            .collect();
        let expected = sizes.iter().map(|size| (TEXT, *size)).chain([(PING, 2)]).collect();
        (bytes, expected)
    }

    #[test]
    fn frames_are_the_same_however_reads_cut_them() {
        let (bytes, expected) = sent();
        for step in [1, 2, 3, 7, 126, 4_096, 65_540, bytes.len()] {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for read in bytes.chunks(step) {
                frames.feed(read, |opcode, payload| found.push((opcode, payload.len()))).unwrap();
            }
            assert_eq!(found, expected, "{step} bytes at a time");
            assert_eq!(frames.cut_off.capacity(), 0, "an idle connection owns no buffer");
        }
    }

    #[test]
    fn what_is_no_frame_reserves_nothing() {
        let huge = [0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0];
        for bytes in [&huge[..], &[0x81, 0x85, 0, 0, 0, 0]] {
            assert_eq!(Frames::default().feed(bytes, |_, _| ()), Err(NotAFrame));
        }
    }

    #[test]
    fn a_pong_is_masked_and_says_what_the_ping_said() {
        assert_eq!(pong(b"hi"), [0x8A, 0x82, 0, 0, 0, 0, b'h', b'i']);
    }
}
