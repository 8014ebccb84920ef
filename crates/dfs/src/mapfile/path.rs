//! Where an inode's cache file is, and how it is made: beside the arena, so that whoever may use that
//! may use this, and complete before it has a name.

use super::errno;
use crate::Ino;
use core::ffi::CStr;
use engine::Pool;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
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

    /// A file that gets its name with [`CachePath::publish`]; before that it goes with the process.
    pub(super) fn create_nameless(pool: &Pool) -> Result<OwnedFd> {
        let dir = pool.arena_path().parent().ok_or(Errno::EIO)?;
        CachePath::make(pool, dir, OFlags::TMPFILE)
    }

    /// As a file with this name, in place of one that was left there.
    pub(super) fn create(&self, pool: &Pool) -> Result<OwnedFd> {
        CachePath::make(pool, self.as_cstr()?, OFlags::CREATE | OFlags::TRUNC)
    }

    fn make(pool: &Pool, at: impl rustix::path::Arg, how: OFlags) -> Result<OwnedFd> {
        // Whoever may use the arena may use this.
        let mode = rustix::fs::stat(pool.arena_path()).map_err(errno)?.st_mode & 0o666;
        let mode = Mode::from_raw_mode(mode);
        let flags = how | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(at, flags, mode).map_err(errno)?;
        rustix::fs::fchmod(&file, mode).map_err(errno)?;
        Ok(file)
    }

    /// Gives a file without a name the name. The inode's lock is held, the inode not registered.
    pub(super) fn publish(&self, file: &OwnedFd) -> Result<()> {
        // What is there was left by a process that died before it had registered it.
        self.remove()?;
        let mut link = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0";
        decimal(file.as_raw_fd(), link.get_mut(14..).unwrap_or_default());
        let link = CStr::from_bytes_until_nul(&link).map_err(|_| Errno::EIO)?;
        let (cwd, follow) = (rustix::fs::CWD, AtFlags::SYMLINK_FOLLOW);
        rustix::fs::linkat(cwd, link, cwd, self.as_cstr()?, follow).map_err(errno)
    }

    pub(super) fn remove(&self) -> Result<()> {
        match rustix::fs::unlink(self.as_cstr()?) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(errno(error)),
        }
    }
}

/// Writes a number that is not negative, in ASCII.
fn decimal(number: i32, out: &mut [u8]) {
    let mut digits = 1;
    let mut rest = number / 10;
    while rest > 0 {
        (digits, rest) = (digits + 1, rest / 10);
    }
    rest = number;
    for place in out.iter_mut().take(digits).rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}
