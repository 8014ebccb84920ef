//! Looking at all inodes of a pool: what nobody can reach any more is freed, and a container at
//! rest can be checked. Slow paths, for mounting after a crash, for commands and for tests.

use crate::dir;
use crate::inode::{Guard, at, high, is_dir, is_file, locate, low, word};
use crate::map::file::File;
use crate::{Dfs, DirCursor, Ino};
use engine::{BlockPtr, PAGE, PageLink, Pool, Rec, kind, tag_generation, tag_kind};
use std::collections::HashMap;
use sys::Result;

/// Size class of inode records among those of slot pages.
const INODE_CLASS: u8 = 1;
/// Inode records in a page, and granules of each.
const PER_PAGE: u32 = (PAGE / crate::inode::INODE_BYTES) as u32;
const GRANULES: u32 = (crate::inode::INODE_BYTES / engine::GRANULE) as u32;

/// What a check of a container found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Inodes with a name that are no directories.
    pub files: u64,
    /// Directories, the root included.
    pub dirs: u64,
    /// Inodes that live only because somebody has them open.
    pub orphans: u64,
    /// One line for each thing that is not as it should be.
    pub problems: Vec<String>,
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

/// Blocks, of one copy, that a file has.
fn blocks_of(file: &File<'_>) -> Result<u64> {
    let (mut block, end, mut found) = (0, file.blocks_end()?, 0);
    while block < end {
        let spot = file.find(block)?;
        let run = spot.run.min(end - block);
        if let Some(at) = spot.at {
            for index in 0..run {
                let pointer = BlockPtr(file.pool.load(file.nth(at, index))?);
                found += u64::from(!pointer.is_hole());
            }
        }
        block += run;
    }
    Ok(found)
}

impl Dfs {
    /// Frees all inodes of the pool that have neither a name nor an open description, and returns
    /// their number. For the first to attach after the arena was rebuilt: what was open then has
    /// been closed by the crash.
    pub fn reclaim_orphans(&self) -> Result<usize> {
        let mut orphans = Vec::new();
        each_inode(self.pool, &mut |ino, offset| {
            let nlink = Guard::read(self.pool, offset)?.nlink;
            if nlink == 0 && high(self.pool.load(at(offset, word::OPEN))?) == 0 {
                orphans.push(ino);
            }
            Ok(())
        })?;
        for ino in &orphans {
            self.reclaim(*ino)?;
        }
        Ok(orphans.len())
    }

    /// Counts the blocks of all files anew: some of what had been counted was lost.
    pub(crate) fn count_blocks(&self) -> Result<()> {
        let mut files = Vec::new();
        each_inode(self.pool, &mut |_, offset| {
            if is_file(Guard::read(self.pool, offset)?.mode) {
                files.push(offset);
            }
            Ok(())
        })?;
        for offset in files {
            let file = File::at_base(self.pool, offset)?;
            let mut tx = file.tx()?;
            let blocks = blocks_of(&file)?;
            if blocks != file.load(word::BLOCKS)? {
                tx.set(file.at(word::BLOCKS), blocks)?;
            }
            tx.commit()?;
        }
        Ok(())
    }

    /// Checks the whole namespace: every entry can be found, leads to an inode of its type, and
    /// all counts are right; every inode of the container has a name or is open. Meaningful only
    /// while nobody changes the container.
    pub fn check(&self) -> Result<Checked> {
        let mut checked = Checked::default();
        let mut names: HashMap<u64, u32> = HashMap::new();
        let mut dirs = vec![self.root];
        while let Some(dir) = dirs.pop() {
            checked.dirs += 1;
            self.check_dir(dir, &mut names, &mut dirs, &mut checked)?;
        }
        names.insert(self.root.number, 1);
        each_inode(self.pool, &mut |ino, offset| {
            if low(self.pool.load(at(offset, word::CONTAINER))?) == self.container {
                self.check_inode(ino, offset, &names, &mut checked)?;
            }
            Ok(())
        })?;
        Ok(checked)
    }

    fn check_inode(
        &self,
        ino: Ino,
        offset: u64,
        names: &HashMap<u64, u32>,
        checked: &mut Checked,
    ) -> Result<()> {
        let guard = Guard::read(self.pool, offset)?;
        let open = high(self.pool.load(at(offset, word::OPEN))?);
        let named = names.get(&ino.number).copied().unwrap_or(0);
        let expected = if is_dir(guard.mode) {
            guard.nlink / 2
        } else {
            guard.nlink
        };
        if named != expected {
            let line = format!("inode {}: {named} names, {} links", ino.number, guard.nlink);
            checked.problems.push(line);
        }
        if is_file(guard.mode) {
            let file = File::at_base(self.pool, offset)?;
            let (found, counted) = (blocks_of(&file)?, file.load(word::BLOCKS)?);
            if found != counted {
                let line = format!("inode {}: {found} blocks, counted {counted}", ino.number);
                checked.problems.push(line);
            }
        }
        if named == 0 && open == 0 {
            checked
                .problems
                .push(format!("inode {}: neither named nor open", ino.number));
        }
        match (named, is_dir(guard.mode)) {
            (0, _) => checked.orphans += 1,
            (_, false) => checked.files += 1,
            _ => {}
        }
        Ok(())
    }

    fn check_dir(
        &self,
        dir: Ino,
        names: &mut HashMap<u64, u32>,
        dirs: &mut Vec<Ino>,
        checked: &mut Checked,
    ) -> Result<()> {
        let mut entries = Vec::new();
        let mut cursor = DirCursor::default();
        self.getdents(dir, &mut cursor, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                entries.push((entry.name.to_vec(), entry.ino, entry.kind));
            }
            true
        })?;
        let mut subdirs = 0;
        let mut problem = |text: String| {
            checked
                .problems
                .push(format!("directory {}: {text}", dir.number));
        };
        for (name, number, entry_type) in &entries {
            let shown = String::from_utf8_lossy(name);
            *names.entry(*number).or_default() += 1;
            let found = dir::find(self.pool, dir, name, dir::hash(name))?;
            let Some(child) = found.map(|found| found.child()) else {
                problem(format!("{shown} is listed but not found"));
                continue;
            };
            let Ok(guard) = Guard::of(self.pool, child) else {
                problem(format!("{shown} leads nowhere"));
                continue;
            };
            if child.number != *number || crate::inode::entry_type(guard.mode) != *entry_type {
                problem(format!("{shown} is not what it is listed as"));
            }
            if is_dir(guard.mode) {
                subdirs += 1;
                if self.parent(child)? != dir {
                    problem(format!("{shown} has another parent"));
                } else {
                    dirs.push(child);
                }
            }
        }
        let counts = self.pool.load(at(locate(self.pool, dir)?, word::COUNTS))?;
        if (high(counts) as usize, low(counts)) != (entries.len(), subdirs) {
            let counted = (high(counts), low(counts));
            problem(format!(
                "{} entries, {subdirs} dirs, counted {counted:?}",
                entries.len()
            ));
        }
        Ok(())
    }
}
