//! What an event of a comparison carries: when it was due, and its number. Any system passes it on as it is.

/// Begins a mark. It occurs neither in what a server puts around an event nor in a cursor.
const BEGIN: u8 = b'~';
/// Digits of the time, and behind them of the number.
const DUE_DIGITS: usize = 16;
const SEQ_DIGITS: usize = 8;
/// Bytes of a mark: the least that an event has.
pub(crate) const MARK_BYTES: usize = 1 + DUE_DIGITS + SEQ_DIGITS;

/// What is known of an event from its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// When it was meant to be sent, on the shared clock.
    pub(crate) due_us: u64,
    /// Its number, from 0.
    pub(crate) seq: u64,
}

impl Mark {
    /// The data of this event, so many bytes long.
    pub(crate) fn data(self, bytes: usize) -> String {
        let Self { due_us, seq } = self;
        let padding = "x".repeat(bytes.saturating_sub(MARK_BYTES));
        format!("{}{due_us:0DUE_DIGITS$}{seq:0SEQ_DIGITS$}{padding}", char::from(BEGIN))
    }

    /// Finds the mark in a frame. `hint` is where the last one was, which is where this one is too, as a rule.
    pub(crate) fn find(payload: &[u8], hint: &mut usize) -> Option<Self> {
        if payload.get(*hint) != Some(&BEGIN) {
            *hint = payload.iter().position(|byte| *byte == BEGIN)?;
        }
        let (due, rest) = payload.get(*hint + 1..)?.split_at_checked(DUE_DIGITS)?;
        Some(Self { due_us: number(due)?, seq: number(rest.get(..SEQ_DIGITS)?)? })
    }
    /// Calls `on` with every mark there is: a poll's answer holds several events.
    pub(crate) fn find_all(mut bytes: &[u8], mut on: impl FnMut(Self)) {
        while let Some(at) = bytes.iter().position(|byte| *byte == BEGIN) {
            bytes = &bytes[at..];
            if let Some(mark) = Self::find(bytes, &mut 0) {
                on(mark);
            }
            bytes = &bytes[1..];
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |sum: u64, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_wherever_it_stands() {
        let mark = Mark { due_us: 1_234_567_890_123, seq: 42 };
        let data = mark.data(100);
        assert_eq!(data.len(), 100);
        let mut hint = 0;
        for around in ["", "{\"type\":\"event\",\"data\":\"", "x"] {
            let payload = format!("{around}{data}\"}}");
            assert_eq!(Mark::find(payload.as_bytes(), &mut hint), Some(mark));
        }
        assert_eq!(mark.data(0).len(), MARK_BYTES);
        let (next, mut found) = (Mark { seq: 43, ..mark }, Vec::new());
        Mark::find_all(format!("{data},~{}", next.data(30)).as_bytes(), |mark| found.push(mark));
        assert_eq!(found, [mark, next]);
    }

    #[test]
    fn what_has_no_mark_or_a_broken_one_is_no_event() {
        for payload in ["", "{\"type\":\"state\"}", "~12", "~000000000000000100000x42", "~"] {
            assert_eq!(Mark::find(payload.as_bytes(), &mut 7), None, "{payload}");
        }
    }
}
