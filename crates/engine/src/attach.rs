//! Making, finding and mapping a pool's arena and log.
//!
//! An arena is built under a temporary name, complete with everything recovered from the rank
//! files, and then linked to its final name: whoever finds the name finds a whole arena.

use crate::checkpoint::is_own;
use crate::door::{self, RankFile};
use crate::error::EngineError;
use crate::layout::{ARENA_VERSION, MAGIC, REBUILT_UNSEEN, VERSION, VERSION_MIN, header};
use crate::limits::{BLOCK, GROW_PAGES, PAGE, POOLS_MAX, RANKS_MAX, TARGETS_MAX, at};
use crate::log::{LOG_FILE_HEADER, ZEROS, ring_bytes};
use crate::media::{DATA_FILE, Media, errno};
use crate::pool::{POOLS, Pool, PoolSpec};
use crate::process;
use crate::prove::Own;
use crate::rebuild::{Checkpoint, Rebuilt};
use crate::recover::Seen;
use crate::system::{Home, mark};
use core::sync::atomic::{AtomicU64, Ordering};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use shm::{HUGE_PAGE, Segment, crash_point};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use sys::Errno;

/// Name of the log in the first rank's directory.
pub(crate) const LOG_FILE: &str = RankFile::Log.name();
/// Where the kernel says which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Word of the log's first page that names the start of the machine in which the log was last
/// recovered or made.
const LOG_BOOT: u64 = 5;
/// `DAOSLOG1`.
const LOG_MAGIC: u64 = u64::from_le_bytes(*b"DAOSLOG1");

type Outcome<T> = Result<T, EngineError>;

fn at_path(what: &str, path: &Path) -> impl Fn(rustix::io::Errno) -> EngineError {
    let text = format!("{what} {}", path.display());
    move |e| EngineError::system(text.clone(), errno(e))
}

impl Pool {
    /// The process's handle on the pool, attaching it if need be.
    ///
    /// An arena that exists is joined; else one is built from the rank files.
    pub fn attach(spec: &PoolSpec) -> Outcome<&'static Pool> {
        check(spec)?;
        if let Some(pool) = attached(spec.uuid) {
            return Ok(pool);
        }
        let path = arena_path(spec);
        for _ in 0..16 {
            match open_arena(&path, spec)? {
                Some(arena) => {
                    let word = arena.word(header::LOG_RANK);
                    let rank = word.map_or(0, |w| w.load(Ordering::Acquire));
                    let log = open_log(spec, rank as usize)?;
                    check_log_mark(&arena, spec, rank as usize)?;
                    return publish(handle(spec, arena, path, log)?);
                }
                None => build(spec, &path)?,
            }
        }
        Err(EngineError::Busy(format!(
            "arena {} keeps vanishing",
            path.display()
        )))
    }

    /// Writes the rank files of a new pool into existing, empty directories.
    pub fn format(spec: &PoolSpec) -> Outcome<()> {
        Pool::format_with(spec, ring_bytes(spec.size_bytes))
    }

    pub(crate) fn format_with(spec: &PoolSpec, ring: u64) -> Outcome<()> {
        check(spec)?;
        for dir in &spec.ranks {
            format_rank(dir).map_err(|e| at_dir("creating files in", dir)(e))?;
        }
        let dir = spec
            .ranks
            .first()
            .map(PathBuf::as_path)
            .unwrap_or(Path::new(""));
        format_log(spec, dir, ring).map_err(at_dir("writing the log in", dir))?;
        for dir in &spec.ranks {
            door::flush_names(dir).map_err(at_dir("flushing", dir))?;
        }
        Ok(())
    }

    /// Removes the arena of a pool that is going away or that nobody uses.
    pub fn remove_arena(spec: &PoolSpec) -> Outcome<()> {
        let path = arena_path(spec);
        match rustix::fs::unlink(&path) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(at_path("removing", &path)(e)),
        }
    }

    /// Once after the arena was rebuilt from disk: has `restore` reclaim what was open and unlinked
    /// when the last arena vanished, and count the blocks of files anew, for data that had not been
    /// synced before a power failure is gone. Whoever is killed at it leaves it to the next who comes. False
    /// if it is done, or somebody is at it.
    pub fn after_rebuild(&self, restore: impl FnOnce() -> sys::Result<()>) -> sys::Result<bool> {
        let word = self.word(header::REBUILT)?;
        let seen = word.load(Ordering::Acquire);
        if seen == 0 || process::is_at_work(self, seen >> 1) {
            return Ok(false);
        }
        let mine = process::worker(self)? << 1 | REBUILT_UNSEEN;
        let claimed = word.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_err() {
            return Ok(false);
        }
        crash_point!("rebuilt.claimed");
        let restored = restore();
        let left = match restored {
            Err(error) if is_own(error) => REBUILT_UNSEEN,
            // Damage is met once: what can be used of the pool is.
            _ => 0,
        };
        word.store(left, Ordering::Release);
        restored.map(|()| true)
    }
}

