//! `verify` on one real `tidegate dev` that is killed: every client gets everything, and the judge can tell.

use std::sync::{Arc, Mutex};

use tidegate_loadtest::history::{Action, ClientLine, History, Receiving};
use tidegate_loadtest::judge::{Kind, Limits};
use tidegate_loadtest::verify::{Faults, VerifyOptions, judge_directory, verify};

use crate::dev::{DATA, Dev, beside_others};

/// Kills and starts the one process.
struct OneProcess(Arc<Mutex<Dev>>);

impl Faults for OneProcess {
    async fn act(&self, action: Action, node: &str) -> anyhow::Result<()> {
        assert_eq!(node, DATA);
        let dev = Arc::clone(&self.0);
        let acting = tokio::task::spawn_blocking(move || {
            let mut dev = dev.lock().expect("not poisoned");
            match action {
                Action::Kill => dev.kill(),
                Action::Start => dev.start_again(),
                Action::Term => panic!("not planned"),
            }
        });
        Ok(acting.await?)
    }
}

/// A debug build on a busy machine may take its time; what is lost, repeated or out of order may not be.
const PATIENT: Limits = Limits {
    warm_up_ms: 0,
    warm_up_ms_limit: 0,
    elsewhere_ms_limit: 10_000,
    gateway_ms_limit: 20_000,
    router_ms_limit: 20_000,
    planned_ms_limit: 20_000,
    amplification_limit: 1.05,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_loses_nothing_and_the_judge_is_proved() {
    let _counts = beside_others().await;
    let dev = Dev::start();
    let cluster = dev.cluster();
    let directory = tempfile::tempdir().expect("a directory");
    let options = VerifyOptions {
        seconds: 5,
        rate: 100,
        channels: 16,
        subscribers: 30,
        no_kill: false,
        planned_restarts: Vec::new(),
        history: directory.path().to_owned(),
    };
    let dev = Arc::new(Mutex::new(dev));
    verify(&options, &cluster, OneProcess(Arc::clone(&dev)), |line| println!("{line}")).await.expect("a run");
    let verdict = judge_directory(directory.path(), &PATIENT).expect("a history");
    println!("{verdict}");
    assert!(verdict.good, "{:?}", verdict.problems);
    assert_eq!(verdict.count(Kind::Missing), 0);
    assert_eq!(verdict.proved.as_ref().map(Vec::len), Some(3));
    let history = History::read(directory.path()).expect("a history");
    for transport in Receiving::ALL {
        let is_return = |line: &&ClientLine| matches!(line, ClientLine::Connect { transport: t, cursor: Some(_), .. } if *t == transport);
        assert!(
            history.clients.iter().any(|line| is_return(&line)),
            "{transport:?} came back with its cursor"
        );
    }
    assert!(verdict.acked >= 100, "{} acked", verdict.acked);
}
