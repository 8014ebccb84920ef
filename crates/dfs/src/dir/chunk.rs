//! Chunks and entries: where their words lie, and checked reads of them.

use super::NAME_MAX;
use crate::Ino;
use crate::inode::{at, from_link, high, low, word};
use engine::{GRANULE, PAGE, PageLink, Pool, Rec, Tx, kind, tag_generation, tag_kind};
use sys::{Errno, Result};

/// Bytes of the first chunk, a slot record.
pub(super) const FIRST_BYTES: u64 = 1024;
/// Granules of the first chunk, the header's included.
const FIRST_GRANULES: u32 = (FIRST_BYTES / GRANULE) as u32;
/// Granules of a page.
pub(super) const PAGE_GRANULES: u32 = (PAGE / GRANULE) as u32;
/// Granules of the longest entry.
pub(super) const ENTRY_GRANULES_MAX: u32 = granules(NAME_MAX);

/// Header words of a chunk.
pub(super) mod header {
    /// `directory record:32 | ordinal:32`; ordinals rise along the chain, the first is 0.
    pub(in crate::dir) const OWNER: u64 = 1;
    /// Link of the next chunk; 0 = last.
    pub(in crate::dir) const NEXT: u64 = 2;
    /// Page: link of the chunk before; 0 = that is the first chunk.
    pub(in crate::dir) const PREVIOUS: u64 = 3;
    /// Page: granules in use. First chunk: `where entries begin:16 | in use:16`.
    pub(in crate::dir) const USED: u64 = 4;
    /// Page: granules where an entry begins.
    pub(in crate::dir) const STARTS: u64 = 5;
    /// Words of a header.
    pub(in crate::dir) const WORDS: usize = 8;
    /// First chunk: a 16-bit hash tag per granule, 0 where no entry begins; granule g's is lane
    /// g % 4 of word `TAGS[g / 4]`.
    pub(in crate::dir) const TAGS: [u64; 4] = [3, 5, 6, 7];
}

/// Offset of an entry's name within it: two words precede it.
pub(super) const NAME_AT: u64 = 16;

/// First word of an entry: `live:8 | type:8 | name length:8 | granules:8 | hash:32`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Head(pub(super) u64);

impl Head {
    /// A live entry.
    pub(super) fn new(entry_type: u8, name_len: usize, hash: u32) -> Head {
        let shape = u64::from(entry_type) << 48 | (name_len as u64) << 40;
        Head(1 << 56 | shape | u64::from(granules(name_len)) << 32 | u64::from(hash))
    }

    /// Is this the head of an entry, and one that can be?
    #[inline]
    pub(super) fn is_live(self) -> bool {
        self.0 >> 56 == 1 && self.name_len() > 0 && self.granules() == granules(self.name_len())
    }

    /// Type (`DT_*`).
    pub(super) fn entry_type(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// The same entry with another type.
    pub(super) fn with_type(self, entry_type: u8) -> Head {
        Head(self.0 & !(0xff << 48) | u64::from(entry_type) << 48)
    }

    /// Bytes of the name.
    pub(super) fn name_len(self) -> usize {
        usize::from((self.0 >> 40) as u8)
    }

    /// Granules of the entry.
    pub(super) fn granules(self) -> u32 {
        u32::from((self.0 >> 32) as u8)
    }

    /// Hash of the name.
    #[inline]
    pub(super) fn hash(self) -> u32 {
        self.0 as u32
    }
}

/// Granules of an entry with a name of `name_len` bytes.
pub(super) const fn granules(name_len: usize) -> u32 {
    1 + name_len
        .saturating_sub((GRANULE - NAME_AT) as usize)
        .div_ceil(GRANULE as usize) as u32
}

/// The child an entry's second word names: `record:32 | generation:32`.
pub(super) fn child_of(word: u64) -> Ino {
    Ino {
        number: u64::from(high(word)),
        generation: low(word),
    }
}

/// Second word of an entry.
pub(super) fn child_word(child: Ino) -> u64 {
    child.number << 32 | u64::from(child.generation)
}

/// A chunk: offset of its header, and how it is reached.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    /// Offset of the header.
    pub(super) offset: u64,
    /// Link of the page; `None` for the first chunk.
    pub(super) page: Option<PageLink>,
}

