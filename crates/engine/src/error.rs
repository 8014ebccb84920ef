//! Errors of pool-level operations. Operations on records and data fail with a plain `Errno`.

use sys::Errno;

/// Why a pool could not be created, attached or queried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineError {
    /// The system refused: what was done, and its error.
    System {
        /// The operation and the path it concerned.
        what: String,
        /// The error number.
        errno: Errno,
    },
    /// What was found is not a valid pool, or is of a newer format: the text names the file.
    Corrupt(String),
    /// The request makes no sense; the text names the value and the cure.
    Invalid(String),
    /// The pool or container does not exist.
    NotFound(String),
    /// The label or path is taken.
    Exists(String),
    /// Somebody uses it.
    Busy(String),
    /// Ranks are gone that may have what no other has; the text names them and the cure.
    Lacking(String),
}

impl EngineError {
    /// An error of a system call on `what`.
    pub fn system(what: impl Into<String>, errno: Errno) -> EngineError {
        EngineError::System {
            what: what.into(),
            errno,
        }
    }

    /// The error number a program sees when its mount cannot be used for this reason.
    pub fn errno(&self) -> Errno {
        match self {
            EngineError::System { errno, .. } => *errno,
            EngineError::Corrupt(_) | EngineError::Lacking(_) => Errno::EIO,
            EngineError::Invalid(_) => Errno::EINVAL,
            EngineError::NotFound(_) => Errno::ENOENT,
            EngineError::Exists(_) => Errno::EEXIST,
            EngineError::Busy(_) => Errno::EBUSY,
        }
    }
}

impl core::fmt::Display for EngineError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            EngineError::System { what, errno } => write!(f, "{what}: {errno}"),
            EngineError::Corrupt(text)
            | EngineError::Invalid(text)
            | EngineError::NotFound(text)
            | EngineError::Exists(text)
            | EngineError::Busy(text)
            | EngineError::Lacking(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for EngineError {}
