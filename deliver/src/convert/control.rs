//! What stands on the control topic, as messages and back.

use tidegate_link::{ControlAnswer, ControlAsk, ControlStanding};
use tidegate_proto::deliver::v1::{self as wire};
use tidegate_proto::frames::{revocation_from_wire, revocation_to_wire};
use tidegate_vocab::{LogEpoch, Offset, Problem, limits};

use super::strange_answer;

pub(crate) fn control_ask_to_wire(ask: ControlAsk) -> wire::ControlRequest {
    wire::ControlRequest { epoch: ask.epoch.0, next: ask.next.0 }
}

pub(crate) fn control_ask_from_wire(request: wire::ControlRequest) -> ControlAsk {
    ControlAsk { epoch: LogEpoch(request.epoch), next: Offset(request.next) }
}

pub(crate) fn control_to_wire(answer: ControlAnswer) -> wire::ControlResponse {
    let (standing, age_ms) = match answer.standing {
        ControlStanding::More => (wire::ControlStanding::More, 0),
        ControlStanding::Loading => (wire::ControlStanding::Loading, 0),
        ControlStanding::Fresh { age_ms } => (wire::ControlStanding::Fresh, age_ms),
        ControlStanding::Blind => (wire::ControlStanding::Blind, 0),
    };
    let records = answer.records.iter().map(|(offset, revocation)| wire::ControlRecord {
        offset: offset.0,
        revocation: Some(revocation_to_wire(revocation)),
    });
    wire::ControlResponse {
        epoch: answer.epoch.0,
        start: answer.start.0,
        records: records.collect(),
        next: answer.next.0,
        standing: standing.into(),
        age_ms,
    }
}

/// Offsets that do not rise, or lie outside the answer, make all of it worth nothing: a node would miss what it says.
pub(crate) fn control_from_wire(response: wire::ControlResponse) -> Result<ControlAnswer, Problem> {
    let standing = match response.standing() {
        wire::ControlStanding::More => ControlStanding::More,
        wire::ControlStanding::Loading => ControlStanding::Loading,
        wire::ControlStanding::Fresh => ControlStanding::Fresh { age_ms: response.age_ms },
        wire::ControlStanding::Blind => ControlStanding::Blind,
        wire::ControlStanding::Unspecified => return Err(strange_answer()),
    };
    if response.records.len() > limits::CONTROL_RECORDS_AT_ONCE {
        return Err(strange_answer());
    }
    let mut least = response.start;
    let mut records = Vec::with_capacity(response.records.len());
    for record in response.records {
        if record.offset < least || record.offset >= response.next {
            return Err(strange_answer());
        }
        least = record.offset + 1;
        let revocation = record.revocation.ok_or_else(strange_answer)?;
        let revocation = revocation_from_wire(revocation).map_err(|_| strange_answer())?;
        records.push((Offset(record.offset), revocation));
    }
    Ok(ControlAnswer {
        epoch: LogEpoch(response.epoch),
        start: Offset(response.start),
        records,
        next: Offset(response.next),
        standing,
    })
}

#[cfg(test)]
mod tests {
    use tidegate_vocab::{Revocation, RevocationScope, TokenId, UserId};

    use super::*;

    fn answer(standing: ControlStanding) -> ControlAnswer {
        let user = UserId::parse("alice").expect("valid");
        let token = RevocationScope::Token(TokenId::parse("t1").expect("valid"));
        let all = RevocationScope::IssuedBefore(1_800_000_000);
        ControlAnswer {
            epoch: LogEpoch(7),
            start: Offset(3),
            records: vec![
                (Offset(3), Revocation { user: user.clone(), scope: token }),
                (Offset(9), Revocation { user, scope: all }),
            ],
            next: Offset(10),
            standing,
        }
    }

    #[test]
    fn answers_come_back_as_they_were() {
        for standing in [
            ControlStanding::More,
            ControlStanding::Loading,
            ControlStanding::Fresh { age_ms: 12 },
            ControlStanding::Blind,
        ] {
            let answer = answer(standing);
            assert_eq!(control_from_wire(control_to_wire(answer.clone())), Ok(answer));
        }
    }

    #[test]
    fn a_strange_answer_is_worth_nothing() {
        let good = control_to_wire(answer(ControlStanding::Blind));
        let spoilt = |spoil: &dyn Fn(&mut wire::ControlResponse)| {
            let mut response = good.clone();
            spoil(&mut response);
            control_from_wire(response)
        };
        assert!(spoilt(&|_| {}).is_ok());
        assert!(spoilt(&|response| response.standing = 0).is_err());
        assert!(spoilt(&|response| response.standing = 99).is_err());
        assert!(spoilt(&|response| response.records.reverse()).is_err());
        assert!(spoilt(&|response| response.start = 4).is_err());
        assert!(spoilt(&|response| response.next = 9).is_err());
        assert!(spoilt(&|response| response.records[0].revocation = None).is_err());
        assert!(
            spoilt(&|response| {
                response.records = (3..2000)
                    .map(|offset| wire::ControlRecord { offset, ..response.records[0].clone() })
                    .collect();
                response.next = 2000;
            })
            .is_err()
        );
    }
}
