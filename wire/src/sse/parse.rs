//! The reading side of event streams, as a browser reads them, but with everything shown: comments, and blocks without
//! data, which raise no event. For tests and load.

use crate::limits::SSE_BLOCK_BYTES_LIMIT;

/// What a stream is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A block with at least one field.
    Block(ParsedBlock),
    /// A comment's text, without the colon and one space.
    Comment(String),
}

/// The fields of a block as they were given; the last one counts, and data lines are joined with LF.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParsedBlock {
    /// The event's name; without one, or with an empty one, it is `message`.
    pub event: Option<String>,
    /// The new last event id.
    pub id: Option<String>,
    /// The new reconnection time, in milliseconds.
    pub retry_ms: Option<u64>,
    /// The data. Without it the block raises no event.
    pub data: Option<String>,
}

/// A line or the data of one block is over [`SSE_BLOCK_BYTES_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event stream block is too long")]
pub struct BlockTooLong;

/// Reads an event stream in whatever pieces it comes. A block without its empty line at the end is not an item.
#[derive(Debug, Default)]
pub struct Parser {
    /// The incomplete line.
    line: Vec<u8>,
    block: ParsedBlock,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line, which may start with a byte order mark, has been read.
    past_first_line: bool,
}

impl Parser {
    /// A parser at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and calls `on` for every comment and block they complete.
    ///
    /// # Errors
    /// [`BlockTooLong`]; the parser is of no use afterwards.
    pub fn feed(&mut self, input: &[u8], on: &mut dyn FnMut(Item)) -> Result<(), BlockTooLong> {
        let mut rest = input;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', rest);
            let (line, tail) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + line.len() > SSE_BLOCK_BYTES_LIMIT {
                return Err(BlockTooLong);
            }
            let Some((&line_end, tail)) = tail.split_first() else {
                self.line.extend_from_slice(line);
                return Ok(());
            };
            self.after_cr = line_end == b'\r';
            let mut kept = std::mem::take(&mut self.line);
            if kept.is_empty() {
                self.take_line(line, on)?;
            } else {
                kept.extend_from_slice(line);
                self.take_line(&kept, on)?;
            }
            rest = tail;
        }
        Ok(())
    }

    /// Handles a whole line.
    fn take_line(&mut self, mut bytes: &[u8], on: &mut dyn FnMut(Item)) -> Result<(), BlockTooLong> {
        if !std::mem::replace(&mut self.past_first_line, true) {
            bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        }
        // A line end is ASCII, so decoding line by line replaces what decoding the whole stream would.
        let text = String::from_utf8_lossy(bytes);
        if text.is_empty() {
            let block = std::mem::take(&mut self.block);
            if block != ParsedBlock::default() {
                on(Item::Block(block));
            }
            return Ok(());
        }
        let (name, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        if name.is_empty() && text.starts_with(':') {
            on(Item::Comment(value.to_owned()));
            return Ok(());
        }
        self.take_field(name, value)
    }

    /// Handles one field; those without a meaning are ignored.
    fn take_field(&mut self, name: &str, value: &str) -> Result<(), BlockTooLong> {
        match name {
            "event" => self.block.event = Some(value.to_owned()),
            "id" if !value.contains('\0') => self.block.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.block.retry_ms = Some(value.parse().unwrap_or(u64::MAX));
            }
            "data" => match &mut self.block.data {
                Some(data) if data.len() + value.len() > SSE_BLOCK_BYTES_LIMIT => return Err(BlockTooLong),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.block.data = Some(value.to_owned()),
            },
            _ => {}
        }
        Ok(())
    }
}
