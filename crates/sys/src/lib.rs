//! Raw system calls, error numbers, clocks, futexes and fault-safe copies.
//!
//! Everything here may run inside a stranger's process, in a signal handler or in a vfork child:
//! no libc function is called, nothing is allocated, no thread-local with lazy initialisation is
//! touched, and the caller's `errno` is left alone.

pub mod clock;
mod errno;
pub mod file_limit;
pub mod futex;
pub mod ofd_lock;
pub mod own_fd;
pub mod raw;
pub mod set_once;
pub mod tls;
pub mod uaccess;

pub use errno::Errno;

/// Result of an operation that fails with a Linux error number.
pub type Result<T> = core::result::Result<T, Errno>;
