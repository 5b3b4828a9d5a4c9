//! The file that keeps how far the backend has read. Replaced in one step, so that a crash leaves the old or the new.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// See the module.
pub(crate) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The token, or none before the first write.
    pub(crate) fn read(&self) -> Result<Option<String>> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }

    pub(crate) fn write(&self, token: &str) -> Result<()> {
        let next = self.path.with_extension("next");
        std::fs::write(&next, token)
            .and_then(|()| std::fs::rename(&next, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}
