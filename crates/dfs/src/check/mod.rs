//! Looking at all inodes of a pool: what nobody can reach any more is freed, and a container at
//! rest can be checked and mended. Slow paths, for mounting after a crash, for commands and tests.

mod data;
mod leaked;
mod repair;

pub use repair::Leaks;

use crate::dir;
use crate::inode::{Guard, at, high, is_dir, is_file, locate, low, word};
use crate::map::file::File;
use crate::{DT_DIR, Dfs, DirCursor, Ino};
use core::fmt;
use engine::{PAGE, PageLink, Pool, Rec, crash_point, kind, tag_generation, tag_kind};
use std::collections::HashMap;
use sys::Result;

/// Size class of inode records among those of slot pages.
const INODE_CLASS: u8 = 1;
/// Inode records in a page, and granules of each.
const PER_PAGE: u32 = (PAGE / crate::inode::INODE_BYTES) as u32;
const GRANULES: u32 = (crate::inode::INODE_BYTES / engine::GRANULE) as u32;
/// Inodes looked at between two reports of progress.
const REPORT_EVERY: u64 = 1024;

/// What a check of a container found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Inodes with a name that are no directories.
    pub files: u64,
    /// Directories, the root included.
    pub dirs: u64,
    /// Inodes that live only because somebody has them open.
    pub orphans: u64,
    /// Blocks whose copies were compared.
    pub compared: u64,
    /// Copies that could not be read because their rank is gone.
    pub unreadable: u64,
    /// What is not as it should be.
    pub problems: Vec<Problem>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// An inode, and for a directory what is below it, that no name leads to and nobody has open.
    Leaked {
        /// The inode.
        ino: Ino,
        /// Inodes that are leaked with it, itself included.
        inodes: u64,
    },
    /// An inode that counts other names than it has.
    Links {
        /// The inode.
        ino: Ino,
        /// Names found.
        names: u32,
        /// Names counted; 2 for a directory.
        links: u32,
    },
    /// A directory that counts other entries than it has.
    Counts {
        /// The directory.
        dir: Ino,
        /// Entries and subdirectories found.
        found: (u32, u32),
        /// Entries and subdirectories counted.
        counted: (u32, u32),
    },
    /// An entry that is listed, but not found by its name.
    Hidden {
        /// The directory.
        dir: Ino,
        /// Name of the entry.
        name: Vec<u8>,
    },
    /// An entry that leads to no inode.
    Dangling {
        /// The directory.
        dir: Ino,
        /// Name of the entry.
        name: Vec<u8>,
    },
    /// An entry of another type than the inode it leads to.
    Mistyped {
        /// The directory.
        dir: Ino,
        /// Name of the entry.
        name: Vec<u8>,
    },
    /// A directory that believes to be in another one.
    Misplaced {
        /// The directory it is in.
        dir: Ino,
        /// Its name.
        name: Vec<u8>,
        /// The directory itself.
        child: Ino,
    },
    /// A file whose map cannot be followed, or leads to blocks the pool does not have.
    Map {
        /// The file.
        ino: Ino,
        /// What is wrong.
        what: String,
    },
    /// A file that has a block in common with another, or with itself.
    Shared {
        /// The file found second.
        ino: Ino,
        /// Rank of the block.
        rank: u16,
        /// The block.
        block: u64,
    },
    /// A file that counts other blocks than it has.
    Blocks {
        /// The file.
        ino: Ino,
        /// Blocks found in the map.
        found: u64,
        /// Blocks counted.
        counted: u64,
    },
    /// Copies of a block that differ.
    Copies {
        /// The file.
        ino: Ino,
        /// Block within the file.
        block: u64,
        /// Ranks of the copy that differs and of the first.
        ranks: (u16, u16),
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        match self {
            Problem::Leaked { ino, inodes: 1 } => {
                write!(f, "inode {}: neither named nor open", ino.number)
            }
            Problem::Leaked { ino, inodes } => write!(
                f,
                "directory {}: neither named nor open, {inodes} inodes in all",
                ino.number
            ),
            Problem::Links { ino, names, links } => {
                write!(f, "inode {}: {names} names, {links} links", ino.number)
            }
            Problem::Counts {
                dir,
                found: (entries, subdirs),
                counted,
            } => write!(
                f,
                "directory {}: {entries} entries, {subdirs} of them directories, counted {} and {}",
                dir.number, counted.0, counted.1
            ),
            Problem::Hidden { dir, name } => write!(
                f,
                "directory {}: {} is listed but not found",
                dir.number,
                shown(name)
            ),
            Problem::Dangling { dir, name } => {
                write!(f, "directory {}: {} leads nowhere", dir.number, shown(name))
            }
            Problem::Mistyped { dir, name } => write!(
                f,
                "directory {}: {} is not what it is listed as",
                dir.number,
                shown(name)
            ),
            Problem::Misplaced { dir, name, .. } => write!(
                f,
                "directory {}: {} has another parent",
                dir.number,
                shown(name)
            ),
            Problem::Map { ino, what } => write!(f, "file {}: {what}", ino.number),
            Problem::Shared { ino, rank, block } => write!(
                f,
                "file {}: block {block} of rank {rank} is used twice",
                ino.number
            ),
            Problem::Blocks {
                ino,
                found,
                counted,
            } => write!(f, "file {}: {found} blocks, counted {counted}", ino.number),
            Problem::Copies { ino, block, ranks } => write!(
                f,
                "file {}: copies of block {block} on ranks {} and {} differ",
                ino.number, ranks.1, ranks.0
            ),
        }
    }
}

