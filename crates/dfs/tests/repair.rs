//! What a check finds in a container that somebody has damaged, and what repair makes of it.

mod common;

use common::{Container, ROOT, list, walk};
use dfs::{Dfs, Ino, IoVec, Leaks, Problem};
use engine::{BLOCK, BlockPtr, Rec};
use std::sync::atomic::Ordering;

/// Numbers of the inode's words, as FORMAT.md has them.
const MODE: u64 = 1;
const BLOCKS: u64 = 9;
const DATA: u64 = 10;
const PARENT: u64 = 11;
const COUNTS: u64 = 12;

fn word_of(ino: Ino, word: u64) -> u64 {
    Rec(ino.number as u32).offset() + word * 8
}

/// Changes a word of the arena behind everybody's back.
fn change(dfs: &Dfs, offset: u64, to: impl FnOnce(u64) -> u64) {
    let word = dfs.pool().word(offset).expect("word");
    word.store(to(word.load(Ordering::SeqCst)), Ordering::SeqCst);
}

/// Offset of the word by which the first chunk of a directory leads to `child`.
fn entry_of(dfs: &Dfs, dir: Ino, child: Ino) -> u64 {
    let chunk = dfs.pool().load(word_of(dir, DATA)).expect("first chunk");
    let base = Rec(chunk as u32).offset();
    let wanted = child.number << 32 | u64::from(child.generation);
    (0..128)
        .map(|i| base + i * 8)
        .find(|at| dfs.pool().load(*at) == Ok(wanted))
        .expect("the entry")
}

fn file(dfs: &Dfs, dir: Ino, name: &str, bytes: usize) -> Ino {
    let (ino, _) = dfs
        .create(&ROOT, dir, name.as_bytes(), 0o644, true)
        .expect("create");
    let ofd = dfs.open(&ROOT, ino, 1).expect("open");
    let mut data = vec![b'd'; bytes];
    let iov = [IoVec {
        base: data.as_mut_ptr(),
        len: data.len(),
    }];
    // SAFETY: the buffer is only read.
    assert_eq!(unsafe { dfs.write(ofd, &iov) }, Ok(bytes));
    dfs.ofd_release(ofd).expect("close");
    ino
}

fn found(dfs: &Dfs) -> Vec<Problem> {
    dfs.check_with(true, &mut |_| ()).expect("check").problems
}

/// Repairs what is found and expects nothing to be left.
fn repaired(dfs: &Dfs, problems: &[Problem], leaks: Leaks) {
    let mended = dfs.repair(problems, leaks).expect("repair");
    assert_eq!(mended, problems.len() as u64);
    assert_eq!(found(dfs), []);
}

#[test]
fn counts_are_counted_anew() {
    let container = Container::new();
    let (dfs, root) = (&container.dfs, container.dfs.root());
    let ino = file(dfs, root, "f", 10_000);
    let dir = dfs.mkdir(&ROOT, root, b"d", 0o755).expect("mkdir");
    change(dfs, word_of(ino, MODE), |mode| mode + 6);
    change(dfs, word_of(ino, BLOCKS), |_| 99);
    change(dfs, word_of(root, COUNTS), |_| 5 << 32 | 4);
    change(dfs, word_of(dir, PARENT), |_| {
        u64::from(ino.generation) << 32 | ino.number
    });
    let problems = found(dfs);
    let (names, links) = (1, 7);
    assert!(problems.contains(&Problem::Links { ino, names, links }));
    assert!(problems.contains(&Problem::Blocks {
        ino,
        found: 3,
        counted: 99
    }));
    assert!(problems.contains(&Problem::Counts {
        dir: root,
        found: (2, 1),
        counted: (5, 4)
    }));
    assert!(problems.contains(&Problem::Misplaced {
        dir: root,
        name: b"d".to_vec(),
        child: dir
    }));
    assert_eq!(problems.len(), 4, "{problems:?}");
    repaired(dfs, &problems, Leaks::Keep);
    assert_eq!(dfs.stat(ino).expect("stat").nlink, 1);
    assert_eq!(dfs.stat(root).expect("stat").nlink, 3);
}

