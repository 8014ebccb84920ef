//! A file that a program runs from is not written, and one that is open for writing is not run
//! (`execve(2)`, `open(2)`, `truncate(2)`: `ETXTBSY`).
//!
//! Both are descriptions, counted in [`word::BUSY`] of the inode by the transactions that make and
//! free them, so that death, fork and exec are settled as with any other; private ones that may write
//! are found by who runs a program (`private`). That of a program has no descriptor: the process that
//! execs holds it, and its next image keeps it.

use super::dead::TRIES;
use super::holds::{self, State};
use super::{Open, PROGRAM, flag};
use crate::inode::{self, high, low, pair, word};
use crate::{Cred, Dfs, Ino, Ofd};
use engine::Tx;
use sys::{Errno, Result};

/// What a description is there for, as far as it keeps others out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Keeps nobody out.
    Read,
    /// Keeps nobody out, but may not be opened while a program runs: it truncates.
    Cut,
    /// May write.
    Write,
    /// A program runs from the file.
    Run,
}

impl Purpose {
    pub(super) fn new(flags: u32, opener: u32) -> Purpose {
        if opener & PROGRAM != 0 {
            return Purpose::Run;
        }
        match flags & (flag::ACCMODE | flag::PATH) {
            flag::WRONLY | flag::RDWR => Purpose::Write,
            0 if flags & flag::TRUNC != 0 => Purpose::Cut,
            _ => Purpose::Read,
        }
    }

    /// Whether a description opened for `self` keeps one for `other` from being opened.
    fn keeps_out(self, other: Purpose) -> bool {
        matches!(
            (self, other),
            (Purpose::Run, Purpose::Write | Purpose::Cut) | (Purpose::Write, Purpose::Run)
        )
    }

    /// Counts a description in the inode at `base`: `ETXTBSY` if one there keeps it out.
    pub(super) fn begin(self, tx: &mut Tx<'_>, base: u64) -> Result<()> {
        let busy = tx.load(inode::at(base, word::BUSY))?;
        match self {
            Purpose::Cut | Purpose::Write if low(busy) != 0 => Err(Errno::ETXTBSY),
            Purpose::Run if high(busy) != 0 => Err(Errno::ETXTBSY),
            _ => self.count(tx, base),
        }
    }

    /// Counts one that is there already.
    pub(super) fn count(self, tx: &mut Tx<'_>, base: u64) -> Result<()> {
        let more = match self {
            Purpose::Read | Purpose::Cut => return Ok(()),
            Purpose::Write => pair(1, 0),
            Purpose::Run => pair(0, 1),
        };
        let at = inode::at(base, word::BUSY);
        let busy = tx.load(at)?;
        tx.set_volatile(at, busy + more)
    }

    /// The opposite of [`Purpose::begin`], when the description is freed.
    pub(super) fn end(self, tx: &mut Tx<'_>, base: u64) -> Result<()> {
        let at = inode::at(base, word::BUSY);
        let less = match self {
            Purpose::Read | Purpose::Cut => return Ok(()),
            Purpose::Write => |busy| pair(high(busy).saturating_sub(1), low(busy)),
            Purpose::Run => |busy| pair(high(busy), low(busy).saturating_sub(1)),
        };
        let busy = tx.load(at)?;
        tx.set_volatile(at, less(busy))
    }
}

impl Open<'_> {
    /// What the description is there for.
    pub(super) fn purpose(&self) -> Purpose {
        Purpose::new(self.flags, self.opener)
    }
}

impl Dfs {
    /// Opens a regular file that the calling process is about to run: it may be read through the
    /// description, and until that is let go nobody opens the file for writing. `ETXTBSY` if
    /// somebody has it open for writing. Whether the caller may execute it is not looked at.
    pub fn open_program(&self, ino: Ino) -> Result<Ofd> {
        if !inode::is_file(inode::Guard::of(self.pool, ino)?.mode) {
            return Err(Errno::EACCES);
        }
        let anybody = Cred {
            uid: 0,
            gid: 0,
            groups: &[],
            privileged: false,
            umask: 0,
        };
        self.open_checked(&anybody, ino, 0, PROGRAM)
    }

    /// The description of [`Dfs::open_program`] that the calling process's former image has left
    /// it, if any.
    pub fn program_held(&self) -> Result<Option<Ofd>> {
        let slot = self.process_slot()?;
        let mut held = None;
        holds::for_each(self.pool, slot, |ofd, state| {
            if state == State::Held
                && self
                    .description(ofd)
                    .is_ok_and(|o| o.purpose() == Purpose::Run)
            {
                held = Some(ofd);
            }
            Ok(())
        })?;
        Ok(held)
    }

    /// `ETXTBSY` if a program runs from the file.
    pub(crate) fn check_not_run(&self, ino: Ino) -> Result<()> {
        for _ in 0..TRIES {
            let base = inode::locate(self.pool, ino)?;
            let busy = self.pool.load(inode::at(base, word::BUSY))?;
            if low(busy) == 0 {
                return Ok(());
            }
            if !self.settle_dead_users(ino, Purpose::Cut)? {
                break;
            }
        }
        Err(Errno::ETXTBSY)
    }

    /// Settles the affairs of dead processes whose descriptions keep one for `purpose` out; false
    /// if somebody lives who keeps it out.
    #[cold]
    pub(super) fn settle_dead_users(&self, ino: Ino, purpose: Purpose) -> Result<bool> {
        self.settle_dead(|slot| self.keeps_out(slot, ino, purpose))
    }

    /// Whether the process in `slot` has a description of the file that keeps one for `purpose` out,
    /// and if it has several, what comes first of: held, deferred, waiting.
    fn keeps_out(&self, slot: u32, ino: Ino, purpose: Purpose) -> Result<Option<State>> {
        let mut found = None;
        holds::for_each(self.pool, slot, |ofd, state| {
            let keeps = self
                .description(ofd)
                .is_ok_and(|open| open.ino == ino && open.purpose().keeps_out(purpose));
            if keeps && found.is_none_or(|before| state < before) {
                found = Some(state);
            }
            Ok(())
        })?;
        Ok(found)
    }
}
