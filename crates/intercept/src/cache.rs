//! Cache files of rewritten texts, and the way an image gets into the address space.
//!
//! A cache directory belongs to the user alone (owner and mode are checked, no symbolic link is
//! followed); a file appears in it complete or not at all. Where files cannot be kept or mapped
//! executable, the same bytes come from a memory file; where that is forbidden too, the text is
//! changed in place.

use crate::image::{self, Layout, Plan};
use crate::modules::Module;
use crate::os::{self, Fd, PAGE};
use core::ffi::CStr;
use sys::{Errno, Result, syscall};

/// How a module's text was replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A cache file made by an earlier process.
    CacheFile,
    /// A cache file made by this process.
    NewCacheFile,
    /// A memory file of this process.
    MemoryFile,
    /// Changed in place.
    InPlace,
}

/// A path or file name on the stack, NUL-terminated.
pub(crate) struct Name {
    bytes: [u8; 256],
    len: usize,
}

impl Name {
    pub(crate) fn new(parts: &[&[u8]]) -> Option<Name> {
        let mut name = Name {
            bytes: [0; 256],
            len: 0,
        };
        for part in parts {
            name.bytes
                .get_mut(name.len..name.len + part.len())?
                .copy_from_slice(part);
            name.len += part.len();
        }
        (name.len < name.bytes.len() && !name.bytes[..name.len].contains(&0)).then_some(name)
    }

