//! `RLIMIT_FSIZE`: the largest file the process may write, kept as `setrlimit(2)` sets it.

use crate::abi::nr;
use crate::kernel::{self, addr_mut, call};
use core::sync::atomic::{AtomicU64, Ordering};
use dfs::{Dfs, Ino};
use sys::{Errno, Result};

static FILE_SIZE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Asks the kernel; at start and whenever the program may have changed it.
pub(crate) fn learn() {
    const RLIMIT_FSIZE: usize = 1;
    let mut pair = [u64::MAX; 2];
    if call!(nr::PRLIMIT64, 0, RLIMIT_FSIZE, 0, addr_mut(&mut pair)).is_ok() {
        FILE_SIZE.store(pair[0], Ordering::Relaxed);
    }
}

/// The limit, if there is one.
#[inline]
pub(crate) fn file_size() -> Option<u64> {
    let limit = FILE_SIZE.load(Ordering::Relaxed);
    (limit != u64::MAX).then_some(limit)
}

/// A file may not grow to `len` bytes: `SIGXFSZ` and `EFBIG` (`truncate(2)`). A file that is that
/// long already may be cut or stay.
pub(crate) fn check(len: u64, fs: &Dfs, ino: Ino) -> Result<()> {
    match file_size() {
        Some(limit) if len > limit && len > fs.stat(ino)?.size => Err(exceeded()),
        _ => Ok(()),
    }
}

/// Tells the program by its signal; returns the error.
#[cold]
pub(crate) fn exceeded() -> Errno {
    const SIGXFSZ: usize = 25;
    let (pid, tid) = (kernel::getpid() as usize, kernel::gettid() as usize);
    let _sent = kernel::raw(nr::TGKILL, [pid, tid, SIGXFSZ, 0, 0, 0]);
    Errno::EFBIG
}
