//! The Reach stream's messages, and back. What is not of its form ends the stream: nothing is guessed.

use tidegate_link::{
    Held, NodeAnswer, NodeAsk, NodeHello, NodeSays, NodeStatus, OccupantsPage, Reached, RouterSays,
};
use tidegate_proto::deliver::v1::{self as wire, node_answer, node_ask, node_says, router_says};
use tidegate_proto::frames::{FrameError, event_from_wire, event_to_wire};
use tidegate_vocab::{Channel, Incarnation, Problem, UserId, limits};

use super::{problem_from_wire, problem_to_wire};

fn incarnation_from_wire(bytes: &[u8]) -> Result<Incarnation, FrameError> {
    Incarnation::from_bytes(bytes).ok_or(FrameError::Bad("incarnation"))
}

fn user(id: &str) -> Result<UserId, FrameError> {
    UserId::parse(id).map_err(|_| FrameError::Bad("user"))
}

fn channel(name: &str) -> Result<Channel, FrameError> {
    Channel::parse(name).map_err(|_| FrameError::Bad("channel"))
}

pub(crate) fn node_hello_to_wire(hello: &NodeHello) -> wire::NodeSays {
    let hello = wire::NodeHello {
        incarnation: hello.incarnation.to_bytes().to_vec().into(),
        name: hello.name.clone(),
        version: hello.version.clone(),
    };
    wire::NodeSays { says: Some(node_says::Says::Hello(hello)) }
}

pub(crate) fn node_hello_from_wire(says: Option<wire::NodeSays>) -> Result<NodeHello, FrameError> {
    let Some(node_says::Says::Hello(hello)) = says.and_then(|says| says.says) else {
        return Err(FrameError::Missing("its hello"));
    };
    let is_name = |text: &str| {
        text.len() <= limits::NODE_NAME_BYTES_LIMIT && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
    };
    if !is_name(&hello.name) || !is_name(&hello.version) {
        return Err(FrameError::Bad("name"));
    }
    Ok(NodeHello {
        incarnation: incarnation_from_wire(&hello.incarnation)?,
        name: hello.name,
        version: hello.version,
    })
}

pub(crate) fn node_says_to_wire(says: NodeSays) -> wire::NodeSays {
    let says = match says {
        NodeSays::Word(word) => {
            let member = |(member, digest): (Incarnation, u64)| wire::CurrentMember {
                incarnation: member.to_bytes().to_vec().into(),
                digest,
            };
            node_says::Says::Word(wire::NodeWord { members: word.into_iter().map(member).collect() })
        }
        NodeSays::Status(status) => node_says::Says::Status(wire::NodeStatus {
            connections: status.connections,
            connections_limit: status.connections_limit,
            is_draining: status.is_draining,
        }),
        NodeSays::Answer { number, answer } => {
            node_says::Says::Answer(wire::NodeAnswer { number, answer: Some(answer_to_wire(answer)) })
        }
    };
    wire::NodeSays { says: Some(says) }
}

pub(crate) fn node_says_from_wire(says: wire::NodeSays) -> Result<NodeSays, FrameError> {
    Ok(match says.says.ok_or(FrameError::Missing("what it says"))? {
        node_says::Says::Hello(_) => return Err(FrameError::Bad("second hello")),
        node_says::Says::Word(word) => {
            let member = |member: wire::CurrentMember| {
                Ok((incarnation_from_wire(&member.incarnation)?, member.digest))
            };
            NodeSays::Word(word.members.into_iter().map(member).collect::<Result<_, FrameError>>()?)
        }
        node_says::Says::Status(status) => NodeSays::Status(NodeStatus {
            connections: status.connections,
            connections_limit: status.connections_limit,
            is_draining: status.is_draining,
        }),
        node_says::Says::Answer(answer) => NodeSays::Answer {
            number: answer.number,
            answer: answer_from_wire(answer.answer.ok_or(FrameError::Missing("its answer"))?)?,
        },
    })
}

fn held_to_wire(held: Held) -> wire::Held {
    wire::Held {
        connections: held.connections,
        transports: u32::from(held.transports),
        since_s: held.since_s,
    }
}

fn held_from_wire(held: wire::Held) -> Result<Held, FrameError> {
    let transports = u8::try_from(held.transports).map_err(|_| FrameError::Bad("transports"))?;
    Ok(Held { connections: held.connections, transports, since_s: held.since_s })
}

