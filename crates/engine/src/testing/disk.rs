//! What may be on the devices when the power fails.
//!
//! A store reaches the device at any time between being made and the end of the next flush of its
//! file, each page and each sector of it by itself and in any version it had in between. Space
//! never written stays a hole until a page is written whole. Sizes and names are kept in order.
//! What a flush has failed to bring to the device only a later store brings there.

use super::{Dice, Event, RankFile};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

type Page = Box<[u8; PAGE]>;

/// Where a page stands.
#[derive(Clone, Default)]
struct Pages {
    /// On the device.
    safe: Option<Page>,
    /// Versions that no flush has covered, and when they came, newest last.
    later: Vec<(u64, Page)>,
    /// What came up to then a flush has failed to bring to the device.
    dropped: u64,
}

impl Pages {
    fn now(&self) -> Option<&Page> {
        self.later
            .last()
            .map(|(_, page)| page)
            .or(self.safe.as_ref())
    }
}

#[derive(Clone, Default)]
struct File {
    pages: BTreeMap<u64, Pages>,
    /// Size on the device, and sizes since then.
    size: u64,
    later: Vec<(u64, u64)>,
    /// Counts what happens to the file.
    clock: u64,
    /// When the flushes in progress began.
    begun: HashMap<u64, u64>,
}

/// Takes what came up to `time` off the front; the last of it.
fn covered<T>(later: &mut Vec<(u64, T)>, time: u64) -> Option<T> {
    let count = later.partition_point(|(came, _)| *came <= time);
    later.drain(..count).next_back().map(|(_, last)| last)
}

impl File {
    fn size_now(&self) -> u64 {
        self.later.last().map_or(self.size, |(_, size)| *size)
    }

    fn resize(&mut self, size: u64) {
        if size != self.size_now() {
            self.clock += 1;
            self.later.push((self.clock, size));
        }
    }

    fn store(&mut self, off: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = off + done as u64;
            let inside = (at % PAGE as u64) as usize;
            let count = (PAGE - inside).min(bytes.len() - done);
            let page = self.pages.entry(at / PAGE as u64).or_default();
            let mut next = page.now().cloned().unwrap_or_else(|| Box::new([0; PAGE]));
            next[inside..inside + count].copy_from_slice(&bytes[done..done + count]);
            self.clock += 1;
            page.later.push((self.clock, next));
            done += count;
        }
        self.resize(self.size_now().max(off + bytes.len() as u64));
    }

    fn flush_begins(&mut self, id: u64) {
        self.begun.insert(id, self.clock);
    }

    fn flushed(&mut self, id: u64) {
        let time = self.begun.remove(&id).expect("a flush that began");
        if let Some(size) = covered(&mut self.later, time) {
            self.size = size;
        }
        for page in self.pages.values_mut() {
            // A page that was not stored to since is clean for the kernel.
            let came = page.later.iter().map(|(came, _)| *came);
            if came.filter(|came| *came <= time).max() <= Some(page.dropped) {
                continue;
            }
            page.dropped = 0;
            if let Some(safe) = covered(&mut page.later, time) {
                page.safe = Some(safe);
            }
        }
    }

    fn flush_failed(&mut self, id: u64) {
        // It may not even have begun.
        self.begun.remove(&id);
        for page in self.pages.values_mut() {
            page.dropped = self.clock;
        }
    }
}

#[derive(Clone)]
enum NameChange {
    Made(RankFile, usize),
    Moved(RankFile, RankFile),
}

#[derive(Clone, Default)]
struct Dir {
    files: Vec<File>,
    /// Names on the device, names now, and what happened in between.
    safe: HashMap<RankFile, usize>,
    now: HashMap<RankFile, usize>,
    later: Vec<NameChange>,
    /// How many changes were safe, and how many there were when the flushes in progress began.
    flushed: usize,
    begun: HashMap<u64, usize>,
}

impl Dir {
    fn file(&mut self, name: RankFile) -> &mut File {
        let index = match self.now.get(&name) {
            Some(index) => *index,
            None => self.make(name),
        };
        &mut self.files[index]
    }

    fn make(&mut self, name: RankFile) -> usize {
        let index = self.files.len();
        self.files.push(File::default());
        self.change(NameChange::Made(name, index));
        index
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.now, &change);
        self.later.push(change);
    }

    fn flush_begins(&mut self, id: u64) {
        self.begun.insert(id, self.flushed + self.later.len());
    }

    fn flushed(&mut self, id: u64) {
        let all = self.begun.remove(&id).expect("a flush that began");
        let count = all.saturating_sub(self.flushed);
        for change in self.later.drain(..count) {
            apply(&mut self.safe, &change);
        }
        self.flushed += count;
    }
}

fn apply(names: &mut HashMap<RankFile, usize>, change: &NameChange) {
    match change {
        NameChange::Made(name, index) => {
            names.insert(*name, *index);
        }
        NameChange::Moved(from, to) => {
            if let Some(index) = names.remove(from) {
                names.insert(*to, index);
            }
        }
    }
}

/// What becomes of stores that were not flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// All are lost.
    Lost,
    /// All are kept.
    Kept,
    /// Each page has one of its versions.
    Pages,
    /// Each sector has one of its versions.
    Torn,
}

/// The files of all ranks, as they are and as they may be.
#[derive(Clone)]
pub struct Disk {
    names: Vec<PathBuf>,
    dirs: Vec<Dir>,
}

