//! Transactions: word after-images collected under locks, made durable and visible by one record.
//!
//! A record is published by one store (the log's tail, or the length in the owner's slot when
//! nothing in it concerns the disk) and then applied word by word in list order. Until it is
//! published nothing has happened; afterwards anybody can apply it, any number of times.

use crate::layout::{
    self, BlockPtr, CLASSES, PageLink, PageState, RECORD_LOCAL, Rec, Run, descriptor,
    descriptor_at, kind, owner, owner_at, partial_at, partial_shift, tag, tag_generation,
};
use crate::limits::{GRANULE, PAGE, PAGE_REPLICAS_MAX, TX_FREED_MAX, TX_LOCKS_MAX, TX_WORDS_MAX};
use crate::log::RecordKind;
use crate::pool::{LockId, Pool};
use crate::space::Stage;
use crate::thread::ThreadBlock;
use core::sync::atomic::Ordering;
use shm::crash_point;
use sys::{Errno, Result};

/// Header words of a record.
pub(crate) const RECORD_HEADER: usize = 4;
/// Entry flag: belongs on disk.
pub(crate) const ENTRY_DURABLE: u64 = 1 << 56;
/// Entry flag: the words are zeros and are not listed.
pub(crate) const ENTRY_ZERO: u64 = 1 << 57;

/// Entry flag: the words are pointers to blocks, published with this record. Bits 60-62: binary
/// logarithm of the number of words that point to the copies of one block.
pub(crate) const ENTRY_DATA: u64 = 1 << 58;
/// Entry flag: some of the words may be pointers published before, now in another place.
pub(crate) const ENTRY_MOVED: u64 = 1 << 59;
pub(crate) const ENTRY_STRIDE_SHIFT: u32 = 60;

/// Packs an entry's head: word offset, word count, flags.
fn entry(off: u64, count: usize, flags: u64) -> u64 {
    (off / 8) | ((count as u64) << 40) | flags
}

/// Byte offset, word count and flags of an entry's head.
pub(crate) fn entry_parts(head: u64) -> (u64, usize, u64) {
    (
        (head & 0xff_ffff_ffff) * 8,
        (head >> 40 & 0xffff) as usize,
        head & (0xff << 56),
    )
}

/// A change in the making. Dropped without [`Tx::commit`], nothing has happened.
pub struct Tx<'p> {
    pool: &'p Pool,
    block: &'static ThreadBlock,
    me: u16,
    len: usize,
    locks: [Option<LockId>; TX_LOCKS_MAX],
    held: usize,
    durable: bool,
    /// Pointers to blocks are published.
    data: bool,
    touched: Touched,
    freed_runs: usize,
    freed_pages: usize,
    /// Memory or blocks are taken.
    takes: bool,
    /// Memory or blocks are given back.
    gives: bool,
    /// Why the log could not be made to have room, should there be little.
    short: Option<Errno>,
}

/// One bit for each word set so far, by its offset: most words asked for were never set. The words
/// of 512 bytes share one of the eight, which keeps an inode apart from most others.
struct Touched([u64; 8]);

impl Touched {
    fn place(word: u64) -> usize {
        let block = word / 64;
        ((block ^ block >> 3 ^ block >> 6) & 7) as usize
    }

    fn mark(&mut self, off: u64, count: usize) {
        let mut word = off / 8;
        let mut left = (count as u64).min(self.0.len() as u64 * 64);
        while left > 0 {
            let here = left.min(64 - word % 64);
            self.0[Touched::place(word)] |= (u64::MAX >> (64 - here)) << (word % 64);
            word += here;
            left -= here;
        }
        if count > self.0.len() * 64 {
            self.0 = [u64::MAX; 8];
        }
    }

    fn may_hold(&self, off: u64) -> bool {
        let word = off / 8;
        self.0[Touched::place(word)] >> (word % 64) & 1 != 0
    }
}

