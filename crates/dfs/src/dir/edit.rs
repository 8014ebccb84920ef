//! Changing a directory. Every function here works under the directory's target lock.

use super::chunk::{
    Chunk, FIRST_BYTES, Head, PAGE_GRANULES, child_word, granule_offset, granules, header,
    short_tag,
};
use super::find::Found;
use super::name::{NAME_WORDS, packed};
use super::table::{self, Table};
use crate::inode::{at, link_word, lock, low, pair, record, still, word};
use crate::{DT_UNKNOWN, Ino};
use engine::{PageLink, Pool, Rec, Tx, kind, tag_generation};
use sys::{Errno, Result};

/// What an entry is to say.
#[derive(Clone, Copy)]
pub(crate) struct NewEntry<'a> {
    /// Name, 1..=255 bytes.
    pub(crate) name: &'a [u8],
    /// Its [`super::hash`].
    pub(crate) hash: u32,
    /// Type (`DT_*`).
    pub(crate) entry_type: u8,
    /// What it names.
    pub(crate) child: Ino,
}

/// Adds an entry, which must not exist, to the directory at `dir` and returns its granule. `None`:
/// there is no room; abort, call [`grow`], start over, then with `crowded` set.
pub(crate) fn insert(
    tx: &mut Tx<'_>,
    pool: &Pool,
    owner: Ino,
    dir: u64,
    entry: NewEntry<'_>,
    crowded: bool,
) -> Result<Option<u32>> {
    // Nothing of the directory was changed in this transaction yet, so the pool is asked.
    let table = Table::named(pool.load(at(dir, word::TABLE))?)?;
    match &table {
        Some(table) if table.is_full(pool.load(at(dir, word::TABLE_USED))?, crowded) => {
            return Ok(None);
        }
        None if pool.load(at(dir, word::LAST_CHUNK))? != 0 => return Ok(None),
        _ => {}
    }
    let count = granules(entry.name.len());
    let Some((chunk, index)) = room(tx, pool, owner, dir, count)? else {
        return Ok(None);
    };
    let granule = chunk.granule(index);
    let offset = granule_offset(granule);
    let mut words = [0; NAME_WORDS + 1];
    words[0] = child_word(entry.child);
    let name_words = entry.name.len().div_ceil(8);
    for (word, piece) in words[1..].iter_mut().zip(entry.name.chunks(8)) {
        *word = packed(piece);
    }
    tx.put(offset + 8, &words[..=name_words])?;
    tx.set(
        offset,
        Head::new(entry.entry_type, entry.name.len(), entry.hash).0,
    )?;
    if let Some(table) = &table {
        table.insert(tx, pool, dir, entry.hash, granule)?;
    }
    chunk.set_tag(tx, index, short_tag(entry.hash))?;
    chunk.occupy(tx, index, count)?;
    Ok(Some(granule))
}

/// A chunk with `count` free granules in a row: the hinted one, else the last.
fn room(
    tx: &mut Tx<'_>,
    pool: &Pool,
    owner: Ino,
    dir: u64,
    count: u32,
) -> Result<Option<(Chunk, u32)>> {
    let hint = pool.load(at(dir, word::ROOM))?;
    if hint != 0 {
        if let Some(chunk) = Chunk::from_hint(pool, owner, dir, hint)?
            && let Some(index) = chunk.room_for(tx, count)?
        {
            return Ok(Some((chunk, index)));
        }
        tx.set_volatile(at(dir, word::ROOM), 0)?;
    }
    let Some(chunk) = last_chunk(pool, owner, dir)? else {
        return Ok(None);
    };
    Ok(chunk.room_for(tx, count)?.map(|index| (chunk, index)))
}

/// The last chunk, if there is one at all.
fn last_chunk(pool: &Pool, owner: Ino, dir: u64) -> Result<Option<Chunk>> {
    match pool.load(at(dir, word::LAST_CHUNK))? {
        0 => Chunk::first(pool, dir),
        link => match Chunk::at_page(pool, owner, PageLink(link)) {
            Err(Errno::ESTALE) => Err(Errno::EIO),
            other => other.map(Some),
        },
    }
}