/// Value of the room hint that stands for the first chunk.
const FIRST_AS_HINT: u64 = u64::MAX;

impl Chunk {
    /// First chunk of the directory at `dir`; `None` if it has none yet.
    pub(super) fn first(pool: &Pool, dir: u64) -> Result<Option<Chunk>> {
        let Some(link) = from_link(pool.load(at(dir, word::DATA))?) else {
            return Ok(None);
        };
        let offset = Rec(link.number as u32).offset();
        let tag = pool.load(offset)?;
        if tag_kind(tag) != kind::DIR_SMALL || tag_generation(tag) != link.generation {
            return Err(Errno::ESTALE);
        }
        Ok(Some(Chunk { offset, page: None }))
    }

    /// Chunk in a page of the directory; `ESTALE` if the page is no longer one of its chunks.
    pub(super) fn at_page(pool: &Pool, owner: Ino, link: PageLink) -> Result<Chunk> {
        let chunk = Chunk {
            offset: link.offset(),
            page: Some(link),
        };
        chunk.check(pool, owner)?;
        Ok(chunk)
    }

    /// Is the chunk still the directory's? `ESTALE` if not: what was read is void.
    pub(super) fn check(&self, pool: &Pool, owner: Ino) -> Result<()> {
        // ORDERING: reads before must not sink below these (partner: releases of a commit).
        core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
        let named = pool.load(at(self.offset, header::OWNER))?;
        let valid = match self.page {
            Some(link) => {
                let state = pool.page_state(link.page())?;
                state.kind == kind::DIR_CHUNK && state.version == link.version()
            }
            None => tag_kind(pool.load(self.offset)?) == kind::DIR_SMALL,
        };
        let ours = u64::from(high(named)) == owner.number;
        if valid && ours {
            Ok(())
        } else {
            Err(Errno::ESTALE)
        }
    }

    /// The chunk that holds an entry of the directory at `dir`; under its lock.
    pub(super) fn of_entry(pool: &Pool, owner: Ino, dir: u64, entry: u32) -> Result<Chunk> {
        let first = Chunk::first(pool, dir)?.ok_or(Errno::EIO)?;
        let granule = granule_number(first.offset);
        if entry.wrapping_sub(granule) < FIRST_GRANULES {
            return Ok(first);
        }
        let page = Rec(entry).page();
        let link = PageLink::new(page, pool.page_state(page)?.version, 0);
        Chunk::at_page(pool, owner, link).map_err(|_| Errno::EIO)
    }

    /// The chunk a room hint names, if it is still the directory's; under its lock.
    pub(super) fn from_hint(pool: &Pool, owner: Ino, dir: u64, hint: u64) -> Result<Option<Chunk>> {
        match hint {
            0 => Ok(None),
            FIRST_AS_HINT => Chunk::first(pool, dir),
            link => match Chunk::at_page(pool, owner, PageLink(link)) {
                Err(Errno::ESTALE) => Ok(None),
                other => other.map(Some),
            },
        }
    }

    /// The room hint that names this chunk.
    pub(super) fn as_hint(&self) -> u64 {
        self.page.map_or(FIRST_AS_HINT, |link| link.0)
    }

    /// Link by which the next chunk names this one as the one before it.
    pub(super) fn as_previous(&self) -> u64 {
        self.page.map_or(0, |link| link.0)
    }

    /// Position in the chain.
    pub(super) fn ordinal(&self, pool: &Pool) -> Result<u32> {
        Ok(low(pool.load(at(self.offset, header::OWNER))?))
    }

    /// Link of the next chunk; 0 = none.
    pub(super) fn next(&self, pool: &Pool) -> Result<u64> {
        pool.load(at(self.offset, header::NEXT))
    }

