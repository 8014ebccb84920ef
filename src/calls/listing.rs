//! Listings of the kernel's directories that are not quite true: the directory in which the mount
//! point would lie lacks it, and `/proc/self/fd` shows descriptors of the library.

use super::dir::{HEAD_OLD, HEAD64, record};
use crate::abi::{self, nr};
use crate::dispatch::{Served, Stop};
use crate::kernel::{self, addr_mut, call, text};
use crate::{files, mounts, user};
use core::sync::atomic::{AtomicU64, Ordering};
use dfs::Dirent;
use intercept::Call;
use std::vec::Vec;
use sys::{Errno, Result};

const DT_DIR: u8 = 4;
const SEEK_CUR: usize = 1;
/// Room that is left to the kernel when an entry is added: its longest record.
const KERNEL_ROOM: usize = 288;

/// Device number of `/proc`, and device and inode of the kernel's directory above the mount point;
/// 0 before they were asked for, the highest number if there is none.
static PROC: AtomicU64 = AtomicU64::new(0);
static PARENT: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// `getdents64(2)` or the older form on a descriptor that is not ours.
pub(crate) fn of_kernel(c: &Call, old: bool) -> Served {
    let fd = c.args[0] as i32;
    let mut stat = abi::Stat::default();
    let asked = call!(nr::FSTAT, fd, addr_mut(&mut stat));
    if asked.is_err() || stat.mode & abi::S_IFMT != abi::S_IFDIR {
        return Err(Stop::Pass);
    }
    if stat.dev == proc_device() && lists_descriptors(fd) {
        return without_own(c, old);
    }
    if [stat.dev, stat.ino] == parent() && call!(nr::LSEEK, fd, 0, SEEK_CUR) == Ok(0) {
        return with_mount(c, old);
    }
    Err(Stop::Pass)
}

fn identity(path: &core::ffi::CStr) -> [u64; 2] {
    let mut stat = abi::Stat::default();
    let path = kernel::addr(path.to_bytes_with_nul());
    let asked = call!(
        nr::NEWFSTATAT,
        kernel::abi_cwd(),
        path,
        addr_mut(&mut stat),
        0
    );
    if asked.is_ok() {
        [stat.dev, stat.ino]
    } else {
        [u64::MAX; 2]
    }
}

fn proc_device() -> u64 {
    let known = PROC.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let [device, _] = identity(c"/proc/self");
    PROC.store(device, Ordering::Relaxed);
    device
}

fn parent() -> [u64; 2] {
    let known = [0, 1].map(|i: usize| PARENT[i].load(Ordering::Relaxed));
    if known[0] != 0 && known[1] != 0 {
        return known;
    }
    let mut path = mounts::parent().to_vec();
    path.push(0);
    let found = match core::ffi::CStr::from_bytes_with_nul(&path) {
        Ok(path) if mounts::shadow().is_none() && mounts::path().is_some() => identity(path),
        _ => [u64::MAX; 2],
    };
    for (word, value) in PARENT.iter().zip(found) {
        word.store(value, Ordering::Relaxed);
    }
    found
}

/// Whether the descriptor is on `/proc/PID/fd`, `fdinfo`, or a thread's, of this process.
fn lists_descriptors(fd: i32) -> bool {
    let mut buffer = [0u8; 128];
    let link = kernel::readlink(text!(40, "/proc/self/fd/{fd}").c_str(), &mut buffer);
    let Ok(link) = link else { return false };
    let mut parts = link.rsplit(|&b| b == b'/');
    let pid = text!(16, "{}", kernel::getpid());
    matches!(parts.next(), Some(b"fd" | b"fdinfo"))
        && match (parts.next(), parts.next(), parts.next()) {
            (Some(_), Some(b"task"), Some(process)) => process == pid.bytes(),
            (Some(process), _, _) => process == pid.bytes(),
            _ => false,
        }
}

/// The kernel's entries but those of the library's descriptors.
fn without_own(c: &Call, old: bool) -> Served {
    loop {
        let used = Errno::from_ret(kernel::raw(c.nr, c.args)).map_err(Stop::Fail)?;
        let mut entries = std::vec![0u8; used];
        user::get_bytes(c.args[1], &mut entries)?;
        let mut kept = Vec::with_capacity(used);
        each(&entries, |entry| {
            if !is_own(entry, old) {
                kept.extend_from_slice(entry);
            }
        });
        // Nothing at all would mean the end.
        if used == 0 || !kept.is_empty() {
            user::put_bytes(c.args[1], &kept)?;
            return Ok(kept.len());
        }
    }
}

fn is_own(entry: &[u8], old: bool) -> bool {
    let name = entry
        .get(if old { HEAD_OLD } else { HEAD64 }..)
        .unwrap_or(&[]);
    let name = name.split(|&b| b == 0).next().unwrap_or(&[]);
    let number = core::str::from_utf8(name)
        .ok()
        .and_then(|name| name.parse().ok());
    number.is_some_and(files::is_own)
}

fn each<'a>(mut entries: &'a [u8], mut visit: impl FnMut(&'a [u8])) {
    while let Some(&[low, high]) = entries.get(16..18) {
        let len = usize::from(u16::from_le_bytes([low, high])).max(24);
        let Some((entry, rest)) = entries.split_at_checked(len) else {
            return;
        };
        visit(entry);
        entries = rest;
    }
}

/// The first of the kernel's entries and, behind them, the mount point. It is part of the first
/// answer only and has the cookie of the entry before it, so nothing has to be remembered.
fn with_mount(c: &Call, old: bool) -> Served {
    let root = mounts::fs()?.root();
    let name = mounts::path().ok_or(Stop::Pass)?;
    let name = name.rsplit(|&b| b == b'/').next().unwrap_or(&[]);
    let mut entry = Dirent {
        name,
        ino: root.number,
        kind: DT_DIR,
        cookie: 0,
    };
    let mut buffer = [0; super::dir::RECORD_MAX];
    let len = record(&entry, old, &mut buffer)?;
    let room = c.args[2] as u32 as usize;
    if room < len + KERNEL_ROOM {
        return Err(Stop::Pass);
    }
    let mut args = c.args;
    args[2] = room - len;
    let used = Errno::from_ret(kernel::raw(c.nr, args)).map_err(Stop::Fail)?;
    entry.cookie = last_cookie(c.args[1], used)?;
    record(&entry, old, &mut buffer)?;
    user::put_bytes(c.args[1] + used, buffer.get(..len).unwrap_or(&[]))?;
    Ok(used + len)
}

fn last_cookie(address: usize, used: usize) -> Result<u64> {
    let mut entries = std::vec![0u8; used];
    user::get_bytes(address, &mut entries)?;
    let mut cookie = 0;
    each(&entries, |entry| {
        if let Some(Ok(bytes)) = entry.get(8..16).map(<[u8; 8]>::try_from) {
            cookie = u64::from_le_bytes(bytes);
        }
    });
    Ok(cookie)
}
