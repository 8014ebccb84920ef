//! The embedded engine: pools, containers, records, blocks, log and recovery, used by any number
//! of processes at once without a daemon.
//!
//! ```text
//!   system                        the system root, pool registry, pool maps, who may attach
//!   containers   place              what objects are and where they lie
//!   tx           takeover           atomic changes, and those of the dead
//!   pages        space              memory and blocks, given out and taken back
//!   log  sync  mirror  recover      the redo stream, when it is safe, where, what is left of it
//!   settle                        what recovery leaves to do
//!   media  door  room               the bytes of rank files, the way to them, space for more
//!   pool  thread  process  attach   who is here, holding what
//!   layout  limits                  every word of the arena
//! ```

mod attach;
mod checkpoint;
mod containers;
mod door;
mod error;
mod flushes;
mod frames;
mod layout;
mod limits;
mod log;
mod media;
mod mirror;
mod pages;
pub mod place;
mod pool;
pub mod process;
mod prove;
mod rebuild;
mod recover;
mod room;
mod settle;
mod space;
mod sync;
pub mod system;
mod takeover;
#[cfg(feature = "testing")]
pub mod testing;
mod thread;
mod tx;
mod usage;

pub use containers::{BLOB_BYTES_MAX, ContainerInfo};
pub use error::EngineError;
pub use layout::{
    BlockPtr, PageLink, PageState, Rec, Run, TREE_VERSION, kind, shared_word, tag, tag_generation,
    tag_kind,
};
pub use limits::{
    BLOCK, GRANULE, PAGE, RANKS_MAX, RECORDS_MAX, REPLICAS_MAX, SHARED_WORDS, TARGETS_MAX,
    TX_LOCKS_MAX,
};
pub use pool::{LockId, Pool, PoolSpec};
pub use shm::crash_point;
pub use space::{STAGED_MAX, Stage};
pub use sync::{Contents, RankSet};
pub use thread::{THREAD_WORDS, Undisturbed, undisturbed, vfork, words as thread_words};
pub use tx::Tx;
pub use usage::{RankUsage, Usage};
