//! One node, and an owner whose part the test plays.

use tidegate_tenure::{LostReason, Node, NodeOut, Outcome, StreamId, ToNode, ToRouter, WantFrom, WantId};
use tidegate_vocab::{Channel, LogEpoch, Offset, Term};

use crate::rig::{CHANNEL, EPOCH, PARTITION, event, owned_by};

pub(crate) const STREAM: StreamId = StreamId(1);

/// What a Want was answered with by the node itself: the outcome, the rows, and from where it is live.
pub(crate) type Own = (Outcome, Vec<u64>, u64);

pub(crate) struct NodeRig {
    pub(crate) node: Node,
    pub(crate) now_ms: u64,
    stream: StreamId,
    term: Term,
    n: u64,
    wants: u64,
}

impl NodeRig {
    /// A node that holds the channel from 20 on and has been pushed 22 and 24; next[P] is 30.
    pub(crate) fn holding() -> Self {
        Self::holding_with(1 << 20)
    }

    pub(crate) fn holding_with(ring_bytes_limit: usize) -> Self {
        let node = Node::new(PARTITION).with_ring_bytes_limit(ring_bytes_limit);
        let mut rig = Self { node, now_ms: 0, stream: STREAM, term: Term(0), n: 0, wants: 0 };
        rig.owned(1, 11, EPOCH);
        assert!(rig.want(WantFrom::Now).is_err());
        rig.n = 1;
        rig.end(rig.wants, Outcome::Fresh, 20);
        rig.event(22);
        rig.event(24);
        rig.mark(30);
        rig
    }

    /// An owner speaks on a stream: what the node sends it.
    pub(crate) fn owned(&mut self, stream: u64, term: u64, epoch: LogEpoch) -> Vec<ToRouter> {
        (self.stream, self.term) = (StreamId(stream), Term(term));
        let sent = self.hear(owned_by(term, epoch)).1;
        self.n += u64::from(!sent.is_empty());
        sent
    }

    /// The last owner's stream ends.
    pub(crate) fn cut(&mut self) {
        self.node.stream_down(self.stream);
    }

    fn hear(&mut self, frame: ToNode) -> (Vec<NodeOut>, Vec<ToRouter>) {
        let mut out = Vec::new();
        self.node.on_frame(self.stream, frame, self.now_ms, &mut out);
        split(out)
    }

    pub(crate) fn event(&mut self, offset: u64) {
        let (term, n, event) = (self.term, self.n, event(offset));
        self.hear(ToNode::Event { partition: PARTITION, term, n, event });
    }

    pub(crate) fn mark(&mut self, next: u64) {
        let (term, n, next) = (self.term, self.n, Offset(next));
        self.hear(ToNode::Mark { partition: PARTITION, term, n, next, age_ms: 0 });
    }

    pub(crate) fn lost(&mut self, channel: Option<&str>, upto: u64) {
        let channel = channel.map(|name| Channel::parse(name).expect("valid"));
        let (term, n, upto) = (self.term, self.n, Offset(upto));
        self.hear(ToNode::Lost { partition: PARTITION, term, n, channel, upto });
    }

    pub(crate) fn end(&mut self, want: u64, outcome: Outcome, upto: u64) -> Vec<NodeOut> {
        let (term, n, want, upto) = (self.term, self.n, WantId(want), Offset(upto));
        self.hear(ToNode::HistoryEnd { partition: PARTITION, term, n, want, outcome, upto }).0
    }

    pub(crate) fn lose_epoch(&mut self, want: u64, upto: u64) {
        self.end(want, Outcome::Lost(LostReason::Epoch), upto);
    }

    /// One more subscription of the channel; what the node answers itself, or what it sends.
    pub(crate) fn want(&mut self, from: WantFrom) -> Result<Own, Vec<ToRouter>> {
        self.want_of(CHANNEL, from)
    }

    pub(crate) fn want_of(&mut self, name: &str, from: WantFrom) -> Result<Own, Vec<ToRouter>> {
        self.wants += 1;
        let (want, channel) = (WantId(self.wants), Channel::parse(name).expect("valid"));
        let mut out = Vec::new();
        let is_own = self.node.subscribe(want, channel, from, 0, &mut out);
        let (told, sent) = split(out);
        if !is_own {
            assert_eq!(told, []);
            return Err(sent);
        }
        assert_eq!(sent, [], "what is answered here is not asked");
        let mut rows = Vec::new();
        for out in told {
            match out {
                NodeOut::History { want: of, rows: more, .. } if of == want => {
                    rows.extend(more.iter().filter_map(|row| row.offset).map(|offset| offset.0));
                }
                NodeOut::Established { want: of, outcome, epoch, upto } if of == want => {
                    assert_eq!(Some(epoch), self.node.epoch());
                    return Ok((outcome, rows, upto.0));
                }
                other => panic!("{other:?} is no answer"),
            }
        }
        panic!("no end");
    }

    pub(crate) fn last_want(&self) -> u64 {
        self.wants
    }

    pub(crate) fn release(&mut self) {
        self.node.release(&Channel::parse(CHANNEL).expect("valid"), self.now_ms);
    }

    pub(crate) fn cancel(&mut self, want: u64) -> Vec<ToRouter> {
        let mut out = Vec::new();
        self.node.cancel(WantId(want), self.now_ms, &mut out);
        split(out).1
    }

    pub(crate) fn tick(&mut self) -> Vec<ToRouter> {
        let mut out = Vec::new();
        self.node.tick(self.now_ms, &mut out);
        split(out).1
    }
}

/// What goes to the shards, and what to a router.
fn split(out: Vec<NodeOut>) -> (Vec<NodeOut>, Vec<ToRouter>) {
    let (mut told, mut sent) = (Vec::new(), Vec::new());
    for out in out {
        match out {
            NodeOut::Send(_, frame) => sent.push(frame),
            other => told.push(other),
        }
    }
    (told, sent)
}
