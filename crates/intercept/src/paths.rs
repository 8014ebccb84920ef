//! The cheap test of path calls: can this path lead into a mount at all?
//!
//! A table-driven automaton over the path's first bytes, run in the gate before anything is saved.
//! It follows the mounts' components and stops at the first byte that leaves all of them, so a
//! foreign path costs a few loads. Whatever it cannot judge from the beginning of the path ("."
//! and ".." and doubled slashes where a mount's component would begin) goes to the dispatcher.
//! What it cannot see at all, a symbolic link or a later "..", shows as `ENOENT` from the
//! kernel; such calls come to the dispatcher afterwards, see [`kernel_refused`].
//!
//! Without a [`Filter`], and while [`pass_all`] is on, every path call goes to the dispatcher.

use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// Next state: the kernel's.
const NATIVE: u8 = 0;
/// Next state: the dispatcher's.
const OURS: u8 = 1;
/// Index of the row in which a path begins, and of the one behind its first slash.
const START: usize = 0;
const ROOT: usize = 1;

/// Most rows a filter has; mounts whose paths need more make every path go to the dispatcher.
const ROWS: usize = 254;

/// Rows of the automaton; state `s` > 1 stands for row `s - 1`.
pub struct Filter {
    rows: [[AtomicU8; 256]; ROWS],
    used: AtomicUsize,
}

impl Default for Filter {
    fn default() -> Filter {
        Filter::new()
    }
}

impl Filter {
    /// A filter under which no path is ours.
    pub const fn new() -> Filter {
        Filter {
            rows: [const { [const { AtomicU8::new(NATIVE) }; 256] }; ROWS],
            used: AtomicUsize::new(0),
        }
    }

    /// For building only: what is read is about to be written, and a page that is read first
    /// faults twice.
    fn get(&self, row: usize, byte: u8) -> u8 {
        self.rows.get(row).map_or(OURS, |row| {
            row[usize::from(byte)].fetch_or(0, Ordering::Relaxed)
        })
    }

    fn set(&self, row: usize, byte: u8, state: u8) {
        if let Some(row) = self.rows.get(row) {
            row[usize::from(byte)].store(state, Ordering::Relaxed);
        }
    }

    fn new_row(&self) -> Option<usize> {
        let row = self.used.load(Ordering::Relaxed);
        (row < ROWS).then(|| {
            self.used.store(row + 1, Ordering::Relaxed);
            row
        })
    }

    /// A row in which a component begins.
    fn new_component(&self) -> Option<usize> {
        let row = self.new_row()?;
        self.set(row, b'.', OURS);
        self.set(row, b'/', OURS);
        Some(row)
    }

    fn prepare(&self) {
        if self.used.load(Ordering::Relaxed) == 0 {
            // START, where a relative path begins as well, and ROOT.
            self.new_component();
            self.new_component();
            self.set(START, b'/', ROOT as u8 + 1);
        }
    }

    /// Follows `name` from `row`; returns the row behind its last byte.
    fn follow(&self, mut row: usize, name: &[u8]) -> Option<usize> {
        for &byte in name {
            row = match self.get(row, byte) {
                OURS => return None,
                NATIVE => {
                    let next = self.new_row()?;
                    self.set(row, byte, next as u8 + 1);
                    next
                }
                state => usize::from(state) - 1,
            };
        }
        Some(row)
    }

    /// Lets paths through that lie at, below or on the way to the absolute path `mount` or that, being
    /// relative, begin with one of its components. False if the table is full, or `mount` is not a plain
    /// absolute path: the filter must then not be installed.
    ///
    /// To be called before [`install`] only.
    pub fn add(&self, mount: &[u8]) -> bool {
        self.prepare();
        let Some(rest) = mount.strip_prefix(b"/") else {
            return false;
        };
        let plain =
            |part: &&[u8]| !part.is_empty() && !part.starts_with(b".") && !part.contains(&0);
        let parts = || rest.split(|&b| b == b'/');
        if !parts().all(|part| plain(&part)) {
            return false;
        }
        self.add_absolute(parts().count(), parts()).is_some()
            && parts().all(|part| self.add_relative(part).is_some())
    }

