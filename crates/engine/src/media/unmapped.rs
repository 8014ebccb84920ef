//! Rank files through the kernel: for a process with no address space left for a window.

use super::{SYS_PREAD64, errno, pwrite_all};
use crate::limits::BLOCK;
use crate::pool::Pool;
use rustix::fd::AsRawFd;
use sys::{Errno, Result, file_limit};

impl Pool {
    /// [`Pool::read_blocks`] without a window.
    ///
    /// # Safety
    /// As there.
    #[cold]
    pub(super) unsafe fn read_unmapped(
        &self,
        rank: u16,
        pos: u64,
        dst: *mut u8,
        len: usize,
    ) -> Result<()> {
        let file = self.open_data(rank)?;
        let mut done = 0;
        while done < len {
            let (fd, to) = (file.as_raw_fd(), dst.wrapping_add(done));
            // SAFETY: the kernel checks the destination and answers EFAULT.
            match unsafe { sys::syscall!(SYS_PREAD64, fd, to, len - done, pos + done as u64) }? {
                0 => return Err(Errno::EIO),
                read => done += read,
            }
        }
        Ok(())
    }

    /// [`Pool::write_blocks`] without a window.
    ///
    /// # Safety
    /// As there.
    #[cold]
    pub(super) unsafe fn write_unmapped(
        &self,
        rank: u16,
        pos: u64,
        src: *const u8,
        len: usize,
    ) -> Result<()> {
        let file = self.open_data(rank)?;
        // SAFETY: passed on.
        file_limit::exempt(|| unsafe { pwrite_all(&file, src, len, pos) })
    }

    /// [`Pool::zero_blocks`] without a window.
    #[cold]
    pub(super) fn zero_unmapped(&self, rank: u16, pos: u64, len: usize) -> Result<()> {
        const ZEROS: &[u8] = &[0; BLOCK as usize];
        let file = self.open_data(rank)?;
        let mut done = 0;
        while done < len {
            let part = ZEROS.get(..len - done).unwrap_or(ZEROS);
            let write = || rustix::io::pwrite(&file, part, pos + done as u64).map_err(errno);
            match file_limit::exempt(write)? {
                0 => return Err(Errno::EIO),
                wrote => done += wrote,
            }
        }
        Ok(())
    }
}