fn at_dir(what: &str, dir: &Path) -> impl Fn(Errno) -> EngineError {
    let text = format!("{what} {}", dir.display());
    move |e| EngineError::system(text.clone(), e)
}

fn format_rank(dir: &Path) -> sys::Result<()> {
    let file = door::create(dir, RankFile::Data, OFlags::EXCL)?;
    door::flush(&file, dir, RankFile::Data)
}

/// Writes an empty log: not only allocated, a first write to a mapped page is slow on disk.
fn format_log(spec: &PoolSpec, dir: &Path, ring: u64) -> sys::Result<()> {
    let file = door::create(dir, RankFile::Log, OFlags::EXCL)?;
    let (high, low) = spec.uuid.as_u64_pair();
    let mut head = [0u8; LOG_FILE_HEADER as usize];
    let words = [LOG_MAGIC, VERSION, high, low, ring, boot()];
    for (bytes, word) in head.chunks_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    door::write(&file, dir, RankFile::Log, &head, 0)?;
    let zeros = vec![0u8; ZEROS as usize];
    let mut off = 0;
    while off < ring {
        let count = (ring - off).min(zeros.len() as u64);
        let zeros = &zeros[..count as usize];
        door::write(&file, dir, RankFile::Log, zeros, LOG_FILE_HEADER + off)?;
        off += count;
    }
    door::flush(&file, dir, RankFile::Log)
}

/// What identifies the time since the machine was started; 0 if that cannot be known.
fn boot() -> u64 {
    #[cfg(feature = "testing")]
    if let Some(boot) = crate::testing::another_boot() {
        return boot;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut text = [0u8; 36];
    let read = rustix::fs::open(BOOT_ID, flags, Mode::empty())
        .and_then(|file| rustix::io::read(&file, &mut text));
    match (read, uuid::Uuid::try_parse_ascii(&text)) {
        (Ok(36), Ok(id)) => {
            let (high, low) = id.as_u64_pair();
            high ^ low
        }
        _ => 0,
    }
}

pub(crate) fn attached(uuid: uuid::Uuid) -> Option<&'static Pool> {
    POOLS.iter().find_map(|slot| {
        let pool = slot.load(Ordering::Acquire);
        // SAFETY: handles are leaked on purpose and never freed.
        let pool = unsafe { pool.as_ref() }?;
        (pool.spec.uuid == uuid).then_some(pool)
    })
}

fn publish(mut pool: Pool) -> Outcome<&'static Pool> {
    for (index, slot) in POOLS.iter().enumerate() {
        if slot.load(Ordering::Acquire).is_null() {
            pool.index = index;
            let leaked = Box::into_raw(Box::new(pool));
            let won = slot.compare_exchange(
                core::ptr::null_mut(),
                leaked,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match won {
                // SAFETY: just leaked, never freed.
                Ok(_) => return Ok(unsafe { &*leaked }),
                // SAFETY: nobody has seen the pointer.
                Err(_) => pool = *unsafe { Box::from_raw(leaked) },
            }
        }
    }
    Err(EngineError::Invalid(format!(
        "one process can use {POOLS_MAX} pools"
    )))
}

