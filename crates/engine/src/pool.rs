//! A process's handle on an attached pool: the arena, checked access to its words, owner slots,
//! locks. Everything that lasts is in the arena; this holds addresses and paths only.

use crate::layout::{self, PageState, Rec, header, owner, owner_at};
use crate::limits::{
    LOCK_RANKS, LOCK_SPECIAL, OWNERS_MAX, POOLS_MAX, PROCESSES_MAX, TARGETS_MAX, TX_LOCKS_MAX, at,
};
use crate::media::Media;
use crate::system::Home;
use crate::thread::ThreadBlock;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use shm::{Lock, OwnerSlot, OwnerState, Recover, Segment, crash_point};
use std::path::PathBuf;
use sys::{Errno, Result};

/// Where a pool lies and how big it is; the facts of its pool map that the engine needs.
#[derive(Clone, Debug)]
pub struct PoolSpec {
    /// Identity of the pool.
    pub uuid: uuid::Uuid,
    /// Directory of each rank, rank 0 first.
    pub ranks: Vec<PathBuf>,
    /// Ranks that are not to be used any more, whatever their directories have.
    pub excluded: Vec<u16>,
    /// Targets of each rank.
    pub targets_per_rank: u32,
    /// Size of the pool in bytes.
    pub size_bytes: u64,
    /// Directory for the arena, normally `/dev/shm`.
    pub runtime_dir: PathBuf,
    /// The directory through which the pool is used.
    pub home: Home,
}

/// Lock domains.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LockId {
    /// Everything placed on a target.
    Target(u16),
    /// Renames of directories from one parent to another, pool-wide.
    Rename,
    /// The set of containers.
    Containers,
    /// Proving what nobody accounts for.
    Prove,
    /// A checkpoint in progress.
    Checkpoint,
    /// A rank's block bitmap.
    Rank(u16),
    /// A flush of the log in progress.
    Sync,
    /// Pages of the arena.
    Pages,
    /// The tail of the log. Taken last.
    Log,
}

impl LockId {
    fn index(self) -> u64 {
        match self {
            LockId::Target(target) => u64::from(target),
            LockId::Rename => LOCK_SPECIAL,
            LockId::Containers => LOCK_SPECIAL + 1,
            LockId::Checkpoint => LOCK_SPECIAL + 2,
            LockId::Pages => LOCK_SPECIAL + 3,
            LockId::Log => LOCK_SPECIAL + 4,
            LockId::Sync => LOCK_SPECIAL + 5,
            LockId::Prove => LOCK_SPECIAL + 6,
            LockId::Rank(rank) => LOCK_RANKS + u64::from(rank),
        }
    }

    pub(crate) fn from_index(index: u64) -> Option<LockId> {
        let known = match index {
            target if target < TARGETS_MAX as u64 => LockId::Target(target as u16),
            LOCK_RANKS.. => LockId::Rank((index - LOCK_RANKS) as u16),
            special => match special - LOCK_SPECIAL {
                0 => LockId::Rename,
                1 => LockId::Containers,
                2 => LockId::Checkpoint,
                3 => LockId::Pages,
                4 => LockId::Log,
                5 => LockId::Sync,
                6 => LockId::Prove,
                _ => return None,
            },
        };
        Some(known)
    }
}

/// A process's handle on a pool. One per pool and process, never dropped.
pub struct Pool {
    pub(crate) arena: Segment,
    pub(crate) log: Segment,
    pub(crate) media: Media,
    pub(crate) spec: PoolSpec,
    pub(crate) arena_path: PathBuf,
    pub(crate) index: usize,
    /// Room for frames, used with the `Checkpoint` lock held.
    pub(crate) scratch: std::sync::Mutex<Vec<u64>>,
    /// In private memory that a fork wipes.
    pub(crate) own: crate::prove::Own,
}

/// The pools of this process.
pub(crate) static POOLS: [AtomicPtr<Pool>; POOLS_MAX] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; POOLS_MAX];