fn answer_to_wire(answer: Result<NodeAnswer, Problem>) -> node_answer::Answer {
    match answer {
        Ok(NodeAnswer::Direct(Reached { accepted, written })) => {
            node_answer::Answer::Direct(wire::Reached { accepted, written })
        }
        Ok(NodeAnswer::Disconnected(count)) => node_answer::Answer::Disconnected(count),
        Ok(NodeAnswer::Holding(held)) => {
            node_answer::Answer::Holding(wire::Holding { held: held.map(held_to_wire) })
        }
        Ok(NodeAnswer::Occupants(page)) => {
            let occupant = |(user, held): (UserId, Held)| wire::Occupant {
                user: user.to_string(),
                held: Some(held_to_wire(held)),
            };
            node_answer::Answer::Occupants(wire::OccupantsPage {
                connections: page.connections,
                anonymous: page.anonymous,
                users: page.users.into_iter().map(occupant).collect(),
                has_more: page.has_more,
            })
        }
        Ok(NodeAnswer::Draining) => node_answer::Answer::Draining(true),
        Err(problem) => node_answer::Answer::Problem(problem_to_wire(problem)),
    }
}

fn answer_from_wire(answer: node_answer::Answer) -> Result<Result<NodeAnswer, Problem>, FrameError> {
    Ok(Ok(match answer {
        node_answer::Answer::Direct(wire::Reached { accepted, written }) => {
            NodeAnswer::Direct(Reached { accepted, written })
        }
        node_answer::Answer::Disconnected(count) => NodeAnswer::Disconnected(count),
        node_answer::Answer::Holding(holding) => {
            NodeAnswer::Holding(holding.held.map(held_from_wire).transpose()?)
        }
        node_answer::Answer::Occupants(page) => {
            if page.users.len() > limits::OCCUPANTS_LIMIT {
                return Err(FrameError::Bad("number of occupants"));
            }
            let occupant = |occupant: wire::Occupant| {
                let held = held_from_wire(occupant.held.ok_or(FrameError::Missing("what is held"))?)?;
                Ok((user(&occupant.user)?, held))
            };
            NodeAnswer::Occupants(OccupantsPage {
                connections: page.connections,
                anonymous: page.anonymous,
                users: page.users.into_iter().map(occupant).collect::<Result<_, FrameError>>()?,
                has_more: page.has_more,
            })
        }
        node_answer::Answer::Draining(_) => NodeAnswer::Draining,
        node_answer::Answer::Problem(problem) => return Ok(Err(problem_from_wire(problem))),
    }))
}

pub(crate) fn router_says_to_wire(says: RouterSays) -> wire::RouterSays {
    let says = match says {
        RouterSays::Ring(digest) => router_says::Says::Ring(digest),
        RouterSays::Ask { number, ask } => {
            let ask = match ask {
                NodeAsk::Direct(event) => node_ask::Ask::Direct(event_to_wire(event)),
                NodeAsk::Disconnect { user, reason } => {
                    node_ask::Ask::Disconnect(wire::Disconnect { user: user.to_string(), reason })
                }
                NodeAsk::Holding(subject) => node_ask::Ask::Holding(subject.to_string()),
                NodeAsk::Occupants { channel, after, limit } => {
                    node_ask::Ask::Occupants(wire::AskOccupants {
                        channel: channel.to_string(),
                        after: after.map(|user| user.to_string()).unwrap_or_default(),
                        limit: u32::try_from(limit).unwrap_or(u32::MAX),
                    })
                }
                NodeAsk::Drain => node_ask::Ask::Drain(true),
            };
            router_says::Says::Ask(wire::NodeAsk { number, ask: Some(ask) })
        }
    };
    wire::RouterSays { says: Some(says) }
}

