//! Attaching a pool that was found, by the rules of the `attach` file.

use crate::attach::attached;
use crate::layout::{MAGIC, header};
use crate::system::fd::{Fd, errno, open};
use crate::system::{AttachFile, Authority, PoolDescriptor, Standing, SystemError};
use crate::{Pool, PoolSpec};
use rustix::fs::{Mode, OFlags};
use std::path::{Path, PathBuf};
use sys::Errno;

/// Where arenas live unless it is too small.
const SHARED_MEMORY: &str = "/dev/shm";
/// Free bytes below which the arena goes to the pool's own directory (containers often have a
/// shared-memory file system of 64 MiB).
const SHARED_MEMORY_MIN: u64 = 256 << 20;
/// Descriptors of ours stay out of the range programs use.
const DESCRIPTOR_FLOOR: usize = 900;
const F_DUPFD_CLOEXEC: usize = 1030;
const SYS_FCNTL: usize = if cfg!(target_arch = "x86_64") { 72 } else { 25 };

/// Instance number of the arena in a file; `None` if there is no whole arena.
fn instance_of(path: &Path) -> Option<u64> {
    let file = open(path, OFlags::RDONLY, Mode::empty()).ok()?;
    let mut bytes = [0; header::INSTANCE as usize + 8];
    let count = rustix::io::pread(&file, &mut bytes, 0).ok()?;
    let word = |at: u64| {
        let bytes = bytes.get(at as usize..at as usize + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let whole = count == bytes.len() && word(header::MAGIC) == Some(MAGIC);
    whole.then(|| word(header::INSTANCE)).flatten()
}

fn alive(authority: &Authority) -> bool {
    instance_of(&authority.arena) == Some(authority.instance)
}

/// Moves a descriptor that stays open out of the way of the program's own.
fn keep_high(file: &Fd) {
    // SAFETY: duplicates a descriptor of ours; the copy is meant to stay open for good.
    let copy = unsafe { sys::syscall!(SYS_FCNTL, file.raw(), F_DUPFD_CLOEXEC, DESCRIPTOR_FLOOR) };
    // Without a copy the lock ends with the file: others are then not warned, nothing breaks.
    if let Ok(copy) = copy {
        sys::own_fd::announce(copy as i32);
    }
}

impl PoolDescriptor {
    /// What the engine needs to know of the pool, with the arena in `runtime_dir`.
    pub(crate) fn spec(&self, runtime_dir: PathBuf) -> PoolSpec {
        PoolSpec {
            uuid: self.uuid.0,
            ranks: self.ranks.iter().map(|rank| rank.path.clone()).collect(),
            targets_per_rank: self.targets_per_rank.into(),
            size_bytes: self.size_bytes,
            runtime_dir,
        }
    }

    /// Directory for a new arena: shared memory, or the pool's own where that is too small.
    fn runtime_dir(&self) -> PathBuf {
        let roomy = rustix::fs::statvfs(SHARED_MEMORY).is_ok_and(|stat| {
            stat.f_blocks == 0 || stat.f_bavail.saturating_mul(stat.f_frsize) >= SHARED_MEMORY_MIN
        });
        if roomy {
            PathBuf::from(SHARED_MEMORY)
        } else {
            self.dir.clone()
        }
    }

    /// The process's handle on the pool, attaching it if need be.
    ///
    /// Joins the shared memory of the authority on file; if nobody runs the pool, brings it up
    /// from the rank files. Errors: `OtherRuntime`, `Io` (`ENOENT` once destroyed), `Engine`.
    pub fn attach(&self) -> Result<&'static Pool, SystemError> {
        if let Some(pool) = attached(self.uuid.0) {
            return Ok(pool);
        }
        let file = AttachFile::open(&self.dir)?;
        let lock = file.lock()?;
        if let Some(pool) = attached(self.uuid.0) {
            return Ok(pool);
        }
        let pool = match file.standing(&lock, &mut |authority| alive(authority))? {
            Standing::Warm(authority) => {
                let dir = authority.arena.parent().unwrap_or(Path::new(SHARED_MEMORY));
                Pool::attach(&self.spec(dir.to_owned()))?
            }
            Standing::Cold => {
                let spec = self.spec(self.runtime_dir());
                // An arena without authority is one that was cut while being brought up, or one
                // of before the pool ran elsewhere: the rank files are newer.
                Pool::remove_arena(&spec)?;
                let pool = Pool::attach(&spec)?;
                file.write(&lock, &Authority::here(pool.instance(), pool.arena_path()))?;
                pool
            }
        };
        file.hold()?;
        keep_high(file.descriptor());
        Ok(pool)
    }

    /// A process other than the caller that has the pool attached, as numbered where it runs.
    pub fn other_user(&self) -> Result<Option<u32>, SystemError> {
        AttachFile::open(&self.dir)?.other_holder()
    }

    /// Frees the shared memory of a pool that nobody uses; it is rebuilt at the next use.
    ///
    /// Everything completed is flushed to the rank files first. Errors: `Attached`.
    pub fn release(&self) -> Result<(), SystemError> {
        let file = AttachFile::open(&self.dir)?;
        let lock = file.lock()?;
        if let Some(process) = file.holder()? {
            return Err(SystemError::Attached {
                pool: self.label.to_string(),
                process,
            });
        }
        match file.read() {
            Some(authority) if alive(&authority) => {
                let dir = authority
                    .arena
                    .parent()
                    .unwrap_or(Path::new(SHARED_MEMORY))
                    .to_owned();
                let spec = self.spec(dir);
                Pool::attach(&spec)?
                    .sync()
                    .map_err(|e| SystemError::io("sync", &self.dir, e))?;
                drop(lock);
                Ok(Pool::remove_arena(&spec)?)
            }
            _ => Ok(()),
        }
    }
}

/// Removes the shared memory of a pool that is being destroyed; only a file that is an arena.
pub(crate) fn remove_arena_file(arena: &Path) -> Result<(), SystemError> {
    if instance_of(arena).is_none() {
        return Ok(());
    }
    match rustix::fs::unlink(arena).map_err(errno) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(SystemError::io("remove shared memory", arena, error)),
    }
}
