//! The system: where pools live on this machine, what describes them, who may attach.
//!
//! ```text
//! <root>/lock                    serialises create and destroy (flock)
//! <root>/labels/<label>          symbolic link to ../pools/<uuid>
//! <root>/pools/<uuid>/pool.map   the registry's copy of the pool map: finds the ranks
//! <root>/pools/<uuid>/attach     who runs the pool now (see `attach`)
//! <root>/pools/<uuid>/rankNN/    a rank: its copy of pool.map and the engine's files
//! <rank path>/<uuid>/rankNN/     the same for ranks on devices of their own
//! <rank path>/<uuid>/rankNN/home which of several copies of the registry they belong to (`home`)
//! ```
//! Looking a pool up runs inside host programs: raw system calls only, nothing printed. Creating
//! and destroying is for the command line and uses `std::fs`.

mod attach;
mod create;
mod destroy;
mod error;
mod fd;
mod find;
mod home;
mod join;
mod map;
mod root;

pub use attach::{AttachFile, AttachLock, Authority, Standing};
pub use create::{PoolInfo, PoolSpec};
pub use error::SystemError;
pub use find::{PoolDescriptor, RankDescriptor};
pub use home::Home;
pub(crate) use home::mark;
pub use map::{MAP_FORMAT, MAP_NAME, MapRank, PoolMap, RankState};
pub use root::SystemRoot;

/// CRC-32 of the small texts kept here, the same as everywhere in the pool, from a table: asking
/// the processor what it can do, as faster code must, costs an exec more than these few bytes do.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    CRC32.checksum(bytes)
}

#[cfg(test)]
mod tests;
