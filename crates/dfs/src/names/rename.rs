//! Moving names: `renameat2(2)`.

use super::make::{Node, new_inode};
use super::orphan::Retired;
use super::remove::check_delete;
use super::{Held, TRIES, check_len, find, gone, is_dots, set_nlink};
use crate::dir::{self, Found, NewEntry};
use crate::inode::{
    self, Guard, S_IFCHR, at, entry_type, high, is_dir, link_word, locate, low, word,
};
use crate::perm::{self, EXECUTE, WRITE};
use crate::{Cred, Dfs, Ino, prefix};
use engine::{LockId, PageLink, Tx};
use sys::{Errno, Result};

/// Do not replace what has the new name.
pub const RENAME_NOREPLACE: u32 = 1;
/// Exchange the two names.
pub const RENAME_EXCHANGE: u32 = 2;
/// Leave a whiteout (character device 0:0) under the old name.
pub const RENAME_WHITEOUT: u32 = 4;

/// Deepest directory a path can name, with room to spare; bounds walks towards the root.
const DEPTH_MAX: usize = 1 << 16;

/// Both ends of a rename, as found without locks.
struct Plan<'a> {
    from_dir: Ino,
    from: &'a [u8],
    from_hash: u32,
    to_dir: Ino,
    to: &'a [u8],
    to_hash: u32,
    source: Ino,
    target: Option<Ino>,
    exchange: bool,
    whiteout: bool,
    /// A directory is moved: the pool's rename lock is held.
    moves_dir: bool,
}

/// Both ends under their locks.
struct Ends {
    from: Held,
    to: Held,
    source: End,
    target: Option<End>,
}

/// An entry and the inode it names.
struct End {
    found: Found,
    offset: u64,
    guard: Guard,
}

/// What is left to do after the commit.
struct After {
    emptied: Option<PageLink>,
    retired: Retired,
}

/// Outcome of one try.
enum Tried {
    Done,
    Again,
    /// Room is wanted in the new directory.
    Grow,
    /// The replaced inode has to be queued, which takes the root's lock.
    Queue,
}

