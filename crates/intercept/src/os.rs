//! The few system calls this crate makes for itself, with descriptors that close themselves.

use crate::nr;
use core::ffi::CStr;
use sys::{Errno, Result, syscall};

pub(crate) const PAGE: usize = 4096;
pub(crate) const PROT_READ: usize = 1;
pub(crate) const PROT_WRITE: usize = 2;
pub(crate) const PROT_EXEC: usize = 4;
pub(crate) const MAP_PRIVATE: usize = 0x02;
pub(crate) const MAP_FIXED: usize = 0x10;
pub(crate) const MAP_ANONYMOUS: usize = 0x20;
pub(crate) const MAP_NORESERVE: usize = 0x4000;
pub(crate) const MAP_FIXED_NOREPLACE: usize = 0x10_0000;
pub(crate) const O_WRONLY: usize = 1;
pub(crate) const O_CREAT: usize = 0o100;
pub(crate) const O_EXCL: usize = 0o200;
pub(crate) const O_DIRECTORY: usize = 0o200_000;
pub(crate) const O_NOFOLLOW: usize = 0o400_000;
pub(crate) const O_CLOEXEC: usize = 0o2_000_000;
/// `AT_FDCWD` as a register value.
pub(crate) const CWD: usize = -100isize as usize;

/// A descriptor of this crate's own, never left open beyond a function.
pub(crate) struct Fd(usize);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is owned and used by nobody else.
        let closed = unsafe { syscall!(nr::CLOSE, self.0) };
        debug_assert!(closed.is_ok());
    }
}

/// What `fstat` says, as far as it matters here.
pub(crate) struct Stat {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) size: u64,
}

impl Fd {
    pub(crate) fn raw(&self) -> usize {
        self.0
    }

    /// `openat(2)` relative to `dir`, or to the working directory.
    pub(crate) fn open(dir: Option<&Fd>, path: &CStr, flags: usize, mode: usize) -> Result<Fd> {
        let at = dir.map_or(CWD, |fd| fd.0);
        // SAFETY: the path is terminated and outlives the call.
        unsafe { syscall!(nr::OPENAT, at, path.as_ptr(), flags | O_CLOEXEC, mode) }.map(Fd)
    }

    /// A memory file; without the right to execute it as a program where the kernel knows that.
    pub(crate) fn memory(name: &CStr) -> Result<Fd> {
        const MFD_CLOEXEC: usize = 1;
        const MFD_NOEXEC_SEAL: usize = 8;
        // SAFETY: the name is terminated and outlives the calls.
        unsafe {
            syscall!(
                nr::MEMFD_CREATE,
                name.as_ptr(),
                MFD_CLOEXEC | MFD_NOEXEC_SEAL
            )
            .or_else(|_| syscall!(nr::MEMFD_CREATE, name.as_ptr(), MFD_CLOEXEC))
        }
        .map(Fd)
    }

    pub(crate) fn stat(&self) -> Result<Stat> {
        let mut raw = [0u64; 18];
        // SAFETY: the buffer has the 144 bytes of the kernel's struct stat.
        unsafe { syscall!(nr::FSTAT, self.0, raw.as_mut_ptr())? };
        Ok(Stat {
            mode: raw[3] as u32,
            uid: (raw[3] >> 32) as u32,
            size: raw[6],
        })
    }

    /// Device, inode, size and time of last change, in nanoseconds.
    pub(crate) fn identity(&self) -> Result<[u64; 4]> {
        let mut raw = [0u64; 18];
        // SAFETY: as in `stat`.
        unsafe { syscall!(nr::FSTAT, self.0, raw.as_mut_ptr())? };
        let changed = raw[13].wrapping_mul(1_000_000_000).wrapping_add(raw[14]);
        Ok([raw[0], raw[1], raw[6], changed])
    }

    /// Is there a file `name` in this directory?
    pub(crate) fn has(&self, name: &CStr) -> bool {
        // SAFETY: the name is terminated and outlives the call.
        unsafe { syscall!(nr::FACCESSAT, self.0, name.as_ptr(), 0) }.is_ok()
    }

