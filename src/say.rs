//! Messages to the person who runs the program: one line on stderr, each kind once per process.

use crate::abi::nr;
use crate::kernel::{self, addr};
use core::sync::atomic::{AtomicU32, Ordering};

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

/// Writes bytes to descriptor 2 whatever it is; a served file counts too.
pub(crate) fn to_stderr(bytes: &[u8]) {
    let mut call = intercept::Call { nr: nr::WRITE, args: [2, addr(bytes), bytes.len(), 0, 0, 0] };
    if !crate::files::is_ours(2) || crate::calls::data::write(&mut call).is_err() {
        let _lost = kernel::raw(nr::WRITE, call.args);
    }
}
