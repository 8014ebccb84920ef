//! Open file descriptions, shared by the processes that hold them.
//!
//! A description is a volatile 64-byte record: inode, flags, offset and the number of processes
//! that hold it. It lives as long as somebody holds it ([`holds`]); the inode's open count is the
//! number of its descriptions, but for those that only one process has ([`private`]). The offset moves
//! by compare-and-swap, so that two processes that share it never read or write the same range, and one
//! killed in between blocks nobody.

mod busy;
mod dead;
mod handover;
mod holds;
mod private;
mod seek;
mod sent;

pub(crate) use dead::TRIES as DEAD_TRIES;
pub use handover::ForkToken;
pub(crate) use holds::{State, lock as lock_of, proc, word_at};

use crate::inode::{self, Guard, high, link_word, low, pair, word};
use crate::map::file::File;
use crate::{Cred, Dfs, Ino, Ofd, perm, trunc};
pub(crate) use busy::Purpose;
use core::sync::atomic::{AtomicU64, Ordering};
use engine::{LockId, Pool, Rec, kind};
use sys::{Errno, Result};

/// Numbers of the words of a description's record.
pub(crate) mod field {
    /// Record tag.
    pub(crate) const TAG: u64 = 0;
    /// `generation:32 | record:32` of the inode.
    pub(crate) const INO: u64 = 1;
    /// `opener:32 | O_* flags:32`.
    pub(crate) const FLAGS: u64 = 2;
    /// Byte offset; of a directory the cookie.
    pub(crate) const OFFSET: u64 = 3;
    /// `holding processes:32 | on their way in messages:32`.
    pub(crate) const HOLDS: u64 = 4;
    /// Directory: where the cookie was found last, a hint.
    pub(crate) const HINT: u64 = 5;
    /// Inode of the kernel's file behind its descriptors, once it was sent (`sent`).
    pub(crate) const SENT: u64 = 6;
    /// Where a description is that only one process has: `process slot + 1:32 | place:32`
    /// (`private`); 0 = it is one like any other.
    pub(crate) const HOME: u64 = 7;
}

/// Numbers that a description can have: below this.
pub const OFDS_MAX: usize = engine::RECORDS_MAX;
/// Bytes of a description's record.
const OFD_BYTES: u64 = 64;
/// In the opener's half of the flags word: opened by a privileged process.
const PRIVILEGED: u32 = 1;
/// In the same half: a program runs from the file.
const PROGRAM: u32 = 2;

/// `O_ACCMODE` and friends, as `open(2)` has them on Linux.
pub(crate) mod flag {
    pub(crate) const ACCMODE: u32 = 0o3;
    pub(crate) const WRONLY: u32 = 0o1;
    pub(crate) const RDWR: u32 = 0o2;
    pub(crate) const TRUNC: u32 = 0o1000;
    pub(crate) const CREAT: u32 = 0o100;
    pub(crate) const APPEND: u32 = 0o2000;
    pub(crate) const NONBLOCK: u32 = 0o4000;
    pub(crate) const DSYNC: u32 = 0o10000;
    pub(crate) const ASYNC: u32 = 0o20000;
    pub(crate) const NOATIME: u32 = 0o1000000;
    pub(crate) const CLOEXEC: u32 = 0o2000000;
    pub(crate) const PATH: u32 = 0o10000000;
    /// Differ between processors.
    pub(crate) const DIRECT: u32 = if cfg!(target_arch = "aarch64") {
        0o200000
    } else {
        0o40000
    };
    pub(crate) const DIRECTORY: u32 = if cfg!(target_arch = "aarch64") {
        0o40000
    } else {
        0o200000
    };
    /// What `fcntl(F_SETFL)` may change.
    pub(crate) const SETTABLE: u32 = APPEND | NONBLOCK | ASYNC | DIRECT | NOATIME;
    /// What acts on opening alone and is not kept.
    pub(crate) const ONCE: u32 = TRUNC | CREAT | 0o200 | 0o400 | CLOEXEC;
}

/// What a descriptor's owner may ask about its description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfdInfo {
    /// The file.
    pub ino: Ino,
    /// Flags as `fcntl(F_GETFL)` gives them.
    pub flags: u32,
    /// Byte offset; of a directory the cookie.
    pub offset: u64,
    /// Type of the file (`S_IFMT` bits).
    pub kind: u32,
}

/// A description as found in one call.
#[derive(Clone, Copy)]
pub(crate) struct Open<'p> {
    pub(crate) pool: &'p Pool,
    pub(crate) ofd: Ofd,
    /// Offset of the record.
    pub(crate) at: u64,
    pub(crate) ino: Ino,
    pub(crate) flags: u32,
    opener: u32,
    /// Its record's tag, which no later description in the same record has.
    tag: u64,
}

