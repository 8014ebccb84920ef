//! Replaces the text of the modules, one after the other, each in one step.

use crate::arch::{self, Cells};
use crate::cache::{self, Opened, Source};
use crate::image::{self, Plan};
use crate::modules::{self, Module};
use crate::os::{self, Fd, PAGE};
use crate::{Report, fdtab};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use sys::{Errno, Result};

/// Most modules that are ever rewritten.
pub(crate) const MODULES_MAX: usize = 4;

/// A rewritten module, for the mapping of addresses in stubs back to the text.
pub(crate) struct Installed {
    /// Start of the text; 0 while the entry is free.
    pub(crate) text: AtomicUsize,
    pub(crate) stubs: AtomicUsize,
    pub(crate) stubs_len: AtomicUsize,
    /// The image's header and table, mapped read-only.
    pub(crate) head: AtomicUsize,
    pub(crate) site_count: AtomicUsize,
    cells: AtomicUsize,
}

pub(crate) static INSTALLED: [Installed; MODULES_MAX] = [const {
    Installed {
        text: AtomicUsize::new(0),
        stubs: AtomicUsize::new(0),
        stubs_len: AtomicUsize::new(0),
        head: AtomicUsize::new(0),
        site_count: AtomicUsize::new(0),
        cells: AtomicUsize::new(0),
    }
}; MODULES_MAX];

/// Not 0 while mapping calls are to be dispatched; the stubs read it.
static MAPS_ACTIVE: AtomicU32 = AtomicU32::new(0);

pub(crate) fn set_maps_active(on: bool) {
    MAPS_ACTIVE.store(u32::from(on), Ordering::Release);
}

/// Makes the stubs see the filter of all numbers (`open`) or the real one.
pub(crate) fn set_filter(open: bool) {
    let filter = if open {
        fdtab::open_filter()
    } else {
        fdtab::filter()
    };
    fdtab::ACTIVE_FILTER.store(filter as *mut _, Ordering::Release);
    for entry in &INSTALLED {
        let cells = entry.cells.load(Ordering::Acquire);
        if cells != 0 {
            // SAFETY: the page of cells stays mapped and writable; its first word is the filter,
            // which the stubs read as one word.
            unsafe { (*(cells as *const AtomicUsize)).store(filter, Ordering::Release) };
        }
    }
}

/// Rewrites every wanted module that is loaded.
///
/// # Safety
/// As for [`crate::start`].
pub(crate) unsafe fn all(dir: Option<&Fd>, plan: &Plan, report: &mut Report) {
    // SAFETY: passed on.
    unsafe {
        modules::for_each(|found| {
            match one(found, plan, dir) {
                Ok((source, sites, refused)) => report.add(found, source, sites, refused),
                Err(errno) => report.fail(found, errno),
            };
        });
    }
}

/// # Safety
/// As for [`crate::start`].
unsafe fn one(module: &Module, plan: &Plan, dir: Option<&Fd>) -> Result<(Source, usize, usize)> {
    let Some((index, entry)) = INSTALLED
        .iter()
        .enumerate()
        .find(|(_, e)| e.text.load(Ordering::Acquire) == 0)
    else {
        return Err(Errno::ENOMEM);
    };
    debug_assert!(index < MODULES_MAX);
    let mut last = Errno::ENOMEM;
    for which in 0..image::DISTANCES.len() {
        // SAFETY: passed on.
        match unsafe { at_distance(module, plan, dir, which, entry) } {
            Ok(done) => return Ok(done),
            // The place for the stubs is taken: the next distance.
            Err(Errno::EEXIST) => last = Errno::EEXIST,
            Err(errno) => return Err(errno),
        }
    }
    Err(last)
}

