//! Whether what is addressed to users may be.

use std::collections::HashSet;

use tidegate_vocab::{ErrorKind, EventName, Payload, Problem, TraceContext, UserId, limits};

use crate::publish::{PublishRequest, Target, check_payload, event_name};

/// A checked direct message.
pub(super) struct Draft {
    pub(super) users: Vec<UserId>,
    pub(super) name: EventName,
    pub(super) payload: Payload,
    pub(super) trace: Option<TraceContext>,
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::BadRequest, detail)
}

pub(crate) fn parse_user(id: &str) -> Result<UserId, Problem> {
    UserId::parse(id).map_err(|error| bad(format!("user {id:?}: {error}")))
}

/// Users only, each once, and nothing that only a log can keep.
pub(super) fn direct(request: PublishRequest) -> Result<Draft, Problem> {
    let PublishRequest { targets, event, data, idempotency_key, ttl_ms, ephemeral: _, trace } = request;
    if ttl_ms.is_some() || idempotency_key.is_some() {
        return Err(bad("a direct message is in no log: ttl and idempotency_key do not apply"));
    }
    if targets.is_empty() {
        return Err(bad("no user: give user or users"));
    }
    if targets.len() > limits::BATCH_ITEMS_LIMIT {
        let detail = format!("{} users are more than {}", targets.len(), limits::BATCH_ITEMS_LIMIT);
        return Err(Problem::new(ErrorKind::TooMany, detail));
    }
    let (mut users, mut seen) = (Vec::with_capacity(targets.len()), HashSet::with_capacity(targets.len()));
    for target in targets {
        let Target::User(id) = target else {
            return Err(bad("a direct message goes to users: publish to channels with POST /v1/publish"));
        };
        let user = parse_user(&id)?;
        if seen.insert(user.clone()) {
            users.push(user);
        }
    }
    Ok(Draft { users, name: event_name(event.as_deref())?, payload: check_payload(data)?, trace })
}

/// What clients are told: one short line.
pub(super) fn reason(reason: &str) -> Result<String, Problem> {
    if reason.len() > limits::DISCONNECT_REASON_BYTES_LIMIT {
        let detail = format!("reason has more than {} bytes", limits::DISCONNECT_REASON_BYTES_LIMIT);
        return Err(Problem::new(ErrorKind::TooLarge, detail));
    }
    if reason.chars().any(char::is_control) {
        return Err(bad("reason has a control character"));
    }
    Ok(if reason.is_empty() { "disconnected by the backend".to_owned() } else { reason.to_owned() })
}
