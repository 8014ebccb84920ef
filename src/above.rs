//! Directories above the mount point that the kernel lacks.
//!
//! A small tree in `/dev/shm` stands for them: read-only directories that contain the next component
//! and nothing else, down to the mount point. Calls on such a directory are the kernel's, under
//! the tree's path, so descriptors on it are ordinary ones that can be listed, duplicated and
//! inherited. Only the names have to be translated, and what would change something is refused.

use crate::abi::{self, nr};
use crate::dispatch::{Served, Stop};
use crate::kernel::{self, Text, addr, addr_mut, call, text};
use crate::mounts;
use crate::route::{self, Arg};
use core::sync::atomic::{AtomicBool, Ordering};
use intercept::Call;
use std::vec::Vec;
use sys::{Errno, Result};

const PLACE: &[u8] = b"/dev/shm/daos-above-";
const MODE: u32 = 0o555;

/// The program may have a descriptor or its working directory in the tree: relative names must be
/// seen here, lest something be made there.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// Whether relative paths may begin in the tree.
pub(crate) fn in_use() -> bool {
    IN_USE.load(Ordering::Relaxed)
}

/// Relative paths may begin in the tree from now on.
pub(crate) fn note_use() {
    IN_USE.store(true, Ordering::Relaxed);
    intercept::paths::pass_all(true);
}

/// Path of the tree that stands for `/`.
fn tree() -> Text<80> {
    let mount = mounts::path().unwrap_or(b"/");
    let hash = mount.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let user = kernel::raw(nr::GETEUID, [0; 6]);
    text!(80, "/dev/shm/daos-above-{user}-{hash:016x}")
}

/// The path that the program knows for one in the tree.
pub(crate) fn shown(path: &[u8]) -> Option<&[u8]> {
    if !path.starts_with(PLACE) {
        return None;
    }
    match path.strip_prefix(tree().bytes())? {
        b"" => Some(b"/"),
        rest if rest.first() == Some(&b'/') => Some(rest),
        _ => None,
    }
}

/// Length of the path of the ancestor with `depth` components.
fn length(depth: usize) -> usize {
    let mount = mounts::path().unwrap_or(&[]);
    let mut slashes = mount.iter().enumerate().filter(|(_, b)| **b == b'/');
    slashes.nth(depth).map_or(mount.len(), |(at, _)| at)
}

/// Path by which the kernel finds the ancestor with `depth` components, with its NUL.
pub(crate) fn path(depth: usize) -> Result<Vec<u8>> {
    if depth == 0 {
        return Ok(b"/\0".to_vec());
    }
    let mount = mounts::path().ok_or(Errno::ENOENT)?;
    let tree = tree();
    build(tree.bytes(), mount)?;
    let mut path = tree.bytes().to_vec();
    path.extend_from_slice(mount.get(..length(depth)).unwrap_or(mount));
    path.push(0);
    Ok(path)
}

