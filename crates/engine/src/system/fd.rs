//! A descriptor closed by a raw system call, and whole-file reads and replacements.

use rustix::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::path::Path;
use sys::{Errno, Result};

/// An open descriptor of our own. `OwnedFd` would close through libc, which is intercepted.
#[derive(Debug)]
pub(crate) struct Fd(RawFd);

impl Fd {
    pub(crate) fn new(fd: OwnedFd) -> Fd {
        Fd(fd.into_raw_fd())
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open until this value is dropped.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: this value is the descriptor's only owner.
        unsafe { rustix::io::close(self.0) };
    }
}

pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::new(error.raw_os_error())
}

/// Opens with `O_CLOEXEC`; a symbolic link as last component is `ELOOP`.
pub(crate) fn open(path: &Path, flags: OFlags, mode: Mode) -> Result<Fd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, mode)
        .map(Fd::new)
        .map_err(errno)
}

/// As [`open`], relative to a directory.
pub(crate) fn open_at(dir: &Fd, name: &Path, flags: OFlags, mode: Mode) -> Result<Fd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, name, flags, mode)
        .map(Fd::new)
        .map_err(errno)
}

/// Opens a directory for use as a starting point.
pub(crate) fn open_dir(path: &Path) -> Result<Fd> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// Reads a regular file of at most `limit` bytes; larger is `EFBIG`.
pub(crate) fn read_at(dir: &Fd, name: &Path, limit: usize) -> Result<Vec<u8>> {
    let file = open_at(dir, name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    let stat = rustix::fs::fstat(&file).map_err(errno)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::EINVAL);
    }
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if size > limit {
        return Err(Errno::EFBIG);
    }
    // One byte more than expected, so that the end of the file shows in one read.
    let mut bytes = vec![0; size + 1];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest).map_err(errno) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Writes all bytes at a position.
pub(crate) fn write_all_at(file: &Fd, mut bytes: &[u8], mut pos: u64) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, pos).map_err(errno) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                pos += count as u64;
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Replaces a file durably: new file, `fsync`, `rename`, `fsync` of the directory.
pub(crate) fn replace_at(dir: &Fd, name: &Path, bytes: &[u8]) -> Result<()> {
    let mut fresh = name.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = Path::new(&fresh);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let file = open_at(dir, fresh, flags, Mode::RUSR | Mode::WUSR)?;
    let written = write_all_at(&file, bytes, 0)
        .and_then(|()| rustix::fs::fsync(&file).map_err(errno))
        .and_then(|()| rustix::fs::renameat(dir, fresh, dir, name).map_err(errno));
    if let Err(error) = written {
        // Best effort: the half-made file is found and overwritten by the next replacement.
        let gone = rustix::fs::unlinkat(dir, fresh, AtFlags::empty());
        return gone.map_err(errno).and(Err(error)).or(Err(error));
    }
    rustix::fs::fsync(dir).map_err(errno)
}
