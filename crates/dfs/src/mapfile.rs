//! Memory mappings of files.
//!
//! A private mapping gets a snapshot in a memory file of its own. For shared mappings an inode has
//! one cache file beside the arena, in which all of its data lies while it is registered (volatile
//! word [`word::TABLE`]): mappings show its pages, reads come from it, and writes and truncations
//! change it together with the pool, under the inode's lock. What programs store through their
//! mappings is brought to the pool by comparing ([`write_back`]): at `msync`, `fsync`, when the
//! last mapping goes, or by whoever finds the mapping processes dead.
//!
//! Each process that maps a file shared has a record in a list of its process slot, which counts
//! as an open description of the inode.

use crate::inode::{self, high, link_word, low, pair, word};
use crate::io::cursor::{Cursor, Source};
use crate::io::read::read_at;
use crate::io::write::{Rules, Start, bump, write_at};
use crate::map::BLOCK;
use crate::map::file::File;
use crate::names::orphan::Retired;
use crate::ofd::{lock_of, proc, word_at};
use crate::{Dfs, Ino, IoVec, Ofd};
use core::ffi::CStr;
use engine::{LockId, Pool, Rec, Tx, kind};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags};
use std::os::unix::ffi::OsStrExt;
use sys::{Errno, Result, syscall};

const SYS_PREAD64: usize = if cfg!(target_arch = "x86_64") { 17 } else { 67 };
const SYS_PWRITE64: usize = if cfg!(target_arch = "x86_64") { 18 } else { 68 };

/// Bytes compared or copied at a time.
const BUFFER: usize = 256 << 10;
/// Rounds of writing back before a file that keeps changing is left registered.
const ROUNDS: usize = 16;

/// Words of a process's record of a mapped file.
mod field {
    pub(super) const NEXT: u64 = 1;
    pub(super) const INO: u64 = 2;
    /// Mappings of the process.
    pub(super) const COUNT: u64 = 3;
}

/// What to give to `mmap(2)` for a mapping of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapSource {
    /// Kernel descriptor; the caller closes it after mapping.
    pub fd: i32,
    /// Offset in it.
    pub offset: u64,
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::new(error.raw_os_error())
}

/// Path of an inode's cache file: the arena's, its instance, and the inode.
struct CachePath {
    bytes: [u8; 512],
}

impl CachePath {
    fn new(pool: &Pool, ino: Ino) -> Result<CachePath> {
        let mut bytes = [0u8; 512];
        let arena = pool.arena_path().as_os_str().as_bytes();
        bytes
            .get_mut(..arena.len())
            .ok_or(Errno::ENAMETOOLONG)?
            .copy_from_slice(arena);
        let mut at = arena.len();
        let words = [pool.instance(), ino.number, u64::from(ino.generation)];
        for word in words {
            let text = bytes.get_mut(at..at + 17).ok_or(Errno::ENAMETOOLONG)?;
            for (index, byte) in text.iter_mut().enumerate() {
                *byte = match index {
                    0 => b'.',
                    _ => b"0123456789abcdef"[(word >> (64 - index * 4) & 15) as usize],
                };
            }
            at += 17;
        }
        if at >= bytes.len() {
            Err(Errno::ENAMETOOLONG)
        } else {
            Ok(CachePath { bytes })
        }
    }

    fn as_cstr(&self) -> Result<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::ENAMETOOLONG)
    }

    fn open(&self) -> Result<OwnedFd> {
        self.open_as(OFlags::RDWR)
    }

    fn open_as(&self, access: OFlags) -> Result<OwnedFd> {
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(self.as_cstr()?, flags, Mode::empty()).map_err(errno)
    }

    fn create(&self, pool: &Pool) -> Result<OwnedFd> {
        // Whoever may use the arena may use this.
        let mode = rustix::fs::stat(pool.arena_path()).map_err(errno)?.st_mode & 0o666;
        let flags =
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::CREATE | OFlags::TRUNC;
        let mode = Mode::from_raw_mode(mode);
        let file = rustix::fs::open(self.as_cstr()?, flags, mode).map_err(errno)?;
        rustix::fs::fchmod(&file, mode).map_err(errno)?;
        Ok(file)
    }

    fn remove(&self) -> Result<()> {
        match rustix::fs::unlink(self.as_cstr()?) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(errno(error)),
        }
    }
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
        let wrote = unsafe {
            syscall!(
                SYS_PWRITE64,
                fd.as_raw_fd(),
                at,
                len - done,
                pos + done as u64
            )
        }?;
        if wrote == 0 {
            return Err(Errno::EIO);
        }
        done += wrote;
    }
    Ok(())
}

