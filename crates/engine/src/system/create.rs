//! Creating pools. For the command line: uses `std::fs`.

use crate::media::DATA_FILE;
use crate::system::fd::{errno, open, open_dir};
use crate::system::home::{Home, settle};
use crate::system::map::MAP_NAME;
use crate::system::root::{check_local, make_dir, open_own_dir};
use crate::system::{
    AttachFile, MapRank, PoolDescriptor, PoolMap, RankState, SystemError, SystemRoot,
};
use daos_types::{Ident, Label, PoolId};
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use std::path::{Path, PathBuf};
use sys::Errno;

/// Most ranks of a pool.
pub(crate) const RANKS_MAX: u16 = crate::limits::RANKS_MAX as u16;
/// Most targets of a pool.
pub(crate) const TARGETS_MAX: u32 = crate::limits::TARGETS_MAX as u32;
/// Least bytes of a rank.
pub(crate) const RANK_BYTES_MIN: u64 = 1 << 20;
/// Most bytes of a rank.
pub(crate) const RANK_BYTES_MAX: u64 = crate::limits::RANK_BLOCKS_MAX * crate::limits::BLOCK;
/// Preallocation step in bytes, one turn of the progress bar.
const RESERVE_STEP: u64 = 64 << 20;

/// A pool to be made.
#[derive(Clone, Debug)]
pub struct PoolSpec {
    /// Label.
    pub label: Label,
    /// Size in bytes over all ranks.
    pub size_bytes: u64,
    /// Ranks.
    pub ranks: u16,
    /// Targets on each rank.
    pub targets_per_rank: u16,
    /// Existing directories over which the ranks are spread in turn; none: below the pool's own.
    pub rank_paths: Vec<PathBuf>,
    /// Preallocate all space.
    pub reserve: bool,
}

/// A pool that was made.
pub type PoolInfo = PoolDescriptor;

/// Removes what a failed creation left, unless told to keep it.
struct Cleanup {
    paths: Vec<PathBuf>,
    armed: bool,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if self.armed {
            for path in &self.paths {
                // Nothing better can be done about leftovers of a failure than to try.
                std::fs::remove_dir_all(path).unwrap_or(());
            }
        }
    }
}

impl PoolSpec {
    fn check_numbers(&self) -> Result<(), SystemError> {
        let range = |what, asked: u64, limit: u64| {
            let good = (1..=limit).contains(&asked);
            if good {
                Ok(())
            } else {
                Err(SystemError::OutOfRange { what, asked, limit })
            }
        };
        range("ranks", self.ranks.into(), RANKS_MAX.into())?;
        range(
            "targets per rank",
            self.targets_per_rank.into(),
            TARGETS_MAX.into(),
        )?;
        let targets = u64::from(self.ranks) * u64::from(self.targets_per_rank);
        range("targets", targets, TARGETS_MAX.into())?;
        if self.size_bytes == 0 {
            return Err(SystemError::ZeroSize);
        }
        let needed = u64::from(self.ranks) * RANK_BYTES_MIN;
        if self.size_bytes < needed {
            let (asked, ranks) = (self.size_bytes, self.ranks);
            return Err(SystemError::TooSmall {
                asked,
                needed,
                ranks,
            });
        }
        Ok(())
    }

    fn rank_bytes(&self) -> u64 {
        self.size_bytes / u64::from(self.ranks.max(1))
    }

    /// The directory that holds each rank's directory, and whether it is a `--rank-path`.
    fn bases(&self, root: &Path) -> Vec<PathBuf> {
        let own = [root.to_owned()];
        let paths = if self.rank_paths.is_empty() {
            &own[..]
        } else {
            &self.rank_paths
        };
        paths
            .iter()
            .cycle()
            .take(self.ranks.into())
            .cloned()
            .collect()
    }

