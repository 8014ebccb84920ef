//! Words of the arena: header, ranks, targets, owners, page descriptors, links and pointers.
//! No behaviour beyond packing and unpacking.

use crate::limits::{GRANULE, PAGE, PAGE_REPLICAS_MAX, SHARED_WORDS, at};

/// Kinds of records and pages, the low byte of a tag or descriptor.
pub mod kind {
    /// Nothing.
    pub const FREE: u8 = 0;
    /// Inode, 256 bytes.
    pub const INODE: u8 = 1;
    /// First chunk of a directory, 1024 bytes.
    pub const DIR_SMALL: u8 = 2;
    /// Block map of a small file, 256 bytes.
    pub const MAP_SMALL: u8 = 3;
    /// Extended attribute.
    pub const XATTR: u8 = 4;
    /// Target of a long symbolic link.
    pub const SYMLINK: u8 = 5;
    /// File lock (volatile).
    pub const LOCK: u8 = 6;
    /// Open file description (volatile).
    pub const OFD: u8 = 7;
    /// Open file description that is closed, its record kept for the next one (volatile).
    pub const OFD_CLOSED: u8 = 8;
    /// Free for the namespace layer.
    pub const MISC: u8 = 9;
    /// Page: leaf of a block map.
    pub const MAP_LEAF: u8 = 16;
    /// Page: inner node of a block map.
    pub const MAP_NODE: u8 = 17;
    /// Page: further chunk of a directory.
    pub const DIR_CHUNK: u8 = 18;
    /// Page: hash table (volatile).
    pub const TABLE: u8 = 19;
    /// Page: bytes.
    pub const BLOB: u8 = 20;
    /// Page: a container's properties.
    pub const CONTAINER: u8 = 21;
    /// Page: slots of one size class.
    pub const SLOTS: u8 = 32;
    /// Page: allocation bitmap of a rank's zone (volatile).
    pub const BITMAP: u8 = 33;
    /// Page: table of a rank's zones (volatile).
    pub const ZONES: u8 = 34;
}

