//! The POSIX namespace of a container: inodes, directories, data, open files, locks.
//!
//! Complete without interception and without FUSE, so that every semantic is tested here first.
//! The crate runs inside other people's programs: no libc, no allocation on hot paths, an errno
//! for everything that can go wrong.

mod types;

pub use types::*;
