//! The `attach` file of a pool: which shared memory runs it now, and a lock per attached process.
//!
//! Byte 0 is locked exclusively while somebody decides or recovers, byte 1 while somebody changes
//! the pool map. Every attached process holds a shared lock on the byte of its process number behind
//! [`PROCESS_BYTES`]. These locks are open-file-description locks: they end with the last
//! descriptor, a forked child keeps its parent's, and a program that closes everything loses
//! them. So they never prove that a process is dead: they only refuse.

use crate::system::fd::{Fd, errno, open, open_at, open_dir, write_all_at};
use crate::system::home::{Home, checked_body, decode_mark, mark};
use crate::system::{SystemError, checksum};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use sys::ofd_lock::{self, Command, Flock};
use sys::{Errno, Result};

const NAME: &str = "attach";
/// The same in the directory of a rank that lies elsewhere.
const RANK_NAME: &str = "home";
const MAGIC: &str = "DAOS-EMBEDDED-ATTACH 2";
const BYTES_MAX: usize = 16 << 10;
/// Offset of process 0's lock byte.
const PROCESS_BYTES: i64 = 1 << 20;
/// More process numbers than Linux hands out.
const PROCESSES: i64 = 1 << 23;
/// Offset of container 0's lock byte.
const CONTAINER_BYTES: i64 = 1 << 32;

fn lock(fd: &Fd, command: Command, kind: i16, start: i64, len: i64) -> Result<Flock> {
    ofd_lock::lock(fd.raw(), command, kind, start, len)
}

/// Who runs a pool: written by the process that brought it up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authority {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// `/etc/machine-id`, empty where there is none.
    pub machine: String,
    /// Instance number of the shared memory.
    pub instance: u64,
    /// Mark of the file this was written to ([`crate::system::Home`]): a copy of the text does not
    /// count.
    pub mark: [u64; 2],
    /// Path of the shared memory.
    pub arena: PathBuf,
}

impl Authority {
    /// This machine, this boot, and the given shared memory.
    pub fn here(instance: u64, arena: &Path) -> Authority {
        Authority {
            boot: boot(),
            machine: first_line("/etc/machine-id"),
            instance,
            mark: [0; 2],
            arena: arena.to_owned(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = format!(
            "{MAGIC}\nboot {}\nmachine {}\ninstance {:016x}\nmark {:016x} {:016x}\narena ",
            self.boot, self.machine, self.instance, self.mark[0], self.mark[1]
        )
        .into_bytes();
        out.extend_from_slice(self.arena.as_os_str().as_bytes());
        let crc = checksum(&out);
        out.extend_from_slice(format!("\0crc32 {crc:08x}\n").as_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Authority> {
        let mut lines = checked_body(bytes)?.splitn(6, |b| *b == b'\n');
        let mut field = |key: &str| lines.next()?.strip_prefix(key.as_bytes());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        field(MAGIC)?;
        Some(Authority {
            boot: text(field("boot ")?)?,
            machine: text(field("machine ")?)?,
            instance: u64::from_str_radix(&text(field("instance ")?)?, 16).ok()?,
            mark: decode_mark(field("mark ")?)?,
            arena: PathBuf::from(OsString::from_vec(field("arena ")?.to_vec())),
        })
    }
}

/// Which start of the machine this is.
fn boot() -> String {
    first_line("/proc/sys/kernel/random/boot_id")
}

/// First line of a small system file; empty if it cannot be read.
fn first_line(path: &str) -> String {
    let read = || -> Result<String> {
        let file = open(Path::new(path), OFlags::RDONLY, Mode::empty())?;
        let mut bytes = [0; 128];
        let count = rustix::io::read(&file, &mut bytes).map_err(errno)?;
        let text = bytes.get(..count).unwrap_or_default();
        let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
        Ok(String::from_utf8_lossy(line).into_owned())
    };
    read().unwrap_or_default()
}

/// What a process that wants to attach finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The shared memory of this authority is alive: attach to it.
    Warm(Authority),
    /// Nobody runs the pool: bring it up from the rank files, then [`AttachFile::write`].
    Cold,
}

/// The open `attach` file of a pool, or the `home` file of a rank that lies elsewhere.
#[derive(Debug)]
pub struct AttachFile {
    file: Fd,
    dir: PathBuf,
    name: &'static str,
    mark: [u64; 2],
}

/// Exclusive right to decide; ends when dropped.
#[derive(Debug)]
pub struct AttachLock<'a>(&'a AttachFile, i64);

impl Drop for AttachLock<'_> {
    fn drop(&mut self) {
        // The descriptor is open, so unlocking cannot fail.
        let unlocked = lock(&self.0.file, Command::Set, ofd_lock::UNLOCK, self.1, 1);
        debug_assert!(unlocked.is_ok());
    }
}

impl AttachFile {
    /// Opens or makes the `attach` file of a pool directory.
    pub fn open(dir: &Path) -> core::result::Result<AttachFile, SystemError> {
        AttachFile::open_as(dir, NAME, OFlags::CREATE)
    }