/// Header words, as byte offsets.
pub(crate) mod header {
    pub(crate) const MAGIC: u64 = 0;
    pub(crate) const VERSION: u64 = 8;
    pub(crate) const UUID_LOW: u64 = 16;
    pub(crate) const UUID_HIGH: u64 = 24;
    pub(crate) const INSTANCE: u64 = 32;
    pub(crate) const PAGES_BACKED: u64 = 40;
    pub(crate) const FRONTIER: u64 = 48;
    pub(crate) const FREE_HEAD: u64 = 56;
    pub(crate) const RANK_COUNT: u64 = 64;
    pub(crate) const TARGETS_PER_RANK: u64 = 72;
    pub(crate) const POOL_BLOCKS: u64 = 80;
    pub(crate) const CONTAINERS: u64 = 88;
    pub(crate) const CHECKPOINT_SEQUENCE: u64 = 96;
    pub(crate) const CHECKPOINT_TIME: u64 = 104;
    pub(crate) const ALLOC_JOURNAL: u64 = 112;
    /// [`super::REBUILT_UNSEEN`] if the arena was rebuilt from disk and nobody has reclaimed what the last
    /// one held open, with the thread that is at it, if any, from bit 1 on (`process::worker`); else 0.
    pub(crate) const REBUILT: u64 = 120;
    /// Owner and process slots from here on have never been used: nobody need look at them.
    pub(crate) const OWNERS_USED: u64 = 128;
    pub(crate) const PROCESSES_USED: u64 = 136;
    /// Log position before which nobody need look after checkpoints.
    pub(crate) const CHECKPOINT_AFTER: u64 = 144;
    /// Number of the current window (`sync`), and of the last one that began a sync of everything
    /// which has ended.
    pub(crate) const WINDOW: u64 = 152;
    pub(crate) const WINDOW_SYNCED: u64 = 160;
    /// Log position before which all published data is on the devices.
    pub(crate) const DATA_SYNCED: u64 = 168;
    /// Rank whose log everybody writes, and number of ranks the log has to lie on.
    pub(crate) const LOG_RANK: u64 = 176;
    pub(crate) const LOG_PLACES: u64 = 184;
    /// Two words that tell the pool's directory from copies of it (`system::Home`).
    pub(crate) const HOME_MARK: u64 = 192;
    /// Where that directory is, for people: bytes, zeros behind them.
    pub(crate) const HOME_DIR: u64 = 1024;
    pub(crate) const HOME_DIR_BYTES: u64 = 2048;
    /// Two words that tell the log from a file put in its place.
    pub(crate) const LOG_MARK: u64 = 3072;
    /// Flushes of the log that were begun or asked for since one last succeeded, and have not.
    pub(crate) const LOG_DOUBT: u64 = 208;
    /// Data stored before the arena was built may not be on the devices: 1.
    pub(crate) const LEFT_DATA: u64 = 392;
    /// Version of the rank files' format.
    pub(crate) const FORMAT: u64 = 216;
    /// Where the log ended when the arena was built; the position before which nothing is left to do
    /// (`settle`), and from which on it is in doubt; the position + 1 from which on data may not be
    /// proven (`prove`).
    pub(crate) const LEFT_END: u64 = 224;
    pub(crate) const LEFT_AT: u64 = 232;
    pub(crate) const LEFT_DOUBT: u64 = 240;
    pub(crate) const LEFT_UNPROVEN: u64 = 248;
    /// See [`super::TREE_VERSION`].
    pub(crate) const TREE_VERSION: u64 = 384;
    /// Words written by every operation get cache lines of their own.
    pub(crate) const LOG_TAIL: u64 = 256;
    /// Two words: checksum of the last record and the low half of an eighth of its end.
    pub(crate) const LOG_CHAIN: u64 = 264;
    pub(crate) const LOG_HEAD: u64 = 320;
    pub(crate) const LOG_SYNCED: u64 = 328;
    pub(crate) const LOG_BYTES: u64 = 336;
    /// The checkpoint in progress (`checkpoint`): its phase; log position and chain checksum at its
    /// start; log position before which it covers all data, and the window that began there; pages
    /// below this one are looked at, and the next of them.
    pub(crate) const CHECKPOINT_PHASE: u64 = 448;
    pub(crate) const CHECKPOINT_START: u64 = 456;
    pub(crate) const CHECKPOINT_SUM: u64 = 464;
    pub(crate) const CHECKPOINT_END: u64 = 472;
    pub(crate) const CHECKPOINT_WINDOW: u64 = 480;
    pub(crate) const CHECKPOINT_FRONTIER: u64 = 488;
    pub(crate) const CHECKPOINT_PAGE: u64 = 496;
    /// Number of the round of flushes it waits for, and when somebody last asked the kernel for
    /// them (monotonic, ns; 0 = nobody).
    pub(crate) const CHECKPOINT_ROUND: u64 = 504;
    pub(crate) const CHECKPOINT_ASKED: u64 = 512;
    /// Slot of the process that did + 1.
    pub(crate) const CHECKPOINT_ASKER: u64 = 536;
    /// The next rank whose frames are to be made ready, or written out.
    pub(crate) const CHECKPOINT_RANK: u64 = 520;
    /// Until when writers pause for the devices (monotonic, ns).
    pub(crate) const CHECKPOINT_PAUSE: u64 = 544;
    /// Until when the kernel is not told to write anything out (monotonic, ns).
    pub(crate) const WRITE_OUT_AFTER: u64 = 552;
    /// Log position up to which the kernel was told to write the log out.
    pub(crate) const LOG_WRITTEN: u64 = 528;
    /// Ranks that had no data file when the arena was built.
    pub(crate) const ABSENT: u64 = 560;
}

/// Arena offset of a volatile word for the namespace layer, which changes it under the rename lock
/// with whatever could make a path of directories lead elsewhere.
pub const TREE_VERSION: u64 = header::TREE_VERSION;

/// `DAOSPIL1` in memory order.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"DAOSPIL1");
/// Version of the arena layout; another version is never attached.
pub(crate) const ARENA_VERSION: u64 = 9;
/// Version of the rank files' format. A pool keeps the one it was made with.
pub(crate) const VERSION: u64 = 3;
/// The oldest that is read and gone on with: its frames hold pages word by word.
pub(crate) const VERSION_MIN: u64 = 2;
/// The first whose frames leave out words that are zero.
pub(crate) const VERSION_PACKED: u64 = 3;