impl Pool {
    /// Starts a transaction holding `locks` (sorted and deduplicated here; at most 10).
    ///
    /// What was looked up without a lock must be looked up again inside. `EDEADLK` when the
    /// calling thread is in a transaction already, as a signal handler's operation would be.
    pub fn tx(&self, locks: &[LockId]) -> Result<Tx<'_>> {
        // What concerns no disk needs none, and what gives something back gets the last of it.
        let short = self.make_log_room().err();
        let (block, me) = self.me()?;
        if block.busy.swap(true, Ordering::Relaxed) {
            return Err(Errno::EDEADLK);
        }
        let mut tx = Tx {
            pool: self,
            block,
            me,
            len: RECORD_HEADER,
            locks: [None; TX_LOCKS_MAX],
            held: 0,
            durable: false,
            data: false,
            touched: Touched([0; 8]),
            freed_runs: 0,
            freed_pages: 0,
            takes: false,
            gives: false,
            short,
        };
        for id in in_order(locks)?.into_iter().flatten() {
            self.acquire(block, me, id)?;
            tx.locks[tx.held] = Some(id);
            tx.held += 1;
        }
        Ok(tx)
    }
}

/// The locks without repetitions, in lock order: few, so each is put in its place as it comes.
fn in_order(locks: &[LockId]) -> Result<[Option<LockId>; TX_LOCKS_MAX]> {
    let mut sorted = [None; TX_LOCKS_MAX];
    let mut count = 0;
    for id in locks {
        let mut at = count;
        while at > 0 && sorted[at - 1].is_some_and(|other| order(other) > order(*id)) {
            at -= 1;
        }
        if at > 0 && sorted[at - 1] == Some(*id) {
            continue;
        }
        if count == TX_LOCKS_MAX {
            return Err(Errno::EINVAL);
        }
        for above in (at..count).rev() {
            sorted[above + 1] = sorted[above];
        }
        sorted[at] = Some(*id);
        count += 1;
    }
    Ok(sorted)
}

/// Lock order: renames before targets, everything internal to the engine after them.
fn order(id: LockId) -> u64 {
    match id {
        LockId::Containers => 0,
        LockId::Rename => 1,
        LockId::Target(target) => 16 + u64::from(target),
        LockId::Prove => (1 << 20) - 1,
        LockId::Checkpoint => 1 << 20,
        LockId::Sync => (1 << 20) + 1,
        LockId::Rank(rank) => (2 << 20) + u64::from(rank),
        LockId::Pages => 3 << 20,
        LockId::Log => 4 << 20,
    }
}

