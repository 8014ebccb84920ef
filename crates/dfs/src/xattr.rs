//! Extended attributes (`xattr(7)`): `user.*` of files and directories, `trusted.*` for the
//! privileged; other classes are `EOPNOTSUPP`.
//!
//! One record per attribute, chained from the inode. Small values lie in the record, others in
//! pages. Readers take no lock: they copy, then check the record's tag and the pages' versions.

use crate::dir::packed;
use crate::inode::{
    self, Guard, S_ISVTX, at, from_link, is_dir, is_file, locate, low, pair, still, word,
};
use crate::perm::{self, READ, WRITE};
use crate::{Cred, Dfs, Ino};
use engine::{PAGE, PageLink, Pool, Rec, Tx, kind, tag_generation, tag_kind};
use sys::{Errno, Result};

/// Fail if the attribute exists.
pub const XATTR_CREATE: u32 = 1;
/// Fail if it does not.
pub const XATTR_REPLACE: u32 = 2;

/// Longest name, bytes.
const NAME_MAX: usize = 255;
/// Longest value, bytes; also the longest list of names.
const VALUE_MAX: usize = 65_536;
/// Most attributes of an inode that are followed: damage must not become an endless loop.
const CHAIN_MAX: usize = 1 << 16;
/// Times a reader starts over before it takes the lock.
const TRIES: usize = 64;

/// Pages of the longest value.
const PAGES_MAX: usize = VALUE_MAX / PAGE as usize;
/// Pages of a value written in one transaction.
const PAGES_AT_ONCE: usize = PAGES_MAX / 2;

/// Words of a record.
mod record {
    /// Link of the next one.
    pub(super) const NEXT: u64 = 1;
    /// `pending:8 | in pages:8 | name length:8 | 8 spare | value length:32`.
    pub(super) const SHAPE: u64 = 2;
    /// The name, padded to a word; then the value or the links of its pages.
    pub(super) const NAME: u64 = 3;
}

/// What a record says about itself.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// Half written: not there yet for anybody.
    pending: bool,
    in_pages: bool,
    name_len: usize,
    value_len: usize,
}

impl Shape {
    fn new(name: &[u8], value: &[u8]) -> Shape {
        let inline = 24 + name.len().next_multiple_of(8) + value.len() <= 1024;
        Shape {
            pending: false,
            in_pages: !inline,
            name_len: name.len(),
            value_len: value.len(),
        }
    }

    fn pack(self) -> u64 {
        let flags = u64::from(self.pending) << 56 | u64::from(self.in_pages) << 48;
        flags | (self.name_len as u64) << 40 | self.value_len as u64
    }

    /// `EIO` for lengths that cannot be.
    fn unpack(word: u64) -> Result<Shape> {
        let shape = Shape {
            pending: word >> 56 & 1 == 1,
            in_pages: word >> 48 & 1 == 1,
            name_len: usize::from((word >> 40) as u8),
            value_len: low(word) as usize,
        };
        if shape.name_len == 0 || shape.value_len > VALUE_MAX || shape.bytes() > 1024 {
            return Err(Errno::EIO);
        }
        Ok(shape)
    }

    /// Offset of the value, or of the links of its pages.
    fn value_at(self) -> u64 {
        record::NAME * 8 + self.name_len.next_multiple_of(8) as u64
    }

    /// Pages of the value.
    fn pages(self) -> usize {
        if self.in_pages {
            self.value_len.div_ceil(PAGE as usize)
        } else {
            0
        }
    }

    /// Bytes of the record.
    fn bytes(self) -> usize {
        let value = if self.in_pages {
            self.pages() * 8
        } else {
            self.value_len
        };
        self.value_at() as usize + value
    }

    /// Bytes of the slot that holds the record.
    fn slot(self) -> u64 {
        match self.bytes() {
            0..=64 => 64,
            65..=256 => 256,
            _ => 1024,
        }
    }
}

/// A record of the chain: where it is and where the link to it is.
#[derive(Clone, Copy)]
struct Link {
    /// Offset of the word that links to the record.
    from: u64,
    /// Offset of the record.
    offset: u64,
    rec: Rec,
    shape: Shape,
}

