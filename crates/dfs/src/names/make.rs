//! New inodes: files, directories, nodes, symbolic links, unnamed files.

use super::{Held, TRIES, check_len, gone, is_dots};
use crate::dir::{self, NewEntry};
use crate::inode::{
    self, Guard, INLINE_TARGET, INODE_BYTES, INODE_WORDS, LINKABLE, S_IFBLK, S_IFCHR, S_IFDIR,
    S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_ISVTX, at, entry_type, high, is_dir, is_symlink,
    link_word, low, pair, word,
};
use crate::perm::{self, EXECUTE, WRITE};
use crate::{Cred, Dfs, Ino};
use daos_types::ObjectClass;
use engine::{LockId, Pool, Rec, Tx, kind, tag_generation};
use sys::{Errno, Result};

/// Longest target of a symbolic link, bytes (`PATH_MAX` less the final 0).
const TARGET_MAX: usize = 4095;
/// Longest target kept in a slot record behind its tag.
pub(crate) const TARGET_RECORD: usize = 1024 - 8;

/// What a new inode is to be.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    /// Type and permissions, umask applied.
    pub(super) mode: u32,
    /// Device number.
    pub(super) rdev: u64,
    /// Target of a symbolic link.
    pub(super) target: &'a [u8],
}

/// Outcome of [`Dfs::make`].
enum Made {
    New(Ino),
    Exists(Ino),
}

impl Dfs {
    /// Makes a regular file, or finds what has the name already unless `exclusive`. Permissions
    /// are `mode & ~umask`. Returns the inode and whether it is new. `EEXIST`, `EISDIR` for dots.
    pub fn create(
        &self,
        cred: &Cred<'_>,
        dir: Ino,
        name: &[u8],
        mode: u32,
        exclusive: bool,
    ) -> Result<(Ino, bool)> {
        if is_dots(name) {
            return Err(if exclusive {
                Errno::EEXIST
            } else {
                Errno::EISDIR
            });
        }
        let mode = S_IFREG | mode & 0o7777 & !cred.umask;
        match self.make(
            cred,
            dir,
            name,
            &Node {
                mode,
                rdev: 0,
                target: b"",
            },
        )? {
            Made::New(ino) => Ok((ino, true)),
            Made::Exists(_) if exclusive => Err(Errno::EEXIST),
            Made::Exists(ino) => Ok((ino, false)),
        }
    }

    /// Makes a file, FIFO, socket or device node; `mode` carries the type. Devices need privilege
    /// (`EPERM`), except 0:0, the whiteout; `EPERM` for directories, `EINVAL` for other types.
    pub fn mknod(
        &self,
        cred: &Cred<'_>,
        dir: Ino,
        name: &[u8],
        mode: u32,
        rdev: u64,
    ) -> Result<Ino> {
        let kind = match mode & S_IFMT {
            0 => S_IFREG,
            kind @ (S_IFREG | S_IFIFO | S_IFSOCK | S_IFCHR | S_IFBLK) => kind,
            S_IFDIR => return Err(Errno::EPERM),
            _ => return Err(Errno::EINVAL),
        };
        let device = kind == S_IFCHR || kind == S_IFBLK;
        let mode = kind | mode & 0o7777 & !cred.umask;
        let rdev = if device { rdev } else { 0 };
        self.make_only(
            cred,
            dir,
            name,
            &Node {
                mode,
                rdev,
                target: b"",
            },
        )
    }

    /// Makes a directory with permissions `mode & ~umask & 01777`.
    pub fn mkdir(&self, cred: &Cred<'_>, dir: Ino, name: &[u8], mode: u32) -> Result<Ino> {
        let mode = S_IFDIR | mode & (0o777 | S_ISVTX) & !cred.umask;
        self.make_only(
            cred,
            dir,
            name,
            &Node {
                mode,
                rdev: 0,
                target: b"",
            },
        )
    }

    /// Makes a symbolic link. `ENOENT` for an empty target, `ENAMETOOLONG` beyond 4095 bytes.
    pub fn symlink(&self, cred: &Cred<'_>, target: &[u8], dir: Ino, name: &[u8]) -> Result<Ino> {
        match target.len() {
            0 => return Err(Errno::ENOENT),
            1..=TARGET_MAX => {}
            _ => return Err(Errno::ENAMETOOLONG),
        }
        self.make_only(
            cred,
            dir,
            name,
            &Node {
                mode: S_IFLNK | 0o777,
                rdev: 0,
                target,
            },
        )
    }

