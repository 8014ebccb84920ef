//! Limits of the process that concern us. `RLIMIT_FSIZE`: the largest file it may write, kept as
//! `setrlimit(2)` sets it. `RLIMIT_AS`: the pool then takes no more address space than it uses.

use crate::abi::nr;
use crate::kernel::{self, addr_mut, call};
use crate::mounts;
use dfs::{Dfs, Ino};
use sys::{Errno, Result, file_limit};

const RLIMIT_FSIZE: u32 = 1;
const RLIMIT_AS: u32 = 9;

/// Whether [`learn`] has to see a change of this limit.
pub(crate) fn concerns(resource: u32) -> bool {
    matches!(resource, RLIMIT_FSIZE | RLIMIT_AS)
}

/// Asks the kernel; at start and whenever the program may have changed them.
pub(crate) fn learn() {
    file_limit::learn();
    if let Some(fs) = mounts::attached()
        && soft(RLIMIT_AS as usize).is_some_and(|limit| limit != u64::MAX)
    {
        // Kept reserved if another thread is just growing it.
        let _shrunk = fs.pool().release_address_space();
    }
}

fn soft(which: usize) -> Option<u64> {
    let mut pair = [u64::MAX; 2];
    call!(nr::PRLIMIT64, 0, which, 0, addr_mut(&mut pair)).ok()?;
    Some(pair[0])
}

/// The largest file the program may write, if there is a limit.
#[inline]
pub(crate) fn file_size() -> Option<u64> {
    file_limit::get()
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
