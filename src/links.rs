//! Symbolic links of the kernel's that lead into the mount.

use crate::abi::{self, PATH_MAX, nr};
use crate::kernel::{self, addr};
use crate::route::{Hit, LINKS_MAX, compare};
use std::vec::Vec;
use sys::Errno;

/// Whether the kernel meets a symbolic link on this path, as far as it gets: one call that spares
/// the walk for nearly every path that simply does not exist. `dirfd` is where a relative one starts.
pub(crate) fn has_link(dirfd: i32, path: &[u8]) -> bool {
    const RESOLVE_NO_SYMLINKS: u64 = 4;
    let mut terminated = path.to_vec();
    terminated.push(0);
    let how = [
        u64::from(abi::O_PATH | abi::O_NOFOLLOW | abi::O_CLOEXEC),
        0,
        RESOLVE_NO_SYMLINKS,
    ];
    let (path, how) = (addr(terminated.as_slice()), addr(&how));
    match kernel::call!(nr::OPENAT2, dirfd, path, how, 24) {
        Ok(fd) => {
            // The last component exists: a dangling link, or it has come into being.
            kernel::close(fd as i32);
            true
        }
        Err(errno) => errno != Errno::ENOENT,
    }
}

/// The path without symbolic links of what the kernel has at `path`; `None` if it has nothing.
pub(crate) fn where_kernel_arrives(path: &[u8], follow: bool) -> Option<Vec<u8>> {
    let mut terminated = path.to_vec();
    terminated.push(0);
    let last = if follow { 0 } else { abi::O_NOFOLLOW };
    let path = core::ffi::CStr::from_bytes_with_nul(&terminated).ok()?;
    let fd = kernel::open(path, abi::O_PATH | abi::O_CLOEXEC | last).ok()?;
    let mut target = [0u8; PATH_MAX];
    let link = kernel::text!(40, "/proc/self/fd/{fd}");
    let there = kernel::readlink(link.c_str(), &mut target).map(<[u8]>::to_vec);
    kernel::close(fd);
    there.ok()
}

/// The part of an absolute path without symbolic links that lies below the mount point.
pub(crate) fn below<'a>(mount: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    path.strip_prefix(mount)
        .filter(|rest| rest.first().is_none_or(|&b| b == b'/'))
}

/// Walks a path through the kernel's symbolic links; the rest inside the mount if it gets there.
pub(crate) fn follow_kernel_links(mount: &[u8], path: &[u8], follow: bool) -> Option<Vec<u8>> {
    let mut here: Vec<u8> = Vec::new();
    let mut todo: Vec<u8> = path.to_vec();
    let mut links = 0;
    let mut target = [0u8; PATH_MAX];
    loop {
        let start = todo.iter().position(|&b| b != b'/')?;
        let end = todo
            .iter()
            .skip(start)
            .position(|&b| b == b'/')
            .map_or(todo.len(), |i| start + i);
        let part = todo.get(start..end)?.to_vec();
        let rest = todo.get(end..)?.to_vec();
        let last = rest.is_empty();
        match part.as_slice() {
            b"." => {}
            b".." => {
                let up = here.iter().rposition(|&b| b == b'/').unwrap_or(0);
                here.truncate(up);
            }
            name => {
                let parent = here.len();
                here.push(b'/');
                here.extend_from_slice(name);
                if here == mount {
                    return Some(rest);
                }
                if !last || follow {
                    here.push(0);
                    let found = core::ffi::CStr::from_bytes_with_nul(&here)
                        .ok()
                        .map(|p| kernel::readlink(p, &mut target));
                    here.pop();
                    match found? {
                        Ok(link) => {
                            links += 1;
                            if links > LINKS_MAX {
                                return None;
                            }
                            here.truncate(if link.first() == Some(&b'/') {
                                0
                            } else {
                                parent
                            });
                            let mut next = link.to_vec();
                            next.extend_from_slice(&rest);
                            todo = next;
                            continue;
                        }
                        Err(Errno::EINVAL) => {}
                        Err(_) if matches!(compare(mount, &here), Hit::Ancestor(_)) => {}
                        Err(_) => return None,
                    }
                }
            }
        }
        todo = rest;
    }
}
