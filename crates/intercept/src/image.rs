//! The rewritten text of one module, with its stubs, as one relocatable block of bytes.
//!
//! Layout, each part page-aligned: header and site table, text, stubs. The stubs lie at a fixed
//! distance from the text, so the same bytes serve every process; the page behind the stubs holds
//! the process's own pointers ([`Cells`]).

use crate::arch::{self, Cells};
use crate::classes::{Class, ClassTable};
use crate::modules::{BUILD_ID_MAX, Module};
use crate::os::PAGE;

/// Layout of header and table.
pub(crate) const IMAGE_VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"PIL4TEXT";
/// Distances from the text's start to the stubs, tried in this order. Far from where libraries
/// and the first mappings of a program lie, within reach of a 32-bit branch.
pub(crate) const DISTANCES: [isize; 3] = [-0x2000_0000, -0x3000_0000, 0x2000_0000];

/// First bytes of an image.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Header {
    magic: [u8; 8],
    version: u32,
    header_len: u32,
    /// [`Plan::sum`].
    config: u64,
    build_id: [u8; BUILD_ID_MAX],
    build_id_len: u64,
    text_len: u64,
    distance: i64,
    stubs_len: u64,
    site_count: u64,
    refused_count: u64,
    total_len: u64,
    /// Checksum of the site table.
    table_sum: u64,
    /// Checksum of this header with this field 0.
    header_sum: u64,
}

/// One rewritten site.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SiteRecord {
    /// Offset of the replaced range in the text.
    pub(crate) start: u32,
    /// Offset of the stub in the stubs.
    pub(crate) stub: u32,
    /// Offset of the stub's native system call in the stubs.
    pub(crate) native: u32,
    pub(crate) nr: u32,
    pub(crate) len: u8,
    pub(crate) syscall_at: u8,
    pub(crate) original: [u8; 24],
    pub(crate) pad: [u8; 6],
}

const RECORD: usize = size_of::<SiteRecord>();
const SITES_MAX: u64 = 8192;
const LEN_MAX: u64 = 64 << 20;

/// A built or loaded image.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) text_at: usize,
    pub(crate) text_len: usize,
    pub(crate) stubs_at: usize,
    pub(crate) stubs_len: usize,
    pub(crate) distance: isize,
    pub(crate) site_count: usize,
    pub(crate) refused_count: usize,
}

pub(crate) const fn fnv(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    hash
}

/// What an image is made for.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) classes: &'static ClassTable,
    /// Rewrite every system call, for Syscall User Dispatch.
    pub(crate) every: bool,
    sum: u64,
}

impl Plan {
    pub(crate) fn new(classes: &'static ClassTable, every: bool) -> Plan {
        let mut sum = arch::SOURCE_SUM ^ u64::from(every);
        for class in classes {
            sum = (sum ^ *class as u64).wrapping_mul(0x100_0000_01b3);
        }
        Plan {
            classes,
            every,
            sum,
        }
    }

    /// Identifies the plan and the code that made an image.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }
}

/// Checksum of a whole number of 8-byte words, a word at a time: against damage, not malice.
fn word_sum(bytes: &[u8]) -> u64 {
    let mut sums = [0x9e37_79b9_7f4a_7c15u64; 4];
    for group in bytes.chunks(32) {
        for (sum, word) in sums.iter_mut().zip(group.chunks_exact(8)) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            *sum = (*sum ^ word)
                .wrapping_mul(0x9fb2_1c65_1e98_df25)
                .rotate_left(29);
        }
    }
    sums.iter().fold(bytes.len() as u64, |all, sum| {
        (all ^ sum)
            .wrapping_mul(0x9fb2_1c65_1e98_df25)
            .rotate_left(31)
    })
}

const _: () = assert!(size_of::<Header>().is_multiple_of(8) && RECORD.is_multiple_of(8));

fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: used with Header and SiteRecord only, which have no padding.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast(), size_of::<T>()) }
}

const _: () = assert!(size_of::<Header>() == 8 + 8 + 8 + 32 + 9 * 8);
const _: () = assert!(RECORD == 48);
const _: () = assert!(size_of::<Cells>() <= PAGE);

