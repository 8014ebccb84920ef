//! Descriptions on their way in messages (`SCM_RIGHTS`).
//!
//! A message keeps what was sent alive, also when its sender has ended; one that is never received
//! ends with its socket, and only the kernel knows when. So the sender locks a byte of the kernel's
//! file behind the descriptor with a lock of the kernel's description (`F_OFD_SETLK`), which is gone
//! when the last descriptor and the last message with it are. Who holds the description last looks:
//! if the lock is there, it goes on looking after the description (`holds`: waiting), and so does
//! whoever finds that process dead.

use super::{Open, field};
use crate::inode::{self, high, low, pair};
use crate::{Dfs, Ofd};
use engine::LockId;
use rustix::fs::{Mode, OFlags};
use sys::ofd_lock::{self, Command};
use sys::{Errno, Result};

/// Bytes that stand for one description in the kernel's file: its descriptors that do not share a
/// kernel's description lock one each.
const BYTES_LOG2: u32 = 16;
/// Descriptors sent of one description whose locks are tried for.
const TRIES: u64 = 64;
/// Bytes of the list of locks that the kernel gives at a time, nothing changing meanwhile.
const PART: usize = 4096;
/// Times the list is read before a lock is believed to be gone. From one part to the next the kernel
/// may leave out a lock when others go: each time the parts end somewhere else, so that no lock is
/// always the first of a part.
const READINGS: usize = 16;
/// Bytes from one such end to the next.
const CUTS_APART: usize = PART / READINGS;

fn first_byte(ofd: Ofd) -> u64 {
    (u64::from(ofd.0) + 1) << BYTES_LOG2
}

/// Locks a byte for `ofd` in the file of `fd`; false if that is not possible.
fn lock_byte(fd: i32, ofd: Ofd) -> bool {
    (0..TRIES).any(|try_at| {
        let byte = (first_byte(ofd) + try_at) as i64;
        ofd_lock::lock(fd, Command::Set, ofd_lock::WRITE, byte, 1).is_ok()
    })
}

/// Whether a message, or some program that does not say so, may have the description.
pub(super) fn is_under_way(open: &Open<'_>) -> Result<bool> {
    let inode = open.pool.load(open.at + field::SENT * 8)?;
    if inode == 0 {
        // Nobody can tell.
        return Ok(true);
    }
    for cut in 1..=READINGS {
        let Ok(list) = read_locks(cut * CUTS_APART) else {
            return Ok(true);
        };
        if lists(&list, inode, open.ofd) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `/proc/locks`, read up to the lock at `cut` bytes first.
fn read_locks(cut: usize) -> Result<Vec<u8>> {
    let errno = |error: rustix::io::Errno| Errno::new(error.raw_os_error());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/locks", flags, Mode::empty()).map_err(errno)?;
    let mut list = Vec::new();
    let mut part = vec![0u8; PART];
    let mut wanted = cut.min(PART);
    loop {
        let into = part.get_mut(..wanted).ok_or(Errno::EIO)?;
        match rustix::io::read(&file, into).map_err(errno)? {
            0 => return Ok(list),
            len => list.extend_from_slice(part.get(..len).ok_or(Errno::EIO)?),
        }
        wanted = PART;
    }
}

/// Whether a list like `/proc/locks` has a lock for `ofd` on the file with this inode number:
/// `1: OFDLCK ADVISORY  WRITE -1 00:01:1042 131072 131072`.
fn lists(list: &[u8], inode: u64, ofd: Ofd) -> bool {
    let number = |text: &[u8]| core::str::from_utf8(text).ok()?.parse::<u64>().ok();
    list.split(|&b| b == b'\n').any(|line| {
        let mut fields = line.split(|&b| b == b' ').filter(|f| !f.is_empty());
        fields.nth(1) == Some(b"OFDLCK")
            && fields
                .nth(3)
                .and_then(|f| number(f.rsplit(|&b| b == b':').next()?))
                == Some(inode)
            && fields.next().and_then(number).map(|at| at >> BYTES_LOG2)
                == Some(u64::from(ofd.0) + 1)
    })
}

impl Dfs {
    /// Notes that a description is about to be sent in a message (`SCM_RIGHTS`) by the kernel's
    /// descriptor `fd`, which no other description shares: it lives on until somebody has received
    /// it, or nobody can any more.
    pub fn ofd_sent(&self, ofd: Ofd, fd: i32) -> Result<()> {
        let open = self.description(ofd)?;
        self.share(&open)?;
        // SAFETY: only asked about.
        let file = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd) };
        let inode = match rustix::fs::fstat(file) {
            Ok(stat) if lock_byte(fd, ofd) => stat.st_ino,
            _ => 0,
        };
        let own = LockId::Target(self.pool.target_of(inode::record(open.ino)?)?);
        let mut tx = self.pool.tx(&[own])?;
        open.still()?;
        let at = open.at + field::HOLDS * 8;
        let counts = tx.load(at)?;
        tx.set_volatile(at, pair(high(counts), low(counts).saturating_add(1)))?;
        let sent_at = open.at + field::SENT * 8;
        let known = tx.load(sent_at)?;
        // One that nobody can tell about stays so.
        let inode = if low(counts) != 0 && known != inode {
            0
        } else {
            inode
        };
        tx.set_volatile(sent_at, inode)?;
        tx.commit().map(|_| ())
    }

    /// Notes that a description was not sent after all.
    pub fn ofd_unsent(&self, ofd: Ofd) -> Result<()> {
        let open = self.description(ofd)?;
        self.share(&open)?;
        let own = LockId::Target(self.pool.target_of(inode::record(open.ino)?)?);
        let mut tx = self.pool.tx(&[own])?;
        open.still()?;
        let at = open.at + field::HOLDS * 8;
        let counts = tx.load(at)?;
        tx.set_volatile(at, pair(high(counts), low(counts).saturating_sub(1)))?;
        tx.commit().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_found_in_the_list() {
        let list = b"1: FLOCK  ADVISORY  WRITE 733 00:18:1042 0 EOF\n\
            2: OFDLCK ADVISORY  WRITE -1 00:01:1042 524290 524290\n\
            3: POSIX  ADVISORY  READ  42 fe:00:7 131072 131072\n";
        assert!(lists(list, 1042, Ofd(7)));
        assert!(
            !lists(list, 1042, Ofd(8)) && !lists(list, 1043, Ofd(7)) && !lists(list, 7, Ofd(1))
        );
        assert!(!lists(b"", 1042, Ofd(7)) && !lists(b"2: OFDLCK\n\n", 1042, Ofd(7)));
    }
}
