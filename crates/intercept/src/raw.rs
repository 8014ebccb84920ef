//! Does the program hold system calls that rewriting does not reach?
//!
//! Decides whether [`crate::Mode::Auto`] adds Syscall User Dispatch. The verdict for a set of
//! objects is kept in the cache as the name of an empty file, so that the objects are searched once.

use crate::classes::ClassTable;
use crate::modules::{self, Segment};
use crate::os::{self, Fd};
use crate::{arch, cache, image};
use core::ffi::CStr;

const AT_PHDR: usize = 3;
const AT_PHNUM: usize = 5;
const PT_PHDR: u32 = 6;
/// Without a cache the search would cost every process as much; it is left out beyond this.
const UNCACHED_BYTES_MAX: usize = 1 << 20;

/// An object other than those that are rewritten and ourselves.
struct Object {
    base: usize,
    segments: &'static [Segment],
}

/// # Safety
/// As for [`modules::for_each_object`].
unsafe fn objects(mut visit: impl FnMut(&Object, &'static CStr)) {
    let own = is_present as *const () as usize;
    // SAFETY: passed on.
    unsafe {
        modules::for_each_object(|base, path| {
            let segments = match path.to_bytes() {
                b"" => program_segments(base),
                _ => modules::segments(base),
            };
            let Some(segments) = segments.filter(|_| !modules::is_wanted(path)) else {
                return;
            };
            let within =
                |s: &Segment| own.wrapping_sub(base + s.va as usize) < s.memory_len as usize;
            let vdso = path.to_bytes().starts_with(b"linux-");
            if !vdso && !segments.iter().any(within) {
                visit(&Object { base, segments }, path);
            }
        });
    }
}

/// The program's own segments, as the kernel names them. Where the dynamic linker was started as
/// a program they are its own, which the table itself tells.
fn program_segments(base: usize) -> Option<&'static [Segment]> {
    let [at, count] = os::auxiliary([AT_PHDR, AT_PHNUM])?;
    // SAFETY: the kernel says where the headers are of what it loaded.
    let segments = unsafe { core::slice::from_raw_parts(at as *const Segment, count.min(64)) };
    let own = segments.iter().find(|segment| segment.kind == PT_PHDR)?;
    (at == base + own.va as usize).then_some(segments)
}

/// Identity of a file without a build-id.
fn file_identity(path: &CStr) -> Option<u64> {
    let path = if path.is_empty() {
        c"/proc/self/exe"
    } else {
        path
    };
    let file = Fd::open(None, path, 0, 0).ok()?;
    file.identity().ok().map(|words| {
        words.iter().fold(0u64, |hash, word| {
            image::fnv(&word.to_le_bytes()) ^ hash.rotate_left(17)
        })
    })
}

/// Is there a raw system call of interest in the program or its libraries?
///
/// # Safety
/// As for [`modules::for_each_object`].
pub(crate) unsafe fn is_present(dir: Option<&Fd>, classes: &'static ClassTable) -> bool {
    let mut key = image::Plan::new(classes, true).sum();
    let mut bytes = 0;
    // SAFETY: passed on.
    unsafe {
        objects(|object, path| {
            let id = match modules::build_id_of(object.base, object.segments) {
                Some(id) => image::fnv(id),
                None => file_identity(path).unwrap_or(0),
            };
            key = key.rotate_left(13) ^ id;
            bytes += modules::executable(object.base, object.segments)
                .map(<[u8]>::len)
                .sum::<usize>();
        });
    }
    let names = [b"0", b"1"].map(|verdict| cache::verdict_name(key, verdict));
    let [Some(no), Some(yes)] = names else {
        return false;
    };
    match dir {
        Some(dir) if dir.has(no.as_cstr()) => return false,
        Some(dir) if dir.has(yes.as_cstr()) => return true,
        None if bytes > UNCACHED_BYTES_MAX => return false,
        _ => {}
    }
    let mut found = false;
    // SAFETY: passed on.
    unsafe {
        objects(|object, _| {
            found = found
                || modules::executable(object.base, object.segments)
                    .any(|text| arch::has_raw_calls(text, classes));
        });
    }
    if let Some(dir) = dir {
        let name = if found { &yes } else { &no };
        let flags = os::O_WRONLY | os::O_CREAT | os::O_NOFOLLOW;
        // A verdict that cannot be kept is found again next time.
        drop(Fd::open(Some(dir), name.as_cstr(), flags, 0o600));
    }
    found
}
