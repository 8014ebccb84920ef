//! The loaded objects whose text is rewritten: libc, the dynamic linker and, before glibc 2.34,
//! libpthread and librt.
//!
//! Found through the dynamic linker's own list (`r_debug`), without a call into it.

use crate::os::PAGE;
use core::ffi::{CStr, c_char};

core::arch::global_asm!(
    ".pushsection .text.pil4dfs_debug,\"ax\",@progbits",
    ".weak _r_debug",
    ".popsection"
);

#[repr(C)]
struct LinkMap {
    address: usize,
    name: *const c_char,
    dynamic: usize,
    next: *const LinkMap,
}

#[repr(C)]
struct Header {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    segments_at: u64,
    sections_at: u64,
    flags: u32,
    header_len: u16,
    segment_len: u16,
    segment_count: u16,
}

/// A program header (`Elf64_Phdr`).
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) va: u64,
    pub(crate) pa: u64,
    pub(crate) file_len: u64,
    pub(crate) memory_len: u64,
    pub(crate) align: u64,
}

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const SEGMENTS_MAX: usize = 32;

/// Longest build-id that is told apart.
pub(crate) const BUILD_ID_MAX: usize = 32;

/// A loaded object.
#[derive(Clone, Copy)]
pub(crate) struct Module {
    pub(crate) base: usize,
    pub(crate) path: &'static CStr,
    pub(crate) build_id: [u8; BUILD_ID_MAX],
    pub(crate) build_id_len: usize,
    /// Page-aligned address and length of the executable segment.
    pub(crate) text: usize,
    pub(crate) text_len: usize,
    /// File offset of the page at `text`.
    pub(crate) text_offset: u64,
}

/// Calls `visit` for each object worth rewriting, at most once each.
///
/// # Safety
/// As for [`for_each_object`].
pub(crate) unsafe fn for_each(mut visit: impl FnMut(&Module)) {
    // SAFETY: passed on; the object is mapped at its address.
    unsafe {
        for_each_object(|base, path| {
            if is_wanted(path)
                && let Some(module) = describe(base, path)
            {
                visit(&module);
            }
        });
    }
}

/// Calls `visit` with load address and path of each object, the program itself first, with an empty
/// path. The address is what the object's own addresses are relative to.
///
/// # Safety
/// No other thread may load or unload objects meanwhile; so early in start-up only.
pub(crate) unsafe fn for_each_object(mut visit: impl FnMut(usize, &'static CStr)) {
    let debug: *const usize;
    // SAFETY: reads the global offset table; a missing weak symbol reads as null.
    unsafe {
        core::arch::asm!("mov {}, qword ptr [rip + _r_debug@GOTPCREL]", out(reg) debug,
            options(nostack, pure, readonly));
    }
    if debug.is_null() {
        return;
    }
    // SAFETY: r_debug is an int, padded, then the head of the list; the list is well formed while
    // nobody loads or unloads.
    let mut at = unsafe { *debug.add(1) as *const LinkMap };
    // SAFETY: as above.
    while let Some(map) = unsafe { at.as_ref() } {
        at = map.next;
        if map.name.is_null() {
            continue;
        }
        // SAFETY: names are terminated and live as long as the object, which is never unloaded.
        let path: &'static CStr = unsafe { CStr::from_ptr(map.name) };
        visit(map.address, path);
    }
}

/// Is this one of the objects that are rewritten?
pub(crate) fn is_wanted(path: &CStr) -> bool {
    let name = path
        .to_bytes()
        .rsplit(|&b| b == b'/')
        .next()
        .unwrap_or_default();
    const EXACT: [&[u8]; 4] = [
        b"libc.so.6",
        b"ld-linux-x86-64.so.2",
        b"libpthread.so.0",
        b"librt.so.1",
    ];
    const FAMILY: [&[u8]; 4] = [b"libc-2.", b"ld-2.", b"libpthread-2.", b"librt-2."];
    EXACT.contains(&name) || FAMILY.iter().any(|prefix| name.starts_with(prefix))
}

/// The segments of the object mapped at `base`.
///
/// # Safety
/// `base` must be mapped and readable for a page.
pub(crate) unsafe fn segments(base: usize) -> Option<&'static [Segment]> {
    // A prelinked object has its header elsewhere, and there may be nothing here.
    sys::uaccess::load::<[u8; size_of::<Header>()]>(base).ok()?;
    let header = base as *const Header;
    // SAFETY: the memory is there, as just seen; every bit pattern is valid.
    let header = unsafe { header.as_ref() }?;
    let count = header.segment_count as usize;
    let end = header.segments_at as usize + count * size_of::<Segment>();
    let sound = header.ident.starts_with(b"\x7fELF\x02\x01")
        && header.machine == 62
        && header.segment_len as usize == size_of::<Segment>()
        && count <= SEGMENTS_MAX
        && end <= PAGE;
    // SAFETY: the table lies in the first page, as just checked.
    sound.then(|| unsafe {
        core::slice::from_raw_parts(
            (base + header.segments_at as usize) as *const Segment,
            count,
        )
    })
}

