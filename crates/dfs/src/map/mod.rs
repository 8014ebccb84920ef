//! The block map of a regular file: from block number to block pointers.
//!
//! A small file keeps its pointers in one MAP_SMALL record; a larger one in a radix tree of
//! MAP_NODE and MAP_LEAF pages whose height stands in the tag of the root link. The copies of a
//! block lie side by side, `stride` words apart from the next block's. Readers take no lock: they
//! follow the links, copy what they came for and look at the same links again ([`Chain::holds`]).
//! Changes are made in a transaction under the inode's target lock ([`change`], [`free`]).

pub(crate) mod change;
pub(crate) mod file;
pub(crate) mod free;

use engine::{PageLink, Pool, Rec};
use sys::{Errno, Result};

/// Largest file: 8 EiB - 1, what `loff_t` can say.
pub(crate) const SIZE_MAX: u64 = i64::MAX as u64;
/// Bytes of a data block.
pub(crate) const BLOCK: u64 = engine::BLOCK;
/// Words of a map page.
const FANOUT_SHIFT: u32 = 9;
/// Pointer words of a MAP_SMALL record, after its tag.
pub(crate) const SMALL_WORDS: usize = 31;
/// Levels of the tallest tree: 2^51 blocks, 64 words each, 512 words a page.
pub(crate) const HEIGHT_MAX: usize = 7;

/// How the pointers of a class are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    /// Copies of each block.
    pub(crate) copies: usize,
    stride_shift: u32,
}

impl Geometry {
    /// For `copies` copies (1..=16); `EIO` for what no class says.
    pub(crate) fn new(copies: usize) -> Result<Geometry> {
        if copies == 0 || copies > 16 {
            return Err(Errno::EIO);
        }
        Ok(Geometry {
            copies,
            stride_shift: copies.next_power_of_two().trailing_zeros(),
        })
    }

    /// Words per block.
    pub(crate) fn stride(self) -> usize {
        1 << self.stride_shift
    }

    /// Blocks in a MAP_SMALL record.
    pub(crate) fn small_blocks(self) -> u64 {
        (SMALL_WORDS >> self.stride_shift) as u64
    }

    /// log2 of the blocks in a leaf page.
    pub(crate) fn leaf_shift(self) -> u32 {
        FANOUT_SHIFT - self.stride_shift
    }

    /// log2 of the blocks below one link of a node `level` levels above the leaves (1 = parent).
    pub(crate) fn level_shift(self, level: usize) -> u32 {
        self.leaf_shift() + FANOUT_SHIFT * (level as u32 - 1)
    }

    /// Blocks a map of this height can describe.
    pub(crate) fn capacity(self, height: usize) -> u64 {
        if height == 0 {
            return self.small_blocks();
        }
        let shift = self.leaf_shift() + FANOUT_SHIFT * (height as u32 - 1);
        if shift >= 63 { u64::MAX } else { 1 << shift }
    }

    /// Height needed for `blocks` blocks.
    pub(crate) fn height_for(self, blocks: u64) -> usize {
        (0..HEIGHT_MAX)
            .find(|h| self.capacity(*h) >= blocks)
            .unwrap_or(HEIGHT_MAX)
    }
}

/// The root word of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Root {
    /// Nothing was ever allocated.
    Empty,
    /// A MAP_SMALL record.
    Small(Rec),
    /// The top page of a tree of this height (1 = a single leaf).
    Tree(PageLink, usize),
}

impl Root {
    /// Decodes a root word; `EIO` when it says nothing known.
    pub(crate) fn decode(word: u64) -> Result<Root> {
        if word == 0 {
            return Ok(Root::Empty);
        }
        let link = PageLink(word);
        match usize::from(link.tag()) {
            0 => Ok(Root::Small(Rec(word as u32))),
            height if height <= HEIGHT_MAX => Ok(Root::Tree(link, height)),
            _ => Err(Errno::EIO),
        }
    }

    /// Root word of a small map. The low generation bits of the record's tag tell it from a later
    /// use of the record.
    pub(crate) fn small_word(rec: Rec, tag: u64) -> u64 {
        u64::from(rec.0) | u64::from(engine::tag_generation(tag) as u16) << 32
    }

