//! Looking a name up in a directory: without a lock, or under it.

use super::chunk::{Chunk, Head, NAME_AT, child_of, child_word, granule_offset, header, short_tag};
use super::name::{Copied, equals};
use super::table::Table;
use super::{TRIES, edit};
use crate::inode::{at, locate, lock, still, word};
use crate::{DT_DIR, Ino};
use core::sync::atomic::{Ordering, fence};
use engine::{PageLink, Pool};
use sys::{Errno, Result};

/// An entry that was found: its words as they are, in plain fields because this is handed up
/// through every lookup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Second word of the entry.
    child: u64,
    /// First word of the entry.
    pub(super) head: u64,
    /// Granule of the entry.
    pub(crate) granule: u32,
}

impl Found {
    /// What a look at `.` or `..` finds.
    pub(crate) fn of_dir(dir: Ino) -> Found {
        Found {
            child: child_word(dir),
            head: Head::new(DT_DIR, 1, 0).0,
            granule: 0,
        }
    }

    /// What the entry names.
    #[inline]
    pub(crate) fn child(&self) -> Ino {
        child_of(self.child)
    }

    /// Type of the entry (`DT_*`).
    #[inline]
    pub(crate) fn entry_type(&self) -> u8 {
        Head(self.head).entry_type()
    }
}

/// Outcome of one look at an entry, a chunk or a table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It is there; the words are in the caller's [`Found`].
    Hit,
    Miss,
    /// Something changed meanwhile: start over.
    Torn,
    /// There is no table although the directory needs one.
    NoTable,
}

/// Finds `name` in a directory without taking a lock. `ESTALE` if the directory is gone.
#[inline]
pub(crate) fn find(pool: &Pool, dir: Ino, name: &[u8], hash: u32) -> Result<Option<Found>> {
    let mut found = Found::default();
    let hit = find_at(pool, dir, locate(pool, dir)?, name, hash, &mut found)?;
    Ok(hit.then_some(found))
}

/// [`find`] where the directory is known to have been at `offset`. `ESTALE` if it no longer is:
/// what was read of it before is void too. Returns whether there is such an entry.
#[inline]
pub(crate) fn find_at(
    pool: &Pool,
    dir: Ino,
    offset: u64,
    name: &[u8],
    hash: u32,
    found: &mut Found,
) -> Result<bool> {
    let seen = look(pool, dir, offset, name, hash, found);
    still(pool, dir, offset)?;
    match seen {
        Ok(Seen::Hit) => Ok(true),
        Ok(Seen::Miss) => Ok(false),
        _ => find_again(pool, dir, offset, name, hash, found),
    }
}

/// Tries again beside writers, at last under the lock.
#[cold]
fn find_again(
    pool: &Pool,
    dir: Ino,
    offset: u64,
    name: &[u8],
    hash: u32,
    found: &mut Found,
) -> Result<bool> {
    for _ in 0..TRIES {
        let seen = look(pool, dir, offset, name, hash, found);
        still(pool, dir, offset)?;
        match seen {
            Ok(Seen::Hit) => return Ok(true),
            Ok(Seen::Miss) => return Ok(false),
            Ok(Seen::NoTable) => edit::make_table(pool, dir)?,
            // A chunk or a table may have been freed under the reader; damage shows below.
            Ok(Seen::Torn) | Err(_) => core::hint::spin_loop(),
        }
    }
    let _held = pool.tx(&[lock(pool, dir)?])?;
    still(pool, dir, offset)?;
    let locked = find_locked(pool, dir, offset, name, hash)?;
    *found = locked.unwrap_or_default();
    Ok(locked.is_some())
}

/// Finds `name` in the directory at `offset`, whose lock the caller holds. Does not see what the
/// caller's own transaction is about to change.
pub(crate) fn find_locked(
    pool: &Pool,
    dir: Ino,
    offset: u64,
    name: &[u8],
    hash: u32,
) -> Result<Option<Found>> {
    let mut found = Found::default();
    let seen = match look(pool, dir, offset, name, hash, &mut found) {
        Ok(Seen::NoTable) => search_chain(pool, dir, offset, name, hash, &mut found),
        other => other,
    };
    match seen {
        Ok(Seen::Hit) => Ok(Some(found)),
        Ok(Seen::Miss) => Ok(None),
        Ok(Seen::Torn | Seen::NoTable) | Err(_) => Err(Errno::EIO),
    }
}