    /// Makes a regular file without a name (`O_TMPFILE`). It lasts while it is open; [`Dfs::link`]
    /// may name it. The caller opens it at once: nothing else keeps it.
    pub fn tmpfile(&self, cred: &Cred<'_>, dir: Ino, mode: u32) -> Result<Ino> {
        let mut tx = self.pool.tx(&[inode::lock(self.pool, dir)?])?;
        let held = Held::new(self.pool, cred, dir)?;
        if held.guard.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        perm::check(cred, &held.guard, WRITE | EXECUTE)?;
        let mode = S_IFREG | mode & 0o7777 & !cred.umask;
        let node = Node {
            mode,
            rdev: 0,
            target: b"",
        };
        let now = self.pool.now_ns();
        let target = self.pool.target_of(inode::record(dir)?)?;
        let ino = new_inode(&mut tx, self.pool, cred, &held, &node, target, now)?;
        let offset = Rec(ino.number as u32).offset();
        tx.set(
            at(offset, word::MODE),
            pair(inherited(cred, &held.guard, &node).0, 0),
        )?;
        tx.set_volatile(at(offset, word::OPEN), LINKABLE)?;
        tx.commit()?;
        Ok(ino)
    }

    /// A file made by [`Dfs::tmpfile`] shall never get a name (`O_TMPFILE | O_EXCL`). It must be open.
    pub fn never_named(&self, ino: Ino) -> Result<()> {
        let mut tx = self.pool.tx(&[inode::lock(self.pool, ino)?])?;
        let offset = inode::locate(self.pool, ino)?;
        let open = tx.load(at(offset, word::OPEN))?;
        tx.set_volatile(at(offset, word::OPEN), open & !LINKABLE)?;
        tx.commit().map(|_| ())
    }

    /// [`Dfs::make`] where the name must be new.
    fn make_only(&self, cred: &Cred<'_>, dir: Ino, name: &[u8], node: &Node<'_>) -> Result<Ino> {
        if is_dots(name) {
            return Err(Errno::EEXIST);
        }
        match self.make(cred, dir, name, node)? {
            Made::New(ino) => Ok(ino),
            Made::Exists(_) => Err(Errno::EEXIST),
        }
    }

    /// Makes an inode and its name.
    fn make(&self, cred: &Cred<'_>, dir: Ino, name: &[u8], node: &Node<'_>) -> Result<Made> {
        check_len(name)?;
        let hash = dir::hash(name);
        let mut crowded = false;
        for _ in 0..TRIES {
            let target = self.target_for(dir, node, hash)?;
            let mut tx = self
                .pool
                .tx(&[inode::lock(self.pool, dir)?, LockId::Target(target)])?;
            let held = Held::new(self.pool, cred, dir)?;
            if let Some(found) = held.find(self.pool, name, hash)? {
                return Ok(Made::Exists(found.child()));
            }
            check_make(cred, &held, node, &tx)?;
            let now = self.pool.now_ns();
            let child = new_inode(&mut tx, self.pool, cred, &held, node, target, now)?;
            let entry = NewEntry {
                name,
                hash,
                entry_type: entry_type(node.mode),
                child,
            };
            let added = dir::insert(&mut tx, self.pool, dir, held.offset, entry, crowded)?;
            let Some(granule) = added else {
                drop(tx);
                dir::grow(self.pool, dir, name.len()).map_err(gone)?;
                crowded = true;
                continue;
            };
            let subdirs = i32::from(is_dir(node.mode));
            if subdirs != 0 {
                let offset = Rec(child.number as u32).offset();
                tx.set_volatile(at(offset, word::SEQUENCE), u64::from(granule))?;
            }
            held.changed(&mut tx, now, 1, subdirs)?;
            tx.commit()?;
            return Ok(Made::New(child));
        }
        Err(Errno::EAGAIN)
    }

    /// Target of a new inode: that of its directory, or for directories one of their own.
    fn target_for(&self, dir: Ino, node: &Node<'_>, hash: u32) -> Result<u16> {
        if !is_dir(node.mode) {
            return self.pool.target_of(inode::record(dir)?);
        }
        let offset = inode::locate(self.pool, dir).map_err(gone)?;
        let class = high(self.pool.load(at(offset, word::CONTAINER))?);
        let class = ObjectClass::from_id(class).ok_or(Errno::EIO)?;
        let object = dir.number << 32 | u64::from(hash);
        Ok(engine::place::directory(self.pool.target_count(), class, object).0)
    }
}