fn check(spec: &PoolSpec) -> Outcome<()> {
    let ranks = spec.ranks.len();
    let targets = ranks * spec.targets_per_rank as usize;
    if ranks == 0 || ranks > RANKS_MAX || targets == 0 || targets > TARGETS_MAX {
        return Err(EngineError::Invalid(format!(
            "{ranks} ranks of {} targets: at most {RANKS_MAX} ranks and {TARGETS_MAX} targets",
            spec.targets_per_rank
        )));
    }
    Ok(())
}

/// Where a pool's arena lies. The same for every process, also in a user name space, where it has
/// other ids.
pub(crate) fn arena_path(spec: &PoolSpec) -> PathBuf {
    arena_of(&spec.runtime_dir, spec.uuid)
}

/// The same, of any pool.
pub(crate) fn arena_of(runtime_dir: &Path, uuid: uuid::Uuid) -> PathBuf {
    runtime_dir.join(format!("daos-{}", uuid.simple()))
}

/// Maps the arena if it exists and is one of this pool, in this layout.
fn open_arena(path: &Path, spec: &PoolSpec) -> Outcome<Option<Segment>> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other.map_err(at_path("opening", path))?,
    };
    let stat = rustix::fs::fstat(&file).map_err(at_path("opening", path))?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(EngineError::Invalid(format!(
            "arena {} belongs to user {}: remove it or set another DAOS_EMBEDDED_ROOT",
            path.display(),
            stat.st_uid
        )));
    }
    if (stat.st_size as u64) < at::PAGES {
        return Err(not_an_arena(path));
    }
    let arena = map(&file, path)?;
    let word = |off| arena.word(off).map_or(0, |w| w.load(Ordering::Acquire));
    if word(header::MAGIC) != MAGIC {
        return Err(not_an_arena(path));
    }
    if word(header::VERSION) != ARENA_VERSION {
        return Err(EngineError::Invalid(format!(
            "arena {} has layout {}, this software uses {ARENA_VERSION}: end the programs that use the \
             pool and remove the file",
            path.display(),
            word(header::VERSION)
        )));
    }
    let (high, low) = spec.uuid.as_u64_pair();
    if (word(header::UUID_HIGH), word(header::UUID_LOW)) != (high, low) {
        return Err(not_an_arena(path));
    }
    let home = home_of(&arena);
    if !home.is(&spec.home) {
        return Err(runs_elsewhere(&home, path, spec));
    }
    let pages = word(header::PAGES_BACKED).min(at::PAGES_MAX);
    // The size now: the arena may have grown since it was opened.
    let size = rustix::fs::fstat(&file).map_err(at_path("opening", path))?;
    if at::PAGES + pages * PAGE > size.st_size as u64 {
        return Err(not_an_arena(path));
    }
    arena
        .set_backed(at::PAGES + pages * PAGE)
        .map_err(|e| mapping(path, e))?;
    Ok(Some(arena))
}

fn not_an_arena(path: &Path) -> EngineError {
    EngineError::Corrupt(format!(
        "{} is not a whole arena of the pool: end the programs that use the pool and remove the \
         file, it is rebuilt from the rank directories",
        path.display()
    ))
}

/// The directory through which an arena was brought up.
fn home_of(arena: &Segment) -> Home {
    let word = |off| arena.word(off).map_or(0, |w| w.load(Ordering::Acquire));
    let words = (header::HOME_DIR..header::HOME_DIR + header::HOME_DIR_BYTES).step_by(8);
    let bytes = words.flat_map(|off| word(off).to_ne_bytes());
    let dir = bytes.take_while(|byte| *byte != 0).collect();
    Home {
        dir: PathBuf::from(std::ffi::OsString::from_vec(dir)),
        mark: [word(header::HOME_MARK), word(header::HOME_MARK + 8)],
    }
}

