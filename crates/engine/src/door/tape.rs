//! What went through the door, noted for tests, and steps that tests make fail.
//!
//! The tape is a file that all processes map which change the pool: those forked after [`start`],
//! and those that find its path in [`VARIABLE`]. A note is reserved by one addition, filled in, and
//! marked as whole, so that a process killed in between leaves a gap and nothing worse. Stores are
//! noted once they are made, before anybody can know of them; a flush is noted before and after.

use super::{RankFile, Step};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use sys::{Errno, Result};

/// Where a process finds the path of the tape.
pub const VARIABLE: &str = "PIL4DFS_TAPE";
/// Size of a tape; what is not written takes no memory.
const SPAN: u64 = 16 << 30;
/// Bytes before the first note: word 0 says where the next one goes, word 1 how many bytes the
/// paths of the ranks take, which follow, each ended by a zero.
const HEADER: u64 = 64 << 10;
/// First half of a note's first word; the other is its length in bytes, a multiple of 8.
const MAGIC: u64 = 0x6e6f_7465 << 32;
/// Words of a note before the bytes: the first; kind, rank, file and [`WHOLE`]; offset or size.
const NOTE_WORDS: u64 = 3;
/// In a note's second word: nothing is missing.
const WHOLE: u64 = 1 << 63;

/// One change of a rank's files.
#[derive(Clone, Debug)]
pub enum Event {
    /// A file was made, or emptied.
    Create(u16, RankFile),
    /// Bytes were stored from an offset on.
    Store(u16, RankFile, u64, Vec<u8>),
    /// A file has another size.
    Resize(u16, RankFile, u64),
    /// A file has space at least up to there.
    Allocate(u16, RankFile, u64),
    /// A flush with a number began: what was stored before is on the device once it has ended.
    FlushBegins(u16, RankFile, u64),
    /// The flush with that number has ended.
    Flushed(u16, RankFile, u64),
    /// The flush with that number has failed: what was stored before stays in memory, and is not
    /// flushed any more.
    FlushFailed(u16, RankFile, u64),
    /// A flush of the names in the directory began, and has ended.
    NamesFlushBegins(u16, u64),
    /// The flush of names with that number has ended.
    NamesFlushed(u16, u64),
    /// A file has another name.
    Rename(u16, RankFile, RankFile),
    /// The test's own.
    Note(u64),
}

const FILES: [RankFile; 4] = [
    RankFile::Data,
    RankFile::Meta,
    RankFile::MetaNew,
    RankFile::Log,
];

/// A step that is to fail.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// Which steps.
    pub step: Step,
    /// Of which file.
    pub file: RankFile,
    /// Of which rank; `None` = any.
    pub rank: Option<u16>,
    /// How many of them go well before.
    pub after: u32,
    /// How many fail then.
    pub times: u32,
    /// With what.
    pub errno: Errno,
}

const UNKNOWN: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

static RUNS: AtomicU8 = AtomicU8::new(UNKNOWN);
static TAPE: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
static DIRS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static FAILURE: Mutex<Option<Failure>> = Mutex::new(None);
/// Flushes that the kernel was asked for and that have failed, and with what.
static FAILED: Mutex<Vec<(u64, Errno)>> = Mutex::new(Vec::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A word of the tape, which is mapped.
fn word(at: u64) -> &'static AtomicU64 {
    assert!(at < SPAN, "the tape is full");
    // SAFETY: the tape is mapped, `SPAN` bytes long, and stays so.
    unsafe { &*TAPE.load(Ordering::Acquire).add((at / 8) as usize) }
}

fn map(file: &OwnedFd) {
    // SAFETY: a new mapping of a file that nobody shortens while it is in use; never removed.
    let mapped = unsafe {
        rustix::mm::mmap(
            core::ptr::null_mut(),
            SPAN as usize,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::NORESERVE,
            file,
            0,
        )
    };
    TAPE.store(mapped.expect("tape").cast(), Ordering::Release);
}

/// Whether this process notes what it does.
fn runs() -> bool {
    match RUNS.load(Ordering::Acquire) {
        UNKNOWN => find(),
        known => known == ON,
    }
}

