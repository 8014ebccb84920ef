//! How full a pool is.

use crate::output::Failure;
use daos_types::{format_base10, format_utc};
use engine::system::{PoolDescriptor, RankDescriptor};
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
    /// Targets of the ranks in service.
    pub(crate) targets: u64,
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
        let spread = u128::from(self.max - self.min) * u128::from(self.targets);
        match u128::from(self.total) {
            0 => 0,
            total => (spread * 100 / total) as u32,
        }
    }
}

/// Figures of the running pool, brought up if need be; `None` if this process runs too many
/// already, so that the files of the ranks have to tell roughly.
fn figures(pool: &PoolDescriptor) -> Result<Option<engine::Usage>, Failure> {
    match pool.attach() {
        Ok(attached) => attached.usage().map(Some).map_err(|e| {
            Failure::der(String::new(), daos_types::Der::from_errno(e.code()))
                .because(format!("reading the space of pool {}", pool.label))
        }),
        Err(engine::system::SystemError::Engine(engine::EngineError::Invalid(_))) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Total and free bytes of a rank; nothing of one that is not in service.
fn of_rank(
    pool: &PoolDescriptor,
    figures: Option<&engine::Usage>,
    rank: &RankDescriptor,
) -> Option<(u64, u64)> {
    if !rank.state.serves() || !rank.present {
        return None;
    }
    let Some(figures) = figures else {
        return Some(estimate(pool, rank));
    };
    let found = figures.ranks.get(usize::from(rank.rank))?;
    Some((found.total, found.total.saturating_sub(found.used)))
}

/// Total and free bytes of one rank; 0 if it is not in service.
pub(crate) fn rank_usage(
    pool: &PoolDescriptor,
    rank: &RankDescriptor,
) -> Result<(u64, u64), Failure> {
    let figures = figures(pool)?;
    Ok(of_rank(pool, figures.as_ref(), rank).unwrap_or_default())
}

/// Reads the figures of a pool.
pub(crate) fn usage(pool: &PoolDescriptor) -> Result<Usage, Failure> {
    let figures = figures(pool)?;
    let ranks = pool.ranks.iter();
    let ranks: Vec<_> = ranks
        .filter_map(|rank| of_rank(pool, figures.as_ref(), rank))
        .collect();
    let engine = figures.map(|figures| EngineJson {
        arena_bytes: figures.arena_bytes,
        log_used_bytes: figures.log_used,
        log_bytes: figures.log_bytes,
        checkpoint_time_ns: figures.checkpoint_time,
        processes: figures.processes,
    });
    Ok(Usage {
        engine,
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
        targets: targets * ranks.len() as u64,
        engine: None,
    }
}

/// From the blocks the files of a rank take on their device.
fn estimate(pool: &PoolDescriptor, rank: &RankDescriptor) -> (u64, u64) {
    let total = pool.rank_bytes();
    let files = std::fs::read_dir(&rank.path)
        .into_iter()
        .flatten()
        .flatten();
    let metadata = files.filter_map(|file| file.metadata().ok());
    let used = metadata.map(|data| data.blocks() * 512).sum::<u64>();
    (total, total.saturating_sub(used))
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
        // Of the size of a target, however little is free.
        let full = summarise(&[(800, 0), (800, 80)], 4);
        assert_eq!((full.min, full.max, full.imbalance()), (0, 20, 10));
        let none = summarise(&[], 4);
        assert_eq!(
            (none.total, none.used_percent(), none.imbalance()),
            (0, 0, 0)
        );
    }
}
