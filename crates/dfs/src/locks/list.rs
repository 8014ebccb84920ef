//! Lists of lock records.

use super::Target;
use crate::Ofd;
use crate::inode::{high, low, pair, word};
use engine::{Pool, Rec, Tx, kind};
use sys::{Errno, Result};

/// Bytes of a lock record.
const LOCK_BYTES: u64 = 64;
/// Longest list that is followed: a longer one is damage.
const LIST_MAX: usize = 1 << 20;
/// Words a transaction must have room for to take one more lock off.
const ROOM_MIN: usize = 64;

mod field {
    pub(super) const NEXT: u64 = 1;
    /// `kind of owner:32 | number:32`.
    pub(super) const OWNER: u64 = 2;
    pub(super) const START: u64 = 3;
    /// Last byte.
    pub(super) const END: u64 = 4;
    /// `exclusive:32 | process id:32`.
    pub(super) const MODE: u64 = 5;
}

/// Who owns a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// The process in this slot.
    Process(u32),
    /// An open file description.
    Description(Ofd),
}

impl Owner {
    fn word(self) -> u64 {
        match self {
            Owner::Process(slot) => pair(1, slot),
            Owner::Description(ofd) => pair(2, ofd.0),
        }
    }

    fn decode(word: u64) -> Owner {
        if high(word) == 1 {
            Owner::Process(low(word))
        } else {
            Owner::Description(Ofd(low(word)))
        }
    }
}

/// A lock as listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lock {
    pub(super) rec: Rec,
    pub(super) next: u64,
    pub(super) owner: Owner,
    pub(super) start: u64,
    /// Last byte.
    pub(super) end: u64,
    pub(super) write: bool,
    pub(super) pid: u32,
}

fn read(rec: Rec, load: impl Fn(u64) -> Result<u64>) -> Result<Lock> {
    let word = |field: u64| load(rec.offset() + field * 8);
    if engine::tag_kind(word(0)?) != kind::LOCK {
        return Err(Errno::EIO);
    }
    let mode = word(field::MODE)?;
    Ok(Lock {
        rec,
        next: word(field::NEXT)?,
        owner: Owner::decode(word(field::OWNER)?),
        start: word(field::START)?,
        end: word(field::END)?,
        write: high(mode) != 0,
        pid: low(mode),
    })
}

/// Calls `each(lock, offset of the word that links it)` until it returns `false`.
pub(super) fn for_each(
    head: u64,
    load: impl Fn(u64) -> Result<u64>,
    mut each: impl FnMut(&Lock, u64) -> Result<bool>,
) -> Result<()> {
    let mut link_at = head;
    for _ in 0..LIST_MAX {
        let rec = Rec(low(load(link_at)?));
        if rec.is_none() {
            return Ok(());
        }
        let lock = read(rec, &load)?;
        if !each(&lock, link_at)? {
            return Ok(());
        }
        link_at = rec.offset() + field::NEXT * 8;
    }
    Err(Errno::EIO)
}

/// The lock of somebody else, lowest start first, that keeps `owner` from locking a range.
pub(super) fn conflict(
    tx: &Tx<'_>,
    head: u64,
    owner: Owner,
    write: bool,
    start: u64,
    end: u64,
) -> Result<Option<Lock>> {
    let mut found: Option<Lock> = None;
    for_each(
        head,
        |at| tx.pool().load(at),
        |lock, _| {
            let overlaps = lock.start <= end && lock.end >= start;
            let conflicts = lock.owner != owner && overlaps && (write || lock.write);
            if conflicts && found.is_none_or(|best| lock.start < best.start) {
                found = Some(*lock);
            }
            Ok(true)
        },
    )?;
    Ok(found)
}

/// Whether `owner` has a lock in the list.
pub(super) fn any(pool: &Pool, head: u64, owner: Owner) -> Result<bool> {
    let mut found = false;
    for_each(
        head,
        |at| pool.load(at),
        |lock, _| {
            found = lock.owner == owner;
            Ok(!found)
        },
    )?;
    Ok(found)
}

/// Whether `owner` has the whole file locked, and how.
pub(super) fn held_whole(target: &Target<'_>, owner: Owner) -> Result<Option<bool>> {
    let _held = target.tx()?;
    let mut found = None;
    for_each(
        target.head(word::FLOCKS),
        |at| target.pool.load(at),
        |lock, _| {
            if lock.owner == owner {
                found = Some(lock.write);
            }
            Ok(found.is_none())
        },
    )?;
    Ok(found)
}

/// Puts a lock at the head of a list. The counter in the upper half of a head stays.
pub(super) fn add(
    tx: &mut Tx<'_>,
    target: &Target<'_>,
    list: u64,
    owner: Owner,
    (start, end): (u64, u64),
    write: bool,
) -> Result<()> {
    let rec = tx
        .alloc(kind::LOCK, LOCK_BYTES, target.domain, 0)
        .map_err(|_| Errno::ENOLCK)?;
    let head = tx.load(target.head(list))?;
    let pid = match owner {
        Owner::Process(slot) => engine::process::pid(target.pool, slot)?,
        Owner::Description(_) => 0,
    };
    let mode = pair(u32::from(write), pid);
    let words = [u64::from(low(head)), owner.word(), start, end, mode, 0, 0];
    tx.put_volatile(rec.offset() + 8, &words)?;
    tx.set_volatile(target.head(list), pair(high(head), rec.0))
}

/// Takes a lock off the list; `link_at` is the word that links it.
pub(super) fn remove(tx: &mut Tx<'_>, lock: &Lock, link_at: u64) -> Result<()> {
    let link = tx.load(link_at)?;
    tx.set_volatile(link_at, pair(high(link), low(lock.next)))?;
    tx.free(lock.rec)
}

/// Counts a change for those who wait.
pub(super) fn count_change(tx: &mut Tx<'_>, target: &Target<'_>) -> Result<()> {
    let at = target.head(word::FLOCKS);
    let head = tx.load(at)?;
    tx.set_volatile(at, pair(high(head).wrapping_add(1), low(head)))
}

/// Takes all locks of `owner` off a list, as many as the transaction has room for: whether there
/// were any, and whether there may be more.
pub(super) fn remove_all(
    tx: &mut Tx<'_>,
    target: &Target<'_>,
    list: u64,
    owner: Owner,
) -> Result<(bool, bool)> {
    let mut removed = false;
    loop {
        if tx.room() < ROOM_MIN {
            return Ok((removed, true));
        }
        let mut found = None;
        for_each(
            target.head(list),
            |at| tx.load(at),
            |lock, link_at| {
                if lock.owner == owner {
                    found = Some((*lock, link_at));
                }
                Ok(found.is_none())
            },
        )?;
        let Some((lock, link_at)) = found else {
            return Ok((removed, false));
        };
        remove(tx, &lock, link_at)?;
        if !removed {
            count_change(tx, target)?;
        }
        removed = true;
    }
}
