//! Whether a publish may be: names, sizes, keys, and JSON that is JSON.

use tidegate_vocab::{
    Channel, ErrorKind, EventName, EventNameError, JsonError, Payload, Problem, TraceContext, UserId,
    compact_json, limits,
};

use super::{Data, PublishRequest, Target};
use crate::record::EventDraft;

/// A checked publish. A target that is wrong stays in its place with what is wrong with it.
pub(super) struct Draft {
    pub(super) event: EventDraft,
    pub(super) targets: Vec<(Target, Result<Channel, Problem>)>,
    /// The key is the caller's own, so that the answer waits for the verdict.
    pub(super) own_key: bool,
    pub(super) ephemeral: bool,
    pub(super) trace: Option<TraceContext>,
}

impl Draft {
    /// Checks everything that can be checked without the log.
    pub(super) fn check(request: PublishRequest) -> Result<Self, Problem> {
        let PublishRequest { targets, event, data, idempotency_key, ttl_ms, ephemeral, trace } = request;
        check_target_count(targets.len())?;
        let name = event_name(event.as_deref())?;
        if ephemeral && (ttl_ms.is_some() || idempotency_key.is_some()) {
            let detail = "an ephemeral event is in no log: ttl and idempotency_key do not apply";
            return Err(Problem::new(ErrorKind::BadRequest, detail));
        }
        if ttl_ms == Some(0) {
            return Err(Problem::new(ErrorKind::BadRequest, "ttl must be more than zero"));
        }
        if let Some(key) = &idempotency_key {
            check_key(key)?;
        }
        let own_key = idempotency_key.is_some();
        let idempotency_key = idempotency_key.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
        let event =
            EventDraft { name, payload: payload(data)?, idempotency_key, ttl_ms: ttl_ms.unwrap_or(0) };
        let targets = targets
            .into_iter()
            .map(|target| {
                let channel = channel_of(&target);
                (target, channel)
            })
            .collect();
        Ok(Self { event, targets, own_key, ephemeral, trace })
    }
}

/// The limits of a batch as a whole.
pub(super) fn batch_size(items: &[Result<PublishRequest, Problem>]) -> Result<(), Problem> {
    if items.is_empty() {
        return Err(Problem::new(ErrorKind::BadRequest, "the batch has no items"));
    }
    let targets: usize = items.iter().flatten().map(|item| item.targets.len()).sum();
    if items.len() > limits::BATCH_ITEMS_LIMIT || targets > limits::BATCH_ITEMS_LIMIT {
        let detail = format!("a batch has at most {} items and targets in all", limits::BATCH_ITEMS_LIMIT);
        return Err(Problem::new(ErrorKind::TooMany, detail));
    }
    Ok(())
}

fn check_target_count(count: usize) -> Result<(), Problem> {
    if count == 0 {
        let detail = "no target: give channel, channels, user, users or everyone";
        return Err(Problem::new(ErrorKind::BadRequest, detail));
    }
    if count > limits::BATCH_ITEMS_LIMIT {
        let detail = format!("{count} targets are more than {}", limits::BATCH_ITEMS_LIMIT);
        return Err(Problem::new(ErrorKind::TooMany, detail));
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), Problem> {
    let detail = if key.is_empty() {
        "idempotency_key is empty: leave it out instead"
    } else if key.len() > limits::IDEMPOTENCY_KEY_BYTES_LIMIT {
        "idempotency_key is longer than 128 bytes"
    } else if key.chars().any(char::is_control) {
        "idempotency_key has a control character"
    } else {
        return Ok(());
    };
    Err(Problem::new(ErrorKind::BadRequest, detail))
}

/// An event's own name; `message` where none is given.
pub(crate) fn event_name(name: Option<&str>) -> Result<EventName, Problem> {
    let bad = |error: EventNameError| Problem::new(ErrorKind::BadEventName, error.to_string());
    name.map_or(Ok(EventName::MESSAGE), |name| EventName::parse(name).map_err(bad))
}

/// What an event carries, held to its limit; JSON without insignificant white space.
pub(crate) fn payload(data: Data) -> Result<Payload, Problem> {
    let too_large = |bytes: usize| {
        (bytes > limits::EVENT_BYTES_LIMIT).then(|| {
            let detail = format!("data has {bytes} bytes; the limit is {}", limits::EVENT_BYTES_LIMIT);
            Problem::new(ErrorKind::TooLarge, detail)
        })
    };
    match data {
        Data::Binary(bytes) => match too_large(bytes.len()) {
            Some(problem) => Err(problem),
            None => Ok(Payload::Binary(bytes)),
        },
        Data::Json(text) => {
            let compact = compact_json(&text).map_err(|error| bad_json(&error))?;
            match too_large(compact.len()) {
                Some(problem) => Err(problem),
                None => Ok(Payload::Json(compact)),
            }
        }
    }
}

fn bad_json(error: &JsonError) -> Problem {
    let detail = match error {
        JsonError::Syntax(syntax) => format!("data is not valid JSON: {syntax}"),
        other => format!("data: {other}"),
    };
    Problem::new(ErrorKind::BadJson, detail)
}

fn channel_of(target: &Target) -> Result<Channel, Problem> {
    let bad = |detail: String| Problem::new(ErrorKind::BadChannel, detail);
    match target {
        Target::Everyone => Ok(Channel::everyone()),
        Target::User(id) => {
            let user = UserId::parse(id).map_err(|error| bad(format!("user {id:?}: {error}")))?;
            Ok(Channel::of_user(&user))
        }
        Target::Channel(name) => {
            let channel = Channel::parse(name).map_err(|error| bad(format!("channel {name:?}: {error}")))?;
            // `user:` alone would be a user without an id, whom nobody can be.
            if channel.as_str() == "user:" {
                return Err(bad("channel \"user:\" names no user".into()));
            }
            Ok(channel)
        }
    }
}
