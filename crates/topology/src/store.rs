//! Small files shared by a user's processes on one node, in a directory others can write to too.
//!
//! A file is used only if it is a regular file of our own that nobody else may write: links are not
//! followed, FIFOs do not block, sizes are bounded.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::TopologyError;
use crate::launcher::Lookup;
use crate::tree::Tree;

const FILE_BYTES_MAX: usize = 4 << 20;

/// The directory for such files: `/dev/shm`, else the user's runtime directory.
#[must_use]
pub(crate) fn default_dir(variable: &Lookup<'_>) -> Option<PathBuf> {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() {
        return Some(shm);
    }
    variable("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute() && dir.is_dir())
}

/// The user the files belong to.
pub(crate) fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Opens `path` and checks that it may be trusted.
pub(crate) fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, TopologyError> {
    let error = |e: Errno| TopologyError::io(path.display(), e);
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(error)?;
    let stat = fs::fstat(&file).map_err(error)?;
    let sound = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_uid == uid()
        && stat.st_mode & 0o022 == 0;
    if !sound {
        return Err(error(Errno::PERM));
    }
    Ok(file)
}

/// The whole content, from the beginning; fails with EFBIG beyond 4 MiB.
pub(crate) fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let size = usize::try_from(fs::fstat(file)?.st_size).unwrap_or(0);
    if size > FILE_BYTES_MAX {
        return Err(Errno::FBIG);
    }
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Replaces the content.
pub(crate) fn write_all(file: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(file, rest, done as u64) {
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    fs::ftruncate(file, bytes.len() as u64)
}

/// FNV-1a, 64 bits: names files and finds damage, no protection against intent.
pub(crate) fn fnv64(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for part in parts {
        // The separator keeps ("a", "b") and ("ab", "") apart.
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

/// Number of the kernel's present run, without which shared files would survive a reboot.
pub(crate) fn boot_id() -> String {
    let tree = Tree::open(Path::new("/")).ok();
    let id = tree.and_then(|tree| tree.text("proc/sys/kernel/random/boot_id"));
    id.unwrap_or_else(|| "unknown".to_owned())
}

/// Which namespace this process is in (`net:[4026531840]`).
pub(crate) fn namespace(kind: &str) -> String {
    rustix::fs::readlink(format!("/proc/self/ns/{kind}"), Vec::new())
        .ok()
        .and_then(|link| link.into_string().ok())
        .unwrap_or_default()
}