    /// The `attach` file of a directory that is one.
    pub(crate) fn open_existing(dir: &Path) -> core::result::Result<AttachFile, SystemError> {
        AttachFile::open_as(dir, NAME, OFlags::empty())
    }

    /// Opens or makes the `home` file of a rank.
    pub(crate) fn of_rank(dir: &Path) -> core::result::Result<AttachFile, SystemError> {
        AttachFile::open_as(dir, RANK_NAME, OFlags::CREATE)
    }

    /// The `home` file of a rank that has one.
    pub(crate) fn of_rank_existing(dir: &Path) -> core::result::Result<AttachFile, SystemError> {
        AttachFile::open_as(dir, RANK_NAME, OFlags::empty())
    }

    fn open_as(
        dir: &Path,
        name: &'static str,
        flags: OFlags,
    ) -> core::result::Result<AttachFile, SystemError> {
        let opened = open_dir(dir).map_err(|e| SystemError::io("open directory", dir, e))?;
        AttachFile::open_in(&opened, dir, name, flags)
    }

    /// As [`AttachFile::open`], in the directory as it is open already.
    pub(crate) fn open_at(
        opened: &Fd,
        dir: &Path,
    ) -> core::result::Result<AttachFile, SystemError> {
        AttachFile::open_in(opened, dir, NAME, OFlags::CREATE)
    }

    fn open_in(
        opened: &Fd,
        dir: &Path,
        name: &'static str,
        flags: OFlags,
    ) -> core::result::Result<AttachFile, SystemError> {
        let flags = OFlags::RDWR | flags;
        let file = open_at(opened, Path::new(name), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| SystemError::io("open attach file of", dir, e))?;
        let mark = mark(&file).map_err(|e| SystemError::io("stat attach file of", dir, e))?;
        Ok(AttachFile {
            file,
            dir: dir.to_owned(),
            name,
            mark,
        })
    }

    /// What tells this file from copies of it.
    pub(crate) fn mark(&self) -> [u64; 2] {
        self.mark
    }

    /// The device it lies on.
    pub(crate) fn device(&self) -> Option<u64> {
        Some(rustix::fs::fstat(&self.file).ok()?.st_dev)
    }

    /// The directory it lies in.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory and its mark.
    pub(crate) fn home(&self) -> Home {
        Home {
            dir: self.dir.clone(),
            mark: self.mark,
        }
    }

    fn io(&self, doing: &'static str, errno: Errno) -> SystemError {
        SystemError::io(doing, &self.dir, errno)
    }

    /// Waits for the right to decide; a pool destroyed meanwhile is `ENOENT`.
    pub fn lock(&self) -> core::result::Result<AttachLock<'_>, SystemError> {
        self.lock_byte(0)
    }