/// Looks whether there is a tape for this process.
#[cold]
fn find() -> bool {
    let mut dirs = locked(&DIRS);
    if RUNS.load(Ordering::Acquire) == UNKNOWN {
        let found = std::env::var_os(VARIABLE);
        if let Some(path) = &found {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            map(&rustix::fs::open(path, flags, Mode::empty()).expect("tape"));
            *dirs = dirs_on_tape();
        }
        RUNS.store(if found.is_some() { ON } else { OFF }, Ordering::Release);
    }
    RUNS.load(Ordering::Acquire) == ON
}

fn dirs_on_tape() -> Vec<PathBuf> {
    let bytes = bytes_at(16, word(8).load(Ordering::Acquire));
    let paths = bytes.split(|byte| *byte == 0);
    paths
        .filter(|path| !path.is_empty())
        .map(|path| std::ffi::OsString::from_vec(path.to_vec()).into())
        .collect()
}

fn bytes_at(at: u64, len: u64) -> Vec<u8> {
    let words = (0..len.div_ceil(8)).map(|i| word(at + i * 8).load(Ordering::Acquire));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
    bytes.truncate(len as usize);
    bytes
}

fn put_bytes(at: u64, bytes: &[u8]) {
    for (i, piece) in (0..).zip(bytes.chunks(8)) {
        let mut padded = [0; 8];
        padded[..piece.len()].copy_from_slice(piece);
        word(at + i * 8).store(u64::from_ne_bytes(padded), Ordering::Release);
    }
}

/// Makes a tape at `path` that begins with what these rank directories hold, and starts noting what
/// this process does in them, and those do that find the path in [`VARIABLE`].
pub fn make(path: &Path, ranks: &[PathBuf]) {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).expect("tape");
    rustix::fs::ftruncate(&file, SPAN).expect("tape");
    map(&file);
    begin(ranks);
    for (rank, dir) in (0..).zip(ranks) {
        for file in FILES {
            note_file(dir, rank, file);
        }
        push(&Event::NamesFlushBegins(rank, 0));
        push(&Event::NamesFlushed(rank, 0));
    }
    *locked(&DIRS) = ranks.to_vec();
    RUNS.store(ON, Ordering::Release);
}

/// Notes what a file holds, as safe.
fn note_file(dir: &Path, rank: u16, file: RankFile) {
    const PAGE: usize = 4096;
    let Ok(bytes) = std::fs::read(dir.join(file.name())) else {
        return;
    };
    push(&Event::Create(rank, file));
    for (index, page) in (0..).zip(bytes.chunks(PAGE)) {
        if page.iter().any(|byte| *byte != 0) {
            push(&Event::Store(
                rank,
                file,
                index * PAGE as u64,
                page.to_vec(),
            ));
        }
    }
    push(&Event::Resize(rank, file, bytes.len() as u64));
    push(&Event::FlushBegins(rank, file, 0));
    push(&Event::Flushed(rank, file, 0));
}

/// Opens a tape that was made earlier, to read it.
pub fn open(path: &Path) {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    map(&rustix::fs::open(path, flags, Mode::empty()).expect("tape"));
}

/// The rank directories of the tape.
pub fn ranks() -> Vec<PathBuf> {
    dirs_on_tape()
}

fn begin(ranks: &[PathBuf]) {
    let mut paths = Vec::new();
    for rank in ranks {
        paths.extend_from_slice(rank.as_os_str().as_bytes());
        paths.push(0);
    }
    assert!(paths.len() as u64 + 16 <= HEADER);
    put_bytes(16, &paths);
    word(8).store(paths.len() as u64, Ordering::Release);
    word(0).store(HEADER, Ordering::Release);
}

/// Starts noting what this process and its children do in these rank directories.
pub fn start(ranks: &[PathBuf]) {
    let before = TAPE.swap(core::ptr::null_mut(), Ordering::AcqRel);
    if !before.is_null() {
        // SAFETY: the mapping of an earlier `start` or `make`, which nobody uses now.
        unsafe { rustix::mm::munmap(before.cast(), SPAN as usize) }.expect("tape");
    }
    let file = rustix::fs::memfd_create("tape", rustix::fs::MemfdFlags::CLOEXEC).expect("tape");
    rustix::fs::ftruncate(&file, SPAN).expect("tape");
    map(&file);
    begin(ranks);
    *locked(&DIRS) = ranks.to_vec();
    RUNS.store(ON, Ordering::Release);
}

