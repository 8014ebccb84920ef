//! Offsets: seeking, and directories read through a description.

use super::field;

use crate::inode::{self, Guard};
use crate::map::SIZE_MAX;
use crate::{Dfs, DirCursor, Dirent, Ofd, mapfile, trunc};
use core::sync::atomic::Ordering;
use sys::{Errno, Result};

/// `SEEK_*` of `lseek(2)`.
const SEEK_SET: u32 = 0;
const SEEK_CUR: u32 = 1;
const SEEK_END: u32 = 2;
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

impl Dfs {
    /// Moves the offset (`lseek(2)`), with `SEEK_DATA` and `SEEK_HOLE`; of a directory it is a
    /// cookie, and only `SEEK_SET` and `SEEK_CUR` mean something.
    ///
    /// `EINVAL` for a position no file can have, `ENXIO` beyond the end for data and holes.
    pub fn seek(&self, ofd: Ofd, off: i64, whence: u32) -> Result<u64> {
        let open = self.description(ofd)?;
        if open.is_path() {
            return Err(Errno::EBADF);
        }
        let word = open.offset()?;
        let is_dir = inode::is_dir(Guard::of(self.pool, open.ino)?.mode);
        let valid = |pos: Option<i64>| {
            pos.and_then(|pos| u64::try_from(pos).ok())
                .filter(|pos| *pos <= SIZE_MAX)
                .ok_or(Errno::EINVAL)
        };
        let pos = match whence {
            SEEK_SET => valid(Some(off))?,
            SEEK_CUR => {
                let mut now = word.load(Ordering::Acquire);
                loop {
                    let to = valid((now as i64).checked_add(off))?;
                    match word.compare_exchange(now, to, Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => return Ok(to),
                        Err(other) => now = other,
                    }
                }
            }
            SEEK_END if !is_dir => valid((open.file()?.size()? as i64).checked_add(off))?,
            SEEK_DATA | SEEK_HOLE if !is_dir => {
                let from = u64::try_from(off).map_err(|_| Errno::ENXIO)?;
                let file = open.file()?;
                mapfile::write_back(&file, 0, u64::MAX)?;
                trunc::seek_data(&file, from, whence == SEEK_HOLE)?
            }
            _ => return Err(Errno::EINVAL),
        };
        word.store(pos, Ordering::Release);
        Ok(pos)
    }

    /// Lists a directory from the description's position on (`getdents64(2)`), which moves behind
    /// the last entry that `emit` accepted.
    pub fn getdents_ofd(&self, ofd: Ofd, emit: &mut dyn FnMut(&Dirent<'_>) -> bool) -> Result<()> {
        let open = self.description(ofd)?;
        if open.is_path() {
            return Err(Errno::EBADF);
        }
        let hint = self.pool.word(open.at + field::HINT * 8)?;
        let mut cursor = DirCursor {
            cookie: open.offset()?.load(Ordering::Acquire),
            hint: hint.load(Ordering::Acquire),
        };
        let listed = self.getdents(open.ino, &mut cursor, emit);
        hint.store(cursor.hint, Ordering::Release);
        open.offset()?.store(cursor.cookie, Ordering::Release);
        listed
    }
}
