//! A file of the kernel's at the mount path. The mount hides it, but symbolic links and `..` of the
//! kernel's lead to it: what would find or make something there is ours.

use crate::abi::{O_ACCMODE, O_CREAT, O_TMPFILE_BIT, S_IFDIR, S_IFMT, Stat, Statx, makedev, nr};
use crate::kernel::{self, addr_mut, call};
use crate::{mounts, user};
use intercept::Call;

/// Whether symbolic links have to be followed before the kernel gets a path call. Behind an empty
/// directory the kernel finds nothing, so for calls that only look it is enough to see afterwards
/// that they have not found the directory itself.
pub(crate) fn must_look(c: &Call) -> bool {
    mounts::shadow().is_some_and(|hidden| !(hidden.empty && only_looks(c)))
}

fn only_looks(c: &Call) -> bool {
    const MAKES: usize = (O_CREAT | O_TMPFILE_BIT) as usize;
    match crate::route::number(c) {
        nr::OPEN => c.args[1] & MAKES == 0,
        nr::OPENAT => c.args[2] & MAKES == 0,
        nr::STAT | nr::LSTAT | nr::NEWFSTATAT | nr::STATX => true,
        nr::ACCESS | nr::FACCESSAT | nr::FACCESSAT2 => true,
        nr::READLINK | nr::READLINKAT | nr::EXECVE | nr::EXECVEAT => true,
        _ => false,
    }
}

/// Whether a call that only looks has found the directory that the mount hides. A descriptor that
/// it made is closed then.
#[inline]
pub(crate) fn was_reached(c: &Call, result: isize) -> bool {
    let Some(hidden) = mounts::shadow() else {
        return false;
    };
    let found = match c.nr {
        nr::STAT | nr::LSTAT => by_stat(c.args[1]),
        nr::NEWFSTATAT => by_stat(c.args[2]),
        nr::STATX => by_statx(c.args[4]),
        nr::OPEN => by_descriptor(result, c.args[1]),
        nr::OPENAT => by_descriptor(result, c.args[2]),
        _ => None,
    };
    let reached = found == Some((hidden.dev, hidden.ino));
    if reached && matches!(c.nr, nr::OPEN | nr::OPENAT) {
        kernel::close(result as i32);
    }
    reached
}

fn by_stat(address: usize) -> Option<(u64, u64)> {
    let stat: Stat = user::get(address).ok()?;
    (stat.mode & S_IFMT == S_IFDIR).then_some((stat.dev, stat.ino))
}

fn by_statx(address: usize) -> Option<(u64, u64)> {
    let stat: Statx = user::get(address).ok()?;
    let dev = makedev(u64::from(stat.dev_major), u64::from(stat.dev_minor));
    Some((dev, stat.ino))
}

/// A directory can be opened for reading only.
fn by_descriptor(fd: isize, flags: usize) -> Option<(u64, u64)> {
    if flags & O_ACCMODE as usize != 0 {
        return None;
    }
    let mut stat = Stat::default();
    call!(nr::FSTAT, fd as usize, addr_mut(&mut stat)).ok()?;
    Some((stat.dev, stat.ino))
}
