//! Every capacity of the engine and the layout of the arena, with the assertions that tie them.

/// Bytes of an arena page.
pub const PAGE: u64 = 4096;
/// Bytes of a granule, the unit of record addresses.
pub const GRANULE: u64 = 64;
/// Bytes of a data block in a rank file.
pub const BLOCK: u64 = 4096;
/// Ranks of a pool.
pub const RANKS_MAX: usize = 256;
/// Targets of a pool: ranks times targets per rank.
pub const TARGETS_MAX: usize = 4096;
/// Threads that can be at work in a pool at one time, over all processes.
pub(crate) const OWNERS_MAX: usize = 2048;
/// Processes attached to a pool at one time.
pub(crate) const PROCESSES_MAX: usize = 4096;
/// Pools one process can attach.
pub(crate) const POOLS_MAX: usize = 8;
/// Words of a pool for the layer above: from [`crate::shared_word`] 0 to this.
pub const SHARED_WORDS: u64 = 2048;
/// Copies of a record or block.
pub const REPLICAS_MAX: usize = 8;
/// Copies of a metadata page; classes with more keep this many.
pub(crate) const PAGE_REPLICAS_MAX: usize = 5;
/// Locks one transaction can hold.
pub const TX_LOCKS_MAX: usize = 10;
/// 64-bit words of one redo record, header included.
pub(crate) const TX_WORDS_MAX: usize = 8192;
/// Runs of blocks one transaction can free.
pub(crate) const TX_FREED_MAX: usize = 48;

/// Pages of a new arena (2 MiB).
pub(crate) const GROW_PAGES: u64 = 512;
/// Growth of the arena in pages (512 KiB): where the machine's memory is new to it, giving 2 MiB takes
/// several milliseconds.
pub(crate) const GROW_STEP: u64 = 128;
/// Growth of a rank's data file in blocks (64 MiB).
pub(crate) const GROW_BLOCKS: u64 = 16_384;
/// Blocks covered by one bitmap page (128 MiB).
pub(crate) const ZONE_BLOCKS: u64 = PAGE * 8;
/// Zone tables of a rank.
pub(crate) const ZONE_TABLES: u64 = 8;
/// Blocks a rank can have (512 GiB).
pub(crate) const RANK_BLOCKS_MAX: u64 = ZONE_TABLES * (PAGE / 8) * ZONE_BLOCKS;

/// Numbers that a record can have: below this.
pub const RECORDS_MAX: usize = (at::PAGES_MAX * (PAGE / GRANULE)) as usize;

/// Layout of the arena file, in bytes from its start.
pub(crate) mod at {
    use super::*;

    /// Rank table.
    pub(crate) const RANKS: u64 = 0x1000;
    /// Bytes of a rank's entry.
    pub(crate) const RANK_BYTES: u64 = 256;
    /// Lock table: targets first, then the special locks, then one per rank.
    pub(crate) const LOCKS: u64 = 0x20000;
    /// Bytes of a lock, one cache line.
    pub(crate) const LOCK_BYTES: u64 = 64;
    /// Target table.
    pub(crate) const TARGETS: u64 = 0x80000;
    /// Bytes of a target's entry.
    pub(crate) const TARGET_BYTES: u64 = 128;
    /// Owner slots.
    pub(crate) const OWNERS: u64 = 0x10_0000;
    /// Process slots.
    pub(crate) const PROCESSES: u64 = OWNERS + OWNERS_MAX as u64 * shm::OWNER_BYTES;
    /// Bytes of a process slot.
    pub(crate) const PROCESS_BYTES: u64 = 256;
    /// Words of the pool for the layer above.
    pub(crate) const SHARED: u64 = PROCESSES + PROCESSES_MAX as u64 * PROCESS_BYTES;
    /// End of the part that exists from the start.
    pub(crate) const FIXED_END: u64 = SHARED + SHARED_WORDS * 8;
    /// Page descriptors.
    pub(crate) const DESCRIPTORS: u64 = 64 << 20;
    /// Bytes of a page descriptor.
    pub(crate) const DESCRIPTOR_BYTES: u64 = 32;
    /// Pages.
    pub(crate) const PAGES: u64 = 512 << 20;
    /// Pages the layout has room for (32 GiB).
    pub(crate) const PAGES_MAX: u64 = 8 << 20;
    /// Address space of the whole arena.
    pub(crate) const SPAN: u64 = PAGES + PAGES_MAX * PAGE;
}

const _: () = assert!(at::RANKS + RANKS_MAX as u64 * at::RANK_BYTES <= at::LOCKS);
const _: () = assert!(at::LOCKS + LOCKS_MAX * at::LOCK_BYTES <= at::TARGETS);
const _: () = assert!(at::TARGETS + TARGETS_MAX as u64 * at::TARGET_BYTES <= at::OWNERS);
const _: () = assert!(at::FIXED_END <= at::DESCRIPTORS);
const _: () = assert!(at::DESCRIPTORS + at::PAGES_MAX * at::DESCRIPTOR_BYTES <= at::PAGES);
const _: () = assert!(at::PAGES_MAX * (PAGE / GRANULE) <= u32::MAX as u64 + 1);

/// First special lock.
pub(crate) const LOCK_SPECIAL: u64 = TARGETS_MAX as u64;
/// First rank lock.
pub(crate) const LOCK_RANKS: u64 = LOCK_SPECIAL + 64;
/// Locks in the table.
pub(crate) const LOCKS_MAX: u64 = LOCK_RANKS + RANKS_MAX as u64;