/// Builds the image of a module whose text bytes are `text`, loaded at `module.text`.
pub(crate) fn build(
    module: &Module,
    text: &[u8],
    data: &[(u64, &[u8])],
    plan: &Plan,
    distance: isize,
) -> Option<Vec<u8>> {
    let va = module.text as u64;
    let found = arch::analyse(text, va, data, plan.classes, plan.every);
    let stubs_va = va.wrapping_add_signed(distance as i64);
    let mut patched = text.to_vec();
    // The cells follow the stubs, whose length is not known before they are written: two rounds.
    let emitted = arch::emit(
        &mut patched,
        va,
        &found.sites,
        plan.classes,
        stubs_va,
        stubs_va,
        plan.every,
    )?;
    let stubs_len = emitted.code.len().next_multiple_of(PAGE).max(PAGE);
    patched.copy_from_slice(text);
    let cells_va = stubs_va + stubs_len as u64;
    let emitted = arch::emit(
        &mut patched,
        va,
        &found.sites,
        plan.classes,
        stubs_va,
        cells_va,
        plan.every,
    )?;
    let mut table = Vec::with_capacity(found.sites.len() * RECORD);
    for (site, placed) in found.sites.iter().zip(&emitted.placed) {
        let mut record = SiteRecord {
            start: site.start,
            stub: placed.stub,
            native: placed.native,
            nr: site.nr,
            len: site.len,
            syscall_at: site.syscall_at,
            original: [0; 24],
            pad: [0; 6],
        };
        let (start, len) = (site.start as usize, site.len as usize);
        record
            .original
            .get_mut(..len)?
            .copy_from_slice(text.get(start..start + len)?);
        table.extend_from_slice(bytes_of(&record));
    }
    let text_at = (size_of::<Header>() + table.len()).next_multiple_of(PAGE);
    let total = text_at + text.len() + stubs_len;
    let mut header = Header {
        magic: MAGIC,
        version: IMAGE_VERSION,
        header_len: size_of::<Header>() as u32,
        config: plan.sum(),
        build_id: module.build_id,
        build_id_len: module.build_id_len as u64,
        text_len: text.len() as u64,
        distance: distance as i64,
        stubs_len: stubs_len as u64,
        site_count: found.sites.len() as u64,
        refused_count: refused_files(&found.refused, plan.classes),
        total_len: total as u64,
        table_sum: word_sum(&table),
        header_sum: 0,
    };
    header.header_sum = word_sum(bytes_of(&header));
    let mut image = Vec::with_capacity(total);
    image.extend_from_slice(bytes_of(&header));
    image.extend_from_slice(&table);
    image.resize(text_at, 0);
    image.extend_from_slice(&patched);
    image.extend_from_slice(&emitted.code);
    image.resize(total, 0xcc);
    Some(image)
}

/// Sites of interest that stay as they are; thread exit loops and the like have no file meaning.
fn refused_files(refused: &[(u32, u32)], classes: &ClassTable) -> u64 {
    refused
        .iter()
        .filter(|(_, nr)| arch::class_of(*nr, classes) != Class::Native)
        .count() as u64
}

/// Checks the first bytes of an image against the module it is for. `image` may be the header and
/// table part only, `file_len` the length of the whole.
pub(crate) fn check(
    image: &[u8],
    file_len: u64,
    module: &Module,
    plan: &Plan,
    distance: isize,
) -> Option<Layout> {
    let raw = image.get(..size_of::<Header>())?;
    // SAFETY: the slice has the header's length; every bit pattern is valid.
    let header = unsafe { raw.as_ptr().cast::<Header>().read_unaligned() };
    let unsigned = Header {
        header_sum: 0,
        ..header
    };
    let sound = header.magic == MAGIC
        && header.version == IMAGE_VERSION
        && header.header_len as usize == size_of::<Header>()
        && header.header_sum == word_sum(bytes_of(&unsigned))
        && header.config == plan.sum()
        && header.build_id == module.build_id
        && header.build_id_len == module.build_id_len as u64
        && header.text_len == module.text_len as u64
        && header.distance == distance as i64
        && header.site_count <= SITES_MAX
        && header.total_len <= LEN_MAX
        && header.total_len == file_len;
    if !sound {
        return None;
    }
    let table_len = header.site_count as usize * RECORD;
    let table = image.get(size_of::<Header>()..size_of::<Header>() + table_len)?;
    let text_at = (size_of::<Header>() + table_len).next_multiple_of(PAGE);
    let stubs_at = text_at + module.text_len;
    let fits = (stubs_at as u64).checked_add(header.stubs_len) == Some(header.total_len)
        && (header.stubs_len as usize).is_multiple_of(PAGE)
        && header.table_sum == word_sum(table);
    fits.then_some(Layout {
        text_at,
        text_len: module.text_len,
        stubs_at,
        stubs_len: header.stubs_len as usize,
        distance,
        site_count: header.site_count as usize,
        refused_count: header.refused_count as usize,
    })
}

/// Length of header and table of an image with `site_count` sites.
pub(crate) fn head_len(site_count: usize) -> usize {
    size_of::<Header>() + site_count * RECORD
}

/// Record `index` of an image's site table.
pub(crate) fn record(image: &[u8], index: usize) -> Option<SiteRecord> {
    let at = size_of::<Header>() + index * RECORD;
    let raw = image.get(at..at + RECORD)?;
    // SAFETY: the slice has the record's length; every bit pattern is valid.
    Some(unsafe { raw.as_ptr().cast::<SiteRecord>().read_unaligned() })
}

/// Do the text's bytes equal, at every site, what the image replaces?
pub(crate) fn matches(image: &[u8], layout: &Layout, text: &[u8]) -> bool {
    (0..layout.site_count).all(|index| {
        record(image, index).is_some_and(|site| {
            let (start, len) = (site.start as usize, site.len as usize);
            site.original.get(..len).is_some()
                && text.get(start..start + len) == site.original.get(..len)
        })
    })
}
