//! The inode record: where each of its 32 words lies, and checked ways to read them.
//!
//! Rules every module of this crate keeps:
//! * An inode is named by [`Ino`]: number of its record and generation of its tag. [`locate`]
//!   turns it into an arena offset after checking the tag; what was then read without a lock
//!   holds only if [`still`] agrees afterwards. Under the lock of [`lock`] nothing moves.
//! * Words change only in a transaction that holds the inode's target lock (word 24 too: opening
//!   takes the lock, checks the tag, then counts; only a private description is open without,
//!   `ofd::private`).
//! * Words 22..32 are volatile: zero when a record is made and after the arena was rebuilt.
//!
//! Life: an inode with `nlink` 0 has no name. It is freed, with all it owns, as soon as its open
//! count is zero too: by `names::orphan::retire` within the transaction that removed the last name,
//! or later by `names::orphan::reclaim(pool, ino)`, which the last close calls. Both free the data
//! through `map::free_step(&mut Tx, inode_offset) -> Result<bool>`: frees as much of the map of a
//! regular file as the transaction has room for, clears the links, `true` once nothing is left.

use crate::Ino;
use engine::{LockId, Pool, Rec, kind, tag_generation, tag_kind};
use sys::{Errno, Result};

/// Bytes of an inode record.
pub(crate) const INODE_BYTES: u64 = 256;
/// Words of an inode record.
pub(crate) const INODE_WORDS: usize = 32;

/// Numbers of the words of an inode record; word 0 is its tag.
pub(crate) mod word {
    /// `mode:32 | nlink:32`. A directory has nlink 2 while it has a name, then 0.
    pub(crate) const MODE: u64 = 1;
    /// `uid:32 | gid:32`.
    pub(crate) const OWNER: u64 = 2;
    /// Bytes of a file or of a symbolic link's target.
    pub(crate) const SIZE: u64 = 3;
    /// Nanoseconds since the epoch, as are the next three.
    pub(crate) const MTIME: u64 = 4;
    /// Last change of the inode.
    pub(crate) const CTIME: u64 = 5;
    /// Last access.
    pub(crate) const ATIME: u64 = 6;
    /// Creation.
    pub(crate) const BTIME: u64 = 7;
    /// Device number of a device node.
    pub(crate) const RDEV: u64 = 8;
    /// Allocated blocks of 4 KiB in one copy.
    pub(crate) const BLOCKS: u64 = 9;
    /// File: root of the map, height in the link's tag. Directory: first chunk, symbolic link:
    /// record with the target, both as `generation:32 | record:32`. 0 = none.
    pub(crate) const DATA: u64 = 10;
    /// `generation:32 | record:32` of the directory that holds the (for files: first) name.
    pub(crate) const PARENT: u64 = 11;
    /// Directory: `entries:32 | subdirectories:32`.
    pub(crate) const COUNTS: u64 = 12;
    /// Directory: link of the last page chunk; 0 = the first chunk is the last.
    pub(crate) const LAST_CHUNK: u64 = 13;
    /// First extended attribute, `generation:32 | record:32`; 0 = none.
    pub(crate) const XATTR: u64 = 14;
    /// `file class:32 | chunk bytes:32`; of a directory: what its children get.
    pub(crate) const CLASS: u64 = 15;
    /// `directory class:32 | container index:32`.
    pub(crate) const CONTAINER: u64 = 16;
    /// Symbolic link: target of up to [`super::INLINE_TARGET`] bytes. Zero in other inodes.
    pub(crate) const INLINE: u64 = 17;
    /// First of the volatile words. File: two words, the blocks to bring to the devices
    /// (`io::durable`).
    pub(crate) const DIRTY: u64 = 22;
    /// `open count:32 | flags:32` ([`super::LINKABLE`], [`super::DYING`]). The open count is that of
    /// open descriptions in all processes, but for private ones (`ofd::private`).
    pub(crate) const OPEN: u64 = 24;
    /// Directory: link of the hash table, log2 of its slots in the link's tag; 0 = none.
    /// File: state of shared mappings.
    pub(crate) const TABLE: u64 = 25;
    /// Head of the list of record locks (`fcntl(2)`).
    pub(crate) const LOCKS: u64 = 26;
    /// Head of the list of whole-file locks (`flock(2)`).
    pub(crate) const FLOCKS: u64 = 27;
    /// Next inode that waits to be freed, `generation:32 | record:32`; in the root of a container
    /// the first one.
    pub(crate) const RECLAIM: u64 = 28;
    /// File: bumped by each change of data. Directory: granule of its own entry, a hint.
    pub(crate) const SEQUENCE: u64 = 29;
    /// Directory: chunk that may have room, a hint: 0 = none, all ones = the first, else a
    /// page link.
    pub(crate) const ROOM: u64 = 30;
    /// File: `descriptions that may write:32 | programs that run from it:32`; one half is zero.
    pub(crate) const BUSY: u64 = 30;
    /// Directory: slots of the hash table that are not empty.
    pub(crate) const TABLE_USED: u64 = 31;
    /// File: granules that are in the file of its mappings, a bit each.
    pub(crate) const FILLED: u64 = 31;
}

