//! Block maps of files: every block exists, belongs to one place, and its copies are the same.

use super::{Checked, Problem};
use crate::Ino;
use crate::inode::word;
use crate::map::file::File;
use engine::{BLOCK, BlockPtr, Pool};
use sys::{Errno, Result};

/// Blocks that were found in a map, a bit each, by rank.
pub(super) struct Claims<'p> {
    pool: &'p Pool,
    ranks: Vec<Vec<u64>>,
}

impl<'p> Claims<'p> {
    pub(super) fn new(pool: &'p Pool) -> Claims<'p> {
        Claims {
            pool,
            ranks: vec![Vec::new(); usize::from(pool.rank_count())],
        }
    }

    /// Notes a block; `Some(false)` if it was noted before, `None` if there is no such block.
    fn claim(&mut self, pointer: BlockPtr) -> Result<Option<bool>> {
        let (rank, block) = (pointer.rank(), pointer.block());
        let Some(bits) = self.ranks.get_mut(usize::from(rank)) else {
            return Ok(None);
        };
        if block >= self.pool.rank_blocks(rank)? {
            return Ok(None);
        }
        let index = (block / 64) as usize;
        if bits.len() <= index {
            bits.resize(index + 1, 0);
        }
        let (word, bit) = (&mut bits[index], 1 << (block % 64));
        let new = *word & bit == 0;
        *word |= bit;
        Ok(Some(new))
    }
}

/// Checks the map of one file.
pub(super) fn check(
    pool: &Pool,
    ino: Ino,
    copies: bool,
    claims: &mut Claims<'_>,
    checked: &mut Checked,
) -> Result<()> {
    let done = File::open(pool, ino).and_then(|file| walk(&file, copies, claims, checked));
    match done {
        Err(Errno::EIO | Errno::ESTALE) => {
            let what = String::from("the map cannot be followed");
            checked.problems.push(Problem::Map { ino, what });
            Ok(())
        }
        other => other,
    }
}

/// Blocks, of one copy, that a file has.
pub(super) fn count(file: &File<'_>) -> Result<u64> {
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

fn walk(
    file: &File<'_>,
    copies: bool,
    claims: &mut Claims<'_>,
    checked: &mut Checked,
) -> Result<()> {
    let mut found = 0;
    let mut block = 0u64;
    loop {
        let spot = file.find(block)?;
        if let Some(at) = spot.at {
            for index in 0..spot.run {
                let pointers = file.pointers(file.nth(at, index))?;
                let pointers = pointers.get(..file.geo.copies).ok_or(Errno::EIO)?;
                if pointers.iter().all(|pointer| pointer.is_hole()) {
                    continue;
                }
                found += 1;
                note(file, pointers, block + index, claims, checked)?;
                if copies {
                    compare(file, pointers, block + index, checked)?;
                }
            }
        }
        block = match block.checked_add(spot.run) {
            Some(next) if next < u64::MAX => next,
            _ => break,
        };
    }
    let counted = file.load(word::BLOCKS)?;
    if found != counted {
        let ino = file.ino;
        checked.problems.push(Problem::Blocks {
            ino,
            found,
            counted,
        });
    }
    Ok(())
}

/// Notes the copies of a block.
fn note(
    file: &File<'_>,
    pointers: &[BlockPtr],
    block: u64,
    claims: &mut Claims<'_>,
    checked: &mut Checked,
) -> Result<()> {
    let ino = file.ino;
    for pointer in pointers.iter().filter(|pointer| !pointer.is_hole()) {
        match claims.claim(*pointer)? {
            Some(true) => {}
            Some(false) => checked.problems.push(Problem::Shared {
                ino,
                rank: pointer.rank(),
                block: pointer.block(),
            }),
            None => checked.problems.push(Problem::Map {
                ino,
                what: format!(
                    "block {block} lies at {} of rank {}, which is not there",
                    pointer.block(),
                    pointer.rank()
                ),
            }),
        }
    }
    if pointers.iter().any(|pointer| pointer.is_hole()) {
        let what = format!("block {block} lacks a copy");
        checked.problems.push(Problem::Map { ino, what });
    }
    Ok(())
}

/// Reads the copies of a block and compares them with the first.
fn compare(
    file: &File<'_>,
    pointers: &[BlockPtr],
    block: u64,
    checked: &mut Checked,
) -> Result<()> {
    let mut first: Option<(u16, Vec<u8>)> = None;
    for pointer in pointers {
        if pointer.is_hole() || pointer.is_unwritten() {
            continue;
        }
        let mut bytes = vec![0; BLOCK as usize];
        // SAFETY: the buffer is exclusively ours.
        let read = unsafe {
            file.pool.read_blocks(
                pointer.rank(),
                pointer.block(),
                0,
                bytes.as_mut_ptr(),
                bytes.len(),
            )
        };
        if read.is_err() {
            checked.unreadable += 1;
            continue;
        }
        match &first {
            None => first = Some((pointer.rank(), bytes)),
            Some((rank, known)) if *known != bytes => checked.problems.push(Problem::Copies {
                ino: file.ino,
                block,
                ranks: (pointer.rank(), *rank),
            }),
            Some(_) => {}
        }
    }
    checked.compared += 1;
    Ok(())
}
