//! Checkpoints: pages changed since the last one, appended as frames to the rank files that hold
//! them, so that the log before them can be reused.
//!
//! A frame is copied while writers go on. That is sound because every record from the
//! checkpoint's start is replayed over it, and because the checkpoint counts only once its end
//! frame is written, after the log up to the last copy and all frames are on the devices.

use crate::door::{self, RankFile};
use crate::layout::{
    PageState, RECORD_LOCAL, descriptor, descriptor_at, header, kind, owner, owner_at, rank,
    rank_at,
};
use crate::limits::{PAGE, PAGE_REPLICAS_MAX, at};
use crate::log::{as_bytes, checksum};
use crate::media::{errno, is_absent};
use crate::pool::{LockId, Pool};
use core::sync::atomic::Ordering;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use shm::{Recover, crash_point};
use std::path::Path;
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
const BATCH_BYTES: usize = 256 << 10;
/// Words of a batch when it is written.
const FRAMES_WORDS_MAX: usize = BATCH_BYTES / 8 + FRAME_HEAD + (PAGE / 8) as usize;
/// A rank's frames are rewritten once they exceed this and four times what is live.
const REWRITE_BYTES: u64 = 32 << 20;

/// Name of a rank's frame file.
pub(crate) const META_FILE: &str = RankFile::Meta.name();
/// The same while it is written anew. It counts in place of the old one as soon as its checkpoint
/// does, renamed or not.
pub(crate) const META_NEW: &str = RankFile::MetaNew.name();

/// Rank on which the copies of a page start, and how many there are.
fn page_place(pool: &Pool, state: PageState) -> (u16, u16) {
    let first = state.target / (pool.spec.targets_per_rank as u16).max(1);
    (first % pool.rank_count().max(1), u16::from(state.replicas))
}

/// Frames on their way to one rank.
struct Sink<'p> {
    fd: OwnedFd,
    dir: &'p Path,
    rank: u16,
    at: u64,
    batch: Vec<u64>,
    /// The file is being written anew, and has its other name.
    rewritten: bool,
    /// Its name may not be on the device yet.
    unnamed: bool,
}

