//! The one door through which the files of ranks are changed: what is written, flushed, resized,
//! named. Test builds note every step here, so that a power failure can be played at any of them,
//! and can make a step fail.

use crate::media::errno;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use std::path::Path;
use sys::file_limit::exempt;
use sys::{Errno, Result};

pub(crate) mod queue;
#[cfg(feature = "testing")]
pub(crate) mod tape;

/// A file of a rank.
#[cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "tests name it")
)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum RankFile {
    /// Blocks.
    Data,
    /// Frames of metadata pages.
    Meta,
    /// The same while they are written anew.
    MetaNew,
    /// The redo log or a copy of it.
    Log,
}

impl RankFile {
    /// Its name in the rank's directory.
    #[cfg_attr(
        not(feature = "testing"),
        allow(unreachable_pub, reason = "tests call it")
    )]
    pub const fn name(self) -> &'static str {
        match self {
            RankFile::Data => "data",
            RankFile::Meta => "meta",
            RankFile::MetaNew => "meta.new",
            RankFile::Log => "log",
        }
    }
}

/// What can be made to fail.
#[cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "tests name it")
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Bytes written.
    Write,
    /// Space given.
    Allocate,
    /// Bytes brought to the device.
    Flush,
    /// The same by the kernel itself: it fails as soon as it is asked for, and whoever has asked is told
    /// later.
    #[cfg(feature = "testing")]
    Queued,
    /// Bytes read from the device: it holds others.
    Compare,
}

#[cfg(feature = "testing")]
fn may(dir: &Path, file: RankFile, step: Step) -> Result<()> {
    tape::may(dir, file, step)
}

#[cfg(not(feature = "testing"))]
#[inline(always)]
fn may(_dir: &Path, _file: RankFile, _step: Step) -> Result<()> {
    Ok(())
}

macro_rules! note {
    ($event:expr) => {
        #[cfg(feature = "testing")]
        $event
    };
}

/// Before bytes are stored into a file by other means than [`write`].
#[inline(always)]
pub(crate) fn storing(dir: &Path, file: RankFile) -> Result<()> {
    may(dir, file, Step::Write)
}

/// After bytes were stored into a file by other means than [`write`].
#[inline(always)]
pub(crate) fn stored(dir: &Path, file: RankFile, off: u64, len: u64) {
    note!(tape::stored(dir, file, off, len));
    #[cfg(not(feature = "testing"))]
    let _: (&Path, RankFile, u64, u64) = (dir, file, off, len);
}

/// Opens a file of a rank, made if it does not exist.
pub(crate) fn create(dir: &Path, file: RankFile, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let path = dir.join(file.name());
    let opened = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(errno)?;
    note!(tape::created(dir, file, flags.contains(OFlags::TRUNC)));
    Ok(opened)
}

/// Opens a file of a rank that exists.
pub(crate) fn open(dir: &Path, file: RankFile) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(dir.join(file.name()), flags, Mode::empty()).map_err(errno)
}

/// Writes all of `bytes`.
pub(crate) fn write(
    fd: &OwnedFd,
    dir: &Path,
    file: RankFile,
    bytes: &[u8],
    off: u64,
) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        may(dir, file, Step::Write)?;
        let at = off + done as u64;
        let pwrite = || rustix::io::pwrite(fd, &bytes[done..], at);
        let wrote = exempt(|| rustix::io::retry_on_intr(pwrite).map_err(errno))?;
        if wrote == 0 {
            return Err(Errno::EIO);
        }
        stored(dir, file, off + done as u64, wrote as u64);
        done += wrote;
    }
    Ok(())
}

/// Cuts a file, or extends it without giving space.
pub(crate) fn resize(fd: &OwnedFd, dir: &Path, file: RankFile, size: u64) -> Result<()> {
    may(dir, file, Step::Write)?;
    exempt(|| rustix::fs::ftruncate(fd, size).map_err(errno))?;
    note!(tape::resized(dir, file, size));
    Ok(())
}

/// Gives space to `len` bytes from `off`, and extends the file to hold them.
pub(crate) fn allocate(fd: &OwnedFd, dir: &Path, file: RankFile, off: u64, len: u64) -> Result<()> {
    may(dir, file, Step::Allocate)?;
    let grow = || rustix::fs::fallocate(fd, FallocateFlags::empty(), off, len);
    exempt(|| rustix::io::retry_on_intr(grow).map_err(errno))?;
    note!(tape::allocated(dir, file, off + len));
    Ok(())
}

/// Brings what was written to the device, and the size of the file. Should that fail, the kernel
/// may forget that what is in memory is not on the device.
pub(crate) fn flush(fd: &OwnedFd, dir: &Path, file: RankFile) -> Result<()> {
    #[cfg(feature = "testing")]
    let number = tape::flush_number();
    let flush = || {
        may(dir, file, Step::Flush)?;
        note!(tape::flushing(dir, file, number));
        rustix::io::retry_on_intr(|| rustix::fs::fdatasync(fd)).map_err(errno)
    };
    let flushed = flush();
    if flushed.is_ok() {
        note!(tape::flushed(dir, file, number));
    } else {
        note!(tape::flush_failed(dir, file, number));
    }
    flushed
}

