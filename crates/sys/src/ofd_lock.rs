//! Locks of open file descriptions (`fcntl(2)`, "Open file description locks").

use crate::{Errno, Result, syscall};

const SYS_FCNTL: usize = if cfg!(target_arch = "x86_64") { 72 } else { 25 };

/// What is asked for.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Command {
    /// `F_OFD_GETLK`: finds a lock that is in the way.
    Get = 36,
    /// `F_OFD_SETLK`: `EAGAIN` if one is in the way.
    Set = 37,
    /// `F_OFD_SETLKW`: waits.
    SetWait = 38,
}

/// `F_RDLCK`.
pub const READ: i16 = 0;
/// `F_WRLCK`.
pub const WRITE: i16 = 1;
/// `F_UNLCK`.
pub const UNLOCK: i16 = 2;

/// `struct flock` of the 64-bit Linux ABI.
#[repr(C)]
pub struct Flock {
    /// [`READ`], [`WRITE`] or [`UNLOCK`].
    pub kind: i16,
    whence: i16,
    /// First byte.
    pub start: i64,
    len: i64,
    pid: i32,
}

/// Asks for `len` bytes from `start` of the file of `fd`; what the kernel answers. Errors as of
/// `fcntl(2)`, without `EINTR`.
pub fn lock(fd: i32, command: Command, kind: i16, start: i64, len: i64) -> Result<Flock> {
    let mut lock = Flock {
        kind,
        whence: 0,
        start,
        len,
        pid: 0,
    };
    loop {
        // SAFETY: the structure outlives the call, which uses no other memory.
        match unsafe { syscall!(SYS_FCNTL, fd, command as usize, &raw mut lock) } {
            Ok(_) => return Ok(lock),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}
