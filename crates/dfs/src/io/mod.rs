//! Reading and writing through open file descriptions.

mod copy;
pub(crate) mod cursor;
pub(crate) mod durable;
pub(crate) mod read;
pub(crate) mod write;

use crate::map::SIZE_MAX;
use crate::map::file::File;
use crate::ofd::{Open, flag};
use crate::{Dfs, IoVec, Ofd, mapfile};
use core::sync::atomic::Ordering;
use cursor::{Cursor, Source};
use sys::{Errno, Result};
use write::{Rules, Start, write_at};

impl Dfs {
    /// Reads at the description's offset and moves it (`read(2)`, `readv(2)`).
    ///
    /// Two readers that share a description never get the same bytes. `EBADF`, `EISDIR`, `EFAULT`,
    /// `EINVAL`, `EIO`.
    ///
    /// # Safety
    /// The buffers are the program's to be overwritten: no Rust reference to them exists.
    pub unsafe fn read(&self, ofd: Ofd, iov: &[IoVec]) -> Result<usize> {
        let (open, file) = self.open_for(ofd, false)?;
        let cursor = Cursor::new(iov)?;
        let offset = open.offset()?;
        let mut pos = offset.load(Ordering::Acquire);
        loop {
            let read = transfer_in(&open, &file, cursor, pos)?;
            let moved = offset.compare_exchange(
                pos,
                pos + read as u64,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match moved {
                Ok(_) => return Ok(read),
                Err(now) => pos = now,
            }
        }
    }

    /// Reads at a position (`pread(2)`, `preadv(2)`); the offset stays.
    ///
    /// # Safety
    /// As for [`Dfs::read`].
    pub unsafe fn pread(&self, ofd: Ofd, iov: &[IoVec], pos: i64) -> Result<usize> {
        let pos = u64::try_from(pos).map_err(|_| Errno::EINVAL)?;
        let (open, file) = self.open_for(ofd, false)?;
        transfer_in(&open, &file, Cursor::new(iov)?, pos)
    }

    /// Writes at the end of the file and moves the description's offset behind what was written
    /// (`RWF_APPEND` of `pwritev2(2)` without a position).
    ///
    /// # Safety
    /// As for [`Dfs::write`].
    pub unsafe fn append(&self, ofd: Ofd, iov: &[IoVec]) -> Result<usize> {
        let (open, file) = self.open_for(ofd, true)?;
        let (written, end) = transfer_out(self, &open, &file, Cursor::new(iov)?, Start::End)?;
        if written > 0 {
            open.offset()?.store(end, Ordering::Release);
        }
        Ok(written)
    }

    /// Writes at the description's offset and moves it, or with `O_APPEND` at the end of the file
    /// (`write(2)`, `writev(2)`).
    ///
    /// # Safety
    /// The buffers are the program's to be read; other threads may change them meanwhile.
    pub unsafe fn write(&self, ofd: Ofd, iov: &[IoVec]) -> Result<usize> {
        let (open, file) = self.open_for(ofd, true)?;
        let cursor = Cursor::new(iov)?;
        let offset = open.offset()?;
        if open.flags & flag::APPEND != 0 {
            let (written, end) = transfer_out(self, &open, &file, cursor, Start::End)?;
            if written > 0 {
                offset.store(end, Ordering::Release);
            }
            return Ok(written);
        }
        self.write_at_offset(&open, &file, cursor)
    }

    /// Writes at a position, or without one at the description's offset, which it moves; though the
    /// description may have `O_APPEND` (`RWF_NOAPPEND` of `pwritev2(2)`).
    ///
    /// # Safety
    /// As for [`Dfs::write`].
    pub unsafe fn overwrite(&self, ofd: Ofd, iov: &[IoVec], pos: Option<i64>) -> Result<usize> {
        let pos = pos.map(|pos| u64::try_from(pos).map_err(|_| Errno::EINVAL));
        let (open, file) = self.open_for(ofd, true)?;
        let cursor = Cursor::new(iov)?;
        match pos.transpose()? {
            None => self.write_at_offset(&open, &file, cursor),
            Some(pos) => {
                transfer_out(self, &open, &file, cursor, Start::At(pos)).map(|(written, _)| written)
            }
        }
    }

    fn write_at_offset(
        &self,
        open: &Open<'static>,
        file: &File<'static>,
        cursor: Cursor<'_>,
    ) -> Result<usize> {
        let offset = open.offset()?;
        // The range is taken before it is written, so that nobody who shares the description
        // writes there too; what was not written is given back if nobody went on behind it.
        let mut pos = offset.load(Ordering::Acquire);
        let len = loop {
            let len = (cursor.left() as u64).min(SIZE_MAX.saturating_sub(pos));
            let taken =
                offset.compare_exchange(pos, pos + len, Ordering::AcqRel, Ordering::Acquire);
            match taken {
                Ok(_) => break len,
                Err(now) => pos = now,
            }
        };
        let written = transfer_out(self, open, file, cursor, Start::At(pos));
        let done = written.map_or(0, |(written, _)| written as u64);
        if done < len {
            // If somebody else has moved the offset since, it stays there.
            offset
                .compare_exchange(pos + len, pos + done, Ordering::AcqRel, Ordering::Acquire)
                .unwrap_or_default();
        }
        written.map(|(written, _)| written)
    }

    /// Writes at a position (`pwrite(2)`, `pwritev2(2)`); the offset stays. With `append`
    /// (`RWF_APPEND`) or `O_APPEND` at the end of the file, as Linux does.
    ///
    /// # Safety
    /// As for [`Dfs::write`].
    pub unsafe fn pwrite(&self, ofd: Ofd, iov: &[IoVec], pos: i64, append: bool) -> Result<usize> {
        let pos = u64::try_from(pos).map_err(|_| Errno::EINVAL)?;
        let (open, file) = self.open_for(ofd, true)?;
        let start = match append || open.flags & flag::APPEND != 0 {
            true => Start::End,
            false => Start::At(pos),
        };
        let (written, _) = transfer_out(self, &open, &file, Cursor::new(iov)?, start)?;
        Ok(written)
    }

    /// The description and its regular file, checked for reading or writing.
    #[inline]
    fn open_for(&self, ofd: Ofd, write: bool) -> Result<(Open<'static>, File<'static>)> {
        let open = self.description(ofd)?;
        let allowed = if write {
            open.writable()
        } else {
            open.readable()
        };
        if !allowed {
            return Err(Errno::EBADF);
        }
        let file = open.file()?;
        Ok((open, file))
    }
}

fn transfer_in(
    open: &Open<'_>,
    file: &File<'_>,
    mut cursor: Cursor<'_>,
    pos: u64,
) -> Result<usize> {
    if cursor.left() == 0 {
        return Ok(0);
    }
    if pos.saturating_add(cursor.left() as u64) > SIZE_MAX {
        return Err(Errno::EINVAL);
    }
    let read = match mapfile::read(file, &mut cursor, pos)? {
        Some(read) => read,
        None => read::read_at(file, &mut cursor, pos)?,
    };
    if open.flags & flag::NOATIME == 0 {
        read::touch_atime(file);
    }
    Ok(read)
}

fn transfer_out(
    dfs: &Dfs,
    open: &Open<'_>,
    file: &File<'_>,
    cursor: Cursor<'_>,
    start: Start,
) -> Result<(usize, u64)> {
    if matches!(start, Start::At(pos) if pos.saturating_add(cursor.left() as u64) > SIZE_MAX) {
        return Err(Errno::EINVAL);
    }
    let rules = Rules {
        drop_suid: open.drops_suid(dfs),
        ..Rules::PLAIN
    };
    let write = || write_at(file, Source::User(cursor), start, cursor.left(), rules);
    let (written, end) = match write() {
        // Dead processes may hold the space of files without a name.
        Err(full) if full.is_full() && dfs.reap(usize::MAX).unwrap_or_default() > 0 => write()?,
        other => other?,
    };
    if open.flags & flag::DSYNC != 0 && written > 0 {
        durable::sync(file)?;
    } else {
        dfs.pool.prove_when_due();
    }
    Ok((written, end))
}
