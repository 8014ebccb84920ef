//! Figures of a pool for `query` and `statfs`.

use crate::layout::{header, rank, rank_at};
use crate::limits::{BLOCK, PAGE, at};
use crate::pool::Pool;
use sys::Result;

/// Space of one rank in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RankUsage {
    /// The rank's share of the pool.
    pub total: u64,
    /// In use or reserved by running programs.
    pub used: u64,
}

/// Space of a pool in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Size of the pool.
    pub total: u64,
    /// Not in use.
    pub free: u64,
    /// Per rank.
    pub ranks: Vec<RankUsage>,
    /// Bytes of the arena in shared memory.
    pub arena_bytes: u64,
    /// Bytes of the log not yet covered by a checkpoint.
    pub log_used: u64,
    /// Size of the log in bytes.
    pub log_bytes: u64,
    /// Time of the last checkpoint, ns since the epoch; 0 if there was none.
    pub checkpoint_time: i64,
    /// Processes attached.
    pub processes: usize,
}

impl Pool {
    /// Blocks of a rank's data file that the pool knows.
    pub fn rank_blocks(&self, r: u16) -> Result<u64> {
        self.load(rank_at(r) + rank::BLOCKS)
    }

    /// Blocks of the pool: total and free.
    pub fn space(&self) -> Result<(u64, u64)> {
        let total = self.load(header::POOL_BLOCKS)?;
        Ok((total, total.saturating_sub(self.used_blocks()?)))
    }

    /// Figures for people.
    pub fn usage(&self) -> Result<Usage> {
        let (total, free) = self.space()?;
        let share = total / u64::from(self.rank_count().max(1)) * BLOCK;
        let mut ranks = Vec::with_capacity(usize::from(self.rank_count()));
        for r in 0..self.rank_count() {
            let used = self.load(rank_at(r) + rank::USED)? * BLOCK;
            ranks.push(RankUsage { total: share, used });
        }
        let pages = self.load(header::PAGES_BACKED)?;
        let (log_used, log_bytes) = self.log_fill()?;
        Ok(Usage {
            total: total * BLOCK,
            free: free * BLOCK,
            ranks,
            arena_bytes: at::FIXED_END + pages * (PAGE + at::DESCRIPTOR_BYTES),
            log_used,
            log_bytes,
            checkpoint_time: self.load(header::CHECKPOINT_TIME)? as i64,
            processes: crate::process::count(self)?,
        })
    }
}
