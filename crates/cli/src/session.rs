//! From the names a user types to pools of this system.

use crate::output::Failure;
use daos_types::{Der, Ident};
use engine::system::{PoolDescriptor, SystemError, SystemRoot};
use std::os::unix::ffi::OsStrExt;

/// A non-empty environment variable as text.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The system root of this environment.
pub(crate) fn system_root() -> Result<SystemRoot, Failure> {
    let value = std::env::var_os("DAOS_EMBEDDED_ROOT");
    Ok(SystemRoot::locate(value.as_ref().map(|value| value.as_bytes()))?)
}

/// A pool argument: what was typed, else `DAOS_POOL`.
pub(crate) fn pool_name(typed: Option<String>) -> Option<String> {
    typed.or_else(|| env("DAOS_POOL"))
}

/// Finds a pool for a `daos` command; `outer` opens the error line.
pub(crate) fn find_pool(name: &str, outer: &str) -> Result<PoolDescriptor, Failure> {
    let ident: Ident = name.parse().map_err(|bad| Failure::der(outer, Der::Inval).because(bad))?;
    match system_root()?.find_pool(&ident) {
        Ok(pool) => Ok(pool),
        Err(error) => Err(Failure::der(outer, error.der()).because(error)),
    }
}

/// Whether an error means that the pool does not exist.
pub(crate) fn is_missing(error: &SystemError) -> bool {
    matches!(error, SystemError::NoPool { .. })
}
