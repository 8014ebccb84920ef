//! Memory mappings of files.
//!
//! For mappings an inode has one cache file beside the arena, in which its data lies, as far as it is
//! or was mapped ([`filled`]), while it is registered (volatile word [`word::TABLE`]): mappings show
//! its pages, reads come from it, and writes and truncations change it together with the pool, under
//! the inode's lock. It is never shorter than the file: what a truncation cuts off goes once that is
//! published, by whoever comes next if who did it was killed. A private mapping for which too much
//! would have to be copied into the cache gets a snapshot in a memory file of its own instead.
//!
//! What programs store through shared mappings is brought to the pool by comparing ([`write_back`]):
//! by the process itself, for the range it mapped, at `msync`, when it unmaps and when it ends; by
//! anybody, for the whole file, at `fsync`. Stores that a process may have left behind are noted
//! ([`state::UNSURE`]): whoever ends the last mapping looks for them. A change of which only one of the
//! two has got its part is noted too ([`doubt`]).
//!
//! Each process that has registered a file has a record in a list of its process slot, which counts
//! as an open description of the inode.

mod doubt;
mod filled;
mod home;
mod path;

use crate::inode::{self, high, link_word, low, pair, word};
use crate::io::cursor::{Cursor, Source};
use crate::io::read::read_at;
use crate::io::write::bump;
use crate::map::BLOCK;
use crate::map::file::File;
use crate::names::orphan::Retired;
use crate::ofd::{lock_of, proc, word_at};
use crate::{Dfs, Ino, IoVec, Ofd};
pub(crate) use doubt::{agree, decide, doubt};
use engine::{LockId, Pool, Rec, Tx, crash_point, kind};
use filled::Filled;
use home::Home;
use path::CachePath;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use rustix::fs::{FallocateFlags, MemfdFlags, OFlags, StatVfsMountFlags};
use sys::{Errno, Result, file_limit, syscall};

const SYS_PREAD64: usize = if cfg!(target_arch = "x86_64") { 17 } else { 67 };
const SYS_PWRITE64: usize = if cfg!(target_arch = "x86_64") { 18 } else { 68 };

/// Bytes compared or copied at a time.
const BUFFER: usize = 256 << 10;
/// Rounds of writing back before a file that keeps changing is left registered.
const ROUNDS: usize = 16;

/// Private mappings of fewer bytes get a copy unless the cache file has them.
const SHARE_FROM: u64 = 1 << 20;

/// Words of a process's record of a mapped file.
mod field {
    pub(super) const NEXT: u64 = 1;
    pub(super) const INO: u64 = 2;
    /// Mappings of the process.
    pub(super) const COUNT: u64 = 3;
    /// What the process may have stored: one of [`super::stores`].
    pub(super) const STORES: u64 = 4;
}

/// What a process may have stored through its mappings of a file.
mod stores {
    /// Nothing.
    pub(super) const NONE: u64 = 0;
    /// What it has not brought to the pool.
    pub(super) const LEFT: u64 = 1;
    /// Nothing but what is in the pool: the process is about to end.
    pub(super) const HOME: u64 = 2;
}

/// Bits in the low half of [`word::TABLE`] of a file, below [`registration`]; the high half counts
/// processes.
mod state {
    pub(super) const REGISTERED: u32 = 1;
    /// Somebody may store through a mapping: what is in the pool may be old.
    pub(super) const STORES: u32 = 2;
    /// There may be stores that no process will bring to the pool by itself.
    pub(super) const UNSURE: u32 = 4;
    /// The cache file, the pool or both are being changed ([`super::doubt`]).
    pub(super) const DOUBT: u32 = 8;
}

/// What to give to `mmap(2)` for a mapping of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapSource {
    /// Kernel descriptor; the caller closes it after mapping.
    pub fd: i32,
    /// Offset in it.
    pub offset: u64,
    /// [`Dfs::map_end`] is due when the mapping ends.
    pub registered: bool,
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::new(error.raw_os_error())
}

