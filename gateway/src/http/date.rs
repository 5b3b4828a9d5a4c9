//! `Date`, which every answer has that is ours (RFC 9110, section 6.6.1): written once a second and thread, not once an answer.
//!
//! hyper adds its own to what it answers; this one is for HTTP/2 and for what a shard answers. Two answers are without it: a
//! WebSocket's 101, which needs none, and the 431 that the h2 library sends of its own accord.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;

use crate::clock::unix_ms;

thread_local!(static WRITTEN: RefCell<Written> = const { RefCell::new(Written::NOTHING) });

/// The value for an answer that is made now.
pub(crate) fn date() -> HeaderValue {
    WRITTEN.with_borrow_mut(|written| written.at(unix_ms() / 1_000))
}

/// The last value, and the second since 1970 that it names.
struct Written {
    second: u64,
    value: HeaderValue,
}

impl Written {
    const NOTHING: Self = Self { second: 0, value: HeaderValue::from_static("") };

    fn at(&mut self, second: u64) -> HeaderValue {
        if self.second != second {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            if let Ok(value) = HeaderValue::try_from(text) {
                *self = Self { second, value };
            }
        }
        self.value.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_a_second() {
        let mut written = Written::NOTHING;
        let first = written.at(784_111_777);
        assert_eq!(first, "Sun, 06 Nov 1994 08:49:37 GMT", "the standard's own example");
        assert_eq!(written.at(784_111_777).as_bytes().as_ptr(), first.as_bytes().as_ptr(), "the same bytes");
        assert_eq!(written.at(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(written.at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT", "a clock that is set back");
    }

    #[test]
    fn it_is_now() {
        let before = unix_ms() / 1_000;
        let told = httpdate::parse_http_date(date().to_str().expect("text")).expect("a date");
        let told = told.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        assert!((before..=unix_ms() / 1_000).contains(&told), "{told}");
    }
}
