//! A damaged pool gives errors, never a panic and never an endless loop.

mod common;

use common::{Container, ROOT};
use dfs::{Dfs, DirCursor, How, Ino};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

/// Everything that reads, and some of what writes, ignoring every error.
fn use_it(dfs: &Dfs, dirs: &[Ino], files: &[Ino], round: u64) {
    let mut buf = [0; 8192];
    for dir in dirs {
        let mut left = 100_000;
        dfs.getdents(*dir, &mut DirCursor::default(), &mut |_| {
            left -= 1;
            left > 0
        })
        .ok();
        for i in 0..40 {
            let name = format!("name{i}");
            dfs.lookup(&ROOT, *dir, name.as_bytes()).ok();
            dfs.walk(&ROOT, *dir, b"link/name1/../x", How::default(), &mut buf)
                .ok();
            if i as u64 % 8 == round % 8 {
                dfs.unlink(&ROOT, *dir, name.as_bytes()).ok();
                dfs.create(&ROOT, *dir, name.as_bytes(), 0o600, false).ok();
                dfs.rename(&ROOT, *dir, name.as_bytes(), dirs[0], b"moved", 0)
                    .ok();
            }
        }
        dfs.path_of(*dir, &mut buf).ok();
    }
    for file in files {
        dfs.stat(*file).ok();
        dfs.readlink(*file, &mut buf).ok();
        dfs.getxattr(&ROOT, *file, b"user.b", &mut buf).ok();
        dfs.listxattr(&ROOT, *file, &mut buf).ok();
        dfs.setxattr(&ROOT, *file, b"user.a", &buf[..100], 0).ok();
        dfs.chmod(&ROOT, *file, 0o600).ok();
    }
}

/// Ruins the container: random words of its records get random or tempting values.
fn ruin(container: Container) {
    let dfs = &container.dfs;
    let mut state = 0x1234_5678_9abc_def0u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..1500 {
        let root = dfs.root();
        let top = dfs.mkdir(&ROOT, root, format!("t{round}").as_bytes(), 0o755);
        let Ok(top) = top else { break };
        let sub = dfs.mkdir(&ROOT, top, b"sub", 0o755).expect("mkdir");
        let mut files = vec![top, sub];
        files.push(
            dfs.symlink(&ROOT, &[b'l'; 300], top, b"link")
                .expect("symlink"),
        );
        for i in 0..next() % 200 {
            let name = format!("name{i}");
            files.push(
                dfs.create(&ROOT, top, name.as_bytes(), 0o600, true)
                    .expect("create")
                    .0,
            );
        }
        dfs.setxattr(&ROOT, files[2 % files.len()], b"user.b", &[7; 2000], 0)
            .ok();
        dfs.setxattr(&ROOT, top, b"user.b", &[7; 5000], 0)
            .expect("setxattr");
        dfs.create(&ROOT, sub, b"name1", 0o600, true)
            .expect("create");
        for _ in 0..1 + next() % 4 {
            let ino = files[(next() % files.len() as u64) as usize];
            // The record itself, or whatever lies near it.
            let near = engine::Rec(ino.number as u32).offset() & !0xfff;
            let word = if next() % 2 == 0 { 32 } else { 512 * 6 };
            let base = if word == 32 {
                engine::Rec(ino.number as u32).offset()
            } else {
                near
            };
            let offset = base + next() % word * 8;
            let Ok(place) = dfs.pool().word(offset) else {
                continue;
            };
            let old = place.load(Ordering::Relaxed);
            let value = match next() % 5 {
                0 => next(),
                1 => old ^ 1 << (next() % 64),
                2 => u64::MAX,
                3 => old.wrapping_add(1),
                _ => top.number << 32 | u64::from(top.generation),
            };
            place.store(value, Ordering::Relaxed);
        }
        use_it(dfs, &[top, sub], &files, round);
    }
    // Nothing of it can be taken down in good order.
    std::mem::forget(container);
}

#[test]
fn damage_is_an_error_and_nothing_worse() {
    let container = Container::new();
    let (done, finished) = mpsc::channel();
    let work = std::thread::spawn(move || {
        ruin(container);
        done.send(()).ok();
    });
    let in_time = finished.recv_timeout(Duration::from_secs(120));
    assert!(
        in_time != Err(mpsc::RecvTimeoutError::Timeout),
        "an endless loop"
    );
    work.join().expect("no panic");
}

/// A directory whose number of entries is damaged gets no table of gigabytes.
#[test]
fn a_number_of_entries_that_cannot_be_takes_no_memory() {
    let temp = engine::testing::TempPool::new(3, 64);
    let pool = temp.pool;
    let info = Container::in_pool(pool, "c");
    let dfs = Dfs::mount(pool, &info).expect("mount");
    let dir = dfs.mkdir(&ROOT, dfs.root(), b"d", 0o755).expect("mkdir");
    let create = |i: u32| {
        let name = format!("name{i}");
        dfs.create(&ROOT, dir, name.as_bytes(), 0o600, true)
    };
    for i in 0..37 {
        create(i).expect("create");
    }
    let inode = engine::Rec(dir.number as u32).offset();
    let counts: Vec<_> = (0..32)
        .filter_map(|i| pool.word(inode + i * 8).ok())
        .filter(|word| word.load(Ordering::Relaxed) >> 32 == 37)
        .collect();
    assert!(!counts.is_empty());
    for word in counts {
        word.store(0x0080_0000_u64 << 32 | 37, Ordering::Relaxed);
    }
    // The table is made anew when it has filled up.
    for i in 37..2000 {
        create(i).ok();
    }
    let arena = std::fs::metadata(pool.arena_path()).expect("arena");
    let bytes = std::os::unix::fs::MetadataExt::blocks(&arena) * 512;
    assert!(bytes < 64 << 20, "{bytes} bytes of shared memory");
}
