//! The history's options from the configuration.

use tidegate_history::{HistoryOptions, Retention};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::HistoryConfig;

/// The retention of each namespace, and the digest of which of them keep anything.
pub(super) fn options(config: &HistoryConfig) -> HistoryOptions {
    let scope = scope(config);
    let retention = config.clone();
    HistoryOptions { retention: std::sync::Arc::new(move |namespace| retention.of(namespace)), scope }
}

/// Only namespaces that differ from the default are part of it: naming one that keeps as much changes nothing.
fn scope(config: &HistoryConfig) -> u64 {
    let keeps = |retention: Retention| retention.rows > 0 && retention.age_ms > 0;
    let default = keeps(config.default);
    let mut text = format!("{default}");
    for (name, retention) in &config.namespaces {
        if keeps(*retention) != default {
            text.push('\n'); // No namespace has a line break.
            text.push_str(name);
        }
    }
    xxh3_64(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_scope_changes_with_who_keeps_history_and_with_nothing_else() {
        let kept = |rows| Retention { rows, age_ms: 1000 };
        let config = |default, namespaces: &[(&str, u32)]| HistoryConfig {
            default: kept(default),
            namespaces: namespaces
                .iter()
                .map(|(name, rows)| ((*name).to_owned(), kept(*rows)))
                .collect::<BTreeMap<_, _>>(),
        };
        let base = scope(&config(100, &[("user", 1000)]));
        assert_eq!(scope(&config(50, &[("user", 10), ("score", 5)])), base);
        let without_score = scope(&config(100, &[("user", 1000), ("score", 0)]));
        assert_ne!(without_score, base);
        assert_ne!(scope(&config(0, &[("user", 1000)])), base);
        assert_ne!(scope(&config(100, &[("user", 1000), ("chat", 0)])), without_score);
    }
}