/// The pool was brought up through another directory than that of `spec`.
fn runs_elsewhere(home: &Home, path: &Path, spec: &PoolSpec) -> EngineError {
    let dir = &home.dir;
    // <root>/pools/<uuid>
    let root = dir.parent().and_then(Path::parent).unwrap_or(dir);
    EngineError::Busy(if home.is_there() {
        format!(
            "pool {} runs from {}, of which {} is a copy or the original, and copies run one at a \
             time: end the programs that use it, then: DAOS_EMBEDDED_ROOT={} dmg system stop",
            spec.uuid,
            dir.display(),
            spec.home.dir.display(),
            root.display()
        )
    } else {
        format!(
            "pool {} runs from {}, which is gone or whose attach file was replaced: end the programs \
             that use it, then: rm {}",
            spec.uuid,
            dir.display(),
            path.display()
        )
    })
}

fn map(file: &OwnedFd, path: &Path) -> Outcome<Segment> {
    Segment::map(file.as_fd(), at::SPAN, at::FIXED_END).map_err(|e| mapping(path, e))
}

fn mapping(path: &Path, errno: Errno) -> EngineError {
    let hint = if errno == Errno::ENOMEM {
        " (a limit on address space, ulimit -v, has to leave 1 GiB and the arena's size to the pool)"
    } else {
        ""
    };
    EngineError::system(format!("mapping {}{hint}", path.display()), errno)
}

/// Maps the log of a rank if it is one of this pool, in this format.
fn open_log(spec: &PoolSpec, rank: usize) -> Outcome<Segment> {
    let dir = spec.ranks.get(rank).map(PathBuf::as_path);
    let path = dir.unwrap_or(Path::new("")).join(LOG_FILE);
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::empty()).map_err(at_path("opening", &path))?;
    let stat = rustix::fs::fstat(&file).map_err(at_path("opening", &path))?;
    if stat.st_nlink > 1 {
        return Err(EngineError::Invalid(format!(
            "{} has {} names: a copy made with hard links shares the pool's files; copy the pool again \
             with cp -a or rsync -a, and remove the copy of links",
            path.display(),
            stat.st_nlink
        )));
    }
    let size = stat.st_size as u64;
    let log = Segment::map(file.as_fd(), size.max(LOG_FILE_HEADER), size)
        .map_err(|e| mapping(&path, e))?;
    let word = |i: u64| log.word(i * 8).map_or(0, |w| w.load(Ordering::Acquire));
    let (high, low) = spec.uuid.as_u64_pair();
    if word(0) != LOG_MAGIC || (word(2), word(3)) != (high, low) {
        return Err(EngineError::Corrupt(format!(
            "{} is not the pool's log; restore the rank's directory, or remove it if the pool has \
             others like it",
            path.display()
        )));
    }
    if !(VERSION_MIN..=VERSION).contains(&word(1)) {
        return Err(EngineError::Corrupt(format!(
            "{} has format {}, this software reads {VERSION_MIN} to {VERSION}: use the version that wrote it",
            path.display(),
            word(1)
        )));
    }
    if word(4) == 0 || word(4) % PAGE != 0 || LOG_FILE_HEADER + word(4) > size {
        return Err(EngineError::Corrupt(format!(
            "{} is cut short; restore the rank's directory, or remove it if the pool has others like it",
            path.display()
        )));
    }
    Ok(log)
}

/// What tells the log of a rank from a file put in its place.
fn log_mark(spec: &PoolSpec, rank: usize) -> Outcome<[u64; 2]> {
    let dir = spec.ranks.get(rank).map(PathBuf::as_path);
    let path = dir.unwrap_or(Path::new("")).join(LOG_FILE);
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::empty()).map_err(at_path("opening", &path))?;
    mark(&file).map_err(|e| EngineError::system(format!("stat {}", path.display()), e))
}

/// Refuses an arena that goes with another log: what is in the files now is not what it says.
fn check_log_mark(arena: &Segment, spec: &PoolSpec, rank: usize) -> Outcome<()> {
    let words = [header::LOG_MARK, header::LOG_MARK + 8];
    let known = words.map(|at| arena.word(at).map_or(0, |w| w.load(Ordering::Acquire)));
    if log_mark(spec, rank)? == known {
        return Ok(());
    }
    Err(EngineError::Busy(format!(
        "pool {}: the log of rank {rank} was replaced (restored, copied over) while its shared memory \
         was kept: end the programs that use the pool, then: rm {}",
        spec.uuid,
        arena_path(spec).display()
    )))
}

