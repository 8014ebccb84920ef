//! The POSIX namespace of a container: inodes, directories, data, open files, locks.
//!
//! Complete without interception and without FUSE, so that every semantic is tested here first.
//! The crate runs inside other people's programs: no libc, no allocation on hot paths, an errno
//! for everything that can go wrong.

mod attr;
mod check;
mod dir;
pub(crate) mod inode;
mod io;
mod locks;
mod map;
mod mapfile;
mod mount;
mod names;
mod ofd;
pub(crate) mod perm;
mod prefix;
#[cfg(test)]
mod testing;
mod trunc;
mod types;
mod walk;
mod xattr;

pub use attr::SetTime;
pub use check::{Checked, Leaks, Problem};
pub use dir::{DirCursor, Dirent};
pub use engine::vfork;
pub use locks::{LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, LockInfo, LockKind, LockReq};
pub use mapfile::MapSource;
pub use mount::Dfs;
pub use names::{RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT};
pub use ofd::{ForkToken, OFDS_MAX, OfdInfo};
pub use trunc::{FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE};
pub use types::*;
pub use xattr::{XATTR_CREATE, XATTR_REPLACE};