/// Removes an entry. If its chunk ran empty and can go, its link is returned: call [`tidy`] after
/// the commit.
pub(crate) fn remove(
    tx: &mut Tx<'_>,
    pool: &Pool,
    owner: Ino,
    dir: u64,
    found: &Found,
) -> Result<Option<PageLink>> {
    let head = Head(found.head);
    let chunk = Chunk::of_entry(pool, owner, dir, found.granule)?;
    let index = found.granule.wrapping_sub(chunk.granule(0));
    if index == 0 || index >= PAGE_GRANULES {
        return Err(Errno::EIO);
    }
    tx.set(granule_offset(found.granule), 0)?;
    if let Some(table) = Table::named(pool.load(at(dir, word::TABLE))?)? {
        table.remove(tx, pool, dir, head.hash(), found.granule)?;
    }
    chunk.set_tag(tx, index, 0)?;
    chunk.vacate(tx, index, head.granules())?;
    let last = pool.load(at(dir, word::LAST_CHUNK))?;
    let is_last = last == chunk.page.map_or(0, |link| link.0);
    if is_last {
        return Ok(None);
    }
    if chunk.page.is_some() && chunk.used(tx)? == 1 {
        return Ok(chunk.page);
    }
    if pool.load(at(dir, word::ROOM))? != chunk.as_hint() {
        tx.set_volatile(at(dir, word::ROOM), chunk.as_hint())?;
    }
    Ok(None)
}

/// Makes an entry name another inode, at one stroke. While its type changes with that, it says
/// [`DT_UNKNOWN`]: readers then ask the inode.
pub(crate) fn replace(tx: &mut Tx<'_>, found: &Found, child: Ino, entry_type: u8) -> Result<()> {
    let offset = granule_offset(found.granule);
    let head = Head(found.head);
    let changes = head.entry_type() != entry_type;
    if changes {
        tx.set(offset, head.with_type(DT_UNKNOWN).0)?;
    }
    tx.set(offset + 8, child_word(child))?;
    if changes {
        tx.set(offset, head.with_type(entry_type).0)?;
    }
    Ok(())
}

/// Makes room for an entry with a name of `name_len` bytes: a first chunk, a further page, a
/// table, or a bigger one.
pub(crate) fn grow(pool: &Pool, owner: Ino, name_len: usize) -> Result<()> {
    let mut tx = pool.tx(&[lock(pool, owner)?])?;
    let dir = record(owner)?.offset();
    still(pool, owner, dir)?;
    if low(tx.load(at(dir, word::MODE))?) == 0 {
        return Err(Errno::ENOENT);
    }
    let Some(last) = last_chunk(pool, owner, dir)? else {
        add_first(&mut tx, pool, owner, dir)?;
        return tx.commit().map(drop);
    };
    let table = Table::named(pool.load(at(dir, word::TABLE))?)?;
    let used = pool.load(at(dir, word::TABLE_USED))?;
    let page = room(&mut tx, pool, owner, dir, granules(name_len))?.is_none();
    match table {
        Some(table) if table.is_full(used, false) => {
            match table::rebuild(&mut tx, pool, owner, dir) {
                Err(_) if !table.is_full(used, true) => {}
                other => other?,
            }
        }
        None if page || last.page.is_some() => table::rebuild(&mut tx, pool, owner, dir)?,
        _ => {}
    }
    if page {
        add_page(&mut tx, pool, owner, dir, &last)?;
    }
    tx.commit().map(drop)
}

/// Builds the table a directory of several chunks lacks after its arena was rebuilt.
pub(super) fn make_table(pool: &Pool, owner: Ino) -> Result<()> {
    let mut tx = pool.tx(&[lock(pool, owner)?])?;
    let dir = record(owner)?.offset();
    still(pool, owner, dir)?;
    if pool.load(at(dir, word::TABLE))? == 0 && pool.load(at(dir, word::LAST_CHUNK))? != 0 {
        table::rebuild(&mut tx, pool, owner, dir)?;
        tx.commit()?;
    }
    Ok(())
}

