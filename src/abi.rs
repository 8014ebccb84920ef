//! Numbers and structures of the Linux system-call interface (x86-64) that the dispatcher reads
//! and writes. Sources: the man pages named at each item and `asm/stat.h`, `linux/stat.h`,
//! `asm/statfs.h`.

/// System-call numbers: those of the front end, and those that are about credentials.
pub(crate) mod nr {
    pub(crate) use intercept::nr::*;
    pub(crate) const SCHED_YIELD: usize = 24;
    pub(crate) const GETEUID: usize = 107;
    pub(crate) const CONNECT: usize = 42;
    pub(crate) const ACCEPT: usize = 43;
    pub(crate) const SENDTO: usize = 44;
    pub(crate) const RECVFROM: usize = 45;
    pub(crate) const GETSOCKNAME: usize = 51;
    pub(crate) const GETPEERNAME: usize = 52;
    pub(crate) const ACCEPT4: usize = 288;
    pub(crate) const BIND: usize = 49;
    pub(crate) const GETGID: usize = 104;
    pub(crate) const SETUID: usize = 105;
    pub(crate) const SETGID: usize = 106;
    pub(crate) const SETREUID: usize = 113;
    pub(crate) const SETREGID: usize = 114;
    pub(crate) const GETGROUPS: usize = 115;
    pub(crate) const SETGROUPS: usize = 116;
    pub(crate) const SETRESUID: usize = 117;
    pub(crate) const SETRESGID: usize = 119;
    pub(crate) const SETFSUID: usize = 122;
    pub(crate) const SETFSGID: usize = 123;
}

pub(crate) const AT_FDCWD: i32 = -100;
pub(crate) const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
pub(crate) const AT_EACCESS: u32 = 0x200;
pub(crate) const AT_REMOVEDIR: u32 = 0x200;
pub(crate) const AT_SYMLINK_FOLLOW: u32 = 0x400;
pub(crate) const AT_NO_AUTOMOUNT: u32 = 0x800;
pub(crate) const AT_EMPTY_PATH: u32 = 0x1000;
pub(crate) const AT_STATX_SYNC_TYPE: u32 = 0x6000;

pub(crate) const O_ACCMODE: u32 = 3;
pub(crate) const O_WRONLY: u32 = 1;
pub(crate) const O_RDWR: u32 = 2;
pub(crate) const O_CREAT: u32 = 0o100;
pub(crate) const O_EXCL: u32 = 0o200;
pub(crate) const O_NOCTTY: u32 = 0o400;
pub(crate) const O_TRUNC: u32 = 0o1000;
pub(crate) const O_APPEND: u32 = 0o2000;
pub(crate) const O_NONBLOCK: u32 = 0o4000;
pub(crate) const O_ASYNC: u32 = 0o20000;
pub(crate) const O_DIRECT: u32 = 0o40000;
pub(crate) const O_LARGEFILE: u32 = 0o100000;
pub(crate) const O_DIRECTORY: u32 = 0o200000;
pub(crate) const O_NOFOLLOW: u32 = 0o400000;
pub(crate) const O_NOATIME: u32 = 0o1000000;
pub(crate) const O_CLOEXEC: u32 = 0o2000000;
pub(crate) const O_PATH: u32 = 0o10000000;
pub(crate) const O_TMPFILE_BIT: u32 = 0o20000000;

pub(crate) const S_IFMT: u32 = 0o170000;
pub(crate) const S_IFDIR: u32 = 0o040000;
pub(crate) const S_IFREG: u32 = 0o100000;
pub(crate) const S_IFLNK: u32 = 0o120000;
pub(crate) const S_IFCHR: u32 = 0o020000;
pub(crate) const S_IFBLK: u32 = 0o060000;
pub(crate) const S_IFIFO: u32 = 0o010000;
pub(crate) const S_IFSOCK: u32 = 0o140000;

/// Longest path a call accepts, with its NUL (`limits.h`).
pub(crate) const PATH_MAX: usize = 4096;
pub(crate) const NAME_MAX: usize = 255;
/// Most bytes one read or write moves (`read(2)`, notes).
pub(crate) const RW_MAX: usize = 0x7fff_f000;
/// Most elements of an I/O vector.
pub(crate) const IOV_MAX: usize = 1024;

/// `struct stat` of `stat(2)` on x86-64.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Stat {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) nlink: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pad0: u32,
    pub(crate) rdev: u64,
    pub(crate) size: i64,
    pub(crate) blksize: i64,
    pub(crate) blocks: i64,
    pub(crate) atime: i64,
    pub(crate) atime_ns: i64,
    pub(crate) mtime: i64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime: i64,
    pub(crate) ctime_ns: i64,
    pub(crate) unused: [i64; 3],
}
const _: () = assert!(size_of::<Stat>() == 144);

/// `struct statx_timestamp`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct StatxTime {
    pub(crate) sec: i64,
    pub(crate) nsec: u32,
    pub(crate) pad: i32,
}

