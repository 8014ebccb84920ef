//! Bringing home what programs stored through mappings: blocks in which the cache file differs from
//! the pool are written to the pool.
//!
//! They are written out of the cache file itself, at the moment when they are stored with the inode's
//! lock held: what somebody wrote to the file since they were compared is in both.

use super::doubt::cached;
use super::{ROUNDS, buffer, errno, length};
use crate::IoVec;
use crate::io::cursor::{Cursor, Source};
use crate::io::read::read_at;
use crate::io::write::{Rules, Start, write_at};
use crate::map::BLOCK;
use crate::map::file::File;
use rustix::fd::BorrowedFd;
use rustix::mm::{MapFlags, ProtFlags};
use sys::{Errno, Result, uaccess};

/// Bytes of a cache file that are mapped at a time.
const WINDOW: u64 = 64 << 20;

/// A file and its cache file, as registered at some time.
pub(super) struct Home<'a, 'p> {
    pub(super) file: &'a File<'p>,
    pub(super) cache: BorrowedFd<'a>,
    pub(super) registration: u32,
}

/// Pages of a cache file, read through guarded copies: it may be cut at any time.
struct View {
    base: *mut core::ffi::c_void,
    from: u64,
    len: usize,
}

impl View {
    fn new(cache: BorrowedFd<'_>, from: u64, to: u64) -> Result<View> {
        let len = usize::try_from(to - from).map_err(|_| Errno::ENOMEM)?;
        let (anywhere, flags) = (core::ptr::null_mut(), MapFlags::SHARED);
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { rustix::mm::mmap(anywhere, len, ProtFlags::READ, flags, cache, from) };
        let base = base.map_err(errno)?;
        Ok(View { base, from, len })
    }

    /// Address of a byte of the file.
    fn at(&self, pos: u64) -> usize {
        self.base as usize + (pos - self.from) as usize
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        let unmapped = unsafe { rustix::mm::munmap(self.base, self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

impl Home<'_, '_> {
    /// Writes the blocks of a filled range in which the cache differs from the pool.
    pub(super) fn bring(&self, from: u64, to: u64) -> Result<()> {
        let (mut from, mut to) = (from / BLOCK * BLOCK, to.min(self.file.size()?));
        let mut cuts = 0;
        // A mapped file may be far larger than anything in it.
        while from < to
            && let Some(next) = next_data(self.file, self.cache, from)?.filter(|next| *next < to)
        {
            from = next / BLOCK * BLOCK;
            let end = to.min(from.saturating_add(WINDOW));
            from = self.compare(&View::new(self.cache, from, end)?, end)?;
            if from < end {
                if cuts == ROUNDS {
                    return Err(Errno::EIO);
                }
                cuts += 1;
                // The cache file was cut; whoever does it is done when the lock is free.
                drop(self.file.tx()?);
                to = to.min(length(self.cache)?).min(self.file.size()?);
            }
        }
        Ok(())
    }

    /// Compares what is viewed up to `to`; how far it came before the cache file was cut.
    fn compare(&self, view: &View, to: u64) -> Result<u64> {
        let span = to.saturating_sub(view.from);
        let (mut ours, mut theirs) = (buffer(span)?, buffer(span)?);
        let len = ours.len();
        let mut pos = view.from;
        while let Some(next) = next_data(self.file, self.cache, pos)?.filter(|next| *next < to) {
            pos = next / BLOCK * BLOCK;
            let part = (to - pos).min(len as u64) as usize;
            let (ours, theirs) = (&mut ours[..part], &mut theirs[..part]);
            if uaccess::copy_in(theirs, view.at(pos)).is_err() {
                return Ok(pos);
            }
            let iov = [IoVec {
                base: ours.as_mut_ptr(),
                len: part,
            }];
            let known = read_at(self.file, &mut Cursor::new(&iov)?, pos)?;
            let differs = |start: usize| {
                let end = part.min(start + BLOCK as usize);
                end > known || ours[start..end] != theirs[start..end]
            };
            let mut start = 0;
            while start < part {
                let mut end = start;
                while end < part && differs(end) {
                    end += BLOCK as usize;
                }
                self.store(view, pos + start as u64, end.min(part) - start)?;
                start = end.max(start + BLOCK as usize);
            }
            pos += part as u64;
        }
        Ok(to)
    }

    fn store(&self, view: &View, pos: u64, len: usize) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let rules = Rules {
            keep_size: true,
            write_back: Some(self.registration),
            ..Rules::PLAIN
        };
        let iov = [IoVec {
            base: view.at(pos) as *mut u8,
            len,
        }];
        let source = Source::User(Cursor::new(&iov)?);
        // Less than `len`, and a fault, mean that the file was cut meanwhile.
        match write_at(self.file, source, Start::At(pos), len, rules) {
            Ok(_) | Err(Errno::EFAULT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// Where data begins at or after `pos`, in the cache or in the pool.
pub(super) fn next_data(file: &File<'_>, cache: BorrowedFd<'_>, pos: u64) -> Result<Option<u64>> {
    let stored = match crate::trunc::seek_data(file, pos, false) {
        Ok(at) => Some(at),
        Err(Errno::ENXIO) => None,
        Err(e) => return Err(e),
    };
    Ok(cached(cache, pos)?.into_iter().chain(stored).min())
}
