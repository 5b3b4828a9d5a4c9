//! `loadtest saturation`: the highest rate that a cluster keeps up with.
//!
//! **Owns** the search for it and the judgement of a step. A rate is kept up with while the lag, events that were due and are
//! not with the subscribers, does not grow over the step, nothing is missing, and the p99 is within its limit. Lag and
//! latency count from when an event was due, so that a publisher that cannot keep up does not hide it.

mod html;
mod report;
mod search;
mod step;

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::flow::{Flow, FlowOptions};
use crate::verify::Cluster;
use search::{Next, Search};
use step::Step;

pub use html::html;
pub use report::Report;

/// How often the lag is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Seconds at the start of a step that do not count: the load has changed.
const WARM_SECONDS: f64 = 1.0;

/// What shall be found out.
#[derive(Debug, Clone, Serialize)]
pub struct SaturationOptions {
    /// Of a step; those that only look for where to begin last a quarter.
    pub step_seconds: f64,
    /// Events a second to begin with.
    pub start_rate: f64,
    /// Rates above it are not tried.
    pub rate_limit: f64,
    /// Subscribers, each of which gets every event.
    pub receivers: usize,
    /// Bytes of an event's data.
    pub bytes: usize,
    /// A fault for tests: from this rate on, subscribers need so long for each delivery.
    #[serde(skip)]
    pub planted: Option<(f64, Duration)>,
}

/// Searches. Calls `progress` with lines that end (they last) and lines that do not (how things stand).
///
/// # Errors
/// When a process cannot be reached, or closes a subscriber.
pub async fn saturation(
    options: &SaturationOptions,
    cluster: &Cluster,
    progress: impl Fn(&str),
) -> anyhow::Result<Report> {
    let mut search = Search::new(options.start_rate, options.rate_limit);
    let mut steps = Vec::new();
    while let Next::Try { rate, is_full } = search.next() {
        let seconds = if is_full { options.step_seconds } else { options.step_seconds / 4.0 };
        let step = tokio::select! {
            step = measure(rate, seconds, options, cluster, &progress) => step?,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        };
        progress(&format!("{step}\n"));
        search.heard(step.good());
        steps.push(Step { is_full, ..step });
    }
    Ok(Report::new(options.clone(), steps))
}

async fn measure(
    rate: f64,
    seconds: f64,
    options: &SaturationOptions,
    cluster: &Cluster,
    progress: &impl Fn(&str),
) -> anyhow::Result<Step> {
    let gateways = cluster.gateways.iter().map(|gateway| gateway.public).collect();
    let flow_options = FlowOptions {
        receivers: options.receivers,
        rate,
        bytes: options.bytes,
        planted_delay: options.planted.filter(|(from, _)| rate >= *from).map(|(_, delay)| delay),
        ..FlowOptions::new(cluster, gateways, "saturation")
    };
    let flow = Flow::start(&flow_options).await?;
    let (begun, end) = (Instant::now(), Duration::from_secs_f64(WARM_SECONDS + seconds));
    let mut lags = Vec::new();
    while begun.elapsed() < end && flow.is_running() {
        sleep_until(Instant::now() + LOOK).await;
        if begun.elapsed().as_secs_f64() > WARM_SECONDS {
            lags.push(flow.lag());
            let lag = lags.last().copied().unwrap_or_default();
            progress(&format!(
                "{rate:7.0}/s  {:.0} of {seconds:.0} s, lag {lag:.0} events",
                begun.elapsed().as_secs_f64() - WARM_SECONDS
            ));
        }
    }
    let from_us = flow.begin_us() + (WARM_SECONDS * 1e6) as u64;
    let heard = flow.stop().await?;
    let latency = heard.between(from_us, u64::MAX).quantiles();
    Ok(Step::new(rate, lags, latency, &heard))
}
