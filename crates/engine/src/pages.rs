//! Pages of the arena: growth, the free list, and what owners have reserved or freed.
//!
//! The free list and the frontier change under the `Pages` lock; a journal word names the owner's
//! list entry that is being moved, so that a dead holder's move is completed or undone.

use crate::layout::{PageState, descriptor, descriptor_at, header, kind, owner, owner_at};
use crate::limits::{GROW_PAGES, GROW_STEP, PAGE, at};
use crate::pool::{LockId, Pool};
use crate::thread::ThreadBlock;
use shm::{HUGE_PAGE, crash_point};
use sys::{Errno, Result};

/// Journal flag: the entry is being put on the free list, not filled from it.
const JOURNAL_PUSH: u64 = 1;

fn run(start: u32, len: u64) -> u64 {
    u64::from(start) | len << 32
}

impl Pool {
    /// Reserves `count` contiguous pages, or unless `exact` fewer from the free list; returns the
    /// offset of the entry in the owner's list, and the first page.
    pub(crate) fn reserve_pages(
        &self,
        block: &ThreadBlock,
        me: u16,
        count: u32,
        exact: bool,
    ) -> Result<(u64, u32)> {
        let list = owner_at(me) + owner::PAGES;
        let entry = (0..owner::PAGES_LEN)
            .map(|i| list + i * 8)
            .find(|at| self.load(*at) == Ok(0))
            .ok_or(Errno::ENOSPC)?;
        self.acquire(block, me, LockId::Pages)?;
        let before = self.load(header::PAGES_BACKED)?;
        let taken = self.reserve_locked(entry, count, exact);
        let backed = self.load(header::PAGES_BACKED)?;
        self.release(block, me, LockId::Pages);
        self.populate(before, backed);
        Ok((entry, taken?))
    }

    /// Maps pages that were just backed: most will be touched soon, and one by one they cost more.
    pub(crate) fn populate(&self, before: u64, backed: u64) {
        if backed > before {
            self.arena
                .populate(at::PAGES + before * PAGE, (backed - before) * PAGE);
        }
    }

    /// Makes sure that the calling thread has `count` pages reserved.
    pub(crate) fn hoard_pages(&self, count: u64) -> Result<()> {
        let (block, me) = self.me()?;
        let mut reserved = 0;
        for i in 0..owner::PAGES_LEN {
            reserved += self.load(owner_at(me) + owner::PAGES + i * 8)? >> 32;
        }
        match count.saturating_sub(reserved) {
            0 => Ok(()),
            more => self.reserve_pages(block, me, more as u32, true).map(|_| ()),
        }
    }

    fn reserve_locked(&self, entry: u64, count: u32, exact: bool) -> Result<u32> {
        self.store(header::ALLOC_JOURNAL, entry)?;
        let (len, next) = self.free_run(count)?;
        let first = if len == count || !exact && len > 0 {
            let first = self.load(header::FREE_HEAD)? as u32 - (len - 1);
            self.store(entry, run(first, u64::from(len)))?;
            crash_point!("pages.popping");
            self.store(header::FREE_HEAD, next)?;
            first
        } else {
            let first = self.load(header::FRONTIER)?;
            self.grow(first + u64::from(count))?;
            self.store(entry, run(first as u32, u64::from(count)))?;
            crash_point!("pages.extending");
            self.store(header::FRONTIER, first + u64::from(count))?;
            first as u32
        };
        crash_point!("pages.reserved");
        self.store(header::ALLOC_JOURNAL, 0)?;
        Ok(first)
    }

    /// How many pages, up to `count`, follow each other downwards at the head of the free list, as
    /// a run is that was put there, and what comes after them.
    fn free_run(&self, count: u32) -> Result<(u32, u64)> {
        let mut next = self.load(header::FREE_HEAD)?;
        let head = next as u32;
        let mut len = 0;
        while len < count && next != 0 && next as u32 == head.wrapping_sub(len) {
            next = self.load(descriptor_at(next as u32) + descriptor::NEXT)?;
            len += 1;
        }
        Ok((len, next))
    }

    /// Makes sure that pages below `frontier` are backed: never sparse, for a full tmpfs would
    /// answer the first touch with SIGBUS.
    pub(crate) fn grow(&self, frontier: u64) -> Result<()> {
        let backed = self.load(header::PAGES_BACKED)?;
        if frontier <= backed {
            return Ok(());
        }
        let wanted = frontier.next_multiple_of(GROW_STEP);
        if wanted > at::PAGES_MAX {
            return Err(Errno::ENOSPC);
        }
        self.back_arena(
            at::DESCRIPTORS + backed * at::DESCRIPTOR_BYTES,
            (wanted - backed) * at::DESCRIPTOR_BYTES,
        )?;
        self.back_arena(at::PAGES + backed * PAGE, (wanted - backed) * PAGE)?;
        self.store(header::PAGES_BACKED, wanted)?;
        self.refresh_backing()
    }

