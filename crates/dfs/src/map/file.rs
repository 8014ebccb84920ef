//! A regular file as the data path sees it: its record, lock domain, class and size.

use super::{Geometry, Spot, find};
use crate::inode::{at, word};
use crate::{Ino, inode};
use daos_types::ObjectClass;
use engine::{BlockPtr, LockId, Pool, Rec, Tx};
use sys::{Errno, Result};

/// Copies a block can have.
pub(crate) const COPIES_MAX: u32 = engine::REPLICAS_MAX as u32;

/// A regular file, located once per operation. Holding it keeps nothing alive: the caller's open
/// file description does.
#[derive(Clone, Copy)]
pub(crate) struct File<'p> {
    pub(crate) pool: &'p Pool,
    pub(crate) ino: Ino,
    /// Offset of the inode record.
    pub(crate) base: u64,
    /// Lock domain.
    pub(crate) target: u16,
    /// Copies of metadata records and pages.
    pub(crate) replicas: u8,
    pub(crate) geo: Geometry,
    /// Object class of the data.
    pub(crate) class: ObjectClass,
    /// Blocks of a chunk: what is placed together.
    pub(crate) chunk_blocks: u64,
}

impl<'p> File<'p> {
    /// Locates a regular file: `EISDIR` for a directory, `EINVAL` for other kinds.
    pub(crate) fn open(pool: &'p Pool, ino: Ino) -> Result<File<'p>> {
        let base = inode::locate(pool, ino)?;
        File::locate(pool, ino, base)
    }

    /// The file whose record lies at `base`.
    pub(crate) fn at_base(pool: &'p Pool, base: u64) -> Result<File<'p>> {
        let number = base.checked_sub(Rec(0).offset()).ok_or(Errno::EIO)? / engine::GRANULE;
        let generation = engine::tag_generation(pool.load(base)?);
        File::locate(pool, Ino { number, generation }, base)
    }

    fn locate(pool: &'p Pool, ino: Ino, base: u64) -> Result<File<'p>> {
        let mode = inode::high(pool.load(at(base, word::MODE))?);
        if !inode::is_file(mode) {
            return Err(if inode::is_dir(mode) {
                Errno::EISDIR
            } else {
                Errno::EINVAL
            });
        }
        let class = pool.load(at(base, word::CLASS))?;
        let rec = Rec(ino.number as u32);
        let oclass = ObjectClass::from_id(inode::high(class)).ok_or(Errno::EIO)?;
        let copies = oclass
            .group_size()
            .min(u32::from(pool.rank_count()).min(COPIES_MAX));
        let page = pool.page_state(rec.page())?;
        if u64::from(page.target) >= pool.target_count() {
            return Err(Errno::EIO);
        }
        Ok(File {
            pool,
            ino,
            base,
            target: page.target,
            replicas: page.replicas,
            geo: Geometry::new(copies as usize)?,
            class: oclass,
            chunk_blocks: (u64::from(inode::low(class)) / super::BLOCK).max(1),
        })
    }

    /// The lock under which the file changes.
    pub(crate) fn lock(&self) -> LockId {
        LockId::Target(self.target)
    }

    /// Offset of a word of the inode.
    pub(crate) fn at(&self, word: u64) -> u64 {
        at(self.base, word)
    }

    /// A word of the inode.
    pub(crate) fn load(&self, word: u64) -> Result<u64> {
        self.pool.load(self.at(word))
    }

    /// Current size in bytes.
    pub(crate) fn size(&self) -> Result<u64> {
        self.load(word::SIZE)
    }

    /// Starts a transaction under the inode's lock and checks that the inode lives.
    pub(crate) fn tx(&self) -> Result<Tx<'p>> {
        let tx = self.pool.tx(&[self.lock()])?;
        inode::still(self.pool, self.ino, self.base)?;
        Ok(tx)
    }

    /// Finds the pointers of a block.
    pub(crate) fn find(&self, block: u64) -> Result<Spot> {
        find(self.pool, self.at(word::DATA), self.geo, block)
    }

    /// Block behind the last that the map can describe.
    pub(crate) fn blocks_end(&self) -> Result<u64> {
        Ok(match super::Root::decode(self.load(word::DATA)?)? {
            super::Root::Empty => 0,
            root => self.geo.capacity(root.height()),
        })
    }

    /// Offset of the pointer words `index` blocks after the one found.
    pub(crate) fn nth(&self, first: u64, index: u64) -> u64 {
        first + index * self.geo.stride() as u64 * 8
    }

    /// Whether a shared mapping is registered, so that data goes through its file.
    pub(crate) fn is_mapped(&self) -> Result<bool> {
        Ok(self.load(word::TABLE)? != 0)
    }

    /// What decides where the file's blocks lie.
    pub(crate) fn object(&self) -> u64 {
        self.ino.number ^ u64::from(self.ino.generation) << 32
    }

    /// Pointers of all copies of the block whose words start at `at`.
    pub(crate) fn pointers(&self, at: u64) -> Result<[BlockPtr; COPIES_MAX as usize]> {
        let mut out = [BlockPtr::HOLE; COPIES_MAX as usize];
        for (copy, slot) in out.iter_mut().enumerate().take(self.geo.copies) {
            *slot = BlockPtr(self.pool.load(at + copy as u64 * 8)?);
        }
        Ok(out)
    }
}
