//! Listing a directory with positions that stay valid while it changes.

use super::TRIES;
use super::chunk::{Chunk, Head, NAME_AT, PAGE_GRANULES, child_of, granule_offset};
use super::name::Copied;
use crate::inode::{Guard, at, from_link, is_dir, locate, low, still, word};
use crate::{DT_DIR, Dfs, Ino};
use core::sync::atomic::{Ordering, fence};
use engine::{PageLink, Pool};
use sys::{Errno, Result};

/// Position in a directory. The cookie alone is the position; the rest only saves the way there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirCursor {
    /// Where to go on (`d_off`, `telldir(3)`): 0 at the start, else from [`Dirent::cookie`].
    pub cookie: u64,
    /// Chunk that holds the position, as far as known; 0 is always right.
    pub hint: u64,
}

/// An entry as listed.
#[derive(Clone, Copy, Debug)]
pub struct Dirent<'a> {
    /// Inode number.
    pub ino: u64,
    /// Type (`DT_*`).
    pub kind: u8,
    /// Name without terminating 0.
    pub name: &'a [u8],
    /// Position behind this entry.
    pub cookie: u64,
}

/// How often a listing starts over without coming forward, because chunks are freed under it.
const RESTARTS_MAX: usize = 10_000;

/// Cookies of "." and ".." are 0 and 1; an entry's is its granule counted from here.
const FIRST_COOKIE: u64 = 2;