/// Stops noting what this process does, and returns what was noted.
pub fn stop() -> Vec<Event> {
    RUNS.store(OFF, Ordering::Release);
    *locked(&FAILURE) = None;
    events()
}

/// What stands on the tape.
fn events() -> Vec<Event> {
    let end = word(0).load(Ordering::Acquire).min(SPAN);
    let mut events = Vec::new();
    let mut at = HEADER;
    while at < end {
        let head = word(at).load(Ordering::Acquire);
        if head >> 32 != MAGIC >> 32 {
            // Somebody was killed between reserving a note and writing its head.
            at += 8;
            continue;
        }
        let len = head & 0xffff_ffff;
        let what = word(at + 8).load(Ordering::Acquire);
        if what & WHOLE != 0 {
            events.push(event(at, what, len));
        }
        at += len;
    }
    events
}

fn event(at: u64, what: u64, len: u64) -> Event {
    let value = word(at + 16).load(Ordering::Acquire);
    let rank = (what >> 8) as u16;
    let file = |shift: u32| FILES[(what >> shift & 3) as usize];
    let (one, other) = (file(24), file(32));
    match what as u8 {
        0 => Event::Create(rank, one),
        1 => {
            let bytes = bytes_at(at + NOTE_WORDS * 8, len - NOTE_WORDS * 8);
            let short = (what >> 40 & 7) as usize;
            Event::Store(rank, one, value, bytes[..bytes.len() - short].to_vec())
        }
        2 => Event::Resize(rank, one, value),
        3 => Event::Allocate(rank, one, value),
        4 => Event::FlushBegins(rank, one, value),
        5 => Event::Flushed(rank, one, value),
        6 => Event::NamesFlushed(rank, value),
        9 => Event::NamesFlushBegins(rank, value),
        7 => Event::Rename(rank, one, other),
        10 => Event::FlushFailed(rank, one, value),
        _ => Event::Note(value),
    }
}

fn push(event: &Event) {
    let file = |file: RankFile| FILES.iter().position(|known| *known == file).unwrap_or(0) as u64;
    let (kind, rank, one, other, value) = match event {
        Event::Create(rank, one) => (0, *rank, file(*one), 0, 0),
        Event::Store(rank, one, off, _) => (1, *rank, file(*one), 0, *off),
        Event::Resize(rank, one, size) => (2, *rank, file(*one), 0, *size),
        Event::Allocate(rank, one, end) => (3, *rank, file(*one), 0, *end),
        Event::FlushBegins(rank, one, id) => (4, *rank, file(*one), 0, *id),
        Event::Flushed(rank, one, id) => (5, *rank, file(*one), 0, *id),
        Event::NamesFlushed(rank, id) => (6, *rank, 0, 0, *id),
        Event::NamesFlushBegins(rank, id) => (9, *rank, 0, 0, *id),
        Event::Rename(rank, one, other) => (7, *rank, file(*one), file(*other), 0),
        Event::Note(value) => (8, 0, 0, 0, *value),
        Event::FlushFailed(rank, one, id) => (10, *rank, file(*one), 0, *id),
    };
    let bytes: &[u8] = match event {
        Event::Store(_, _, _, bytes) => bytes,
        _ => &[],
    };
    let padded = (bytes.len() as u64).next_multiple_of(8);
    let len = NOTE_WORDS * 8 + padded;
    let at = word(0).fetch_add(len, Ordering::AcqRel);
    word(at).store(MAGIC | len, Ordering::Release);
    word(at + 16).store(value, Ordering::Release);
    put_bytes(at + NOTE_WORDS * 8, bytes);
    let short = padded - bytes.len() as u64;
    let what = kind | u64::from(rank) << 8 | one << 24 | other << 32 | short << 40;
    word(at + 8).store(what | WHOLE, Ordering::Release);
}

/// Puts a mark of the test's own on the tape.
pub fn mark(value: u64) {
    if runs() {
        push(&Event::Note(value));
    }
}