/// Reads from the cache file, if there is one; `None` if the data is in the pool.
#[inline]
pub(crate) fn read(file: &File<'_>, cursor: &mut Cursor<'_>, pos: u64) -> Result<Option<usize>> {
    if file.is_mapped()? {
        read_cache(file, cursor, pos)
    } else {
        Ok(None)
    }
}

#[cold]
fn read_cache(file: &File<'_>, cursor: &mut Cursor<'_>, pos: u64) -> Result<Option<usize>> {
    let cache = match cache(file) {
        Ok(cache) => cache,
        // Unregistered since it was looked for.
        Err(_) if !file.is_mapped()? => return Ok(None),
        Err(errno) => return Err(errno),
    };
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
    Ok(Some(done))
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
    }
}

/// Gives the cache file the file's new size, if there is one. The inode's lock is held.
pub(crate) fn resize(file: &File<'_>, len: u64) -> Result<()> {
    if !file.is_mapped()? {
        return Ok(());
    }
    rustix::fs::ftruncate(cache(file)?, len).map_err(errno)
}

/// Zeroes a range of the cache file, if there is one and `zero` says so.
pub(crate) fn punch(file: &File<'_>, zero: bool, off: u64, end: u64) -> Result<()> {
    if !zero || !file.is_mapped()? {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(cache(file)?, flags, off, end - off).map_err(errno)
}

fn buffer(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Brings what was stored through mappings in a byte range to the pool.
pub(crate) fn write_back(file: &File<'_>, from: u64, to: u64) -> Result<()> {
    if !file.is_mapped()? {
        return Ok(());
    }
    let cache = match cache(file) {
        Ok(cache) => cache,
        Err(_) if !file.is_mapped()? => return Ok(()),
        Err(errno) => return Err(errno),
    };
    compare(file, cache.as_fd(), from, to)
}

/// Writes the blocks of a range in which the cache differs from the pool.
fn compare(file: &File<'_>, cache: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    let (mut ours, mut theirs) = (buffer(BUFFER)?, buffer(BUFFER)?);
    let mut pos = from / BLOCK * BLOCK;
    while pos < to.min(file.size()?) {
        // A mapped file may be far larger than anything in it.
        let Some(next) = next_data(file, cache, pos)? else {
            break;
        };
        if next >= to {
            break;
        }
        pos = next / BLOCK * BLOCK;
        let read = pread(cache, theirs.as_mut_ptr(), BUFFER, pos)?;
        if read == 0 {
            break;
        }
        let iov = [IoVec {
            base: ours.as_mut_ptr(),
            len: read,
        }];
        let known = read_at(file, &mut Cursor::new(&iov)?, pos)?;
        let mut at = 0;
        while at < read {
            let end = read.min(at + BLOCK as usize);
            let same = end <= known && ours.get(at..end) == theirs.get(at..end);
            if !same {
                store(
                    file,
                    theirs.as_mut_ptr().wrapping_add(at),
                    end - at,
                    pos + at as u64,
                )?;
            }
            at = end;
        }
        pos += read as u64;
    }
    Ok(())
}

/// Where data begins at or after `pos`, in the cache or in the pool.
fn next_data(file: &File<'_>, cache: BorrowedFd<'_>, pos: u64) -> Result<Option<u64>> {
    let cached = match rustix::fs::seek(cache, rustix::fs::SeekFrom::Data(pos)) {
        Ok(at) => Some(at),
        Err(rustix::io::Errno::NXIO) => None,
        Err(e) => return Err(errno(e)),
    };
    let stored = match crate::trunc::seek_data(file, pos, false) {
        Ok(at) => Some(at),
        Err(Errno::ENXIO) => None,
        Err(e) => return Err(e),
    };
    Ok(cached.into_iter().chain(stored).min())
}

fn store(file: &File<'_>, from: *mut u8, len: usize, pos: u64) -> Result<()> {
    let rules = Rules {
        keep_size: true,
        write_back: true,
        ..Rules::PLAIN
    };
    let iov = [IoVec { base: from, len }];
    let source = Source::User(Cursor::new(&iov)?);
    // Less than `len` means that the file was cut meanwhile.
    write_at(file, source, Start::At(pos), len, rules).map(|_| ())
}

/// Copies the data of a file from `off` on, up to `len` bytes, to a kernel file.
fn fill(file: &File<'_>, to: BorrowedFd<'_>, off: u64, len: u64) -> Result<()> {
    let size = file.size()?;
    let end = size.min(off.saturating_add(len));
    rustix::fs::ftruncate(to, end.saturating_sub(off)).map_err(errno)?;
    let mut bytes = buffer(BUFFER)?;
    let mut pos = off;
    while pos < end {
        pos = match crate::trunc::seek_data(file, pos, false) {
            Ok(data) if data < end => data,
            Ok(_) | Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno),
        };
        let part = (end - pos).min(BUFFER as u64) as usize;
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
    /// A shared one must be ended by [`Dfs::map_end`] when the last piece of it is unmapped.
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
        if shared {
            let mut fd = self.map_shared(&file)?;
            if !open.writable() {
                // So that the kernel refuses to make the mapping writable later (`mprotect(2)`).
                let path = CachePath::new(self.pool, file.ino)?;
                fd = match path.open_as(OFlags::RDONLY) {
                    Ok(fd) => fd,
                    Err(errno) => {
                        self.map_end(file.ino)?;
                        return Err(errno);
                    }
                };
            }
            return Ok(MapSource {
                fd: fd.into_raw_fd(),
                offset: off,
            });
        }
        // The data may be in the cache file: it is fresher than the pool.
        write_back(&file, off, off.saturating_add(len))?;
        let name = c"pil4dfs-private";
        let snapshot = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(errno)?;
        fill(&file, snapshot.as_fd(), off, len.next_multiple_of(BLOCK))?;
        Ok(MapSource {
            fd: snapshot.into_raw_fd(),
            offset: 0,
        })
    }

    /// Registers a shared mapping of the calling process and opens the cache file.
    fn map_shared(&self, file: &File<'_>) -> Result<OwnedFd> {
        let path = CachePath::new(self.pool, file.ino)?;
        let slot = self.process_slot()?;
        let mut tx = self.pool.tx(&[file.lock(), lock_of(self.pool, slot)])?;
        inode::still(self.pool, file.ino, file.base)?;
        let state = file.load(word::TABLE)?;
        let cache = if state == 0 {
            let cache = path.create(self.pool)?;
            let filled = fill(file, cache.as_fd(), 0, u64::MAX);
            if filled.is_err() {
                path.remove()?;
            }
            filled?;
            cache
        } else {
            path.open().map_err(|_| Errno::EIO)?
        };
        let users = match find(&tx, slot, file.ino)? {
            Some((rec, _)) => {
                let at = rec.offset() + field::COUNT * 8;
                let count = tx.load(at)?;
                tx.set_volatile(at, count + 1)?;
                high(state)
            }
            None => {
                enter(&mut tx, slot, file.ino, file.target, 1)?;
                count_open(&mut tx, file.base, 1)?;
                high(state) + 1
            }
        };
        tx.set_volatile(file.at(word::TABLE), pair(users, 1))?;
        tx.commit()?;
        Ok(cache)
    }

    /// Brings what was stored through shared mappings in a range of the file to the pool
    /// (`msync(2)`), and with `durable` to the devices.
    pub fn map_sync(&self, ino: Ino, off: u64, len: u64, durable: bool) -> Result<()> {
        let file = File::open(self.pool, ino)?;
        write_back(&file, off, off.saturating_add(len))?;
        if durable {
            crate::io::durable::sync(&file)
        } else {
            Ok(())
        }
    }

    /// Ends one shared mapping of the calling process: all pieces of it are unmapped.
    pub fn map_end(&self, ino: Ino) -> Result<()> {
        let slot = self.process_slot()?;
        // A child on its way counts on what its parent has registered.
        for _ in 0..1000 {
            if !self.forks(slot)? {
                break;
            }
            rustix::thread::sched_yield();
        }
        self.map_leave(slot, ino, false)
    }

    /// Takes one mapping (or `all`) of the process in `slot` off; the last one of all processes
    /// brings the data to the pool.
    fn map_leave(&self, slot: u32, ino: Ino, all: bool) -> Result<()> {
        let file = File::open(self.pool, ino)?;
        for round in 0..=ROUNDS {
            let seen = file.load(word::SEQUENCE)?;
            let last = high(file.load(word::TABLE)?) <= 1;
            let mut failed = false;
            if last {
                failed = write_back(&file, 0, u64::MAX).is_err();
            }
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
            if count > 1 && !all {
                tx.set_volatile(count_at, count - 1)?;
                return tx.commit().map(|_| ());
            }
            let users = high(file.load(word::TABLE)?);
            let moved = bump(&file)? != seen;
            if users <= 1 && (!last || moved) && !failed && round < ROUNDS {
                continue;
            }
            let next = tx.load(rec.offset() + field::NEXT * 8)?;
            tx.set_volatile(link_at, next)?;
            tx.free(rec)?;
            // What could not be brought home stays where it is, registered though nobody maps it:
            // `fsync` tries again.
            let unregister = users <= 1 && last && !moved && !failed;
            let state = if unregister {
                0
            } else {
                pair(users.saturating_sub(1), 1)
            };
            tx.set_volatile(file.at(word::TABLE), state)?;
            count_open(&mut tx, file.base, -1)?;
            let retired = self.retire_closed(&mut tx, ino, file.base, true)?;
            tx.commit()?;
            if unregister || retired != Retired::Kept {
                CachePath::new(self.pool, ino)?.remove()?;
            }
            if retired == Retired::Queued {
                self.drain_reclaim();
            }
            return Ok(());
        }
        Err(Errno::EIO)
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

/// Adds a record to the list of a process.
fn enter(tx: &mut Tx<'_>, slot: u32, ino: Ino, domain: u16, count: u64) -> Result<()> {
    let rec = tx.alloc(kind::MISC, 64, domain, 0)?;
    let head_at = word_at(slot, proc::MAPS);
    let head = tx.load(head_at)?;
    tx.put_volatile(rec.offset() + 8, &[head, link_word(ino), count, 0, 0, 0, 0])?;
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

/// Ends all shared mappings of the process in `slot`.
pub(crate) fn settle(dfs: &Dfs, slot: u32) -> Result<()> {
    while let Some((_, ino)) = first(dfs.pool, slot)? {
        match dfs.map_leave(slot, ino, true) {
            // Somebody else is settling the same process.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Enters the shared mappings of process slot `from` for its child `to`.
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
        if let Some(ino) = inode::from_link(link) {
            let file = File::open(pool, ino)?;
            let locks: [LockId; 2] = [file.lock(), lock_of(pool, to)];
            let mut tx = pool.tx(&locks)?;
            if find(&tx, to, ino)?.is_none() {
                enter(&mut tx, to, ino, file.target, count)?;
                count_open(&mut tx, file.base, 1)?;
                let users = high(file.load(word::TABLE)?);
                tx.set_volatile(file.at(word::TABLE), pair(users + 1, 1))?;
                tx.commit()?;
            }
        }
        next = low(pool.load(rec.offset() + field::NEXT * 8)?);
    }
    Err(Errno::EIO)
}