/// Words of a rank's entry, as byte offsets.
pub(crate) mod rank {
    pub(crate) const BLOCKS: u64 = 0;
    pub(crate) const FRESH_FROM: u64 = 8;
    pub(crate) const USED: u64 = 16;
    pub(crate) const HINT: u64 = 24;
    pub(crate) const JOURNAL: u64 = 32;
    /// Set after each write to the rank's data file, cleared by who is about to flush it.
    pub(crate) const UNFLUSHED: u64 = 40;
    /// Processes that have cleared the mark and not finished flushing.
    pub(crate) const FLUSHING: u64 = 48;
    /// The last window in which something was given back that waits for a sync; 0 = none.
    pub(crate) const WAITING: u64 = 56;
    pub(crate) const ZONES: u64 = 64;
    /// Bytes of the rank's frames that are whole.
    pub(crate) const META_END: u64 = 128;
    /// The frames that count are those of the file that was being written anew.
    pub(crate) const META_UNNAMED: u64 = 136;
    /// Log position up to which the rank's copy of the log is safe; 0 = there is none.
    pub(crate) const LOG_COPIED: u64 = 152;
    /// Log position at which the copy was made, and up to which something was written to it and flushed.
    pub(crate) const LOG_MADE: u64 = 160;
    pub(crate) const LOG_FILLED: u64 = 168;
    /// First block of what waits for a sync, as far as a search for free blocks should go back
    /// there once it does not wait any more, + 1; 0 = none.
    pub(crate) const WAITING_FROM: u64 = 176;
    /// Log position up to which the checkpoint in progress has written the rank's copy of the log;
    /// [`super::PASSED_OVER`] if it could not.
    pub(crate) const LOG_STORED: u64 = 184;
    /// Where its next frames go in the rank's file; [`super::PASSED_OVER`] if the rank is gone.
    pub(crate) const META_AT: u64 = 192;
    /// It writes the rank's frames anew, to a file of another name.
    pub(crate) const META_ANEW: u64 = 200;
    /// Up to where in that file the kernel was told to write its frames out.
    pub(crate) const META_OUT: u64 = 224;
    /// Flushes of the rank's data file that have failed, and from bit 32 on how many of them had when one
    /// last succeeded for sure.
    pub(crate) const DOUBT: u64 = 208;
    /// The round of flushes in which some of the rank's files were flushed, times 256, and which: a bit
    /// for each; four bits further, which of them somebody has begun or asked the kernel for.
    pub(crate) const FLUSHED: u64 = 216;
    /// Its log may be a copy as far as `settle` has come.
    pub(crate) const LOG_LEFT: u64 = 232;
    /// The rank's data file was not there when the arena was built.
    pub(crate) const WAS_ABSENT: u64 = 144;
    /// Nor were its frames: what it holds is not in the arena. Should it come back, nothing is added to its
    /// files, or cut from them, until the next arena is built.
    pub(crate) const LEFT_OUT: u64 = 240;
}

/// Words of an owner slot behind `shm::OwnerSlot`, as byte offsets.
pub(crate) mod owner {
    pub(crate) const RECORD_AT: u64 = 64;
    pub(crate) const RECORD_LEN: u64 = 72;
    pub(crate) const LOCKS: u64 = 80;
    pub(crate) const LOCKS_LEN: u64 = 16;
    /// The rank + 1 whose data the thread flushes, in bit 15 whether somebody has waited for it in vain, and
    /// from bit 16 on since when (monotonic, ns); 0 = none.
    pub(crate) const FLUSHING: u64 = 208;
    pub(crate) const PAGES: u64 = 256;
    pub(crate) const PAGES_LEN: u64 = 16;
    pub(crate) const FREED_PAGES: u64 = 384;
    pub(crate) const FREED_PAGES_LEN: u64 = 32;
    pub(crate) const RUNS: u64 = 640;
    pub(crate) const RUNS_LEN: u64 = 64;
    pub(crate) const FREED_RUNS: u64 = 1152;
    pub(crate) const FREED_RUNS_LEN: u64 = crate::limits::TX_FREED_MAX as u64;
    pub(crate) const LOCAL_RECORD: u64 = 2048;
    pub(crate) const LOCAL_RECORD_BYTES: u64 = shm::OWNER_BYTES - LOCAL_RECORD;
    const _: () = assert!(LOCKS + LOCKS_LEN * 8 <= FLUSHING && FLUSHING + 8 <= PAGES);
    const _: () = assert!(PAGES + PAGES_LEN * 8 <= FREED_PAGES);
    const _: () = assert!(FREED_PAGES + FREED_PAGES_LEN * 8 <= RUNS);
    const _: () = assert!(RUNS + RUNS_LEN * 8 <= FREED_RUNS);
    const _: () = assert!(FREED_RUNS + FREED_RUNS_LEN * 8 <= LOCAL_RECORD);
}