/// # Safety
/// An object must be loaded at `base`.
pub(crate) unsafe fn describe(base: usize, path: &'static CStr) -> Option<Module> {
    // SAFETY: passed on.
    let segments = unsafe { segments(base) }?;
    let mut executable = segments
        .iter()
        .filter(|s| s.kind == PT_LOAD && s.flags & PF_X != 0);
    let text = executable.next()?;
    if executable.next().is_some() || text.flags & PF_W != 0 {
        return None;
    }
    let slack = text.va as usize % PAGE;
    let mut module = Module {
        base,
        path,
        build_id: [0; BUILD_ID_MAX],
        build_id_len: 0,
        text: base + text.va as usize - slack,
        text_len: (text.memory_len as usize + slack).next_multiple_of(PAGE),
        text_offset: text.offset - slack as u64,
    };
    // SAFETY: passed on.
    let id = unsafe { build_id_of(base, segments) }?;
    module.build_id_len = id.len().min(BUILD_ID_MAX);
    let len = module.build_id_len;
    module.build_id[..len].copy_from_slice(&id[..len]);
    Some(module)
}

/// The build-id of the object whose addresses are relative to `base`.
///
/// # Safety
/// `segments` must be those of that object.
pub(crate) unsafe fn build_id_of(base: usize, segments: &[Segment]) -> Option<&'static [u8]> {
    segments
        .iter()
        .filter(|s| s.kind == PT_NOTE)
        .find_map(|note| {
            // SAFETY: notes of a loaded object lie in its readable segments.
            let bytes = unsafe {
                let start = (base + note.va as usize) as *const u8;
                core::slice::from_raw_parts(start, note.memory_len as usize)
            };
            build_id(bytes, note.align.max(4) as usize)
        })
}

/// The executable parts of the object whose addresses are relative to `base`.
///
/// # Safety
/// `segments` must be those of that object, which must stay loaded while the slices are used.
pub(crate) unsafe fn executable(
    base: usize,
    segments: &[Segment],
) -> impl Iterator<Item = &'static [u8]> {
    segments
        .iter()
        .filter(|s| s.kind == PT_LOAD && s.flags & (PF_X | PF_R) == PF_X | PF_R)
        .map(move |s| {
            // SAFETY: an executable segment is mapped, and readable, for its file length.
            unsafe {
                let start = (base + s.va as usize) as *const u8;
                core::slice::from_raw_parts(start, s.file_len as usize)
            }
        })
}

fn build_id(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    let word = |bytes: &[u8], at: usize| {
        let raw = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]))
    };
    loop {
        let name_len = word(notes, 0)? as usize;
        let len = word(notes, 4)? as usize;
        let kind = word(notes, 8)?;
        let start = (12 + name_len).next_multiple_of(align);
        let end = start.checked_add(len)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0" {
            return notes.get(start..end);
        }
        notes = notes.get(end.next_multiple_of(align)..)?;
    }
}

/// The readable segments of a loaded object other than its text, as (address, bytes).
///
/// # Safety
/// An object must be loaded at `module.base` for as long as the slices are used.
pub(crate) unsafe fn data(module: &Module) -> Vec<(u64, &'static [u8])> {
    // SAFETY: passed on.
    let segments = unsafe { segments(module.base) }.unwrap_or_default();
    segments
        .iter()
        .filter(|s| s.kind == PT_LOAD && s.flags & (PF_X | PF_W) == 0)
        .map(|s| {
            let start = module.base + s.va as usize;
            // SAFETY: a read-only segment is mapped for its file length.
            let bytes =
                unsafe { core::slice::from_raw_parts(start as *const u8, s.file_len as usize) };
            (start as u64, bytes)
        })
        .collect()
}