/// Longest target of a symbolic link kept in the inode itself, bytes.
pub(crate) const INLINE_TARGET: usize = 40;

/// Flag in word [`word::OPEN`]: made by `O_TMPFILE`, so a first name may still be given.
pub(crate) const LINKABLE: u64 = 1;

/// The other flag there: somebody has looked, or is looking, whether the inode is open, in order to free
/// it (`ofd::private`). Set under its lock by a store of its own, taken back by who opens it later.
pub(crate) const DYING: u64 = 2;

/// Type bits of a mode (`inode(7)`).
pub(crate) const S_IFMT: u32 = 0o170000;
/// FIFO.
pub(crate) const S_IFIFO: u32 = 0o010000;
/// Character device.
pub(crate) const S_IFCHR: u32 = 0o020000;
/// Directory.
pub(crate) const S_IFDIR: u32 = 0o040000;
/// Block device.
pub(crate) const S_IFBLK: u32 = 0o060000;
/// Regular file.
pub(crate) const S_IFREG: u32 = 0o100000;
/// Symbolic link.
pub(crate) const S_IFLNK: u32 = 0o120000;
/// Socket.
pub(crate) const S_IFSOCK: u32 = 0o140000;
/// Set-user-id.
pub(crate) const S_ISUID: u32 = 0o4000;
/// Set-group-id.
pub(crate) const S_ISGID: u32 = 0o2000;
/// Sticky.
pub(crate) const S_ISVTX: u32 = 0o1000;

/// Two 32-bit halves as one word.
pub(crate) fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Upper half of a word.
pub(crate) fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Lower half of a word.
pub(crate) fn low(word: u64) -> u32 {
    word as u32
}

/// Directory entry type of a mode (`DT_*`).
pub(crate) fn entry_type(mode: u32) -> u8 {
    ((mode & S_IFMT) >> 12) as u8
}

/// Is this the mode of a directory?
pub(crate) fn is_dir(mode: u32) -> bool {
    mode & S_IFMT == S_IFDIR
}

/// Is this the mode of a regular file?
pub(crate) fn is_file(mode: u32) -> bool {
    mode & S_IFMT == S_IFREG
}

/// Is this the mode of a symbolic link?
pub(crate) fn is_symlink(mode: u32) -> bool {
    mode & S_IFMT == S_IFLNK
}

/// The inode as one word: `generation:32 | record:32`.
pub(crate) fn link_word(ino: Ino) -> u64 {
    pair(ino.generation, ino.number as u32)
}

/// The inode a link word names; `None` for 0.
pub(crate) fn from_link(word: u64) -> Option<Ino> {
    let number = u64::from(low(word));
    (number != 0).then_some(Ino {
        number,
        generation: high(word),
    })
}

/// Record of an inode; `ESTALE` for a number no record can have.
pub(crate) fn record(ino: Ino) -> Result<Rec> {
    match u32::try_from(ino.number) {
        Ok(number) if number != 0 => Ok(Rec(number)),
        _ => Err(Errno::ESTALE),
    }
}

/// Offset of a word of the record at `offset`.
pub(crate) fn at(offset: u64, word: u64) -> u64 {
    offset + word * 8
}

/// Offset of a live inode; `ESTALE` if it is gone.
pub(crate) fn locate(pool: &Pool, ino: Ino) -> Result<u64> {
    let offset = record(ino)?.offset();
    still(pool, ino, offset)?;
    Ok(offset)
}

/// Is the record at `offset` still this inode? `ESTALE` if not: what was read is void.
pub(crate) fn still(pool: &Pool, ino: Ino, offset: u64) -> Result<()> {
    // ORDERING: what was read before must not sink below the tag (partner: the word stores of a
    // commit, each a release).
    core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
    let tag = pool.load(offset)?;
    if tag_kind(tag) == kind::INODE && tag_generation(tag) == ino.generation {
        Ok(())
    } else {
        Err(Errno::ESTALE)
    }
}

/// Lock under which the words of an inode change.
pub(crate) fn lock(pool: &Pool, ino: Ino) -> Result<LockId> {
    Ok(LockId::Target(pool.target_of(record(ino)?)?))
}

/// The words that decide permissions and the kind of an inode, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Type and permission bits.
    pub(crate) mode: u32,
    /// Names, or for directories 2 and, once removed, 0.
    pub(crate) nlink: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
}

impl Guard {
    /// Reads the words of the record at `offset`; the caller checks the tag before or after.
    #[inline]
    pub(crate) fn read(pool: &Pool, offset: u64) -> Result<Guard> {
        let mode = pool.load(at(offset, word::MODE))?;
        let owner = pool.load(at(offset, word::OWNER))?;
        Ok(Guard {
            mode: high(mode),
            nlink: low(mode),
            uid: high(owner),
            gid: low(owner),
        })
    }

    /// The same for an inode, checked: `ESTALE` if it is gone.
    pub(crate) fn of(pool: &Pool, ino: Ino) -> Result<Guard> {
        let offset = locate(pool, ino)?;
        let guard = Guard::read(pool, offset)?;
        still(pool, ino, offset)?;
        Ok(guard)
    }
}
