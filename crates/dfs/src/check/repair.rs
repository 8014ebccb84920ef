//! Mending what a check found. Each repair is one transaction that looks again under the lock, so
//! a repair of what is no longer wrong changes nothing.

use super::{Problem, counts_of};
use crate::dir::{self, NewEntry};
use crate::inode::{self, Guard, at, entry_type, high, is_dir, link_word, locate, low, pair, word};
use crate::map::file::File;
use crate::{Dfs, Ino};
use engine::Tx;
use sys::{Errno, Result};

/// How often a name that finds no room is tried again.
const TRIES: usize = 64;

/// What becomes of inodes that no name leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaks {
    /// They stay as they are.
    Keep,
    /// They are removed, with what is below them.
    Remove {
        /// A directory for trees on their way out.
        by: Ino,
    },
    /// They get a name, their number, in a directory.
    Relink {
        /// The directory.
        to: Ino,
    },
}

impl Dfs {
    /// Mends what can be mended of what [`Dfs::check_with`] found, while nobody else uses the
    /// container, and returns how many problems were dealt with. What is left after it shows a
    /// second check: maps and copies that differ are for people to judge.
    pub fn repair(&self, problems: &[Problem], leaks: Leaks) -> Result<u64> {
        let mut mended = 0;
        // An entry that goes or is found again changes counts, so counts come last.
        for problem in problems {
            mended += u64::from(self.mend_entry(problem)?);
        }
        for problem in problems {
            if let Problem::Leaked { ino, .. } = problem {
                mended += u64::from(self.mend_leak(*ino, leaks)?);
            }
        }
        for problem in problems {
            mended += u64::from(self.mend_count(problem)?);
        }
        Ok(mended)
    }

    fn mend_entry(&self, problem: &Problem) -> Result<bool> {
        match problem {
            Problem::Hidden { dir, .. } => self.mend_table(*dir),
            Problem::Dangling { dir, name } => self.mend_dangling(*dir, name),
            Problem::Mistyped { dir, name } => self.mend_type(*dir, name),
            Problem::Misplaced { dir, child, .. } => {
                let mut tx = self.pool.tx(&[inode::lock(self.pool, *child)?])?;
                let offset = locate(self.pool, *child)?;
                tx.set(at(offset, word::PARENT), link_word(*dir))?;
                tx.commit().map(|_| true)
            }
            _ => Ok(false),
        }
    }

    fn mend_count(&self, problem: &Problem) -> Result<bool> {
        match problem {
            Problem::Counts { dir, .. } => self.recount(*dir).map(|()| true),
            Problem::Links { ino, names, .. } => self.mend_links(*ino, *names),
            Problem::Blocks { ino, found, .. } => {
                let file = File::open(self.pool, *ino)?;
                let mut tx = file.tx()?;
                tx.set(file.at(word::BLOCKS), *found)?;
                tx.commit().map(|_| true)
            }
            _ => Ok(false),
        }
    }

    /// Builds the hash table of a directory anew from its entries.
    fn mend_table(&self, dir: Ino) -> Result<bool> {
        {
            let mut tx = self.pool.tx(&[inode::lock(self.pool, dir)?])?;
            let offset = locate(self.pool, dir)?;
            dir::drop_table(&mut tx, self.pool, offset)?;
            tx.commit()?;
        }
        // Whoever looks next builds it.
        dir::find(self.pool, dir, b".", dir::hash(b".")).map(|_| true)
    }

    /// Removes an entry that leads to nothing.
    fn mend_dangling(&self, dir: Ino, name: &[u8]) -> Result<bool> {
        let empty = {
            let mut tx = self.pool.tx(&[inode::lock(self.pool, dir)?])?;
            let offset = locate(self.pool, dir)?;
            let found = dir::find_locked(self.pool, dir, offset, name, dir::hash(name))?;
            let Some(found) = found else { return Ok(false) };
            if Guard::of(self.pool, found.child()).is_ok() {
                return Ok(false);
            }
            let empty = dir::remove(&mut tx, self.pool, dir, offset, &found)?;
            tx.commit()?;
            empty
        };
        if let Some(link) = empty {
            dir::tidy(self.pool, dir, link)?;
        }
        self.recount(dir).map(|()| true)
    }