/// A rank and its log.
type RankLog = (u16, Segment);

/// The logs of a pool.
pub(crate) struct Logs {
    /// That of the first rank that has one.
    first: RankLog,
    others: Vec<RankLog>,
    /// There may be others, which cannot be opened now.
    incomplete: bool,
}

/// The first rank's error if no rank has a log.
pub(crate) fn open_logs(spec: &PoolSpec) -> Outcome<Logs> {
    let mut logs = Vec::new();
    let (mut first, mut incomplete) = (None, false);
    for (rank, dir) in spec.ranks.iter().enumerate() {
        if spec.excluded.contains(&(rank as u16)) {
            continue;
        }
        match open_log(spec, rank) {
            Ok(log) => logs.push((rank as u16, log)),
            Err(error) => {
                // What is not mounted may be an empty directory.
                let data = rustix::fs::stat(dir.join(DATA_FILE));
                incomplete |= error.errno() != Errno::ENOENT || data.is_err();
                first = first.or(Some(error));
            }
        }
    }
    let mut logs = logs.into_iter();
    match (logs.next(), first) {
        (Some(first), _) => Ok(Logs {
            first,
            others: logs.collect(),
            incomplete,
        }),
        (None, Some(EngineError::System { what, errno })) => Err(EngineError::system(
            format!(
                "no rank of pool {} has its log: bring back the directory of the rank that is gone, or \
                 destroy the pool (dmg pool destroy {}); {what}",
                spec.uuid, spec.uuid
            ),
            errno,
        )),
        (None, Some(error)) => Err(error),
        (None, None) => Err(EngineError::Corrupt("a pool without ranks".into())),
    }
}

fn handle(spec: &PoolSpec, arena: Segment, arena_path: PathBuf, log: Segment) -> Outcome<Pool> {
    let media = Media::new().map_err(|e| EngineError::system("reserving address space", e))?;
    let own = private_words().map_err(|e| EngineError::system("reserving memory", e))?;
    Ok(Pool {
        arena,
        log,
        media,
        spec: spec.clone(),
        arena_path,
        index: POOLS_MAX,
        scratch: std::sync::Mutex::default(),
        own: Own::new(own),
    })
}

/// Words that are zero again in a forked child.
fn private_words() -> sys::Result<&'static [AtomicU64; Own::WORDS]> {
    // SAFETY: a fresh private mapping that is never unmapped.
    unsafe {
        let page = rustix::mm::mmap_anonymous(
            core::ptr::null_mut(),
            PAGE as usize,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
        .map_err(errno)?;
        rustix::mm::madvise(page, PAGE as usize, Advice::LinuxWipeOnFork).map_err(errno)?;
        Ok(&*page.cast())
    }
}

/// Builds an arena from the rank files and gives it its name, unless somebody else was faster.
fn build(spec: &PoolSpec, path: &Path) -> Outcome<()> {
    let mut random = [0u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(at_path("building", path))?;
    let instance = u64::from_le_bytes(random) | 1;
    let building = path.with_extension(format!("building-{instance:016x}"));
    let lock = builders_lock(spec).map_err(at_dir("locking the ranks of", path))?;
    if rustix::fs::stat(path).is_ok() {
        // Somebody was faster.
        return Ok(());
    }
    remove_unfinished(path);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&building, flags, Mode::RUSR | Mode::WUSR)
        .map_err(at_path("creating", &building))?;
    let built = build_in(spec, &file, &building, instance);
    let named = built.and_then(|pool| {
        // The mapping stays: other parts of this process may hold addresses into it.
        core::mem::forget(pool);
        match rustix::fs::linkat(
            rustix::fs::CWD,
            &building,
            rustix::fs::CWD,
            path,
            rustix::fs::AtFlags::empty(),
        ) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(e) => Err(at_path("naming", path)(e)),
        }
    });
    rustix::fs::unlink(&building).map_err(at_path("removing", &building))?;
    drop(lock);
    named
}

