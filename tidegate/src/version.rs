//! What this program was built from.

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    /// The released number.
    pub number: &'static str,
    /// The commit, when the build knew it.
    pub commit: Option<&'static str>,
    /// The compiler's own number.
    pub rustc: &'static str,
    /// The platform.
    pub target: &'static str,
}

/// This program.
pub const VERSION: Version = Version {
    number: env!("CARGO_PKG_VERSION"),
    commit: option_env!("TIDEGATE_BUILD_COMMIT"),
    rustc: env!("TIDEGATE_BUILD_RUSTC"),
    target: env!("TIDEGATE_BUILD_TARGET"),
};
