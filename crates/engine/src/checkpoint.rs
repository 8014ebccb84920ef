//! Checkpoints: pages changed since the last one, appended as frames to the rank files that hold
//! them, so that the log before them can be reused.
//!
//! A frame is copied while writers go on. That is sound because every record from the
//! checkpoint's start is replayed over it, and because the checkpoint counts only once its end
//! frame is written, after the log up to the last copy and all frames are on the devices.

use crate::attach::write_all;
use crate::layout::{PageState, RECORD_LOCAL, descriptor, descriptor_at, header, owner, owner_at};
use crate::limits::{PAGE, at};
use crate::log::checksum;
use crate::media::errno;
use crate::pool::{LockId, Pool};
use core::sync::atomic::Ordering;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use shm::Recover;
use std::path::PathBuf;
use sys::{Errno, Result};

/// `DAOSFRM1`.
pub(crate) const FRAME_MAGIC: u64 = u64::from_le_bytes(*b"DAOSFRM1");
/// Words of a frame's head: magic, sequence, checksum, page or kind, state, start, end, length.
pub(crate) const FRAME_HEAD: usize = 8;
/// In the page word: this frame ends a checkpoint.
pub(crate) const FRAME_END: u64 = u64::MAX;
/// In the page word: this frame starts a file that needs no earlier frames.
pub(crate) const FRAME_FULL: u64 = u64::MAX - 1;
/// Frames are collected to this size before they are written.
const BATCH_BYTES: usize = 1 << 20;
/// A rank's frames are rewritten once they exceed this and four times what is live.
const REWRITE_BYTES: u64 = 32 << 20;

/// Name of a rank's frame file.
pub(crate) const META_FILE: &str = "meta";

/// Ranks that hold copies of a page: the target's own and those after it.
pub(crate) fn page_ranks(pool: &Pool, state: PageState) -> impl Iterator<Item = u16> + use<> {
    let first = state.target / (pool.spec.targets_per_rank as u16).max(1);
    let count = pool.rank_count().max(1);
    let copies = u16::from(state.replicas).min(count);
    (0..copies).map(move |i| (first + i) % count)
}

/// Frames on their way to one rank.
struct Sink {
    file: OwnedFd,
    path: PathBuf,
    at: u64,
    batch: Vec<u64>,
    rewritten: bool,
}

impl Sink {
    fn open(pool: &Pool, rank: u16, rewrite: bool) -> Result<Sink> {
        let dir = pool.spec.ranks.get(usize::from(rank)).ok_or(Errno::EIO)?;
        let path = dir.join(if rewrite { "meta.new" } else { META_FILE });
        let mut flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if rewrite {
            flags |= OFlags::TRUNC;
        }
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(errno)?;
        let at = rustix::fs::fstat(&file).map_err(errno)?.st_size as u64;
        Ok(Sink {
            file,
            path,
            at,
            batch: Vec::new(),
            rewritten: rewrite,
        })
    }

    fn push(&mut self, head: [u64; FRAME_HEAD], content: &[u64]) -> Result<()> {
        let start = self.batch.len();
        self.batch.extend_from_slice(&head);
        self.batch.extend_from_slice(content);
        let sum = checksum(&self.batch[start..]);
        self.batch[start + 2] = u64::from(sum);
        if self.batch.len() * 8 >= BATCH_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let bytes: Vec<u8> = self
            .batch
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        write_all(&self.file, &bytes, self.at).map_err(errno)?;
        self.at += bytes.len() as u64;
        self.batch.clear();
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.flush()?;
        rustix::fs::fdatasync(&self.file).map_err(errno)
    }
}

impl Pool {
    /// Called when the log is half full: one process checkpoints, the others go on until it is
    /// nearly full, then wait for it.
    #[cold]
    pub(crate) fn checkpoint_when_needed(&self) -> Result<()> {
        let (block, me) = self.me()?;
        if block.busy.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.try_acquire(block, me, LockId::Checkpoint)? {
            let done = self.checkpoint_locked();
            self.release(block, me, LockId::Checkpoint);
            return done;
        }
        let (used, size) = self.log_fill()?;
        if used < size / 8 * 7 {
            return Ok(());
        }
        self.acquire(block, me, LockId::Checkpoint)?;
        let (used, size) = self.log_fill()?;
        let done = if used < size / 2 {
            Ok(())
        } else {
            self.checkpoint_locked()
        };
        self.release(block, me, LockId::Checkpoint);
        done
    }

    /// Writes a checkpoint now.
    pub fn checkpoint(&self) -> Result<()> {
        let (block, me) = self.me()?;
        self.acquire(block, me, LockId::Checkpoint)?;
        let done = self.checkpoint_locked();
        self.release(block, me, LockId::Checkpoint);
        done
    }