impl<'p> Tx<'p> {
    #[allow(
        clippy::mut_from_ref,
        reason = "the scratch words belong to the one transaction of this thread"
    )]
    fn scratch(&self) -> &mut [u64; TX_WORDS_MAX] {
        // SAFETY: `busy` makes this the only transaction on the thread's block, and the reference
        // does not outlive the statement it is used in.
        unsafe { &mut *self.block.words.get() }
    }

    /// The pool this changes.
    pub fn pool(&self) -> &'p Pool {
        self.pool
    }

    /// Words that still fit; split an operation rather than run out.
    pub fn room(&self) -> usize {
        TX_WORDS_MAX - self.len
    }

    /// The word at `off` as this transaction will leave it, as far as single words and blocks of
    /// this transaction go; else as it is.
    pub fn load(&self, off: u64) -> Result<u64> {
        if !self.touched.may_hold(off) {
            return self.pool.load(off);
        }
        let words = self.scratch();
        let mut at = RECORD_HEADER;
        let mut found = None;
        while at < self.len {
            let (base, count, flags) = entry_parts(words[at]);
            let inside = off >= base && off < base + count as u64 * 8;
            if flags & ENTRY_ZERO != 0 {
                if inside {
                    found = Some(0);
                }
                at += 1;
            } else {
                if inside {
                    found = Some(words[at + 1 + ((off - base) / 8) as usize]);
                }
                at += 1 + count;
            }
        }
        match found {
            Some(value) => Ok(value),
            None => self.pool.load(off),
        }
    }

    fn push(&mut self, off: u64, values: &[u64], flags: u64) -> Result<()> {
        let last = off + (values.len() as u64).saturating_sub(1) * 8;
        self.pool.word(last)?;
        if values.is_empty() || values.len() + 1 > self.room() || off & 7 != 0 {
            return Err(Errno::EOVERFLOW);
        }
        let at = self.len;
        let words = self.scratch();
        words[at] = entry(off, values.len(), flags);
        match values {
            // Mostly: a call of `memcpy` would take longer than the rest of this.
            [value] => words[at + 1] = *value,
            _ => words[at + 1..at + 1 + values.len()].copy_from_slice(values),
        }
        self.len += 1 + values.len();
        self.touched.mark(off, values.len());
        self.durable |= flags & ENTRY_DURABLE != 0;
        Ok(())
    }

    /// Sets a word that belongs on disk.
    pub fn set(&mut self, off: u64, value: u64) -> Result<()> {
        self.push(off, &[value], ENTRY_DURABLE)
    }

    /// Sets consecutive words that belong on disk.
    pub fn put(&mut self, off: u64, values: &[u64]) -> Result<()> {
        self.push(off, values, ENTRY_DURABLE)
    }

    /// Publishes pointers to blocks whose data is stored, `stride` (a power of two) words for the
    /// copies of each. Should the data not be there after a power failure, the words stay as they
    /// were.
    pub fn put_blocks(&mut self, off: u64, values: &[u64], stride: usize) -> Result<()> {
        if !stride.is_power_of_two() || stride > 64 || !values.len().is_multiple_of(stride) {
            return Err(Errno::EINVAL);
        }
        let stride = u64::from(stride.trailing_zeros()) << ENTRY_STRIDE_SHIFT;
        self.data = true;
        self.push(off, values, ENTRY_DURABLE | ENTRY_DATA | stride)
    }

    /// Puts what a block holds now into the log, ahead of this transaction; `copies` point to the
    /// places where it lies.
    pub fn log_content(&self, copies: &[BlockPtr]) -> Result<()> {
        self.pool.log_content(self.block, self.me, copies)
    }

    /// Puts pointers to blocks that were published before into another place.
    pub fn put_moved(&mut self, off: u64, values: &[u64]) -> Result<()> {
        self.push(off, values, ENTRY_DURABLE | ENTRY_MOVED)
    }

    /// Sets a word that is not kept on disk: zero after the arena was lost.
    pub fn set_volatile(&mut self, off: u64, value: u64) -> Result<()> {
        self.push(off, &[value], 0)
    }

    /// Sets consecutive words that are not kept on disk.
    pub fn put_volatile(&mut self, off: u64, values: &[u64]) -> Result<()> {
        self.push(off, values, 0)
    }

    /// Zeroes `count` words from `off`.
    pub fn zero(&mut self, off: u64, count: usize, durable: bool) -> Result<()> {
        self.pool.word(off + (count as u64).saturating_sub(1) * 8)?;
        if count == 0 || count > 0xffff || self.room() == 0 {
            return Err(Errno::EOVERFLOW);
        }
        let flags = ENTRY_ZERO | if durable { ENTRY_DURABLE } else { 0 };
        let at = self.len;
        self.scratch()[at] = entry(off, count, flags);
        self.touched.mark(off, count);
        self.len += 1;
        self.durable |= durable;
        Ok(())
    }

    /// Allocates a slot record of 64, 256 or 1024 bytes on `target`, whose lock is held, kept in
    /// `replicas` copies on disk (0 = volatile). Writes its tag; everything behind the tag is
    /// whatever was there.
    pub fn alloc(&mut self, kind: u8, bytes: u64, target: u16, replicas: u8) -> Result<Rec> {
        self.takes = true;
        let class = CLASSES
            .iter()
            .position(|c| *c == bytes)
            .ok_or(Errno::EINVAL)?;
        let replicas = replicas.min(PAGE_REPLICAS_MAX as u8);
        let slots = PAGE / bytes;
        if u64::from(target) >= self.pool.target_count() {
            return Err(Errno::EIO);
        }
        let head_at = partial_at(target, class, replicas);
        let shift = partial_shift(class, replicas);
        let heads = self.load(head_at)?;
        let mut page = (heads >> shift) as u32;
        let free = if page == 0 {
            page = self.take_page()?;
            let state = PageState {
                kind: kind::SLOTS,
                class: class as u8,
                replicas,
                target,
                version: 0,
            };
            self.start_page(page, state, true)?;
            self.set_head(head_at, shift, heads, page)?;
            if slots == 64 {
                u64::MAX
            } else {
                (1 << slots) - 1
            }
        } else {
            self.load(descriptor_at(page) + descriptor::FREE_SLOTS)?
        };
        if free == 0 || u64::from(free.trailing_zeros()) >= slots {
            return Err(Errno::EIO);
        }
        // A page number out of a damaged list.
        self.pool.word(PageLink::new(page, 0, 0).offset())?;
        // Record 0 of page 0 means "none"; page 0 is never handed out.
        let slot = u64::from(free.trailing_zeros());
        let left = free & (free - 1);
        self.set_volatile(descriptor_at(page) + descriptor::FREE_SLOTS, left)?;
        if left == 0 {
            let next = self.load(descriptor_at(page) + descriptor::NEXT)?;
            let heads = self.load(head_at)?;
            self.set_head(head_at, shift, heads, next as u32)?;
        }
        let rec = Rec((u64::from(page) * (PAGE / GRANULE) + slot * (bytes / GRANULE)) as u32);
        let generation = tag_generation(self.load(rec.offset())?).wrapping_add(1);
        let flags = if replicas == 0 { 0 } else { ENTRY_DURABLE };
        self.push(rec.offset(), &[tag(kind, generation)], flags)?;
        Ok(rec)
    }

    fn set_head(&mut self, at: u64, shift: u32, heads: u64, page: u32) -> Result<()> {
        let kept = heads & !(0xffff_ffff << shift);
        self.set_volatile(at, kept | u64::from(page) << shift)
    }

    /// Frees a slot record on a target whose lock is held.
    pub fn free(&mut self, rec: Rec) -> Result<()> {
        let page = rec.page();
        let state = self.pool.page_state(page)?;
        if state.kind != kind::SLOTS
            || u64::from(state.target) >= self.pool.target_count()
            || usize::from(state.replicas) > PAGE_REPLICAS_MAX
        {
            return Err(Errno::EIO);
        }
        let class = usize::from(state.class);
        let bytes = *CLASSES.get(class).ok_or(Errno::EIO)?;
        let slot = (rec.offset() % PAGE) / bytes;
        let generation = tag_generation(self.load(rec.offset())?);
        let flags = if state.replicas == 0 {
            0
        } else {
            ENTRY_DURABLE
        };
        self.push(rec.offset(), &[tag(kind::FREE, generation)], flags)?;
        self.gives = true;
        let free_at = descriptor_at(page) + descriptor::FREE_SLOTS;
        let free = self.load(free_at)?;
        if free & 1 << slot != 0 {
            return Err(Errno::EIO);
        }
        self.set_volatile(free_at, free | 1 << slot)?;
        if free == 0 {
            let head_at = partial_at(state.target, class, state.replicas);
            let shift = partial_shift(class, state.replicas);
            let heads = self.load(head_at)?;
            self.set_volatile(
                descriptor_at(page) + descriptor::NEXT,
                heads >> shift & 0xffff_ffff,
            )?;
            self.set_head(head_at, shift, heads, page)?;
        }
        Ok(())
    }

    /// Allocates a page on `target`, whose lock is held; the content is zeroed if asked.
    pub fn alloc_page(
        &mut self,
        kind: u8,
        target: u16,
        replicas: u8,
        zeroed: bool,
    ) -> Result<PageLink> {
        let page = self.take_page()?;
        self.link_page(page, kind, target, replicas, zeroed)
    }

    /// Allocates `count` contiguous volatile zeroed pages. Only the first has a descriptor that says
    /// so, lest a big table fill the record: what is linked by page number is the first.
    pub fn alloc_pages(&mut self, kind: u8, target: u16, count: u32) -> Result<PageLink> {
        let (slot, first) = self.pool.reserve_pages(self.block, self.me, count, true)?;
        // The pages are nobody's yet: zeroing them needs no record.
        for word in 0..u64::from(count) * PAGE / 8 {
            self.pool
                .store(PageLink::new(first, 0, 0).offset() + word * 8, 0)?;
        }
        self.set_volatile(slot, 0)?;
        self.link_page(first, kind, target, 0, false)
    }

    fn link_page(
        &mut self,
        page: u32,
        kind: u8,
        target: u16,
        replicas: u8,
        zeroed: bool,
    ) -> Result<PageLink> {
        self.takes = true;
        let replicas = replicas.min(PAGE_REPLICAS_MAX as u8);
        let state = PageState {
            kind,
            class: 0,
            replicas,
            target,
            version: 0,
        };
        let version = self.start_page(page, state, zeroed)?;
        Ok(PageLink::new(page, version, 0))
    }

    /// Sets up a page's descriptor; the version follows on the last one, whatever the page was.
    fn start_page(&mut self, page: u32, mut state: PageState, zeroed: bool) -> Result<u16> {
        let before = PageState::unpack(self.load(descriptor_at(page) + descriptor::STATE)?);
        state.version = before.version.wrapping_add(1).max(1);
        let durable = state.replicas != 0;
        let flags = if durable { ENTRY_DURABLE } else { 0 };
        self.push(
            descriptor_at(page) + descriptor::STATE,
            &[state.pack()],
            flags,
        )?;
        if zeroed {
            let content = PageLink::new(page, 0, 0).offset();
            self.zero(content, (PAGE / 8) as usize, durable)?;
        }
        let free = match state.kind {
            kind::SLOTS => match PAGE / CLASSES.get(usize::from(state.class)).unwrap_or(&PAGE) {
                64 => u64::MAX,
                slots => (1 << slots) - 1,
            },
            _ => 0,
        };
        self.put_volatile(descriptor_at(page) + descriptor::FREE_SLOTS, &[free, 0])?;
        Ok(state.version)
    }

    /// One page out of those this thread has reserved, taken when the transaction commits.
    fn take_page(&mut self) -> Result<u32> {
        let list = owner_at(self.me) + owner::PAGES;
        for i in 0..owner::PAGES_LEN {
            let at = list + i * 8;
            let run = self.load(at)?;
            if run != 0 {
                return self.take_from(at, run);
            }
        }
        let (at, _) = self.pool.reserve_pages(self.block, self.me, 8, false)?;
        let run = self.pool.load(at)?;
        self.take_from(at, run)
    }

    fn take_from(&mut self, at: u64, run: u64) -> Result<u32> {
        let (page, len) = (run as u32, run >> 32);
        let rest = if len <= 1 {
            0
        } else {
            u64::from(page + 1) | (len - 1) << 32
        };
        self.set_volatile(at, rest)?;
        Ok(page)
    }

    /// Frees a page whose lock is held.
    pub fn free_page(&mut self, link: PageLink) -> Result<()> {
        self.free_pages(link, 1)
    }

    /// Frees contiguous pages whose lock is held.
    pub fn free_pages(&mut self, link: PageLink, count: u32) -> Result<()> {
        if self.freed_pages >= owner::FREED_PAGES_LEN as usize || link.is_none() {
            return Err(Errno::EOVERFLOW);
        }
        let state = self.pool.page_state(link.page())?;
        if state.version != link.version() {
            return Err(Errno::EIO);
        }
        if state.replicas != 0 {
            for page in link.page()..link.page() + count {
                let gone = PageState {
                    kind: kind::FREE,
                    ..state
                };
                self.set(descriptor_at(page) + descriptor::STATE, gone.pack())?;
            }
        }
        let at = owner_at(self.me) + owner::FREED_PAGES + self.freed_pages as u64 * 8;
        self.set_volatile(at, u64::from(link.page()) | u64::from(count) << 32)?;
        self.freed_pages += 1;
        self.gives = true;
        Ok(())
    }

    /// Pages that [`Tx::free_page`] still takes in this transaction.
    pub fn free_page_room(&self) -> usize {
        owner::FREED_PAGES_LEN as usize - self.freed_pages
    }

    /// Makes the blocks grabbed by `stage` belong to what this transaction publishes.
    pub fn consume(&mut self, stage: &Stage<'_>) -> Result<()> {
        self.takes = true;
        for (at, value) in stage.staged() {
            self.set_volatile(at, value)?;
        }
        Ok(())
    }

    /// Frees blocks that are no longer referenced once this transaction is published; those of a rank that
    /// is gone stay in use, for nobody can write there.
    /// `EOVERFLOW` when the transaction has freed all it can: commit and go on in a further one.
    pub fn free_run(&mut self, run: Run) -> Result<()> {
        if self.freed_runs >= TX_FREED_MAX {
            return Err(Errno::EOVERFLOW);
        }
        if self.pool.is_data_absent(run.rank)? {
            return Ok(());
        }
        let at = owner_at(self.me) + owner::FREED_RUNS + self.freed_runs as u64 * 8;
        // Whatever it was, it has been used.
        let run = Run {
            fresh: false,
            ..run
        };
        self.set_volatile(at, run.pack())?;
        self.freed_runs += 1;
        self.gives = true;
        Ok(())
    }

    /// Runs that [`Tx::free_run`] still takes in this transaction.
    pub fn free_run_room(&self) -> usize {
        TX_FREED_MAX - self.freed_runs
    }

    /// Publishes and applies the change; returns its log sequence number (0 if it concerns no
    /// disk). When the log is full and cannot be emptied, what takes space fails with the reason
    /// first, what gives some back last.
    pub fn commit(mut self) -> Result<u64> {
        if self.len == RECORD_HEADER {
            return Ok(0);
        }
        let base = owner_at(self.me);
        let len = self.len;
        let bytes = len as u64 * 8;
        if let Some(error) = self.short
            && self.durable
            && !self.pool.leaves_room(bytes, self.takes, self.gives)?
        {
            return Err(error);
        }
        crash_point!("tx.built");
        let lsn = if self.durable {
            self.pool.append(
                self.block,
                self.me,
                RecordKind::Change,
                &mut self.scratch()[..len],
            )?
        } else if bytes <= owner::LOCAL_RECORD_BYTES {
            let words = self.scratch();
            words[0] = bytes;
            self.pool
                .store_words(base + owner::LOCAL_RECORD, &words[..len])?;
            self.pool
                .store(base + owner::RECORD_LEN, bytes | RECORD_LOCAL)?;
            0
        } else {
            self.pool.append(
                self.block,
                self.me,
                RecordKind::Change,
                &mut self.scratch()[..len],
            )?
        };
        crash_point!("tx.published");
        apply(self.pool, &self.scratch()[..len], lsn, |_| {
            crash_point!("tx.applying")
        })?;
        crash_point!("tx.applied");
        self.pool.store(base + owner::RECORD_LEN, 0)?;
        crash_point!("tx.closed");
        if self.durable {
            self.pool
                .note_published(lsn, self.data, self.scratch()[3])?;
        }
        let (runs, pages) = (self.freed_runs, self.freed_pages);
        self.unlock();
        if runs > 0 {
            self.pool.settle_freed_runs(self.block, self.me, runs)?;
        }
        if pages > 0 {
            self.pool.drain_freed_pages(self.block, self.me, self.me)?;
        }
        Ok(lsn)
    }

    fn unlock(&mut self) {
        for id in self.locks.iter_mut().rev() {
            if let Some(id) = id.take() {
                self.pool.release(self.block, self.me, id);
            }
        }
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        self.unlock();
        self.block.busy.store(false, Ordering::Relaxed);
    }
}