/// Makes the tree unless it is there, and all of it: under another name first.
fn build(tree: &[u8], mount: &[u8]) -> Result<()> {
    if is_sound(tree) {
        return Ok(());
    }
    let mut fresh = tree.to_vec();
    fresh.extend_from_slice(text!(24, "-{}", kernel::gettid()).bytes());
    let top = fresh.len();
    let ends = |path: &[u8]| -> Vec<usize> {
        let below = path.iter().enumerate().skip(top + 1);
        let slashes = below.filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        core::iter::once(top)
            .chain(slashes)
            .chain([path.len()])
            .collect()
    };
    fresh.extend_from_slice(mount);
    let ends = ends(&fresh);
    let at = |end: usize| {
        let mut path = fresh.get(..end).unwrap_or(&[]).to_vec();
        path.push(0);
        path
    };
    let set_mode = |end: usize, mode: u32| {
        let path = at(end);
        call!(nr::FCHMODAT, kernel::abi_cwd(), addr(path.as_slice()), mode)
    };
    for &end in &ends {
        let path = at(end);
        match call!(nr::MKDIRAT, kernel::abi_cwd(), addr(path.as_slice()), 0o755) {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    for &end in ends.iter().rev() {
        set_mode(end, MODE)?;
    }
    let (own, mut name) = (at(top), tree.to_vec());
    name.push(0);
    if call!(nr::RENAME, addr(own.as_slice()), addr(name.as_slice())).is_err() {
        // Somebody was faster. A directory must be writable to be emptied.
        for &end in &ends {
            set_mode(end, 0o755)?;
        }
        for &end in ends.iter().rev() {
            let path = at(end);
            let flag = abi::AT_REMOVEDIR;
            call!(nr::UNLINKAT, kernel::abi_cwd(), addr(path.as_slice()), flag)?;
        }
    }
    if is_sound(tree) {
        Ok(())
    } else {
        Err(Errno::ENOENT)
    }
}

/// Whether the tree is there and nobody else's.
fn is_sound(tree: &[u8]) -> bool {
    let mut name = tree.to_vec();
    name.push(0);
    let mut stat = abi::Stat::default();
    let asked = call!(
        nr::NEWFSTATAT,
        kernel::abi_cwd(),
        addr(name.as_slice()),
        addr_mut(&mut stat),
        abi::AT_SYMLINK_NOFOLLOW
    );
    asked.is_ok()
        && stat.mode == abi::S_IFDIR | MODE
        && stat.uid == kernel::raw(nr::GETEUID, [0; 6]) as u32
}

/// A call on an ancestor: the kernel's on the tree if it changes nothing.
pub(crate) fn serve(c: &Call, arg: Arg, depth: usize) -> Served {
    let number = route::number(c);
    if let Some(errno) = refusal(number, c) {
        return Err(errno.into());
    }
    let path = path(depth)?;
    note_use();
    let mut args = c.args;
    route::redirect(&mut args, arg, &path);
    Err(Stop::Kernel(kernel::raw(number, args)))
}

/// Why a call on a directory that nobody may change fails; `None` if it changes nothing.
fn refusal(number: usize, c: &Call) -> Option<Errno> {
    let opens = |flags: usize| {
        let flags = flags as u32;
        let changes = flags & (abi::O_ACCMODE | abi::O_CREAT | abi::O_TRUNC) != 0;
        (flags & abi::O_PATH == 0 && changes).then_some(Errno::EISDIR)
    };
    match number {
        nr::OPEN => opens(c.args[1]),
        nr::OPENAT => opens(c.args[2]),
        nr::OPENAT2 => opens(crate::user::get::<u64>(c.args[2]).unwrap_or(0) as usize),
        nr::STAT
        | nr::LSTAT
        | nr::NEWFSTATAT
        | nr::STATX
        | nr::STATFS
        | nr::CHDIR
        | nr::ACCESS
        | nr::FACCESSAT
        | nr::FACCESSAT2
        | nr::READLINK
        | nr::READLINKAT
        | nr::GETXATTR
        | nr::LGETXATTR
        | nr::LISTXATTR
        | nr::LLISTXATTR
        | nr::GETXATTRAT
        | nr::LISTXATTRAT => None,
        nr::MKDIR | nr::MKDIRAT | nr::MKNOD | nr::MKNODAT | nr::SYMLINK | nr::SYMLINKAT => {
            Some(Errno::EEXIST)
        }
        _ => Some(Errno::EROFS),
    }
}

/// Where a path relative to a directory of the tree leads, if not to another one or into the mount:
/// the kernel's path; `ENOENT` below the directory.
pub(crate) fn outside(dir: &[u8], path: &[u8]) -> Result<Vec<u8>> {
    let mut dir = dir;
    let mut rest = path;
    let mut left = false;
    loop {
        let start = rest.iter().position(|&b| b != b'/').unwrap_or(rest.len());
        rest = rest.get(start..).unwrap_or(&[]);
        let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
        match rest.get(..end) {
            Some(b"..") => {
                let up = dir.iter().rposition(|&b| b == b'/').unwrap_or(0);
                dir = dir.get(..up).unwrap_or(&[]);
                left = true;
            }
            Some(b".") => {}
            _ => break,
        }
        rest = rest.get(end..).unwrap_or(&[]);
    }
    if !left {
        return Err(Errno::ENOENT);
    }
    let mut whole = dir.to_vec();
    whole.push(b'/');
    whole.extend_from_slice(rest);
    whole.push(0);
    Ok(whole)
}
