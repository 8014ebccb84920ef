//! Shared libraries in the mount that a program needs before it runs.
//!
//! The dynamic linker opens what `DT_NEEDED` names before any constructor runs, ours too, so it
//! would not find libraries in the mount. Before such a program is started its libraries are copied
//! to a directory of their own in `/dev/shm`, which goes first in `LD_LIBRARY_PATH`; the new image
//! removes it and puts the variable right as soon as our constructor runs.

use crate::abi::*;
use crate::kernel::{self, addr, addr_mut, call, text};
use crate::route::{self, Arg, Resolved};
use crate::user::NameRoom;
use crate::{cred, cwd, mounts};
use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, Ordering};
use dfs::{Dfs, Ino, IoVec, Ofd};
use intercept::Call;
use std::vec::Vec;
use sys::{Errno, Result};

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
/// Libraries one program is believed to need.
const LIBRARIES_MAX: usize = 512;
/// Program headers and dynamic entries that are looked at.
const TABLE_MAX: usize = 4096;
const NAME_MAX: usize = 1024;
const CHUNK: usize = 256 * 1024;

/// Where the copies lie; the directory's path without NUL.
const PLACE: &str = "/dev/shm/daos-lib-";
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A file to be read, in the mount or not; closed when it goes.
pub(crate) enum Source {
    Mount(&'static Dfs, Ofd),
    Kernel(i32),
}

impl Source {
    /// Opens a file of the mount for reading, whatever its mode.
    pub(crate) fn of(fs: &'static Dfs, ino: Ino) -> Result<Source> {
        fs.open(&cred::unchecked(), ino, 0)
            .map(|ofd| Source::Mount(fs, ofd))
    }

    /// Opens whatever the program would open under this NUL-terminated path.
    fn open(path: &[u8]) -> Option<Source> {
        let probe = Call {
            nr: nr::STAT,
            args: [addr(path), 0, 0, 0, 0, 0],
        };
        let mut room = NameRoom::new();
        match route::resolve(&probe, Arg::path(0), route::follow(true), &mut room).ok()? {
            Resolved::Ours(spot) => Source::of(spot.fs, spot.target?).ok(),
            Resolved::Kernel => {
                let path = CStr::from_bytes_with_nul(path).ok()?;
                kernel::open(path, O_CLOEXEC).ok().map(Source::Kernel)
            }
            Resolved::KernelPath(path) => {
                let path = CStr::from_bytes_with_nul(&path).ok()?;
                kernel::open(path, O_CLOEXEC).ok().map(Source::Kernel)
            }
            Resolved::Ancestor(_) | Resolved::Bad(_) => None,
        }
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Source::Mount(fs, ofd) => {
                let piece = [IoVec {
                    base: buffer.as_mut_ptr(),
                    len: buffer.len(),
                }];
                // SAFETY: the buffer is ours and valid for its length.
                unsafe { fs.pread(*ofd, &piece, at as i64) }
            }
            Source::Kernel(fd) => call!(nr::PREAD64, *fd, addr_mut(buffer), buffer.len(), at),
        }
    }

    /// Exactly `len` bytes; `None` if the file ends before.
    fn bytes(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = std::vec![0u8; len];
        let mut done = 0;
        while done < len {
            match self.read(at + done as u64, bytes.get_mut(done..)?) {
                Ok(0) | Err(_) => return None,
                Ok(more) => done += more,
            }
        }
        Some(bytes)
    }

    /// A string of the file, without NUL.
    fn string(&self, at: u64) -> Option<Vec<u8>> {
        let mut bytes = std::vec![0u8; NAME_MAX];
        let len = self.read(at, &mut bytes).ok()?;
        let end = bytes.get(..len)?.iter().position(|&b| b == 0)?;
        bytes.truncate(end);
        Some(bytes)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        match self {
            Source::Mount(fs, ofd) => {
                if fs.ofd_release(*ofd).is_err() {
                    core::hint::spin_loop();
                }
            }
            Source::Kernel(fd) => kernel::close(*fd),
        }
    }
}

/// What the dynamic section says.
#[derive(Default)]
struct Needs {
    names: Vec<Vec<u8>>,
    /// `DT_RUNPATH`, else `DT_RPATH`.
    path: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(
        bytes.get(at..at + 2)?.try_into().ok()?,
    )))
}