/// `struct statx` of `statx(2)`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Statx {
    pub(crate) mask: u32,
    pub(crate) blksize: u32,
    pub(crate) attributes: u64,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u16,
    pub(crate) pad0: u16,
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) attributes_mask: u64,
    pub(crate) atime: StatxTime,
    pub(crate) btime: StatxTime,
    pub(crate) ctime: StatxTime,
    pub(crate) mtime: StatxTime,
    pub(crate) rdev_major: u32,
    pub(crate) rdev_minor: u32,
    pub(crate) dev_major: u32,
    pub(crate) dev_minor: u32,
    pub(crate) mnt_id: u64,
    pub(crate) spare: [u64; 13],
}
const _: () = assert!(size_of::<Statx>() == 256);

/// `STATX_BASIC_STATS | STATX_BTIME`: what we fill, whatever was asked.
pub(crate) const STATX_SERVED: u32 = 0xfff;
/// `STATX__RESERVED`: asking for it is `EINVAL`.
pub(crate) const STATX_RESERVED: u32 = 0x8000_0000;
/// `STATX_ATTR_MOUNT_ROOT`.
pub(crate) const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;

/// `struct statfs` of `statfs(2)` on x86-64.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Statfs {
    pub(crate) kind: i64,
    pub(crate) bsize: i64,
    pub(crate) blocks: u64,
    pub(crate) bfree: u64,
    pub(crate) bavail: u64,
    pub(crate) files: u64,
    pub(crate) ffree: u64,
    pub(crate) fsid: [i32; 2],
    pub(crate) namelen: i64,
    pub(crate) frsize: i64,
    pub(crate) flags: i64,
    pub(crate) spare: [i64; 4],
}
const _: () = assert!(size_of::<Statfs>() == 120);

/// `f_type` of a dfuse mount as the kernel reports it (`FUSE_SUPER_MAGIC`). The original library
/// says 0xDA05AD10 here, by which ROMIO picks a driver that needs the genuine libdaos.
pub(crate) const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct UserIoVec {
    pub(crate) base: usize,
    pub(crate) len: usize,
}

/// `struct flock` of `fcntl(2)`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Flock {
    pub(crate) kind: i16,
    pub(crate) whence: i16,
    pub(crate) pad0: i32,
    pub(crate) start: i64,
    pub(crate) len: i64,
    pub(crate) pid: i32,
    pub(crate) pad1: i32,
}
const _: () = assert!(size_of::<Flock>() == 32);

/// `struct timespec`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Timespec {
    pub(crate) sec: i64,
    pub(crate) nsec: i64,
}

/// `struct timeval`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Timeval {
    pub(crate) sec: i64,
    pub(crate) usec: i64,
}

/// `struct open_how` of `openat2(2)`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct OpenHow {
    pub(crate) flags: u64,
    pub(crate) mode: u64,
    pub(crate) resolve: u64,
}

/// `struct msghdr` of `sendmsg(2)`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct MsgHdr {
    pub(crate) name: usize,
    pub(crate) namelen: u32,
    pub(crate) pad0: u32,
    pub(crate) iov: usize,
    pub(crate) iovlen: usize,
    pub(crate) control: usize,
    pub(crate) controllen: usize,
    pub(crate) flags: i32,
    pub(crate) pad1: u32,
}

/// `struct cmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct CmsgHdr {
    pub(crate) len: usize,
    pub(crate) level: i32,
    pub(crate) kind: i32,
}

/// `struct xattr_args` of `setxattrat(2)`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct XattrArgs {
    pub(crate) value: u64,
    pub(crate) size: u32,
    pub(crate) flags: u32,
}

/// `struct iocb` of `io_submit(2)`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Iocb {
    pub(crate) data: u64,
    /// The kernel's.
    pub(crate) key: u32,
    pub(crate) rw_flags: u32,
    pub(crate) opcode: u16,
    pub(crate) priority: u16,
    pub(crate) fildes: i32,
    pub(crate) buffer: u64,
    pub(crate) bytes: u64,
    pub(crate) offset: i64,
    pub(crate) reserved: u64,
    pub(crate) flags: u32,
    pub(crate) resfd: u32,
}

/// `struct io_event` of `io_getevents(2)`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct IoEvent {
    pub(crate) data: u64,
    /// Address of the request.
    pub(crate) object: u64,
    pub(crate) result: i64,
    pub(crate) second: i64,
}

/// Encodes a device number as `struct stat` carries it.
pub(crate) const fn makedev(major: u64, minor: u64) -> u64 {
    ((major & 0xfff) << 8) | ((major & !0xfff) << 32) | (minor & 0xff) | ((minor & !0xff) << 12)
}

/// Major part of a device number.
pub(crate) const fn dev_major(dev: u64) -> u32 {
    (((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff)) as u32
}

/// Minor part of a device number.
pub(crate) const fn dev_minor(dev: u64) -> u32 {
    ((dev & 0xff) | ((dev >> 12) & !0xff)) as u32
}