/// Calls `visit` for every live inode of the pool, in no particular order.
fn each_inode(pool: &Pool, visit: &mut dyn FnMut(Ino, u64) -> Result<()>) -> Result<()> {
    for page in 1..u32::MAX {
        let link = PageLink::new(page, 0, 0);
        if pool.word(link.offset()).is_err() {
            break;
        }
        let state = pool.page_state(page)?;
        if state.kind != kind::SLOTS || state.class != INODE_CLASS {
            continue;
        }
        for slot in 0..PER_PAGE {
            let rec = Rec(page * PER_PAGE * GRANULES + slot * GRANULES);
            let tag = pool.load(rec.offset())?;
            if tag_kind(tag) == kind::INODE {
                let ino = Ino {
                    number: u64::from(rec.0),
                    generation: tag_generation(tag),
                };
                visit(ino, rec.offset())?;
            }
        }
    }
    Ok(())
}

/// A check under way.
struct Check<'d> {
    dfs: &'d Dfs,
    /// Names found, by number of the inode they lead to.
    names: HashMap<u64, u32>,
    /// Directories still to be looked at.
    dirs: Vec<Ino>,
    checked: Checked,
    seen: u64,
    progress: &'d mut dyn FnMut(u64),
}

impl Dfs {
    /// Frees all inodes of the pool that have neither a name nor an open description, and returns
    /// their number. For the first to attach after the arena was rebuilt: what was open then has
    /// been closed by the crash.
    pub fn reclaim_orphans(&self) -> Result<usize> {
        let mut orphans = Vec::new();
        each_inode(self.pool, &mut |ino, offset| {
            let nlink = Guard::read(self.pool, offset)?.nlink;
            if nlink == 0 && !self.looks_open(ino, offset)? {
                orphans.push(ino);
            }
            Ok(())
        })?;
        for ino in &orphans {
            self.reclaim(*ino)?;
            crash_point!("orphan.reclaimed");
        }
        Ok(orphans.len())
    }

    /// Counts the blocks of all files anew: some of what had been counted may be lost.
    pub(crate) fn count_blocks(&self) -> Result<()> {
        let mut files = Vec::new();
        each_inode(self.pool, &mut |ino, offset| {
            if is_file(Guard::read(self.pool, offset)?.mode) {
                files.push(ino);
            }
            Ok(())
        })?;
        for ino in files {
            let file = File::open(self.pool, ino)?;
            let mut tx = file.tx()?;
            let blocks = data::count(&file)?;
            if blocks != file.load(word::BLOCKS)? {
                tx.set(file.at(word::BLOCKS), blocks)?;
            }
            tx.commit()?;
        }
        Ok(())
    }

    /// Checks names, counts and block maps; see [`Dfs::check_with`].
    pub fn check(&self) -> Result<Checked> {
        self.check_with(false, &mut |_| ())
    }

    /// Checks the container: every entry can be found, leads to an inode of its type, and all
    /// counts are right; every inode has a name or is open; every block belongs to one file; with
    /// `copies`, the copies of each block are the same. `progress` is told the number of inodes
    /// looked at. Meaningful only while nobody changes the container.
    pub fn check_with(&self, copies: bool, progress: &mut dyn FnMut(u64)) -> Result<Checked> {
        let mut check = Check {
            dfs: self,
            names: HashMap::new(),
            dirs: vec![self.root],
            checked: Checked::default(),
            seen: 0,
            progress,
        };
        while let Some(dir) = check.dirs.pop() {
            check.checked.dirs += 1;
            check.dir(dir)?;
        }
        check.names.insert(self.root.number, 1);
        let unnamed = check.inodes()?;
        check.leaks(unnamed)?;
        check.data(copies)?;
        Ok(check.checked)
    }
}

