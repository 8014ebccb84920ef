//! Attaching a pool that was found, by the rules of the `attach` file.

use crate::attach::{arena_of, arena_path, attached, lacking, open_logs};
use crate::layout::{MAGIC, header};
use crate::rebuild::is_rank_gone;
use crate::system::fd::{errno, open};
use crate::system::find::{list_dir, registry_only};
use crate::system::{
    AttachFile, AttachLock, Authority, Home, PoolDescriptor, RankState, Standing, SystemError,
    SystemRoot,
};
use crate::{ContainerInfo, EngineError, Pool, PoolSpec};
use daos_types::{Ident, PoolId};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
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

/// Which arena it is, and through which directory it was brought up.
struct Arena {
    instance: u64,
    home: Home,
}

/// The arena in a file; `None` if there is no whole arena.
fn arena_in(path: &Path) -> Option<Arena> {
    const BYTES: usize = (header::HOME_DIR + header::HOME_DIR_BYTES) as usize;
    let file = open(path, OFlags::RDONLY, Mode::empty()).ok()?;
    let mut bytes = [0; BYTES];
    let count = rustix::io::pread(&file, &mut bytes, 0).ok()?;
    let word = |at: u64| {
        let bytes = bytes.get(at as usize..at as usize + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    if count != bytes.len() || word(header::MAGIC) != Some(MAGIC) {
        return None;
    }
    let dir = bytes.get(header::HOME_DIR as usize..)?;
    let dir = dir.split(|byte| *byte == 0).next()?;
    Some(Arena {
        instance: word(header::INSTANCE)?,
        home: Home {
            dir: PathBuf::from(OsStr::from_bytes(dir)),
            mark: [word(header::HOME_MARK)?, word(header::HOME_MARK + 8)?],
        },
    })
}

fn alive(authority: &Authority) -> bool {
    arena_in(&authority.arena).is_some_and(|arena| arena.instance == authority.instance)
}

/// The attach file of a pool that the process has joined.
struct Joined {
    file: AttachFile,
    /// Its locks say that the process is attached.
    holds: bool,
}

impl Joined {
    fn keep(self) {
        if self.holds {
            keep_open(self.file);
        }
    }
}

/// Keeps the file, and so its locks, for the life of the process, out of the way of the
/// program's own descriptors where their limit allows it.
fn keep_open(file: AttachFile) {
    // SAFETY: duplicates a descriptor of ours; the copy is meant to stay open for good.
    let copy = unsafe {
        sys::syscall!(
            SYS_FCNTL,
            file.descriptor().raw(),
            F_DUPFD_CLOEXEC,
            DESCRIPTOR_FLOOR
        )
    };
    match copy {
        Ok(copy) => sys::own_fd::announce(copy as i32),
        Err(_) => core::mem::forget(file),
    }
}

impl SystemRoot {
    /// Finds and attaches a pool by label or UUID: what a mount does at every exec.
    ///
    /// While the pool runs, the registry's copy of the map suffices, for a majority was read when
    /// it was brought up; ranks then count as present. Errors: as [`SystemRoot::find_pool`] and
    /// [`PoolDescriptor::attach`].
    pub fn open_pool(&self, name: &Ident) -> Result<(PoolDescriptor, &'static Pool), SystemError> {
        let (pool, attached, file) = self.join_pool(name)?;
        file.keep();
        Ok((pool, attached))
    }

    /// As [`SystemRoot::open_pool`], with the attach file.
    fn join_pool(
        &self,
        name: &Ident,
    ) -> Result<(PoolDescriptor, &'static Pool, Joined), SystemError> {
        let (uuid, dir, opened) = self.resolve(name)?;
        let file = AttachFile::open_at(&opened, &dir)?;
        let running =
            attached(uuid.0).is_some() || file.read().is_some_and(|authority| alive(&authority));
        let known = if running {
            registry_only(&opened, &dir, uuid)?
        } else {
            None
        };
        let (pool, file) = match known {
            Some(pool) => (pool, file),
            None => {
                // It may be another directory than the one that is open.
                let pool = self.find_pool(name)?;
                let file = AttachFile::open(&pool.dir)?;
                (pool, file)
            }
        };
        let (attached, file) = pool.attach_by(file)?;
        Ok((pool, attached, file))
    }

    /// Finds and attaches a pool, finds a container in it, and marks the container as open in
    /// this process for good: what a mount does.
    ///
    /// Errors: as [`SystemRoot::open_pool`]; `Engine(NotFound)` for an unknown container.
    pub fn open_container(
        &self,
        pool: &Ident,
        container: &str,
    ) -> Result<(PoolDescriptor, &'static Pool, ContainerInfo), SystemError> {
        let (descriptor, attached, joined) = self.join_pool(pool)?;
        let hold = || -> Result<ContainerInfo, SystemError> {
            let info = attached.find_container(container)?;
            joined.file.hold_container(info.index)?;
            Ok(info)
        };
        match hold() {
            Ok(info) => {
                keep_open(joined.file);
                Ok((descriptor, attached, info))
            }
            Err(error) => {
                joined.keep();
                Err(error)
            }
        }
    }
}

impl PoolDescriptor {
    /// What the engine needs to know of the pool, with the arena in `runtime_dir`.
    pub(crate) fn spec(&self, runtime_dir: PathBuf, home: Home) -> PoolSpec {
        PoolSpec {
            uuid: self.uuid.0,
            ranks: self.ranks.iter().map(|rank| rank.path.clone()).collect(),
            excluded: (self.ranks.iter())
                .filter(|rank| !rank.state.serves())
                .map(|rank| rank.rank)
                .collect(),
            targets_per_rank: self.targets_per_rank.into(),
            size_bytes: self.size_bytes,
            runtime_dir,
            home,
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
        let (pool, joined) = self.attach_by(AttachFile::open(&self.dir)?)?;
        joined.keep();
        Ok(pool)
    }

    fn attach_by(&self, file: AttachFile) -> Result<(&'static Pool, Joined), SystemError> {
        let home = file.home();
        if let Some(pool) = self.attached_here(&home)? {
            return Ok((pool, Joined { file, holds: false }));
        }
        let lock = file.lock()?;
        if let Some(pool) = self.attached_here(&home)? {
            drop(lock);
            return Ok((pool, Joined { file, holds: false }));
        }
        let warm = match file.standing(&lock, &mut |authority| alive(authority))? {
            Standing::Warm(authority) => self.join_arena(&file, &authority)?,
            Standing::Cold => None,
        };
        let pool = match warm {
            Some(pool) => pool,
            None => self.bring_up(&file, &lock)?,
        };
        file.hold()?;
        let ranks = self.hold_ranks(&home)?;
        drop(lock);
        if let Some(ranks) = ranks {
            keep_open(ranks);
        }
        Ok((pool, Joined { file, holds: true }))
    }

    /// The pool if this process has it, through this directory.
    fn attached_here(&self, home: &Home) -> Result<Option<&'static Pool>, SystemError> {
        let Some(pool) = attached(self.uuid.0) else {
            return Ok(None);
        };
        if pool.spec().home.is(home) {
            return Ok(Some(pool));
        }
        Err(SystemError::Engine(EngineError::Busy(format!(
            "this process uses {}, of which {} is a copy or the original: use one of them at a time",
            pool.spec().home.dir.display(),
            self.dir.display()
        ))))
    }

    /// Brings the pool up from the rank files.
    fn bring_up(
        &self,
        file: &AttachFile,
        lock: &AttachLock<'_>,
    ) -> Result<&'static Pool, SystemError> {
        let home = file.home();
        let files = self.home_files()?;
        let mut claims = Vec::new();
        for file in &files {
            claims.push((file, file.lock()?));
        }
        self.claim_ranks(&claims, &home)?;
        let spec = self.spec(self.runtime_dir(), home);
        // An arena without authority is one that was cut while being brought up, or one of before
        // the pool ran elsewhere: the rank files are newer. One of another directory is that of a
        // pool of which this is a copy; it may have been copied too.
        let other = arena_in(&arena_path(&spec)).is_some_and(|arena| {
            let nobodys = arena.home == Home::default() || spec.runtime_dir == self.dir;
            !nobodys && !arena.home.is(&spec.home)
        });
        if !other {
            Pool::remove_arena(&spec)?;
        }
        let pool = Pool::attach(&spec)?;
        file.write(lock, &Authority::here(pool.instance(), pool.arena_path()))?;
        Ok(pool)
    }

    /// Joins the shared memory of the authority on file; `None` if it is of no use and gone: the
    /// rank that had the log is lost, and nobody who has it mapped is left.
    fn join_arena(
        &self,
        file: &AttachFile,
        authority: &Authority,
    ) -> Result<Option<&'static Pool>, SystemError> {
        let dir = authority.arena.parent().unwrap_or(Path::new(SHARED_MEMORY));
        let spec = self.spec(dir.to_owned(), file.home());
        if arena_path(&spec) != authority.arena {
            // Never a second arena beside the one in use.
            return Err(SystemError::Engine(EngineError::Busy(format!(
                "pool {} runs in {}, made by another version of this software: end the \
                 programs that use the pool and remove the file",
                self.label,
                authority.arena.display()
            ))));
        }
        match Pool::attach(&spec) {
            Err(error) if error.errno() == Errno::ENOENT && file.holder()?.is_none() => {
                remove_arena_files(&authority.arena)?;
                Ok(None)
            }
            other => Ok(Some(other?)),
        }
    }

    /// Whether any process has opened a container through [`SystemRoot::open_container`].
    pub fn container_is_open(&self, info: &ContainerInfo) -> Result<bool, SystemError> {
        AttachFile::open(&self.dir)?.container_held(info.index)
    }

    /// Frees the shared memory of a pool that nobody uses; it is rebuilt at the next use.
    ///
    /// Everything completed is flushed to the rank files first. Returns the bytes freed, 0 if the
    /// pool had none. For the command line: the calling process must not use the pool any more.
    /// Errors: `Attached`.
    pub fn release(&self) -> Result<u64, SystemError> {
        let file = AttachFile::open(&self.dir)?;
        let _lock = file.lock()?;
        let Some(authority) = self.idle(&file)? else {
            return Ok(0);
        };
        let arena = &authority.arena;
        let _ranks = self.hold_ranks(&file.home())?;
        let bytes = rustix::fs::stat(arena).map_or(0, |stat| stat.st_blocks as u64 * 512);
        let dir = arena.parent().unwrap_or(Path::new(SHARED_MEMORY));
        let pool = Pool::attach(&self.spec(dir.to_owned(), file.home()))?;
        pool.sync().map_err(|e| self.not_synced(pool.spec(), e))?;
        remove_arena_files(arena)?;
        Ok(bytes)
    }

    /// What kept a pool from being synced: a rank that is gone, if one is.
    fn not_synced(&self, spec: &PoolSpec, error: Errno) -> SystemError {
        let serving = self.ranks.iter().filter(|rank| rank.state.serves());
        let gone = serving.filter(|rank| is_rank_gone(&rank.path));
        match gone.map(|rank| rank.rank).collect::<Vec<u16>>() {
            gone if gone.is_empty() => SystemError::io("sync", &self.dir, error),
            gone => SystemError::Engine(lacking(spec, &gone)),
        }
    }

    /// What is said of the shared memory of a pool that nobody uses; `None` if it has none. The file is
    /// locked. Errors: `Attached`; `Engine(Busy)`.
    fn idle(&self, file: &AttachFile) -> Result<Option<Authority>, SystemError> {
        if let Some(process) = file.holder()? {
            return Err(SystemError::Attached {
                pool: self.label.to_string(),
                process,
            });
        }
        let Some(authority) = file.read().filter(alive) else {
            return Ok(None);
        };
        if !beside(&authority.arena)?.is_empty() {
            return Err(SystemError::Engine(EngineError::Busy(format!(
                "pool {}: files that programs had mapped are not written back yet; they are when \
                 they are next used (mount the container and read them)",
                self.label
            ))));
        }
        Ok(Some(authority))
    }

    /// Gives up a rank that is gone, and what only it has: the pool is brought up without it, and goes
    /// on without it should it come back. What shared memory has of its names and attributes goes to
    /// other ranks first. Nothing is done about a rank that is excluded already.
    ///
    /// Returns the pool as it is then. For the command line, as [`PoolDescriptor::release`]. Errors:
    /// `Attached`; `Engine(Invalid)` if there is no such rank, or it is there; `Engine` if no other rank has
    /// the log.
    pub fn exclude(&self, rank: u16) -> Result<PoolDescriptor, SystemError> {
        let refused = |why: String| Err(SystemError::Engine(EngineError::Invalid(why)));
        let Some(found) = self.ranks.get(usize::from(rank)) else {
            return refused(format!("pool request contains invalid rank: {rank}"));
        };
        if !found.state.serves() {
            return Ok(self.clone());
        }
        if !is_rank_gone(&found.path) {
            return refused(format!(
                "rank {rank} is there ({}), and what it has would not be moved to others: only ranks that \
                 are gone can be excluded",
                found.path.display()
            ));
        }
        let file = AttachFile::open(&self.dir)?;
        let _lock = file.lock()?;
        let idle = self.idle(&file)?;
        let mut spec = self.spec(self.dir.clone(), file.home());
        spec.excluded.push(rank);
        open_logs(&spec)?;
        let _ranks = self.hold_ranks(&file.home())?;
        if let Some(authority) = &idle
            && let Some(pool) = self.join_arena(&file, authority)?
        {
            let saved = pool.write_elsewhere(rank);
            saved.map_err(|e| SystemError::io("write what shared memory has to", &self.dir, e))?;
        }
        let without = self.update_map(&mut |map| {
            if let Some(rank) = map.ranks.get_mut(usize::from(rank)) {
                rank.state = RankState::Down;
            }
        })?;
        idle.map_or(Ok(()), |authority| remove_arena_files(&authority.arena))?;
        Ok(without)
    }
}

