//! Temporary pools for the tests of this crate and of those above it.

mod audit;

use crate::pool::{Pool, PoolSpec};
use std::path::{Path, PathBuf};

pub use audit::{Audit, audit};

/// A pool in a fresh directory; both go when this is dropped.
pub struct TempPool {
    dir: PathBuf,
    spec: PoolSpec,
    /// The attached pool.
    pub pool: &'static Pool,
}

impl TempPool {
    /// A pool of `size_mib` MiB on `ranks` ranks of 4 targets.
    pub fn new(ranks: usize, size_mib: u64) -> TempPool {
        TempPool::new_in(&std::env::temp_dir(), ranks, size_mib)
    }

    /// The same in a directory of its own inside `parent`.
    pub fn new_in(parent: &Path, ranks: usize, size_mib: u64) -> TempPool {
        let uuid = uuid::Uuid::new_v4();
        let dir = parent.join(format!("pil4dfs-test-{}", uuid.simple()));
        let spec = spec_in(&dir, uuid, ranks, size_mib);
        for rank in &spec.ranks {
            std::fs::create_dir_all(rank).expect("temporary directory");
        }
        Pool::format(&spec).expect("format");
        let pool = Pool::attach(&spec).expect("attach");
        TempPool { dir, spec, pool }
    }

    /// What another process needs to attach the same pool: pass it to [`attach_from`].
    pub fn handover(&self) -> String {
        format!(
            "{}|{}|{}|{}",
            self.dir.display(),
            self.spec.uuid,
            self.spec.ranks.len(),
            self.spec.size_bytes >> 20
        )
    }
}

/// How often an owner slot has been given out or freed.
pub fn owner_generation(pool: &Pool, owner: u16) -> u16 {
    pool.slot(owner).expect("slot").look().generation()
}

/// Attaches the pool that another process made.
pub fn attach_from(handover: &str) -> &'static Pool {
    let mut parts = handover.split('|');
    let mut next = || parts.next().expect("handover");
    let dir = PathBuf::from(next());
    let uuid = next().parse().expect("uuid");
    let ranks = next().parse().expect("ranks");
    let size = next().parse().expect("size");
    Pool::attach(&spec_in(&dir, uuid, ranks, size)).expect("attach")
}

fn spec_in(dir: &std::path::Path, uuid: uuid::Uuid, ranks: usize, size_mib: u64) -> PoolSpec {
    PoolSpec {
        uuid,
        ranks: (0..ranks)
            .map(|r| dir.join(format!("rank{r:02}")))
            .collect(),
        targets_per_rank: 4,
        size_bytes: size_mib << 20,
        runtime_dir: PathBuf::from("/dev/shm"),
    }
}

impl Drop for TempPool {
    fn drop(&mut self) {
        let removed = Pool::remove_arena(&self.spec);
        let cleaned = std::fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            removed.expect("arena");
            cleaned.expect("directory");
        }
    }
}
