//! The kinds of steps, and how likely each may be.

use rand::Rng;
use rand::rngs::StdRng;

/// The kinds of steps; a seed draws how likely each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Publish,
    Noise,
    DeadLetter,
    Trim,
    Assign,
    Revoke,
    Land,
    Consume,
    LoadBackward,
    Retake,
    Crash,
    Restart,
    Connect,
    Cut,
    RouterNotices,
    NodeNotices,
    Down,
    Up,
    Pump,
    Mark,
    AskWatermark,
    AnswerWatermark,
    AnswerRead,
    Ephemeral,
    NodeTick,
    Shard,
    Join,
    Leave,
    FollowAnew,
    GoOn,
    MakeAnew,
    NoticeLog,
    Time,
}

/// Each kind, and the weights a seed may draw for it: what moves things on is never switched off.
pub(crate) const KINDS: [(Kind, [u32; 4]); 33] = [
    (Kind::Publish, [4, 8, 8, 16]),
    (Kind::Noise, [0, 0, 1, 4]),
    (Kind::DeadLetter, [0, 0, 0, 1]),
    (Kind::Trim, [0, 0, 0, 1]),
    (Kind::Assign, [1, 2, 4, 8]),
    (Kind::Revoke, [1, 1, 2, 8]),
    (Kind::Land, [2, 4, 8, 16]),
    (Kind::Consume, [2, 8, 16, 32]),
    (Kind::LoadBackward, [0, 1, 4, 8]),
    (Kind::Retake, [2, 4, 8, 8]),
    (Kind::Crash, [0, 0, 1, 1]),
    (Kind::Restart, [2, 4, 8, 8]),
    (Kind::Connect, [4, 8, 16, 16]),
    (Kind::Cut, [0, 1, 2, 4]),
    (Kind::RouterNotices, [1, 2, 8, 16]),
    (Kind::NodeNotices, [1, 2, 8, 16]),
    (Kind::Down, [8, 16, 32, 32]),
    (Kind::Up, [8, 16, 32, 32]),
    (Kind::Pump, [4, 16, 32, 32]),
    (Kind::Mark, [1, 2, 8, 8]),
    (Kind::AskWatermark, [0, 1, 2, 2]),
    (Kind::AnswerWatermark, [1, 4, 8, 8]),
    (Kind::AnswerRead, [2, 8, 16, 16]),
    (Kind::Ephemeral, [0, 0, 1, 1]),
    (Kind::NodeTick, [1, 2, 4, 8]),
    (Kind::Shard, [8, 16, 32, 32]),
    (Kind::Join, [4, 8, 16, 16]),
    (Kind::Leave, [0, 2, 4, 8]),
    (Kind::FollowAnew, [0, 0, 1, 2]),
    (Kind::GoOn, [2, 4, 8, 8]),
    (Kind::MakeAnew, [0, 0, 0, 1]),
    (Kind::NoticeLog, [2, 4, 8, 8]),
    (Kind::Time, [1, 2, 4, 8]),
];

pub(crate) fn draw_weights(rng: &mut StdRng) -> Vec<u32> {
    KINDS.iter().map(|(_, choices)| choices[rng.random_range(0..choices.len())]).collect()
}
