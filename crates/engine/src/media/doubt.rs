//! After a flush that failed.
//!
//! The kernel reports an error once, takes what it could not write for written, and lets the next
//! flush succeed. So a file whose flush has failed is in doubt: before it is flushed again what is
//! in memory is made dirty once more, and what the device then holds is compared with memory. Until
//! both are the same every flush fails.

use super::flights::Others;
use super::{Access, WINDOW, errno};
use crate::door::{self, RankFile};
use crate::layout::{header, rank, rank_at};
use crate::limits::BLOCK;
use crate::log::{LOG_FILE_HEADER, as_bytes};
use crate::pool::Pool;
use core::sync::atomic::{AtomicU64, Ordering};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use shm::crash_point;
use sys::{Errno, Result, uaccess};

/// Bytes that are stored again, or compared, at a time.
const PIECE: usize = 1 << 20;
/// Times that a rank's data is flushed because others tell meanwhile that theirs may have failed.
const TRIES: u32 = 3;
/// Looks at a block that somebody changes meanwhile.
const LOOKS: usize = 16;

/// A part of a rank's data file that is in memory, in the window for storing.
#[derive(Clone, Copy)]
struct Resident {
    address: usize,
    offset: u64,
    len: usize,
}

impl Resident {
    fn part(self, from: usize, len: usize) -> Resident {
        Resident {
            address: self.address + from,
            offset: self.offset + from as u64,
            len,
        }
    }

    /// Makes it dirty as a store to each page would, without changing anything (Linux 5.14).
    fn soil(self) -> Result<()> {
        let (at, len, advice) = (self.address, self.len, sys::raw::POPULATE_WRITE);
        loop {
            // SAFETY: advice on a mapping of ours; the content stays as it is.
            match unsafe { sys::syscall!(sys::raw::MADVISE, at, len, advice) } {
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                // The file was cut, or cannot be read.
                Err(Errno::EFAULT) => return Err(Errno::EIO),
                other => return other.map(|_| ()),
            }
        }
    }

    fn read(self, to: &mut [u8]) -> Result<()> {
        uaccess::copy_in(to, self.address).map_err(|_| Errno::EIO)
    }
}

/// Makes `len` bytes of a file from `off` dirty, and what is on the same pages. Through a mapping of its
/// own: where nothing is mapped a whole large folio takes one fault.
fn soil_file(file: &OwnedFd, off: u64, len: u64) -> Result<()> {
    let start = off / BLOCK * BLOCK;
    let len = ((off + len).next_multiple_of(BLOCK) - start) as usize;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let mapped = unsafe {
        rustix::mm::mmap(
            core::ptr::null_mut(),
            len,
            access,
            MapFlags::SHARED,
            file,
            start,
        )
    };
    let mapped = mapped.map_err(errno)?;
    let whole = Resident {
        address: mapped as usize,
        offset: start,
        len,
    };
    let soiled = whole.soil();
    // SAFETY: the mapping is ours and nobody has an address in it.
    unsafe { rustix::mm::munmap(mapped, len) }.map_err(errno)?;
    soiled
}

/// Two pieces of memory as direct reads need them.
struct Buffers(*mut u8);

impl Buffers {
    fn new() -> Result<Buffers> {
        // SAFETY: a fresh private mapping.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                2 * PIECE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        Ok(Buffers(base.map_err(errno)?.cast()))
    }

