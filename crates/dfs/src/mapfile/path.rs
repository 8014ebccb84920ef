//! Where an inode's cache file is, and how it is made: beside the arena, for whoever may use that.

use super::errno;
use crate::Ino;
use core::ffi::CStr;
use engine::Pool;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::os::unix::ffi::OsStrExt;
use sys::{Errno, Result};

/// Path of an inode's cache file: the arena's, its instance, and the inode.
pub(super) struct CachePath {
    bytes: [u8; 512],
}

impl CachePath {
    pub(super) fn new(pool: &Pool, ino: Ino) -> Result<CachePath> {
        let mut bytes = [0u8; 512];
        let arena = pool.arena_path().as_os_str().as_bytes();
        bytes
            .get_mut(..arena.len())
            .ok_or(Errno::ENAMETOOLONG)?
            .copy_from_slice(arena);
        let mut at = arena.len();
        let words = [pool.instance(), ino.number, u64::from(ino.generation)];
        for word in words {
            let text = bytes.get_mut(at..at + 17).ok_or(Errno::ENAMETOOLONG)?;
            for (index, byte) in text.iter_mut().enumerate() {
                *byte = match index {
                    0 => b'.',
                    _ => b"0123456789abcdef"[(word >> (64 - index * 4) & 15) as usize],
                };
            }
            at += 17;
        }
        if at >= bytes.len() {
            Err(Errno::ENAMETOOLONG)
        } else {
            Ok(CachePath { bytes })
        }
    }

    fn as_cstr(&self) -> Result<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::ENAMETOOLONG)
    }

    pub(super) fn open(&self) -> Result<OwnedFd> {
        self.open_as(OFlags::RDWR)
    }

    pub(super) fn open_as(&self, access: OFlags) -> Result<OwnedFd> {
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(self.as_cstr()?, flags, Mode::empty()).map_err(errno)
    }

    /// A new file, in place of one that was left there by a process that died before it had
    /// registered it. The inode's lock is held and the inode is not registered.
    pub(super) fn create(&self, pool: &Pool) -> Result<OwnedFd> {
        // Whoever may use the arena may use this.
        let mode = rustix::fs::stat(pool.arena_path()).map_err(errno)?.st_mode & 0o666;
        let mode = Mode::from_raw_mode(mode);
        let flags =
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL;
        let path = self.as_cstr()?;
        let file = match rustix::fs::open(path, flags, mode) {
            Err(rustix::io::Errno::EXIST) => {
                self.remove()?;
                rustix::fs::open(path, flags, mode)
            }
            made => made,
        };
        let file = file.map_err(errno)?;
        rustix::fs::fchmod(&file, mode).map_err(errno)?;
        Ok(file)
    }

    pub(super) fn remove(&self) -> Result<()> {
        match rustix::fs::unlink(self.as_cstr()?) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(errno(error)),
        }
    }
}
