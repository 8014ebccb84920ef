//! The embedded engine: pools, containers, objects, log and recovery, shared by processes.

pub mod system;