#[test]
fn a_lost_tree_is_found_again_or_removed() {
    for relink in [true, false] {
        let container = Container::new();
        let (dfs, root) = (&container.dfs, container.dfs.root());
        let tree = dfs.mkdir(&ROOT, root, b"tree", 0o755).expect("mkdir");
        let sub = dfs.mkdir(&ROOT, tree, b"sub", 0o755).expect("mkdir");
        file(dfs, sub, "deep", 5000);
        let kept = file(dfs, root, "kept", 100);
        // The entry leads to a later use of the record, which does not exist.
        change(dfs, entry_of(dfs, root, tree), |child| child + 1);
        let problems = found(dfs);
        assert!(problems.contains(&Problem::Leaked {
            ino: tree,
            inodes: 3
        }));
        assert!(problems.contains(&Problem::Dangling {
            dir: root,
            name: b"tree".to_vec()
        }));
        let lost = dfs.mkdir(&ROOT, root, b"lost+found", 0o700).expect("mkdir");
        let problems = found(dfs);
        let leaks = if relink {
            Leaks::Relink { to: lost }
        } else {
            Leaks::Remove { by: lost }
        };
        dfs.repair(&problems, leaks).expect("repair");
        assert_eq!(found(dfs), []);
        assert_eq!(
            list(dfs, root),
            Ok(vec!["kept".into(), "lost+found".into()])
        );
        assert_eq!(dfs.stat(kept).expect("stat").size, 100);
        let name = format!("{}.{}", tree.number, tree.generation);
        if relink {
            let path = format!("lost+found/{name}/sub/deep");
            let place = walk(dfs, &ROOT, &path, false).expect("walk");
            let size = dfs.stat(place.expect("the file")).expect("stat").size;
            assert_eq!(size, 5000);
        } else {
            assert_eq!(list(dfs, lost), Ok(vec![]));
        }
    }
}

#[test]
fn entries_say_what_they_lead_to() {
    let container = Container::new();
    let (dfs, root) = (&container.dfs, container.dfs.root());
    let ino = file(dfs, root, "f", 0);
    // A regular file becomes a fifo.
    change(dfs, word_of(ino, MODE), |mode| {
        mode & !(0o170_000 << 32) | 0o010_000 << 32
    });
    let problems = found(dfs);
    let name = b"f".to_vec();
    assert_eq!(problems, [Problem::Mistyped { dir: root, name }]);
    repaired(dfs, &problems, Leaks::Keep);
}

#[test]
fn a_directory_finds_again_what_it_lists() {
    let container = Container::new();
    let (dfs, root) = (&container.dfs, container.dfs.root());
    for i in 0..200 {
        file(dfs, root, &format!("name {i}"), 0);
    }
    // The hash table's slots, but not the table, are wiped.
    const TABLE: u64 = 25;
    let table = dfs.pool().load(word_of(root, TABLE)).expect("table");
    let base = engine::PageLink(table & 0xffff_ffff).offset();
    for slot in 0..1 << (table >> 48) {
        change(dfs, base + slot * 8, |_| 0);
    }
    let problems = found(dfs);
    let hidden = |problem: &&Problem| matches!(problem, Problem::Hidden { .. });
    assert!(problems.iter().filter(hidden).count() > 100, "{problems:?}");
    dfs.repair(&problems, Leaks::Keep).expect("repair");
    assert_eq!(found(dfs), []);
    assert!(dfs.lookup(&ROOT, root, b"name 199").is_ok());
}

#[test]
fn blocks_used_twice_and_copies_that_differ_are_reported() {
    let container = Container::new();
    let (dfs, root) = (&container.dfs, container.dfs.root());
    let (one, two) = (file(dfs, root, "one", 4096), file(dfs, root, "two", 4096));
    let pointers = |ino| {
        let map = dfs.pool().load(word_of(ino, DATA)).expect("map");
        Rec(map as u32).offset() + 8
    };
    let known = dfs.pool().load(pointers(two)).expect("pointer");
    let taken = BlockPtr(dfs.pool().load(pointers(one) + 8).expect("pointer"));
    // The second copy of the first file gets other bytes.
    let byte = [b'x'];
    // SAFETY: the source is a byte of ours; the block belongs to the test's file.
    unsafe {
        dfs.pool()
            .write_blocks(taken.rank(), taken.block(), 7, byte.as_ptr(), 1)
    }
    .expect("write");
    let problems = found(dfs);
    let copies = |problem: &Problem| {
        matches!(problem, Problem::Copies { ino, block: 0, ranks: (differs, _) }
            if *ino == one && *differs == taken.rank())
    };
    assert!(problems.len() == 1 && copies(&problems[0]), "{problems:?}");
    // Then both files claim one block.
    change(dfs, pointers(two), |_| taken.0);
    let problems = found(dfs);
    let shared = |problem: &Problem| {
        matches!(problem, Problem::Shared { rank, block, .. }
            if (*rank, *block) == (taken.rank(), taken.block()))
    };
    assert!(problems.iter().any(shared), "{problems:?}");
    change(dfs, pointers(two), |_| 1 << 63 | 0x3_ffff_ffff);
    let problems = found(dfs);
    let outside = |problem: &Problem| matches!(problem, Problem::Map { ino, .. } if *ino == two);
    assert!(problems.iter().any(outside), "{problems:?}");
    // Nothing of it is for a program to judge.
    assert_eq!(dfs.repair(&problems, Leaks::Keep), Ok(0));
    change(dfs, pointers(two), |_| known);
    assert_eq!(dfs.stat(one).expect("stat").blocks, BLOCK / 512);
}
