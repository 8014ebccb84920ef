//! The hash table of a directory: open addressing, one word per slot (`hash:32 | granule:32`).
//!
//! Its link, with the size, is a volatile word of the inode; a table is filled before that word
//! leads to it and never moves. 0 is an empty slot, all ones in the granule a deleted one.

use super::chunk::{Chunk, Head, granule_offset};
use crate::Ino;
use crate::inode::{at, high, low, pair, word};
use core::sync::atomic::Ordering;
use engine::{PAGE, PageLink, Pool, Tx, kind};
use sys::{Errno, Result};

/// Slots of the smallest table, log2: one page.
const LOG2_MIN: u32 = 9;
/// Slots of the largest table, log2.
const LOG2_MAX: u32 = 30;
/// A deleted slot.
const DELETED: u64 = u32::MAX as u64;

/// Where a table lies.
#[derive(Clone, Copy)]
pub(super) struct Table {
    link: PageLink,
    offset: u64,
    mask: u64,
}

/// A slot as found: its offset and its content.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) offset: u64,
    pub(super) value: u64,
}

impl Slot {
    /// Granule of the entry the slot names; `None` for a deleted slot.
    pub(super) fn granule(self) -> Option<u32> {
        let granule = low(self.value);
        (granule != u32::MAX).then_some(granule)
    }
}

impl Table {
    /// The table a link word names; `None` for 0, `EIO` for a size that cannot be.
    #[inline]
    pub(super) fn named(link: u64) -> Result<Option<Table>> {
        if link == 0 {
            return Ok(None);
        }
        let link = PageLink(link);
        let log2 = u32::from(link.tag());
        if !(LOG2_MIN..=LOG2_MAX).contains(&log2) {
            return Err(Errno::EIO);
        }
        Ok(Some(Table {
            link,
            offset: link.offset(),
            mask: (1 << log2) - 1,
        }))
    }

    /// Slots.
    fn len(&self) -> u64 {
        self.mask + 1
    }

    /// Pages.
    fn pages(&self) -> u32 {
        (self.len() * 8 / PAGE) as u32
    }

    /// Is another entry too many for a table with `used` slots not empty? Half full in general,
    /// 7/8 where a bigger one could not be had (`crowded`).
    pub(super) fn is_full(&self, used: u64, crowded: bool) -> bool {
        if crowded {
            used.saturating_mul(8) >= self.len() * 7
        } else {
            used.saturating_mul(2) >= self.len()
        }
    }

    /// Offset of the slot `steps` after the home of `hash`.
    #[inline]
    fn place(&self, hash: u32, steps: u64) -> u64 {
        self.offset + ((u64::from(hash) + steps) & self.mask) * 8
    }

    /// The slots that carry `hash`, in probing order, up to the first empty one. `EIO` for a table
    /// without an empty slot.
    #[inline]
    pub(super) fn probe<'a>(
        &'a self,
        pool: &'a Pool,
        hash: u32,
    ) -> impl Iterator<Item = Result<Slot>> + 'a {
        let mut steps = 0;
        core::iter::from_fn(move || {
            while steps <= self.mask {
                let offset = self.place(hash, steps);
                let value = match pool.load(offset) {
                    Ok(value) => value,
                    Err(errno) => return Some(Err(errno)),
                };
                if value == 0 {
                    return None;
                }
                steps += 1;
                if high(value) == hash {
                    return Some(Ok(Slot { offset, value }));
                }
            }
            Some(Err(Errno::EIO))
        })
    }

    /// Enters a granule. The caller knows that the name is not in the table and that it has room,
    /// and has not changed the table in this transaction.
    pub(super) fn insert(
        &self,
        tx: &mut Tx<'_>,
        pool: &Pool,
        dir: u64,
        hash: u32,
        granule: u32,
    ) -> Result<()> {
        for steps in 0..=self.mask {
            let offset = self.place(hash, steps);
            let value = pool.load(offset)?;
            if value == 0 {
                let used = pool.load(at(dir, word::TABLE_USED))?;
                tx.set_volatile(at(dir, word::TABLE_USED), used.saturating_add(1))?;
            } else if value != DELETED {
                continue;
            }
            tx.set_volatile(offset, pair(hash, granule))?;
            return Ok(());
        }
        Err(Errno::EIO)
    }

    /// Deletes the slot that names `granule`, entered by an earlier transaction; the probing order
    /// of other names, also of one entered by this transaction, stays whole.
    pub(super) fn remove(
        &self,
        tx: &mut Tx<'_>,
        pool: &Pool,
        dir: u64,
        hash: u32,
        granule: u32,
    ) -> Result<()> {
        for steps in 0..=self.mask {
            let offset = self.place(hash, steps);
            let value = pool.load(offset)?;
            if value == 0 {
                break;
            }
            if value == pair(hash, granule) {
                let last_in_run = tx.load(self.place(hash, steps + 1))? == 0;
                if last_in_run {
                    let used = tx.load(at(dir, word::TABLE_USED))?;
                    tx.set_volatile(at(dir, word::TABLE_USED), used.saturating_sub(1))?;
                }
                tx.set_volatile(offset, if last_in_run { 0 } else { DELETED })?;
                return Ok(());
            }
        }
        Err(Errno::EIO)
    }

    /// Frees the pages.
    pub(super) fn free(&self, tx: &mut Tx<'_>) -> Result<()> {
        let untagged = self.link.0 & 0xffff_ffff_ffff;
        tx.free_pages(PageLink(untagged), self.pages())
    }

    /// Enters a granule into a table nobody else can reach yet.
    fn fill(&self, pool: &Pool, hash: u32, granule: u32) -> Result<()> {
        for steps in 0..=self.mask {
            let slot = pool.word(self.place(hash, steps))?;
            if slot.load(Ordering::Relaxed) == 0 {
                slot.store(pair(hash, granule), Ordering::Relaxed);
                return Ok(());
            }
        }
        Err(Errno::EIO)
    }
}

