//! Which known key somebody probably meant.

use crate::config::keys::{Key, NAMESPACE, SECTIONS};

/// The known key that is nearest to an unknown one: by the whole path, or by its last part in another section.
pub(crate) fn key(path: &[&str]) -> String {
    if let ["namespaces", name, rest @ ..] = path {
        let wanted = rest.join(".");
        // A namespace without a key: any key leads to the right place, the first as well as another.
        let distance = |key: &&Key| match key.name.split('_').any(|word| wanted.is_empty() || word == wanted)
        {
            true => 0,
            false => strsim::damerau_levenshtein(&wanted, key.name),
        };
        let nearest = NAMESPACE.keys.iter().min_by_key(distance);
        return format!("namespaces.{name}.{}", nearest.map_or("history_rows", |key| key.name));
    }
    let whole = path.join(".");
    let last = path.last().copied().unwrap_or_default();
    let known =
        SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section.name, key.name)));
    let distance = |(section, key): &(&str, &str)| {
        let by_path = strsim::damerau_levenshtein(&whole, &format!("{section}.{key}"));
        // The right key in a wrong section is nearer than most others, and so is one that has the word in it.
        let by_key = strsim::damerau_levenshtein(last, key) + 1;
        let by_word = if key.split('_').any(|word| word == last) { 2 } else { usize::MAX };
        // A section's name alone: any key of it leads to the right place.
        let by_section =
            if path.len() == 1 { strsim::damerau_levenshtein(last, section) + 1 } else { usize::MAX };
        by_path.min(by_key).min(by_word).min(by_section)
    };
    known.min_by_key(distance).map(|(section, key)| format!("{section}.{key}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_the_one_that_was_meant() {
        for (path, expected) in [
            (&["server", "pubic"] as &[&str], "server.public"),
            (&["sever", "public"], "server.public"),
            (&["public"], "server.public"),
            (&["sever"], "server.public"),
            (&["gateway", "admin"], "server.admin"),
            (&["auth", "secret"], "auth.hmac_secret"),
            (&["log", "partition"], "log.partitions"),
            (&["limits", "outbox_bytes"], "limits.outbox_size"),
            (&["namespaces", "score", "rows"], "namespaces.score.history_rows"),
            (&["namespaces", "score", "historyage"], "namespaces.score.history_age"),
        ] {
            assert_eq!(key(path), expected, "{path:?}");
        }
    }
}