    /// Refuses devices that are remote or lack the space.
    fn check_devices(&self, root: &Path) -> Result<(), SystemError> {
        let mut devices: Vec<(u64, PathBuf, u64)> = Vec::new();
        for base in self.bases(root) {
            if !base.is_absolute() {
                return Err(SystemError::io(
                    "use relative rank path",
                    &base,
                    Errno::EINVAL,
                ));
            }
            let dir = open_dir(&base).map_err(|e| SystemError::io("open rank path", &base, e))?;
            check_local(&dir, &base)?;
            let stat =
                rustix::fs::fstat(&dir).map_err(|e| SystemError::io("stat", &base, errno(e)))?;
            match devices
                .iter_mut()
                .find(|(device, ..)| *device == stat.st_dev)
            {
                Some((_, _, ranks)) => *ranks += 1,
                None => devices.push((stat.st_dev, base, 1)),
            }
        }
        let rank_bytes = self.rank_bytes();
        for (_, path, ranks) in devices {
            let stat = rustix::fs::statvfs(&path)
                .map_err(|e| SystemError::io("statfs", &path, errno(e)))?;
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let asked = rank_bytes.saturating_mul(ranks);
            // A tmpfs without limit reports no blocks at all.
            if stat.f_blocks > 0 && asked > free {
                return Err(SystemError::BeyondDevice { asked, free, path });
            }
        }
        let (asked, limit) = (rank_bytes, RANK_BYTES_MAX);
        if asked > limit {
            return Err(SystemError::RankTooLarge { asked, limit });
        }
        Ok(())
    }
}

/// Holds an advisory lock on a file of ours until dropped; never blocks a reader.
pub(crate) fn flock(path: &Path, wait: bool) -> Result<Option<crate::system::fd::Fd>, SystemError> {
    let flags = OFlags::RDWR | OFlags::CREATE;
    let file =
        open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| SystemError::io("open", path, e))?;
    let how = if wait {
        FlockOperation::LockExclusive
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    loop {
        match rustix::fs::flock(&file, how).map_err(errno) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(SystemError::io("lock", path, error)),
        }
    }
}

fn random_uuid() -> Result<PoolId, SystemError> {
    let mut bytes = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    match rustix::rand::getrandom(&mut bytes, flags) {
        Ok(16) => Ok(PoolId::from_random(bytes)),
        Ok(_) => Err(SystemError::io(
            "read random bytes",
            Path::new("getrandom"),
            Errno::EIO,
        )),
        Err(e) => Err(SystemError::io(
            "read random bytes",
            Path::new("getrandom"),
            errno(e),
        )),
    }
}

fn now_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}

