//! What can go wrong while reading a machine's description.

/// An error with a message of one line, ready for a user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A file or directory could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory, as given.
        path: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A recorded topology is not what it claims to be.
    #[error("{path}: not a usable topology: {why}")]
    Malformed {
        /// Where it was read from.
        path: String,
        /// The first thing found wrong.
        why: String,
    },
    /// A recorded topology of a version this program does not know.
    #[error(
        "{path}: topology version {found} is not known here (this program reads version {known})"
    )]
    Version {
        /// Where it was read from.
        path: String,
        /// The version in the file.
        found: u64,
        /// The version this program reads and writes.
        known: u64,
    },
    /// A CPU list, a binding or an option value that does not parse.
    #[error("{0}")]
    Syntax(String),
}

impl TopologyError {
    pub(crate) fn io(path: impl std::fmt::Display, source: impl Into<std::io::Error>) -> Self {
        TopologyError::Io {
            path: path.to_string(),
            source: source.into(),
        }
    }

    pub(crate) fn malformed(path: impl std::fmt::Display, why: impl Into<String>) -> Self {
        TopologyError::Malformed {
            path: path.to_string(),
            why: one_line(&why.into()),
        }
    }
}

/// Replaces control characters, so that text from a file or the environment stays on one line,
/// and cuts it at 160 characters.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(160)
        .collect()
}