/// Rights and limits for a new name in a directory.
fn check_make(cred: &Cred<'_>, held: &Held, node: &Node<'_>, tx: &Tx<'_>) -> Result<()> {
    if held.guard.nlink == 0 {
        return Err(Errno::ENOENT);
    }
    perm::check(cred, &held.guard, WRITE | EXECUTE)?;
    let device = matches!(node.mode & S_IFMT, S_IFCHR | S_IFBLK);
    let whiteout = node.mode & S_IFMT == S_IFCHR && node.rdev == 0;
    if device && !whiteout && !cred.privileged {
        return Err(Errno::EPERM);
    }
    if is_dir(node.mode) {
        let subdirs = low(tx.load(at(held.offset, word::COUNTS))?);
        if subdirs >= super::link::LINK_MAX - 2 {
            return Err(Errno::EMLINK);
        }
    }
    Ok(())
}

/// Mode and group of a new inode.
fn inherited(cred: &Cred<'_>, dir: &Guard, node: &Node<'_>) -> (u32, u32) {
    if is_symlink(node.mode) {
        let (_, gid) = perm::inherit(cred, dir, 0);
        return (node.mode, gid);
    }
    perm::inherit(cred, dir, node.mode)
}

/// Allocates and fills an inode; nothing leads to it yet.
pub(super) fn new_inode(
    tx: &mut Tx<'_>,
    pool: &Pool,
    cred: &Cred<'_>,
    dir: &Held,
    node: &Node<'_>,
    target: u16,
    now: i64,
) -> Result<Ino> {
    let replicas = pool.replicas_of(inode::record(dir.ino)?)?;
    let rec = tx.alloc(kind::INODE, INODE_BYTES, target, replicas)?;
    let offset = rec.offset();
    let (mode, gid) = inherited(cred, &dir.guard, node);
    let mut words = [0; INODE_WORDS];
    words[word::MODE as usize] = pair(mode, if is_dir(mode) { 2 } else { 1 });
    words[word::OWNER as usize] = pair(cred.uid, gid);
    words[word::SIZE as usize] = node.target.len() as u64;
    words[word::MTIME as usize..=word::BTIME as usize].fill(now as u64);
    words[word::RDEV as usize] = node.rdev;
    words[word::PARENT as usize] = link_word(dir.ino);
    words[word::CLASS as usize] = pool.load(at(dir.offset, word::CLASS))?;
    words[word::CONTAINER as usize] = pool.load(at(dir.offset, word::CONTAINER))?;
    if !node.target.is_empty() {
        put_target(tx, node.target, target, replicas, &mut words)?;
    }
    tx.put(at(offset, 1), &words[1..])?;
    let generation = tag_generation(tx.load(offset)?);
    Ok(Ino {
        number: u64::from(rec.0),
        generation,
    })
}

/// Stores the target of a symbolic link: in the inode, in a record, or in a page.
fn put_target(
    tx: &mut Tx<'_>,
    bytes: &[u8],
    target: u16,
    replicas: u8,
    words: &mut [u64; INODE_WORDS],
) -> Result<()> {
    if bytes.len() <= INLINE_TARGET {
        for (word, piece) in words[word::INLINE as usize..]
            .iter_mut()
            .zip(bytes.chunks(8))
        {
            *word = dir::packed(piece);
        }
        return Ok(());
    }
    let mut place = if bytes.len() <= TARGET_RECORD {
        let size = if bytes.len() <= 256 - 8 { 256 } else { 1024 };
        let rec = tx.alloc(kind::SYMLINK, size, target, replicas)?;
        let offset = rec.offset();
        let generation = tag_generation(tx.load(offset)?);
        words[word::DATA as usize] = pair(generation, rec.0);
        offset + 8
    } else {
        let page = tx.alloc_page(kind::BLOB, target, replicas, false)?;
        words[word::DATA as usize] = page.0;
        page.offset()
    };
    for piece in bytes.chunks(256) {
        let mut packed = [0; 32];
        for (word, piece) in packed.iter_mut().zip(piece.chunks(8)) {
            *word = dir::packed(piece);
        }
        let len = piece.len().div_ceil(8);
        tx.put(place, &packed[..len])?;
        place += len as u64 * 8;
    }
    Ok(())
}