impl<'p> Open<'p> {
    /// Open for reading.
    pub(crate) fn readable(&self) -> bool {
        matches!(self.flags & (flag::ACCMODE | flag::PATH), 0 | flag::RDWR)
    }

    /// Open for writing.
    pub(crate) fn writable(&self) -> bool {
        matches!(
            self.flags & (flag::ACCMODE | flag::PATH),
            flag::WRONLY | flag::RDWR
        )
    }

    /// Opened with `O_PATH`.
    pub(crate) fn is_path(&self) -> bool {
        self.flags & flag::PATH != 0
    }

    /// Whether writing takes the set-id bits away (`write(2)`): unless the writer is privileged; where
    /// nobody knows that, the process that opened.
    pub(crate) fn drops_suid(&self, dfs: &Dfs) -> bool {
        let privileged = dfs.is_privileged();
        !privileged.unwrap_or(self.opener & PRIVILEGED != 0)
    }

    /// The regular file; `EISDIR` for a directory, `EINVAL` for other kinds.
    pub(crate) fn file(&self) -> Result<File<'p>> {
        File::open(self.pool, self.ino)
    }

    /// `EBADF` if the description is gone, and its number perhaps another's. Under its inode's lock
    /// the answer stays true.
    pub(crate) fn still(&self) -> Result<()> {
        match self.pool.load(self.at + field::TAG * 8)? == self.tag {
            true => Ok(()),
            false => Err(Errno::EBADF),
        }
    }

    /// The offset word.
    pub(crate) fn offset(&self) -> Result<&'p AtomicU64> {
        self.pool.word(self.at + field::OFFSET * 8)
    }
}

impl Dfs {
    /// Which of the descriptions that have had this number it is.
    pub fn ofd_generation(&self, ofd: Ofd) -> Result<u32> {
        self.description(ofd)
            .map(|open| engine::tag_generation(open.tag))
    }