fn add_first(tx: &mut Tx<'_>, pool: &Pool, owner: Ino, dir: u64) -> Result<()> {
    let own = record(owner)?;
    let target = pool.target_of(own)?;
    let first = tx.alloc(kind::DIR_SMALL, FIRST_BYTES, target, pool.replicas_of(own)?)?;
    let offset = first.offset();
    let mut words = [0; header::WORDS - 1];
    words[header::OWNER as usize - 1] = pair(own.0, 0);
    tx.put(offset + 8, &words)?;
    let generation = tag_generation(tx.load(offset)?);
    let link = link_word(Ino {
        number: u64::from(first.0),
        generation,
    });
    tx.set(at(dir, word::DATA), link)?;
    Ok(())
}

fn add_page(tx: &mut Tx<'_>, pool: &Pool, owner: Ino, dir: u64, last: &Chunk) -> Result<()> {
    let own = record(owner)?;
    let ordinal = last.ordinal(pool)?.checked_add(1).ok_or(Errno::ENOSPC)?;
    let target = pool.target_of(own)?;
    let link = tx.alloc_page(kind::DIR_CHUNK, target, pool.replicas_of(own)?, false)?;
    let offset = link.offset();
    let mut words = [0; header::WORDS - 1];
    words[header::OWNER as usize - 1] = pair(own.0, ordinal);
    words[header::PREVIOUS as usize - 1] = last.as_previous();
    words[header::USED as usize - 1] = 1;
    tx.put(offset + 8, &words)?;
    tx.set(at(last.offset, header::NEXT), link.0)?;
    tx.set(at(dir, word::LAST_CHUNK), link.0)?;
    Ok(())
}

/// Frees a chunk that ran empty, unless it is in use again or the last.
pub(crate) fn tidy(pool: &Pool, owner: Ino, link: PageLink) -> Result<()> {
    let mut tx = pool.tx(&[lock(pool, owner)?])?;
    let dir = record(owner)?.offset();
    still(pool, owner, dir)?;
    let chunk = Chunk::at_page(pool, owner, link)?;
    let next = chunk.next(pool)?;
    if chunk.used(&tx)? != 1 || next == 0 {
        return Ok(());
    }
    let next_chunk = Chunk::at_page(pool, owner, PageLink(next))?;
    let previous = pool.load(at(chunk.offset, header::PREVIOUS))?;
    let before = match previous {
        0 => Chunk::first(pool, dir)?.ok_or(Errno::EIO)?,
        link => Chunk::at_page(pool, owner, PageLink(link))?,
    };
    tx.set(at(before.offset, header::NEXT), next)?;
    tx.set(at(next_chunk.offset, header::PREVIOUS), previous)?;
    if tx.load(at(dir, word::ROOM))? == chunk.as_hint() {
        tx.set_volatile(at(dir, word::ROOM), 0)?;
    }
    tx.free_page(link)?;
    tx.commit().map(drop)
}

/// Frees the table of the directory at `dir`; whoever looks for a name next builds it anew.
pub(crate) fn drop_table(tx: &mut Tx<'_>, pool: &Pool, dir: u64) -> Result<()> {
    if let Some(table) = Table::named(pool.load(at(dir, word::TABLE))?)? {
        tx.set_volatile(at(dir, word::TABLE), 0)?;
        table.free(tx)?;
    }
    Ok(())
}

/// Frees the chunks and the table of an empty directory; `false` if that takes another
/// transaction.
pub(crate) fn clear(tx: &mut Tx<'_>, pool: &Pool, owner: Ino, dir: u64) -> Result<bool> {
    let Some(first) = Chunk::first(pool, dir)? else {
        return Ok(true);
    };
    let mut next = first.next(pool)?;
    while next != 0 {
        if tx.room() < 64 || tx.free_page_room() < 2 {
            tx.set(at(first.offset, header::NEXT), next)?;
            return Ok(false);
        }
        let page = Chunk::at_page(pool, owner, PageLink(next)).map_err(|_| Errno::EIO)?;
        tx.free_page(PageLink(next))?;
        next = page.next(pool)?;
    }
    drop_table(tx, pool, dir)?;
    tx.set(at(dir, word::LAST_CHUNK), 0)?;
    tx.set(at(dir, word::DATA), 0)?;
    let granule = super::chunk::granule_number(first.offset);
    tx.free(Rec(granule))?;
    Ok(true)
}
