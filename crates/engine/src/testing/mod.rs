//! Temporary pools for the tests of this crate and of those above it.

mod audit;
mod dice;
mod disk;
pub mod fuzz;
#[cfg(test)]
pub(crate) mod image;

use crate::pool::{Pool, PoolSpec};
use crate::system::Home;
use core::sync::atomic::{AtomicU64, Ordering};
use std::path::{Path, PathBuf};

pub use crate::door::tape::{Event, Failure};
pub use crate::door::{RankFile, Step};
pub use audit::{Audit, audit, audit_blocks};
pub use dice::Dice;
pub use disk::{Disk, Fate};

pub mod tape {
    //! What goes through the door, noted.
    pub use crate::door::tape::{VARIABLE, fail, make, mark, open, ranks, start, stop};
}

/// What the names of the directories of temporary pools begin with.
pub(crate) const NAME: &str = "pil4dfs-test-";

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
        let ring = crate::log::ring_bytes(size_mib << 20);
        TempPool::with_log(parent, ranks, size_mib, ring)
    }

    /// The same with a log of `ring` bytes.
    pub fn with_log(parent: &Path, ranks: usize, size_mib: u64, ring: u64) -> TempPool {
        let uuid = uuid::Uuid::new_v4();
        let dir = parent.join(format!("{NAME}{}", uuid.simple()));
        let spec = spec_in(&dir, uuid, ranks, size_mib);
        for rank in &spec.ranks {
            std::fs::create_dir_all(rank).expect("temporary directory");
        }
        Pool::format_with(&spec, ring).expect("format");
        let pool = Pool::attach(&spec).expect("attach");
        TempPool { dir, spec, pool }
    }

    /// Describes a pool made here, by its rank directories.
    pub fn spec_of_ranks(ranks: &[PathBuf], size_mib: u64) -> PoolSpec {
        let dir = ranks.first().and_then(|rank| rank.parent()).expect("ranks");
        let name = dir.file_name().and_then(|name| name.to_str());
        let uuid = name.and_then(|name| name.strip_prefix(NAME)).expect("name");
        spec_in(dir, uuid.parse().expect("uuid"), ranks.len(), size_mib)
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

/// What the engine takes for the start of the machine; 0 = what it is.
static BOOT: AtomicU64 = AtomicU64::new(0);

/// From now on this process believes the machine to have been started anew.
pub fn power_failed() {
    BOOT.fetch_add(1, Ordering::SeqCst);
}

pub(crate) fn another_boot() -> Option<u64> {
    match BOOT.load(Ordering::SeqCst) {
        0 => None,
        boot => Some(boot),
    }
}

/// The next time to be told; 0 = what it is.
static CLOCK: AtomicU64 = AtomicU64::new(0);

/// From now on every look at the clock of this process finds it a microsecond later: what a seed
/// leads to can be repeated.
pub fn stop_clock(start_ns: u64) {
    CLOCK.store(start_ns, Ordering::SeqCst);
}

pub(crate) fn another_clock() -> Option<i64> {
    match CLOCK.load(Ordering::SeqCst) {
        0 => None,
        _ => Some(CLOCK.fetch_add(1000, Ordering::SeqCst) as i64),
    }
}

/// Recovers the pool whose rank directories lie in `dir`, with those of `spec` for a model, beside
/// whatever pools the process has. One at a time: the calling thread has to leave it before the
/// next one is opened.
pub fn open_image(dir: &Path, spec: &PoolSpec) -> Result<&'static Pool, crate::EngineError> {
    let spec = PoolSpec {
        ranks: spec
            .ranks
            .iter()
            .filter_map(|rank| Some(dir.join(rank.file_name()?)))
            .collect(),
        runtime_dir: dir.to_owned(),
        ..spec.clone()
    };
    crate::attach::build_image(&spec).map(|pool| &*Box::leak(Box::new(pool)))
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
        excluded: Vec::new(),
        targets_per_rank: 4,
        size_bytes: size_mib << 20,
        runtime_dir: PathBuf::from("/dev/shm"),
        home: Home::default(),
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
