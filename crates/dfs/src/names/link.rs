//! Further names of an inode, and reading symbolic links.

use super::make::TARGET_RECORD;
use super::{Held, TRIES, check_len, gone, is_dots, set_nlink};
use crate::dir::{self, NewEntry};
use crate::inode::{
    self, Guard, INLINE_TARGET, LINKABLE, at, entry_type, is_dir, is_symlink, locate, still, word,
};
use crate::perm::{self, EXECUTE, WRITE};
use crate::{Cred, Dfs, Ino};
use engine::{PageLink, Rec, kind, tag_generation, tag_kind};
use sys::{Errno, Result};

/// Most names of an inode; most subdirectories of a directory, and two.
pub(crate) const LINK_MAX: u32 = 1 << 31;

impl Dfs {
    /// Gives an inode another name. `EPERM` for directories and for files the caller could not
    /// have made harmlessly (`fs.protected_hardlinks`), `ENOENT` for one that was removed; the
    /// first name of an `O_TMPFILE` inode is allowed. `EMLINK`, `EEXIST`.
    pub fn link(&self, cred: &Cred<'_>, ino: Ino, dir: Ino, name: &[u8]) -> Result<()> {
        if is_dots(name) {
            return Err(Errno::EEXIST);
        }
        check_len(name)?;
        let hash = dir::hash(name);
        let mut crowded = false;
        for _ in 0..TRIES {
            let locks = [inode::lock(self.pool, dir)?, inode::lock(self.pool, ino)?];
            let mut tx = self.pool.tx(&locks)?;
            let held = Held::new(self.pool, cred, dir)?;
            if held.find(self.pool, name, hash)?.is_some() {
                return Err(Errno::EEXIST);
            }
            let offset = locate(self.pool, ino).map_err(gone)?;
            let guard = Guard::read(self.pool, offset)?;
            perm::check_link(cred, &guard)?;
            if held.guard.nlink == 0 {
                return Err(Errno::ENOENT);
            }
            perm::check(cred, &held.guard, WRITE | EXECUTE)?;
            if is_dir(guard.mode) {
                return Err(Errno::EPERM);
            }
            let open = tx.load(at(offset, word::OPEN))?;
            if guard.nlink == 0 && open & LINKABLE == 0 {
                return Err(Errno::ENOENT);
            }
            if guard.nlink >= LINK_MAX {
                return Err(Errno::EMLINK);
            }
            let now = self.pool.now_ns();
            // The count comes first: an entry never leads to an inode that may be freed.
            set_nlink(&mut tx, offset, &guard, guard.nlink + 1, now)?;
            if open & LINKABLE != 0 {
                tx.set_volatile(at(offset, word::OPEN), open & !LINKABLE)?;
            }
            let entry = NewEntry {
                name,
                hash,
                entry_type: entry_type(guard.mode),
                child: ino,
            };
            if dir::insert(&mut tx, self.pool, dir, held.offset, entry, crowded)?.is_none() {
                drop(tx);
                dir::grow(self.pool, dir, name.len()).map_err(gone)?;
                crowded = true;
                continue;
            }
            held.changed(&mut tx, now, 1, 0)?;
            tx.commit()?;
            return Ok(());
        }
        Err(Errno::EAGAIN)
    }

    /// Copies the target of a symbolic link, cut to the buffer, and returns the bytes copied.
    /// `EINVAL` for other inodes.
    pub fn readlink(&self, ino: Ino, buf: &mut [u8]) -> Result<usize> {
        let offset = locate(self.pool, ino)?;
        if !is_symlink(Guard::read(self.pool, offset)?.mode) {
            still(self.pool, ino, offset)?;
            return Err(Errno::EINVAL);
        }
        let len = self.pool.load(at(offset, word::SIZE))? as usize;
        let data = self.pool.load(at(offset, word::DATA))?;
        let place = if len <= INLINE_TARGET {
            at(offset, word::INLINE)
        } else if len <= TARGET_RECORD {
            let place = Rec(inode::low(data)).offset();
            let tag = self.pool.load(place)?;
            if tag_kind(tag) != kind::SYMLINK || tag_generation(tag) != inode::high(data) {
                still(self.pool, ino, offset)?;
                return Err(Errno::EIO);
            }
            place + 8
        } else {
            PageLink(data).offset()
        };
        let len = len.min(buf.len()).min(engine::PAGE as usize);
        for (index, piece) in buf[..len].chunks_mut(8).enumerate() {
            let word = self.pool.load(place + index as u64 * 8)?.to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
        // The target lives as long as the inode, so its tag vouches for the copy.
        still(self.pool, ino, offset)?;
        Ok(len)
    }
}