impl Pool {
    /// The spec the pool was attached with.
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// File of the arena.
    pub fn arena_path(&self) -> &std::path::Path {
        &self.arena_path
    }

    /// Number of the pool among those this process has attached.
    pub fn number(&self) -> u64 {
        self.index as u64
    }

    /// Number that tells this arena from any other, also of the same pool after a restart.
    pub fn instance(&self) -> u64 {
        self.load(header::INSTANCE).unwrap_or(0)
    }

    /// The word at arena offset `off`; `EIO` when the offset is not a backed word.
    #[inline]
    pub fn word(&self, off: u64) -> Result<&AtomicU64> {
        match self.arena.word(off) {
            Some(word) => Ok(word),
            None => self.word_after_growth(off),
        }
    }

    #[cold]
    fn word_after_growth(&self, off: u64) -> Result<&AtomicU64> {
        self.refresh_backing()?;
        self.arena.word(off).ok_or(Errno::EIO)
    }

    /// Another process may have grown the arena since the last look.
    pub(crate) fn refresh_backing(&self) -> Result<()> {
        let pages = self.arena.word(header::PAGES_BACKED).ok_or(Errno::EIO)?;
        let pages = pages.load(Ordering::Acquire).min(at::PAGES_MAX);
        self.arena
            .set_backed(at::PAGES + pages * crate::limits::PAGE)
    }

    /// Gives reserved address space back: the process is now allowed less.
    pub fn release_address_space(&self) -> Result<()> {
        self.arena.shrink()
    }

    /// Value of the word at `off`.
    #[inline]
    pub fn load(&self, off: u64) -> Result<u64> {
        // ORDERING: pairs with the release stores of `apply`: whoever sees a link sees what it
        // leads to.
        Ok(self.word(off)?.load(Ordering::Acquire))
    }

    /// Copies consecutive words from `off`.
    pub fn words(&self, off: u64, out: &mut [u64]) -> Result<()> {
        let Some(last) = (out.len() as u64).checked_sub(1) else {
            return Ok(());
        };
        self.word(off + last * 8)?;
        let first: *const AtomicU64 = self.word(off)?;
        for (i, slot) in out.iter_mut().enumerate() {
            // SAFETY: as in `store_words`.
            *slot = unsafe { &*first.add(i) }.load(Ordering::Acquire);
        }
        Ok(())
    }

    /// Stores a word that no transaction protects: only for memory not reachable by others, and
    /// for words documented as such.
    #[inline]
    pub(crate) fn store(&self, off: u64, value: u64) -> Result<()> {
        self.word(off)?.store(value, Ordering::Release);
        Ok(())
    }

    /// Stores consecutive words, in order, as [`Pool::store`] does.
    #[inline]
    pub(crate) fn store_words(&self, off: u64, values: &[u64]) -> Result<()> {
        let Some(last) = (values.len() as u64).checked_sub(1) else {
            return Ok(());
        };
        self.word(off + last * 8)?;
        let first: *const AtomicU64 = self.word(off)?;
        for (i, value) in values.iter().enumerate() {
            // SAFETY: the first and the last word are backed, and so is what lies between: the
            // arena is backed from its start as far as `word` allows.
            unsafe { &*first.add(i) }.store(*value, Ordering::Release);
        }
        Ok(())
    }

    /// Descriptor of a page.
    pub fn page_state(&self, page: u32) -> Result<PageState> {
        let word = self.load(layout::descriptor_at(page) + layout::descriptor::STATE)?;
        Ok(PageState::unpack(word))
    }

    /// Lock domain of a record or page: fixed while the page keeps its allocation.
    #[inline]
    pub fn target_of(&self, rec: Rec) -> Result<u16> {
        let target = self.page_state(rec.page())?.target;
        if u64::from(target) < self.target_count() {
            Ok(target)
        } else {
            Err(Errno::EIO)
        }
    }

