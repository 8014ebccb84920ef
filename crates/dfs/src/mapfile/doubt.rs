//! What becomes of a change that reaches the cache file and not the pool, or the other way round: who
//! made it has failed, or was killed.
//!
//! Before either is changed, [`state::DOUBT`] is set, with the inode's lock held; the transaction that
//! publishes the change takes it off. Whoever finds it with the lock held knows that it failed. Where
//! programs may store, the cache file is what everybody has read since: it is brought to the pool in
//! the end ([`state::UNSURE`]). Elsewhere everybody reads the pool, and only mappings show the cache
//! file: it is made to agree with the pool.

use super::filled::Filled;
use super::home::next_data;
use super::{buffer, cache, errno, fit, pread, pwrite_all, state};
use crate::IoVec;
use crate::inode::{low, word};
use crate::io::cursor::Cursor;
use crate::io::read::read_at;
use crate::map::BLOCK;
use crate::map::file::File;
use core::sync::atomic::Ordering;
use engine::{Tx, crash_point};
use rustix::fd::BorrowedFd;
use rustix::fs::SeekFrom;
use sys::{Errno, Result};

/// Before the cache file and the pool are changed, if the file has a cache file. The inode's lock is held.
#[inline]
pub(crate) fn doubt(file: &File<'_>) -> Result<()> {
    match file.is_mapped()? {
        true => note(file),
        false => Ok(()),
    }
}

#[cold]
fn note(file: &File<'_>) -> Result<()> {
    let table = decided(file)?;
    file.pool
        .word(file.at(word::TABLE))?
        .store(table | u64::from(state::DOUBT), Ordering::Release);
    crash_point!("map.doubted");
    Ok(())
}

/// The transaction makes in the pool what the cache file has been made to show.
#[inline]
pub(crate) fn agree(file: &File<'_>, tx: &mut Tx<'_>) -> Result<()> {
    let table = file.load(word::TABLE)?;
    match low(table) & state::DOUBT {
        0 => Ok(()),
        bit => tx.set_volatile(file.at(word::TABLE), table & !u64::from(bit)),
    }
}

/// The state of mappings without a change in doubt, with what had to be done for that. The inode's lock
/// is held: the state is the caller's to store.
pub(super) fn decided(file: &File<'_>) -> Result<u64> {
    let table = file.load(word::TABLE)?;
    let bits = low(table);
    if bits & state::DOUBT == 0 {
        return Ok(table);
    }
    let certain = table & !u64::from(state::DOUBT);
    if bits & state::STORES != 0 {
        return Ok(certain | u64::from(state::UNSURE));
    }
    mend(file)?;
    Ok(certain)
}

/// Decides what is in doubt, if anything is. The caller holds no lock.
pub(crate) fn decide(file: &File<'_>) -> Result<()> {
    if low(file.load(word::TABLE)?) & state::DOUBT == 0 {
        return Ok(());
    }
    let mut tx = file.tx()?;
    let table = decided(file)?;
    if table != file.load(word::TABLE)? {
        tx.set_volatile(file.at(word::TABLE), table)?;
    }
    tx.commit().map(|_| ())
}

/// Before the cache file alone is changed: the pool is to follow in several steps, or at the end of the
/// registration. False if there is nothing but what is in the pool. The caller holds no lock.
pub(super) fn leads(file: &File<'_>) -> Result<bool> {
    if !super::is_stored_to(file)? {
        return Ok(false);
    }
    let mut tx = file.tx()?;
    let table = file.load(word::TABLE)?;
    if low(table) & state::STORES == 0 {
        return Ok(false);
    }
    if low(table) & state::UNSURE == 0 {
        tx.set_volatile(file.at(word::TABLE), table | u64::from(state::UNSURE))?;
    }
    tx.commit().map(|_| true)
}

/// Makes the cache file show what is in the pool. The inode's lock is held throughout: it takes as long
/// as comparing what is there of both, and is hardly ever needed.
fn mend(file: &File<'_>) -> Result<()> {
    let (cache, size) = (cache(file)?, file.size()?);
    let cache = rustix::fd::AsFd::as_fd(&cache);
    fit(cache, size)?;
    let (mut ours, mut theirs) = (buffer(size)?, buffer(size)?);
    let known = Filled::of(file)?;
    let mut pos = 0;
    while pos < size {
        let (filled, end) = known.at(pos);
        let to = end.min(size);
        // What is not filled yet is copied later, but not where the pool has nothing.
        let next = match filled {
            true => next_data(file, cache, pos)?,
            false => cached(cache, pos)?,
        };
        let Some(next) = next.filter(|next| *next < to) else {
            pos = to;
            continue;
        };
        pos = next / BLOCK * BLOCK;
        let part = (to - pos).min(ours.len() as u64) as usize;
        let (ours, theirs) = (&mut ours[..part], &mut theirs[..part]);
        read_pool(file, ours, pos)?;
        read_cache(cache, theirs, pos)?;
        for start in (0..part).step_by(BLOCK as usize) {
            let block = start..part.min(start + BLOCK as usize);
            let (ours, theirs) = (&ours[block.clone()], &theirs[block]);
            if ours != theirs {
                pwrite_all(cache, ours.as_ptr(), ours.len(), pos + start as u64)?;
            }
        }
        pos += part as u64;
    }
    Ok(())
}

fn read_pool(file: &File<'_>, to: &mut [u8], pos: u64) -> Result<()> {
    let iov = [IoVec {
        base: to.as_mut_ptr(),
        len: to.len(),
    }];
    let read = read_at(file, &mut Cursor::new(&iov)?, pos)?;
    match read == to.len() {
        true => Ok(()),
        false => Err(Errno::EIO),
    }
}

fn read_cache(cache: BorrowedFd<'_>, to: &mut [u8], pos: u64) -> Result<()> {
    let mut done = 0;
    while done < to.len() {
        let rest = &mut to[done..];
        match pread(cache, rest.as_mut_ptr(), rest.len(), pos + done as u64)? {
            0 => return Err(Errno::EIO),
            read => done += read,
        }
    }
    Ok(())
}

/// Where the cache file has data at or after `pos`.
pub(super) fn cached(cache: BorrowedFd<'_>, pos: u64) -> Result<Option<u64>> {
    match rustix::fs::seek(cache, SeekFrom::Data(pos)) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(e) => Err(errno(e)),
    }
}