    fn checkpoint_locked(&self) -> Result<()> {
        let start = self.load(header::LOG_TAIL)?;
        self.wait_until_applied(start)?;
        let sequence = self.load(header::CHECKPOINT_SEQUENCE)? + 1;
        let frontier = self.load(header::FRONTIER)?;
        let mut sinks = Vec::new();
        for rank in 0..self.rank_count() {
            sinks.push(self.sink(rank, frontier)?);
        }
        for sink in sinks.iter_mut().filter(|sink| sink.rewritten) {
            sink.push([FRAME_MAGIC, sequence, 0, FRAME_FULL, 0, 0, 0, 0], &[])?;
        }
        let mut cleared = Vec::new();
        let written = self.write_frames(sequence, frontier, &mut sinks, &mut cleared);
        let finished = written.and_then(|()| self.finish(sequence, start, &mut sinks));
        if finished.is_err() {
            // The pages still differ from what is on disk.
            for page in cleared {
                self.store(descriptor_at(page) + descriptor::DIRTY, 1)?;
            }
            return finished;
        }
        self.store(header::CHECKPOINT_SEQUENCE, sequence)?;
        self.store(header::CHECKPOINT_TIME, self.now_ns() as u64)?;
        self.store(header::LOG_HEAD, start)
    }

    /// Opens a rank's frames; a file that has outgrown what is live is written anew.
    fn sink(&self, rank: u16, frontier: u64) -> Result<Sink> {
        let sink = Sink::open(self, rank, false)?;
        let live = frontier * (PAGE + 64);
        if sink.at > REWRITE_BYTES && sink.at > 4 * live {
            return Sink::open(self, rank, true);
        }
        Ok(sink)
    }

    fn write_frames(
        &self,
        sequence: u64,
        frontier: u64,
        sinks: &mut [Sink],
        cleared: &mut Vec<u32>,
    ) -> Result<()> {
        let rewriting = sinks.iter().any(|sink| sink.rewritten);
        let mut content = [0u64; (PAGE / 8) as usize];
        for page in 1..frontier.min(at::PAGES_MAX) as u32 {
            let dirty_at = descriptor_at(page) + descriptor::DIRTY;
            let dirty = self.word(dirty_at)?.swap(0, Ordering::AcqRel) != 0;
            if dirty {
                cleared.push(page);
            } else if !rewriting {
                continue;
            }
            let word = self.load(descriptor_at(page) + descriptor::STATE)?;
            let state = PageState::unpack(word);
            self.words(at::PAGES + u64::from(page) * PAGE, &mut content)?;
            for rank in page_ranks(self, state) {
                let sink = sinks.get_mut(usize::from(rank)).ok_or(Errno::EIO)?;
                if dirty || sink.rewritten {
                    let head = [
                        FRAME_MAGIC,
                        sequence,
                        0,
                        u64::from(page),
                        word,
                        0,
                        0,
                        PAGE / 8,
                    ];
                    sink.push(head, &content)?;
                }
            }
        }
        Ok(())
    }

    fn finish(&self, sequence: u64, start: u64, sinks: &mut [Sink]) -> Result<()> {
        let end = self.load(header::LOG_TAIL)?;
        self.sync_log()?;
        for sink in sinks.iter_mut() {
            sink.settle()?;
        }
        for sink in sinks.iter_mut() {
            sink.push([FRAME_MAGIC, sequence, 0, FRAME_END, 0, start, end, 0], &[])?;
            sink.settle()?;
            if sink.rewritten {
                let named = sink.path.with_file_name(META_FILE);
                rustix::fs::rename(&sink.path, &named).map_err(errno)?;
            }
        }
        Ok(())
    }

    /// Waits until every record before `start` has been applied, recovering dead owners.
    fn wait_until_applied(&self, start: u64) -> Result<()> {
        for owner in self.owners()? {
            let base = owner_at(owner);
            let mut rounds = 0u32;
            loop {
                let len = self.load(base + owner::RECORD_LEN)?;
                if len == 0 || len & RECORD_LOCAL != 0 {
                    break;
                }
                if self.load(base + owner::RECORD_AT)? >= start {
                    break;
                }
                if self.is_dead(owner) {
                    self.recover(owner)?;
                }
                rounds += 1;
                if rounds > 1_000_000 {
                    // Stopped in the middle of applying: this checkpoint has to wait for later.
                    return Err(Errno::EBUSY);
                }
                rustix::thread::sched_yield();
            }
        }
        Ok(())
    }
}
