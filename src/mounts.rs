//! The mount: its path in the program's name space and the container behind it.
//!
//! One mount per process, fixed at start. The container is attached at first use; until then, and
//! for good when attaching fails, nothing of the engine is touched.

use crate::abi::{O_CLOEXEC, O_DIRECTORY, Stat, nr};
use crate::config::{Origin, Wanted};
use crate::dispatch::Stop;
use crate::kernel::{self, call};
use crate::say::{self, Once};
use client::Backend;
use core::sync::atomic::{AtomicBool, Ordering};
use dfs::Dfs;
use std::boxed::Box;
use sys::set_once::SetOnce;

/// A configured mount.
pub(crate) struct Mount {
    wanted: Wanted,
    /// Value of `DAOS_EMBEDDED_ROOT`.
    root: Option<&'static [u8]>,
    shadow: Option<Shadow>,
}

/// What the kernel has at the mount path; the mount hides it.
#[derive(Clone, Copy)]
pub(crate) struct Shadow {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    /// A directory without entries: nothing but itself can be reached in its place.
    pub(crate) empty: bool,
}

static MOUNT: SetOnce<Mount> = SetOnce::new();
static ATTACHED: SetOnce<Attached> = SetOnce::new();
static OFF: AtomicBool = AtomicBool::new(false);

struct Attached {
    fs: &'static Dfs,
    id: u64,
}

/// Installs the mount; false when it gives way to a non-empty kernel directory.
pub(crate) fn configure(wanted: Wanted, root: Option<&'static [u8]>) -> bool {
    let mut path = [0u8; crate::config::MOUNT_PATH_MAX + 1];
    for (to, from) in path
        .iter_mut()
        .zip(wanted.path.iter().take(wanted.path_len))
    {
        *to = *from;
    }
    let shown = core::ffi::CStr::from_bytes_until_nul(&path).unwrap_or(c"/");
    let shadow = kernel_has(shown);
    if wanted.origin == Origin::Implied && shadow.is_some_and(|s| !s.empty) {
        return false;
    }
    MOUNT
        .init(|| {
            Some(Mount {
                wanted,
                root,
                shadow,
            })
        })
        .is_some()
}

fn kernel_has(path: &core::ffi::CStr) -> Option<Shadow> {
    let mut stat = Stat::default();
    let name = kernel::addr(path.to_bytes_with_nul());
    let out = kernel::addr_mut(&mut stat);
    call!(nr::NEWFSTATAT, kernel::abi_cwd(), name, out, 0).ok()?;
    Some(Shadow {
        dev: stat.dev,
        ino: stat.ino,
        empty: empty_directory(path),
    })
}

fn empty_directory(path: &core::ffi::CStr) -> bool {
    let Ok(fd) = kernel::open(path, O_DIRECTORY | O_CLOEXEC) else {
        return false;
    };
    let mut entries = [0u64; 64];
    let mut bytes = 0;
    let len = size_of_val(&entries);
    let mut calls = 0;
    while let Ok(n @ 1..) = call!(nr::GETDENTS64, fd, kernel::addr_mut(&mut entries), len) {
        bytes += n;
        calls += 1;
        if calls > 2 {
            break;
        }
    }
    kernel::close(fd);
    // "." and ".." are records of 24 bytes each.
    bytes <= 48
}

/// The mount path, absolute and without trailing slash; `None` when there is no usable mount.
#[inline]
pub(crate) fn path() -> Option<&'static [u8]> {
    let mount = MOUNT.get()?;
    if OFF.load(Ordering::Relaxed) {
        return None;
    }
    mount.wanted.path.get(..mount.wanted.path_len)
}

/// What the kernel has at the mount path.
pub(crate) fn shadow() -> Option<Shadow> {
    MOUNT.get()?.shadow
}

/// Whether the kernel has a file of its own at the mount path.
pub(crate) fn shadows() -> bool {
    shadow().is_some()
}

/// The directory that contains the mount point; `/` at the top.
pub(crate) fn parent() -> &'static [u8] {
    let path = path().unwrap_or(b"/");
    match path.iter().rposition(|&b| b == b'/') {
        Some(at @ 1..) => path.get(..at).unwrap_or(b"/"),
        _ => b"/",
    }
}

/// Whether the container has been attached already.
pub(crate) fn attached() -> Option<&'static Dfs> {
    ATTACHED.get().map(|a| a.fs)
}

/// Before a fork: another thread that attaches the container comes to the end of it. The child would
/// have half of what that takes, and nobody who goes on with it.
pub(crate) fn await_attach() {
    ATTACHED.await_maker();
}

/// The container, attached at the first call. [`Stop::Pass`] when that failed: it has been said
/// once on stderr, and from then on every call is the kernel's.
#[inline]
pub(crate) fn fs() -> Result<&'static Dfs, Stop> {
    match ATTACHED.get() {
        Some(attached) => Ok(attached.fs),
        None => attach(),
    }
}

/// Number that identifies the container across processes; 0 before it is attached.
pub(crate) fn id() -> u64 {
    ATTACHED.get().map_or(0, |a| a.id)
}

/// `st_dev` of every file in the mount: an unnamed device the kernel does not hand out.
pub(crate) fn device() -> u64 {
    crate::abi::makedev(0, 0x8_0000 | (id() & 0x7_ffff))
}

#[cold]
fn attach() -> Result<&'static Dfs, Stop> {
    let mount = MOUNT.get().ok_or(Stop::Pass)?;
    let made = ATTACHED.init(|| {
        match Backend::open(mount.root, mount.wanted.pool, mount.wanted.container) {
            Ok(backend) => {
                let fs = Box::leak(Box::new(backend)).fs();
                fs.ask_privilege(|| crate::cred::current().privileged);
                let id = fs.statfs().map_or(1, |s| s.fsid | 1);
                // Before anybody else can open anything.
                crate::handover::attaching(fs, id);
                Some(Attached { fs, id })
            }
            Err(error) => {
                OFF.store(true, Ordering::Relaxed);
                say::once(
                    Once::Attach,
                    format_args!("{error}; calls on the mount are passed through"),
                );
                None
            }
        }
    });
    match made {
        Some(attached) => Ok(attached.fs),
        None => Err(Stop::Pass),
    }
}
