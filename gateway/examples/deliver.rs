//! Delivers so many batches of so many events to so many sockets and ends: what `benches/instructions` counts.
//!
//! Usage: deliver SOCKETS CHANNELS TOGETHER ROUNDS

use tidegate_gateway::measure::FanOut;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let [sockets, channels, together, rounds] = numbers[..] else {
        return Err("usage: deliver SOCKETS CHANNELS TOGETHER ROUNDS".into());
    };
    let mut fan_out = FanOut::open(sockets, channels)?;
    for _ in 0..rounds {
        let batch = fan_out.batch(together);
        fan_out.deliver(batch);
        fan_out.drain()?;
    }
    Ok(())
}
