//! The kernel side of our descriptors.
//!
//! Every descriptor of a file in the mount is a real kernel descriptor on a sealed, empty memfd
//! named after the container, open for writing only: a call that escapes interception fails
//! (`EBADF`, `EPERM`, `ENOTDIR`, `EACCES`) instead of losing data. A *published* one is a `struct
//! file` of its own whose offset is the number of the open file description plus one, below its generation; what else a
//! process opens shares one `struct file` with offset 0 (a dup costs 0.25 us, a reopen 1.2 us) and is published
//! before anything that leaves this process's memory can look at them: exec, vfork, SCM_RIGHTS.

use crate::abi::{self, nr};
use crate::kernel::{self, addr, addr_mut, call, text};
use crate::mounts;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use dfs::{Dfs, Ofd};
use sys::{Errno, Result, own_fd};

const NAME: &[u8] = b"/memfd:daos-ofd-";
const F_GETFD: usize = 1;
const F_DUPFD_CLOEXEC: usize = 1030;
const F_ADD_SEALS: usize = 1033;
const ALL_SEALS: usize = 0xf;
const MFD_CLOEXEC: usize = 1;
const MFD_ALLOW_SEALING: usize = 2;
/// Bits of a description's generation in an offset, which is not negative.
const GENERATION: u32 = u32::MAX >> 1;
/// The number of no description: calls on it answer `EBADF`.
pub(crate) const NONE: Ofd = Ofd(0);
const SEEK_SET: usize = 0;
const SEEK_CUR: usize = 1;

/// The descriptor all unpublished ones are copies of; -1 before the first.
static BASE: AtomicI32 = AtomicI32::new(-1);
/// Its `struct file` is the parent's too: each open and close would take the line of its count from
/// the other's processor.
static SHARED: AtomicBool = AtomicBool::new(false);
/// Inodes of memfds seen to be placeholders of our container, so that a name is read only once.
static KNOWN: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

fn make() -> Result<i32> {
    let name = text!(40, "daos-ofd-{:x}", mounts::id());
    let flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    let name = addr(name.c_str().to_bytes_with_nul());
    let memory = call!(nr::MEMFD_CREATE, name, flags)? as i32;
    let sealed = call!(nr::FCNTL, memory, F_ADD_SEALS, ALL_SEALS);
    let reopened = sealed.and_then(|_| reopen(memory));
    kernel::close(memory);
    reopened
}

fn reopen(fd: i32) -> Result<i32> {
    kernel::open(
        text!(40, "/proc/self/fd/{fd}").c_str(),
        abi::O_WRONLY | abi::O_CLOEXEC,
    )
}

fn base() -> Result<i32> {
    let known = BASE.load(Ordering::Acquire);
    if known >= 0 {
        if SHARED.load(Ordering::Relaxed) {
            part_from_parent(known);
        }
        return Ok(known);
    }
    let made = own_fd::keep(make()?)?;
    match BASE.compare_exchange(-1, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(made),
        Err(other) => {
            own_fd::close(made);
            Ok(other)
        }
    }
}

/// In the child of a fork.
pub(crate) fn after_fork() {
    SHARED.store(BASE.load(Ordering::Relaxed) >= 0, Ordering::Relaxed);
}

/// Puts a `struct file` of this process behind `base`. Without it everything works as well.
#[cold]
fn part_from_parent(base: i32) {
    // The number is the parent's there, and so is what this changes.
    if intercept::in_vfork_child() || !SHARED.swap(false, Ordering::Relaxed) {
        return;
    }
    if let Ok(own) = reopen(base) {
        let moved = call!(nr::DUP3, own, base, abi::O_CLOEXEC);
        debug_assert!(moved.is_ok());
        kernel::close(own);
    }
}

/// A new descriptor, the lowest free number, that says nothing yet.
pub(crate) fn fresh(cloexec: bool) -> Result<i32> {
    if !intercept::in_vfork_child() {
        return copy(base()?, cloexec);
    }
    // The number is the parent's: the child may have closed what it has there.
    match BASE.load(Ordering::Acquire) {
        known if known >= 0 && is_base(known) => copy(known, cloexec),
        _ => {
            let own = make()?;
            let fd = copy(own, cloexec);
            kernel::close(own);
            fd
        }
    }
}