fn cache(file: &File<'_>) -> Result<OwnedFd> {
    CachePath::new(file.pool, file.ino)?
        .open()
        .map_err(|_| Errno::EIO)
}

fn pread(fd: BorrowedFd<'_>, to: *mut u8, len: usize, pos: u64) -> Result<usize> {
    // SAFETY: the kernel checks the address and answers EFAULT; the buffer is the caller's to fill.
    unsafe { syscall!(SYS_PREAD64, fd.as_raw_fd(), to, len, pos) }
}

fn pwrite_all(fd: BorrowedFd<'_>, from: *const u8, len: usize, pos: u64) -> Result<()> {
    let mut done = 0;
    while done < len {
        let at = from.wrapping_add(done);
        // SAFETY: the kernel checks the address and answers EFAULT.
        let write = || unsafe {
            syscall!(
                SYS_PWRITE64,
                fd.as_raw_fd(),
                at,
                len - done,
                pos + done as u64
            )
        };
        let wrote = file_limit::exempt(write)?;
        if wrote == 0 {
            return Err(Errno::EIO);
        }
        done += wrote;
    }
    Ok(())
}

/// Whether somebody may store through a mapping: the cache file may be newer than the pool.
#[inline]
fn is_stored_to(file: &File<'_>) -> Result<bool> {
    Ok(low(file.load(word::TABLE)?) & state::STORES != 0)
}

/// Which registration of mappings a file has, with the size of its granules; another number once it
/// has ended and the next has begun.
pub(crate) fn registration(file: &File<'_>) -> Result<u32> {
    Ok(low(file.load(word::TABLE)?) >> 8)
}

/// Reads from the cache file what the pool may have older; `None` if all data is in the pool.
#[inline]
pub(crate) fn read(file: &File<'_>, cursor: &mut Cursor<'_>, pos: u64) -> Result<Option<usize>> {
    if is_stored_to(file)? {
        read_parts(file, cursor, pos).map(Some)
    } else {
        Ok(None)
    }
}