/// The shared memory of a pool that goes, if it was brought up through the directory of the file,
/// though perhaps another file was there then.
pub(crate) fn own_arena(file: &AttachFile, uuid: PoolId) -> Option<PathBuf> {
    let named = file.read().map(|authority| authority.arena);
    let path = named.unwrap_or_else(|| arena_of(Path::new(SHARED_MEMORY), uuid.0));
    arena_in(&path)
        .is_some_and(|arena| arena.home.dir == file.dir() || arena.home.is(&file.home()))
        .then_some(path)
}

/// Files of mapped files: beside an arena, under its name and a dot.
fn beside(arena: &Path) -> Result<Vec<PathBuf>, SystemError> {
    let (Some(dir), Some(name)) = (arena.parent(), arena.file_name()) else {
        return Ok(Vec::new());
    };
    let mut prefix = name.as_bytes().to_vec();
    prefix.push(b'.');
    let names = list_dir(dir)?.into_iter();
    Ok(names
        .filter(|name| name.as_bytes().starts_with(&prefix))
        .map(|name| dir.join(name))
        .collect())
}

/// Removes the shared memory of a pool that goes or that nobody uses; only a file that is an
/// arena, and what programs had mapped.
pub(crate) fn remove_arena_files(arena: &Path) -> Result<(), SystemError> {
    if arena_in(arena).is_none() {
        return Ok(());
    }
    for path in beside(arena)?.iter().map(PathBuf::as_path).chain([arena]) {
        match rustix::fs::unlink(path).map_err(errno) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(SystemError::io("remove shared memory", path, error)),
        }
    }
    Ok(())
}