/// Makes steps fail from now on; `None`: no longer.
pub fn fail(failure: Option<Failure>) {
    *locked(&FAILURE) = failure;
}

fn rank_of(dir: &Path) -> Option<u16> {
    let dirs = locked(&DIRS);
    let rank = dirs.iter().position(|known| known == dir)?;
    Some(rank as u16)
}

fn note(dir: &Path, event: impl FnOnce(u16) -> Event) {
    if runs()
        && let Some(rank) = rank_of(dir)
    {
        push(&event(rank));
    }
}

pub(super) fn may(dir: &Path, file: RankFile, step: Step) -> Result<()> {
    if !runs() {
        return Ok(());
    }
    let mut failure = locked(&FAILURE);
    let (Some(failure), Some(rank)) = (failure.as_mut(), rank_of(dir)) else {
        return Ok(());
    };
    let meant = failure.step == step
        && failure.file == file
        && failure.rank.is_none_or(|wanted| wanted == rank);
    if !meant {
        return Ok(());
    }
    if failure.after > 0 {
        failure.after -= 1;
        return Ok(());
    }
    if failure.times == 0 {
        return Ok(());
    }
    failure.times -= 1;
    Err(failure.errno)
}

pub(super) fn stored(dir: &Path, file: RankFile, off: u64, len: u64) {
    note(dir, |rank| {
        // Coherent with stores into mappings.
        let mut bytes = vec![0; len as usize];
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(dir.join(file.name()), flags, Mode::empty());
        let opened = opened.expect("a file just stored to");
        let mut done = 0;
        while done < bytes.len() {
            let read = rustix::io::pread(&opened, &mut bytes[done..], off + done as u64);
            let read = read.expect("bytes just stored");
            assert!(read > 0, "bytes just stored");
            done += read;
        }
        Event::Store(rank, file, off, bytes)
    });
}

pub(super) fn created(dir: &Path, file: RankFile, emptied: bool) {
    note(dir, |rank| match emptied {
        true => Event::Create(rank, file),
        // Known if it was there before.
        false => Event::Allocate(rank, file, 0),
    });
}

pub(super) fn resized(dir: &Path, file: RankFile, size: u64) {
    note(dir, |rank| Event::Resize(rank, file, size));
}

pub(super) fn allocated(dir: &Path, file: RankFile, end: u64) {
    note(dir, |rank| Event::Allocate(rank, file, end));
}

/// A number for a flush that is waited for.
pub(super) fn flush_number() -> u64 {
    if runs() {
        word(0).load(Ordering::Acquire)
    } else {
        0
    }
}

/// A number for a flush of this process that the kernel does by itself: not one of the others'.
pub(super) fn queued_number(data: u64) -> u64 {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    (process as u64) << 40 ^ data
}

/// A flush was asked for: if it is to fail, it does so now.
pub(super) fn queued(dir: &Path, file: RankFile, data: u64) {
    if let Err(errno) = may(dir, file, Step::Queued) {
        flush_failed(dir, file, queued_number(data));
        locked(&FAILED).push((data, errno));
    }
}

/// What came of it.
pub(super) fn outcome(data: u64) -> Result<()> {
    let mut failed = locked(&FAILED);
    match failed.iter().position(|(known, _)| *known == data) {
        Some(at) => Err(failed.swap_remove(at).1),
        None => Ok(()),
    }
}

pub(super) fn flushing(dir: &Path, file: RankFile, id: u64) {
    note(dir, |rank| Event::FlushBegins(rank, file, id));
}

pub(super) fn flushed(dir: &Path, file: RankFile, id: u64) {
    note(dir, |rank| Event::Flushed(rank, file, id));
}

pub(super) fn flush_failed(dir: &Path, file: RankFile, id: u64) {
    note(dir, |rank| Event::FlushFailed(rank, file, id));
}

pub(super) fn flushing_names(dir: &Path, id: u64) {
    note(dir, |rank| Event::NamesFlushBegins(rank, id));
}

pub(super) fn names_flushed(dir: &Path, id: u64) {
    note(dir, |rank| Event::NamesFlushed(rank, id));
}

pub(super) fn renamed(dir: &Path, from: RankFile, to: RankFile) {
    note(dir, |rank| Event::Rename(rank, from, to));
}
