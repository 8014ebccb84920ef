//! CPUs, NUMA nodes, network interfaces and the choice between them.
//!
//! [`Topology`] describes a node: [`Topology::discover`] reads it from sysfs under any root,
//! [`Topology::load`] from a recording. [`plan`] holds the rule as pure functions, [`launcher`] the
//! local rank, [`peers`] the other ranks of the node, [`handover`] the variables for libdaos.
//! [`select`] puts these together for a process that is about to start libdaos.
//!
//! Nothing here prints, panics on what it reads, or changes the environment. Files are read and
//! written only in normal context, before libdaos starts: never in the path of an intercepted call.
#![forbid(unsafe_code)]

pub mod binding;
pub mod cache;
mod cpuset;
mod discover;
mod error;
pub mod handover;
pub mod launcher;
mod model;
mod nics;
pub mod peers;
pub mod pin;
pub mod plan;
pub mod process;
mod recorded;
pub mod select;
mod store;
mod tree;

pub use cpuset::{CPU_MAX, CpuSet};
pub use discover::{ROOT_VARIABLE, root_from};
pub use error::TopologyError;
pub use model::{Core, LinkState, NICS_MAX, Nic, NicKind, NumaNode, Place, Socket, Topology};
pub use recorded::VERSION as RECORDING_VERSION;
