//! The shared key of the internal port: sent as a bearer token with every call, and compared in constant time.

use std::fmt;
use std::hint::black_box;

use tidegate_vocab::{ErrorKind, Problem};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};

use crate::problem;

const AUTHORIZATION: &str = "authorization";

/// The key that gateways, routers and registry members of one cluster share. Whoever has it may read every event, speak as any
/// client and say where users are: it belongs into a secret store, and the port into a private network. Not shown by `Debug`.
#[derive(Clone)]
pub struct Key(MetadataValue<Ascii>);

/// The text cannot be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key has at least 16 visible ASCII characters")]
pub struct KeyError;

impl Key {
    /// Takes a key of at least 16 visible ASCII characters.
    ///
    /// # Errors
    /// When it is shorter, or has another character.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.len() < 16 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError);
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {text}").parse().map_err(|_| KeyError)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The client's side: adds the key to every call.
#[derive(Debug, Clone)]
pub struct Bearer(pub Option<Key>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert(AUTHORIZATION, key.0.clone());
        }
        Ok(request)
    }
}

/// The server's side: refuses every call without the key, if there is one.
#[derive(Debug, Clone)]
pub struct Gate(pub Option<Key>);

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(key) = &self.0 else { return Ok(request) };
        let given = request.metadata().get(AUTHORIZATION);
        if given.is_some_and(|given| is_same(key.0.as_encoded_bytes(), given.as_encoded_bytes())) {
            return Ok(request);
        }
        let problem = Problem::new(ErrorKind::Unauthorized, "the cluster's key is missing or another one");
        Err(problem::status_with(Code::Unauthenticated, &problem))
    }
}

/// Compares in a time that depends on the lengths only.
fn is_same(key: &[u8], given: &[u8]) -> bool {
    if key.len() != given.len() {
        return false;
    }
    let differing = key.iter().zip(given).fold(0_u8, |bits, (one, other)| black_box(bits | (one ^ other)));
    black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens() {
        let parse = |text: &str| Key::parse(text).expect("a key");
        let key = parse("0123456789abcdef");
        let check = |given: Option<Key>, expected: bool| {
            let request = Bearer(given).call(Request::new(())).expect("adds");
            let admitted = Gate(Some(key.clone())).call(request);
            assert_eq!(
                admitted.err().map(|status| status.code()),
                (!expected).then_some(Code::Unauthenticated)
            );
        };
        check(Some(key.clone()), true);
        check(Some(parse("0123456789abcdeF")), false);
        check(Some(parse("0123456789abcdef0")), false);
        check(None, false);
        assert!(Gate(None).call(Request::new(())).is_ok());
        assert_eq!(format!("{key:?}"), "Key(…)");
        assert!(
            ["", "too short", "0123456789abcde\n", "0123456789 abcdef"]
                .iter()
                .all(|bad| Key::parse(bad).is_err())
        );
    }
}