/// Removes what killed builders of the arena at `path` have left: who has the right to build is
/// alone.
fn remove_unfinished(path: &Path) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let prefix = format!("{}.building-", name.to_string_lossy());
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // What cannot be removed only takes space.
            std::fs::remove_file(entry.path()).unwrap_or_default();
        }
    }
}

/// Recovers a pool in an arena that only the caller knows.
#[cfg(feature = "testing")]
pub(crate) fn build_image(spec: &PoolSpec) -> Outcome<Pool> {
    let path = spec.runtime_dir.join("image");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(at_path("creating", &path))?;
    build_in(spec, &file, &path, 1)
}

/// The right to recover a pool from its rank files, held while the descriptor is open.
fn builders_lock(spec: &PoolSpec) -> sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = spec
        .ranks
        .iter()
        .map(|dir| rustix::fs::open(dir, flags, Mode::empty()));
    let dir = opened
        .reduce(|first, other| first.or(other))
        .unwrap_or(Err(rustix::io::Errno::NOENT))
        .map_err(errno)?;
    rustix::io::retry_on_intr(|| {
        rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive)
    })
    .map_err(errno)?;
    Ok(dir)
}

fn build_in(spec: &PoolSpec, file: &OwnedFd, path: &Path, instance: u64) -> Outcome<Pool> {
    let back = |off, len| {
        rustix::fs::fallocate(file, FallocateFlags::empty(), off, len).map_err(|e| {
            EngineError::system(
                format!(
                    "reserving {} MiB for the arena {} (enlarge its file system, or free what idle \
                     pools have there: dmg system stop)",
                    len >> 20,
                    path.display()
                ),
                errno(e),
            )
        })
    };
    let arena = map(file, path)?;
    // What every process touches first: header, locks, targets, owners; the first records.
    for (off, len) in [(0, at::FIXED_END), (at::PAGES, GROW_PAGES * PAGE)] {
        if back(off, PAGE).is_ok() {
            arena.gather(off, HUGE_PAGE);
        }
        back(off, len)?;
    }
    back(at::DESCRIPTORS, GROW_PAGES * at::DESCRIPTOR_BYTES)?;
    arena
        .set_backed(at::PAGES + GROW_PAGES * PAGE)
        .map_err(|e| mapping(path, e))?;
    let set = |off: u64, value: u64| {
        if let Some(word) = arena.word(off) {
            word.store(value, Ordering::Release);
        }
    };
    let (high, low) = spec.uuid.as_u64_pair();
    set(header::MAGIC, MAGIC);
    set(header::VERSION, ARENA_VERSION);
    set(header::UUID_LOW, low);
    set(header::UUID_HIGH, high);
    set(header::INSTANCE, instance);
    set(header::HOME_MARK, spec.home.mark[0]);
    set(header::HOME_MARK + 8, spec.home.mark[1]);
    let dir = spec.home.dir.as_os_str().as_bytes();
    let dir = &dir[..dir.len().min(header::HOME_DIR_BYTES as usize - 8)];
    for (at, bytes) in (header::HOME_DIR..).step_by(8).zip(dir.chunks(8)) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        set(at, u64::from_ne_bytes(word));
    }
    set(header::PAGES_BACKED, GROW_PAGES);
    // Page 0 stays empty: number 0 means "none".
    set(header::FRONTIER, 1);
    set(header::RANK_COUNT, spec.ranks.len() as u64);
    set(header::TARGETS_PER_RANK, u64::from(spec.targets_per_rank));
    set(header::POOL_BLOCKS, spec.size_bytes / BLOCK);
    set(header::REBUILT, REBUILT_UNSEEN);
    // 0 is noted where no window was ever entered.
    set(header::WINDOW, 1);
    let logs = open_logs(spec)?;
    let (first, log) = logs.first;
    let mut pool = handle(spec, arena, path.to_path_buf(), log)?;
    let recovered = pool.find_checkpoint().and_then(|found| {
        let (seen, copies) = pool.choose_log(&found.base, first, logs.others)?;
        pool.recover_files(&found, &seen, &copies, logs.incomplete)
    });
    // The thread's owner slot in the nameless arena must not stay on its robust list.
    let left = pool.leave();
    let rebuilt = recovered.map_err(|e| match e {
        Errno::EIO => EngineError::Corrupt(format!(
            "pool {}: its files are damaged; restore the rank directories from a copy, or \
             destroy the pool: dmg pool destroy {}",
            spec.uuid, spec.uuid
        )),
        other => EngineError::system(format!("recovering pool {}", spec.uuid), other),
    })?;
    let building = |e| EngineError::system("building the arena", e);
    left.map_err(building)?;
    if rebuilt == Rebuilt::Lacking {
        return Err(lacking(spec, &pool.ranks_missed().map_err(building)?));
    }
    let rank = pool.log_rank().map_or(0, usize::from);
    for (at, word) in [header::LOG_MARK, header::LOG_MARK + 8]
        .into_iter()
        .zip(log_mark(spec, rank)?)
    {
        pool.store(at, word).map_err(building)?;
    }
    Ok(pool)
}