impl Dfs {
    /// Moves a name, replacing what has the new one unless told otherwise by `flags`
    /// (`RENAME_*`). Errors and their order are those of `rename(2)` on Linux.
    pub fn rename(
        &self,
        cred: &Cred<'_>,
        from_dir: Ino,
        from: &[u8],
        to_dir: Ino,
        to: &[u8],
        flags: u32,
    ) -> Result<()> {
        let known = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
        let exchange = flags & RENAME_EXCHANGE != 0;
        if flags & !known != 0 || exchange && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) != 0 {
            return Err(Errno::EINVAL);
        }
        let no_replace = flags & RENAME_NOREPLACE != 0;
        if is_dots(from) {
            return Err(Errno::EBUSY);
        }
        if is_dots(to) {
            return Err(if no_replace {
                Errno::EEXIST
            } else {
                Errno::EBUSY
            });
        }
        check_len(from)?;
        let (from_hash, to_hash) = (dir::hash(from), dir::hash(to));
        let (mut crowded, mut queue) = (false, false);
        for _ in 0..TRIES {
            let source = find(self.pool, cred, from_dir, from, from_hash)?.ok_or(Errno::ENOENT)?;
            check_len(to)?;
            let target = find(self.pool, cred, to_dir, to, to_hash)?;
            match target {
                Some(_) if no_replace => return Err(Errno::EEXIST),
                None if exchange => return Err(Errno::ENOENT),
                _ => {}
            }
            let mut plan = Plan {
                from_dir,
                from,
                from_hash,
                to_dir,
                to,
                to_hash,
                source: source.child(),
                target: target.map(|found| found.child()),
                exchange,
                whiteout: flags & RENAME_WHITEOUT != 0,
                moves_dir: false,
            };
            plan.moves_dir = match self.moves_dir(&plan) {
                Err(Errno::ESTALE) => continue,
                other => other?,
            };
            match self.try_rename(cred, &plan, crowded, queue)? {
                Tried::Done => return Ok(()),
                Tried::Again => {}
                Tried::Grow => {
                    dir::grow(self.pool, to_dir, to.len()).map_err(gone)?;
                    crowded = true;
                }
                Tried::Queue => queue = true,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Does a directory get another name or parent?
    fn moves_dir(&self, plan: &Plan<'_>) -> Result<bool> {
        let mut moved = is_dir(Guard::of(self.pool, plan.source)?.mode);
        if let (true, Some(target)) = (plan.exchange, plan.target) {
            moved |= is_dir(Guard::of(self.pool, target)?.mode);
        }
        Ok(moved)
    }

    fn try_rename(
        &self,
        cred: &Cred<'_>,
        plan: &Plan<'_>,
        crowded: bool,
        queue: bool,
    ) -> Result<Tried> {
        let first = inode::lock(self.pool, plan.from_dir)?;
        let mut locks = [first; 6];
        locks[1] = inode::lock(self.pool, plan.to_dir)?;
        locks[2] = inode::lock(self.pool, plan.source)?;
        if let Some(target) = plan.target {
            locks[3] = inode::lock(self.pool, target)?;
        }
        if plan.moves_dir {
            locks[4] = LockId::Rename;
        }
        if queue {
            locks[5] = inode::lock(self.pool, self.root)?;
        }
        let mut tx = self.pool.tx(&locks)?;
        let Some(ends) = self.recheck(cred, plan)? else {
            return Ok(Tried::Again);
        };
        self.check_loops(plan, &ends)?;
        if plan.target == Some(plan.source) {
            return Ok(Tried::Done);
        }
        check_rights(cred, plan, &ends, &tx)?;
        let now = self.pool.now_ns();
        if plan.moves_dir {
            prefix::change_begins(&mut tx)?;
        }
        let done = match &ends.target {
            Some(target) if plan.exchange => {
                self.exchange(&mut tx, plan, &ends, target, now)?;
                Some(After {
                    emptied: None,
                    retired: Retired::Kept,
                })
            }
            _ => self.move_name(&mut tx, cred, plan, &ends, now, crowded, queue)?,
        };
        let Some(after) = done else {
            return Ok(Tried::Grow);
        };
        if matches!(after.retired, Retired::NeedsQueue) {
            return Ok(Tried::Queue);
        }
        if plan.moves_dir {
            prefix::change_ends(&mut tx)?;
        }
        tx.commit()?;
        if let Some(link) = after.emptied {
            self.tidy(plan.from_dir, link);
        }
        if matches!(after.retired, Retired::Queued) {
            self.drain_reclaim();
        }
        Ok(Tried::Done)
    }

    /// Reads both ends under their locks; `None` if they are not what was planned for.
    fn recheck(&self, cred: &Cred<'_>, plan: &Plan<'_>) -> Result<Option<Ends>> {
        let from = Held::new(self.pool, cred, plan.from_dir)?;
        let to = Held::new(self.pool, cred, plan.to_dir)?;
        let source = from.find(self.pool, plan.from, plan.from_hash)?;
        let target = to.find(self.pool, plan.to, plan.to_hash)?;
        let same = source.map(|found| found.child()) == Some(plan.source)
            && target.map(|found| found.child()) == plan.target;
        let (Some(source), true) = (source, same) else {
            return Ok(None);
        };
        let source = self.end(source)?;
        let target = target.map(|found| self.end(found)).transpose()?;
        let moved = is_dir(source.guard.mode)
            || plan.exchange && target.as_ref().is_some_and(|end| is_dir(end.guard.mode));
        if moved && !plan.moves_dir {
            return Ok(None);
        }
        Ok(Some(Ends {
            from,
            to,
            source,
            target,
        }))
    }

    fn end(&self, found: Found) -> Result<End> {
        let offset = locate(self.pool, found.child()).map_err(|_| Errno::EIO)?;
        Ok(End {
            found,
            offset,
            guard: Guard::read(self.pool, offset)?,
        })
    }

    /// Neither end may lie below the other: `EINVAL` for the source and in an exchange, else
    /// `ENOTEMPTY`.
    fn check_loops(&self, plan: &Plan<'_>, ends: &Ends) -> Result<()> {
        if plan.from_dir == plan.to_dir {
            return Ok(());
        }
        if is_dir(ends.source.guard.mode) && self.is_below(plan.to_dir, plan.source)? {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = &ends.target
            && is_dir(target.guard.mode)
            && self.is_below(plan.from_dir, target.found.child())?
        {
            return Err(if plan.exchange {
                Errno::EINVAL
            } else {
                Errno::ENOTEMPTY
            });
        }
        Ok(())
    }

    /// Is `dir` the directory `top` or somewhere below it? Exact while the rename lock is held.
    fn is_below(&self, dir: Ino, top: Ino) -> Result<bool> {
        let mut here = dir;
        for _ in 0..DEPTH_MAX {
            if here == top {
                return Ok(true);
            }
            if here == self.root {
                return Ok(false);
            }
            here = match self.parent(here) {
                // Removed meanwhile: then it is below nothing.
                Err(Errno::ESTALE) => return Ok(false),
                other => other?,
            };
        }
        Err(Errno::EIO)
    }

    /// Swaps what two entries name.
    fn exchange(
        &self,
        tx: &mut Tx<'_>,
        plan: &Plan<'_>,
        ends: &Ends,
        target: &End,
        now: i64,
    ) -> Result<()> {
        let source = &ends.source;
        dir::replace(
            tx,
            &target.found,
            source.found.child(),
            entry_type(source.guard.mode),
        )?;
        dir::replace(
            tx,
            &source.found,
            target.found.child(),
            entry_type(target.guard.mode),
        )?;
        place(tx, source, plan.to_dir, target.found.granule, now)?;
        place(tx, target, plan.from_dir, source.found.granule, now)?;
        if plan.from_dir == plan.to_dir {
            return ends.from.changed(tx, now, 0, 0);
        }
        let gained = i32::from(is_dir(target.guard.mode)) - i32::from(is_dir(source.guard.mode));
        ends.from.changed(tx, now, 0, gained)?;
        ends.to.changed(tx, now, 0, -gained)
    }

    /// Moves the source to the new name; `None` if the new directory lacks room.
    #[expect(
        clippy::too_many_arguments,
        reason = "one step of try_rename, split for length"
    )]
    fn move_name(
        &self,
        tx: &mut Tx<'_>,
        cred: &Cred<'_>,
        plan: &Plan<'_>,
        ends: &Ends,
        now: i64,
        crowded: bool,
        queue: bool,
    ) -> Result<Option<After>> {
        let source = &ends.source;
        let kind = entry_type(source.guard.mode);
        let child = source.found.child();
        let granule = match &ends.target {
            Some(target) => {
                dir::replace(tx, &target.found, child, kind)?;
                target.found.granule
            }
            None => {
                let entry = NewEntry {
                    name: plan.to,
                    hash: plan.to_hash,
                    entry_type: kind,
                    child,
                };
                let owner = plan.to_dir;
                match dir::insert(tx, self.pool, owner, ends.to.offset, entry, crowded)? {
                    Some(granule) => granule,
                    None => return Ok(None),
                }
            }
        };
        place(tx, source, plan.to_dir, granule, now)?;
        let emptied = self.leave_old(tx, cred, plan, ends, now)?;
        self.count(tx, plan, ends, now)?;
        let retired = match &ends.target {
            Some(target) => self.displaced(tx, target, now, queue)?,
            None => Retired::Kept,
        };
        Ok(Some(After { emptied, retired }))
    }

    /// Takes the old name away, or leaves a whiteout in its place.
    fn leave_old(
        &self,
        tx: &mut Tx<'_>,
        cred: &Cred<'_>,
        plan: &Plan<'_>,
        ends: &Ends,
        now: i64,
    ) -> Result<Option<PageLink>> {
        let old = &ends.source.found;
        if !plan.whiteout {
            return dir::remove(tx, self.pool, plan.from_dir, ends.from.offset, old);
        }
        let node = Node {
            mode: S_IFCHR,
            rdev: 0,
            target: b"",
        };
        let target = self.pool.target_of(inode::record(plan.from_dir)?)?;
        let white = new_inode(tx, self.pool, cred, &ends.from, &node, target, now)?;
        dir::replace(tx, old, white, entry_type(node.mode))?;
        Ok(None)
    }

    /// Entry and subdirectory counts of both directories after a move.
    fn count(&self, tx: &mut Tx<'_>, plan: &Plan<'_>, ends: &Ends, now: i64) -> Result<()> {
        let dir = i32::from(is_dir(ends.source.guard.mode));
        let (replaced, replaced_dir) = match &ends.target {
            Some(target) => (1, i32::from(is_dir(target.guard.mode))),
            None => (0, 0),
        };
        let left = i32::from(plan.whiteout) - 1;
        if plan.from_dir == plan.to_dir {
            return ends
                .from
                .changed(tx, now, left + 1 - replaced, -replaced_dir);
        }
        ends.from.changed(tx, now, left, -dir)?;
        ends.to.changed(tx, now, 1 - replaced, dir - replaced_dir)
    }

    /// The inode whose name was taken loses it.
    fn displaced(&self, tx: &mut Tx<'_>, end: &End, now: i64, queue: bool) -> Result<Retired> {
        let nlink = if is_dir(end.guard.mode) {
            0
        } else {
            end.guard.nlink.saturating_sub(1)
        };
        if nlink != 0 {
            set_nlink(tx, end.offset, &end.guard, nlink, now)?;
            return Ok(Retired::Kept);
        }
        self.retire(tx, end.found.child(), end.offset, &end.guard, now, queue)
    }
}

/// Records where an inode's name lies now.
fn place(tx: &mut Tx<'_>, end: &End, dir: Ino, granule: u32, now: i64) -> Result<()> {
    tx.set(at(end.offset, word::PARENT), link_word(dir))?;
    if is_dir(end.guard.mode) {
        tx.set_volatile(at(end.offset, word::SEQUENCE), u64::from(granule))?;
    }
    tx.set(at(end.offset, word::CTIME), now as u64)
}

/// Rights, kinds and limits, in the order of Linux.
fn check_rights(cred: &Cred<'_>, plan: &Plan<'_>, ends: &Ends, tx: &Tx<'_>) -> Result<()> {
    let source = &ends.source.guard;
    let of_dir = is_dir(source.mode);
    check_delete(cred, &ends.from.guard, source, of_dir)?;
    if ends.to.guard.nlink == 0 {
        return Err(Errno::ENOENT);
    }
    match &ends.target {
        Some(target) => {
            let kind = if plan.exchange {
                is_dir(target.guard.mode)
            } else {
                of_dir
            };
            check_delete(cred, &ends.to.guard, &target.guard, kind)?;
        }
        None => perm::check(cred, &ends.to.guard, WRITE | EXECUTE)?,
    }
    let target_dir = ends
        .target
        .as_ref()
        .is_some_and(|end| is_dir(end.guard.mode));
    if plan.from_dir != plan.to_dir {
        if of_dir {
            perm::check(cred, source, WRITE)?;
        }
        if let (true, true, Some(target)) = (plan.exchange, target_dir, &ends.target) {
            perm::check(cred, &target.guard, WRITE)?;
        }
        let subdirs = low(tx.load(at(ends.to.offset, word::COUNTS))?);
        if of_dir && !target_dir && subdirs >= super::link::LINK_MAX - 2 {
            return Err(Errno::EMLINK);
        }
    }
    match &ends.target {
        Some(target) if target_dir && !plan.exchange => {
            let entries = high(tx.load(at(target.offset, word::COUNTS))?);
            if entries == 0 {
                Ok(())
            } else {
                Err(Errno::ENOTEMPTY)
            }
        }
        _ => Ok(()),
    }
}
