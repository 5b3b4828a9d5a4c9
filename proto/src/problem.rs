//! A problem as a failed internal call: its text, and its kind and pause in the metadata.

use tidegate_vocab::Problem;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The metadata with a word of the error reference.
pub const KIND: &str = "tidegate-error-kind";
/// The metadata with the milliseconds after which another try is worth it, where waiting helps.
pub const RETRY: &str = "tidegate-retry-ms";

/// A problem as a failed call, with the code of its kind.
#[must_use]
pub fn status(problem: &Problem) -> Status {
    status_with(Code::from_i32(problem.kind.grpc_code()), problem)
}

/// As [`status`], with another code.
#[must_use]
pub fn status_with(code: Code, problem: &Problem) -> Status {
    let mut status = Status::new(code, problem.detail.clone());
    status.metadata_mut().insert(KIND, MetadataValue::from_static(problem.kind.as_str()));
    if let Some(retry_ms) = problem.retry_ms {
        status.metadata_mut().insert(RETRY, retry_ms.into());
    }
    status
}
