//! The settings of one topic: what they have to be, and why.

use std::collections::BTreeMap;

use rdkafka::admin::{ConfigResource, ConfigSource};
use tidegate_vocab::Topic;

use super::{Finding, Severity, TopicSpec};
use crate::options::KafkaOptions;

/// A topic's settings as the brokers have them. None are known of a topic that was made just now.
#[derive(Default)]
pub(super) struct Settings {
    values: BTreeMap<String, String>,
    /// Those that were set on the topic itself; None when one of them is kept from us.
    dynamic: Option<BTreeMap<String, String>>,
}

/// What a new topic is made with.
pub(super) fn wanted(spec: &TopicSpec, topic: Topic) -> BTreeMap<String, String> {
    let is_compacted = Topic::COMPACTED.contains(&topic);
    let wanted = [
        ("cleanup.policy", if is_compacted { "compact" } else { "delete" }.into()),
        ("message.timestamp.type", "LogAppendTime".into()),
        ("unclean.leader.election.enable", "false".into()),
        ("min.insync.replicas", spec.min_isr.to_string()),
        ("retention.ms", spec.retention_ms[topic as usize].to_string()),
        ("max.message.bytes", spec.message_bytes_limit.to_string()),
    ];
    let counts = |key: &str| !(is_compacted && key == "retention.ms");
    wanted.into_iter().filter(|(key, _)| counts(key)).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Why a setting matters.
fn reason(key: &str, topic: Topic) -> &'static str {
    match key {
        "cleanup.policy" if Topic::COMPACTED.contains(&topic) => {
            "who stays online would be forgotten in time"
        }
        "cleanup.policy" => "compaction would drop events",
        "message.timestamp.type" => "history and idempotency go by the brokers' clock",
        "unclean.leader.election.enable" => "acknowledged events could be lost",
        "min.insync.replicas" => "an acknowledged event would stand on too few brokers",
        "retention.ms" => "history would end too early",
        _ => "the largest records would be refused",
    }
}

/// Whether a value is good enough: some settings are bounds.
fn suffices(key: &str, value: &str, wanted: &str) -> bool {
    let at_least = || match (value.parse::<i64>(), wanted.parse::<i64>()) {
        (Ok(value), Ok(wanted)) => value >= wanted,
        _ => false,
    };
    match key {
        "retention.ms" => value == "-1" || at_least(),
        "max.message.bytes" | "min.insync.replicas" => at_least(),
        _ => value == wanted,
    }
}

impl Settings {
    pub(super) fn new(resource: ConfigResource) -> Self {
        let mut settings = Self { values: BTreeMap::new(), dynamic: Some(BTreeMap::new()) };
        for entry in resource.entries {
            let is_dynamic = entry.source == ConfigSource::DynamicTopic;
            match entry.value {
                Some(value) => {
                    if is_dynamic && let Some(dynamic) = &mut settings.dynamic {
                        dynamic.insert(entry.name.clone(), value.clone());
                    }
                    settings.values.insert(entry.name, value);
                }
                None if is_dynamic => settings.dynamic = None,
                None => {}
            }
        }
        settings
    }

    pub(super) fn dynamic(&self) -> Option<&BTreeMap<String, String>> {
        self.dynamic.as_ref()
    }

    /// What has to be set anew.
    pub(super) fn changes(&self, options: &KafkaOptions, topic: Topic) -> BTreeMap<String, String> {
        let mut changes = wanted(&options.spec, topic);
        changes.retain(|key, wanted| self.values.get(key).is_some_and(|value| !suffices(key, value, wanted)));
        changes
    }

    pub(super) fn findings(&self, options: &KafkaOptions, topic: Topic) -> Vec<Finding> {
        let name = options.topic_name(topic);
        if self.values.is_empty() {
            let problem = "the brokers tell none of its settings".into();
            let fix = "allow DESCRIBE_CONFIGS on it, or try again when it was made just now".into();
            return vec![Finding { topic: name, severity: Severity::Error, problem, fix }];
        }
        let mut findings = Vec::new();
        for (key, wanted) in self.changes(options, topic) {
            let is = &self.values[&key];
            let problem = format!("{key} is {is} and has to be {wanted}: {}", reason(&key, topic));
            let fix = "run `tidegate topics apply`".into();
            findings.push(Finding { topic: name.clone(), severity: Severity::Error, problem, fix });
        }
        if let Some(bytes) = self.values.get("retention.bytes").filter(|bytes| *bytes != "-1") {
            let problem = format!("retention.bytes is {bytes}: a busy partition forgets before its time");
            let fix = "set it to -1, or watch how far back the log starts".into();
            findings.push(Finding { topic: name, severity: Severity::Warning, problem, fix });
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_is_compacted_and_everything_else_ends_with_time() {
        for topic in Topic::ALL {
            let wanted = wanted(&TopicSpec::default(), topic);
            let is_compacted = topic == Topic::Presence;
            assert_eq!(wanted["cleanup.policy"] == "compact", is_compacted, "{topic:?}");
            assert_eq!(wanted.contains_key("retention.ms"), !is_compacted, "{topic:?}");
        }
    }

    #[test]
    fn bounds_are_bounds_and_the_rest_is_exact() {
        for (key, value, wanted, expected) in [
            ("retention.ms", "-1", "1000", true),
            ("retention.ms", "1000", "1000", true),
            ("retention.ms", "999", "1000", false),
            ("max.message.bytes", "2000000", "1048588", true),
            ("max.message.bytes", "1000", "1048588", false),
            ("min.insync.replicas", "1", "2", false),
            ("cleanup.policy", "compact,delete", "compact", false),
            ("cleanup.policy", "compact,delete", "delete", false),
            ("message.timestamp.type", "CreateTime", "LogAppendTime", false),
        ] {
            assert_eq!(suffices(key, value, wanted), expected, "{key}={value}");
        }
    }
}
