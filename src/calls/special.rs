//! Fifos and sockets with names in the mount: the entry is ours, the traffic is the kernel's. What
//! sockets do with names is in `socket.rs`.
//!
//! The kernel's object lives under a name made of container, inode and generation in `/dev/shm`;
//! it is made at the first open and removed with the last name of the entry.

use crate::abi::*;
use crate::dispatch::{After, Served, Stop};
use crate::kernel::{self, addr, call, text};
use crate::{cred, mounts};
use dfs::{Dfs, Ino};
use intercept::Call;
use std::boxed::Box;
use std::vec::Vec;
use sys::Errno;

/// Arguments of ours that a call in progress points into, freed in its second half.
#[repr(align(16))]
struct Argument {
    bytes: Vec<u8>,
}

/// Frees what [`lend`] gave away.
pub(crate) fn returned(address: usize) {
    if address != 0 {
        // SAFETY: the address is that of a box given away by `lend`, which comes back once.
        drop(unsafe { Box::from_raw(address as *mut Argument) });
    }
}

/// Keeps bytes until the call is over; their address, and what the second half frees.
pub(super) fn lend(bytes: Vec<u8>) -> (usize, usize) {
    let argument = Box::new(Argument { bytes });
    let at = addr(argument.bytes.as_slice());
    (at, Box::into_raw(argument) as usize)
}

pub(super) fn kernel_name(ino: Ino) -> kernel::Text<96> {
    node_name(ino, "")
}

/// A symbolic link beside the kernel's socket whose target is the path the program bound.
pub(super) fn bound_name(ino: Ino) -> kernel::Text<96> {
    node_name(ino, BOUND)
}

fn node_name(ino: Ino, tail: &str) -> kernel::Text<96> {
    let (container, number, generation) = (mounts::id(), ino.number, ino.generation);
    text!(96, "{NODE}{container:x}-{number:x}-{generation:x}{tail}")
}

/// How the kernel's names begin.
pub(super) const NODE: &str = "/dev/shm/daos-node-";

/// What [`bound_name`] puts behind the kernel's name.
pub(super) const BOUND: &str = "-name";

/// Rewrites an open of a fifo into one of the kernel's fifo, which may block.
pub(crate) fn open_fifo(c: &mut Call, fs: &Dfs, ino: Ino, flags: u32) -> Served {
    const EVERYBODY: u32 = 0o666;
    let mask = match flags & O_ACCMODE {
        0 => 4,
        O_WRONLY => 2,
        _ => 6,
    };
    fs.access(&cred::current(), ino, mask)?;
    let name = kernel_name(ino);
    let path = addr(name.c_str().to_bytes_with_nul());
    match call!(nr::MKNODAT, kernel::abi_cwd(), path, S_IFIFO | EVERYBODY, 0) {
        Ok(_) => {
            call!(nr::FCHMODAT, kernel::abi_cwd(), path, EVERYBODY)?;
        }
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let (at, lent) = lend(name.c_str().to_bytes_with_nul().to_vec());
    c.nr = nr::OPENAT;
    c.args = [
        kernel::abi_cwd(),
        at,
        (flags & !(O_CREAT | O_EXCL | O_TRUNC)) as usize,
        0,
        0,
        0,
    ];
    Err(Stop::PassThenWith(After::Lent, lent))
}

/// The last name of a fifo or socket has gone.
pub(crate) fn removed(ino: Ino) {
    for name in [kernel_name(ino), bound_name(ino)] {
        let path = addr(name.c_str().to_bytes_with_nul());
        let _gone = kernel::raw(nr::UNLINKAT, [kernel::abi_cwd(), path, 0, 0, 0, 0]);
    }
}