/// See [`header::REBUILT`].
pub(crate) const REBUILT_UNSEEN: u64 = 1;

/// In place of a position in a rank's file: the rank cannot take part in this checkpoint.
pub(crate) const PASSED_OVER: u64 = u64::MAX;

/// Record length flag: the record lies in the owner's slot, not in the log.
pub(crate) const RECORD_LOCAL: u64 = 1 << 63;

/// Number of a record: its first granule in the page area; 0 = none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct Rec(pub u32);

impl Rec {
    /// No record.
    pub const NONE: Rec = Rec(0);

    /// Byte offset in the arena.
    #[inline]
    pub fn offset(self) -> u64 {
        at::PAGES + u64::from(self.0) * GRANULE
    }

    /// Page that holds the record.
    #[inline]
    pub fn page(self) -> u32 {
        self.0 / (PAGE / GRANULE) as u32
    }

    /// Whether this names nothing.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Link to a page: number, version of its allocation, and 16 bits for the user; 0 = none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageLink(pub u64);

impl PageLink {
    /// No page.
    pub const NONE: PageLink = PageLink(0);

    /// Packs a link.
    pub fn new(page: u32, version: u16, tag: u16) -> PageLink {
        PageLink(u64::from(page) | u64::from(version) << 32 | u64::from(tag) << 48)
    }

    /// Page number.
    pub fn page(self) -> u32 {
        self.0 as u32
    }

    /// Version of the page's allocation.
    pub fn version(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The user's bits.
    pub fn tag(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The same link with other user's bits.
    pub fn with_tag(self, tag: u16) -> PageLink {
        PageLink::new(self.page(), self.version(), tag)
    }

    /// Whether this names nothing.
    pub fn is_none(self) -> bool {
        self.page() == 0
    }

    /// Byte offset of the page in the arena.
    #[inline]
    pub fn offset(self) -> u64 {
        at::PAGES + u64::from(self.page()) * PAGE
    }
}

/// First word of a page descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageState {
    /// What the page is (`kind`).
    pub kind: u8,
    /// Size class of its slots: log2 of bytes.
    pub class: u8,
    /// Copies on disk; 0 = volatile.
    pub replicas: u8,
    /// Lock domain and first rank.
    pub target: u16,
    /// Version of the allocation.
    pub version: u16,
}

impl PageState {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.kind)
            | u64::from(self.class) << 8
            | u64::from(self.replicas) << 16
            | u64::from(self.target) << 32
            | u64::from(self.version) << 48
    }

    pub(crate) fn unpack(word: u64) -> PageState {
        PageState {
            kind: word as u8,
            class: (word >> 8) as u8,
            replicas: (word >> 16) as u8,
            target: (word >> 32) as u16,
            version: (word >> 48) as u16,
        }
    }
}

/// Words of a page descriptor, as byte offsets.
pub(crate) mod descriptor {
    pub(crate) const STATE: u64 = 0;
    pub(crate) const FREE_SLOTS: u64 = 8;
    pub(crate) const NEXT: u64 = 16;
    pub(crate) const DIRTY: u64 = 24;
}

pub(crate) fn descriptor_at(page: u32) -> u64 {
    at::DESCRIPTORS + u64::from(page) * at::DESCRIPTOR_BYTES
}

pub(crate) fn rank_at(rank: u16) -> u64 {
    at::RANKS + u64::from(rank) * at::RANK_BYTES
}

pub(crate) fn owner_at(owner: u16) -> u64 {
    at::OWNERS + u64::from(owner) * shm::OWNER_BYTES
}

