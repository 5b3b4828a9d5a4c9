//! What a client says: a frame on a WebSocket or the body of `POST /v1/messages`, parsed.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_vocab::{Channel, ErrorKind, Payload, Problem, compact_json};

/// Bytes of a client's own reference.
const REFERENCE_BYTES_LIMIT: usize = 128;

/// A message as the client wrote it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientMessage {
    /// The channel it is about; may be left out where the connection follows just one.
    pub(crate) channel: Option<Channel>,
    pub(crate) payload: Payload,
    /// The client's own reference, as JSON: comes back with the ack.
    pub(crate) reference: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw<'a> {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(default)]
    data_b64: Option<String>,
    #[serde(borrow, rename = "ref", default)]
    reference: Option<&'a RawValue>,
}

/// `null` is data too.
fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

/// A refusal, with the client's reference where it could be read.
pub(crate) type Refusal = (Option<String>, Problem);

/// Parses `{"data":…, "channel"?:…, "ref"?:…}`.
///
/// # Errors
/// Says what is wrong, with the reference to answer to.
pub(crate) fn parse(text: &[u8], bytes_limit: usize) -> Result<ClientMessage, Refusal> {
    if text.len() > bytes_limit {
        let detail = format!("the message is larger than {bytes_limit} bytes");
        return Err((None, Problem::new(ErrorKind::TooLarge, detail)));
    }
    let compact =
        compact_json(text).map_err(|error| (None, Problem::new(ErrorKind::BadJson, error.to_string())))?;
    let raw: Raw<'_> = serde_json::from_slice(&compact).map_err(|error| {
        (None, Problem::new(ErrorKind::BadRequest, format!("not a message object: {error}")))
    })?;
    let reference = raw.reference.map(|reference| reference.get().to_owned());
    if reference.as_ref().is_some_and(|reference| reference.len() > REFERENCE_BYTES_LIMIT) {
        return Err((None, Problem::new(ErrorKind::TooLarge, "ref is longer than 128 bytes")));
    }
    if raw.kind.as_deref().is_some_and(|kind| kind != "message") {
        return Err((reference, Problem::new(ErrorKind::BadRequest, "type is not `message`")));
    }
    let payload = match payload(&raw) {
        Ok(payload) => payload,
        Err(problem) => return Err((reference, problem)),
    };
    match raw.channel.as_deref().map(Channel::parse).transpose() {
        Ok(channel) => Ok(ClientMessage { channel, payload, reference }),
        Err(error) => Err((reference, Problem::new(ErrorKind::BadChannel, error.to_string()))),
    }
}

fn payload(raw: &Raw<'_>) -> Result<Payload, Problem> {
    use base64::Engine as _;
    match (raw.data, &raw.data_b64) {
        (Some(json), None) => Ok(Payload::Json(Bytes::copy_from_slice(json.get().as_bytes()))),
        (None, Some(text)) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map(|bytes| Payload::Binary(bytes.into()))
            .map_err(|_| Problem::new(ErrorKind::BadRequest, "data_b64 is not base64")),
        (None, None) => Err(Problem::new(ErrorKind::BadRequest, "data is missing")),
        (Some(_), Some(_)) => {
            Err(Problem::new(ErrorKind::BadRequest, "data and data_b64 exclude each other"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Channel, data and reference.
    type Shown<'a> = (Option<&'a str>, &'a [u8], Option<&'a str>);

    fn check(text: &str, expected: Result<Shown<'_>, ErrorKind>) {
        let got = parse(text.as_bytes(), 1000);
        let got = got
            .as_ref()
            .map(|m| {
                (m.channel.as_ref().map(Channel::as_str), m.payload.bytes().as_ref(), m.reference.as_deref())
            })
            .map_err(|(_, problem)| problem.kind);
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn messages() {
        check("{\"data\": {\"a\" : 1}}", Ok((None, b"{\"a\":1}", None)));
        check(
            "{\"type\":\"message\",\"channel\":\"a\",\"data\":null,\"ref\":7}",
            Ok((Some("a"), b"null", Some("7"))),
        );
        check("{\"data_b64\":\"AP8=\",\"ref\":\"x\"}", Ok((None, &[0, 255], Some("\"x\""))));
        check("{\"data\":\"\\u0000\"}", Ok((None, b"\"\\u0000\"", None)));
    }

    #[test]
    fn bad_messages() {
        for text in ["", "hello", "{\"data\":", "{\"data\":1}{\"data\":2}"] {
            check(text, Err(ErrorKind::BadJson));
        }
        for text in [
            "{}",
            "[]",
            "1",
            "{\"data\":1,\"data_b64\":\"\"}",
            "{\"data_b64\":\"!\"}",
            "{\"dat\":1}",
            "{\"type\":\"rpc\",\"data\":1}",
        ] {
            check(text, Err(ErrorKind::BadRequest));
        }
        check("{\"data\":1,\"channel\":\"a b\"}", Err(ErrorKind::BadChannel));
        check(&format!("{{\"data\":\"{}\"}}", "x".repeat(1000)), Err(ErrorKind::TooLarge));
        check(&format!("{{\"data\":1,\"ref\":\"{}\"}}", "x".repeat(200)), Err(ErrorKind::TooLarge));
        let (reference, _) = parse(b"{\"ref\":5}", 1000).expect_err("no data");
        assert_eq!(reference.as_deref(), Some("5"), "a refusal names what it refuses");
    }
}
