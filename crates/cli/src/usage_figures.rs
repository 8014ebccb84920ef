//! How full a pool is.

use crate::output::Failure;
use daos_types::{format_base10, format_utc};
use engine::system::PoolDescriptor;
use serde::Serialize;
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
    /// What else the running pool says of itself.
    pub(crate) engine: Option<EngineJson>,
}

/// State of the embedded engine; sizes in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct EngineJson {
    /// Shared memory of the pool.
    arena_bytes: u64,
    /// Log that no checkpoint covers yet.
    log_used_bytes: u64,
    /// Size of the log.
    log_bytes: u64,
    /// Time of the last checkpoint in nanoseconds since the epoch; 0 if there was none.
    checkpoint_time_ns: i64,
    /// Processes that have a container of the pool open.
    processes: usize,
}

impl EngineJson {
    /// Lines of `dmg pool query` behind those of DAOS.
    pub(crate) fn text(&self) -> String {
        let checkpoint = match self.checkpoint_time_ns {
            0 => "none since the pool was brought up".to_owned(),
            time => format_utc(time.into()),
        };
        format!(
            "Embedded engine info:\n- Arena: {} of shared memory, {} processes have containers open\n\
             - Log: {} of {} in use\n- Last checkpoint: {checkpoint}\n",
            format_base10(self.arena_bytes),
            self.processes,
            format_base10(self.log_used_bytes),
            format_base10(self.log_bytes)
        )
    }
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

/// Reads the figures from the running pool, bringing it up if need be.
pub(crate) fn usage(pool: &PoolDescriptor) -> Result<Usage, Failure> {
    let figures = match pool.attach() {
        Ok(attached) => attached.usage().map_err(|e| {
            Failure::der(String::new(), daos_types::Der::from_errno(e.code()))
                .because(format!("reading the space of pool {}", pool.label))
        })?,
        // A process runs only so many pools; their files tell the rest roughly.
        Err(engine::system::SystemError::Engine(engine::EngineError::Invalid(_))) => {
            return Ok(estimate(pool));
        }
        Err(error) => return Err(error.into()),
    };
    let serving = pool
        .ranks
        .iter()
        .filter(|rank| rank.state.serves() && rank.present);
    let ranks: Vec<(u64, u64)> = serving
        .filter_map(|rank| figures.ranks.get(usize::from(rank.rank)))
        .map(|rank| (rank.total, rank.total.saturating_sub(rank.used)))
        .collect();
    let engine = EngineJson {
        arena_bytes: figures.arena_bytes,
        log_used_bytes: figures.log_used,
        log_bytes: figures.log_bytes,
        checkpoint_time_ns: figures.checkpoint_time,
        processes: figures.processes,
    };
    Ok(Usage {
        engine: Some(engine),
        ..summarise(&ranks, pool.targets_per_rank.into())
    })
}

/// From total and free bytes of each rank in service.
fn summarise(ranks: &[(u64, u64)], targets_per_rank: u64) -> Usage {
    let targets = targets_per_rank.max(1);
    let free = ranks.iter().map(|(_, free)| free);
    Usage {
        total: ranks.iter().map(|(total, _)| total).sum(),
        free: free.clone().sum(),
        min: free.clone().min().map_or(0, |free| free / targets),
        max: free.clone().max().map_or(0, |free| free / targets),
        mean: free.sum::<u64>() / (targets * (ranks.len().max(1) as u64)),
        engine: None,
    }
}

/// From the blocks the rank files take on their devices.
fn estimate(pool: &PoolDescriptor) -> Usage {
    let total = pool.rank_bytes();
    let serving = pool
        .ranks
        .iter()
        .filter(|rank| rank.state.serves() && rank.present);
    let ranks: Vec<(u64, u64)> = serving
        .map(|rank| {
            let files = std::fs::read_dir(&rank.path)
                .into_iter()
                .flatten()
                .flatten();
            let metadata = files.filter_map(|file| file.metadata().ok());
            let used = metadata.map(|data| data.blocks() * 512).sum::<u64>();
            (total, total.saturating_sub(used))
        })
        .collect();
    summarise(&ranks, pool.targets_per_rank.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_per_target() {
        let usage = summarise(&[(800, 400), (800, 800)], 4);
        assert_eq!((usage.total, usage.free), (1600, 1200));
        assert_eq!((usage.min, usage.max, usage.mean), (100, 200, 150));
        assert_eq!((usage.used_percent(), usage.imbalance()), (25, 50));
        let none = summarise(&[], 4);
        assert_eq!(
            (none.total, none.used_percent(), none.imbalance()),
            (0, 0, 0)
        );
    }
}