impl<'p> Sink<'p> {
    /// Opens a rank's frames behind the last whole one; `None` if the rank's directory is gone.
    fn open(pool: &'p Pool, rank: u16, rewrite: bool) -> Result<Option<Sink<'p>>> {
        let dir = pool.rank_dir(rank)?;
        let unnamed = rank_at(rank) + rank::META_UNNAMED;
        if pool.load(unnamed)? != 0 {
            match door::rename(dir, RankFile::MetaNew, RankFile::Meta) {
                Err(e) if !is_absent(e) => return Err(e),
                _ => pool.store(unnamed, 0)?,
            }
        }
        let file = if rewrite {
            RankFile::MetaNew
        } else {
            RankFile::Meta
        };
        let flags = if rewrite {
            OFlags::TRUNC
        } else {
            OFlags::empty()
        };
        let fd = match door::create(dir, file, flags) {
            Err(e) if is_absent(e) => return Ok(None),
            other => other?,
        };
        let size = rustix::fs::fstat(&fd).map_err(errno)?.st_size as u64;
        let mut at = 0;
        if !rewrite {
            // Only what counts: the rest of a checkpoint that was cut short would hide what
            // follows it.
            at = pool.load(rank_at(rank) + rank::META_END)?.min(size);
            if at < size {
                door::resize(&fd, dir, file, at)?;
            }
        }
        Ok(Some(Sink {
            fd,
            dir,
            rank,
            at,
            batch: Vec::new(),
            rewritten: rewrite,
            unnamed: at == 0,
        }))
    }

    fn file(&self) -> RankFile {
        if self.rewritten {
            RankFile::MetaNew
        } else {
            RankFile::Meta
        }
    }

    fn push(&mut self, head: [u64; FRAME_HEAD], content: &[u64]) -> Result<()> {
        let start = self.batch.len();
        self.batch.reserve(FRAMES_WORDS_MAX.saturating_sub(start));
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
        let bytes = as_bytes(&self.batch);
        door::write(&self.fd, self.dir, self.file(), bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.batch.clear();
        Ok(())
    }

    /// Has the kernel begin to bring everything to the device.
    fn begin_to_settle(&mut self) -> Result<()> {
        self.flush()?;
        door::begin_flush(&self.fd);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.flush()?;
        door::flush(&self.fd, self.dir, self.file())?;
        if self.unnamed {
            door::flush_names(self.dir)?;
            self.unnamed = false;
        }
        Ok(())
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
        let (used, size) = self.log_fill()?;
        let urgent = used >= size / 8 * 7;
        let tail = self.load(header::LOG_TAIL)?;
        if !urgent && tail < self.load(header::CHECKPOINT_AFTER)? {
            return Ok(());
        }
        if self.try_acquire(block, me, LockId::Checkpoint)? {
            let done = self.checkpoint_locked(true);
            if done.is_err() {
                // A full disk, a stopped writer: tried again when more of the log is used.
                self.store(header::CHECKPOINT_AFTER, tail + size / 16)?;
            }
            self.release(block, me, LockId::Checkpoint);
            return if urgent { done } else { Ok(()) };
        }
        if !urgent {
            return Ok(());
        }
        self.acquire(block, me, LockId::Checkpoint)?;
        let (used, size) = self.log_fill()?;
        let done = if used < size / 2 {
            Ok(())
        } else {
            self.checkpoint_locked(true)
        };
        self.release(block, me, LockId::Checkpoint);
        done
    }

    /// Writes a checkpoint now.
    pub fn checkpoint(&self) -> Result<()> {
        self.checkpoint_noted(true)
    }

    /// The same; `noted` as for [`Pool::sync_and_note`].
    pub(crate) fn checkpoint_noted(&self, noted: bool) -> Result<()> {
        let (block, me) = self.me()?;
        self.acquire(block, me, LockId::Checkpoint)?;
        let done = self.checkpoint_locked(noted);
        self.release(block, me, LockId::Checkpoint);
        done
    }

    fn checkpoint_locked(&self, noted: bool) -> Result<()> {
        let (start, start_sum) = self.log_end()?;
        self.wait_until_applied(start)?;
        // The number is used up whatever happens: the end frame of one checkpoint must not stand
        // for the frames of another.
        let sequence = self.load(header::CHECKPOINT_SEQUENCE)? + 1;
        self.store(header::CHECKPOINT_SEQUENCE, sequence)?;
        let frontier = self.load(header::FRONTIER)?;
        let mut sinks = Vec::new();
        for rank in 0..self.rank_count() {
            sinks.push(self.sink(rank, frontier)?);
        }
        for sink in sinks.iter_mut().flatten().filter(|sink| sink.rewritten) {
            sink.push([FRAME_MAGIC, sequence, 0, FRAME_FULL, 0, 0, 0, 0], &[])?;
        }
        let mut written = Vec::new();
        self.write_frames(sequence, frontier, &mut sinks, &mut written)?;
        crash_point!("checkpoint.written");
        // All of them at once: the first that is waited for takes the file system's own log with it.
        for sink in sinks.iter_mut().flatten() {
            sink.begin_to_settle()?;
        }
        let end = self.load(header::LOG_TAIL)?;
        // All data too: of a pointer in a frame it is not known any more what it had replaced.
        self.sync_and_note(noted)?;
        let span = [u64::from(start_sum), start, end];
        self.finish(sequence, span, &mut sinks)?;
        crash_point!("checkpoint.finished");
        self.store(header::CHECKPOINT_TIME, self.now_ns() as u64)?;
        self.store(header::LOG_HEAD, start)?;
        self.clear_notes(start, &written)
    }

    /// Takes back the notes that the checkpoint has answered: not before it is finished, and not
    /// those of records behind its start, which may be half applied in the copy.
    fn clear_notes(&self, start: u64, written: &[(u32, u64)]) -> Result<()> {
        for (page, note) in written {
            if *note < start {
                let dirty = self.word(descriptor_at(*page) + descriptor::DIRTY)?;
                // Changed since: the new note stays.
                dirty
                    .compare_exchange(*note, 0, Ordering::AcqRel, Ordering::Relaxed)
                    .ok();
            }
        }
        Ok(())
    }

    /// Opens a rank's frames; a file that has outgrown what is live is written anew.
    fn sink(&self, rank: u16, frontier: u64) -> Result<Option<Sink<'_>>> {
        let sink = Sink::open(self, rank, false)?;
        let live = frontier * (PAGE + 64);
        if sink
            .as_ref()
            .is_some_and(|sink| sink.at > REWRITE_BYTES && sink.at > 4 * live)
        {
            return Sink::open(self, rank, true);
        }
        Ok(sink)
    }

    fn write_frames(
        &self,
        sequence: u64,
        frontier: u64,
        sinks: &mut [Option<Sink<'_>>],
        written: &mut Vec<(u32, u64)>,
    ) -> Result<()> {
        let rewriting = sinks.iter().flatten().any(|sink| sink.rewritten);
        let mut content = [0u64; (PAGE / 8) as usize];
        for page in 1..frontier.min(at::PAGES_MAX) as u32 {
            let dirty = self.load(descriptor_at(page) + descriptor::DIRTY)?;
            if dirty != 0 {
                written.push((page, dirty));
            } else if !rewriting {
                continue;
            }
            let word = self.load(descriptor_at(page) + descriptor::STATE)?;
            let mut state = PageState::unpack(word);
            if state.replicas == 0 && word != 0 {
                // Volatile now and maybe on disk once: what is on disk must not come back.
                state = PageState {
                    kind: kind::FREE,
                    replicas: PAGE_REPLICAS_MAX as u8,
                    ..state
                };
            }
            self.words(at::PAGES + u64::from(page) * PAGE, &mut content)?;
            let (first, copies) = page_place(self, state);
            let (before, from) = sinks.split_at_mut(usize::from(first).min(sinks.len()));
            // A rank that is gone is replaced by the next: frames are looked for on all of them.
            let present = from.iter_mut().chain(before).flatten();
            for sink in present.take(usize::from(copies)) {
                if dirty != 0 || sink.rewritten {
                    let page = u64::from(page);
                    let head = [FRAME_MAGIC, sequence, 0, page, state.pack(), 0, 0, PAGE / 8];
                    sink.push(head, &content)?;
                }
            }
        }
        Ok(())
    }

    fn finish(&self, sequence: u64, span: [u64; 3], sinks: &mut [Option<Sink<'_>>]) -> Result<()> {
        for sink in sinks.iter_mut().flatten() {
            sink.settle()?;
            self.note_end(sink)?;
        }
        for sink in sinks.iter_mut().flatten() {
            let [sum, start, end] = span;
            sink.push(
                [FRAME_MAGIC, sequence, 0, FRAME_END, sum, start, end, 0],
                &[],
            )?;
            sink.settle()?;
            crash_point!("checkpoint.ended");
            if sink.rewritten {
                door::rename(sink.dir, RankFile::MetaNew, RankFile::Meta)?;
                sink.rewritten = false;
            }
            self.note_end(sink)?;
        }
        Ok(())
    }

    /// Notes where the next checkpoint goes on. A file being written anew has no name yet.
    fn note_end(&self, sink: &Sink<'_>) -> Result<()> {
        if sink.rewritten {
            return Ok(());
        }
        self.store(rank_at(sink.rank) + rank::META_END, sink.at)
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
