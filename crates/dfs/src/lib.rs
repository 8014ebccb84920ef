//! The POSIX namespace of a container: inodes, directories, data, open files, locks.
//!
//! Complete without interception and without FUSE, so that every semantic is tested here first.
//! The crate runs inside other people's programs: no libc, no allocation on hot paths, an errno
//! for everything that can go wrong.

mod attr;
mod dir;
pub(crate) mod inode;
mod mount;
mod names;
pub(crate) mod perm;
mod types;
mod walk;
mod xattr;

pub use attr::SetTime;
pub use dir::{DirCursor, Dirent};
pub use mount::Dfs;
pub use names::{RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT};
pub use types::*;
pub use xattr::{XATTR_CREATE, XATTR_REPLACE};