impl Disk {
    /// Rank directories without files.
    pub fn empty(ranks: &[PathBuf]) -> Disk {
        let name = |rank: &PathBuf| rank.file_name().expect("a rank's name").into();
        Disk {
            names: ranks.iter().map(name).collect(),
            dirs: vec![Dir::default(); ranks.len()],
        }
    }

    /// Takes what the rank directories hold now for safe.
    pub fn new(ranks: &[PathBuf]) -> Disk {
        let mut disk = Disk::empty(ranks);
        for (rank, dir) in ranks.iter().zip(&mut disk.dirs) {
            let known = [
                RankFile::Data,
                RankFile::Meta,
                RankFile::MetaNew,
                RankFile::Log,
            ];
            for name in known {
                if let Ok(bytes) = std::fs::read(rank.join(name.name())) {
                    let file = dir.file(name);
                    for (index, chunk) in (0..).zip(bytes.chunks(PAGE)) {
                        if chunk.iter().any(|byte| *byte != 0) {
                            file.store(index * PAGE as u64, chunk);
                        }
                    }
                    file.resize(bytes.len() as u64);
                    file.flush_begins(0);
                    file.flushed(0);
                }
            }
            dir.flush_begins(0);
            dir.flushed(0);
        }
        disk
    }

    /// Goes one step on.
    pub fn step(&mut self, event: &Event) {
        match event {
            Event::Create(rank, name) => {
                self.dirs[usize::from(*rank)].make(*name);
            }
            Event::Store(rank, name, off, bytes) => self.file(*rank, *name).store(*off, bytes),
            Event::Resize(rank, name, size) => {
                let file = self.file(*rank, *name);
                file.resize(*size);
                // What lies beyond is gone, whatever becomes of the size.
                file.pages.retain(|page, _| page * (PAGE as u64) < *size);
            }
            Event::Allocate(rank, name, end) => {
                let file = self.file(*rank, *name);
                file.resize(file.size_now().max(*end));
            }
            Event::FlushBegins(rank, name, id) => self.file(*rank, *name).flush_begins(*id),
            Event::Flushed(rank, name, id) => self.file(*rank, *name).flushed(*id),
            Event::FlushFailed(rank, name, id) => self.file(*rank, *name).flush_failed(*id),
            Event::NamesFlushBegins(rank, id) => self.dirs[usize::from(*rank)].flush_begins(*id),
            Event::NamesFlushed(rank, id) => self.dirs[usize::from(*rank)].flushed(*id),
            Event::Rename(rank, from, to) => {
                self.dirs[usize::from(*rank)].change(NameChange::Moved(*from, *to));
            }
            Event::Note(_) => {}
        }
    }

    fn file(&mut self, rank: u16, name: RankFile) -> &mut File {
        self.dirs[usize::from(rank)].file(name)
    }

    /// Writes what a power failure may leave to rank directories below `to`.
    pub fn fail(&self, to: &Path, fate: Fate, seed: u64) {
        let mut dice = Dice(seed);
        for (name, dir) in self.names.iter().zip(&self.dirs) {
            let path = to.join(name);
            std::fs::create_dir_all(&path).expect("rank directory");
            leave(dir, &path, fate, &mut dice);
        }
    }

    /// The same for the one rank whose directory `rank` is, which exists.
    pub fn fail_rank(&self, rank: &Path, fate: Fate, seed: u64) {
        for (name, dir) in self.names.iter().zip(&self.dirs) {
            if rank.ends_with(name) {
                leave(dir, rank, fate, &mut Dice(seed));
            }
        }
    }
}

/// Writes what a power failure may leave of a directory.
fn leave(dir: &Dir, path: &Path, fate: Fate, dice: &mut Dice) {
    let mut names = dir.safe.clone();
    let kept = match fate {
        Fate::Lost => 0,
        Fate::Kept => dir.later.len(),
        _ => dice.below(dir.later.len() + 1),
    };
    dir.later[..kept]
        .iter()
        .for_each(|change| apply(&mut names, change));
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_unstable();
    for (name, index) in names {
        write(&path.join(name.name()), &dir.files[index], fate, dice);
    }
}

fn write(path: &Path, file: &File, fate: Fate, dice: &mut Dice) {
    let mut pick = |versions: usize| match fate {
        Fate::Lost => 0,
        Fate::Kept => versions,
        _ => dice.below(versions + 1),
    };
    let size = match pick(file.later.len()) {
        0 => file.size,
        n => file.later[n - 1].1,
    };
    let out = std::fs::File::create(path).expect("image file");
    out.set_len(size).expect("image size");
    for (index, page) in &file.pages {
        let at = index * PAGE as u64;
        let version = |n: usize| match n {
            0 => page.safe.as_ref(),
            n => page.later.get(n - 1).map(|(_, page)| page),
        };
        let mut content = match version(pick(page.later.len())) {
            Some(content) => content.clone(),
            None => continue,
        };
        if fate == Fate::Torn && page.safe.is_some() {
            for sector in (0..PAGE).step_by(SECTOR) {
                if let Some(other) = version(pick(page.later.len())) {
                    content[sector..sector + SECTOR]
                        .copy_from_slice(&other[sector..sector + SECTOR]);
                }
            }
        }
        let count = size.saturating_sub(at).min(PAGE as u64) as usize;
        if content[..count].iter().any(|byte| *byte != 0) {
            out.write_all_at(&content[..count], at).expect("image page");
        }
    }
}
