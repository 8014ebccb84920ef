//! The pool's redo log: a pre-written file of the first rank, mapped by every process.
//!
//! A record's position in the endless stream of bytes is its sequence number; the file is a ring
//! over that stream. The tail lies in the arena and is stored after the record: that store is the
//! moment an operation happens.

use crate::layout::{header, owner, owner_at};
use crate::limits::TX_WORDS_MAX;
use crate::pool::{LockId, Pool};
use crate::thread::ThreadBlock;
use crate::tx::{RECORD_HEADER, RECORD_MAGIC};
use core::sync::atomic::Ordering;
use shm::crash_point;
use sys::{Errno, Result};

/// High half of the first word of a filler at the end of the ring.
pub(crate) const PAD_MAGIC: u64 = 0x7061_6464;
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

/// Words as they lie in files: in the byte order of the machine.
pub(crate) fn as_bytes(words: &[u64]) -> &[u8] {
    // SAFETY: any initialised words are initialised bytes; the length is that of the slice.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

impl Pool {
    fn ring(&self) -> Result<u64> {
        let ring = self.load(header::LOG_BYTES)?;
        if ring == 0 || ring + LOG_FILE_HEADER > self.log.span() {
            Err(Errno::EIO)
        } else {
            Ok(ring)
        }
    }

    fn log_word(&self, ring: u64, position: u64) -> Result<&core::sync::atomic::AtomicU64> {
        self.log
            .word(LOG_FILE_HEADER + position % ring)
            .ok_or(Errno::EIO)
    }

    /// Copies words of the stream from `position`.
    pub(crate) fn log_words(&self, position: u64, out: &mut [u64]) -> Result<()> {
        let ring = self.ring()?;
        for (i, word) in out.iter_mut().enumerate() {
            *word = self
                .log_word(ring, position + i as u64 * 8)?
                .load(Ordering::Acquire);
        }
        Ok(())
    }

    /// Appends a record (header words free for this function) and publishes it; returns its
    /// position.
    pub(crate) fn append(&self, block: &ThreadBlock, me: u16, record: &mut [u64]) -> Result<u64> {
        let bytes = record.len() as u64 * 8;
        debug_assert!((RECORD_HEADER..=TX_WORDS_MAX).contains(&record.len()));
        record[0] = bytes | RECORD_MAGIC << 32;
        record[3] = self.now_ns() as u64;
        self.acquire(block, me, LockId::Log)?;
        let appended = self.append_locked(me, record, bytes);
        self.release(block, me, LockId::Log);
        appended
    }

    fn append_locked(&self, me: u16, record: &mut [u64], bytes: u64) -> Result<u64> {
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
            self.log_word(ring, tail)?
                .store(pad | PAD_MAGIC << 32, Ordering::Relaxed);
            self.log_word(ring, tail + 8)?
                .store(tail, Ordering::Relaxed);
        }
        record[1] = position;
        record[2] = u64::from(checksum(record)) | u64::from(me) << 32;
        for (i, word) in record.iter().enumerate() {
            self.log_word(ring, position + i as u64 * 8)?
                .store(*word, Ordering::Relaxed);
        }
        crash_point!("log.written");
        let base = owner_at(me);
        self.store(base + owner::RECORD_AT, position)?;
        self.store(base + owner::RECORD_LEN, bytes)?;
        crash_point!("log.noted");
        // ORDERING: everything above is visible to whoever sees the new tail.
        self.word(header::LOG_TAIL)?
            .store(position + bytes, Ordering::Release);
        crash_point!("log.published");
        Ok(position)
    }

    /// Bytes of the log in use, and its size.
    pub fn log_fill(&self) -> Result<(u64, u64)> {
        let ring = self.ring()?;
        let head = self.load(header::LOG_HEAD)?;
        Ok((self.load(header::LOG_TAIL)?.saturating_sub(head), ring))
    }

    /// Before a transaction takes its locks: whoever finds the log half full checkpoints; at full,
    /// writers wait.
    #[inline]
    pub(crate) fn make_log_room(&self) -> Result<()> {
        let tail = self.load(header::LOG_TAIL)?;
        let head = self.load(header::LOG_HEAD)?;
        if tail.wrapping_sub(head) < self.load(header::LOG_BYTES)? / 2 {
            return Ok(());
        }
        self.checkpoint_when_needed()
    }
}