    /// Height of the map; 0 for none and for a small one.
    pub(crate) fn height(self) -> usize {
        match self {
            Root::Empty | Root::Small(_) => 0,
            Root::Tree(_, height) => height,
        }
    }
}

/// Links followed to reach a leaf, with what they held.
#[derive(Clone, Copy)]
pub(crate) struct Chain {
    len: usize,
    links: [(u64, u64); HEIGHT_MAX + 1],
}

impl Chain {
    const fn new() -> Chain {
        Chain {
            len: 0,
            links: [(0, 0); HEIGHT_MAX + 1],
        }
    }

    fn push(&mut self, off: u64, word: u64) {
        if let Some(slot) = self.links.get_mut(self.len) {
            *slot = (off, word);
            self.len += 1;
        }
    }

    /// Whether every link still holds what it held.
    pub(crate) fn holds(&self, pool: &Pool) -> bool {
        // ORDERING: the copies made since must be complete before the links are read again.
        core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
        self.links
            .iter()
            .take(self.len)
            .all(|(off, word)| pool.load(*off) == Ok(*word))
    }
}

/// Where the pointers of a block are.
#[derive(Clone, Copy)]
pub(crate) struct Spot {
    /// Offset of the block's first pointer word; `None` in a hole wider than a leaf.
    pub(crate) at: Option<u64>,
    /// Blocks from this one on that follow in the same leaf, or that the hole covers.
    pub(crate) run: u64,
    /// What was followed.
    pub(crate) chain: Chain,
}

/// Finds the pointers of `block` in the map whose root word lies at `root_at`.
pub(crate) fn find(pool: &Pool, root_at: u64, geo: Geometry, block: u64) -> Result<Spot> {
    let mut chain = Chain::new();
    let word = pool.load(root_at)?;
    chain.push(root_at, word);
    let root = Root::decode(word)?;
    let capacity = geo.capacity(root.height());
    if root == Root::Empty || block >= capacity {
        return Ok(Spot {
            at: None,
            run: u64::MAX - block,
            chain,
        });
    }
    let (mut page, height) = match root {
        Root::Small(rec) => {
            let at = rec.offset() + 8 + block * geo.stride() as u64 * 8;
            return Ok(Spot {
                at: Some(at),
                run: capacity - block,
                chain,
            });
        }
        Root::Tree(page, height) => (page, height),
        Root::Empty => return Err(Errno::EIO),
    };
    for level in (1..height).rev() {
        let shift = geo.level_shift(level);
        let index = (block >> shift) & 511;
        let at = page.offset() + index * 8;
        let link = pool.load(at)?;
        chain.push(at, link);
        if link == 0 {
            let next = ((block >> shift) + 1) << shift;
            return Ok(Spot {
                at: None,
                run: next - block,
                chain,
            });
        }
        page = PageLink(link);
    }
    let in_leaf = 1u64 << geo.leaf_shift();
    let index = block & (in_leaf - 1);
    let at = page.offset() + index * geo.stride() as u64 * 8;
    Ok(Spot {
        at: Some(at),
        run: in_leaf - index,
        chain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometry_holds_the_largest_file() {
        for copies in 1..=16 {
            let geo = Geometry::new(copies).unwrap();
            assert!(geo.stride() >= copies);
            let blocks = SIZE_MAX.div_ceil(BLOCK);
            let height = geo.height_for(blocks);
            assert!(geo.capacity(height) >= blocks, "{copies} copies");
            assert!(height == 0 || geo.capacity(height - 1) < blocks);
        }
        assert!(Geometry::new(0).is_err() && Geometry::new(17).is_err());
        assert_eq!(Geometry::new(1).unwrap().small_blocks(), 31);
        assert_eq!(Geometry::new(3).unwrap().small_blocks(), 7);
    }

    #[test]
    fn root_words_round_trip() {
        assert_eq!(Root::decode(0), Ok(Root::Empty));
        assert_eq!(
            Root::decode(Root::small_word(Rec(77), 0x1234_5678_0000_0003)),
            Ok(Root::Small(Rec(77)))
        );
        assert!(Root::decode(0xffff << 48 | 1).is_err());
    }
}