/// Has the kernel bring what was written to the device, and the size of the file; the event in `queue`
/// that brings `data` back is to be reported with [`flushed`].
pub(crate) fn queue_flush(
    queue: queue::Queue,
    fd: &OwnedFd,
    dir: &Path,
    file: RankFile,
    data: u64,
) -> Result<()> {
    may(dir, file, Step::Flush)?;
    note!(tape::flushing(dir, file, tape::queued_number(data)));
    queue.flush(fd, false, data)?;
    note!(tape::queued(dir, file, data));
    Ok(())
}

/// What came of [`queue_flush`] with `data`, of which the kernel says `told`.
#[cfg(feature = "testing")]
pub(crate) fn outcome(data: u64, told: Result<()>) -> Result<()> {
    told.and_then(|()| tape::outcome(data))
}

/// What came of [`queue_flush`], of which the kernel says `told`.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) fn outcome(_data: u64, told: Result<()>) -> Result<()> {
    told
}

/// Before a file is compared with its device.
pub(crate) fn comparing(dir: &Path, file: RankFile) -> Result<()> {
    may(dir, file, Step::Compare)
}

/// What was asked of [`queue_flush`] with `data` is done.
pub(crate) fn flushed(dir: &Path, file: RankFile, data: u64) {
    note!(tape::flushed(dir, file, tape::queued_number(data)));
    #[cfg(not(feature = "testing"))]
    let _: (&Path, RankFile, u64) = (dir, file, data);
}

/// What was asked of [`queue_flush`] with `data` has failed.
pub(crate) fn flush_failed(dir: &Path, file: RankFile, data: u64) {
    note!(tape::flush_failed(dir, file, tape::queued_number(data)));
    #[cfg(not(feature = "testing"))]
    let _: (&Path, RankFile, u64) = (dir, file, data);
}

/// Has the kernel bring the names in a rank's directory to the device; as [`queue_flush`], to be
/// reported with [`names_flushed`].
pub(crate) fn queue_names(queue: queue::Queue, dir: &Path, data: u64) -> Result<()> {
    note!(tape::flushing_names(dir, tape::queued_number(data)));
    queue.flush(&open_dir(dir)?, true, data)
}

/// What was asked of [`queue_names`] with `data` is done.
pub(crate) fn names_flushed(dir: &Path, data: u64) {
    note!(tape::names_flushed(dir, tape::queued_number(data)));
    #[cfg(not(feature = "testing"))]
    let _: (&Path, u64) = (dir, data);
}

fn open_dir(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).map_err(errno)
}

/// Brings what was written to the device's own memory: safe once something else on the same device
/// is flushed, for bytes that lay in the file before.
pub(crate) fn write_out(fd: &OwnedFd, dir: &Path, file: RankFile) -> Result<()> {
    /// Wait for what is under way, write, wait for that.
    const ALL: usize = 7;
    may(dir, file, Step::Flush)?;
    sync_file_range(fd, 0, 0, ALL)
}

/// Begins to bring what was written to a file to its device, without waiting.
/// Nothing depends on it: whoever needs it there flushes.
pub(crate) fn begin_flush(fd: &OwnedFd) {
    begin_flush_of(fd, 0, 0);
}

/// The same for `len` bytes from `off`; 0 = all that follow.
pub(crate) fn begin_flush_of(fd: &OwnedFd, off: u64, len: u64) {
    const WRITE: usize = 2;
    sync_file_range(fd, off, len, WRITE).unwrap_or_default();
}

/// `sync_file_range(2)`.
fn sync_file_range(fd: &OwnedFd, off: u64, len: u64, how: usize) -> Result<()> {
    const NUMBER: usize = if cfg!(target_arch = "x86_64") {
        277
    } else {
        84
    };
    // SAFETY: the descriptor is open, and the call touches no memory.
    unsafe { sys::syscall!(NUMBER, fd.as_raw_fd(), off, len, how) }.map(|_| ())
}

/// Brings the names in a rank's directory to the device.
pub(crate) fn flush_names(dir: &Path) -> Result<()> {
    #[cfg(feature = "testing")]
    let number = tape::flush_number();
    note!(tape::flushing_names(dir, number));
    rustix::fs::fsync(&open_dir(dir)?).map_err(errno)?;
    note!(tape::names_flushed(dir, number));
    Ok(())
}

/// Gives a file another name, in place of the file that had it.
pub(crate) fn rename(dir: &Path, from: RankFile, to: RankFile) -> Result<()> {
    rustix::fs::rename(dir.join(from.name()), dir.join(to.name())).map_err(errno)?;
    note!(tape::renamed(dir, from, to));
    Ok(())
}
