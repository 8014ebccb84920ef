//! Identifiers, object classes, properties and error numbers of DAOS.
//!
//! Words only: no input or output, no system calls, no panics. Texts that users and scripts know
//! (property names, error lines, unit formats) follow DAOS 2.6.

#![forbid(unsafe_code)]

mod container;
mod der;
mod escape;
mod hlc;
mod id;
mod oclass;
mod props;
mod size;

pub use container::{BadRecord, ContainerMeta, ContainerType, RECORD_BYTES_MAX};
pub use der::Der;
pub use escape::{escape, unescape};
pub use hlc::{Hlc, format_utc};
pub use id::{BadLabel, ContId, Ident, LABEL_BYTES_MAX, Label, PoolId};
pub use oclass::{BadClass, GROUPS_MAX, ObjectClass, Redundancy};
pub use props::{
    Checksum, ContainerProps, Dedup, PROP_KEYS, PerfDomain, PropError, PropRow, PropValue,
    RedundancyLevel, SETTABLE_AFTER_CREATE, SETTABLE_AT_CREATE, prop_description, split_pairs,
};
pub use size::{BadSize, format_base2, format_base10, parse_size};
