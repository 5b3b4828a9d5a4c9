//! What the commands that call a router's API port have in common.

use std::time::Duration;

use clap::Args;
use tidegate_vocab::ErrorKind;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::cli::Failure;

/// Time for the connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one answer: the router answers `indeterminate` well before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct ApiArgs {
    /// The API port of a router
    #[arg(long, value_name = "URL", env = "TIDEGATE_API", default_value = "http://127.0.0.1:8001")]
    api: String,
    /// An API key, where the server asks for one
    #[arg(long, value_name = "KEY", env = "TIDEGATE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

impl ApiArgs {
    /// Connects.
    pub(super) async fn connect(&self) -> Result<Channel, Failure> {
        let api = &self.api;
        if !api.starts_with("http://") {
            return Err(Failure::usage(format!(
                "--api {api}: write http://HOST:PORT (TLS is not built in yet)"
            )));
        }
        let endpoint = Endpoint::from_shared(api.to_owned())
            .map_err(|_| Failure::usage(format!("--api {api}: write http://HOST:PORT")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT);
        endpoint.connect().await.map_err(|_| {
            Failure::not_now(format!(
                "nothing answers at {api}: is `tidegate dev` running? Name another with --api"
            ))
        })
    }

    /// A request with the key.
    pub(super) fn request<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        if let Some(value) = authorization(self.api_key.as_deref())? {
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

fn authorization(api_key: Option<&str>) -> Result<Option<MetadataValue<Ascii>>, Failure> {
    let Some(key) = api_key else { return Ok(None) };
    let mut value: MetadataValue<Ascii> = format!("Bearer {key}")
        .parse()
        .map_err(|_| Failure::usage("--api-key has characters that a header cannot have"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// A call that failed, as the command's end.
pub(super) fn refusal(status: &Status) -> Failure {
    // The router's messages begin with the error kind; others say what the code means.
    let text = match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    };
    match status.code() {
        Code::Unauthenticated => Failure::refused(format!("{text}; pass --api-key or set TIDEGATE_API_KEY")),
        code if ErrorKind::ALL.iter().any(|kind| kind.is_retryable() && kind.grpc_code() == code as i32) => {
            Failure::not_now(text)
        }
        _ => Failure::refused(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_tell_whether_a_retry_helps() {
        assert_eq!(refusal(&Status::invalid_argument("bad_channel")).code, 1);
        assert_eq!(refusal(&Status::unavailable("log_unavailable")).code, 3);
        assert_eq!(refusal(&Status::deadline_exceeded("indeterminate")).code, 3);
        assert!(refusal(&Status::unauthenticated("no key")).text.contains("--api-key"));
    }
}