/// Reads the needs of a 64-bit little-endian ELF file; `None` for anything else.
fn needs(source: &Source) -> Option<Needs> {
    const HEADER: usize = 64;
    const PROGRAM_HEADER: usize = 56;
    let head = source.bytes(0, HEADER)?;
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (word(&head, 32)?, half(&head, 54)?, half(&head, 56)?);
    if size != PROGRAM_HEADER || count > TABLE_MAX {
        return None;
    }
    let table = source.bytes(table, count * PROGRAM_HEADER)?;
    let rows: Vec<&[u8]> = table.chunks_exact(PROGRAM_HEADER).collect();
    let kind = |row: &[u8]| {
        row.get(..4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    let dynamic = rows.iter().find(|row| kind(row) == Some(PT_DYNAMIC))?;
    let len = usize::try_from(word(dynamic, 32)?)
        .ok()?
        .min(TABLE_MAX * 16);
    let entries = source.bytes(word(dynamic, 8)?, len)?;
    let entries: Vec<(u64, u64)> = entries
        .chunks_exact(16)
        .map_while(|e| Some((word(e, 0)?, word(e, 8)?)))
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB)?.1;
    // The table is named by its address in memory.
    let strings = rows
        .iter()
        .filter(|row| kind(row) == Some(PT_LOAD))
        .find_map(|row| {
            let (offset, address, size) = (word(row, 8)?, word(row, 16)?, word(row, 32)?);
            let inside = strings.checked_sub(address).filter(|delta| *delta < size)?;
            Some(offset + inside)
        })?;
    let mut found = Needs::default();
    let mut rpath = Vec::new();
    for (tag, value) in entries {
        match tag {
            DT_NEEDED => found.names.push(source.string(strings + value)?),
            DT_RUNPATH => found.path = source.string(strings + value)?,
            DT_RPATH => rpath = source.string(strings + value)?,
            _ => {}
        }
    }
    if found.path.is_empty() {
        found.path = rpath;
    }
    Some(found)
}

/// Directories of a search path, `$ORIGIN` replaced; an empty one is the working directory.
fn directories(path: &[u8], origin: &[u8]) -> Vec<Vec<u8>> {
    if path.is_empty() {
        return Vec::new();
    }
    path.split(|&b| b == b':' || b == b';')
        .map(|dir| {
            for form in [b"$ORIGIN".as_slice(), b"${ORIGIN}"] {
                if let Some(rest) = dir.strip_prefix(form) {
                    return [origin, rest].concat();
                }
            }
            if dir.is_empty() {
                b".".to_vec()
            } else {
                dir.to_vec()
            }
        })
        .collect()
}

/// Whether a search path leads into the mount; nearly none does.
pub(crate) fn concerns(search_path: &[u8]) -> bool {
    let Some(mount) = mounts::path() else {
        return false;
    };
    directories(search_path, b"").iter().any(|dir| {
        if dir.first() == Some(&b'/') {
            dir.starts_with(mount)
        } else {
            cwd::base().is_some()
        }
    })
}

fn parent(path: &[u8]) -> &[u8] {
    let at = path.iter().rposition(|&b| b == b'/').unwrap_or(0);
    path.get(..at).unwrap_or(b"")
}

/// The first file of this name in the directories.
fn search(name: &[u8], dirs: &[Vec<u8>]) -> Option<(Source, Vec<u8>)> {
    dirs.iter().find_map(|dir| {
        let mut path = [dir.as_slice(), b"/", name, b"\0"].concat();
        let source = Source::open(&path)?;
        path.pop();
        Some((source, path))
    })
}

/// Copies the libraries in the mount that a program needs; the directory they are in, or `None` if
/// it needs none from there. `whole` is the program's path, `search_path` the value of
/// `LD_LIBRARY_PATH` it will see.
pub(crate) fn prepare(program: &Source, whole: &[u8], search_path: &[u8]) -> Option<Vec<u8>> {
    let mut todo = std::vec![(needs(program)?, whole.to_vec())];
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut place: Option<Vec<u8>> = None;
    while let Some((needs, path)) = todo.pop() {
        let origin = parent(&path).to_vec();
        let mut dirs = directories(search_path, &origin);
        dirs.extend(directories(&needs.path, &origin));
        for name in needs.names {
            if name.contains(&b'/') || seen.contains(&name) || seen.len() >= LIBRARIES_MAX {
                continue;
            }
            seen.push(name.clone());
            let Some((source, found)) = search(&name, &dirs) else {
                continue;
            };
            if matches!(source, Source::Mount(..)) {
                if place.is_none() {
                    place = make_place();
                }
                copy(&source, place.as_deref()?, &name).ok()?;
            }
            if let Some(more) = self::needs(&source) {
                todo.push((more, found));
            }
        }
    }
    place
}

fn make_place() -> Option<Vec<u8>> {
    const MODE: u32 = 0o700;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let place = text!(64, "{PLACE}{}-{serial}", kernel::gettid());
    let path = addr(place.c_str().to_bytes_with_nul());
    call!(nr::MKDIRAT, kernel::abi_cwd(), path, MODE).ok()?;
    Some(place.bytes().to_vec())
}

fn copy(source: &Source, place: &[u8], name: &[u8]) -> Result<()> {
    const MODE: u32 = 0o500;
    let path = [place, b"/", name, b"\0"].concat();
    let flags = O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC;
    let fd = call!(
        nr::OPENAT,
        kernel::abi_cwd(),
        addr(path.as_slice()),
        flags,
        MODE
    )? as i32;
    let copied = copy_all(source, fd);
    kernel::close(fd);
    copied
}

fn copy_all(source: &Source, fd: i32) -> Result<()> {
    let mut buffer = std::vec![0u8; CHUNK];
    let mut at = 0u64;
    loop {
        let len = source.read(at, &mut buffer)?;
        let mut rest = buffer.get(..len).ok_or(Errno::EIO)?;
        if rest.is_empty() {
            return Ok(());
        }
        at += len as u64;
        while !rest.is_empty() {
            let done = call!(nr::WRITE, fd, addr(rest), rest.len())?;
            rest = rest.get(done.max(1)..).unwrap_or(&[]);
        }
    }
}

/// Removes a directory of copies: the linker has mapped them, or the exec has failed.
pub(crate) fn remove(place: &[u8]) {
    if !place.starts_with(PLACE.as_bytes()) {
        return;
    }
    let path = [place, b"\0"].concat();
    let Ok(path) = CStr::from_bytes_with_nul(&path) else {
        return;
    };
    let Ok(dir) = kernel::open(path, O_DIRECTORY | O_CLOEXEC) else {
        return;
    };
    let mut buffer = [0u8; 4096];
    while let Ok(len @ 1..) = call!(nr::GETDENTS64, dir, addr_mut(&mut buffer), buffer.len()) {
        let mut rest = buffer.get(..len).unwrap_or(&[]);
        while let Some(record) = half(rest, 16).filter(|&record| record > 19) {
            if let Some(name) = rest.get(19..record)
                && !name.starts_with(b".\0")
                && !name.starts_with(b"..\0")
            {
                let _gone = kernel::raw(nr::UNLINKAT, [dir as usize, addr(name), 0, 0, 0, 0]);
            }
            rest = rest.get(record..).unwrap_or(&[]);
        }
    }
    kernel::close(dir);
    let path = addr(path.to_bytes_with_nul());
    let _gone = call!(nr::UNLINKAT, kernel::abi_cwd(), path, AT_REMOVEDIR);
}

/// At start: takes the directory of copies off `LD_LIBRARY_PATH` in the program's environment.
pub(crate) fn arrive(place: &[u8], environment: *const *const core::ffi::c_char) {
    const NAME: &[u8] = b"LD_LIBRARY_PATH=";
    remove(place);
    let mut slot = environment.cast::<*mut u8>();
    loop {
        // SAFETY: the environment is a NULL-terminated list of terminated strings that belongs to
        // the process; no other thread exists yet.
        unsafe {
            let entry = *slot;
            if entry.is_null() {
                return;
            }
            let bytes = CStr::from_ptr(entry.cast()).to_bytes_with_nul();
            if let Some(rest) = bytes.strip_prefix(NAME).and_then(|v| v.strip_prefix(place)) {
                let keep = rest.strip_prefix(b":").unwrap_or(rest);
                core::ptr::copy(keep.as_ptr(), entry.add(NAME.len()), keep.len());
                return;
            }
            slot = slot.add(1);
        }
    }
}
