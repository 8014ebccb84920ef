//! The file in the mount from which a program runs: nobody opens it for writing (execve(2):
//! `ETXTBSY`).
//!
//! The kernel runs a copy, so the file is held here: by a description without a descriptor, which the
//! process opens before the exec and its next image finds among what the process holds.

use crate::abi::{S_IFMT, S_IFREG};
use crate::exec::program_path;
use crate::{cred, mounts};
use core::sync::atomic::{AtomicU32, Ordering};
use dfs::{Dfs, Ino, IoVec, Ofd};
use sys::{Errno, Result};

/// A description under which a file is run, let go of unless an exec has succeeded.
pub(crate) struct Running {
    fs: &'static Dfs,
    ofd: Ofd,
}

impl Running {
    /// Checks that a file may be executed and that nobody has it open for writing.
    pub(crate) fn open(fs: &'static Dfs, ino: Ino) -> Result<Running> {
        const EXECUTE: u32 = 1;
        if fs.stat(ino)?.mode & S_IFMT != S_IFREG {
            return Err(Errno::EACCES);
        }
        fs.access(&cred::current(), ino, EXECUTE)?;
        let ofd = fs.open_program(ino)?;
        Ok(Running { fs, ofd })
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> Result<u64> {
        Ok(self.fs.stat(self.fs.ofd_info(self.ofd)?.ino)?.size)
    }

    /// Reads from the start of the file to `len` bytes at `to`, a buffer or mapping of ours.
    pub(crate) fn read(&self, to: usize, len: usize) -> Result<usize> {
        let mut done = 0;
        while done < len {
            let piece = [IoVec {
                base: (to + done) as *mut u8,
                len: len - done,
            }];
            // SAFETY: writes to memory of ours.
            match unsafe { self.fs.pread(self.ofd, &piece, done as i64) }? {
                0 => break,
                more => done += more,
            }
        }
        Ok(done)
    }

    /// Of a vfork child that has gone on: the description is its process's.
    pub(crate) fn leave(self) {
        core::mem::forget(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let outcome = self.fs.ofd_release(self.ofd);
        debug_assert!(outcome != Err(Errno::EFAULT));
    }
}

/// Description under which the calling image runs; 0 = none.
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// Before a fork or an exec: a program in the mount must have attached, since both concern what it
/// holds.
pub(crate) fn join() {
    if program_path().is_some() && mounts::fs().is_err() {
        // Said once; there is no mount then.
        RUNNING.store(0, Ordering::Relaxed);
    }
}

/// The container is being attached: what the exec that started this image held is its own.
pub(crate) fn attaching(fs: &Dfs) {
    if program_path().is_some()
        && let Ok(Some(ofd)) = fs.program_held()
    {
        RUNNING.store(ofd.0, Ordering::Relaxed);
    }
}

/// Description under which the calling image runs, for whoever has to hold it too.
pub(crate) fn held() -> Option<Ofd> {
    let ofd = RUNNING.load(Ordering::Relaxed);
    (ofd != 0).then_some(Ofd(ofd))
}

/// Before an exec: the image lets go of its file, since the next one may have no way to. What runs
/// is a copy, so nothing is lost if the exec fails and somebody has written to the file meanwhile.
pub(crate) fn let_go() -> Option<Ino> {
    if intercept::in_vfork_child() {
        return None;
    }
    join();
    let fs = mounts::attached()?;
    let ofd = Ofd(RUNNING.swap(0, Ordering::Relaxed));
    let ino = fs.ofd_info(ofd).ok()?.ino;
    fs.ofd_release(ofd).ok().map(|()| ino)
}

/// After an exec that failed.
pub(crate) fn take_back(ino: Ino) {
    if let Some(fs) = mounts::attached()
        && let Ok(ofd) = fs.open_program(ino)
    {
        RUNNING.store(ofd.0, Ordering::Relaxed);
    }
}
