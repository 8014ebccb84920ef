//! The pool's redo log: a pre-written file of the first rank, mapped by every process.
//!
//! A record's position in the endless stream of bytes is its sequence number; the file is a ring
//! over that stream. The tail lies in the arena and is stored after the record: that store is the
//! moment an operation happens. Each record holds the checksum of the one before it, so that what
//! an earlier lap or an earlier life left behind a cut tail is never taken for its continuation.

use crate::door;
use crate::layout::{header, owner, owner_at};
use crate::limits::{PAGE, TX_WORDS_MAX};
use crate::pool::{LockId, Pool};
use crate::thread::ThreadBlock;
use crate::tx::RECORD_HEADER;
use core::sync::atomic::Ordering;
use shm::crash_point;
use sys::{Errno, Result, uaccess};

/// High half of the first word of a filler at the end of the ring.
pub(crate) const PAD_MAGIC: u64 = 0x7061_6464;
/// What a record is, in bits 24-31 of its first word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// A transaction: entries.
    Change = 0,
    /// Data published before a position is on the devices of some ranks.
    Flushed = 1,
    /// Contents of blocks.
    Contents = 2,
    /// Checksums of blocks.
    Sums = 3,
}

/// Kind and length of a record, out of its first word.
pub(crate) fn kind_and_bytes(head: u64) -> (u8, u64) {
    ((head >> 24) as u8, head & 0xff_ffff)
}

/// Bytes of the log file before the ring.
pub(crate) const LOG_FILE_HEADER: u64 = 4096;

/// Bytes of the ring for a pool of `pool_bytes`.
pub(crate) fn ring_bytes(pool_bytes: u64) -> u64 {
    (pool_bytes / 16)
        .next_multiple_of(1 << 20)
        .clamp(8 << 20, 256 << 20)
}

/// The checksum of a finished record: everything but the checksum word itself.
pub(crate) fn checksum(words: &[u64]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    let (head, tail) = words.split_at(2.min(words.len()));
    hash.update(as_bytes(head));
    hash.update(as_bytes(tail.get(1..).unwrap_or(&[])));
    hash.finalize()
}

/// The checksum of a log record, whose other words than the head's are in `body` already: the head
/// is known last, under the lock.
fn seal(mut body: crc32fast::Hasher, record: &[u64]) -> u32 {
    body.update(as_bytes(&[record[0], record[1], record[3]]));
    body.finalize()
}

fn body_sum(record: &[u64]) -> crc32fast::Hasher {
    let mut hash = crc32fast::Hasher::new();
    hash.update(as_bytes(record.get(RECORD_HEADER..).unwrap_or(&[])));
    hash
}

/// The checksum that a log record should have.
pub(crate) fn record_sum(record: &[u64]) -> u32 {
    match record.len() < RECORD_HEADER {
        true => 0,
        false => seal(body_sum(record), record),
    }
}

/// Slot of the process that published a record, from its third word.
pub(crate) fn process_of(word: u64) -> u32 {
    (word >> PROCESS_AT) as u32
}

/// A checksum together with the end of the record it belongs to.
pub(crate) fn chain_word(sum: u32, end: u64) -> u64 {
    u64::from(sum) | (end >> 3) << 32
}

