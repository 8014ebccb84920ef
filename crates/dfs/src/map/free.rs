//! Taking blocks and map pages out of a file, as much at a time as one transaction holds.

use super::change::Freed;
use super::file::File;
use super::{Root, SMALL_WORDS};
use crate::inode::word;
use engine::{BlockPtr, PageLink, Tx};
use sys::{Errno, Result};

/// Words a transaction must still have room for to go on with a further leaf.
const ROOM_MIN: usize = 1200;

/// Frees the blocks `first..end` of `file`, from `first` on. Returns the block to go on from in a
/// further transaction; `None` once all is done. The file's lock is held.
///
/// A leaf that is freed wholly is unlinked, with its blocks still listed in it: readers notice by
/// the link. A tree that is empty goes away.
pub(crate) fn free_range(
    tx: &mut Tx<'_>,
    file: &File<'_>,
    first: u64,
    end: u64,
) -> Result<Option<u64>> {
    let root = Root::decode(tx.load(file.at(word::DATA))?)?;
    let end = end.min(file.geo.capacity(root.height()));
    let mut work = Work {
        file,
        freed: Freed::new(),
        gone: 0,
    };
    let mut block = first;
    let mut more = false;
    while block < end && !more {
        if tx.room() < ROOM_MIN || tx.free_page_room() < super::HEIGHT_MAX + 1 {
            more = true;
            break;
        }
        (block, more) = match Root::decode(tx.load(file.at(word::DATA))?)? {
            Root::Empty => (end, false),
            Root::Small(rec) => work.small(tx, rec, block, end)?,
            Root::Tree(top, height) => work.tree(tx, top, height, block, end)?,
        };
    }
    work.freed.flush(tx)?;
    if work.gone > 0 {
        let blocks = tx.load(file.at(word::BLOCKS))?.saturating_sub(work.gone);
        tx.set(file.at(word::BLOCKS), blocks)?;
    }
    Ok((more || block < end).then_some(block))
}

struct Work<'a, 'p> {
    file: &'a File<'p>,
    freed: Freed,
    /// Blocks (of one copy) taken out.
    gone: u64,
}

impl Work<'_, '_> {
    /// Clears the pointers of blocks in one leaf or record; the number of blocks done, which is
    /// less than `count` when no more runs can be freed now.
    fn collect(&mut self, tx: &Tx<'_>, at: u64, count: u64) -> Result<u64> {
        let stride = self.file.geo.stride() as u64;
        for index in 0..count {
            let mut old = [BlockPtr::HOLE; super::file::COPIES_MAX as usize];
            for (copy, slot) in old.iter_mut().enumerate().take(self.file.geo.copies) {
                *slot = BlockPtr(tx.pool().load(at + (index * stride + copy as u64) * 8)?);
            }
            let old = old.get(..self.file.geo.copies).ok_or(Errno::EIO)?;
            if old.first().is_none_or(|p| p.is_hole()) {
                continue;
            }
            if !self.freed.add(old) {
                return Ok(index);
            }
            self.gone += 1;
        }
        Ok(count)
    }

    fn clear(&self, tx: &mut Tx<'_>, at: u64, blocks: u64) -> Result<()> {
        let words = blocks as usize * self.file.geo.stride();
        if words == 0 {
            Ok(())
        } else {
            tx.zero(at, words, true)
        }
    }

    fn small(
        &mut self,
        tx: &mut Tx<'_>,
        rec: engine::Rec,
        block: u64,
        end: u64,
    ) -> Result<(u64, bool)> {
        let at = rec.offset() + 8 + block * self.file.geo.stride() as u64 * 8;
        let done = self.collect(tx, at, end - block)?;
        let whole = block == 0 && done == self.file.geo.small_blocks();
        if whole {
            tx.set(self.file.at(word::DATA), 0)?;
            tx.free(rec)?;
        } else {
            self.clear(tx, at, done)?;
        }
        Ok((block + done, done < end - block))
    }

    fn tree(
        &mut self,
        tx: &mut Tx<'_>,
        top: PageLink,
        height: usize,
        block: u64,
        end: u64,
    ) -> Result<(u64, bool)> {
        let geo = self.file.geo;
        // Where each page on the way is linked from; the root word links the top page.
        let mut path = [(self.file.at(word::DATA), top); super::HEIGHT_MAX + 1];
        let mut page = top;
        for level in (1..height).rev() {
            let shift = geo.level_shift(level);
            let at = page.offset() + ((block >> shift) & 511) * 8;
            let link = PageLink(tx.load(at)?);
            if link.is_none() {
                let next = (((block >> shift) + 1) << shift).min(end);
                self.prune(tx, &path, level, height)?;
                return Ok((next, false));
            }
            if let Some(slot) = path.get_mut(height - level) {
                *slot = (at, link);
            }
            page = link;
        }
        let in_leaf = 1u64 << geo.leaf_shift();
        let index = block & (in_leaf - 1);
        let count = (in_leaf - index).min(end - block);
        let at = page.offset() + index * geo.stride() as u64 * 8;
        let done = self.collect(tx, at, count)?;
        if done < count {
            self.clear(tx, at, done)?;
            return Ok((block + done, true));
        }
        if index == 0 && count == in_leaf {
            self.unlink(tx, &path, height - 1)?;
            self.prune(tx, &path, 1, height)?;
        } else {
            self.clear(tx, at, count)?;
            if self.is_empty(tx, page)? {
                self.unlink(tx, &path, height - 1)?;
                self.prune(tx, &path, 1, height)?;
            }
        }
        Ok((block + count, false))
    }

    /// Unlinks and frees the page `depth` steps below the top.
    fn unlink(&self, tx: &mut Tx<'_>, path: &[(u64, PageLink)], depth: usize) -> Result<()> {
        let (at, link) = *path.get(depth).ok_or(Errno::EIO)?;
        tx.set(at, 0)?;
        tx.free_page(link)
    }

    /// Frees nodes from `level` above the leaves upwards as long as they hold no link.
    fn prune(
        &self,
        tx: &mut Tx<'_>,
        path: &[(u64, PageLink)],
        level: usize,
        height: usize,
    ) -> Result<()> {
        for level in level..height {
            let depth = height - 1 - level;
            let (_, link) = *path.get(depth).ok_or(Errno::EIO)?;
            if !self.is_empty(tx, link)? {
                break;
            }
            self.unlink(tx, path, depth)?;
        }
        Ok(())
    }

    /// Whether every word of a page is zero, counting what this transaction did.
    fn is_empty(&self, tx: &Tx<'_>, page: PageLink) -> Result<bool> {
        for word in 0..engine::PAGE / 8 {
            let at = page.offset() + word * 8;
            if tx.pool().load(at)? != 0 && tx.load(at)? != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

const _: () = assert!(SMALL_WORDS < 64);

/// Frees as much of the data of the regular file whose record lies at `base` as the transaction,
/// which holds the inode's lock, has room for; true once nothing is left.
pub(crate) fn free_step(tx: &mut Tx<'_>, base: u64) -> Result<bool> {
    let file = File::at_base(tx.pool(), base)?;
    Ok(free_range(tx, &file, 0, u64::MAX)?.is_none())
}