    fn add_absolute<'a>(&self, count: usize, parts: impl Iterator<Item = &'a [u8]>) -> Option<()> {
        let mut row = ROOT;
        for (i, part) in parts.enumerate() {
            row = self.follow(row, part)?;
            if i + 1 == count {
                self.set(row, b'/', OURS);
                self.set(row, 0, OURS);
                break;
            }
            row = match self.get(row, b'/') {
                // Below another mount already.
                OURS => return Some(()),
                NATIVE => {
                    let next = self.new_component()?;
                    self.set(row, b'/', next as u8 + 1);
                    // A directory above the mount, which the kernel may not have.
                    self.set(row, 0, OURS);
                    self.set(next, 0, OURS);
                    next
                }
                state => usize::from(state) - 1,
            };
        }
        Some(())
    }

    fn add_relative(&self, part: &[u8]) -> Option<()> {
        let row = self.follow(START, part)?;
        self.set(row, b'/', OURS);
        self.set(row, 0, OURS);
        Some(())
    }

    /// What the automaton says about `path`: does it go to the dispatcher?
    pub fn is_ours(&self, path: &[u8]) -> bool {
        let mut row = START;
        for &byte in path.iter().chain([&0]) {
            match self.get(row, byte) {
                NATIVE => return false,
                OURS => return true,
                state => row = usize::from(state) - 1,
            }
        }
        false
    }
}

/// The rows in use, null while every path goes to the dispatcher. The gate reads it.
pub(crate) static ROWS_IN_USE: AtomicPtr<AtomicU8> = AtomicPtr::new(core::ptr::null_mut());
static INSTALLED: AtomicPtr<AtomicU8> = AtomicPtr::new(core::ptr::null_mut());
/// Not 0 when calls that failed with `ENOENT` come to the dispatcher. The gate reads it.
pub(crate) static RECHECK: AtomicU32 = AtomicU32::new(0);

/// Puts `filter` to work. With `recheck`, calls it passed to the kernel come to the dispatcher when
/// the kernel says `ENOENT`.
pub fn install(filter: &'static Filter, recheck: bool) {
    filter.prepare();
    let rows = filter.rows.as_ptr() as *mut AtomicU8;
    RECHECK.store(u32::from(recheck), Ordering::Release);
    INSTALLED.store(rows, Ordering::Release);
    ROWS_IN_USE.store(rows, Ordering::Release);
}

/// While on, every path call goes to the dispatcher: for a working directory inside a mount, where
/// any relative path is ours.
pub fn pass_all(on: bool) {
    let rows = if on {
        core::ptr::null_mut()
    } else {
        INSTALLED.load(Ordering::Acquire)
    };
    ROWS_IN_USE.store(rows, Ordering::Release);
}

/// In the dispatcher: has the kernel already refused this very call with `ENOENT`? Then running
/// it again brings nothing; either the path leads into a mount after all, or `ENOENT` it is.
pub fn kernel_refused() -> bool {
    crate::tls::block().refused.load(Ordering::Relaxed) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automaton_follows_mounts_by_component() {
        let filter = Filter::new();
        for mount in [
            &b"/pfs-demo"[..],
            b"/tmp/pool/cont",
            b"/tmp/pool2",
            b"/proc",
            b"/pfs",
        ] {
            assert!(filter.add(mount));
        }
        let ours: &[&[u8]] = &[
            b"/pfs-demo",
            b"/pfs-demo/",
            b"/pfs-demo/a/b",
            b"/pfs",
            b"/pfs/x",
            b"//pfs",
            b"/./pfs",
            b"/tmp/pool/cont",
            b"/tmp/pool/cont/x",
            b"/tmp",
            b"/tmp/",
            b"/tmp/pool",
            b"/tmp/pool/../pool/cont",
            b"/tmp//pool2",
            b"/tmp/pool2/y",
            b"/proc/self/fd/3",
            b"pool/cont",
            b"cont",
            b"../x",
            b".",
            b"pfs-demo/x",
        ];
        for path in ours {
            assert!(filter.is_ours(path), "{}", String::from_utf8_lossy(path));
        }
        let foreign: &[&[u8]] = &[
            b"",
            b"/",
            b"/usr/lib",
            b"/pf",
            b"/pfs-dem",
            b"/pfs-demos/x",
            b"/tmp/x",
            b"/tmp/pool/con",
            b"/tmp/pool3",
            b"x",
            b"pfsx",
            b"conto/r",
            b"/usr/../pfs",
        ];
        for path in foreign {
            assert!(!filter.is_ours(path), "{}", String::from_utf8_lossy(path));
        }
    }

    #[test]
    fn odd_mounts_are_refused() {
        for mount in [
            &b"/"[..],
            b"",
            b"pfs",
            b"/a//b",
            b"/a/../b",
            b"/a/.b",
            b"/a/",
        ] {
            assert!(
                !Filter::new().add(mount),
                "{}",
                String::from_utf8_lossy(mount)
            );
        }
        assert!(!Filter::new().add(&[b"/", &[b'a'; 300][..]].concat()));
    }
}