/// Goes through an inode's records until `visit` says stop. `ESTALE` when one is not what the
/// link said: somebody changed the chain, or it is damaged.
fn each(pool: &Pool, inode: u64, visit: &mut dyn FnMut(&Link) -> Result<bool>) -> Result<()> {
    let mut from = at(inode, word::XATTR);
    let mut next = pool.load(from)?;
    for _ in 0..CHAIN_MAX {
        let Some(link) = from_link(next) else {
            return Ok(());
        };
        let rec = Rec(link.number as u32);
        let offset = rec.offset();
        let check = || {
            core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
            let tag = pool.load(offset)?;
            let same = tag_kind(tag) == kind::XATTR && tag_generation(tag) == link.generation;
            if same { Ok(()) } else { Err(Errno::ESTALE) }
        };
        check()?;
        let shape = pool.load(at(offset, record::SHAPE))?;
        check()?;
        let goes_on = visit(&Link {
            from,
            offset,
            rec,
            shape: Shape::unpack(shape)?,
        })?;
        from = at(offset, record::NEXT);
        next = pool.load(from)?;
        check()?;
        if !goes_on {
            return Ok(());
        }
    }
    Err(Errno::EIO)
}

/// The record with a name; pending ones are not seen.
fn find(pool: &Pool, inode: u64, name: &[u8]) -> Result<Option<Link>> {
    let mut found = None;
    each(pool, inode, &mut |link| {
        if !link.shape.pending && is_named(pool, link, name)? {
            found = Some(*link);
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

fn is_named(pool: &Pool, link: &Link, name: &[u8]) -> Result<bool> {
    if link.shape.name_len != name.len() {
        return Ok(false);
    }
    for (index, piece) in name.chunks(8).enumerate() {
        if pool.load(at(link.offset, record::NAME + index as u64))? != packed(piece) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Copies bytes stored from `offset` on.
fn copy_out(pool: &Pool, offset: u64, out: &mut [u8]) -> Result<()> {
    for (place, piece) in (offset..).step_by(8).zip(out.chunks_mut(8)) {
        let bytes = pool.load(place)?.to_le_bytes();
        piece.copy_from_slice(&bytes[..piece.len()]);
    }
    Ok(())
}

/// Stores bytes from `offset` on, the last word padded with zeros.
fn copy_in(tx: &mut Tx<'_>, offset: u64, bytes: &[u8]) -> Result<()> {
    for (place, piece) in (offset..).step_by(512).zip(bytes.chunks(512)) {
        let mut words = [0; 64];
        for (word, piece) in words.iter_mut().zip(piece.chunks(8)) {
            *word = packed(piece);
        }
        tx.put(place, &words[..piece.len().div_ceil(8)])?;
    }
    Ok(())
}

/// Copies the value of a record; `ESTALE` if one of its pages was taken away meanwhile.
fn read_value(pool: &Pool, link: &Link, out: &mut [u8]) -> Result<()> {
    let start = link.offset + link.shape.value_at();
    if !link.shape.in_pages {
        return copy_out(pool, start, out);
    }
    for (place, piece) in (start..).step_by(8).zip(out.chunks_mut(PAGE as usize)) {
        let page = PageLink(pool.load(place)?);
        copy_out(pool, page.offset(), piece)?;
        let state = pool.page_state(page.page())?;
        if state.kind != kind::BLOB || state.version != page.version() {
            return Err(Errno::ESTALE);
        }
    }
    Ok(())
}

/// Frees a record and its pages.
fn free(tx: &mut Tx<'_>, link: &Link) -> Result<()> {
    let start = link.offset + link.shape.value_at();
    for place in (start..).step_by(8).take(link.shape.pages()) {
        let page = PageLink(tx.load(place)?);
        if !page.is_none() {
            tx.free_page(page)?;
        }
    }
    tx.free(link.rec)
}

/// Frees the attributes of an inode that goes; `false` if that takes another transaction.
pub(crate) fn free_all(tx: &mut Tx<'_>, pool: &Pool, inode: u64) -> Result<bool> {
    if pool.load(at(inode, word::XATTR))? == 0 {
        return Ok(true);
    }
    let mut done = true;
    each(pool, inode, &mut |link| {
        if tx.room() < 128 || tx.free_page_room() < PAGES_MAX {
            let rest = pool.load(link.from)?;
            tx.set(at(inode, word::XATTR), rest)?;
            done = false;
            return Ok(false);
        }
        free(tx, link)?;
        Ok(true)
    })
    .map_err(|_| Errno::EIO)?;
    Ok(done)
}

/// Class of a name.
enum Class {
    User,
    Trusted,
    /// Classes that only some file systems have.
    Special,
    Other,
}

/// `ERANGE` for lengths no name has.
fn check_len(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > NAME_MAX {
        Err(Errno::ERANGE)
    } else {
        Ok(())
    }
}

/// May the caller do this to the attribute? Then `EOPNOTSUPP` for classes that are not kept, and
/// `EINVAL` for a name that is a class only.
fn check(cred: &Cred<'_>, guard: &Guard, name: &[u8], mask: u32) -> Result<()> {
    let class = match name {
        _ if name.starts_with(b"user.") => Class::User,
        _ if name.starts_with(b"trusted.") => Class::Trusted,
        _ if name.starts_with(b"security.") || name.starts_with(b"system.") => Class::Special,
        _ => Class::Other,
    };
    let refused = if mask == WRITE {
        Errno::EPERM
    } else {
        Errno::ENODATA
    };
    match class {
        Class::Special => return Err(Errno::EOPNOTSUPP),
        Class::Other => return perm::check(cred, guard, mask).and(Err(Errno::EOPNOTSUPP)),
        Class::Trusted if cred.privileged => {}
        Class::Trusted => return Err(refused),
        Class::User => {
            if !is_file(guard.mode) && !is_dir(guard.mode) {
                return Err(refused);
            }
            let sticky = is_dir(guard.mode) && guard.mode & S_ISVTX != 0;
            if sticky && mask == WRITE && !perm::owns(cred, guard) {
                return Err(Errno::EPERM);
            }
            perm::check(cred, guard, mask)?;
        }
    }
    if name == b"user." || name == b"trusted." {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    }
}

impl Dfs {
    /// Copies the value of an attribute and returns its length; an empty buffer only asks for
    /// that. `ENODATA`, `ERANGE` if the buffer is too small, `EOPNOTSUPP`, `EACCES`.
    pub fn getxattr(
        &self,
        cred: &Cred<'_>,
        ino: Ino,
        name: &[u8],
        value: &mut [u8],
    ) -> Result<usize> {
        check_len(name)?;
        check(cred, &Guard::of(self.pool, ino)?, name, READ)?;
        self.steady(ino, &mut |offset| {
            let Some(link) = find(self.pool, offset, name)? else {
                return Err(Errno::ENODATA);
            };
            let len = link.shape.value_len;
            if value.is_empty() {
                return Ok(len);
            }
            let out = value.get_mut(..len).ok_or(Errno::ERANGE)?;
            read_value(self.pool, &link, out)?;
            let mut still_there = false;
            each(self.pool, offset, &mut |other| {
                still_there = other.rec == link.rec && other.shape == link.shape;
                Ok(!still_there)
            })?;
            if still_there {
                Ok(len)
            } else {
                Err(Errno::ESTALE)
            }
        })
    }

    /// Copies the names of all attributes the caller may know, each followed by a 0, and returns
    /// their length; an empty buffer only asks for that. `ERANGE`, `E2BIG` beyond 64 KiB.
    pub fn listxattr(&self, cred: &Cred<'_>, ino: Ino, list: &mut [u8]) -> Result<usize> {
        self.steady(ino, &mut |offset| {
            let mut len = 0;
            each(self.pool, offset, &mut |link| {
                let mut name = [0; NAME_MAX];
                let name = &mut name[..link.shape.name_len];
                copy_out(self.pool, at(link.offset, record::NAME), name)?;
                if link.shape.pending || name.starts_with(b"trusted.") && !cred.privileged {
                    return Ok(true);
                }
                let end = len + name.len() + 1;
                if !list.is_empty() {
                    let out = list.get_mut(len..end).ok_or(Errno::ERANGE)?;
                    out[..name.len()].copy_from_slice(name);
                    out[name.len()] = 0;
                }
                len = end;
                Ok(true)
            })?;
            if len > VALUE_MAX {
                Err(Errno::E2BIG)
            } else {
                Ok(len)
            }
        })
    }

    /// Sets an attribute. `flags`: [`XATTR_CREATE`] (`EEXIST`), [`XATTR_REPLACE`] (`ENODATA`).
    /// `E2BIG` beyond 64 KiB, `ERANGE` for the name, `EPERM` where attributes of that class cannot
    /// be, `EACCES`, `ENOSPC`.
    pub fn setxattr(
        &self,
        cred: &Cred<'_>,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Result<()> {
        if flags & !(XATTR_CREATE | XATTR_REPLACE) != 0 {
            return Err(Errno::EINVAL);
        }
        check_len(name)?;
        if value.len() > VALUE_MAX {
            return Err(Errno::E2BIG);
        }
        let shape = Shape::new(name, value);
        for _ in 0..TRIES {
            let mut started = None;
            if shape.pages() > PAGES_AT_ONCE {
                started = Some(self.begin_long(cred, ino, name, value)?);
            }
            let mut missing = false;
            self.change(ino, |tx, offset, guard, now| {
                check(cred, guard, name, WRITE)?;
                let old = find(self.pool, offset, name).map_err(damaged)?;
                match old {
                    Some(_) if flags & XATTR_CREATE != 0 => return Err(Errno::EEXIST),
                    None if flags & XATTR_REPLACE != 0 => return Err(Errno::ENODATA),
                    _ => {}
                }
                tx.set(at(offset, word::CTIME), now as u64)?;
                if let Some(link) = started {
                    let still = pending(self.pool, offset).map_err(damaged)?;
                    missing = still.is_none_or(|(rec, word)| (rec, word) != link);
                    if missing {
                        return Err(Errno::EAGAIN);
                    }
                    return self.finish_long(tx, ino, link.0, shape, value, old);
                }
                let (from, after) = match (old, pending(self.pool, offset).map_err(damaged)?) {
                    (Some(old), _) => (old.from, at(old.offset, record::NEXT)),
                    // A pending record stays the first.
                    (None, Some((rec, _))) => [at(rec.offset(), record::NEXT); 2].into(),
                    (None, None) => [at(offset, word::XATTR); 2].into(),
                };
                let next = self.pool.load(after)?;
                let new = self.write_record(tx, ino, shape, name, value, next)?;
                tx.set(from, new)?;
                old.map_or(Ok(()), |old| free(tx, &old))
            })
            .or_else(|errno| if missing { Ok(()) } else { Err(errno) })?;
            if !missing {
                return Ok(());
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Removes an attribute. `ENODATA`, and errors as of [`Dfs::setxattr`].
    pub fn removexattr(&self, cred: &Cred<'_>, ino: Ino, name: &[u8]) -> Result<()> {
        check_len(name)?;
        self.change(ino, |tx, offset, guard, now| {
            check(cred, guard, name, WRITE)?;
            let link = find(self.pool, offset, name)
                .map_err(damaged)?
                .ok_or(Errno::ENODATA)?;
            tx.set(link.from, self.pool.load(at(link.offset, record::NEXT))?)?;
            tx.set(at(offset, word::CTIME), now as u64)?;
            free(tx, &link)
        })
    }

    /// Runs a read of an inode's attributes without a lock until nothing changed under it, at last
    /// under the lock.
    fn steady(&self, ino: Ino, read: &mut dyn FnMut(u64) -> Result<usize>) -> Result<usize> {
        let offset = locate(self.pool, ino)?;
        for _ in 0..TRIES {
            match read(offset) {
                Err(Errno::ESTALE | Errno::EIO) => still(self.pool, ino, offset)?,
                other => return still(self.pool, ino, offset).and(other),
            }
        }
        let _held = self.pool.tx(&[inode::lock(self.pool, ino)?])?;
        still(self.pool, ino, offset)?;
        read(offset).map_err(damaged)
    }

    /// Writes a record that nothing leads to yet, and as much of a value in pages as goes at once;
    /// returns the link to it.
    fn write_record(
        &self,
        tx: &mut Tx<'_>,
        ino: Ino,
        shape: Shape,
        name: &[u8],
        value: &[u8],
        next: u64,
    ) -> Result<u64> {
        let own = inode::record(ino)?;
        let (target, replicas) = (self.pool.target_of(own)?, self.pool.replicas_of(own)?);
        let rec = tx.alloc(kind::XATTR, shape.slot(), target, replicas)?;
        let offset = rec.offset();
        let generation = tag_generation(tx.load(offset)?);
        tx.put(at(offset, record::NEXT), &[next, shape.pack()])?;
        copy_in(tx, at(offset, record::NAME), name)?;
        let start = offset + shape.value_at();
        if !shape.in_pages {
            copy_in(tx, start, value)?;
            return Ok(pair(generation, rec.0));
        }
        let mut links = [0; PAGES_MAX];
        let pieces = value.chunks(PAGE as usize).take(PAGES_AT_ONCE);
        for (link, piece) in links.iter_mut().zip(pieces) {
            let page = tx.alloc_page(kind::BLOB, target, replicas, false)?;
            copy_in(tx, page.offset(), piece)?;
            *link = page.0;
        }
        tx.put(start, &links[..shape.pages()])?;
        Ok(pair(generation, rec.0))
    }

    /// First half of a value too long for one transaction: a pending record at the head of the
    /// chain. One that somebody left behind is freed. Returns where it is linked and the link.
    fn begin_long(
        &self,
        cred: &Cred<'_>,
        ino: Ino,
        name: &[u8],
        value: &[u8],
    ) -> Result<(Rec, u64)> {
        let mut made = (Rec::NONE, 0);
        self.change(ino, |tx, offset, guard, _| {
            check(cred, guard, name, WRITE)?;
            let mut next = self.pool.load(at(offset, word::XATTR))?;
            if let Some((rec, _)) = pending(self.pool, offset).map_err(damaged)? {
                next = self.pool.load(at(rec.offset(), record::NEXT))?;
                let shape = Shape::unpack(self.pool.load(at(rec.offset(), record::SHAPE))?)?;
                free(
                    tx,
                    &Link {
                        from: 0,
                        offset: rec.offset(),
                        rec,
                        shape,
                    },
                )?;
            }
            let shape = Shape {
                pending: true,
                ..Shape::new(name, value)
            };
            let link = self.write_record(tx, ino, shape, name, value, next)?;
            made = (Rec(low(link)), link);
            tx.set(at(offset, word::XATTR), link)
        })?;
        Ok(made)
    }

    /// Second half: the rest of the value, then the record counts and the old one goes.
    fn finish_long(
        &self,
        tx: &mut Tx<'_>,
        ino: Ino,
        rec: Rec,
        shape: Shape,
        value: &[u8],
        old: Option<Link>,
    ) -> Result<()> {
        let own = inode::record(ino)?;
        let (target, replicas) = (self.pool.target_of(own)?, self.pool.replicas_of(own)?);
        let start = rec.offset() + shape.value_at();
        for (index, piece) in value.chunks(PAGE as usize).enumerate().skip(PAGES_AT_ONCE) {
            let page = tx.alloc_page(kind::BLOB, target, replicas, false)?;
            copy_in(tx, page.offset(), piece)?;
            tx.set(start + index as u64 * 8, page.0)?;
        }
        tx.set(at(rec.offset(), record::SHAPE), shape.pack())?;
        let Some(old) = old else { return Ok(()) };
        tx.set(old.from, self.pool.load(at(old.offset, record::NEXT))?)?;
        free(tx, &old)
    }
}

/// The pending record, which can only be the first of the chain, and the link to it.
fn pending(pool: &Pool, inode: u64) -> Result<Option<(Rec, u64)>> {
    let link = pool.load(at(inode, word::XATTR))?;
    let mut first = None;
    each(pool, inode, &mut |found| {
        if found.shape.pending {
            first = Some((found.rec, link));
        }
        Ok(false)
    })?;
    Ok(first)
}

/// Under the lock nothing changes, so what does not fit is damage.
fn damaged(errno: Errno) -> Errno {
    if errno == Errno::ESTALE {
        Errno::EIO
    } else {
        errno
    }
}
