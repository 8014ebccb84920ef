//! Messages to the person who runs the program: one line on stderr, each kind once per process.

use crate::abi::nr;
use crate::kernel::{self, addr};
use crate::{files, mounts};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use sys::{Errno, own_fd};

/// Things that are said at most once per process.
#[derive(Clone, Copy)]
pub(crate) enum Once {
    /// The configuration cannot be used; calls are passed through.
    Config = 1,
    /// The container cannot be reached; calls are passed through.
    Attach = 2,
    /// A handler failed internally.
    Internal = 4,
    /// The program could not be intercepted.
    FrontEnd = 8,
}

static SAID: AtomicU32 = AtomicU32::new(0);

/// Writes `libpil4dfs: <text>` to descriptor 2, once per kind; longer texts are cut at 500 bytes.
pub(crate) fn once(kind: Once, text: core::fmt::Arguments<'_>) {
    if SAID.fetch_or(kind as u32, Ordering::Relaxed) & kind as u32 != 0 {
        return;
    }
    let line = kernel::text!(512, "libpil4dfs: {text}\n");
    to_stderr(line.bytes());
}

/// Copy of descriptor 2 for the summary: many programs close theirs before they exit.
static KEPT: AtomicI32 = AtomicI32::new(-1);

/// Keeps a copy of descriptor 2, unless it is a file of ours.
pub(crate) fn keep_stderr() {
    if files::is_ours(2) {
        return;
    }
    const F_DUPFD_CLOEXEC: usize = 1030;
    let kept =
        kernel::call!(nr::FCNTL, 2, F_DUPFD_CLOEXEC, 3).and_then(|fd| own_fd::keep(fd as i32));
    KEPT.store(kept.unwrap_or(-1), Ordering::Relaxed);
}

/// Writes bytes to descriptor 2 whatever it is, a served file too; if it is closed, to the copy.
pub(crate) fn to_stderr(bytes: &[u8]) {
    let mut call = intercept::Call {
        nr: nr::WRITE,
        args: [2, addr(bytes), bytes.len(), 0, 0, 0],
    };
    // What cannot be attached cannot be written to: nor can it be said there.
    let served = files::is_ours(2) && mounts::attached().is_some();
    if served && crate::calls::data::write(&mut call).is_ok() {
        return;
    }
    let kept = KEPT.load(Ordering::Relaxed);
    if kernel::raw(nr::WRITE, call.args) == Errno::EBADF.as_ret() && kept >= 0 {
        call.args[0] = kept as usize;
        let _lost = kernel::raw(nr::WRITE, call.args);
    }
}
