//! Which system calls go to the dispatcher, and the cheap test each passes first.
//!
//! The test runs in the stub beside the rewritten instruction, a few instructions long, so that a
//! call on a foreign descriptor costs next to nothing. A test may let too much through to the
//! dispatcher, never too little.

use crate::nr;

/// Number of entries of a [`ClassTable`]; higher system-call numbers are never dispatched.
pub const CLASS_COUNT: usize = 512;

/// The test in front of the dispatcher for one system call.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Never dispatched; the instruction stays as it is.
    Native = 0,
    /// Always dispatched.
    Always = 1,
    /// Dispatched when argument 0 is one of our descriptors.
    Fd0 = 2,
    /// Dispatched when argument 0 or 1 is one of our descriptors.
    Fd01 = 3,
    /// Dispatched when argument 0 or 2 is one of our descriptors.
    Fd02 = 4,
    /// `mmap`: dispatched when argument 4 is one of our descriptors, or while
    /// [`crate::set_maps_active`] is on.
    Map = 5,
    /// `munmap` and its kin: dispatched while [`crate::set_maps_active`] is on.
    Unmap = 6,
    /// Argument 0 is a path: dispatched if the path filter lets it through.
    Path0 = 7,
    /// Argument 0 is a directory descriptor, argument 1 a path relative to it.
    PathAt = 8,
    /// `fork`, `vfork`, `clone`, `clone3`: run in place, announced before and after.
    Clone = 9,
    /// `rt_sigreturn`: must never pass through a call frame.
    Sigreturn = 10,
    /// Dispatched when argument 4 is not 0.
    Arg4 = 11,
}

/// One [`Class`] for each system-call number.
pub type ClassTable = [Class; CLASS_COUNT];

const fn put(mut table: ClassTable, class: Class, numbers: &[usize]) -> ClassTable {
    let mut i = 0;
    while i < numbers.len() {
        table[numbers[i]] = class;
        i += 1;
    }
    table
}

/// The classes of every call that can concern a file, for [`crate::Config::classes`].
pub const FILE_CALLS: ClassTable = {
    let t = [Class::Native; CLASS_COUNT];
    let t = put(
        t,
        Class::Fd0,
        &[
            nr::READ,
            nr::WRITE,
            nr::CLOSE,
            nr::FSTAT,
            nr::LSEEK,
            nr::IOCTL,
            nr::PREAD64,
            nr::PWRITE64,
            nr::READV,
            nr::WRITEV,
            nr::DUP,
            nr::FCNTL,
            nr::FLOCK,
            nr::FSYNC,
            nr::FDATASYNC,
            nr::FTRUNCATE,
            nr::GETDENTS,
            nr::GETDENTS64,
            nr::FCHDIR,
            nr::FCHMOD,
            nr::FCHOWN,
            nr::FSTATFS,
            nr::READAHEAD,
            nr::FSETXATTR,
            nr::FGETXATTR,
            nr::FLISTXATTR,
            nr::FREMOVEXATTR,
            nr::FADVISE64,
            nr::SYNC_FILE_RANGE,
            nr::VMSPLICE,
            nr::FALLOCATE,
            nr::PREADV,
            nr::PWRITEV,
            nr::PREADV2,
            nr::PWRITEV2,
            nr::SYNCFS,
        ],
    );
    let t = put(t, Class::Fd01, &[nr::DUP2, nr::DUP3, nr::SENDFILE, nr::TEE]);
    let t = put(
        t,
        Class::Fd02,
        &[nr::COPY_FILE_RANGE, nr::SPLICE, nr::EPOLL_CTL],
    );
    let t = put(t, Class::Map, &[nr::MMAP]);
    let t = put(
        t,
        Class::Unmap,
        &[nr::MUNMAP, nr::MREMAP, nr::MSYNC, nr::MADVISE],
    );
    let t = put(
        t,
        Class::Path0,
        &[
            nr::OPEN,
            nr::CREAT,
            nr::STAT,
            nr::LSTAT,
            nr::ACCESS,
            nr::CHDIR,
            nr::MKDIR,
            nr::RMDIR,
            nr::UNLINK,
            nr::READLINK,
            nr::MKNOD,
            nr::CHMOD,
            nr::CHOWN,
            nr::LCHOWN,
            nr::TRUNCATE,
            nr::UTIME,
            nr::UTIMES,
            nr::STATFS,
            nr::SETXATTR,
            nr::LSETXATTR,
            nr::GETXATTR,
            nr::LGETXATTR,
            nr::LISTXATTR,
            nr::LLISTXATTR,
            nr::REMOVEXATTR,
            nr::LREMOVEXATTR,
        ],
    );
    let t = put(
        t,
        Class::PathAt,
        &[
            nr::OPENAT,
            nr::OPENAT2,
            nr::NEWFSTATAT,
            nr::STATX,
            nr::FACCESSAT,
            nr::FACCESSAT2,
            nr::MKDIRAT,
            nr::MKNODAT,
            nr::UNLINKAT,
            nr::READLINKAT,
            nr::FCHMODAT,
            nr::FCHMODAT2,
            nr::FCHOWNAT,
            nr::UTIMENSAT,
            nr::FUTIMESAT,
            nr::NAME_TO_HANDLE_AT,
            nr::SETXATTRAT,
            nr::GETXATTRAT,
            nr::LISTXATTRAT,
            nr::REMOVEXATTRAT,
        ],
    );
    let t = put(
        t,
        Class::Always,
        &[
            nr::RENAME,
            nr::RENAMEAT,
            nr::RENAMEAT2,
            nr::LINK,
            nr::LINKAT,
            nr::SYMLINK,
            nr::SYMLINKAT,
            nr::GETCWD,
            nr::SYNC,
            nr::UMASK,
            nr::EXECVE,
            nr::EXECVEAT,
            nr::EXIT_GROUP,
            nr::RT_SIGACTION,
            nr::RT_SIGPROCMASK,
            nr::SIGALTSTACK,
            nr::SENDMSG,
            nr::RECVMSG,
            nr::SENDMMSG,
            nr::RECVMMSG,
            nr::PIDFD_GETFD,
            nr::IO_SETUP,
            nr::IO_SUBMIT,
            nr::IO_GETEVENTS,
            nr::IO_PGETEVENTS,
            nr::IO_URING_SETUP,
            nr::INOTIFY_ADD_WATCH,
            nr::FANOTIFY_MARK,
            nr::OPEN_BY_HANDLE_AT,
            nr::OPEN_TREE,
            nr::SETRLIMIT,
            nr::PRLIMIT64,
            nr::CHROOT,
            nr::UNSHARE,
            nr::SETNS,
            nr::CLOSE_RANGE,
        ],
    );
    let t = put(
        t,
        Class::Clone,
        &[nr::FORK, nr::VFORK, nr::CLONE, nr::CLONE3],
    );
    put(t, Class::Sigreturn, &[nr::RT_SIGRETURN])
};