impl Check<'_> {
    fn found(&mut self, problem: Problem) {
        self.checked.problems.push(problem);
    }

    fn step(&mut self) {
        self.seen += 1;
        if self.seen.is_multiple_of(REPORT_EVERY) {
            (self.progress)(self.seen);
        }
    }

    /// Inodes of the container, with their offsets.
    fn own_inodes(&self) -> Result<Vec<(Ino, u64)>> {
        let mut own = Vec::new();
        let dfs = self.dfs;
        each_inode(dfs.pool, &mut |ino, offset| {
            if low(dfs.pool.load(at(offset, word::CONTAINER))?) == dfs.container {
                own.push((ino, offset));
            }
            Ok(())
        })?;
        Ok(own)
    }

    /// Compares counts of names; returns the inodes that have no name and are not open.
    fn inodes(&mut self) -> Result<Vec<Ino>> {
        let mut unnamed = Vec::new();
        for (ino, offset) in self.own_inodes()? {
            self.step();
            let guard = Guard::read(self.dfs.pool, offset)?;
            let names = self.names.get(&ino.number).copied().unwrap_or(0);
            let open = self.dfs.looks_open(ino, offset)?;
            match (names, is_dir(guard.mode)) {
                (0, _) if !open => {
                    unnamed.push(ino);
                    continue;
                }
                (0, _) => self.checked.orphans += 1,
                (_, false) => self.checked.files += 1,
                _ => {}
            }
            self.links(ino, &guard, names);
        }
        Ok(unnamed)
    }

    fn links(&mut self, ino: Ino, guard: &Guard, names: u32) {
        let counted = match is_dir(guard.mode) {
            true => guard.nlink / 2,
            false => guard.nlink,
        };
        if names != counted {
            let links = guard.nlink;
            self.found(Problem::Links { ino, names, links });
        }
    }

    /// Checks the entries of a directory, and puts its subdirectories on the list.
    fn dir(&mut self, dir: Ino) -> Result<()> {
        let pool = self.dfs.pool;
        let entries = self.dfs.entries_of(dir)?;
        let mut subdirs = 0;
        for (name, number, entry_type) in &entries {
            self.step();
            let name = name.as_slice();
            let owned = || name.to_vec();
            let found = dir::find(pool, dir, name, dir::hash(name))?;
            let Some(child) = found.map(|found| found.child()) else {
                *self.names.entry(*number).or_default() += 1;
                self.found(Problem::Hidden { dir, name: owned() });
                continue;
            };
            let Ok(guard) = Guard::of(pool, child) else {
                self.found(Problem::Dangling { dir, name: owned() });
                continue;
            };
            *self.names.entry(child.number).or_default() += 1;
            if child.number != *number || crate::inode::entry_type(guard.mode) != *entry_type {
                self.found(Problem::Mistyped { dir, name: owned() });
            }
            if is_dir(guard.mode) {
                subdirs += 1;
                if self.dfs.parent(child)? != dir {
                    let name = owned();
                    self.found(Problem::Misplaced { dir, name, child });
                }
                // A directory with two names is looked at once, or a ring has no end.
                if self.names.get(&child.number) == Some(&1) && child != self.dfs.root {
                    self.dirs.push(child);
                }
            }
        }
        let counts = pool.load(at(locate(pool, dir)?, word::COUNTS))?;
        let (found, counted) = ((entries.len() as u32, subdirs), (high(counts), low(counts)));
        if found != counted {
            self.found(Problem::Counts {
                dir,
                found,
                counted,
            });
        }
        Ok(())
    }

    /// Checks the maps of all files of the container.
    fn data(&mut self, copies: bool) -> Result<()> {
        let mut claims = data::Claims::new(self.dfs.pool);
        for (ino, offset) in self.own_inodes()? {
            self.step();
            if is_file(Guard::read(self.dfs.pool, offset)?.mode) {
                data::check(self.dfs.pool, ino, copies, &mut claims, &mut self.checked)?;
            }
        }
        Ok(())
    }
}

/// Name, inode number and type of an entry.
type Entry = (Vec<u8>, u64, u8);

impl Dfs {
    /// Entries of a directory, without the dots.
    fn entries_of(&self, dir: Ino) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        dir::entries(self.pool, dir, &mut DirCursor::default(), &mut |entry| {
            entries.push((entry.name.to_vec(), entry.ino, entry.kind));
            true
        })?;
        Ok(entries)
    }
}

/// Entries and subdirectories of a list.
fn counts_of(entries: &[Entry]) -> (u32, u32) {
    let subdirs = entries.iter().filter(|(_, _, kind)| *kind == DT_DIR);
    (entries.len() as u32, subdirs.count() as u32)
}
