//! Changing a map inside a transaction: making room for pointers and setting them.

use super::file::File;
use super::{Root, SMALL_WORDS};
use crate::inode::word;
use engine::{BlockPtr, PageLink, Rec, Tx, kind};
use sys::{Errno, Result};

/// The map of a file being changed by a transaction that holds the file's lock.
pub(crate) struct Change<'t, 'p> {
    pub(crate) tx: &'t mut Tx<'p>,
    file: &'t File<'p>,
    root: u64,
    /// Something was made or moved, so that memory alone does not tell how the map looks.
    grown: bool,
}

/// Pointer words in a leaf, from one block on.
#[derive(Clone, Copy)]
pub(crate) struct Leaf {
    /// Offset of the first word of the block asked for.
    pub(crate) at: u64,
    /// Blocks from there to the end of the leaf.
    pub(crate) run: u64,
}

impl<'t, 'p> Change<'t, 'p> {
    /// Starts changing the map of `file`.
    pub(crate) fn new(tx: &'t mut Tx<'p>, file: &'t File<'p>) -> Result<Change<'t, 'p>> {
        let root = tx.load(file.at(word::DATA))?;
        Ok(Change {
            tx,
            file,
            root,
            grown: false,
        })
    }

    fn set_root(&mut self, root: u64) -> Result<()> {
        self.root = root;
        self.grown = true;
        self.tx.set(self.file.at(word::DATA), root)
    }

    fn new_page(&mut self, page_kind: u8) -> Result<PageLink> {
        self.grown = true;
        self.tx
            .alloc_page(page_kind, self.file.target, self.file.replicas, true)
    }

    fn load(&self, at: u64) -> Result<u64> {
        if self.grown {
            self.tx.load(at)
        } else {
            self.file.pool.load(at)
        }
    }

    /// The pointer words of `block`, made if they do not exist. `end` is the block after the last
    /// this operation will touch: it decides the height of a new map.
    pub(crate) fn leaf(&mut self, block: u64, end: u64) -> Result<Leaf> {
        let geo = self.file.geo;
        let need = geo.height_for(end.max(block + 1));
        match Root::decode(self.root)? {
            Root::Empty if need == 0 => self.make_small()?,
            Root::Empty => {
                let page = self.new_page(if need == 1 {
                    kind::MAP_LEAF
                } else {
                    kind::MAP_NODE
                })?;
                self.set_root(page.with_tag(need as u16).0)?;
            }
            Root::Small(rec) if need > 0 => self.convert(rec)?,
            Root::Small(_) | Root::Tree(..) => {}
        }
        if let Root::Small(rec) = Root::decode(self.root)? {
            let at = rec.offset() + 8 + block * geo.stride() as u64 * 8;
            return Ok(Leaf {
                at,
                run: geo.small_blocks() - block,
            });
        }
        while Root::decode(self.root)?.height() < need {
            self.grow()?;
        }
        self.descend(block)
    }

    fn descend(&mut self, block: u64) -> Result<Leaf> {
        let geo = self.file.geo;
        let Root::Tree(mut page, height) = Root::decode(self.root)? else {
            return Err(Errno::EIO);
        };
        for level in (1..height).rev() {
            let index = (block >> geo.level_shift(level)) & 511;
            let at = page.offset() + index * 8;
            let mut link = PageLink(self.load(at)?);
            if link.is_none() {
                link = self.new_page(if level == 1 {
                    kind::MAP_LEAF
                } else {
                    kind::MAP_NODE
                })?;
                self.tx.set(at, link.0)?;
            }
            page = link;
        }
        let in_leaf = 1u64 << geo.leaf_shift();
        let index = block & (in_leaf - 1);
        Ok(Leaf {
            at: page.offset() + index * geo.stride() as u64 * 8,
            run: in_leaf - index,
        })
    }

    fn make_small(&mut self) -> Result<()> {
        let rec = self
            .tx
            .alloc(kind::MAP_SMALL, 256, self.file.target, self.file.replicas)?;
        self.tx.zero(rec.offset() + 8, SMALL_WORDS, true)?;
        let tag = self.tx.load(rec.offset())?;
        self.set_root(Root::small_word(rec, tag))
    }

    /// Replaces the small record by a leaf page with the same pointers.
    fn convert(&mut self, rec: Rec) -> Result<()> {
        let leaf = self.new_page(kind::MAP_LEAF)?;
        let mut words = [0u64; SMALL_WORDS];
        self.file.pool.words(rec.offset() + 8, &mut words)?;
        self.tx.put_moved(leaf.offset(), &words)?;
        self.set_root(leaf.with_tag(1).0)?;
        self.tx.free(rec)
    }

    /// Puts a node above the top page.
    fn grow(&mut self) -> Result<()> {
        let old = PageLink(self.root);
        let height = usize::from(old.tag()) + 1;
        if height > super::HEIGHT_MAX {
            return Err(Errno::EFBIG);
        }
        let top = self.new_page(kind::MAP_NODE)?;
        self.tx.set(top.offset(), old.with_tag(0).0)?;
        self.set_root(top.with_tag(height as u16).0)
    }

    /// The pointer of copy `copy` of the block `index` blocks into a leaf.
    pub(crate) fn pointer(&self, leaf: &Leaf, index: u64, copy: usize) -> Result<BlockPtr> {
        let at = self.file.nth(leaf.at, index) + copy as u64 * 8;
        Ok(BlockPtr(self.load(at)?))
    }

    /// Sets the words of consecutive blocks, from `index` blocks into the leaf.
    pub(crate) fn put(&mut self, leaf: &Leaf, index: u64, words: &[u64]) -> Result<()> {
        let at = self.file.nth(leaf.at, index);
        self.tx.put_blocks(at, words, self.file.geo.stride())
    }
}

/// Runs of freed blocks, joined where they touch, kept until the words that named them are listed
/// in the transaction.
pub(crate) struct Freed {
    runs: [Option<engine::Run>; Freed::MAX],
    len: usize,
}

impl Freed {
    /// Runs kept; fewer than a transaction takes.
    pub(crate) const MAX: usize = 40;

    /// None yet.
    pub(crate) fn new() -> Freed {
        Freed {
            runs: [None; Freed::MAX],
            len: 0,
        }
    }

    /// Adds the blocks of all copies of one block; false, and nothing added, if there is no room.
    pub(crate) fn add(&mut self, pointers: &[BlockPtr]) -> bool {
        if self.len + pointers.len() > Freed::MAX {
            return false;
        }
        pointers
            .iter()
            .filter(|p| !p.is_hole())
            .for_each(|p| self.add_one(*p));
        true
    }

    fn add_one(&mut self, pointer: BlockPtr) {
        let (rank, block) = (pointer.rank(), pointer.block());
        let joins = |run: &engine::Run| {
            run.rank == rank && run.start + u64::from(run.len) == block && run.len < 0xf_fff0
        };
        if let Some(run) = self
            .runs
            .iter_mut()
            .take(self.len)
            .flatten()
            .find(|run| joins(run))
        {
            run.len += 1;
        } else if let Some(slot) = self.runs.get_mut(self.len) {
            *slot = Some(engine::Run {
                rank,
                start: block,
                len: 1,
                fresh: false,
            });
            self.len += 1;
        }
    }

    /// Lists the runs in the transaction.
    pub(crate) fn flush(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        for run in self.runs.iter().take(self.len).flatten() {
            tx.free_run(*run)?;
        }
        self.len = 0;
        Ok(())
    }
}