/// One look, by table or in the first chunk.
#[inline]
fn look(
    pool: &Pool,
    dir: Ino,
    offset: u64,
    name: &[u8],
    hash: u32,
    found: &mut Found,
) -> Result<Seen> {
    let link = pool.load(at(offset, word::TABLE))?;
    let seen = match Table::named(link)? {
        Some(table) => look_in_table(pool, &table, name, hash, found)?,
        None => look_in_first(pool, dir, offset, name, hash, found)?,
    };
    fence(Ordering::Acquire);
    if pool.load(at(offset, word::TABLE))? == link {
        Ok(seen)
    } else {
        Ok(Seen::Torn)
    }
}

#[inline]
fn look_in_table(
    pool: &Pool,
    table: &Table,
    name: &[u8],
    hash: u32,
    found: &mut Found,
) -> Result<Seen> {
    for slot in table.probe(pool, hash) {
        let slot = slot?;
        let Some(granule) = slot.granule() else {
            continue;
        };
        match read_entry(pool, granule, name, hash, found)? {
            Seen::Miss => continue,
            // An entry stays where it is while its slot names it.
            Seen::Hit if pool.load(slot.offset)? == slot.value => return Ok(Seen::Hit),
            _ => return Ok(Seen::Torn),
        }
    }
    Ok(Seen::Miss)
}

/// Looks into the first chunk, the only one of a directory without a table.
#[inline]
fn look_in_first(
    pool: &Pool,
    dir: Ino,
    offset: u64,
    name: &[u8],
    hash: u32,
    found: &mut Found,
) -> Result<Seen> {
    let link = pool.load(at(offset, word::DATA))?;
    let Some(chunk) = Chunk::first(pool, offset)? else {
        return Ok(Seen::Miss);
    };
    let seen = look_by_tag(pool, &chunk, name, hash, found)?;
    let alone = chunk.next(pool)? == 0;
    chunk.check(pool, dir)?;
    if pool.load(at(offset, word::DATA))? != link {
        return Ok(Seen::Torn);
    }
    // Granules belong to this chunk alone, so a hit checked above needs no more.
    if seen == Seen::Miss && !alone {
        Ok(Seen::NoTable)
    } else {
        Ok(seen)
    }
}

#[inline]
fn look_by_tag(
    pool: &Pool,
    chunk: &Chunk,
    name: &[u8],
    hash: u32,
    found: &mut Found,
) -> Result<Seen> {
    const ONES: u64 = 0x0001_0001_0001_0001;
    let tag = u64::from(short_tag(hash));
    for (group, word) in header::TAGS.into_iter().enumerate() {
        let lanes = pool.load(at(chunk.offset, word))? ^ (tag * ONES);
        // Top bit of each lane that may be 0, all true ones among them.
        let mut zero = lanes.wrapping_sub(ONES) & !lanes & ONES << 15;
        while zero != 0 {
            let index = group as u32 * 4 + zero.trailing_zeros() / 16;
            zero &= zero - 1;
            if index == 0 {
                continue;
            }
            match read_entry(pool, chunk.granule(index), name, hash, found)? {
                Seen::Miss => continue,
                other => return Ok(other),
            }
        }
    }
    Ok(Seen::Miss)
}