pub(crate) fn process_at(slot: u32) -> u64 {
    at::PROCESSES + u64::from(slot) * at::PROCESS_BYTES
}

/// Arena offset of the pool's `index`th word for the layer above: zero when shared memory is made.
pub fn shared_word(index: u64) -> u64 {
    at::SHARED + index % SHARED_WORDS * 8
}

/// Size classes of slot records: 64, 256 and 1024 bytes.
pub(crate) const CLASSES: [u64; 3] = [64, 256, 1024];

/// Offset of the head of a target's list of pages with free slots.
pub(crate) fn partial_at(target: u16, class: usize, replicas: u8) -> u64 {
    let index = class * (PAGE_REPLICAS_MAX + 1) + usize::from(replicas);
    at::TARGETS + u64::from(target) * at::TARGET_BYTES + (index / 2 * 8) as u64
}

/// A target's list heads are 32-bit page numbers, two to a word.
pub(crate) fn partial_shift(class: usize, replicas: u8) -> u32 {
    let index = class * (PAGE_REPLICAS_MAX + 1) + usize::from(replicas);
    if index.is_multiple_of(2) { 0 } else { 32 }
}

const _: () =
    assert!((CLASSES.len() * (PAGE_REPLICAS_MAX + 1)).div_ceil(2) * 8 <= at::TARGET_BYTES as usize);

/// Tag of a slot record: kind and generation.
pub fn tag(kind: u8, generation: u32) -> u64 {
    u64::from(kind) | u64::from(generation) << 32
}

/// Kind in a tag.
pub fn tag_kind(tag: u64) -> u8 {
    tag as u8
}

/// Generation in a tag.
pub fn tag_generation(tag: u64) -> u32 {
    (tag >> 32) as u32
}

/// Contiguous blocks of one rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Rank whose data file holds them.
    pub rank: u16,
    /// First block.
    pub start: u64,
    /// Number of blocks.
    pub len: u32,
    /// Never written before: what is not written now reads as zeros.
    pub fresh: bool,
}

impl Run {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.len)
            | self.start << 20
            | u64::from(self.fresh) << 53
            | u64::from(self.rank) << 54
    }

    pub(crate) fn unpack(word: u64) -> Run {
        Run {
            len: (word & 0xf_ffff) as u32,
            start: word >> 20 & 0x1_ffff_ffff,
            rank: (word >> 54) as u16,
            fresh: word >> 53 & 1 != 0,
        }
    }
}

/// Longest run that packs.
pub(crate) const RUN_LEN_MAX: u32 = 0xf_ffff;

/// A block of a file in a map leaf: rank, block, and a version that tells one use from the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlockPtr(pub u64);

impl BlockPtr {
    const VALID: u64 = 1 << 63;
    const UNWRITTEN: u64 = 1 << 62;

    /// A hole.
    pub const HOLE: BlockPtr = BlockPtr(0);

    /// Points to `block` of `rank`; `version` is any number that differs from the last use's.
    pub fn new(rank: u16, block: u64, version: u32) -> BlockPtr {
        BlockPtr(
            BlockPtr::VALID
                | (u64::from(version) & 0x3ffff) << 44
                | (u64::from(rank) & 0x3ff) << 34
                | block & 0x3_ffff_ffff,
        )
    }

    /// The same block marked allocated but never written: reads as zeros.
    pub fn unwritten(self) -> BlockPtr {
        BlockPtr(self.0 | BlockPtr::UNWRITTEN)
    }

    /// The same block marked written.
    pub fn written(self) -> BlockPtr {
        BlockPtr(self.0 & !BlockPtr::UNWRITTEN)
    }

    /// Nothing allocated.
    pub fn is_hole(self) -> bool {
        self.0 & BlockPtr::VALID == 0
    }

    /// Allocated, reads as zeros.
    pub fn is_unwritten(self) -> bool {
        self.0 & BlockPtr::UNWRITTEN != 0
    }

    /// Rank and block in one word.
    pub(crate) fn place(self) -> u64 {
        self.0 & 0xfff_ffff_ffff
    }

    /// Rank.
    pub fn rank(self) -> u16 {
        (self.0 >> 34 & 0x3ff) as u16
    }

    /// Block in the rank's data file.
    pub fn block(self) -> u64 {
        self.0 & 0x3_ffff_ffff
    }
}