    /// Waits for the right to change the pool map; independent of [`AttachFile::lock`].
    pub(crate) fn lock_map(&self) -> core::result::Result<AttachLock<'_>, SystemError> {
        self.lock_byte(1)
    }

    fn lock_byte(&self, byte: i64) -> core::result::Result<AttachLock<'_>, SystemError> {
        lock(&self.file, Command::SetWait, ofd_lock::WRITE, byte, 1)
            .map_err(|e| self.io("lock attach file of", e))?;
        let lock = AttachLock(self, byte);
        let stat = rustix::fs::fstat(&self.file).map_err(|e| self.io("stat", errno(e)))?;
        if stat.st_nlink == 0 {
            return Err(self.io("attach destroyed pool", Errno::ENOENT));
        }
        Ok(lock)
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut part = [0; 1024];
        // One that is too large ends with no checksum.
        while bytes.len() < BYTES_MAX {
            match rustix::io::pread(&self.file, &mut part, bytes.len() as u64) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(part.get(..count)?),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        Some(bytes)
    }

    /// The authority on file; `None` if there is none, it was cut by a crash, or it came here with
    /// a copy of the pool.
    pub fn read(&self) -> Option<Authority> {
        Authority::decode(&self.bytes()?).filter(|authority| authority.mark == self.mark)
    }

    /// The directory that a rank belongs to, from its `home` file.
    pub(crate) fn read_home(&self) -> Option<Home> {
        Home::decode(&self.bytes()?)
    }

    /// Writes the authority; only while holding the lock.
    pub fn write(
        &self,
        lock: &AttachLock<'_>,
        authority: &Authority,
    ) -> core::result::Result<(), SystemError> {
        let mark = self.mark;
        let authority = Authority {
            mark,
            ..authority.clone()
        };
        self.write_bytes(lock, &authority.encode())
    }

    /// Writes the directory that a rank belongs to.
    pub(crate) fn write_home(
        &self,
        lock: &AttachLock<'_>,
        home: &Home,
    ) -> core::result::Result<(), SystemError> {
        self.write_bytes(lock, &home.encode())
    }

    fn write_bytes(
        &self,
        _lock: &AttachLock<'_>,
        bytes: &[u8],
    ) -> core::result::Result<(), SystemError> {
        let write = || -> Result<()> {
            write_all_at(&self.file, bytes, 0)?;
            rustix::fs::ftruncate(&self.file, bytes.len() as u64).map_err(errno)?;
            rustix::fs::fsync(&self.file).map_err(errno)
        };
        write().map_err(|e| self.io("write attach file of", e))
    }

    /// Marks this process as attached for as long as the file stays open.
    pub fn hold(&self) -> core::result::Result<(), SystemError> {
        let process = i64::from(rustix::process::getpid().as_raw_nonzero().get());
        lock(
            &self.file,
            Command::Set,
            ofd_lock::READ,
            PROCESS_BYTES + process,
            1,
        )
        .map(|_| ())
        .map_err(|e| self.io("lock attach file of", e))
    }

    /// A process that holds the pool through another open file, as numbered where it runs.
    pub fn holder(&self) -> core::result::Result<Option<u32>, SystemError> {
        let found = lock(
            &self.file,
            Command::Get,
            ofd_lock::WRITE,
            PROCESS_BYTES,
            PROCESSES,
        )
        .map_err(|e| self.io("query attach file of", e))?;
        let process = u32::try_from((found.start - PROCESS_BYTES).max(0)).unwrap_or(0);
        Ok((found.kind != ofd_lock::UNLOCK).then_some(process))
    }

    /// Marks a container as open in this process for as long as the file stays open.
    pub(crate) fn hold_container(&self, index: u32) -> core::result::Result<(), SystemError> {
        lock(
            &self.file,
            Command::Set,
            ofd_lock::READ,
            CONTAINER_BYTES + i64::from(index),
            1,
        )
        .map(|_| ())
        .map_err(|e| self.io("lock attach file of", e))
    }

    /// Whether a container is marked as open through another open file.
    pub(crate) fn container_held(&self, index: u32) -> core::result::Result<bool, SystemError> {
        let at = CONTAINER_BYTES + i64::from(index);
        lock(&self.file, Command::Get, ofd_lock::WRITE, at, 1)
            .map(|found| found.kind != ofd_lock::UNLOCK)
            .map_err(|e| self.io("query attach file of", e))
    }

    /// Decides how to attach; only while holding the lock.
    ///
    /// `alive` says whether the shared memory of an authority exists and is of its instance.
    /// Errors: `OtherRuntime` when processes are attached through shared memory not seen here,
    /// `AttachDamaged` when nothing says which.
    pub fn standing(
        &self,
        _lock: &AttachLock<'_>,
        alive: &mut dyn FnMut(&Authority) -> bool,
    ) -> core::result::Result<Standing, SystemError> {
        let Some(authority) = self.read() else {
            return match self.holder()? {
                Some(process) => Err(SystemError::AttachDamaged {
                    path: self.dir.join(self.name),
                    process,
                }),
                None => Ok(Standing::Cold),
            };
        };
        if boot() == authority.boot && alive(&authority) {
            return Ok(Standing::Warm(authority));
        }
        match self.holder()? {
            // Locks do not survive a reboot: whoever holds one attached in this boot.
            Some(process) => Err(SystemError::OtherRuntime {
                path: self.dir.clone(),
                arena: authority.arena,
                process,
            }),
            None => Ok(Standing::Cold),
        }
    }

    /// The descriptor whose locks keep this process marked as attached.
    pub(crate) fn descriptor(&self) -> &Fd {
        &self.file
    }
}