    /// The same while the arena is built: by huge pages, so that little time goes by until it is there,
    /// and mapped.
    pub(crate) fn grow_building(&self, frontier: u64) -> Result<()> {
        let backed = self.load(header::PAGES_BACKED)?;
        let wanted = frontier.next_multiple_of(GROW_PAGES);
        if frontier <= backed || wanted > at::PAGES_MAX {
            return self.grow(frontier);
        }
        let (from, end) = (at::PAGES + backed * PAGE, at::PAGES + wanted * PAGE);
        for huge in (from..end).step_by(HUGE_PAGE as usize) {
            self.back_arena(huge, PAGE)?;
            if !self.arena.gather(huge, HUGE_PAGE) {
                break;
            }
        }
        self.grow(wanted)?;
        self.populate(backed, wanted);
        Ok(())
    }

    fn back_arena(&self, off: u64, len: u64) -> Result<()> {
        use rustix::fs::FallocateFlags;
        let file = self.open_arena()?;
        // tmpfs gives up when a signal is pending (fallocate(2)).
        let grow = || rustix::fs::fallocate(&file, FallocateFlags::empty(), off, len);
        sys::file_limit::exempt(|| {
            rustix::io::retry_on_intr(grow).map_err(|e| Errno::new(e.raw_os_error()))
        })
    }

    /// Completes or undoes the move that a dead holder of the `Pages` lock had begun.
    pub(crate) fn repair_pages(&self) -> Result<()> {
        let journal = self.load(header::ALLOC_JOURNAL)?;
        if journal == 0 {
            return Ok(());
        }
        let entry = journal & !7;
        let value = self.load(entry)?;
        let (start, len) = (value as u32, value >> 32);
        if value != 0 {
            let head = self.load(header::FREE_HEAD)? as u32;
            if journal & JOURNAL_PUSH != 0 {
                if head == start {
                    self.store(entry, if len <= 1 { 0 } else { run(start + 1, len - 1) })?;
                }
            } else if u64::from(head) == u64::from(start) + len - 1
                || self.load(header::FRONTIER)? == u64::from(start)
            {
                self.store(entry, 0)?;
            }
        }
        self.store(header::ALLOC_JOURNAL, 0)
    }

    /// Puts the pages of one list entry on the free list.
    fn push_pages(&self, entry: u64) -> Result<()> {
        self.store(header::ALLOC_JOURNAL, entry | JOURNAL_PUSH)?;
        loop {
            let value = self.load(entry)?;
            let (page, len) = (value as u32, value >> 32);
            if value == 0 {
                break;
            }
            let state_at = descriptor_at(page) + descriptor::STATE;
            let state = PageState::unpack(self.load(state_at)?);
            self.store(
                state_at,
                PageState {
                    kind: kind::FREE,
                    ..state
                }
                .pack(),
            )?;
            let head = self.load(header::FREE_HEAD)?;
            self.store(descriptor_at(page) + descriptor::NEXT, head)?;
            crash_point!("pages.pushing");
            self.store(header::FREE_HEAD, u64::from(page))?;
            crash_point!("pages.pushed");
            self.store(entry, if len <= 1 { 0 } else { run(page + 1, len - 1) })?;
        }
        self.store(header::ALLOC_JOURNAL, 0)
    }

    fn drain_page_list(&self, block: &ThreadBlock, me: u16, list: u64, len: u64) -> Result<()> {
        for at in (0..len).map(|i| list + i * 8) {
            if self.load(at)? != 0 {
                self.acquire(block, me, LockId::Pages)?;
                let pushed = self.push_pages(at);
                self.release(block, me, LockId::Pages);
                pushed?;
            }
        }
        Ok(())
    }

    /// Puts the pages that `from` freed on the free list.
    pub(crate) fn drain_freed_pages(&self, block: &ThreadBlock, me: u16, from: u16) -> Result<()> {
        let list = owner_at(from) + owner::FREED_PAGES;
        self.drain_page_list(block, me, list, owner::FREED_PAGES_LEN)
    }

    /// Puts the pages that `from` had reserved on the free list.
    pub(crate) fn drain_reserved_pages(
        &self,
        block: &ThreadBlock,
        me: u16,
        from: u16,
    ) -> Result<()> {
        let list = owner_at(from) + owner::PAGES;
        self.drain_page_list(block, me, list, owner::PAGES_LEN)
    }
}