    /// Finds a description: `EBADF` if there is none.
    #[inline]
    pub(crate) fn description(&self, ofd: Ofd) -> Result<Open<'static>> {
        let at = Rec(ofd.0).offset();
        let load = |field: u64| self.pool.load(at + field * 8);
        if ofd.0 == 0 {
            return Err(Errno::EBADF);
        }
        let tag = load(field::TAG).or(Err(Errno::EBADF))?;
        if engine::tag_kind(tag) != kind::OFD {
            return Err(Errno::EBADF);
        }
        let ino = load(field::INO)?;
        let flags = load(field::FLAGS)?;
        if load(field::TAG)? != tag {
            return Err(Errno::EBADF);
        }
        Ok(Open {
            pool: self.pool,
            ofd,
            at,
            ino: Ino {
                number: u64::from(low(ino)),
                generation: high(ino),
            },
            flags: low(flags),
            opener: high(flags),
            tag,
        })
    }

    /// Opens an inode with the flags of `open(2)`; the calling process holds the description.
    ///
    /// `EACCES`, `EISDIR`, `ENOTDIR` (`O_DIRECTORY`), `ELOOP` for a symbolic link without `O_PATH`,
    /// `ENXIO` for fifos, sockets and devices, `EPERM` (`O_NOATIME` by a stranger), `ESTALE` when
    /// the inode is gone. `O_TRUNC` truncates.
    pub fn open(&self, cred: &Cred<'_>, ino: Ino, flags: u32) -> Result<Ofd> {
        let guard = Guard::of(self.pool, ino)?;
        check_kind(&guard, flags)?;
        if flags & flag::PATH == 0 {
            let mut mask = match flags & flag::ACCMODE {
                0 => perm::READ,
                flag::WRONLY => perm::WRITE,
                _ => perm::READ | perm::WRITE,
            };
            if flags & flag::TRUNC != 0 {
                mask |= perm::WRITE;
            }
            perm::check(cred, &guard, mask)?;
            if flags & flag::NOATIME != 0 && !perm::owns(cred, &guard) {
                return Err(Errno::EPERM);
            }
        }
        self.open_checked(cred, ino, flags, 0)
    }

    /// Opens a file the same call has just created: its mode does not bind the creator
    /// (`open(2)`).
    pub fn open_created(&self, cred: &Cred<'_>, ino: Ino, flags: u32) -> Result<Ofd> {
        check_kind(&Guard::of(self.pool, ino)?, flags)?;
        self.open_checked(cred, ino, flags & !flag::TRUNC, 0)
    }

    fn open_checked(&self, cred: &Cred<'_>, ino: Ino, flags: u32, opener: u32) -> Result<Ofd> {
        let purpose = Purpose::new(flags, opener);
        let opener = opener | if cred.privileged { PRIVILEGED } else { 0 };
        let kept = pair(opener, flags & !flag::ONCE);
        let ofd = match self.open_private(ino, kept, purpose)? {
            Some(ofd) => ofd,
            None => self.open_shared(ino, kept, purpose)?,
        };
        if flags & flag::TRUNC != 0 && flags & flag::PATH == 0 {
            let cut = File::open(self.pool, ino)
                .and_then(|file| trunc::set_size(&file, 0, !cred.privileged));
            if let Err(errno) = cut {
                self.ofd_release(ofd)?;
                return Err(errno);
            }
        }
        Ok(ofd)
    }

    fn open_shared(&self, ino: Ino, flags: u64, purpose: Purpose) -> Result<Ofd> {
        for _ in 0..dead::TRIES {
            match self.try_open(ino, flags, purpose) {
                Ok(ofd) if purpose == Purpose::Run => match self.is_written(ino) {
                    Ok(false) => return Ok(ofd),
                    written => {
                        self.ofd_release(ofd)?;
                        written?;
                    }
                },
                Err(Errno::ETXTBSY) => {}
                outcome => return outcome,
            }
            if !self.settle_dead_users(ino, purpose)? {
                break;
            }
        }
        Err(Errno::ETXTBSY)
    }

    fn try_open(&self, ino: Ino, flags: u64, purpose: Purpose) -> Result<Ofd> {
        let pool = self.pool;
        let rec = inode::record(ino)?;
        let target = pool.target_of(rec)?;
        let slot = self.process_slot()?;
        let mut tx = pool.tx(&[LockId::Target(target), holds::lock(pool, slot)])?;
        let base = inode::locate(pool, ino)?;
        let opened = pool.load(inode::at(base, word::OPEN))?;
        let nlink = low(pool.load(inode::at(base, word::MODE))?);
        let stays = nlink != 0 || high(opened) != 0 || opened & inode::LINKABLE != 0;
        if !stays && !self.is_had_privately(ino)? {
            // Its name leads elsewhere by now, or nowhere.
            return Err(Errno::ESTALE);
        }
        if purpose == Purpose::Run && self.has_private_writer(ino)? {
            return Err(Errno::ETXTBSY);
        }
        if purpose != Purpose::Read {
            purpose.begin(&mut tx, base)?;
        }
        let record = tx.alloc(kind::OFD, OFD_BYTES, target, 0)?;
        let words = [link_word(ino), flags, 0, pair(1, 0), 0, 0, 0];
        tx.put_volatile(record.offset() + 8, &words)?;
        // Who wanted to free it has not.
        let opened = (opened & !inode::DYING) + pair(1, 0);
        tx.set_volatile(inode::at(base, word::OPEN), opened)?;
        holds::add(&mut tx, slot, Ofd(record.0))?;
        tx.commit()?;
        Ok(Ofd(record.0))
    }

    /// File, flags, offset and type of a description.
    pub fn ofd_info(&self, ofd: Ofd) -> Result<OfdInfo> {
        let open = self.description(ofd)?;
        let mode = Guard::of(self.pool, open.ino)?.mode;
        Ok(OfdInfo {
            ino: open.ino,
            flags: open.flags,
            offset: open.offset()?.load(Ordering::Acquire),
            kind: mode & inode::S_IFMT,
        })
    }

    /// Changes what `fcntl(F_SETFL)` may change: append, non-blocking, async, direct, noatime.
    pub fn set_flags(&self, ofd: Ofd, flags: u32) -> Result<()> {
        let open = self.description(ofd)?;
        if open.is_path() {
            return Err(Errno::EBADF);
        }
        let word = self.pool.word(open.at + field::FLAGS * 8)?;
        let change = |old: u64| {
            let kept = u64::from(low(old) & !flag::SETTABLE | flags & flag::SETTABLE);
            Some(old >> 32 << 32 | kept)
        };
        // The closure never refuses.
        match word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change) {
            Ok(_) => Ok(()),
            Err(_) => Err(Errno::EIO),
        }
    }
}

/// Whether a file of this type may be opened with these flags.
fn check_kind(guard: &Guard, flags: u32) -> Result<()> {
    if flags & flag::DIRECTORY != 0 && !inode::is_dir(guard.mode) {
        return Err(Errno::ENOTDIR);
    }
    if flags & flag::PATH != 0 {
        return Ok(());
    }
    let writes = flags & flag::ACCMODE != 0 || flags & (flag::TRUNC | flag::CREAT) != 0;
    match guard.mode & inode::S_IFMT {
        inode::S_IFREG => Ok(()),
        inode::S_IFDIR if writes => Err(Errno::EISDIR),
        inode::S_IFDIR => Ok(()),
        inode::S_IFLNK => Err(Errno::ELOOP),
        _ => Err(Errno::ENXIO),
    }
}
