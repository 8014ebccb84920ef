//! Fifos and sockets with names in the mount: the entry is ours, the traffic is the kernel's.
//!
//! The kernel's object lives under a name made of container, inode and generation in `/dev/shm`;
//! it is made at the first open and removed with the last name of the entry.

use crate::abi::*;
use crate::dispatch::{After, Served, Stop};
use crate::kernel::{self, addr, call, text};
use crate::route::{self, Arg, Resolved, Spot};
use crate::{cred, mounts, user};
use dfs::{Dfs, Ino};
use intercept::Call;
use std::boxed::Box;
use std::vec::Vec;
use sys::{Errno, Result};

const AF_UNIX: u16 = 1;
/// Bytes of `sun_path`.
const SUN_PATH: usize = 108;

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
fn lend(bytes: Vec<u8>) -> (usize, usize) {
    let argument = Box::new(Argument { bytes });
    let at = addr(argument.bytes.as_slice());
    (at, Box::into_raw(argument) as usize)
}

fn kernel_name(ino: Ino) -> kernel::Text<96> {
    text!(
        96,
        "/dev/shm/daos-node-{:x}-{:x}-{:x}",
        mounts::id(),
        ino.number,
        ino.generation
    )
}

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
    let name = kernel_name(ino);
    let path = addr(name.c_str().to_bytes_with_nul());
    let _gone = kernel::raw(nr::UNLINKAT, [kernel::abi_cwd(), path, 0, 0, 0, 0]);
}

/// The path in a socket address, NUL-terminated; `None` if it is of another kind.
fn socket_path(address: usize, len: usize) -> Option<Vec<u8>> {
    let len = len.checked_sub(2)?.min(SUN_PATH);
    if len == 0 || user::get::<u16>(address) != Ok(AF_UNIX) {
        return None;
    }
    let mut path = [0u8; SUN_PATH];
    let path = path.get_mut(..len)?;
    user::get_bytes(address + 2, path).ok()?;
    if path.first() == Some(&0) {
        return None;
    }
    let mut path: Vec<u8> = path.iter().copied().take_while(|&b| b != 0).collect();
    path.push(0);
    Some(path)
}

fn in_mount(path: &[u8]) -> core::result::Result<Option<Spot>, Stop> {
    let probe = Call {
        nr: nr::STAT,
        args: [addr(path), 0, 0, 0, 0, 0],
    };
    match route::resolve(&probe, Arg::path(0), route::follow(true)) {
        Ok(Resolved::Ours(spot)) => Ok(Some(spot)),
        Err(Stop::Fail(errno)) => Err(errno.into()),
        _ => Ok(None),
    }
}

fn kernel_address(ino: Ino) -> Vec<u8> {
    let mut address = AF_UNIX.to_ne_bytes().to_vec();
    address.extend_from_slice(kernel_name(ino).c_str().to_bytes_with_nul());
    address
}

/// `bind(2)` of a socket to a name in the mount.
pub(crate) fn bind(c: &mut Call) -> Served {
    let path = socket_path(c.args[1], c.args[2]).ok_or(Stop::Pass)?;
    let spot = in_mount(&path)?.ok_or(Stop::Pass)?;
    if spot.target.is_some() {
        return Err(Errno::EADDRINUSE.into());
    }
    const ALL: u32 = 0o777;
    let name = spot.name.as_bytes();
    let cred = cred::current();
    let ino = spot.fs.mknod(&cred, spot.parent, name, S_IFSOCK | ALL, 0)?;
    let address = kernel_address(ino);
    let bound: Result<usize> = call!(nr::BIND, c.args[0], addr(address.as_slice()), address.len());
    if let Err(errno) = bound {
        spot.fs.unlink(&cred, spot.parent, name)?;
        return Err(errno.into());
    }
    Ok(0)
}

/// `connect(2)` to a socket in the mount.
pub(crate) fn connect(c: &mut Call) -> Served {
    const WRITE: u32 = 2;
    let path = socket_path(c.args[1], c.args[2]).ok_or(Stop::Pass)?;
    let spot = in_mount(&path)?.ok_or(Stop::Pass)?;
    let ino = spot.found()?;
    if spot.fs.stat(ino)?.mode & S_IFMT != S_IFSOCK {
        return Err(Errno::ECONNREFUSED.into());
    }
    spot.fs.access(&cred::current(), ino, WRITE)?;
    let address = kernel_address(ino);
    let len = address.len();
    let (at, lent) = lend(address);
    c.args[1] = at;
    c.args[2] = len;
    Err(Stop::PassThenWith(After::Lent, lent))
}
