//! What tells a pool's directory from copies of it, and which directory the ranks on other devices
//! belong to.
//!
//! A copy of a pool has the same UUID, and its files say the same. It differs in the inode of its
//! `attach` file and in when that was made: its mark. The arena carries the mark of the directory
//! through which it was brought up, and so does the authority on file: neither is used through
//! another. (A snapshot of a whole file system has the marks of the original, and is told by its
//! device while both are mounted.) Ranks below the pool's directory are copied with it. Ranks elsewhere are not: each has a
//! file `home` that names the directory and its mark, and on whose bytes processes hold the same locks
//! as on the `attach` file.

use crate::system::attach::{AttachFile, AttachLock};
use crate::system::fd::errno;
use crate::system::{PoolDescriptor, SystemError, checksum};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, StatxFlags};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use sys::Errno;

const MAGIC: &str = "DAOS-EMBEDDED-HOME 1";

/// The directory of a pool in a registry, and its mark; empty for a pool that is in none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Home {
    /// The directory.
    pub dir: PathBuf,
    /// Inode and time of birth of its `attach` file.
    pub mark: [u64; 2],
}

/// What is true of a file and of none of its copies: it is kept by renaming and over restarts.
pub(crate) fn mark(file: impl AsFd) -> Result<[u64; 2], Errno> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    match rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, wanted).map_err(errno) {
        Ok(stat) => {
            let birth = i128::from(stat.stx_btime.tv_sec) * 1_000_000_000;
            let birth = birth as u64 + u64::from(stat.stx_btime.tv_nsec);
            let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
            Ok([stat.stx_ino, if known { birth } else { 0 }])
        }
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let stat = rustix::fs::fstat(&file).map_err(errno)?;
            Ok([stat.st_ino, 0])
        }
        Err(error) => Err(error),
    }
}

impl Home {
    /// The bytes of a rank's `home` file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let [inode, birth] = self.mark;
        let mut out = format!("{MAGIC}\nmark {inode:016x} {birth:016x}\ndir ").into_bytes();
        out.extend_from_slice(self.dir.as_os_str().as_bytes());
        let crc = checksum(&out);
        out.extend_from_slice(format!("\0crc32 {crc:08x}\n").as_bytes());
        out
    }

    /// Reads them; `None` if they are damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Home> {
        let body = checked_body(bytes)?;
        let rest = body.strip_prefix(MAGIC.as_bytes())?.strip_prefix(b"\n")?;
        let at = rest.iter().position(|b| *b == b'\n')?;
        let (mark, dir) = rest.split_at(at);
        let dir = dir.strip_prefix(b"\ndir ")?;
        Some(Home {
            mark: decode_mark(mark.strip_prefix(b"mark ")?)?,
            dir: PathBuf::from(OsString::from_vec(dir.to_vec())),
        })
    }

    /// Whether `other` is the same directory, perhaps by another name. Copies of a whole file system
    /// have equal marks: two of them that are mounted lie on different devices.
    pub(crate) fn is(&self, other: &Home) -> bool {
        let device = |home: &Home| {
            let file = AttachFile::open_existing(&home.dir).ok()?;
            (file.mark() == home.mark).then(|| file.device()).flatten()
        };
        self.mark == other.mark
            && (self.dir == other.dir
                || device(self).is_none_or(|one| device(other).is_none_or(|two| one == two)))
    }

    /// Whether the directory is still there and no copy.
    pub(crate) fn is_there(&self) -> bool {
        AttachFile::open_existing(&self.dir).is_ok_and(|file| file.mark() == self.mark)
    }
}

/// The text before the zero byte, if the checksum behind it is right.
pub(crate) fn checked_body(bytes: &[u8]) -> Option<&[u8]> {
    let at = bytes.iter().position(|b| *b == 0)?;
    let (body, trailer) = bytes.split_at(at);
    let sum = core::str::from_utf8(trailer.get(1..15)?)
        .ok()?
        .strip_prefix("crc32 ")?;
    (u32::from_str_radix(sum, 16) == Ok(checksum(body))).then_some(body)
}

/// Two numbers in hexadecimal digits.
pub(crate) fn decode_mark(text: &[u8]) -> Option<[u64; 2]> {
    let (inode, birth) = core::str::from_utf8(text).ok()?.split_once(' ')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some([number(inode)?, number(birth)?])
}

/// The directory other than `home` that a rank belongs to, if that is still there.
pub(crate) fn other_home(rank: &Path, home: &Home) -> Option<PathBuf> {
    let named = AttachFile::of_rank_existing(rank).ok()?.read_home()?;
    (named.mark != home.mark && named.is_there()).then_some(named.dir)
}

/// Names the home of a rank that was just made.
pub(crate) fn settle(rank: &Path, home: &Home) -> Result<(), SystemError> {
    let file = AttachFile::of_rank(rank)?;
    let lock = file.lock()?;
    file.write_home(&lock, home)
}

impl PoolDescriptor {
    /// Directories of the ranks that do not lie below the pool's own, as far as they are there.
    fn ranks_elsewhere(&self) -> impl Iterator<Item = &Path> {
        let ranks = self.ranks.iter().map(|rank| rank.path.as_path());
        ranks.filter(|path| !path.starts_with(&self.dir) && rustix::fs::stat(*path).is_ok())
    }

    /// Refuses if ranks belong to another directory of the registry, or of another.
    pub(crate) fn check_ranks(&self, home: &Home) -> Result<(), SystemError> {
        for rank in self.ranks_elsewhere() {
            if let Some(other) = other_home(rank, home) {
                return Err(SystemError::OtherHome {
                    rank: rank.to_owned(),
                    home: other,
                });
            }
        }
        Ok(())
    }

    /// The files by which ranks elsewhere are claimed.
    pub(crate) fn home_files(&self) -> Result<Vec<AttachFile>, SystemError> {
        self.ranks_elsewhere().map(AttachFile::of_rank).collect()
    }

    /// Makes the ranks elsewhere belong to `home`, whose directory nobody else may be bringing up:
    /// unless they belong to another that is there, or are in use.
    pub(crate) fn claim_ranks(
        &self,
        files: &[(&AttachFile, AttachLock<'_>)],
        home: &Home,
    ) -> Result<(), SystemError> {
        self.check_ranks(home)?;
        for (file, _) in files {
            let named = file.read_home();
            let ours = named.as_ref().is_some_and(|named| named.mark == home.mark);
            if let Some(process) = file.holder()?.filter(|_| !ours) {
                return Err(SystemError::RankInUse {
                    rank: file.dir().to_owned(),
                    process,
                });
            }
        }
        for (file, lock) in files {
            if file.read_home().as_ref() != Some(home) {
                file.write_home(lock, home)?;
            }
        }
        Ok(())
    }

    /// Marks this process as using ranks that lie elsewhere; the file stays open for it. Refuses if
    /// another directory has them meanwhile.
    pub(crate) fn hold_ranks(&self, home: &Home) -> Result<Option<AttachFile>, SystemError> {
        let Some(rank) = self.ranks_elsewhere().next() else {
            return Ok(None);
        };
        let file = AttachFile::of_rank(rank)?;
        file.hold()?;
        match file.read_home() {
            Some(other) if other.mark != home.mark => Err(SystemError::OtherHome {
                rank: rank.to_owned(),
                home: other.dir,
            }),
            _ => Ok(Some(file)),
        }
    }
}