/// # Safety
/// As for [`crate::start`].
unsafe fn at_distance(
    module: &Module,
    plan: &Plan,
    dir: Option<&Fd>,
    which: usize,
    entry: &Installed,
) -> Result<(Source, usize, usize)> {
    let distance = image::DISTANCES[which];
    // SAFETY: the text of a loaded module is mapped and readable.
    let text = unsafe { core::slice::from_raw_parts(module.text as *const u8, module.text_len) };
    let name = cache::file_name(module, plan.sum(), which);
    if let (Some(dir), Some(name)) = (dir, &name)
        && let Ok(opened) = cache::open(dir, name, module, plan, distance)
        && image::matches(opened.head, &opened.layout, text)
    {
        if opened.layout.site_count == 0 {
            return Ok(done(Source::CacheFile, &opened));
        }
        // SAFETY: passed on.
        match unsafe { place(module, &opened, entry) } {
            Ok(()) => return Ok(done(Source::CacheFile, &opened)),
            // Not to be mapped executable (noexec): the same bytes from memory.
            Err(Errno::EPERM | Errno::EACCES) => {
                if let Ok(copied) = cache::copy_to_memory(&opened, module, plan)
                    // SAFETY: passed on.
                    && unsafe { place(module, &copied, entry) }.is_ok()
                {
                    return Ok(done(Source::MemoryFile, &copied));
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: passed on.
    let data = unsafe { modules::data(module) };
    let image = image::build(module, text, &data, plan, distance).ok_or(Errno::ENOEXEC)?;
    if pristine(module, text)
        && let (Some(dir), Some(name)) = (dir, &name)
        && cache::store(dir, name, &image).is_ok()
        && let Ok(opened) = cache::open(dir, name, module, plan, distance)
    {
        // SAFETY: passed on.
        match unsafe { place(module, &opened, entry) } {
            Ok(()) => return Ok(done(Source::NewCacheFile, &opened)),
            Err(Errno::EPERM | Errno::EACCES) => {}
            Err(errno) => return Err(errno),
        }
    }
    if let Ok(opened) = cache::memory(&image, module, plan, distance) {
        // SAFETY: passed on.
        match unsafe { place(module, &opened, entry) } {
            Ok(()) => return Ok(done(Source::MemoryFile, &opened)),
            Err(Errno::EEXIST) => return Err(Errno::EEXIST),
            Err(_) => {}
        }
    }
    // SAFETY: passed on.
    unsafe { in_place(module, plan, image, distance, entry) }
}

fn done(source: Source, opened: &Opened) -> (Source, usize, usize) {
    (
        source,
        opened.layout.site_count,
        opened.layout.refused_count,
    )
}

/// Is the loaded text the file's? Somebody else's changes must not get into the cache.
fn pristine(module: &Module, text: &[u8]) -> bool {
    let Ok(file) = Fd::open(None, module.path, 0, 0) else {
        return false;
    };
    let (len, flags) = (module.text_len, os::MAP_PRIVATE);
    let offset = module.text_offset as usize;
    let end = offset + len;
    if file
        .stat()
        .is_ok_and(|stat| (stat.size as usize).next_multiple_of(PAGE) < end)
    {
        return false;
    }
    // SAFETY: a fresh private mapping.
    let Ok(at) = (unsafe { os::map(0, len, os::PROT_READ, flags, Some((&file, offset))) }) else {
        return false;
    };
    // SAFETY: the file covers the mapping, as just checked; libraries in use are not truncated.
    let same = text == unsafe { core::slice::from_raw_parts(at as *const u8, len) };
    // SAFETY: the slice is gone.
    unsafe { os::unmap(at, len) };
    same
}

fn cells() -> Cells {
    let block = arch::thread_block().wrapping_sub(arch::thread_pointer());
    let offset = |field: usize| block.wrapping_add(field);
    Cells {
        filter: fdtab::filter(),
        gate: arch::gate(),
        clone_pre: arch::gate_clone_pre(),
        clone_post: arch::gate_clone_post(),
        clone_mode: offset(crate::tls::CLONE_MODE),
        classes: crate::config().map_or(0, |config| config.classes.as_ptr() as usize),
        selector: offset(crate::tls::SELECTOR),
        native: arch::native(),
        maps: MAPS_ACTIVE.as_ptr() as usize,
        gate_path: arch::gate_path(),
        gate_path_at: arch::gate_path_at(),
    }
}

/// Maps the cells behind the stubs and fills them.
///
/// # Safety
/// As for [`crate::start`].
unsafe fn place_cells(address: usize) -> Result<()> {
    let (prot, flags) = (
        os::PROT_READ | os::PROT_WRITE,
        os::MAP_PRIVATE | os::MAP_ANONYMOUS,
    );
    // SAFETY: replaces nothing.
    unsafe { os::map(address, PAGE, prot, flags | os::MAP_FIXED_NOREPLACE, None)? };
    // SAFETY: fresh memory of a page, aligned.
    unsafe { (address as *mut Cells).write(cells()) };
    Ok(())
}

/// Maps stubs, cells and then the text of an image.
///
/// # Safety
/// As for [`crate::start`].
unsafe fn place(module: &Module, opened: &Opened, entry: &Installed) -> Result<()> {
    let layout = &opened.layout;
    let stubs = module.text.wrapping_add_signed(layout.distance);
    let prot = os::PROT_READ | os::PROT_EXEC;
    let from = |at| Some((&opened.file, at));
    let flags = os::MAP_PRIVATE | os::MAP_FIXED_NOREPLACE;
    // SAFETY: replaces nothing.
    unsafe { os::map(stubs, layout.stubs_len, prot, flags, from(layout.stubs_at))? };
    // SAFETY: the stubs are behind `stubs`; the last mapping swaps the text for the same text with
    // jumps to them, in one step.
    let placed = unsafe {
        place_cells(stubs + layout.stubs_len).and_then(|()| {
            let flags = os::MAP_PRIVATE | os::MAP_FIXED;
            let done = os::map(
                module.text,
                layout.text_len,
                prot,
                flags,
                from(layout.text_at),
            );
            if done.is_err() {
                os::unmap(stubs + layout.stubs_len, PAGE);
            }
            done.map(drop)
        })
    };
    match placed {
        Ok(()) => {
            let head = opened.head.as_ptr() as usize;
            publish(
                module,
                stubs,
                layout.stubs_len,
                head,
                layout.site_count,
                entry,
            );
            Ok(())
        }
        Err(errno) => {
            // SAFETY: nothing jumps there.
            unsafe { os::unmap(stubs, layout.stubs_len) };
            Err(errno)
        }
    }
}

fn publish(
    module: &Module,
    stubs: usize,
    stubs_len: usize,
    head: usize,
    site_count: usize,
    entry: &Installed,
) {
    entry.stubs.store(stubs, Ordering::Relaxed);
    entry.stubs_len.store(stubs_len, Ordering::Relaxed);
    entry.head.store(head, Ordering::Relaxed);
    entry.site_count.store(site_count, Ordering::Relaxed);
    entry.cells.store(stubs + stubs_len, Ordering::Relaxed);
    entry.text.store(module.text, Ordering::Release);
}

/// Last resort: makes the text writable for a moment. Other threads must not run in it, which is
/// why this happens at start-up only.
///
/// # Safety
/// As for [`crate::start`].
unsafe fn in_place(
    module: &Module,
    plan: &Plan,
    image: Vec<u8>,
    distance: isize,
    entry: &Installed,
) -> Result<(Source, usize, usize)> {
    let image: &'static [u8] = image.leak();
    let layout =
        image::check(image, image.len() as u64, module, plan, distance).ok_or(Errno::ENOEXEC)?;
    let stubs = module.text.wrapping_add_signed(distance);
    let (read, write, exec) = (os::PROT_READ, os::PROT_WRITE, os::PROT_EXEC);
    let flags = os::MAP_PRIVATE | os::MAP_ANONYMOUS | os::MAP_FIXED_NOREPLACE;
    let bytes = image.get(layout.stubs_at..).ok_or(Errno::ENOEXEC)?;
    // SAFETY: fresh memory is filled, then made executable; the text keeps every instruction that
    // is not replaced, and becomes unwritable again.
    unsafe {
        os::map(stubs, layout.stubs_len, read | write, flags, None)?;
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), stubs as *mut u8, layout.stubs_len);
        sys::syscall!(crate::nr::MPROTECT, stubs, layout.stubs_len, read | exec)?;
        place_cells(stubs + layout.stubs_len)?;
        let text = (module.text, layout.text_len);
        sys::syscall!(crate::nr::MPROTECT, text.0, text.1, read | write | exec)?;
        for site in (0..layout.site_count).filter_map(|index| image::record(image, index)) {
            let at = layout.text_at + site.start as usize;
            if let Some(new) = image.get(at..at + site.len as usize) {
                let to = (module.text + site.start as usize) as *mut u8;
                core::ptr::copy_nonoverlapping(new.as_ptr(), to, new.len());
            }
        }
        sys::syscall!(crate::nr::MPROTECT, text.0, text.1, read | exec)?;
    }
    let head = image.as_ptr() as usize;
    publish(
        module,
        stubs,
        layout.stubs_len,
        head,
        layout.site_count,
        entry,
    );
    Ok((Source::InPlace, layout.site_count, layout.refused_count))
}