#[cold]
fn read_parts(file: &File<'_>, cursor: &mut Cursor<'_>, pos: u64) -> Result<usize> {
    let mut done = 0;
    while cursor.left() > 0 {
        let at = pos + done as u64;
        let known = Filled::of(file)?;
        let (cached, end) = match is_stored_to(file)? {
            true => known.at(at),
            false => (false, u64::MAX),
        };
        let mut part = *cursor;
        part.limit(usize::try_from(end - at).unwrap_or(usize::MAX));
        let wanted = part.left();
        let read = match cached {
            true => read_cache(file, &mut part, at),
            false => read_at(file, &mut part, at),
        };
        if cached && registration(file)? != known.registration {
            // Not the file that was looked for.
            continue;
        }
        match read {
            Ok(read) => {
                cursor.advance(read);
                done += read;
                if read < wanted {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

fn read_cache(file: &File<'_>, cursor: &mut Cursor<'_>, pos: u64) -> Result<usize> {
    let cache = cache(file)?;
    // The cache file is the longer one while the size changes.
    let left = file.size()?.saturating_sub(pos);
    cursor.limit(usize::try_from(left).unwrap_or(usize::MAX));
    let mut done = 0;
    while let Some((address, len)) = cursor.peek(usize::MAX) {
        match pread(cache.as_fd(), address, len, pos + done as u64) {
            Ok(0) => break,
            Ok(read) => {
                cursor.advance(read);
                done += read;
            }
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Stores the next `len` bytes of a write in the cache file too. The inode's lock is held.
#[cold]
pub(crate) fn mirror(
    file: &File<'_>,
    mut source: Source<'_>,
    start: u64,
    len: usize,
) -> Result<()> {
    let cache = cache(file)?;
    fit(cache.as_fd(), file.size()?)?;
    match &mut source {
        Source::User(cursor) => cursor.each(len, |done, address, part| {
            pwrite_all(cache.as_fd(), address, part, start + done as u64)
        }),
        Source::Zero => {
            let zeros = [0u8; BLOCK as usize];
            let mut done = 0;
            while done < len {
                let part = zeros.len().min(len - done);
                pwrite_all(cache.as_fd(), zeros.as_ptr(), part, start + done as u64)?;
                done += part;
            }
            Ok(())
        }
    }?;
    crash_point!("map.mirrored");
    Ok(())
}

/// Before a file gets a new size: its cache file, if there is one, is as long as the longer one needs.
/// The inode's lock is held.
pub(crate) fn grow(file: &File<'_>, len: u64) -> Result<()> {
    if !file.is_mapped()? {
        return Ok(());
    }
    let (cache, size) = (cache(file)?, file.size()?);
    fit(cache.as_fd(), size)?;
    fit(cache.as_fd(), len.max(size))
}

/// After a file got a new size, or did not: its cache file, if there is one, gets the one it has.
pub(crate) fn settle_size(file: &File<'_>) -> Result<()> {
    if !file.is_mapped()? {
        return Ok(());
    }
    let _held = file.tx()?;
    match file.is_mapped()? {
        true => fit(cache(file)?.as_fd(), file.size()?),
        false => Ok(()),
    }
}

fn length(cache: BorrowedFd<'_>) -> Result<u64> {
    Ok(rustix::fs::fstat(cache).map_err(errno)?.st_size as u64)
}

/// Makes a cache file as long as the file, which it is whenever the inode's lock is free, unless who
/// changed the size has failed or was killed: what it has beyond must not come back.
fn fit(cache: BorrowedFd<'_>, len: u64) -> Result<()> {
    if length(cache)? == len {
        return Ok(());
    }
    file_limit::exempt(|| rustix::fs::ftruncate(cache, len).map_err(errno))
}

/// The same for who does not hold the lock.
fn fit_locked(file: &File<'_>, cache: BorrowedFd<'_>) -> Result<()> {
    if length(cache)? == file.size()? {
        return Ok(());
    }
    let _held = file.tx()?;
    fit(cache, file.size()?)
}

/// Forgets what was stored through mappings in a range: that goes too, also where the pool has nothing.
/// What the pool has in that range goes next.
pub(crate) fn forget(file: &File<'_>, off: u64, end: u64) -> Result<()> {
    match off < end && doubt::leads(file)? {
        true => punch(file, off, end),
        false => Ok(()),
    }
}

/// Zeroes a range of the cache file, if there is one. For good only with the inode's lock held:
/// otherwise what the pool still has may be copied there again.
pub(crate) fn punch(file: &File<'_>, off: u64, end: u64) -> Result<()> {
    if off >= end || !file.is_mapped()? {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(cache(file)?, flags, off, end - off).map_err(errno)?;
    crash_point!("map.punched");
    Ok(())
}

/// For copying `span` bytes, in pieces if they are many. Not larger than it has to be: a page that is
/// touched first costs as much as copying it.
fn buffer(span: u64) -> Result<Vec<u8>> {
    let len = span.next_multiple_of(BLOCK).clamp(BLOCK, BUFFER as u64) as usize;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Brings what was stored through mappings in a byte range to the pool.
pub(crate) fn write_back(file: &File<'_>, from: u64, to: u64) -> Result<()> {
    if !is_stored_to(file)? {
        return Ok(());
    }
    let filled = Filled::of(file)?;
    if filled.registration == 0 {
        // It has ended meanwhile.
        return Ok(());
    }
    let cache = match cache(file) {
        Ok(cache) => cache,
        Err(_) if registration(file)? != filled.registration => return Ok(()),
        Err(errno) => return Err(errno),
    };
    fit_locked(file, cache.as_fd())?;
    let home = Home {
        file,
        cache: cache.as_fd(),
        registration: filled.registration,
    };
    filled.each(from, to, |from, to| home.bring(from, to))
}

/// Copies the data of a file from `off` on, up to `len` bytes, to a kernel file.
fn fill(file: &File<'_>, to: BorrowedFd<'_>, off: u64, len: u64) -> Result<()> {
    let size = file.size()?;
    let end = size.min(off.saturating_add(len));
    let room = end.saturating_sub(off);
    file_limit::exempt(|| rustix::fs::ftruncate(to, room).map_err(errno))?;
    let mut bytes = buffer(room)?;
    let mut pos = off;
    while pos < end {
        pos = match crate::trunc::seek_data(file, pos, false) {
            Ok(data) if data < end => data,
            Ok(_) | Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno),
        };
        let part = (end - pos).min(bytes.len() as u64) as usize;
        let iov = [IoVec {
            base: bytes.as_mut_ptr(),
            len: part,
        }];
        let read = read_at(file, &mut Cursor::new(&iov)?, pos)?;
        if read == 0 {
            break;
        }
        pwrite_all(to, bytes.as_ptr(), read, pos - off)?;
        pos += read as u64;
    }
    Ok(())
}

impl Dfs {
    /// Prepares a mapping of `len` bytes at `off` of an open file (`mmap(2)`).
    ///
    /// One that is registered must be ended by [`Dfs::map_end`] when the last piece of it is unmapped.
    /// `EACCES` when the description is not open for reading, or not for writing though a shared
    /// mapping may be written; `ENODEV` for what is no regular file; `EINVAL` for an offset that is
    /// no multiple of a page.
    pub fn map_begin(
        &self,
        ofd: Ofd,
        shared: bool,
        writable: bool,
        off: u64,
        len: u64,
    ) -> Result<MapSource> {
        let open = self.description(ofd)?;
        if open.is_path() {
            return Err(Errno::EBADF);
        }
        if !open.readable() || (shared && writable && !open.writable()) {
            return Err(Errno::EACCES);
        }
        if !off.is_multiple_of(BLOCK) || len == 0 {
            return Err(Errno::EINVAL);
        }
        let file = open.file().map_err(|_| Errno::ENODEV)?;
        let source = |fd: OwnedFd, offset, registered| MapSource {
            fd: fd.into_raw_fd(),
            offset,
            registered,
        };
        if shared {
            let stores = open.writable();
            return Ok(source(self.map_cache(&file, stores, off, len)?, off, true));
        }
        if self.shares_cache(&file, off, len)?
            && let Ok(fd) = self.map_cache(&file, false, off, len)
        {
            return Ok(source(fd, off, true));
        }
        // The data may be in the cache file all the same: it is fresher than the pool.
        write_back(&file, off, off.saturating_add(len))?;
        let name = c"pil4dfs-private";
        let snapshot = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(errno)?;
        fill(&file, snapshot.as_fd(), off, len.next_multiple_of(BLOCK))?;
        Ok(source(snapshot, 0, false))
    }

    /// Whether a private mapping shows the cache file: not if more would have to be copied for that
    /// than is worth it. It may be made executable at any time, which the kernel refuses for a file
    /// on a file system mounted `noexec`; a memory file is on none.
    fn shares_cache(&self, file: &File<'_>, off: u64, len: u64) -> Result<bool> {
        let size = file.size()?;
        let filled = match file.is_mapped()? {
            true => Filled::of(file)?,
            false => Filled::begin(file)?,
        };
        let missing = filled.missing(off, off.saturating_add(len), size);
        let worth = match len < SHARE_FROM || size <= off {
            true => missing == 0 && file.is_mapped()?,
            false => missing <= len.min(size - off).saturating_mul(2),
        };
        let executable = || {
            rustix::fs::statvfs(self.pool.arena_path())
                .is_ok_and(|fs| !fs.f_flag.contains(StatVfsMountFlags::NOEXEC))
        };
        Ok(worth && executable())
    }

    /// Registers a mapping of the calling process and opens the cache file; only for reading unless
    /// the program may store through it, so that the kernel refuses to make the mapping writable
    /// later (`mprotect(2)`).
    fn map_cache(&self, file: &File<'_>, stores: bool, off: u64, len: u64) -> Result<OwnedFd> {
        let path = CachePath::new(self.pool, file.ino)?;
        let made = self.register(file, &path, stores)?;
        let opened = made.map_or_else(|| path.open(), Ok).and_then(|cache| {
            fit_locked(file, cache.as_fd())?;
            filled::fill(file, cache.as_fd(), off, off.saturating_add(len))?;
            match stores {
                true => Ok(cache),
                false => path.open_as(OFlags::RDONLY),
            }
        });
        if opened.is_err() {
            self.map_end(file.ino)?;
        }
        opened
    }

    /// Enters a mapping of the calling process; the file has a cache file afterwards, which is
    /// returned if it was made now.
    fn register(&self, file: &File<'_>, path: &CachePath, stores: bool) -> Result<Option<OwnedFd>> {
        let slot = self.process_slot()?;
        let mut tx = self.pool.tx(&[file.lock(), lock_of(self.pool, slot)])?;
        inode::still(self.pool, file.ino, file.base)?;
        let table = doubt::decided(file)?;
        let mut bits = low(table) | state::REGISTERED | if stores { state::STORES } else { 0 };
        let mut made = None;
        if table == 0 {
            let (cache, size) = (path.create(self.pool)?, file.size()?);
            file_limit::exempt(|| rustix::fs::ftruncate(&cache, size).map_err(errno))?;
            made = Some(cache);
            bits |= Filled::begin(file)?.registration << 8;
            tx.set_volatile(file.at(word::FILLED), 0)?;
        }
        let users = match find(&tx, slot, file.ino)? {
            Some((rec, _)) => {
                let at = rec.offset() + field::COUNT * 8;
                let count = tx.load(at)?;
                tx.set_volatile(at, count + 1)?;
                if stores {
                    tx.set_volatile(rec.offset() + field::STORES * 8, stores::LEFT)?;
                }
                high(table)
            }
            None => {
                let left = if stores { stores::LEFT } else { stores::NONE };
                enter(&mut tx, slot, file.ino, file.target, (1, left))?;
                count_open(&mut tx, file.base, 1)?;
                high(table) + 1
            }
        };
        tx.set_volatile(file.at(word::TABLE), pair(users, bits))?;
        tx.commit().map(|_| made)
    }

    /// Before a registered mapping grows: what it will show then.
    pub fn map_fill(&self, ino: Ino, off: u64, len: u64) -> Result<()> {
        let file = File::open(self.pool, ino)?;
        let cache = cache(&file)?;
        filled::fill(&file, cache.as_fd(), off, off.saturating_add(len))
    }

    /// Brings what was stored through shared mappings in a range of the file to the pool
    /// (`msync(2)`), and with `durable` to the devices.
    pub fn map_sync(&self, ino: Ino, off: u64, len: u64, durable: bool) -> Result<()> {
        let file = File::open(self.pool, ino)?;
        // What could not be decided stays in doubt.
        decide(&file).unwrap_or_default();
        write_back(&file, off, off.saturating_add(len))?;
        if durable {
            crate::io::durable::sync(&file)
        } else {
            Ok(())
        }
    }

    /// Notes that stores of the calling process could not be brought to the pool.
    pub fn map_unsure(&self, ino: Ino) -> Result<()> {
        let file = File::open(self.pool, ino)?;
        let mut tx = self.pool.tx(&[file.lock()])?;
        inode::still(self.pool, file.ino, file.base)?;
        let table = file.load(word::TABLE)?;
        if table != 0 {
            tx.set_volatile(file.at(word::TABLE), table | u64::from(state::UNSURE))?;
        }
        tx.commit().map(|_| ())
    }

    /// Notes that what the calling process has stored so far is in the pool, in all files.
    pub fn maps_synced(&self) -> Result<()> {
        let slot = self.process_slot()?;
        let mut tx = self.pool.tx(&[lock_of(self.pool, slot)])?;
        let mut rec = Rec(low(tx.load(word_at(slot, proc::MAPS))?));
        for _ in 0..1 << 20 {
            if rec.is_none() {
                return tx.commit().map(|_| ());
            }
            let at = rec.offset() + field::STORES * 8;
            if tx.load(at)? == stores::LEFT {
                if tx.room() < 64 {
                    return Err(Errno::EOVERFLOW);
                }
                tx.set_volatile(at, stores::HOME)?;
            }
            rec = Rec(low(tx.load(rec.offset() + field::NEXT * 8)?));
        }
        Err(Errno::EIO)
    }

    /// Ends one registered mapping of the calling process: all pieces of it are unmapped, and what
    /// was stored through them was brought to the pool ([`Dfs::map_sync`]) or given up
    /// ([`Dfs::map_unsure`]).
    pub fn map_end(&self, ino: Ino) -> Result<()> {
        let slot = self.process_slot()?;
        // A child on its way counts on what its parent has registered.
        self.children_have_come(slot)?;
        self.map_leave(slot, ino, None)?;
        self.pool.prove_closed();
        Ok(())
    }

    /// Takes one mapping of the process in `slot` off, or all of them, and then says whether there
    /// may be stores of the process that are not in the pool. The last mapping of all processes
    /// brings to the pool what may be left.
    fn map_leave(&self, slot: u32, ino: Ino, all: Option<bool>) -> Result<()> {
        let file = File::open(self.pool, ino)?;
        let left = if all == Some(true) { state::UNSURE } else { 0 };
        for round in 0..=ROUNDS {
            let seen = file.load(word::SEQUENCE)?;
            let before = file.load(word::TABLE)?;
            let looked =
                high(before) <= 1 && (low(before) | left) & (state::UNSURE | state::DOUBT) != 0;
            let failed = looked && write_back(&file, 0, u64::MAX).is_err();
            // The list of what is to be freed is kept under the root's lock.
            let root = inode::lock(self.pool, self.root)?;
            let mut tx = self
                .pool
                .tx(&[file.lock(), lock_of(self.pool, slot), root])?;
            inode::still(self.pool, file.ino, file.base)?;
            let Some((rec, link_at)) = find(&tx, slot, ino)? else {
                return Err(Errno::EINVAL);
            };
            let count_at = rec.offset() + field::COUNT * 8;
            let count = tx.load(count_at)?;
            if count > 1 && all.is_none() {
                tx.set_volatile(count_at, count - 1)?;
                return tx.commit().map(|_| ());
            }
            let table = file.load(word::TABLE)?;
            let (users, bits) = (high(table), low(table) | left);
            let moved = bump(&file)? != seen;
            let home = bits & (state::UNSURE | state::DOUBT) == 0 || (looked && !moved && !failed);
            if users <= 1 && !home && !failed && round < ROUNDS {
                continue;
            }
            let next = tx.load(rec.offset() + field::NEXT * 8)?;
            tx.set_volatile(link_at, next)?;
            tx.free(rec)?;
            // What could not be brought home stays where it is, registered though nobody maps it:
            // `fsync` tries again.
            let unregister = users <= 1 && home;
            let after = if unregister {
                0
            } else {
                pair(users.saturating_sub(1), bits)
            };
            tx.set_volatile(file.at(word::TABLE), after)?;
            count_open(&mut tx, file.base, -1)?;
            let retired = self.retire_closed(&mut tx, ino, file.base, true)?;
            tx.commit()?;
            if unregister || retired != Retired::Kept {
                self.discard(&file, retired != Retired::Kept)?;
            }
            if retired == Retired::Queued {
                self.drain_reclaim();
            }
            return Ok(());
        }
        Err(Errno::EIO)
    }
}

impl Dfs {
    /// Removes the cache file of a file that is no longer registered, or gone.
    fn discard(&self, file: &File<'_>, gone: bool) -> Result<()> {
        let path = CachePath::new(self.pool, file.ino)?;
        // Unless it has been registered again, which the lock keeps off.
        match file.tx() {
            Ok(_held) if !gone && file.is_mapped()? => Ok(()),
            _ => path.remove(),
        }
    }
}

/// Changes the number of open descriptions of an inode.
fn count_open(tx: &mut Tx<'_>, base: u64, change: i32) -> Result<()> {
    let at = inode::at(base, word::OPEN);
    let opened = tx.load(at)?;
    let count = high(opened).saturating_add_signed(change);
    tx.set_volatile(at, pair(count, low(opened)))
}

/// The record of a process for a file, and the offset of the word that links it.
fn find(tx: &Tx<'_>, slot: u32, ino: Ino) -> Result<Option<(Rec, u64)>> {
    let mut link_at = word_at(slot, proc::MAPS);
    for _ in 0..1 << 20 {
        let rec = Rec(low(tx.load(link_at)?));
        if rec.is_none() {
            return Ok(None);
        }
        if tx.load(rec.offset() + field::INO * 8)? == link_word(ino) {
            return Ok(Some((rec, link_at)));
        }
        link_at = rec.offset() + field::NEXT * 8;
    }
    Err(Errno::EIO)
}

/// Adds a record to the list of a process: its mappings, and whether it may store through them.
fn enter(
    tx: &mut Tx<'_>,
    slot: u32,
    ino: Ino,
    domain: u16,
    (count, stores): (u64, u64),
) -> Result<()> {
    let rec = tx.alloc(kind::MISC, 64, domain, 0)?;
    let head_at = word_at(slot, proc::MAPS);
    let head = tx.load(head_at)?;
    tx.put_volatile(
        rec.offset() + 8,
        &[head, link_word(ino), count, stores, 0, 0, 0],
    )?;
    tx.set_volatile(head_at, u64::from(rec.0))
}

/// First file in the list of a process.
fn first(pool: &Pool, slot: u32) -> Result<Option<(Rec, Ino)>> {
    let rec = Rec(low(pool.load(word_at(slot, proc::MAPS))?));
    if rec.is_none() {
        return Ok(None);
    }
    let link = pool.load(rec.offset() + field::INO * 8)?;
    Ok(inode::from_link(link).map(|ino| (rec, ino)))
}

/// Ends all registered mappings of the process in `slot`.
pub(crate) fn settle(dfs: &Dfs, slot: u32) -> Result<()> {
    while let Some((rec, ino)) = first(dfs.pool, slot)? {
        let left = dfs.pool.load(rec.offset() + field::STORES * 8)? == stores::LEFT;
        match dfs.map_leave(slot, ino, Some(left)) {
            // Somebody else is settling the same process.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Enters the registered mappings of process slot `from` for its child `to`.
pub(crate) fn inherit(dfs: &Dfs, from: u32, to: u32) -> Result<()> {
    let pool = dfs.pool;
    let mut next = low(pool.load(word_at(from, proc::MAPS))?);
    for _ in 0..1 << 20 {
        let rec = Rec(next);
        if rec.is_none() {
            return Ok(());
        }
        let link = pool.load(rec.offset() + field::INO * 8)?;
        let count = pool.load(rec.offset() + field::COUNT * 8)?;
        // The child may go on storing although its parent has ended.
        let stores = match pool.load(rec.offset() + field::STORES * 8)? {
            stores::NONE => stores::NONE,
            _ => stores::LEFT,
        };
        if let Some(ino) = inode::from_link(link) {
            let file = File::open(pool, ino)?;
            let locks: [LockId; 2] = [file.lock(), lock_of(pool, to)];
            let mut tx = pool.tx(&locks)?;
            if find(&tx, to, ino)?.is_none() {
                enter(&mut tx, to, ino, file.target, (count, stores))?;
                count_open(&mut tx, file.base, 1)?;
                let table = file.load(word::TABLE)?;
                let state = pair(high(table) + 1, low(table) | state::REGISTERED);
                tx.set_volatile(file.at(word::TABLE), state)?;
                tx.commit()?;
            }
        }
        next = low(pool.load(rec.offset() + field::NEXT * 8)?);
    }
    Err(Errno::EIO)
}