    /// Makes an entry say what type of inode it leads to.
    fn mend_type(&self, dir: Ino, name: &[u8]) -> Result<bool> {
        let mut tx = self.pool.tx(&[inode::lock(self.pool, dir)?])?;
        let offset = locate(self.pool, dir)?;
        let found = dir::find_locked(self.pool, dir, offset, name, dir::hash(name))?;
        let Some(found) = found else { return Ok(false) };
        let child = found.child();
        let Ok(guard) = Guard::of(self.pool, child) else {
            return Ok(false);
        };
        dir::replace(&mut tx, &found, child, entry_type(guard.mode))?;
        tx.commit()?;
        self.recount(dir).map(|()| true)
    }

    /// Counts the entries of a directory anew.
    fn recount(&self, dir: Ino) -> Result<()> {
        let mut tx = self.pool.tx(&[inode::lock(self.pool, dir)?])?;
        let offset = locate(self.pool, dir)?;
        let (entries, subdirs) = counts_of(&self.entries_of(dir)?);
        let counts = pair(entries, subdirs);
        if tx.load(at(offset, word::COUNTS))? != counts {
            tx.set(at(offset, word::COUNTS), counts)?;
        }
        tx.commit().map(drop)
    }

    /// Sets the number of names to what was found, unless there are none: then the inode is open
    /// and goes with its last close, as its count must say.
    fn mend_links(&self, ino: Ino, names: u32) -> Result<bool> {
        let mut tx = self.pool.tx(&[inode::lock(self.pool, ino)?])?;
        let offset = locate(self.pool, ino)?;
        let guard = Guard::read(self.pool, offset)?;
        let links = if is_dir(guard.mode) {
            2 * names.min(1)
        } else {
            names
        };
        tx.set(at(offset, word::MODE), pair(guard.mode, links))?;
        tx.commit().map(|_| true)
    }

    fn mend_leak(&self, ino: Ino, leaks: Leaks) -> Result<bool> {
        let to = match leaks {
            Leaks::Keep => return Ok(false),
            Leaks::Remove { by } => by,
            Leaks::Relink { to } => to,
        };
        let name = format!("{}.{}", ino.number, ino.generation).into_bytes();
        if !self.name_leaked(ino, to, &name)? {
            return Ok(false);
        }
        if let Leaks::Remove { .. } = leaks {
            self.remove_tree(to, &name)?;
        }
        Ok(true)
    }

    /// Gives an inode that has no name one in the directory `to`; `false` if it is gone or open.
    fn name_leaked(&self, ino: Ino, to: Ino, name: &[u8]) -> Result<bool> {
        let hash = dir::hash(name);
        let mut crowded = false;
        for _ in 0..TRIES {
            let locks = [inode::lock(self.pool, to)?, inode::lock(self.pool, ino)?];
            let mut tx = self.pool.tx(&locks)?;
            let holder = locate(self.pool, to)?;
            let Ok(offset) = locate(self.pool, ino) else {
                return Ok(false);
            };
            let guard = Guard::read(self.pool, offset)?;
            if self.is_open(&mut tx, ino, offset)? {
                return Ok(false);
            }
            adopt(&mut tx, offset, &guard, to)?;
            let entry = NewEntry {
                name,
                hash,
                entry_type: entry_type(guard.mode),
                child: ino,
            };
            if dir::insert(&mut tx, self.pool, to, holder, entry, crowded)?.is_none() {
                drop(tx);
                dir::grow(self.pool, to, name.len())?;
                crowded = true;
                continue;
            }
            let counts = tx.load(at(holder, word::COUNTS))?;
            let subdirs = low(counts) + u32::from(is_dir(guard.mode));
            tx.set(at(holder, word::COUNTS), pair(high(counts) + 1, subdirs))?;
            tx.commit()?;
            return Ok(true);
        }
        Err(Errno::EAGAIN)
    }

    /// Removes a name and all that is below it.
    fn remove_tree(&self, dir: Ino, name: &[u8]) -> Result<()> {
        let found = dir::find(self.pool, dir, name, dir::hash(name))?;
        let Some(found) = found else { return Ok(()) };
        let root = crate::names::PRIVILEGED;
        if is_dir(Guard::of(self.pool, found.child())?.mode) {
            self.empty(found.child(), &mut |_| ())?;
            self.rmdir(&root, dir, name)
        } else {
            self.unlink(&root, dir, name)
        }
    }
}

/// Makes an inode's record that of an inode with one name, in the directory `to`.
fn adopt(tx: &mut Tx<'_>, offset: u64, guard: &Guard, to: Ino) -> Result<()> {
    let links = if is_dir(guard.mode) { 2 } else { 1 };
    if guard.nlink != links {
        tx.set(at(offset, word::MODE), pair(guard.mode, links))?;
    }
    tx.set(at(offset, word::PARENT), link_word(to))
}