    /// Writes all of `bytes` to an empty file.
    pub(crate) fn write_all(&self, mut bytes: &[u8]) -> Result<()> {
        const RLIMIT_FSIZE: usize = 1;
        let mut limit = [u64::MAX; 2];
        // Beyond this limit a write would raise SIGXFSZ, which ends the program.
        // SAFETY: the buffer has the two words of struct rlimit64.
        unsafe { syscall!(nr::PRLIMIT64, 0, RLIMIT_FSIZE, 0, limit.as_mut_ptr())? };
        if limit[0] < bytes.len() as u64 {
            return Err(Errno::EFBIG);
        }
        while !bytes.is_empty() {
            // SAFETY: the buffer is valid for its length.
            match unsafe { syscall!(nr::WRITE, self.0, bytes.as_ptr(), bytes.len()) } {
                Ok(0) => return Err(Errno::EIO),
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<()> {
        // SAFETY: acts on an owned descriptor only.
        unsafe { syscall!(nr::FDATASYNC, self.0) }.map(drop)
    }
}

/// `mmap(2)`.
///
/// # Safety
/// With `MAP_FIXED` the range must be the caller's to replace.
pub(crate) unsafe fn map(
    address: usize,
    len: usize,
    prot: usize,
    flags: usize,
    file: Option<(&Fd, usize)>,
) -> Result<usize> {
    let (fd, offset) = file.map_or((usize::MAX, 0), |(fd, offset)| (fd.0, offset));
    // SAFETY: passed on.
    let got = unsafe { syscall!(nr::MMAP, address, len, prot, flags, fd, offset) }?;
    if flags & MAP_FIXED_NOREPLACE != 0 && got != address {
        // A kernel before 4.17 took the address as a hint.
        // SAFETY: just mapped and used by nobody.
        unsafe { unmap(got, len) };
        return Err(Errno::EEXIST);
    }
    Ok(got)
}

/// `munmap(2)`; a failure leaves the mapping, which harms nobody.
///
/// # Safety
/// Nothing may use the range any more.
pub(crate) unsafe fn unmap(address: usize, len: usize) {
    // SAFETY: passed on.
    let done = unsafe { syscall!(nr::MUNMAP, address, len) };
    debug_assert!(done.is_ok());
}

/// Private anonymous memory, readable and writable.
pub(crate) fn anonymous(len: usize) -> Result<usize> {
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    unsafe {
        map(
            0,
            len,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
            None,
        )
    }
}

/// Entries of the auxiliary vector as the kernel made it (`getauxval(3)`).
pub(crate) fn auxiliary<const N: usize>(kinds: [usize; N]) -> Option<[usize; N]> {
    const PR_GET_AUXV: usize = 0x4155_5856;
    let mut words = [0usize; 128];
    let len = size_of_val(&words);
    // SAFETY: the buffer is valid for its length.
    let got = unsafe {
        syscall!(nr::PRCTL, PR_GET_AUXV, words.as_mut_ptr(), len, 0, 0).or_else(|_| {
            let file = Fd::open(None, c"/proc/self/auxv", 0, 0)?;
            syscall!(nr::READ, file.0, words.as_mut_ptr(), len)
        })
    };
    got.ok()?;
    let find = |kind| {
        words
            .chunks_exact(2)
            .find(|pair| pair[0] == kind)
            .map(|pair| pair[1])
    };
    let mut values = [0; N];
    for (value, kind) in values.iter_mut().zip(kinds) {
        *value = find(kind)?;
    }
    Some(values)
}

pub(crate) fn getpid() -> u32 {
    // SAFETY: no arguments.
    unsafe { syscall!(nr::GETPID) }.unwrap_or(0) as u32
}

pub(crate) fn gettid() -> u32 {
    // SAFETY: no arguments.
    unsafe { syscall!(nr::GETTID) }.unwrap_or(0) as u32
}

pub(crate) fn geteuid() -> u32 {
    // SAFETY: no arguments.
    unsafe { syscall!(nr::GETEUID) }.unwrap_or(u32::MAX as usize) as u32
}
