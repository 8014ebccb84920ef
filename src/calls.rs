//! Handlers, a file per topic: decode the arguments, route, do it in `dfs`, encode the result.

pub(crate) mod aio;
pub(crate) mod attr;
pub(crate) mod copy;
pub(crate) mod data;
pub(crate) mod dir;
pub(crate) mod dup;
pub(crate) mod ioctl;
pub(crate) mod listing;
pub(crate) mod lock;
pub(crate) mod map;
pub(crate) mod message;
pub(crate) mod name;
pub(crate) mod open;
pub(crate) mod process;
pub(crate) mod refuse;
pub(crate) mod socket;
pub(crate) mod special;
pub(crate) mod stat;
pub(crate) mod xattr;
