//! Which parts of a registered file lie in its cache file.
//!
//! A file is cut into up to 64 granules, one bit of the volatile word [`word::FILLED`] each; what a
//! mapping shows is copied before it is made. Writes change the cache file wherever they go, filled or
//! not, so a granule may be copied in slices, with the inode's lock held for one at a time; only what
//! programs store through mappings is newer than the pool, and that only in filled granules.

use super::{BUFFER, buffer, pwrite_all, registration};
use crate::IoVec;
use crate::inode::{high, word};
use crate::io::cursor::Cursor;
use crate::io::read::read_at;
use crate::map::file::File;
use rustix::fd::BorrowedFd;
use sys::{Errno, Result};

/// Granules of a file.
const GRANULES: u32 = 64;
/// Bytes of the smallest granule, as a power of two.
const SHIFT_MIN: u32 = 21;
/// Bytes copied under the inode's lock at a time.
const SLICE: u64 = 1 << 20;

/// The granules of a file while it is registered.
#[derive(Clone, Copy)]
pub(super) struct Filled {
    shift: u32,
    bits: u64,
    /// Which registration they belong to.
    pub(super) registration: u32,
}

impl Filled {
    /// Those of a file that is registered now.
    pub(super) fn begin(file: &File<'_>) -> Result<Filled> {
        let whole = file.size()?.max(1).next_power_of_two().trailing_zeros();
        let shift = SHIFT_MIN.max(whole.saturating_sub(GRANULES.trailing_zeros()));
        // Each registration ends with a change of the sequence number.
        let number = file.load(word::SEQUENCE)? as u32 & 0xffff;
        Ok(Filled {
            shift,
            bits: 0,
            registration: number << 8 | shift,
        })
    }

    /// As they are now.
    pub(super) fn of(file: &File<'_>) -> Result<Filled> {
        loop {
            let known = registration(file)?;
            let bits = file.load(word::FILLED)?;
            if registration(file)? == known {
                return Ok(Filled {
                    shift: known & 63,
                    bits,
                    registration: known,
                });
            }
        }
    }

    /// Whether the granule of `pos` is filled, and where it ends. What lies behind the last granule
    /// was written after the file was registered, so the cache file has it.
    pub(super) fn at(&self, pos: u64) -> (bool, u64) {
        let granule = pos >> self.shift;
        if granule >= u64::from(GRANULES) {
            return (true, u64::MAX);
        }
        let end = (granule + 1) << self.shift;
        (self.bits >> granule & 1 != 0, end)
    }

    /// Bytes of a file of `size` bytes that are still to be copied before `from..to` is filled.
    pub(super) fn missing(&self, from: u64, to: u64, size: u64) -> u64 {
        let (mut pos, to, mut bytes) = (from, to.min(size), 0);
        while pos < to {
            let (filled, end) = self.at(pos);
            if !filled {
                bytes += end.min(size) - (pos >> self.shift << self.shift);
            }
            pos = end;
        }
        bytes
    }

    /// Calls `each` with every filled part of `from..to`.
    pub(super) fn each(
        &self,
        from: u64,
        to: u64,
        mut each: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut pos = from;
        while pos < to {
            let (filled, mut end) = self.at(pos);
            // Neighbours are one part.
            while filled && end < to && self.at(end).0 {
                end = self.at(end).1;
            }
            if filled {
                each(pos, end.min(to))?;
            }
            pos = end;
        }
        Ok(())
    }
}

/// Copies what is not yet there of `from..to` to the cache file of a registered file.
pub(super) fn fill(file: &File<'_>, cache: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    let mut bytes = Vec::new();
    let mut pos = from;
    while pos < to {
        let filled = Filled::of(file)?;
        let (done, end) = filled.at(pos);
        if !done {
            let granule = pos >> filled.shift << filled.shift;
            let span = to.max(end).min(file.size()?).saturating_sub(granule);
            if bytes.is_empty() || (bytes.len() as u64) < span && bytes.len() < BUFFER {
                bytes = buffer(span)?;
            }
            fill_granule(file, cache, pos >> filled.shift, filled.shift, &mut bytes)?;
        }
        pos = end;
    }
    Ok(())
}

fn fill_granule(
    file: &File<'_>,
    cache: BorrowedFd<'_>,
    granule: u64,
    shift: u32,
    bytes: &mut [u8],
) -> Result<()> {
    let (mut pos, end) = (granule << shift, (granule + 1) << shift);
    loop {
        let mut tx = file.tx()?;
        let bits = file.load(word::FILLED)?;
        if bits >> granule & 1 != 0 {
            // Somebody else was faster, and programs may have stored to it since.
            return Ok(());
        }
        if high(file.load(word::TABLE)?) == 0 {
            return Err(Errno::EIO);
        }
        match copy_slice(file, cache, pos, end, bytes)? {
            Some(next) => pos = next,
            None => {
                tx.set_volatile(file.at(word::FILLED), bits | 1 << granule)?;
                return tx.commit().map(|_| ());
            }
        }
    }
}

/// Copies a slice's worth of data from `pos` on; where to go on, `None` when all is copied. The
/// inode's lock is held.
fn copy_slice(
    file: &File<'_>,
    cache: BorrowedFd<'_>,
    pos: u64,
    end: u64,
    bytes: &mut [u8],
) -> Result<Option<u64>> {
    let end = end.min(file.size()?);
    let mut pos = pos;
    let mut left = SLICE;
    while pos < end && left > 0 {
        pos = match crate::trunc::seek_data(file, pos, false) {
            Ok(data) if data < end => data,
            Ok(_) | Err(Errno::ENXIO) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let len = (end - pos).min(bytes.len() as u64) as usize;
        let iov = [IoVec {
            base: bytes.as_mut_ptr(),
            len,
        }];
        let read = read_at(file, &mut Cursor::new(&iov)?, pos)?;
        if read == 0 {
            return Ok(None);
        }
        pwrite_all(cache, bytes.as_ptr(), read, pos)?;
        pos += read as u64;
        left = left.saturating_sub(read as u64);
    }
    Ok((pos < end).then_some(pos))
}