    /// Copies on disk of the page that holds `rec`.
    pub fn replicas_of(&self, rec: Rec) -> Result<u8> {
        Ok(self.page_state(rec.page())?.replicas)
    }

    /// Number of ranks.
    pub fn rank_count(&self) -> u16 {
        self.spec.ranks.len() as u16
    }

    /// Number of targets.
    pub fn target_count(&self) -> u64 {
        self.spec.ranks.len() as u64 * u64::from(self.spec.targets_per_rank)
    }

    /// Wall-clock time in nanoseconds since the epoch, at the kernel's tick resolution.
    pub fn now_ns(&self) -> i64 {
        #[cfg(feature = "testing")]
        if let Some(now) = crate::testing::another_clock() {
            return now;
        }
        sys::clock::realtime_coarse()
    }

    pub(crate) fn slot(&self, owner: u16) -> Result<&OwnerSlot> {
        let bytes = self
            .arena
            .bytes(owner_at(owner), OwnerSlot::HEAD_BYTES)
            .filter(|_| usize::from(owner) < OWNERS_MAX)
            .ok_or(Errno::EIO)?;
        // SAFETY: backed, aligned memory of a type made of atomics only.
        Ok(unsafe { &*bytes.cast::<OwnerSlot>() })
    }

    fn lock_word(&self, id: LockId) -> Result<&Lock> {
        let off = at::LOCKS + id.index() * at::LOCK_BYTES;
        self.arena
            .word32(off)
            .map(Lock::from_word)
            .ok_or(Errno::EIO)
    }

    /// The calling thread's block and its owner slot in this pool.
    #[inline]
    pub(crate) fn me(&self) -> Result<(&'static ThreadBlock, u16)> {
        let block = ThreadBlock::current()?;
        match block.owner(self.index) {
            Some(owner) => Ok((block, owner)),
            None => Ok((block, self.join(block)?)),
        }
    }

    /// Takes an owner slot that is free or a dead thread's, whose affairs are then put right.
    #[cold]
    fn join(&self, block: &'static ThreadBlock) -> Result<u16> {
        let process = self.process();
        // From the front, so that few slots are ever used and looked at.
        for candidate in 0..OWNERS_MAX as u16 {
            let slot = self.slot(candidate)?;
            let seen = slot.look();
            let free = seen.state() == OwnerState::Free;
            if !free && !self.is_abandoned(candidate, seen.state()) {
                continue;
            }
            let used = self.word(header::OWNERS_USED)?;
            used.fetch_max(u64::from(candidate) + 1, Ordering::AcqRel);
            if !slot.claim(seen, process) {
                continue;
            }
            crash_point!("owner.claimed");
            slot.join(&block.robust)?;
            block.set_owner(self.index, Some((candidate, slot.look().generation())));
            if !free && let Err(errno) = self.inherit(block, candidate) {
                block.set_owner(self.index, None);
                return Err(errno);
            }
            return Ok(candidate);
        }
        Err(Errno::EAGAIN)
    }

    /// Slot of the process whose end leaves an owner slot being joined or left to others.
    fn process(&self) -> u16 {
        // A full process table is cleared by a thread that has joined.
        crate::process::slot(self).unwrap_or(PROCESSES_MAX as u32 - 1) as u16
    }

    /// Numbers of the owner slots that were ever used.
    pub(crate) fn owners(&self) -> Result<core::ops::Range<u16>> {
        Ok(0..self.load(header::OWNERS_USED)?.min(OWNERS_MAX as u64) as u16)
    }

    /// Gives the calling thread's owner slot back, with all it had reserved.
    pub fn leave(&self) -> Result<()> {
        let block = ThreadBlock::current()?;
        let Some(owner) = block.owner(self.index) else {
            return Ok(());
        };
        self.give_back(owner, owner)?;
        let process = self.process();
        block.set_owner(self.index, None);
        self.slot(owner)?.leave(process, &block.robust)
    }