impl Dfs {
    /// Lists a directory from `cursor` on, "." and ".." first, until `emit` returns `false` (its
    /// entry then counts as not listed) or the end. An entry that exists throughout is listed
    /// exactly once. `ENOTDIR`; `ENOENT` for a removed directory, as `getdents64(2)` has it.
    pub fn getdents(
        &self,
        dir: Ino,
        cursor: &mut DirCursor,
        emit: &mut dyn FnMut(&Dirent<'_>) -> bool,
    ) -> Result<()> {
        let guard = Guard::of(self.pool, dir)?;
        if !is_dir(guard.mode) {
            return Err(Errno::ENOTDIR);
        }
        if guard.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        if cursor.cookie < FIRST_COOKIE && !self.dots(dir, cursor, emit)? {
            return Ok(());
        }
        entries(self.pool, dir, cursor, emit)
    }

    /// Lists "." and ".."; `false` if `emit` had enough.
    fn dots(
        &self,
        dir: Ino,
        cursor: &mut DirCursor,
        emit: &mut dyn FnMut(&Dirent<'_>) -> bool,
    ) -> Result<bool> {
        let parent = self.parent(dir)?;
        for (position, (name, ino)) in [(&b"."[..], dir), (b"..", parent)].into_iter().enumerate() {
            if cursor.cookie > position as u64 {
                continue;
            }
            let cookie = position as u64 + 1;
            if !emit(&Dirent {
                ino: ino.number,
                kind: DT_DIR,
                name,
                cookie,
            }) {
                return Ok(false);
            }
            cursor.cookie = cookie;
        }
        Ok(true)
    }

    /// The directory that holds a directory; the root's is the root.
    pub(crate) fn parent(&self, dir: Ino) -> Result<Ino> {
        if dir == self.root {
            return Ok(dir);
        }
        let offset = locate(self.pool, dir)?;
        let parent = from_link(self.pool.load(at(offset, word::PARENT))?);
        still(self.pool, dir, offset)?;
        parent.ok_or(Errno::EIO)
    }
}

/// Lists what follows the dots.
pub(crate) fn entries(
    pool: &Pool,
    dir: Ino,
    cursor: &mut DirCursor,
    emit: &mut dyn FnMut(&Dirent<'_>) -> bool,
) -> Result<()> {
    cursor.cookie = cursor.cookie.max(FIRST_COOKIE);
    let offset = locate(pool, dir)?;
    let mut restarts = 0;
    let mut seen = cursor.cookie;
    loop {
        match from_cursor(pool, dir, offset, cursor, emit) {
            Err(Errno::ESTALE) => {}
            other => return other,
        }
        // A chunk was freed meanwhile: find the way again, from the start of the chain.
        still(pool, dir, offset)?;
        cursor.hint = 0;
        restarts = if cursor.cookie == seen {
            restarts + 1
        } else {
            0
        };
        seen = cursor.cookie;
        if restarts > RESTARTS_MAX {
            return Err(Errno::EIO);
        }
    }
}

/// Position of a cookie: ordinal of the chunk and granule within it.
fn position(cookie: u64) -> (u64, u32) {
    let granules = u64::from(PAGE_GRANULES);
    let place = cookie.saturating_sub(FIRST_COOKIE);
    (place / granules, (place % granules) as u32)
}

/// Cookie of a granule.
fn cookie(ordinal: u32, granule: u32) -> u64 {
    u64::from(ordinal) * u64::from(PAGE_GRANULES) + u64::from(granule) + FIRST_COOKIE
}

fn from_cursor(
    pool: &Pool,
    dir: Ino,
    offset: u64,
    cursor: &mut DirCursor,
    emit: &mut dyn FnMut(&Dirent<'_>) -> bool,
) -> Result<()> {
    let wanted = position(cursor.cookie).0;
    let hinted = match cursor.hint {
        0 => None,
        hint => Chunk::at_page(pool, dir, PageLink(hint)).ok(),
    };
    let mut chunk = match hinted {
        Some(chunk) if u64::from(chunk.ordinal(pool)?) <= wanted => Some(chunk),
        _ => Chunk::first(pool, offset)?,
    };
    let mut least = 0;
    while let Some(current) = chunk {
        let ordinal = current.ordinal(pool)?;
        if u64::from(ordinal) < least {
            return Err(Errno::EIO);
        }
        let next = current.next(pool)?;
        current.check(pool, dir)?;
        if u64::from(ordinal) >= wanted {
            cursor.cookie = cursor.cookie.max(cookie(ordinal, 0));
            cursor.hint = current.page.map_or(0, |link| link.0);
            if !list_chunk(pool, dir, &current, ordinal, cursor, emit)? {
                return Ok(());
            }
        }
        least = u64::from(ordinal) + 1;
        chunk = match next {
            0 => None,
            link => Some(Chunk::at_page(pool, dir, PageLink(link))?),
        };
    }
    Ok(())
}

/// Lists one chunk from the cursor on; `false` if `emit` had enough.
fn list_chunk(
    pool: &Pool,
    dir: Ino,
    chunk: &Chunk,
    ordinal: u32,
    cursor: &mut DirCursor,
    emit: &mut dyn FnMut(&Dirent<'_>) -> bool,
) -> Result<bool> {
    let mut name = Copied::new();
    let mut starts = chunk.starts(pool)?;
    let from = cursor.cookie.saturating_sub(cookie(ordinal, 0));
    starts &= u64::MAX
        .checked_shl(u32::try_from(from).unwrap_or(u32::MAX))
        .unwrap_or(0);
    while starts != 0 {
        let index = starts.trailing_zeros();
        starts &= starts - 1;
        if let Some((head, child)) = copy_entry(pool, dir, chunk, index, &mut name)? {
            let entry = Dirent {
                ino: child.number,
                kind: head.entry_type(),
                name: name.as_bytes(),
                cookie: cookie(ordinal, index + 1),
            };
            if !emit(&entry) {
                return Ok(false);
            }
            cursor.cookie = entry.cookie;
        }
    }
    Ok(true)
}

/// Copies an entry out whole; `None` if it went away meanwhile.
fn copy_entry(
    pool: &Pool,
    dir: Ino,
    chunk: &Chunk,
    index: u32,
    name: &mut Copied,
) -> Result<Option<(Head, Ino)>> {
    let entry = granule_offset(chunk.granule(index));
    for _ in 0..TRIES {
        let head = Head(pool.load(entry)?);
        let child = pool.load(entry + 8)?;
        name.read(pool, entry + NAME_AT, head.name_len())?;
        // ORDERING: the copy is made before its source is checked (partner: commits, which clear
        // head and start bit of an entry before its granules are used again).
        fence(Ordering::Acquire);
        let begins = chunk.starts(pool)? >> index & 1 == 1;
        let same = pool.load(entry)? == head.0 && pool.load(entry + 8)? == child;
        chunk.check(pool, dir)?;
        if !begins || low(head.0 >> 56) == 0 {
            return Ok(None);
        }
        if same && head.is_live() {
            return Ok(Some((head, child_of(child))));
        }
    }
    Err(Errno::EIO)
}