/// Goes through all chunks; for writers while the table is missing. Under the lock.
fn search_chain(
    pool: &Pool,
    dir: Ino,
    offset: u64,
    name: &[u8],
    hash: u32,
    found: &mut Found,
) -> Result<Seen> {
    let mut chunk = Chunk::first(pool, offset)?;
    let mut ordinal = 0;
    while let Some(current) = chunk {
        let mut starts = current.starts(pool)?;
        while starts != 0 {
            let granule = current.granule(starts.trailing_zeros());
            starts &= starts - 1;
            if read_entry(pool, granule, name, hash, found)? == Seen::Hit {
                return Ok(Seen::Hit);
            }
        }
        chunk = match current.next(pool)? {
            0 => None,
            link => Some(Chunk::at_page(pool, dir, PageLink(link))?),
        };
        if let Some(next) = chunk {
            let after = next.ordinal(pool)?;
            if after <= ordinal {
                return Err(Errno::EIO);
            }
            ordinal = after;
        }
    }
    Ok(Seen::Miss)
}

/// Reads the entry in `granule` if it is the one named `name`.
#[inline]
fn read_entry(
    pool: &Pool,
    granule: u32,
    name: &[u8],
    hash: u32,
    found: &mut Found,
) -> Result<Seen> {
    let entry = granule_offset(granule);
    let head = Head(pool.load(entry)?);
    if head.hash() != hash || head.name_len() != name.len() || !head.is_live() {
        return Ok(Seen::Miss);
    }
    let child = pool.load(entry + 8)?;
    let same = equals(pool, entry + NAME_AT, name)?;
    // ORDERING: the name was read before the words are read again (partner: the commit that
    // removes the entry stores 0 in its head before anything else is put there).
    fence(Ordering::Acquire);
    if pool.load(entry)? != head.0 || pool.load(entry + 8)? != child {
        return Ok(Seen::Torn);
    }
    if !same {
        return Ok(Seen::Miss);
    }
    found.child = child;
    found.head = head.0;
    found.granule = granule;
    Ok(Seen::Hit)
}

/// Copies the name of `child`, a directory, as its parent knows it; the granule hint in the
/// child's inode saves the search. `ENOENT` if the parent has no such entry.
pub(crate) fn name_of(
    pool: &Pool,
    parent: Ino,
    child: Ino,
    name: &mut [u8; super::NAME_MAX],
) -> Result<usize> {
    let offset = locate(pool, child)?;
    let hint = pool.load(at(offset, word::SEQUENCE))?;
    if let Ok(granule) = u32::try_from(hint)
        && granule != 0
        && let Some(len) = named_in(pool, parent, granule, child, name)?
    {
        return Ok(len);
    }
    let mut cursor = super::DirCursor::default();
    let mut len = None;
    super::dirread::entries(pool, parent, &mut cursor, &mut |entry| {
        if entry.ino != child.number || entry.name == b"." || entry.name == b".." {
            return true;
        }
        name[..entry.name.len()].copy_from_slice(entry.name);
        len = Some(entry.name.len());
        false
    })?;
    len.ok_or(Errno::ENOENT)
}

/// Name in the entry at `granule`, if that is an entry of `parent` for `child`.
fn named_in(
    pool: &Pool,
    parent: Ino,
    granule: u32,
    child: Ino,
    name: &mut [u8; super::NAME_MAX],
) -> Result<Option<usize>> {
    let offset = locate(pool, parent)?;
    let Ok(chunk) = Chunk::of_entry(pool, parent, offset, granule) else {
        return Ok(None);
    };
    let index = granule.wrapping_sub(chunk.granule(0));
    let begins = |pool| -> sys::Result<bool> { Ok(chunk.starts(pool)? >> (index & 63) & 1 == 1) };
    if !begins(pool)? {
        return Ok(None);
    }
    let entry = granule_offset(granule);
    let head = Head(pool.load(entry)?);
    let named = pool.load(entry + 8)?;
    let mut copy = Copied::new();
    copy.read(pool, entry + NAME_AT, head.name_len())?;
    fence(Ordering::Acquire);
    let same = pool.load(entry)? == head.0 && pool.load(entry + 8)? == named && begins(pool)?;
    let ours = head.is_live() && child_of(named) == child;
    if !same || !ours || chunk.check(pool, parent).is_err() {
        return Ok(None);
    }
    let bytes = copy.as_bytes();
    name[..bytes.len()].copy_from_slice(bytes);
    Ok(Some(bytes.len()))
}