    /// Record number of the granule `index` of this chunk.
    pub(super) fn granule(&self, index: u32) -> u32 {
        granule_number(self.offset).wrapping_add(index)
    }

    /// Granules where entries begin, as a bit set.
    pub(super) fn starts(&self, pool: &Pool) -> Result<u64> {
        match self.page {
            Some(_) => pool.load(at(self.offset, header::STARTS)),
            None => Ok(pool.load(at(self.offset, header::USED))? >> 16 & 0xfffe),
        }
    }

    /// Granules in use as a bit set, those beyond the chunk's end included; sees own changes.
    pub(super) fn used(&self, tx: &Tx<'_>) -> Result<u64> {
        let used = tx.load(at(self.offset, header::USED))?;
        Ok(if self.page.is_some() {
            used | 1
        } else {
            used | 1 | !0xffff
        })
    }

    /// Marks `count` granules from `index` on as one entry, after its words were written.
    pub(super) fn occupy(&self, tx: &mut Tx<'_>, index: u32, count: u32) -> Result<()> {
        let used = tx.load(at(self.offset, header::USED))?;
        let run = run_mask(count) << index;
        if self.page.is_some() {
            let starts = tx.load(at(self.offset, header::STARTS))?;
            tx.set(at(self.offset, header::USED), used | run)?;
            tx.set(at(self.offset, header::STARTS), starts | 1 << index)?;
        } else {
            tx.set(
                at(self.offset, header::USED),
                used | run | 1 << (index + 16),
            )?;
        }
        Ok(())
    }

    /// Gives back the granules of an entry.
    pub(super) fn vacate(&self, tx: &mut Tx<'_>, index: u32, count: u32) -> Result<()> {
        let used = tx.load(at(self.offset, header::USED))?;
        let run = run_mask(count) << index;
        if self.page.is_some() {
            let starts = tx.load(at(self.offset, header::STARTS))?;
            tx.set(at(self.offset, header::STARTS), starts & !(1 << index))?;
            tx.set(at(self.offset, header::USED), used & !run)?;
        } else {
            tx.set(
                at(self.offset, header::USED),
                used & !(run | 1 << (index + 16)),
            )?;
        }
        Ok(())
    }

    /// First of `count` free granules in a row.
    pub(super) fn room_for(&self, tx: &Tx<'_>, count: u32) -> Result<Option<u32>> {
        let mut fits = !self.used(tx)?;
        for _ in 1..count.min(ENTRY_GRANULES_MAX) {
            fits &= fits >> 1;
        }
        Ok((fits != 0).then(|| fits.trailing_zeros()))
    }

    /// Sets the hash tag of an entry in the first chunk; pages have none.
    pub(super) fn set_tag(&self, tx: &mut Tx<'_>, index: u32, tag: u16) -> Result<()> {
        if self.page.is_some() {
            return Ok(());
        }
        let word = header::TAGS.get(index as usize / 4).ok_or(Errno::EIO)?;
        let shift = index % 4 * 16;
        let old = tx.load(at(self.offset, *word))?;
        tx.set(
            at(self.offset, *word),
            old & !(0xffff << shift) | u64::from(tag) << shift,
        )?;
        Ok(())
    }
}

/// `count` low bits.
fn run_mask(count: u32) -> u64 {
    (1 << count.min(ENTRY_GRANULES_MAX)) - 1
}

/// Hash tag of an entry in the first chunk; never 0.
pub(super) fn short_tag(hash: u32) -> u16 {
    ((hash >> 16) as u16).max(1)
}

/// Number of the granule at an offset of the page area.
pub(super) fn granule_number(offset: u64) -> u32 {
    (offset.wrapping_sub(Rec(0).offset()) / GRANULE) as u32
}

/// Offset of the granule with a number.
pub(super) fn granule_offset(number: u32) -> u64 {
    Rec(number).offset()
}
