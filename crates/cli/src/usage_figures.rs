//! How full a pool is.

use crate::output::Failure;
use engine::system::PoolDescriptor;
use std::os::unix::fs::MetadataExt;

/// Space of the ranks in service, in bytes; minimum, maximum and mean are per target.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// All space.
    pub(crate) total: u64,
    /// Free space.
    pub(crate) free: u64,
    /// Free space of the fullest target.
    pub(crate) min: u64,
    /// Free space of the emptiest target.
    pub(crate) max: u64,
    /// Mean free space of a target.
    pub(crate) mean: u64,
}

impl Usage {
    /// Percent in use, rounded down.
    pub(crate) fn used_percent(&self) -> u64 {
        match self.total {
            0 => 0,
            total => (u128::from(total - self.free) * 100 / u128::from(total)) as u64,
        }
    }

    /// Difference between the emptiest and the fullest target in percent of a target's size.
    pub(crate) fn imbalance(&self) -> u32 {
        match self.max {
            0 => 0,
            max => (u128::from(max - self.min) * 100 / u128::from(max)) as u32,
        }
    }
}