/// Refuses a pool whose ranks `missed` are gone.
pub(crate) fn lacking(spec: &PoolSpec, missed: &[u16]) -> EngineError {
    let numbers: Vec<String> = missed.iter().map(u16::to_string).collect();
    let numbers = numbers.join(",");
    let first = missed.first().and_then(|r| spec.ranks.get(usize::from(*r)));
    EngineError::Lacking(format!(
        "pool {0} lacks rank {numbers}, which may have what no other has: bring back {1} (mount its \
         device), or go on for good without the rank and what only it has: \
         dmg pool exclude {0} --ranks={numbers}",
        spec.uuid,
        first.map_or(Path::new(""), PathBuf::as_path).display(),
    ))
}

impl Pool {
    /// Fills the arena. What was unsynced stays so: to write it all once more would take longer than
    /// all the rest.
    fn recover_files(
        &self,
        found: &Checkpoint,
        seen: &Seen,
        copies: &[u16],
        incomplete: bool,
    ) -> sys::Result<Rebuilt> {
        let home = self.log_rank()?;
        let word = self.log.word(LOG_BOOT * 8).ok_or(Errno::EIO)?;
        let (boot, log_boot) = (boot(), word.load(Ordering::Acquire));
        let trusted = boot != 0 && boot == log_boot;
        let doubted = trusted.then_some(found.base.start.max(found.base.end));
        self.leave_to_settle(copies, found.base.start, seen.end, doubted)?;
        let rebuilt = self.rebuild(found, seen, trusted)?;
        if rebuilt == Rebuilt::Lacking {
            return Ok(rebuilt);
        }
        // Perhaps another log went on further than this, or otherwise: should that one come back, it must
        // not fit the checkpoint, however much it holds.
        let usual = (0..self.rank_count()).find(|r| !self.spec.excluded.contains(r));
        let parts = Some(home) != usual || incomplete;
        if parts {
            match self.branch_off() {
                Err(Errno::ENOSPC) => {
                    self.checkpoint()?;
                    self.branch_off()?;
                }
                other => other?,
            }
        }
        let missed = !self.ranks_missed()?.is_empty();
        if missed {
            // A rank that is gone may have the end of a checkpoint that somebody else's recovery has made, with
            // other decisions than this one's: nothing of that may be newer than what is decided now.
            self.touch_pages(|state| state.replicas > 0)?;
        }
        if rebuilt == Rebuilt::Changed || parts || missed {
            // What the log says of data does not count any more.
            self.checkpoint()?;
        }
        if boot != log_boot {
            self.name_boot(home, boot)?;
            for copy in copies {
                // Should it take the log's place, and cannot say so, what it lacks is looked for.
                self.name_boot(*copy, boot).unwrap_or_default();
            }
        }
        Ok(rebuilt)
    }

    /// Notes in a rank's log in which start of the machine it was recovered.
    fn name_boot(&self, rank: u16, boot: u64) -> sys::Result<()> {
        let dir = self.rank_dir(rank)?;
        let file = door::open(dir, RankFile::Log)?;
        door::write(&file, dir, RankFile::Log, &boot.to_ne_bytes(), LOG_BOOT * 8)?;
        door::flush(&file, dir, RankFile::Log)
    }
}