pub(crate) fn router_says_from_wire(says: wire::RouterSays) -> Result<RouterSays, FrameError> {
    let asked = match says.says.ok_or(FrameError::Missing("what it says"))? {
        router_says::Says::Ring(digest) => return Ok(RouterSays::Ring(digest)),
        router_says::Says::Ask(asked) => asked,
    };
    let ask = match asked.ask.ok_or(FrameError::Missing("its question"))? {
        node_ask::Ask::Direct(event) => {
            let event = event_from_wire(event)?;
            if event.offset.is_some() || !event.channel.is_user() {
                return Err(FrameError::Bad("direct message"));
            }
            NodeAsk::Direct(event)
        }
        node_ask::Ask::Disconnect(asked) => {
            if asked.reason.len() > limits::DISCONNECT_REASON_BYTES_LIMIT {
                return Err(FrameError::Bad("reason"));
            }
            NodeAsk::Disconnect { user: user(&asked.user)?, reason: asked.reason }
        }
        node_ask::Ask::Holding(subject) => NodeAsk::Holding(channel(&subject)?),
        node_ask::Ask::Occupants(asked) => {
            let limit = asked.limit as usize;
            if limit == 0 || limit > limits::OCCUPANTS_LIMIT {
                return Err(FrameError::Bad("limit"));
            }
            NodeAsk::Occupants {
                channel: channel(&asked.channel)?,
                after: if asked.after.is_empty() { None } else { Some(user(&asked.after)?) },
                limit,
            }
        }
        node_ask::Ask::Drain(_) => NodeAsk::Drain,
    };
    Ok(RouterSays::Ask { number: asked.number, ask })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::bytes::Bytes;
    use tidegate_vocab::{ErrorKind, Event, EventName, Offset, Payload};

    use super::*;

    fn alice() -> UserId {
        user("alice").expect("valid")
    }

    fn event(channel: &Channel, offset: Option<Offset>) -> Arc<Event> {
        Arc::new(Event {
            channel: channel.clone(),
            name: EventName::parse("hi").expect("valid"),
            payload: Payload::Json(Bytes::from_static(b"1")),
            time_ms: 7,
            offset,
            expires_ms: None,
            trace: None,
        })
    }

    #[test]
    fn what_both_say_comes_back_as_it_was() {
        let held = Held { connections: 3, transports: 5, since_s: 17 };
        let page =
            OccupantsPage { connections: 9, anonymous: 2, users: vec![(alice(), held)], has_more: true };
        let problem = Problem::new(ErrorKind::Overloaded, "no").retry_after_ms(5);
        let answers = [
            Ok(NodeAnswer::Direct(Reached { accepted: 2, written: 1 })),
            Ok(NodeAnswer::Disconnected(4)),
            Ok(NodeAnswer::Holding(None)),
            Ok(NodeAnswer::Holding(Some(held))),
            Ok(NodeAnswer::Occupants(page)),
            Ok(NodeAnswer::Draining),
            Err(problem),
        ];
        let said = answers.into_iter().map(|answer| NodeSays::Answer { number: 8, answer });
        let status = NodeStatus { connections: 1, connections_limit: 2, is_draining: true };
        for says in said.chain([NodeSays::Word(vec![(Incarnation(7), 9)]), NodeSays::Status(status)]) {
            assert_eq!(node_says_from_wire(node_says_to_wire(says.clone())), Ok(says));
        }
        let score = channel("score:1").expect("valid");
        let asks = [
            NodeAsk::Direct(event(&Channel::of_user(&alice()), None)),
            NodeAsk::Disconnect { user: alice(), reason: "bye".into() },
            NodeAsk::Holding(score.clone()),
            NodeAsk::Occupants { channel: score.clone(), after: Some(alice()), limit: 10 },
            NodeAsk::Occupants { channel: score, after: None, limit: limits::OCCUPANTS_LIMIT },
            NodeAsk::Drain,
        ];
        for says in
            asks.map(|ask| RouterSays::Ask { number: 3, ask }).into_iter().chain([RouterSays::Ring(4)])
        {
            assert_eq!(router_says_from_wire(router_says_to_wire(says.clone())), Ok(says));
        }
        let hello =
            NodeHello { incarnation: Incarnation(5), name: "gateway-1".into(), version: "0.1".into() };
        assert_eq!(node_hello_from_wire(Some(node_hello_to_wire(&hello))), Ok(hello));
    }

    #[test]
    fn what_is_not_of_its_form_is_refused() {
        let asked =
            |ask: NodeAsk| router_says_from_wire(router_says_to_wire(RouterSays::Ask { number: 3, ask }));
        let own = Channel::of_user(&alice());
        let score = channel("score:1").expect("valid");
        assert_eq!(asked(NodeAsk::Direct(event(&score, None))), Err(FrameError::Bad("direct message")));
        assert_eq!(
            asked(NodeAsk::Direct(event(&own, Some(Offset(1))))),
            Err(FrameError::Bad("direct message"))
        );
        let reason = "x".repeat(limits::DISCONNECT_REASON_BYTES_LIMIT + 1);
        assert!(asked(NodeAsk::Disconnect { user: alice(), reason }).is_err());
        for limit in [0, limits::OCCUPANTS_LIMIT + 1] {
            let ask = NodeAsk::Occupants { channel: score.clone(), after: None, limit };
            assert_eq!(asked(ask), Err(FrameError::Bad("limit")));
        }
        assert!(router_says_from_wire(wire::RouterSays { says: None }).is_err());
        let no_question = wire::NodeAsk { number: 1, ask: None };
        let no_question = wire::RouterSays { says: Some(router_says::Says::Ask(no_question)) };
        assert!(router_says_from_wire(no_question).is_err());
        let hello = NodeHello { incarnation: Incarnation(5), name: "a\nb".into(), version: String::new() };
        assert!(node_hello_from_wire(Some(node_hello_to_wire(&hello))).is_err(), "no line break in a log");
        assert!(node_says_from_wire(node_hello_to_wire(&hello)).is_err(), "one hello a stream");
        assert!(node_hello_from_wire(None).is_err());
        let empty = wire::NodeAnswer { number: 1, answer: None };
        assert!(node_says_from_wire(wire::NodeSays { says: Some(node_says::Says::Answer(empty)) }).is_err());
    }
}