/// Words as they lie in files: in the byte order of the machine.
pub(crate) fn as_bytes(words: &[u64]) -> &[u8] {
    // SAFETY: any initialised words are initialised bytes; the length is that of the slice.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// Zeros written to the log at a time. What is written at once the kernel keeps as one folio, and a
/// store through a map makes all of it dirty: of pieces of 1 MiB a sync of 4 KiB wrote out 500 KiB.
/// Smaller ones take longer to write out.
pub(crate) const ZEROS: u64 = 64 << 10;

/// Bytes that a process appends to the log before it changes what of it it has mapped.
const STRIDE: u64 = 32 << 10;
/// What lies further behind the end of the log hardly anybody who appends still has mapped.
pub(crate) const BEHIND: u64 = 16 * STRIDE;

/// Where the process slot begins in a record's third word.
const PROCESS_AT: u32 = 48;
/// In its place: the process has none.
const NO_PROCESS: u32 = 0xffff;

impl Pool {
    fn ring(&self) -> Result<u64> {
        let ring = self.load(header::LOG_BYTES)?;
        if ring == 0 || ring + LOG_FILE_HEADER > self.log.span() {
            Err(Errno::EIO)
        } else {
            Ok(ring)
        }
    }

    /// Address of `words` words of the stream from `position`, which do not cross the ring's end.
    fn log_at(&self, position: u64, words: usize) -> Result<usize> {
        let (at, bytes) = (position % self.ring()?, words as u64 * 8);
        if at + bytes > self.ring()? {
            return Err(Errno::EIO);
        }
        let address = self.log.bytes(LOG_FILE_HEADER + at, bytes);
        address.map(|at| at as usize).ok_or(Errno::EIO)
    }

    /// Copies words of the stream from `position`. `EIO` if the file is shorter than it was.
    pub(crate) fn log_words(&self, position: u64, out: &mut [u64]) -> Result<()> {
        let (to, from) = (out.as_mut_ptr() as usize, self.log_at(position, out.len())?);
        // SAFETY: the destination is exclusively borrowed; faults are caught.
        unsafe { uaccess::copy(to, from, size_of_val(out)) }.map_err(|_| Errno::EIO)
    }

    /// Stores words of the stream from `position` on. `EIO` if the file is shorter than it was.
    fn put_log_words(&self, position: u64, words: &[u64]) -> Result<()> {
        let (to, from) = (self.log_at(position, words.len())?, words.as_ptr() as usize);
        // SAFETY: the log is locked, no reference covers the mapping; faults are caught.
        unsafe { uaccess::copy(to, from, size_of_val(words)) }.map_err(|_| Errno::EIO)
    }

    /// Appends a record (header words free for this function) and publishes it; returns its
    /// position.
    pub(crate) fn append(
        &self,
        block: &ThreadBlock,
        me: u16,
        what: RecordKind,
        record: &mut [u64],
    ) -> Result<u64> {
        let bytes = record.len() as u64 * 8;
        debug_assert!((RECORD_HEADER..=TX_WORDS_MAX).contains(&record.len()));
        record[3] = self.now_ns() as u64;
        let body = body_sum(record);
        self.acquire(block, me, LockId::Log)?;
        let appended = self.append_locked(me, what, record, bytes, body);
        self.release(block, me, LockId::Log);
        if let Ok(position) = appended {
            self.own.seen().store(position + bytes, Ordering::Relaxed);
            let (own, _) = self.own.stride();
            let own_bytes = own.load(Ordering::Relaxed) + bytes;
            own.store(own_bytes, Ordering::Relaxed);
            if own_bytes >= STRIDE {
                self.move_on(position);
            }
        }
        appended
    }

    /// Unmaps what of the log lies behind, for this process alone, and maps what comes next. To write
    /// out a page that is mapped for stores, the kernel interrupts every processor that runs such a
    /// process, page by page: with two writers that took an eighth of their time. And a fault with
    /// the log locked keeps all others waiting.
    #[cold]
    fn move_on(&self, position: u64) {
        let until = position / PAGE * PAGE;
        let (bytes, from) = self.own.stride();
        bytes.store(0, Ordering::Relaxed);
        let from = from.swap(until, Ordering::Relaxed);
        // The first time it is not known.
        if from == 0 {
            return;
        }
        let moved = self.move_window(from, until);
        // Nothing depends on it.
        moved.unwrap_or_default();
    }

    fn move_window(&self, from: u64, until: u64) -> Result<()> {
        let from_mapped = from.max(until.saturating_sub(self.ring()?));
        self.each_stretch(from_mapped, until, |_, off, len| {
            self.log.let_go(off, len);
            Ok(())
        })?;
        let passed = until.saturating_sub(from);
        let ahead = until + 2 * passed.min(4 * STRIDE);
        let mut resident = true;
        self.each_stretch(until, ahead, |_, off, len| {
            resident &= self.log.is_resident(off, len);
            Ok(())
        })?;
        if !resident {
            self.renew(until, ahead)?;
        }
        // Of what many write each would use little.
        if passed > 4 * STRIDE {
            return Ok(());
        }
        self.each_stretch(until, ahead, |_, off, len| {
            self.log.populate(off, len);
            Ok(())
        })
    }

    /// Overwrites with zeros what of the log between two page boundaries is free: pages that the kernel
    /// has let go it would read first, for a store, and a busy device takes its time.
    #[cold]
    fn renew(&self, from: u64, until: u64) -> Result<()> {
        let (block, me) = self.me()?;
        let dir = self.rank_dir(self.log_rank()?)?;
        let file = door::open(dir, door::RankFile::Log)?;
        let zeros = vec![0u8; ZEROS as usize];
        self.acquire(block, me, LockId::Log)?;
        let renew = || {
            let free = self.load(header::LOG_TAIL)?.next_multiple_of(PAGE);
            let used = self.load(header::LOG_HEAD)? / PAGE * PAGE + self.ring()?;
            self.each_stretch(from.max(free), until.min(used), |_, off, len| {
                for at in (off..off + len).step_by(zeros.len()) {
                    let count = (off + len - at).min(ZEROS) as usize;
                    let zeros = zeros.get(..count).ok_or(Errno::EIO)?;
                    door::write(&file, dir, door::RankFile::Log, zeros, at)?;
                }
                Ok(())
            })
        };
        let renewed = renew();
        self.release(block, me, LockId::Log);
        renewed
    }

    /// Calls `each` for the stretches of the log file that hold its stream from `from` to `end`, with
    /// where in the stream and in the file they begin, and their bytes.
    pub(crate) fn each_stretch(
        &self,
        mut from: u64,
        end: u64,
        mut each: impl FnMut(u64, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let ring = self.ring()?;
        while from < end {
            let off = from % ring;
            let len = (end - from).min(ring - off);
            each(from, LOG_FILE_HEADER + off, len)?;
            from += len;
        }
        Ok(())
    }

    fn append_locked(
        &self,
        me: u16,
        what: RecordKind,
        record: &mut [u64],
        bytes: u64,
        body: crc32fast::Hasher,
    ) -> Result<u64> {
        let ring = self.ring()?;
        let tail = self.load(header::LOG_TAIL)?;
        let to_end = ring - tail % ring;
        let (position, pad) = if bytes > to_end {
            (tail + to_end, to_end)
        } else {
            (tail, 0)
        };
        if position + bytes - self.load(header::LOG_HEAD)? > ring {
            return Err(Errno::ENOSPC);
        }
        if pad > 0 {
            let filler = [pad | PAD_MAGIC << 32, tail];
            self.put_log_words(tail, &filler[..(pad / 8).min(2) as usize])?;
            self.note_log(ring, tail, pad.min(16));
        }
        let (before, slot) = self.chain(tail)?;
        record[0] = bytes | (what as u64) << 24 | u64::from(before) << 32;
        record[1] = position;
        let sum = seal(body, record);
        let process = crate::process::slot(self).unwrap_or(NO_PROCESS);
        record[2] = u64::from(sum) | u64::from(me) << 32 | u64::from(process) << PROCESS_AT;
        self.put_log_words(position, record)?;
        self.note_log(ring, position, bytes);
        crash_point!("log.written");
        if what == RecordKind::Change {
            let base = owner_at(me);
            self.store(base + owner::RECORD_AT, position)?;
            self.store(base + owner::RECORD_LEN, bytes)?;
        }
        crash_point!("log.noted");
        self.store(slot, chain_word(sum, position + bytes))?;
        crash_point!("log.chained");
        // ORDERING: everything above is visible to whoever sees the new tail.
        self.word(header::LOG_TAIL)?
            .store(position + bytes, Ordering::Release);
        crash_point!("log.published");
        Ok(position)
    }

    /// The checksum of the last record, which ends at `tail`, and the place for the next one's. Of
    /// two places one belongs to the tail, whoever died while filling the other.
    fn chain(&self, tail: u64) -> Result<(u32, u64)> {
        let places = [header::LOG_CHAIN, header::LOG_CHAIN + 8];
        for (i, place) in places.into_iter().enumerate() {
            let word = self.load(place)?;
            if word >> 32 == tail >> 3 & 0xffff_ffff {
                return Ok((word as u32, places[1 - i]));
            }
        }
        Err(Errno::EIO)
    }

    /// Where the log ends, and the checksum of its last record.
    pub(crate) fn log_end(&self) -> Result<(u64, u32)> {
        let (block, me) = self.me()?;
        self.acquire(block, me, LockId::Log)?;
        let tail = self.load(header::LOG_TAIL);
        let end = tail.and_then(|tail| Ok((tail, self.chain(tail)?.0)));
        self.release(block, me, LockId::Log);
        end
    }

    /// Sets where the log goes on, in an arena that nobody has seen.
    pub(crate) fn set_log_end(&self, tail: u64, sum: u32) -> Result<()> {
        self.store(header::LOG_CHAIN, chain_word(sum, tail))?;
        self.store(header::LOG_CHAIN + 8, chain_word(sum, tail))?;
        self.store(header::LOG_TAIL, tail)
    }

    fn note_log(&self, ring: u64, position: u64, bytes: u64) {
        if let Ok(dir) = self.log_rank().and_then(|rank| self.rank_dir(rank)) {
            let off = LOG_FILE_HEADER + position % ring;
            door::stored(dir, door::RankFile::Log, off, bytes);
        }
    }

    /// Bytes of the log in use, and its size.
    pub fn log_fill(&self) -> Result<(u64, u64)> {
        let ring = self.ring()?;
        let head = self.load(header::LOG_HEAD)?;
        Ok((self.load(header::LOG_TAIL)?.saturating_sub(head), ring))
    }

    /// Before a transaction takes its locks: now and then somebody goes on with a checkpoint; while
    /// the log is full, writers wait for it.
    #[inline]
    pub(crate) fn make_log_room(&self) -> Result<()> {
        self.prove_when_due();
        if self.own.seen().load(Ordering::Relaxed) < self.load(header::CHECKPOINT_AFTER)? {
            return Ok(());
        }
        self.checkpoint_when_needed()
    }
}

#[cfg(all(test, feature = "testing"))]
pub(crate) mod tests {
    use super::*;
    use crate::layout::kind;

    /// What of the log is in use.
    fn used(pool: &Pool) -> Vec<u8> {
        let word = |at| pool.load(at).expect("word");
        let mut bytes = Vec::new();
        let (head, tail) = (word(header::LOG_HEAD), word(header::LOG_TAIL));
        pool.each_stretch(head, tail, |_, off, len| {
            let from = pool.log.bytes(off, len).ok_or(Errno::EIO)?;
            let before = bytes.len();
            bytes.resize(before + len as usize, 0);
            uaccess::copy_in(&mut bytes[before..], from as usize).map_err(|_| Errno::EIO)
        })
        .expect("log");
        bytes
    }

    /// Bytes of files that this thread has made dirty.
    fn made_dirty() -> u64 {
        let counts = std::fs::read_to_string("/proc/thread-self/io").expect("counts");
        let count = counts.lines().find_map(|l| l.strip_prefix("write_bytes: "));
        count.expect("count").parse().expect("bytes")
    }

    /// In a pool whose log is as it was made. On tmpfs everything is always dirty.
    pub(crate) fn a_store_makes_little_dirty(pool: &Pool) {
        const TMPFS: u64 = 0x0102_1994;
        let (from, len) = (LOG_FILE_HEADER + (512 << 10), 384 << 10);
        let dir = pool.rank_dir(0).expect("rank");
        let file = door::open(dir, door::RankFile::Log).expect("log");
        let kind = rustix::fs::fstatfs(&file).expect("statfs").f_type;
        if kind as u64 == TMPFS {
            return;
        }
        let at = pool.log.bytes(from, len).expect("mapped") as usize;
        for page in (at..at + len as usize).step_by(PAGE as usize) {
            uaccess::copy_in(&mut [0u8], page).expect("read");
        }
        door::flush(&file, dir, door::RankFile::Log).expect("flushed");
        let before = made_dirty();
        let word = pool.log.word(from + len / 2).expect("word");
        word.store(0, Ordering::Relaxed);
        let dirty = made_dirty() - before;
        assert!((PAGE..=ZEROS).contains(&dirty), "{dirty}");
    }

    pub(crate) fn only_what_is_free_is_renewed(pool: &Pool) {
        const RING: u64 = 1 << 20;
        let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
        let page = tx.alloc_page(kind::BLOB, 0, 1, true).expect("page");
        tx.commit().expect("commit");
        // Twice around, so that what is in use begins and ends anywhere in a page.
        for i in 0..2 * RING / (73 * 8) {
            let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
            tx.put(page.offset(), &[i; 69]).expect("put");
            tx.commit().expect("commit");
            if i % 300 != 0 {
                continue;
            }
            let tail = pool.load(header::LOG_TAIL).expect("tail") / PAGE * PAGE;
            let before = used(pool);
            for (from, until) in [
                (0, tail + 3 * RING),
                (tail, tail + 8 * PAGE),
                (tail, tail + RING),
            ] {
                pool.renew(from, until).expect("renewed");
                assert!(used(pool) == before, "{from} {until}");
            }
        }
        let (end, sum) = pool.log_end().expect("end");
        let from = pool.load(header::LOG_HEAD).expect("head");
        assert!(end > RING && from > 0, "{from} {end} {sum}");
        // What is behind the beginning of the log may be overwritten at any time.
        let recent = |at| pool.each_recent_change(at, end, &mut |_| Ok(true));
        assert_eq!(recent(from - 8), Ok(Some(from)));
        assert_eq!(recent(from), Ok(None));
    }
}