    /// Takes a lock for the calling thread and notes it in its owner slot first.
    pub(crate) fn acquire(&self, block: &ThreadBlock, me: u16, id: LockId) -> Result<()> {
        let depth = block.held.load(Ordering::Relaxed);
        if depth >= owner::LOCKS_LEN {
            return Err(Errno::EDEADLK);
        }
        let note = owner_at(me) + owner::LOCKS + depth * 8;
        // Waiting may mean recovering the holder, which takes locks of its own after this one. The
        // depth goes first: a signal handler must not use the same place.
        block.held.store(depth + 1, Ordering::Relaxed);
        self.store(note, id.index() + 1)?;
        crash_point!("lock.noted");
        if let Err(errno) = self.lock_word(id)?.acquire(me, self) {
            self.store(note, 0)?;
            block.held.store(depth, Ordering::Relaxed);
            return Err(errno);
        }
        crash_point!("lock.held");
        Ok(())
    }

    /// Takes a lock unless a live owner holds it.
    pub(crate) fn try_acquire(&self, block: &ThreadBlock, me: u16, id: LockId) -> Result<bool> {
        let depth = block.held.load(Ordering::Relaxed);
        if depth >= owner::LOCKS_LEN {
            return Ok(false);
        }
        let holder = self.lock_word(id)?.holder();
        if holder.is_some_and(|holder| !self.is_dead(holder)) {
            return Ok(false);
        }
        // Free, or a dead one's; whoever is faster is waited for.
        self.acquire(block, me, id).map(|()| true)
    }

    /// Releases the lock taken last.
    pub(crate) fn release(&self, block: &ThreadBlock, me: u16, id: LockId) {
        let depth = block.held.load(Ordering::Relaxed).saturating_sub(1);
        let released = self.lock_word(id).map(|lock| lock.release(me));
        debug_assert_eq!(released, Ok(true));
        let noted = self.store(owner_at(me) + owner::LOCKS + depth * 8, 0);
        debug_assert!(noted.is_ok());
        // ORDERING: after the note, for a signal handler of this thread.
        block.held.store(depth, Ordering::Release);
    }

    /// Releases the locks a dead owner noted.
    pub(crate) fn release_noted(&self, dead: u16) -> Result<()> {
        for i in 0..owner::LOCKS_LEN {
            let note = owner_at(dead) + owner::LOCKS + i * 8;
            let index = self.load(note)?;
            if index == 0 {
                continue;
            }
            if let Some(id) = LockId::from_index(index - 1) {
                let lock = self.lock_word(id)?;
                if lock.holder() == Some(dead) {
                    match id {
                        LockId::Pages => self.repair_pages()?,
                        LockId::Rank(rank) => self.repair_rank(rank)?,
                        _ => {}
                    }
                    lock.release(dead);
                }
            }
            self.store(note, 0)?;
        }
        Ok(())
    }

    /// Owners that are dead but not yet recovered are put right; returns how many there were.
    pub fn reap(&self) -> Result<usize> {
        let mut reaped = 0;
        for owner in self.owners()? {
            if self.is_dead(owner) {
                self.recover(owner)?;
                reaped += 1;
            }
        }
        self.release_blocks();
        Ok(reaped)
    }
}

impl Pool {
    /// Makes the blocks of this process's ended threads reusable.
    pub(crate) fn release_blocks(&self) {
        ThreadBlock::release_dead(self.index, |owner, generation| {
            self.slot(owner)
                .is_ok_and(|slot| slot.look().generation() != generation || slot.is_dead())
        });
    }
}

const _: () = assert!(crate::limits::PROCESSES_MAX <= 1 << 12 && OWNERS_MAX <= 1 << 12);
const _: () = assert!((TX_LOCKS_MAX as u64) + 4 <= owner::LOCKS_LEN);
