//! The POSIX namespace of a container.