/// Stores a record's words in order. Idempotent: a record may be applied again by whoever finds
/// its owner dead.
pub(crate) fn apply(
    pool: &Pool,
    record: &[u64],
    lsn: u64,
    mut step: impl FnMut(u64),
) -> Result<()> {
    let mut at = RECORD_HEADER;
    while at < record.len() {
        let (off, count, flags) = entry_parts(record[at]);
        at += 1;
        step(off);
        if flags & ENTRY_ZERO != 0 {
            for i in 0..count {
                pool.store(off + i as u64 * 8, 0)?;
            }
        } else {
            pool.store_words(off, record.get(at..at + count).ok_or(Errno::EIO)?)?;
        }
        if flags & ENTRY_DURABLE != 0 {
            mark_dirty(pool, off, lsn)?;
        }
        if flags & ENTRY_ZERO == 0 {
            at += count;
        }
    }
    Ok(())
}

/// Notes on a page's descriptor that it differs from checkpoints that began before `lsn`.
fn mark_dirty(pool: &Pool, off: u64, lsn: u64) -> Result<()> {
    use crate::limits::at;
    let page = if off >= at::PAGES {
        ((off - at::PAGES) / PAGE) as u32
    } else if off >= at::DESCRIPTORS {
        ((off - at::DESCRIPTORS) / at::DESCRIPTOR_BYTES) as u32
    } else {
        return Ok(());
    };
    pool.store(layout::descriptor_at(page) + descriptor::DIRTY, lsn.max(1))
}
