//! `D_IL_REPORT`: counts of served operations, printed at exit in the original library's words.

use crate::kernel::text;
use crate::say;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Operations that are counted, in the order of the summary.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Op {
    Read,
    Write,
    Open,
    Stat,
    Opendir,
    Readdir,
    Link,
    Unlink,
    Readlink,
    Seek,
    Mkdir,
    Rmdir,
    Rename,
    Mmap,
}

const COUNT: usize = Op::Mmap as usize + 1;
const NAMES: [&str; COUNT] = [
    "read   ", "write  ", "open   ", "stat   ", "opendir", "readdir", "link   ", "unlink ",
    "rdlink ", "seek   ", "mkdir  ", "rmdir  ", "rename ", "mmap   ",
];

static ON: AtomicBool = AtomicBool::new(false);
static COUNTS: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];

/// Asks for the summary.
pub(crate) fn enable() {
    ON.store(true, Ordering::Relaxed);
}

/// Counts one served operation; costs one test when no summary is wanted.
#[inline]
pub(crate) fn count(op: Op) {
    if ON.load(Ordering::Relaxed)
        && let Some(slot) = COUNTS.get(op as usize)
    {
        slot.fetch_add(1, Ordering::Relaxed);
    }
}

/// Prints the summary, once.
pub(crate) fn print() {
    if !ON.swap(false, Ordering::Relaxed) {
        return;
    }
    let counts: [u64; COUNT] = core::array::from_fn(|i| {
        COUNTS
            .get(i)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    });
    let sum: u64 = counts.iter().sum();
    let mut out = text!(1024, "libpil4dfs intercepting summary for ops on DFS:\n");
    for (index, (name, count)) in NAMES.iter().zip(counts).enumerate() {
        let gap = if index == Op::Write as usize || index == Op::Mmap as usize {
            "\n"
        } else {
            ""
        };
        let _cut = core::fmt::Write::write_fmt(&mut out, format_args!("[{name}]  {count}\n{gap}"));
    }
    let _cut = core::fmt::Write::write_fmt(&mut out, format_args!("[op_sum ]  {sum}\n"));
    say::to_stderr(out.bytes());
}