/// Makes a table for the directory at `dir`, big enough for its entries and as many again, and
/// puts it in the place of the one it has, if any. The caller holds the directory's lock.
pub(super) fn rebuild(tx: &mut Tx<'_>, pool: &Pool, owner: Ino, dir: u64) -> Result<()> {
    let old = Table::named(tx.load(at(dir, word::TABLE))?)?;
    // The number on file is not believed: it would take all shared memory if it were damaged.
    let entries = match old {
        Some(old) => {
            let entries = u64::from(high(tx.load(at(dir, word::COUNTS))?));
            if entries > old.len() {
                return Err(Errno::EIO);
            }
            entries
        }
        None => {
            let mut entries = 0;
            each_chunk(pool, owner, dir, |chunk| {
                entries += u64::from(chunk.starts(pool)?.count_ones());
                Ok(())
            })?;
            entries
        }
    };
    let log2 = (entries * 5).next_power_of_two().ilog2().max(LOG2_MIN);
    if log2 > LOG2_MAX {
        return Err(Errno::ENOSPC);
    }
    let pages = (1u64 << log2) * 8 / PAGE;
    let target = pool.target_of(crate::inode::record(owner)?)?;
    // Single pages come from the pool's free list, runs do not.
    let link = match pages {
        1 => tx.alloc_page(kind::TABLE, target, 0, false)?,
        _ => tx.alloc_pages(kind::TABLE, target, pages as u32)?,
    };
    let link = PageLink(link.0 | u64::from(log2) << 48);
    let table = Table::named(link.0)?.ok_or(Errno::EIO)?;
    for slot in 0..table.len() {
        pool.word(table.offset + slot * 8)?
            .store(0, Ordering::Relaxed);
    }
    let used = match old {
        Some(old) => copy(pool, &old, &table)?,
        None => collect(pool, owner, dir, &table)?,
    };
    tx.set_volatile(at(dir, word::TABLE_USED), used)?;
    // ORDERING: the table's words were stored plainly; the commit's release store of this link
    // comes after them (partner: the acquire load of the link by readers).
    tx.set_volatile(at(dir, word::TABLE), link.0)?;
    match old {
        Some(old) => old.free(tx),
        None => Ok(()),
    }
}

/// Enters what another table holds.
fn copy(pool: &Pool, from: &Table, to: &Table) -> Result<u64> {
    let mut used = 0;
    for slot in 0..from.len() {
        let value = pool.load(from.offset + slot * 8)?;
        if value != 0 && value != DELETED {
            to.fill(pool, high(value), low(value))?;
            used += 1;
        }
    }
    Ok(used)
}

/// Calls `each` with the directory's chunks.
fn each_chunk(
    pool: &Pool,
    owner: Ino,
    dir: u64,
    mut each: impl FnMut(&Chunk) -> Result<()>,
) -> Result<()> {
    let mut chunk = Chunk::first(pool, dir)?;
    let mut ordinal = 0;
    while let Some(current) = chunk {
        each(&current)?;
        chunk = match current.next(pool)? {
            0 => None,
            link => Some(Chunk::at_page(pool, owner, PageLink(link))?),
        };
        if let Some(next) = chunk {
            let after = next.ordinal(pool)?;
            if after <= ordinal {
                return Err(Errno::EIO);
            }
            ordinal = after;
        }
    }
    Ok(())
}

/// Enters every entry of the directory's chunks.
fn collect(pool: &Pool, owner: Ino, dir: u64, to: &Table) -> Result<u64> {
    let mut used = 0;
    each_chunk(pool, owner, dir, |chunk| {
        let mut starts = chunk.starts(pool)?;
        while starts != 0 {
            let granule = chunk.granule(starts.trailing_zeros());
            starts &= starts - 1;
            let head = Head(pool.load(granule_offset(granule))?);
            if used * 2 >= to.len() || !head.is_live() {
                return Err(Errno::EIO);
            }
            to.fill(pool, head.hash(), granule)?;
            used += 1;
        }
        Ok(())
    })?;
    Ok(used)
}
