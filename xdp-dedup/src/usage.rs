//! Wrong usage, told apart from what goes wrong for other reasons.

use std::fmt;

/// A command line that asks for something impossible, as the exit code tells.
#[derive(Debug)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The error that says so.
pub(crate) fn usage(what: impl Into<String>) -> anyhow::Error {
    UsageError(what.into()).into()
}