    pub(crate) fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// `value` in decimal, in `buf`.
pub(crate) fn decimal(mut value: u64, buf: &mut [u8; 20]) -> &[u8] {
    let mut at = buf.len();
    loop {
        at -= 1;
        buf[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &buf[at..];
        }
    }
}

/// Opens `name` in `parent` as a directory that belongs to the user and to nobody else, making it
/// if need be.
fn private_directory(parent: &Fd, name: &CStr) -> Result<Fd> {
    let flags = os::O_DIRECTORY | os::O_NOFOLLOW;
    let dir = match Fd::open(Some(parent), name, flags, 0) {
        Err(Errno::ENOENT) => {
            // SAFETY: the name is terminated and outlives the call.
            let made = unsafe { syscall!(crate::nr::MKDIRAT, parent.raw(), name.as_ptr(), 0o700) };
            match made {
                Ok(_) | Err(Errno::EEXIST) => Fd::open(Some(parent), name, flags, 0)?,
                Err(errno) => return Err(errno),
            }
        }
        other => other?,
    };
    let stat = dir.stat()?;
    if stat.uid != os::geteuid() || stat.mode & 0o077 != 0 {
        return Err(Errno::EACCES);
    }
    Ok(dir)
}

/// Directories that may hold `daos-UID/cache`, best first; later ones serve where there is no
/// writable disk.
const BASES: [&CStr; 3] = [c"/var/tmp", c"/tmp", c"/dev/shm"];

/// The cache directory: `named`, whose parent must exist, or `daos-UID/cache` in one of [`BASES`].
pub(crate) fn directory(named: Option<&CStr>) -> Result<Fd> {
    let flags = os::O_DIRECTORY;
    if let Some(path) = named {
        let bytes = path.to_bytes();
        let cut = bytes
            .iter()
            .rposition(|&b| b == b'/')
            .ok_or(Errno::EINVAL)?;
        let parent = Name::new(&[&bytes[..cut.max(1)]]).ok_or(Errno::ENAMETOOLONG)?;
        let last = Name::new(&[&bytes[cut + 1..]]).ok_or(Errno::ENAMETOOLONG)?;
        let parent = Fd::open(None, parent.as_cstr(), flags, 0)?;
        return private_directory(&parent, last.as_cstr());
    }
    let mut digits = [0; 20];
    let uid = decimal(u64::from(os::geteuid()), &mut digits);
    let user = Name::new(&[b"daos-", uid]).ok_or(Errno::ENAMETOOLONG)?;
    let mut last = Errno::ENOENT;
    for base in BASES {
        let made = Fd::open(None, base, flags, 0)
            .and_then(|base| private_directory(&base, user.as_cstr()))
            .and_then(|user| private_directory(&user, c"cache"));
        match made {
            Ok(dir) => return Ok(dir),
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex(value: u64) -> [u8; 16] {
    core::array::from_fn(|i| HEX[(value >> (60 - 4 * i)) as usize & 15])
}

/// Name of the cache file of `module` at the given entry of `image::DISTANCES`.
pub(crate) fn file_name(module: &Module, config: u64, distance_index: usize) -> Option<Name> {
    let mut id = [0; 2 * crate::modules::BUILD_ID_MAX];
    let build_id = module.build_id.get(..module.build_id_len)?;
    for (pair, byte) in id.chunks_exact_mut(2).zip(build_id) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    let which = [b'0' + distance_index as u8];
    Name::new(&[
        b"text-",
        &id[..2 * module.build_id_len],
        b"-",
        &hex(config),
        b"-",
        &which,
    ])
}

/// Name of the file that says whether the objects of identity `key` make raw system calls.
pub(crate) fn verdict_name(key: u64, verdict: &[u8]) -> Option<Name> {
    Name::new(&[b"raw-", &hex(key), b"-", verdict])
}

/// An open image file whose header and table are mapped for good, read-only.
pub(crate) struct Opened {
    pub(crate) file: Fd,
    pub(crate) head: &'static [u8],
    pub(crate) layout: Layout,
}

/// Maps head and table of `file` and checks them.
fn open_image(file: Fd, len: u64, module: &Module, plan: &Plan, distance: isize) -> Result<Opened> {
    // The table of any module we know fits; a longer one is mapped by its real length.
    let head_len = (len.min(64 * PAGE as u64)) as usize;
    // SAFETY: a fresh private mapping.
    let at = unsafe {
        os::map(
            0,
            head_len,
            os::PROT_READ,
            os::MAP_PRIVATE,
            Some((&file, 0)),
        )?
    };
    // SAFETY: just mapped, and kept; the file is only ever replaced as a whole, never changed.
    let head = unsafe { core::slice::from_raw_parts(at as *const u8, head_len) };
    match image::check(head, len, module, plan, distance) {
        Some(layout) => Ok(Opened { file, head, layout }),
        None => {
            // SAFETY: the slice is not used any more.
            unsafe { os::unmap(at, head_len) };
            Err(Errno::EINVAL)
        }
    }
}

/// Opens the cache file `name`, which must belong to the user and not be writable by others.
pub(crate) fn open(
    dir: &Fd,
    name: &Name,
    module: &Module,
    plan: &Plan,
    distance: isize,
) -> Result<Opened> {
    let file = Fd::open(Some(dir), name.as_cstr(), os::O_NOFOLLOW, 0)?;
    let stat = file.stat()?;
    let regular = stat.mode & 0o170_000 == 0o100_000;
    if !regular || stat.uid != os::geteuid() || stat.mode & 0o022 != 0 {
        return Err(Errno::EACCES);
    }
    open_image(file, stat.size, module, plan, distance)
}

/// Writes `image` under a name of its own, then renames it to `name`.
pub(crate) fn store(dir: &Fd, name: &Name, image: &[u8]) -> Result<()> {
    let mut digits = [0; 20];
    let pid = decimal(u64::from(os::getpid()), &mut digits);
    let temporary = Name::new(&[name.as_cstr().to_bytes(), b".", pid]).ok_or(Errno::EINVAL)?;
    let flags = os::O_WRONLY | os::O_CREAT | os::O_EXCL | os::O_NOFOLLOW;
    let file = Fd::open(Some(dir), temporary.as_cstr(), flags, 0o600)?;
    let from = temporary.as_cstr().as_ptr();
    let written = file
        .write_all(image)
        .and_then(|()| file.sync())
        .and_then(|()| {
            let to = name.as_cstr().as_ptr();
            // SAFETY: both names are terminated and outlive the call.
            unsafe { syscall!(crate::nr::RENAMEAT, dir.raw(), from, dir.raw(), to) }
        });
    if written.is_err() {
        // SAFETY: as above. A file left behind is only clutter.
        let removed = unsafe { syscall!(crate::nr::UNLINKAT, dir.raw(), from, 0) };
        debug_assert!(removed.is_ok());
    }
    written.map(drop)
}

/// Puts the bytes of an image file, which cannot be mapped executable, into a memory file.
pub(crate) fn copy_to_memory(opened: &Opened, module: &Module, plan: &Plan) -> Result<Opened> {
    let layout = &opened.layout;
    let len = layout.stubs_at + layout.stubs_len;
    // SAFETY: a fresh private mapping.
    let at = unsafe {
        os::map(
            0,
            len,
            os::PROT_READ,
            os::MAP_PRIVATE,
            Some((&opened.file, 0)),
        )?
    };
    // SAFETY: the file has that length, as checked when it was opened.
    let image = unsafe { core::slice::from_raw_parts(at as *const u8, len) };
    let copied = memory(image, module, plan, layout.distance);
    // SAFETY: the slice is not used any more.
    unsafe { os::unmap(at, len) };
    copied
}

/// Puts `image` into a memory file.
pub(crate) fn memory(
    image: &[u8],
    module: &Module,
    plan: &Plan,
    distance: isize,
) -> Result<Opened> {
    let file = Fd::memory(c"pil4dfs-text")?;
    file.write_all(image)?;
    open_image(file, image.len() as u64, module, plan, distance)
}