    fn both(&mut self) -> (&mut [u8], &mut [u8]) {
        // SAFETY: the mapping is this value's own and as long as both pieces.
        let all = unsafe { core::slice::from_raw_parts_mut(self.0, 2 * PIECE) };
        all.split_at_mut(PIECE)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: nobody has an address in it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.0.cast(), 2 * PIECE) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Whether a rank's data is in doubt, by its word: how many flushes have failed, and from bit 32 on how
/// many when all was on the device for the last time.
fn is_in_doubt(word: u64) -> bool {
    word as u32 != (word >> 32) as u32
}

/// Notes that what was in doubt when the word was `seen` is on the device; false if a flush has failed
/// since.
fn settle(doubt: &AtomicU64, seen: u64) -> bool {
    let failed = u64::from(seen as u32);
    let settled = failed << 32 | failed;
    match doubt.compare_exchange(seen, settled, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => true,
        // Somebody else has.
        Err(now) => u64::from(now as u32) == failed,
    }
}

impl Pool {
    /// What an arena that is built anew cannot know: whether what was written is on the devices. After a
    /// power failure it is, but the log may say so only by checksums, which a store in place makes wrong.
    pub(crate) fn doubt_flushes(&self) -> Result<()> {
        for r in 0..self.rank_count() {
            if !self.is_data_absent(r)? {
                self.mark_unflushed(r)?;
            }
        }
        self.store(header::LEFT_DATA, 1)
    }

    /// Before the log is flushed up to `tail`, by way of `file` if it is there: stores again what an
    /// earlier flush may have lost. Returns what [`Pool::log_settled`] takes. `Sync` is locked.
    pub(crate) fn settle_log_doubt(&self, file: Option<&OwnedFd>, tail: u64) -> Result<u64> {
        // ORDERING: the file is open: what is asked for from now on it is told of itself. Whatever
        // was asked for before is noted here, or in doubt already.
        let asked = self.is_log_asked()?;
        // In doubt until it has succeeded, also if its process dies meanwhile.
        let before = self.word(header::LOG_DOUBT)?.fetch_add(1, Ordering::SeqCst);
        let from = self
            .load(header::LOG_SYNCED)?
            .max(self.load(header::LOG_HEAD)?);
        if let Some(file) = file
            && (before != 0 || asked)
        {
            self.store_again(file, from, tail)?;
        }
        Ok(before + 1)
    }

    /// Stores the log from `from` to `end` again.
    pub(crate) fn store_again(&self, file: &OwnedFd, from: u64, end: u64) -> Result<()> {
        let dir = self.rank_dir(self.log_rank()?)?;
        self.each_stretch(from, end, |from, off, len| {
            match soil_file(file, off, len) {
                // An older kernel.
                Err(Errno::EINVAL) => self.store_log_again(file, from, len)?,
                other => {
                    other?;
                    door::stored(dir, RankFile::Log, off, len);
                }
            }
            self.write_out(file, off, len)
        })
    }

    /// Writes `len` bytes of the log from `from`, which do not cross the ring's end, once more.
    fn store_log_again(&self, file: &OwnedFd, mut from: u64, len: u64) -> Result<()> {
        let (dir, ring) = (
            self.rank_dir(self.log_rank()?)?,
            self.load(header::LOG_BYTES)?,
        );
        let mut words = vec![0u64; PIECE / 8];
        let end = from + len;
        while from < end {
            let len = (end - from).min(PIECE as u64);
            let words = words.get_mut(..(len / 8) as usize).ok_or(Errno::EIO)?;
            self.log_words(from, words)?;
            let at = LOG_FILE_HEADER + from % ring;
            door::write(file, dir, RankFile::Log, as_bytes(words), at)?;
            from += len;
        }
        Ok(())
    }