impl SystemRoot {
    /// Creates a pool. `progress` hears bytes done and bytes in all while space is reserved.
    ///
    /// Nothing stays behind on failure. Errors: `ZeroSize`, `TooSmall`, `BeyondDevice`,
    /// `OutOfRange`, `LabelTaken`, `NetworkFileSystem`, `ForeignOwner`, `Io`.
    pub fn create_pool(
        &self,
        spec: &PoolSpec,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<PoolInfo, SystemError> {
        spec.check_numbers()?;
        self.open_or_create()?;
        spec.check_devices(self.path())?;
        if let Some(uuid) = self.label_uuid(spec.label.as_str())?
            && self.pool_dir(uuid).exists()
        {
            return Err(SystemError::LabelTaken(spec.label.to_string()));
        }
        let uuid = random_uuid()?;
        let staging = self.pools().join(format!("{uuid}.new"));
        let mut cleanup = Cleanup {
            paths: vec![staging.clone()],
            armed: true,
        };
        // Tells cleaners that this creation is alive; they must not come before.
        let _alive = {
            let _system = flock(&self.path().join("lock"), true)?;
            make_dir(&staging)?;
            flock(&staging.join("lock"), true)?
        };
        let map = self.plan(spec, uuid);
        self.make_ranks(spec, &map, &staging, &mut cleanup, progress)?;
        self.publish(&map, &staging)?;
        cleanup.armed = false;
        self.find_pool(&Ident::Uuid(uuid.0))
    }

    /// The map of the finished pool.
    fn plan(&self, spec: &PoolSpec, uuid: PoolId) -> PoolMap {
        let dir = self.pool_dir(uuid);
        let bases = spec.bases(self.path());
        let own = spec.rank_paths.is_empty();
        let ranks = bases.iter().enumerate().map(|(rank, base)| {
            let parent = if own {
                dir.clone()
            } else {
                base.join(uuid.to_string())
            };
            let path = parent.join(format!("rank{rank:02}"));
            MapRank {
                rank: rank as u16,
                state: RankState::UpIn,
                path,
            }
        });
        PoolMap {
            uuid,
            label: spec.label.clone(),
            version: 1,
            size_bytes: spec.size_bytes,
            created_ns: now_ns(),
            reserved: spec.reserve,
            targets_per_rank: spec.targets_per_rank,
            ranks: ranks.collect(),
            attrs: Vec::new(),
        }
    }

    fn make_ranks(
        &self,
        spec: &PoolSpec,
        map: &PoolMap,
        staging: &Path,
        cleanup: &mut Cleanup,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), SystemError> {
        let bytes = map.clone().named_in(&self.pool_dir(map.uuid)).encode();
        // The file keeps its mark when the directory gets its final name.
        let home = Home {
            dir: self.pool_dir(map.uuid),
            ..AttachFile::open(staging)?.home()
        };
        let write_map = |dir: &Path| {
            let opened = open_dir(dir).map_err(|e| SystemError::io("open directory", dir, e))?;
            crate::system::fd::replace_at(&opened, Path::new(MAP_NAME), &bytes)
                .map_err(|e| SystemError::io("write pool map in", dir, e))
        };
        // The registry's copy first: it names the directories a cleaner has to remove.
        write_map(staging)?;
        let total = spec.rank_bytes() * u64::from(spec.ranks);
        let mut done = 0;
        let mut made = Vec::new();
        for rank in &map.ranks {
            let final_parent = rank.path.parent().unwrap_or(staging);
            let parent = if spec.rank_paths.is_empty() {
                staging
            } else {
                final_parent
            };
            if !cleanup.paths.iter().any(|path| path == parent) {
                cleanup.paths.push(parent.to_owned());
            }
            make_dir(parent)?;
            open_own_dir(parent, Mode::WGRP | Mode::WOTH)?;
            let dir = parent.join(rank.path.file_name().unwrap_or_default());
            make_dir(&dir)?;
            write_map(&dir)?;
            if !spec.rank_paths.is_empty() {
                settle(&dir, &home)?;
            }
            made.push(dir);
        }
        crate::Pool::format(&crate::PoolSpec {
            uuid: map.uuid.0,
            ranks: made.clone(),
            excluded: Vec::new(),
            targets_per_rank: spec.targets_per_rank.into(),
            size_bytes: spec.size_bytes,
            runtime_dir: PathBuf::new(),
            home: Home::default(),
        })?;
        if spec.reserve {
            for dir in made {
                reserve(&dir.join(DATA_FILE), spec.rank_bytes(), &mut |step| {
                    done += step;
                    progress(done, total);
                })?;
            }
        }
        Ok(())
    }

    /// Takes the label and gives the pool its final name.
    fn publish(&self, map: &PoolMap, staging: &Path) -> Result<(), SystemError> {
        let _lock = flock(&self.path().join("lock"), true)?;
        self.clean_leftovers();
        let label = map.label.as_str();
        let link = self.label_link(label);
        if let Some(uuid) = self.label_uuid(label)? {
            if self.pool_dir(uuid).exists() {
                return Err(SystemError::LabelTaken(label.to_owned()));
            }
            // A creation or destruction was cut between the link and the directory.
            std::fs::remove_file(&link).map_err(|e| SystemError::std("remove", &link, &e))?;
        }
        let target = Path::new("../pools").join(map.uuid.to_string());
        std::os::unix::fs::symlink(&target, &link)
            .map_err(|e| SystemError::std("make link", &link, &e))?;
        let last = self.pool_dir(map.uuid);
        let renamed =
            std::fs::rename(staging, &last).map_err(|e| SystemError::std("rename", staging, &e));
        if renamed.is_err() {
            std::fs::remove_file(&link).map_err(|e| SystemError::std("remove", &link, &e))?;
        }
        renamed?;
        for dir in [self.pools(), self.path().join("labels")] {
            let opened = open_dir(&dir).map_err(|e| SystemError::io("open directory", &dir, e))?;
            rustix::fs::fsync(&opened).map_err(|e| SystemError::io("sync", &dir, errno(e)))?;
        }
        Ok(())
    }
}

/// Preallocates a file in steps.
fn reserve(path: &Path, bytes: u64, step_done: &mut dyn FnMut(u64)) -> Result<(), SystemError> {
    let flags = OFlags::RDWR | OFlags::CREATE;
    let file =
        open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| SystemError::io("open", path, e))?;
    let mut at = 0;
    while at < bytes {
        let step = RESERVE_STEP.min(bytes - at);
        rustix::fs::fallocate(&file, FallocateFlags::empty(), at, step)
            .map_err(|e| SystemError::io("reserve space in", path, errno(e)))?;
        at += step;
        step_done(step);
    }
    rustix::fs::fsync(&file).map_err(|e| SystemError::io("sync", path, errno(e)))
}
