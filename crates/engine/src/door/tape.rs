//! What went through the door, noted for tests, and steps that tests make fail.

use super::{RankFile, Step};
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use sys::{Errno, Result};

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
    /// A flush began: what was stored before is on the device once it has ended.
    FlushBegins(u16, RankFile),
    /// The flush has ended.
    Flushed(u16, RankFile),
    /// The names in the directory are on the device.
    NamesFlushed(u16),
    /// A file has another name.
    Rename(u16, RankFile, RankFile),
    /// The test's own.
    Note(u64),
}

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

struct Tape {
    dirs: Vec<PathBuf>,
    events: Vec<Event>,
    failure: Option<Failure>,
}

static RUNS: AtomicBool = AtomicBool::new(false);
static TAPE: Mutex<Option<Tape>> = Mutex::new(None);

fn tape() -> MutexGuard<'static, Option<Tape>> {
    TAPE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Starts noting what happens in these rank directories.
pub fn start(dirs: &[PathBuf]) {
    *tape() = Some(Tape {
        dirs: dirs.to_vec(),
        events: Vec::new(),
        failure: None,
    });
    RUNS.store(true, Ordering::SeqCst);
}

/// Stops, and returns what was noted.
pub fn stop() -> Vec<Event> {
    RUNS.store(false, Ordering::SeqCst);
    tape().take().map_or(Vec::new(), |tape| tape.events)
}

/// Number of events noted so far.
pub fn len() -> usize {
    tape().as_ref().map_or(0, |tape| tape.events.len())
}

/// Puts a mark of the test's own on the tape.
pub fn mark(value: u64) {
    if let Some(tape) = tape().as_mut() {
        tape.events.push(Event::Note(value));
    }
}

/// Makes steps fail from now on; `None`: no longer.
pub fn fail(failure: Option<Failure>) {
    if let Some(tape) = tape().as_mut() {
        tape.failure = failure;
    }
}

fn note(dir: &Path, event: impl FnOnce(u16) -> Event) {
    if !RUNS.load(Ordering::SeqCst) {
        return;
    }
    if let Some(tape) = tape().as_mut()
        && let Some(rank) = tape.dirs.iter().position(|known| known == dir)
    {
        tape.events.push(event(rank as u16));
    }
}

pub(super) fn may(dir: &Path, file: RankFile, step: Step) -> Result<()> {
    if !RUNS.load(Ordering::SeqCst) {
        return Ok(());
    }
    let mut tape = tape();
    let Some(tape) = tape.as_mut() else {
        return Ok(());
    };
    let rank = tape.dirs.iter().position(|known| known == dir);
    let (Some(rank), Some(failure)) = (rank, tape.failure.as_mut()) else {
        return Ok(());
    };
    let meant = failure.step == step
        && failure.file == file
        && failure
            .rank
            .is_none_or(|wanted| usize::from(wanted) == rank);
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
        let opened = std::fs::File::open(dir.join(file.name())).expect("a file just stored to");
        opened
            .read_exact_at(&mut bytes, off)
            .expect("bytes just stored");
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

pub(super) fn flushing(dir: &Path, file: RankFile) {
    note(dir, |rank| Event::FlushBegins(rank, file));
}

pub(super) fn flushed(dir: &Path, file: RankFile) {
    note(dir, |rank| Event::Flushed(rank, file));
}

pub(super) fn names_flushed(dir: &Path) {
    note(dir, Event::NamesFlushed);
}

pub(super) fn renamed(dir: &Path, from: RankFile, to: RankFile) {
    note(dir, |rank| Event::Rename(rank, from, to));
}
