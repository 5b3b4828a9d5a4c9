//! The reading side of chunked bodies, for tests and load: the server itself never reads one here.

use crate::limits::{CHUNK_LINE_BYTES_LIMIT, CHUNK_TRAILERS_LIMIT};

/// A body that is not chunked as RFC 9112, section 7.1, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A chunk's size is not hexadecimal, or does not fit 64 bits.
    #[error("chunk size is not a number")]
    Size,
    /// A line does not end with CR LF, or a chunk's data is not followed by it.
    #[error("line end is missing")]
    LineEnd,
    /// A size line or a trailer line is too long.
    #[error("line is too long")]
    LineTooLong,
    /// There are too many trailer lines.
    #[error("too many trailers")]
    TooManyTrailers,
}

/// Takes the chunks' framing off, however the bytes are split.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// The incomplete line.
    line: Vec<u8>,
    trailers: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Data {
        missing: u64,
    },
    DataEnd,
    Trailer,
    Finished,
    Failed(ChunkError),
}

impl Decoder {
    /// A decoder at the start of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the last chunk and its trailers have been read.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Appends the data in `input` to `out` and returns how many bytes of `input` belong to the body: all of them,
    /// unless it ended.
    ///
    /// # Errors
    /// Framing that is not valid; what came before it is in `out`. Stays failed.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, ChunkError> {
        let mut rest = input;
        while !rest.is_empty() && !self.is_finished() {
            rest = match self.step(rest, out) {
                Ok(rest) => rest,
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            };
        }
        Ok(input.len() - rest.len())
    }

    /// Reads the data there is of a chunk, or one line.
    fn step<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ChunkError> {
        match self.state {
            State::Failed(error) => return Err(error),
            State::Finished => return Ok(input),
            State::Data { missing } => {
                let taken = usize::try_from(missing).unwrap_or(usize::MAX).min(input.len());
                let (data, rest) = input.split_at(taken);
                out.extend_from_slice(data);
                let missing = missing - taken as u64;
                self.state = if missing == 0 { State::DataEnd } else { State::Data { missing } };
                return Ok(rest);
            }
            State::Size | State::DataEnd | State::Trailer => {}
        }
        let (line, rest) = match memchr::memchr(b'\n', input) {
            Some(end) => input.split_at(end + 1),
            None => (input, &[][..]),
        };
        let line_limit = if self.state == State::DataEnd { 2 } else { CHUNK_LINE_BYTES_LIMIT };
        if self.line.len() + line.len() > line_limit {
            return Err(if self.state == State::DataEnd {
                ChunkError::LineEnd
            } else {
                ChunkError::LineTooLong
            });
        }
        self.line.extend_from_slice(line);
        if self.line.ends_with(b"\n") {
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r\n").ok_or(ChunkError::LineEnd)?;
            self.state = self.take_line(line)?;
        }
        Ok(rest)
    }

    /// What follows a whole line.
    fn take_line(&mut self, line: &[u8]) -> Result<State, ChunkError> {
        match self.state {
            State::Size => match parse_size(line)? {
                0 => Ok(State::Trailer),
                missing => Ok(State::Data { missing }),
            },
            State::DataEnd if line.is_empty() => Ok(State::Size),
            State::DataEnd => Err(ChunkError::LineEnd),
            State::Trailer if line.is_empty() => Ok(State::Finished),
            State::Trailer if self.trailers == CHUNK_TRAILERS_LIMIT => Err(ChunkError::TooManyTrailers),
            State::Trailer => {
                self.trailers += 1;
                Ok(State::Trailer)
            }
            state @ (State::Data { .. } | State::Finished | State::Failed(_)) => Ok(state),
        }
    }
}

/// The size in a size line, without its extensions.
fn parse_size(line: &[u8]) -> Result<u64, ChunkError> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || digits.len() > 16 {
        return Err(ChunkError::Size);
    }
    digits.iter().try_fold(0u64, |size, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or(ChunkError::Size)?;
        Ok(size << 4 | u64::from(digit))
    })
}
