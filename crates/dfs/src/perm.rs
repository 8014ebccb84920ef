//! Who may do what: mode bits, ownership, the sticky bit, set-id bits (`path_resolution(7)`,
//! `inode(7)`).

use crate::Cred;
use crate::inode::{Guard, S_ISGID, S_ISUID, S_ISVTX, is_dir, is_file};
use sys::{Errno, Result};

/// Permission to read.
pub(crate) const READ: u32 = 4;
/// Permission to write.
pub(crate) const WRITE: u32 = 2;
/// Permission to execute a file or to search a directory.
pub(crate) const EXECUTE: u32 = 1;

/// Group that may execute.
const S_IXGRP: u32 = 0o010;

/// Does the caller belong to the group?
pub(crate) fn in_group(cred: &Cred<'_>, gid: u32) -> bool {
    cred.gid == gid || cred.groups.contains(&gid)
}

/// May the caller do all of `mask` to the inode? `EACCES` if not. A privileged caller may, but
/// executes a file only if somebody may.
#[inline]
pub(crate) fn check(cred: &Cred<'_>, guard: &Guard, mask: u32) -> Result<()> {
    let class = if cred.uid == guard.uid {
        guard.mode >> 6
    } else if in_group(cred, guard.gid) {
        guard.mode >> 3
    } else {
        guard.mode
    };
    if class & mask == mask {
        return Ok(());
    }
    let executable = is_dir(guard.mode) || guard.mode & 0o111 != 0;
    if cred.privileged && (mask & EXECUTE == 0 || executable) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Is the caller the owner, or privileged?
pub(crate) fn owns(cred: &Cred<'_>, guard: &Guard) -> bool {
    cred.privileged || cred.uid == guard.uid
}

/// May a name of `victim` be taken out of `dir`? `EPERM` if the sticky bit forbids it.
pub(crate) fn check_sticky(cred: &Cred<'_>, dir: &Guard, victim: &Guard) -> Result<()> {
    if dir.mode & S_ISVTX == 0 || owns(cred, dir) || owns(cred, victim) {
        return Ok(());
    }
    Err(Errno::EPERM)
}

/// May the caller make another name for a file (the rule of `fs.protected_hardlinks`, see
/// `proc_sys_fs(5)`)? `EPERM` if not.
pub(crate) fn check_link(cred: &Cred<'_>, guard: &Guard) -> Result<()> {
    let set_id = guard.mode & S_ISUID != 0 || guard.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP;
    let harmless = is_file(guard.mode) && !set_id && check(cred, guard, READ | WRITE).is_ok();
    if owns(cred, guard) || harmless {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// The mode after somebody changed the owner: set-id bits go, whoever did it. Set-group-id without
/// group execution goes only for strangers to the group.
pub(crate) fn mode_after_chown(cred: &Cred<'_>, guard: &Guard) -> u32 {
    if is_dir(guard.mode) {
        return guard.mode;
    }
    let stranger = !cred.privileged && !in_group(cred, guard.gid);
    let drop_group = guard.mode & S_IXGRP != 0 || stranger;
    let dropped = if drop_group {
        S_ISUID | S_ISGID
    } else {
        S_ISUID
    };
    guard.mode & !dropped
}

/// Mode and group of a new inode in a directory: the set-group-id rules of `inode(7)`.
pub(crate) fn inherit(cred: &Cred<'_>, dir: &Guard, mode: u32) -> (u32, u32) {
    if dir.mode & S_ISGID == 0 {
        return (mode, cred.gid);
    }
    if is_dir(mode) {
        return (mode | S_ISGID, dir.gid);
    }
    let set_group = mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP;
    if set_group && !cred.privileged && !in_group(cred, dir.gid) {
        return (mode & !S_ISGID, dir.gid);
    }
    (mode, dir.gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cred(uid: u32, gid: u32, groups: &[u32]) -> Cred<'_> {
        Cred {
            uid,
            gid,
            groups,
            privileged: uid == 0,
            umask: 0o022,
        }
    }

    fn guard(mode: u32, uid: u32, gid: u32) -> Guard {
        Guard {
            mode,
            nlink: 1,
            uid,
            gid,
        }
    }

    #[test]
    fn only_the_first_matching_class_counts() {
        let file = guard(0o100077, 5, 6);
        assert_eq!(check(&cred(5, 6, &[]), &file, READ), Err(Errno::EACCES));
        assert_eq!(
            check(&cred(7, 6, &[]), &file, READ | WRITE | EXECUTE),
            Ok(())
        );
        let file = guard(0o100707, 5, 6);
        assert_eq!(check(&cred(7, 8, &[6]), &file, READ), Err(Errno::EACCES));
        assert_eq!(check(&cred(7, 8, &[]), &file, READ), Ok(()));
    }

    #[test]
    fn root_executes_only_what_somebody_may_execute() {
        assert_eq!(
            check(&cred(0, 0, &[]), &guard(0o100600, 5, 6), READ | WRITE),
            Ok(())
        );
        assert_eq!(
            check(&cred(0, 0, &[]), &guard(0o100600, 5, 6), EXECUTE),
            Err(Errno::EACCES)
        );
        assert_eq!(
            check(&cred(0, 0, &[]), &guard(0o100601, 5, 6), EXECUTE),
            Ok(())
        );
        assert_eq!(
            check(&cred(0, 0, &[]), &guard(0o040000, 5, 6), EXECUTE),
            Ok(())
        );
    }

    #[test]
    fn the_sticky_bit_protects_the_names_of_others() {
        let dir = guard(0o041777, 1, 1);
        assert_eq!(
            check_sticky(&cred(2, 2, &[]), &dir, &guard(0o100666, 3, 3)),
            Err(Errno::EPERM)
        );
        assert_eq!(
            check_sticky(&cred(3, 2, &[]), &dir, &guard(0o100666, 3, 3)),
            Ok(())
        );
        assert_eq!(
            check_sticky(&cred(1, 2, &[]), &dir, &guard(0o100666, 3, 3)),
            Ok(())
        );
        assert_eq!(
            check_sticky(&cred(0, 0, &[]), &dir, &guard(0o100666, 3, 3)),
            Ok(())
        );
    }

    #[test]
    fn set_group_id_directories_pass_on_their_group() {
        let dir = guard(0o042775, 1, 9);
        assert_eq!(inherit(&cred(2, 2, &[]), &dir, 0o040755), (0o042755, 9));
        assert_eq!(inherit(&cred(2, 2, &[]), &dir, 0o102755), (0o100755, 9));
        assert_eq!(inherit(&cred(2, 2, &[9]), &dir, 0o102755), (0o102755, 9));
        assert_eq!(
            inherit(&cred(2, 2, &[]), &guard(0o040755, 1, 9), 0o102755),
            (0o102755, 2)
        );
    }
}
