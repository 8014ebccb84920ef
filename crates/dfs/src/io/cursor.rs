//! A position in the program's list of buffers, and guarded copies from and to it.

use crate::IoVec;
use engine::{Pool, Run};
use sys::{Errno, Result, uaccess};

/// Most bytes one call transfers (`read(2)`: 0x7ffff000).
pub(crate) const TRANSFER_MAX: usize = 0x7fff_f000;

/// What is left of a list of buffers.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [IoVec],
    skip: usize,
    left: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte. `EINVAL` when the lengths add up to more than `ssize_t` holds
    /// (`readv(2)`); more than [`TRANSFER_MAX`] is cut.
    pub(crate) fn new(iov: &'a [IoVec]) -> Result<Cursor<'a>> {
        let mut left = 0usize;
        for piece in iov {
            left = left.checked_add(piece.len).ok_or(Errno::EINVAL)?;
        }
        if isize::try_from(left).is_err() {
            return Err(Errno::EINVAL);
        }
        Ok(Cursor {
            rest: iov,
            skip: 0,
            left: left.min(TRANSFER_MAX),
        })
    }

    /// Bytes left.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Cuts what is left to `len` bytes.
    pub(crate) fn limit(&mut self, len: usize) {
        self.left = self.left.min(len);
    }

    /// The next contiguous bytes, at most `max`; nothing once all is used.
    #[inline]
    pub(crate) fn peek(&mut self, max: usize) -> Option<(*mut u8, usize)> {
        let max = max.min(self.left);
        if max == 0 {
            return None;
        }
        while let Some(piece) = self.rest.first() {
            if self.skip < piece.len {
                let len = (piece.len - self.skip).min(max);
                return Some((piece.base.wrapping_add(self.skip), len));
            }
            self.rest = self.rest.get(1..).unwrap_or(&[]);
            self.skip = 0;
        }
        None
    }

    /// Moves on by `len` bytes.
    #[inline]
    pub(crate) fn advance(&mut self, mut len: usize) {
        self.left -= len.min(self.left);
        while len > 0 {
            let Some(piece) = self.rest.first() else {
                return;
            };
            let step = (piece.len - self.skip).min(len);
            self.skip += step;
            len -= step;
            if self.skip == piece.len {
                self.rest = self.rest.get(1..).unwrap_or(&[]);
                self.skip = 0;
            }
        }
    }

    /// Runs `copy(offset, address, len)` over the next `len` bytes, piece by piece.
    #[inline]
    pub(crate) fn each(
        &mut self,
        len: usize,
        mut copy: impl FnMut(usize, *mut u8, usize) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < len {
            let (address, part) = self.peek(len - done).ok_or(Errno::EFAULT)?;
            copy(done, address, part)?;
            self.advance(part);
            done += part;
        }
        Ok(())
    }

    /// How many of the next `max` bytes the program may read (or write) before a fault, in steps
    /// that end at page boundaries, as the kernel's copies do.
    #[cold]
    pub(crate) fn reachable(mut self, max: usize, write: bool) -> usize {
        let mut good = 0;
        while good < max {
            let Some((address, len)) = self.peek(max - good) else {
                break;
            };
            let to_boundary = 4096 - (address as usize & 4095);
            let step = len.min(to_boundary);
            let mut byte = [0u8; 1];
            let touched = copy_in(&mut byte, address).and_then(|()| match write {
                true => copy_out(address, &byte),
                false => Ok(()),
            });
            if touched.is_err() {
                break;
            }
            self.advance(step);
            good += step;
        }
        good
    }
}

/// Where written bytes come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The program's buffers.
    User(Cursor<'a>),
    /// Zeros.
    Zero,
}

impl Source<'_> {
    /// Writes the next `len` bytes to `off` bytes into `run`, which belongs to the caller.
    #[inline]
    pub(crate) fn put_run(&mut self, pool: &Pool, run: Run, off: usize, len: usize) -> Result<()> {
        match self {
            Source::User(cursor) => cursor.each(len, |done, address, part| {
                // SAFETY: the run belongs to the caller; the copy survives faults of the source.
                unsafe { pool.write_blocks(run.rank, run.start, off + done, address, part) }
            }),
            Source::Zero => pool.zero_blocks(run.rank, run.start, off, len),
        }
    }

    /// Writes the next bytes to `buffer`.
    pub(crate) fn put_buffer(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self {
            Source::User(cursor) => cursor.each(buffer.len(), |done, address, part| {
                let to = buffer.get_mut(done..done + part).ok_or(Errno::EIO)?;
                copy_in(to, address)
            }),
            Source::Zero => {
                buffer.fill(0);
                Ok(())
            }
        }
    }

    /// Passes over `len` bytes.
    pub(crate) fn skip(&mut self, len: usize) {
        if let Source::User(cursor) = self {
            cursor.advance(len);
        }
    }
}

/// Copies from the program's memory; `EFAULT` when it cannot be read.
pub(crate) fn copy_in(to: &mut [u8], from: *const u8) -> Result<()> {
    uaccess::copy_in(to, from as usize).map_err(|_| Errno::EFAULT)
}

/// Copies to the program's memory; `EFAULT` when it cannot be written.
pub(crate) fn copy_out(to: *mut u8, from: &[u8]) -> Result<()> {
    // SAFETY: the memory is a piece of a buffer the program gave us to fill.
    unsafe { uaccess::copy_out(to as usize, from) }.map_err(|_| Errno::EFAULT)
}

/// Fills the program's memory with zeros; `EFAULT` when it cannot be written.
pub(crate) fn zero_out(to: *mut u8, len: usize) -> Result<()> {
    // SAFETY: as above.
    unsafe { uaccess::zero(to as usize, len) }.map_err(|_| Errno::EFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &mut [u8]) -> IoVec {
        IoVec {
            base: bytes.as_mut_ptr(),
            len: bytes.len(),
        }
    }

    #[test]
    fn walks_pieces_and_skips_empty_ones() {
        let (mut a, mut b) = ([1u8, 2, 3], [4u8, 5]);
        let iov = [piece(&mut a), piece(&mut []), piece(&mut b)];
        let mut cursor = Cursor::new(&iov).unwrap();
        assert_eq!(cursor.left(), 5);
        cursor.advance(2);
        let mut source = Source::User(cursor);
        let mut out = [0u8; 3];
        source.put_buffer(&mut out).unwrap();
        assert_eq!(out, [3, 4, 5]);
        assert_eq!(source.put_buffer(&mut out), Err(Errno::EFAULT));
    }

    #[test]
    fn lengths_beyond_ssize_are_refused_and_long_ones_cut() {
        let huge = IoVec {
            base: core::ptr::null_mut(),
            len: isize::MAX as usize,
        };
        assert_eq!(Cursor::new(&[huge, huge]).err(), Some(Errno::EINVAL));
        assert_eq!(Cursor::new(&[huge]).unwrap().left(), TRANSFER_MAX);
    }
}