    /// A flush of the log that nobody waited for has failed.
    pub(crate) fn doubt_log(&self) -> Result<()> {
        self.word(header::LOG_DOUBT)?.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Whether no flush of the log is under way or has failed.
    pub(crate) fn is_log_sure(&self) -> Result<bool> {
        Ok(!self.is_log_asked()? && self.load(header::LOG_DOUBT)? == 0 && self.is_settled()?)
    }

    /// After the log was flushed, which was in doubt as [`Pool::settle_log_doubt`] says.
    pub(crate) fn log_settled(&self, doubt: u64) -> Result<()> {
        let word = self.word(header::LOG_DOUBT)?;
        // What has failed meanwhile is for the next.
        word.compare_exchange(doubt, 0, Ordering::SeqCst, Ordering::SeqCst)
            .map(drop)
            .or(Ok(()))
    }

    /// A flush that nobody waited for has failed.
    pub(crate) fn doubt_data(&self, r: u16) -> Result<()> {
        self.word(rank_at(r) + rank::DOUBT)?
            .fetch_add(1, Ordering::SeqCst);
        self.mark_unflushed(r)
    }

    /// Whether success of a flush says that the rank's device has what memory has.
    pub(crate) fn is_data_sure(&self, r: u16) -> Result<bool> {
        Ok(!self.has_anybody_asked(r)? && !is_in_doubt(self.load(rank_at(r) + rank::DOUBT)?))
    }

    /// Flushes a rank's data file so that success means that the device has what memory has.
    pub(crate) fn flush_surely(&self, r: u16) -> Result<()> {
        for _ in 0..TRIES {
            if self.flush_once(r)? {
                return Ok(());
            }
        }
        Err(Errno::EIO)
    }

    /// Does so once; false if another flush may have taken the report of an error that was this one's as
    /// well.
    fn flush_once(&self, r: u16) -> Result<bool> {
        let doubt = self.word(rank_at(r) + rank::DOUBT)?;
        let flight = self.begin_flight(r)?;
        let told = self.flush_noted(r, doubt);
        self.end_flight(&flight)?;
        let (file, others, seen) = told?;
        let others_known = self.await_others(&others, r, &file).is_ok();
        if !others_known {
            doubt.fetch_add(1, Ordering::SeqCst);
        }
        // What was stored again and compared is on the device, whatever is in doubt since: of that the
        // next has to know. Else who flushes beside many that are killed would never succeed.
        let compared = is_in_doubt(seen) && others_known;
        Ok(settle(doubt, seen) || compared)
    }

    /// Flushes a rank's data file and notes it if that fails. Returns by way of which description, the
    /// flushes that were under way then, and what was in doubt.
    fn flush_noted(&self, r: u16, doubt: &AtomicU64) -> Result<(OwnedFd, Others, u64)> {
        let file = self.open_data(r)?;
        // ORDERING: the file is open: what is begun from now on it is told of itself. Whatever was begun
        // before is listed here, or in doubt already.
        let others = self.others_flushing(r)?;
        let seen = doubt.load(Ordering::SeqCst);
        let flush = || {
            if is_in_doubt(seen) {
                self.store_data_again(r, &file)?;
            }
            door::flush(&file, self.rank_dir(r)?, RankFile::Data)?;
            if is_in_doubt(seen) {
                self.compare_with_device(r, &file)?;
            }
            Ok(())
        };
        if let Err(error) = flush() {
            crash_point!("flush.failed");
            doubt.fetch_add(1, Ordering::SeqCst);
            return Err(error);
        }
        Ok((file, others, seen))
    }

    /// Makes all that is in memory of a rank's data file dirty again.
    fn store_data_again(&self, r: u16, file: &OwnedFd) -> Result<()> {
        let dir = self.rank_dir(r)?;
        self.each_resident(r, file, &mut |piece| {
            piece.soil()?;
            door::stored(dir, RankFile::Data, piece.offset, piece.len as u64);
            Ok(())
        })
    }

    /// Calls `each` for the parts of a rank's data file that are in memory.
    fn each_resident(
        &self,
        r: u16,
        file: &OwnedFd,
        each: &mut dyn FnMut(Resident) -> Result<()>,
    ) -> Result<()> {
        let size = rustix::fs::fstat(file).map_err(errno)?.st_size as u64 / BLOCK * BLOCK;
        let mut pages = vec![0u8; (WINDOW / BLOCK) as usize];
        for start in (0..size).step_by(WINDOW as usize) {
            let (base, _) = self.map_block(r, start / BLOCK, Access::Store)?;
            let len = (size - start).min(WINDOW);
            let to = pages.as_mut_ptr();
            // SAFETY: a mapping of ours, and a byte for each of its pages.
            unsafe { sys::syscall!(sys::raw::MINCORE, base, len as usize, to) }?;
            let there = |page: &u64| pages.get(*page as usize).is_some_and(|byte| byte & 1 != 0);
            let mut page = 0;
            while page < len / BLOCK {
                let run = (page..len / BLOCK).take_while(there).count() as u64;
                if run > 0 {
                    each(Resident {
                        address: base as usize + (page * BLOCK) as usize,
                        offset: start + page * BLOCK,
                        len: (run * BLOCK) as usize,
                    })?;
                }
                page += run + 1;
            }
        }
        Ok(())
    }

    /// Compares what is in memory of a rank's blocks in use with what the device holds. `EIO` if
    /// they differ.
    pub(super) fn compare_with_device(&self, r: u16, file: &OwnedFd) -> Result<()> {
        door::comparing(self.rank_dir(r)?, RankFile::Data)?;
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let direct = match rustix::fs::open(self.data_path(r)?, flags, Mode::empty()) {
            // The file system has nothing but memory, or does not tell.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            other => other.map_err(errno)?,
        };
        let mut buffers = Buffers::new()?;
        self.each_resident(r, file, &mut |piece| {
            let mut done = 0;
            while done < piece.len {
                let len = (piece.len - done).min(PIECE);
                self.compare_piece(r, &direct, piece.part(done, len), &mut buffers)?;
                done += len;
            }
            Ok(())
        })
    }

    fn compare_piece(
        &self,
        r: u16,
        direct: &OwnedFd,
        piece: Resident,
        buffers: &mut Buffers,
    ) -> Result<()> {
        let (memory, device) = buffers.both();
        let (memory, device) = (&mut memory[..piece.len], &mut device[..piece.len]);
        piece.read(memory)?;
        read_device(direct, device, piece.offset)?;
        let blocks = memory
            .chunks(BLOCK as usize)
            .zip(device.chunks(BLOCK as usize));
        let differing: Vec<usize> = (0..)
            .zip(blocks)
            .filter_map(|(index, (one, other))| (one != other).then_some(index))
            .collect();
        for index in differing {
            let block = piece.part(index * BLOCK as usize, BLOCK as usize);
            if self.is_used(r, block.offset / BLOCK) != Ok(false) {
                compare_closely(direct, block, buffers)?;
            }
        }
        Ok(())
    }
}

/// Reads from the device itself. The kernel writes out what is dirty there before.
fn read_device(direct: &OwnedFd, to: &mut [u8], off: u64) -> Result<()> {
    let mut done = 0;
    while done < to.len() {
        let read = rustix::io::pread(direct, &mut to[done..], off + done as u64).map_err(errno)?;
        if read == 0 {
            return Err(Errno::EIO);
        }
        done += read;
    }
    Ok(())
}

/// Compares a block that was seen to differ: somebody may be storing into it. What changes while it is
/// looked at is dirty since, so that the next read has the kernel write all of the block; the rest of it
/// has to be the same.
fn compare_closely(direct: &OwnedFd, block: Resident, buffers: &mut Buffers) -> Result<()> {
    const WORD: usize = size_of::<u64>();
    let (memory, device) = buffers.both();
    let (before, after) = memory.split_at_mut(block.len);
    let (after, device) = (&mut after[..block.len], &mut device[..block.len]);
    let mut changed = false;
    for _ in 0..LOOKS {
        block.read(before)?;
        read_device(direct, device, block.offset)?;
        block.read(after)?;
        let (quiet, mut same) = (before == after, true);
        let words = before.chunks(WORD).zip(after.chunks(WORD));
        for ((before, after), device) in words.zip(device.chunks(WORD)) {
            same &= before == device || before != after;
        }
        if same && (quiet || changed) {
            return Ok(());
        }
        changed |= !quiet;
    }
    Err(Errno::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_that_fails_after_others_have_settled_what_was_in_doubt_stays_in_doubt() {
        let doubt = AtomicU64::new(0);
        let fail = || doubt.fetch_add(1, Ordering::SeqCst);
        let load = || doubt.load(Ordering::SeqCst);
        fail();
        // Two flush it.
        let seen = load();
        assert!(settle(&doubt, seen));
        assert!(!is_in_doubt(load()));
        fail();
        assert!(!settle(&doubt, seen));
        assert!(is_in_doubt(load()));
        // The second is as good as the first if nothing has failed.
        let seen = load();
        assert!(settle(&doubt, seen) && settle(&doubt, seen));
    }
}
