//! xattrs
use engine::{Pool, Tx};
use sys::Result;
pub(crate) fn free_all(_tx: &mut Tx<'_>, _pool: &Pool, _offset: u64) -> Result<bool> {
    Ok(true)
}
