//! Descriptors of the program that stand for files in the mount.
//!
//! `intercept::fdtab` maps a descriptor number to a word: the description's number plus one, and a
//! bit for "published". Beside it stands a count per description: descriptors of this process plus
//! operations under way. The description is released when the count falls to zero, so a close in
//! one thread never pulls it away under a read in another. In a vfork child the table speaks of
//! the parent's descriptors; there the kernel is asked (`placeholder::identify`) and no table is
//! written.

use crate::abi::{O_ACCMODE, nr};
use crate::dispatch::Stop;
use crate::kernel::{self, call};
use crate::{mounts, placeholder};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use dfs::{Dfs, Ino, Ofd, OfdInfo};
use intercept::{fdtab, in_vfork_child};
use std::vec::Vec;
use sys::set_once::SetOnce;
use sys::{Errno, Result, futex};

const PUBLISHED: u32 = 1 << 31;
/// Word of a descriptor of the library itself.
const OWN: u32 = u32::MAX;
/// Descriptions whose counts are mapped together.
const COUNTS: usize = 1 << 20;
/// As many as give every description its count, wherever in the arena it lies.
const COUNT_TABLES: usize = dfs::OFDS_MAX.div_ceil(COUNTS);

static TABLES: [SetOnce<&'static [AtomicU32]>; COUNT_TABLES] =
    [const { SetOnce::new() }; COUNT_TABLES];
/// Held while a descriptor of ours is closed, replaced or published, so that publishing never
/// replaces a number that has come to mean something else. A fork holds it, too.
static CHANGING: futex::Lock = futex::Lock::new();

/// [`CHANGING`] while it lives; nothing in a vfork child, which has descriptors of its own.
struct Changing(bool);

impl Changing {
    fn begin() -> Changing {
        if in_vfork_child() {
            return Changing(false);
        }
        CHANGING.acquire();
        Changing(true)
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        if self.0 {
            CHANGING.release();
        }
    }
}

/// Before fork, in the parent: the table stays as it is until [`after_fork`].
pub(crate) fn before_fork() {
    CHANGING.acquire();
}

/// After fork, on both sides.
pub(crate) fn after_fork() {
    CHANGING.release();
}

/// In the child of a fork: counts its descriptors anew. Calls that other threads of the parent were in
/// are not its own.
pub(crate) fn recount() {
    let all = all();
    for (_, ofd) in &all {
        if let Some(count) = count(*ofd) {
            count.store(0, Ordering::Relaxed);
        }
    }
    for (_, ofd) in &all {
        if let Some(count) = count(*ofd) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// This process may hold POSIX locks, so closing a file must drop them.
static LOCKS_USED: AtomicBool = AtomicBool::new(false);

/// This process, or one it was forked from, has locked descriptions.
static DESCRIPTION_LOCKS_USED: AtomicBool = AtomicBool::new(false);

fn word(ofd: Ofd, published: bool) -> u32 {
    (ofd.0 + 1) | if published { PUBLISHED } else { 0 }
}

fn ofd_of(word: u32) -> Ofd {
    Ofd((word & !PUBLISHED).wrapping_sub(1))
}

fn count(ofd: Ofd) -> Option<&'static AtomicU32> {
    let table = TABLES.get(ofd.0 as usize / COUNTS)?.init(|| {
        let bytes = COUNTS * size_of::<AtomicU32>();
        let address = kernel::map_anonymous(bytes)?;
        // SAFETY: fresh zeroed memory of this size, aligned to a page, never unmapped.
        Some(unsafe { core::slice::from_raw_parts(address as *const AtomicU32, COUNTS) })
    })?;
    table.get(ofd.0 as usize % COUNTS)
}

/// Is this descriptor a file in the mount?
pub(crate) fn is_ours(fd: i32) -> bool {
    if in_vfork_child() {
        return placeholder::identify(fd).is_some();
    }
    let word = fdtab::get(fd as usize);
    word != 0 && word != OWN
}

/// Is this descriptor the library's own, hidden from the program?
pub(crate) fn is_own(fd: i32) -> bool {
    fdtab::get(fd as usize) == OWN
}

/// Told by `sys::own_fd` about descriptors of the library.
pub(crate) fn watch_own(fd: i32, own: bool) {
    if own {
        fdtab::set(fd as usize, OWN);
    } else if is_own(fd) {
        fdtab::clear(fd as usize);
    }
}

/// A description that stays while this value lives.
pub(crate) struct Held {
    pub(crate) fs: &'static Dfs,
    pub(crate) ofd: Ofd,
    counted: bool,
}

impl Held {
    /// Inode, flags, offset and kind of the description.
    pub(crate) fn info(&self) -> Result<OfdInfo> {
        self.fs.ofd_info(self.ofd)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.counted {
            let_go(self.fs, self.ofd);
        }
    }
}

/// The description behind a descriptor; `None` if the descriptor is not ours. `EBADF` for the
/// library's own descriptors.
#[inline]
pub(crate) fn get(fd: i32) -> core::result::Result<Option<Held>, Stop> {
    if in_vfork_child() {
        let Some(ofd) = placeholder::identify(fd) else {
            return Ok(None);
        };
        return Ok(Some(Held {
            fs: mounts::fs()?,
            ofd,
            counted: false,
        }));
    }
    loop {
        let word = fdtab::get(fd as usize);
        if word == 0 {
            return Ok(None);
        }
        if word == OWN {
            return Err(placeholder::HIDDEN.into());
        }
        let fs = mounts::fs()?;
        let ofd = ofd_of(word);
        if !take(ofd) {
            core::hint::spin_loop();
            continue;
        }
        let held = Held {
            fs,
            ofd,
            counted: true,
        };
        // A close between the two looks may have released it, and its number may be in use again.
        if ofd_of(fdtab::get(fd as usize)) == ofd {
            return Ok(Some(held));
        }
    }
}

/// Like [`get`], with the kernel's answer for descriptors that are not ours.
#[inline]
pub(crate) fn ours(fd: i32) -> core::result::Result<Held, Stop> {
    get(fd)?.ok_or(Stop::Pass)
}

fn take(ofd: Ofd) -> bool {
    let Some(count) = count(ofd) else {
        return false;
    };
    let mut now = count.load(Ordering::Relaxed);
    while now != 0 {
        match count.compare_exchange_weak(now, now + 1, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(other) => now = other,
        }
    }
    false
}

fn let_go(fs: &Dfs, ofd: Ofd) {
    if let Some(count) = count(ofd)
        && count.fetch_sub(1, Ordering::AcqRel) == 1
    {
        released(fs.ofd_release(ofd));
    }
}

/// A description that cannot be released is one that is gone already.
fn released(outcome: Result<()>) {
    debug_assert!(outcome != Err(Errno::EFAULT));
}

/// Gives the program a descriptor for a description just opened. On failure it is released.
pub(crate) fn install(fs: &'static Dfs, ofd: Ofd, cloexec: bool) -> Result<usize> {
    let fd = placeholder::fresh(cloexec).inspect_err(|_| released(fs.ofd_release(ofd)))?;
    install_at(fs, ofd, fd).inspect_err(|_| kernel::close(fd))
}

/// As [`install`], with a descriptor of [`placeholder::fresh`], which stays the caller's on failure.
pub(crate) fn install_at(fs: &'static Dfs, ofd: Ofd, fd: i32) -> Result<usize> {
    if in_vfork_child() {
        // Held by the child's own process until it ends or its next image has it no more.
        placeholder::publish(fd, ofd)?;
        return Ok(fd as usize);
    }
    if count(ofd)
        .map(|c| c.fetch_add(1, Ordering::AcqRel))
        .is_none()
    {
        released(fs.ofd_release(ofd));
        return Err(Errno::ENFILE);
    }
    fdtab::set(fd as usize, word(ofd, false));
    Ok(fd as usize)
}

/// How a descriptor came that this image has not opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// From the image before; the holds are taken over all at once when the container is attached.
    Inherited,
    /// In a message, which is gone.
    Received,
    /// Another process, or a message, still has it.
    Copied,
}

/// Notes a descriptor that came with its description.
pub(crate) fn adopt(fd: i32, ofd: Ofd, came: Came) -> Result<()> {
    let count = count(ofd).ok_or(Errno::ENFILE)?;
    let is_first = count.fetch_add(1, Ordering::AcqRel) == 0;
    let held = match came {
        Came::Copied if !is_first => Ok(()),
        Came::Received | Came::Copied => match mounts::fs() {
            Ok(fs) => fs.ofd_hold(ofd, came == Came::Received),
            Err(_) => Err(Errno::EBADF),
        },
        Came::Inherited => Ok(()),
    };
    if let Err(errno) = held {
        count.fetch_sub(1, Ordering::AcqRel);
        return Err(errno);
    }
    fdtab::set(fd as usize, word(ofd, true));
    Ok(())
}

/// Forgets an inherited descriptor whose description is not of our container.
pub(crate) fn disown(fd: i32) {
    let word = fdtab::clear(fd as usize);
    if word != 0
        && let Some(count) = count(ofd_of(word))
    {
        count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs a kernel call that gives a descriptor number another meaning, with publishing kept out.
pub(crate) fn replacing<R>(work: impl FnOnce() -> R) -> R {
    let _changing = Changing::begin();
    work()
}

/// Descriptor `new` now is a duplicate of `old` in the kernel; or of a foreign file (`None`).
/// What `new` was before is given up.
pub(crate) fn duplicated(old: Option<(i32, &Held)>, new: i32) {
    if in_vfork_child() {
        return;
    }
    let fresh = old.map_or(0, |(fd, held)| {
        if let Some(count) = count(held.ofd) {
            count.fetch_add(1, Ordering::AcqRel);
        }
        let published = fdtab::get(fd as usize) & PUBLISHED != 0;
        word(held.ofd, published)
    });
    let before = if fresh == 0 {
        fdtab::clear(new as usize)
    } else {
        fdtab::set(new as usize, fresh)
    };
    gone(before);
}

/// A descriptor with this table word is no more: POSIX locks of its file go, and the description
/// if this was its last descriptor here.
fn gone(word: u32) {
    if word == 0 || word == OWN {
        return;
    }
    let Ok(fs) = mounts::fs() else { return };
    let ofd = ofd_of(word);
    if LOCKS_USED.load(Ordering::Relaxed)
        && let Ok(info) = fs.ofd_info(ofd)
    {
        released(fs.posix_locks_drop(info.ino));
    }
    let_go(fs, ofd);
}

/// `close(2)` of a descriptor that is ours.
pub(crate) fn close(fd: i32) -> Result<usize> {
    if in_vfork_child() {
        return call!(nr::CLOSE, fd);
    }
    let changing = Changing::begin();
    let word = fdtab::clear(fd as usize);
    // The entry goes first: once the kernel has closed it, another thread may get the number.
    let closed = call!(nr::CLOSE, fd);
    drop(changing);
    gone(word);
    closed
}

/// Forgets all our descriptors in a range that the kernel is about to close; returns their words.
pub(crate) fn take_range(first: usize, last: usize) -> Vec<u32> {
    let mut taken = Vec::new();
    if in_vfork_child() {
        return taken;
    }
    let mut numbers = Vec::new();
    fdtab::for_each(first, last, |fd, word| {
        if word != OWN {
            numbers.push(fd);
        }
    });
    for fd in numbers {
        taken.push(fdtab::clear(fd));
    }
    taken
}

/// Second half of [`take_range`], after the kernel has closed them.
pub(crate) fn release_all(words: &[u32]) {
    for &word in words {
        gone(word);
    }
}

/// Descriptors of the library itself in a range, ascending.
pub(crate) fn own_in(first: usize, last: usize) -> Vec<usize> {
    let mut own = Vec::new();
    fdtab::for_each(first, last, |fd, word| {
        if word == OWN {
            own.push(fd);
        }
    });
    own
}

/// Writes the identity of our descriptors into the kernel, for whoever cannot see our table:
/// all of them, or only those that an exec keeps.
pub(crate) fn publish_all(kept_by_exec: bool) {
    let mut todo = Vec::new();
    fdtab::for_each(0, usize::MAX, |fd, word| {
        if word != OWN && word & PUBLISHED == 0 {
            todo.push((fd as i32, word));
        }
    });
    for (fd, word) in todo {
        let _changing = Changing::begin();
        let same = fdtab::get(fd as usize) == word;
        if same && (!kept_by_exec || survives_exec(fd)) {
            publish(fd, word);
        }
    }
}

fn publish(fd: i32, before: u32) {
    // A failure leaves it unpublished: the other side will find a descriptor that refuses all use.
    if placeholder::publish(fd, ofd_of(before)).is_ok() && !in_vfork_child() {
        fdtab::set(fd as usize, before | PUBLISHED);
    }
}

/// Publishes one descriptor, for sending it to another process.
pub(crate) fn publish_one(fd: i32) {
    let _changing = Changing::begin();
    let word = fdtab::get(fd as usize);
    if word != 0 && word != OWN && word & PUBLISHED == 0 {
        publish(fd, word);
    }
}

fn survives_exec(fd: i32) -> bool {
    const F_GETFD: usize = 1;
    call!(nr::FCNTL, fd, F_GETFD).is_ok_and(|flags| flags & 1 == 0)
}

/// Descriptions whose descriptors an exec keeps.
pub(crate) fn kept_by_exec(fs: &Dfs) -> Vec<Ofd> {
    let mut kept = Vec::new();
    if in_vfork_child() {
        // One that has nothing from its parent, and has itself opened nothing, has nothing.
        if !any() && !fs.is_known() {
            return kept;
        }
        for fd in crate::handover::open_descriptors() {
            if let Some(ofd) = placeholder::identify(fd)
                && survives_exec(fd)
            {
                kept.push(ofd);
            }
        }
        return kept;
    }
    fdtab::for_each(0, usize::MAX, |fd, word| {
        if word != OWN && survives_exec(fd as i32) {
            kept.push(ofd_of(word));
        }
    });
    kept
}

/// Whether an exec closes descriptors by whose descriptions this process keeps others from something:
/// written files cannot be run, locks not taken. A vfork child holds nothing of its parent's.
pub(crate) fn some_end_at_exec() -> bool {
    let Some(fs) = mounts::attached().filter(|_| !in_vfork_child()) else {
        return false;
    };
    let locks =
        LOCKS_USED.load(Ordering::Relaxed) || DESCRIPTION_LOCKS_USED.load(Ordering::Relaxed);
    all().into_iter().any(|(fd, ofd)| {
        let in_the_way = || {
            let info = fs.ofd_info(ofd);
            locks || info.is_ok_and(|info| info.flags & O_ACCMODE != 0)
        };
        !survives_exec(fd) && in_the_way()
    })
}

/// Whether there are descriptors of ours.
fn any() -> bool {
    let mut found = false;
    fdtab::for_each(0, usize::MAX, |_, word| found |= word != OWN);
    found
}

/// Numbers of all descriptors of ours.
pub(crate) fn all() -> Vec<(i32, Ofd)> {
    let mut all = Vec::new();
    fdtab::for_each(0, usize::MAX, |fd, word| {
        if word != OWN {
            all.push((fd as i32, ofd_of(word)));
        }
    });
    all
}

/// The process takes locks of descriptions from now on.
pub(crate) fn uses_description_locks() {
    DESCRIPTION_LOCKS_USED.store(true, Ordering::Relaxed);
}

/// The process takes POSIX locks from now on.
pub(crate) fn uses_locks() {
    LOCKS_USED.store(true, Ordering::Relaxed);
}

/// Names under which descriptions were opened last, for `/proc/self/fd`: a hint, checked when used.
/// A slot holds `description + 1 | length << 32`, parent number and generation, then the name.
struct NameSlot {
    version: AtomicU32,
    words: [AtomicU64; NAME_WORDS],
}

const NAME_WORDS: usize = 3 + 32;
const NAME_SLOTS: usize = 1024;

static NAMES: [NameSlot; NAME_SLOTS] = [const {
    NameSlot {
        version: AtomicU32::new(0),
        words: [const { AtomicU64::new(0) }; NAME_WORDS],
    }
}; NAME_SLOTS];

fn name_slot(ofd: Ofd) -> &'static NameSlot {
    NAMES.get(ofd.0 as usize % NAME_SLOTS).unwrap_or(&NAMES[0])
}

/// Keeps the name by which a description was opened.
pub(crate) fn remember_name(ofd: Ofd, parent: Ino, name: &[u8]) {
    // A child that is killed half-way would leave the slot unusable.
    if intercept::in_vfork_child() {
        return;
    }
    let slot = name_slot(ofd);
    let version = slot.version.load(Ordering::Relaxed);
    let mine = slot.version.compare_exchange(
        version & !1,
        version | 1,
        Ordering::Acquire,
        Ordering::Relaxed,
    );
    if mine.is_err() {
        return;
    }
    let head = [
        (u64::from(ofd.0) + 1) | ((name.len() as u64) << 32),
        parent.number,
        u64::from(parent.generation),
    ];
    let tail = name.chunks(8).map(|part| {
        let mut bytes = [0u8; 8];
        bytes
            .iter_mut()
            .zip(part)
            .for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(bytes)
    });
    for (word, value) in slot.words.iter().zip(head.into_iter().chain(tail)) {
        word.store(value, Ordering::Release);
    }
    slot.version
        .store((version | 1).wrapping_add(1), Ordering::Release);
}

/// Parent and name by which a description was opened, if that is still known.
pub(crate) fn name_of(ofd: Ofd) -> Option<(Ino, Vec<u8>)> {
    let slot = name_slot(ofd);
    let version = slot.version.load(Ordering::Acquire);
    let words: Vec<u64> = slot
        .words
        .iter()
        .map(|w| w.load(Ordering::Acquire))
        .collect();
    let torn = version & 1 != 0 || slot.version.load(Ordering::Acquire) != version;
    let (&head, rest) = words.split_first()?;
    if torn || head as u32 != ofd.0 + 1 {
        return None;
    }
    let (&number, rest) = rest.split_first()?;
    let (&generation, rest) = rest.split_first()?;
    let mut name: Vec<u8> = rest.iter().flat_map(|word| word.to_le_bytes()).collect();
    name.truncate((head >> 32) as usize);
    Some((
        Ino {
            number,
            generation: generation as u32,
        },
        name,
    ))
}
