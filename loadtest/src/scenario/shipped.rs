//! The scenarios that come with the program.

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Shipped {
    /// What it is called: the file without `.toml`.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(Shipped { name: $name, text: include_str!(concat!("../../scenarios/", $name, ".toml")) }),*]
    };
}

/// All of them.
pub const SHIPPED: &[Shipped] = shipped![
    "live-score",
    "chat",
    "ticker",
    "notifications",
    "cursors",
    "game",
    "iot",
    "job-progress",
    "dashboard",
    "llm-tokens",
    "reconnect-storm",
];
