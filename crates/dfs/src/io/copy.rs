//! Copying between files without the program's memory (`copy_file_range(2)`, `sendfile(2)`).

use super::cursor::{Cursor, Source};
use super::write::{Rules, Start, write_at};
use super::{mapfile, read};
use crate::ofd::flag;
use crate::{Dfs, IoVec, Ofd};
use sys::{Errno, Result};

/// Bytes copied at a time.
const BUFFER: usize = 256 << 10;

impl Dfs {
    /// Copies up to `len` bytes between positions of two files; the number copied, 0 at the end of
    /// the source. `EBADF` for a target open for appending, `EINVAL` when the ranges of one file
    /// overlap.
    pub fn copy_range(
        &self,
        from: Ofd,
        from_pos: u64,
        to: Ofd,
        to_pos: u64,
        len: usize,
    ) -> Result<usize> {
        let (source, from_file) = self.open_for(from, false)?;
        let (target, to_file) = self.open_for(to, true)?;
        if target.flags & flag::APPEND != 0 {
            return Err(Errno::EBADF);
        }
        let size = from_file.size()?;
        let len = len.min(super::cursor::TRANSFER_MAX);
        let len = len.min(usize::try_from(size.saturating_sub(from_pos)).unwrap_or(usize::MAX));
        let apart = from_pos.abs_diff(to_pos) >= len as u64;
        if source.ino == target.ino && !apart {
            return Err(Errno::EINVAL);
        }
        let mut buffer = Vec::new();
        buffer
            .try_reserve_exact(BUFFER.min(len))
            .map_err(|_| Errno::ENOMEM)?;
        buffer.resize(BUFFER.min(len), 0u8);
        let rules = Rules {
            drop_suid: target.drops_suid(self),
            ..Rules::PLAIN
        };
        let mut done = 0usize;
        while done < len {
            let part = buffer.len().min(len - done);
            let iov = [IoVec {
                base: buffer.as_mut_ptr(),
                len: part,
            }];
            let pos = from_pos + done as u64;
            let mut cursor = Cursor::new(&iov)?;
            let outcome = match mapfile::read(&from_file, &mut cursor, pos)? {
                Some(read) => Ok(read),
                None => read::read_at(&from_file, &mut cursor, pos),
            };
            let outcome = outcome.and_then(|read| {
                let iov = [IoVec {
                    base: buffer.as_mut_ptr(),
                    len: read,
                }];
                let source = Source::User(Cursor::new(&iov)?);
                let start = Start::At(to_pos.saturating_add(done as u64));
                write_at(&to_file, source, start, read, rules).map(|(written, _)| written)
            });
            match outcome {
                Ok(0) => break,
                Ok(copied) => done += copied,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        if done > 0 && source.flags & flag::NOATIME == 0 {
            read::touch_atime(&from_file);
        }
        if done > 0 && target.flags & flag::DSYNC != 0 {
            super::durable::sync(&to_file)?;
        }
        Ok(done)
    }
}
