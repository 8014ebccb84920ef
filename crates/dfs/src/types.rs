//! Words of the namespace: inode numbers, credentials, attributes, path walks, user buffers.

/// An inode: its number (`st_ino`, stable for the life of the file) and the generation that tells
/// a reused number from the file it once named.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ino {
    /// Record number in the arena; what programs see as `st_ino`.
    pub number: u64,
    /// Generation of the record; a mismatch means the file is gone (`ESTALE`/`ENOENT`).
    pub generation: u32,
}

/// Who asks: effective ids of the calling thread for permission checks, and its umask.
#[derive(Clone, Copy, Debug)]
pub struct Cred<'a> {
    /// File-system user id.
    pub uid: u32,
    /// File-system group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: &'a [u32],
    /// `CAP_DAC_OVERRIDE`, `CAP_FOWNER`, `CAP_CHOWN` and friends, taken together (uid 0).
    pub privileged: bool,
    /// File mode creation mask.
    pub umask: u32,
}

/// Attributes of a file; times in nanoseconds since the epoch (may be negative).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits (`S_IF*` | 07777).
    pub mode: u32,
    /// Number of names; 2 + subdirectories for a directory.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node (Linux `dev_t` as in `struct stat`).
    pub rdev: u64,
    /// Bytes (length of the target for a symbolic link).
    pub size: u64,
    /// Allocated space of one copy in units of 512 bytes.
    pub blocks: u64,
    /// Preferred I/O size in bytes: the chunk size.
    pub blksize: u32,
    /// Last access.
    pub atime: i64,
    /// Last change of the data.
    pub mtime: i64,
    /// Last change of the inode.
    pub ctime: i64,
    /// Creation.
    pub btime: i64,
}

/// Figures of `statfs(2)`; sizes in blocks of 4096 bytes, as the whole pool sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Total blocks.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Inodes in use.
    pub files: u64,
    /// Inodes that could still be made.
    pub ffree: u64,
    /// Identifies the container (`f_fsid`, and the base of `st_dev`).
    pub fsid: u64,
}

/// How a path is walked.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Follow a symbolic link that is the last component.
    pub follow: bool,
    /// A file is to be made (`O_CREAT`): a last component with a slash behind it, in the path or
    /// in the target of a link, ends the walk without being followed.
    pub creates: bool,
    /// `RESOLVE_NO_SYMLINKS`: any symbolic link is `ELOOP`.
    pub no_symlinks: bool,
    /// `RESOLVE_BENEATH`: leaving the starting directory is `EXDEV`.
    pub beneath: bool,
    /// `RESOLVE_IN_ROOT`: `/` and `..` are confined to the starting directory.
    pub in_root: bool,
}

/// Where a walk ended inside the container.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Directory that holds (or would hold) the last component.
    pub parent: Ino,
    /// Last component, in the path or in the buffer for links; `.` when the path names the
    /// starting directory.
    pub name: &'a [u8],
    /// What the last component names; `None` if it does not exist.
    pub target: Option<Ino>,
    /// The path ended in `/`: the target must be (or become) a directory.
    pub trailing_slash: bool,
}

/// Outcome of a path walk.
pub enum Walk<'a> {
    /// The walk ended inside the container.
    Here(Place<'a>),
    /// The walk left the container: `..` above its root, or an absolute symbolic link. Resolution
    /// goes on outside with the bytes written to the caller's buffer: an absolute path as seen by
    /// the program if `absolute`, else relative to the directory that contains the mount point.
    Leave {
        /// Length of the path written to the buffer.
        len: usize,
        /// The path starts at `/` of the program rather than at the mount point's parent.
        absolute: bool,
    },
}

/// A piece of the program's memory. Nothing is assumed about it: it is touched only through
/// `sys::uaccess`, and a wild pointer yields `EFAULT`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct IoVec {
    /// First byte.
    pub base: *mut u8,
    /// Bytes.
    pub len: usize,
}

/// Number of an open file description; valid in every process that attached the pool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ofd(pub u32);

/// Kinds of directory entries (`DT_*` of `readdir(3)`): the inode says.
pub const DT_UNKNOWN: u8 = 0;
/// Fifo.
pub const DT_FIFO: u8 = 1;
/// Character device.
pub const DT_CHR: u8 = 2;
/// Directory.
pub const DT_DIR: u8 = 4;
/// Block device.
pub const DT_BLK: u8 = 6;
/// Regular file.
pub const DT_REG: u8 = 8;
/// Symbolic link.
pub const DT_LNK: u8 = 10;
/// Socket.
pub const DT_SOCK: u8 = 12;