/// Whether a descriptor is one that says nothing yet.
fn is_base(fd: i32) -> bool {
    look(fd, mounts::id()).is_some() && position(fd) == Some(0)
}

/// A copy of `base`, the lowest free number.
fn copy(base: i32, cloexec: bool) -> Result<i32> {
    let fd = match cloexec {
        true => call!(nr::FCNTL, base, F_DUPFD_CLOEXEC, 0)?,
        false => call!(nr::DUP, base)?,
    };
    Ok(fd as i32)
}

/// Writes the number of its description into descriptor `fd`, which keeps its close-on-exec flag.
pub(crate) fn publish(fd: i32, ofd: Ofd) -> Result<()> {
    let fs = mounts::attached().ok_or(Errno::EBADF)?;
    let generation = fs.ofd_generation(ofd)? & GENERATION;
    let own = reopen(fd)?;
    let named = name_it(
        own,
        fd,
        u64::from(generation) << 32 | (u64::from(ofd.0) + 1),
    );
    kernel::close(own);
    named
}

fn name_it(own: i32, fd: i32, position: u64) -> Result<()> {
    call!(nr::LSEEK, own, position, SEEK_SET)?;
    let flags = call!(nr::FCNTL, fd, F_GETFD)?;
    let cloexec = if flags & 1 != 0 { abi::O_CLOEXEC } else { 0 };
    call!(nr::DUP3, own, fd, cloexec).map(drop)
}

/// The description behind a descriptor of unknown origin, if it is a published placeholder of any
/// container. Three cheap looks; most descriptors fail the first.
pub(crate) fn identify(fd: i32) -> Option<Ofd> {
    identify_in(fd, mounts::id())
}

/// The same for the container with this number; 0 = any.
pub(crate) fn identify_in(fd: i32, container: u64) -> Option<Ofd> {
    look(fd, container)?;
    let position = position(fd)?;
    let ofd = Ofd((position as u32).checked_sub(1)?);
    match mounts::attached() {
        Some(fs) if !is_of(fs, ofd, position) => Some(NONE),
        _ => Some(ofd),
    }
}

/// Whether the descriptor of a placeholder says what is still true in the container being attached.
pub(crate) fn is_current(fd: i32, fs: &Dfs) -> bool {
    position(fd).is_some_and(|position| {
        let ofd = (position as u32).checked_sub(1).map(Ofd);
        ofd.is_some_and(|ofd| is_of(fs, ofd, position))
    })
}

/// A program without the library may have kept a descriptor for longer than anybody has held what it
/// meant, and the number is another's now.
fn is_of(fs: &Dfs, ofd: Ofd, position: usize) -> bool {
    let generation = fs.ofd_generation(ofd);
    generation.is_ok_and(|generation| generation & GENERATION == (position >> 32) as u32)
}

fn position(fd: i32) -> Option<usize> {
    call!(nr::LSEEK, fd, 0, SEEK_CUR).ok()
}

/// Something if a descriptor is a placeholder of the container with this number; 0 = of any.
fn look(fd: i32, container: u64) -> Option<()> {
    let mut stat = abi::Stat::default();
    call!(nr::FSTAT, fd, addr_mut(&mut stat)).ok()?;
    if stat.nlink != 0 || stat.size != 0 || stat.mode & abi::S_IFMT != abi::S_IFREG {
        return None;
    }
    if !KNOWN.iter().any(|k| k.load(Ordering::Relaxed) == stat.ino) {
        let mut buffer = [0u8; 80];
        let link = kernel::readlink(text!(40, "/proc/self/fd/{fd}").c_str(), &mut buffer).ok()?;
        let rest = link.strip_prefix(NAME)?;
        let id = rest.split(|&b| !b.is_ascii_hexdigit()).next()?;
        let id = u64::from_str_radix(core::str::from_utf8(id).ok()?, 16).ok()?;
        if container != 0 {
            if id != container {
                return None;
            }
            remember(stat.ino);
        }
    }
    Some(())
}

fn remember(ino: u64) {
    for slot in &KNOWN {
        if slot
            .compare_exchange(0, ino, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            return;
        }
    }
}

/// Error for a call on one of the library's own descriptors: to the program they do not exist.
pub(crate) const HIDDEN: Errno = Errno::EBADF;
