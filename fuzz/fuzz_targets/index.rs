#![no_main]
//! Directories, inodes, maps and attributes in memory with words changed as the input says: each
//! change is a word's number within the pages of the records, how to change it, and a value.

use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Cred, Dfs, DirCursor, Ino};
use engine::ContainerInfo;
use engine::testing::TempPool;
use engine::testing::fuzz::Kept;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;

const ROOT: Cred<'static> = Cred {
    uid: 0,
    gid: 0,
    groups: &[],
    privileged: true,
    umask: 0,
};
/// A container, and what the arena holds before each input: ruined directories cannot be taken down.
static PLACE: LazyLock<(TempPool, Dfs, Kept)> = LazyLock::new(|| {
    let temp = TempPool::new_in(Path::new("/dev/shm"), 4, 4096);
    let class = ObjectClass::new(Redundancy::Replicas(3), GROUPS_MAX).expect("class");
    let spec = ContainerInfo {
        uuid: uuid::Uuid::new_v4(),
        label: "fuzz".into(),
        index: 0,
        root: (0, 0),
        file_class: class.id(),
        dir_class: class.id(),
        chunk_size: 1 << 20,
        blob: Vec::new(),
    };
    let mut info = temp.pool.create_container(&spec).expect("container");
    let root = Dfs::make_root(temp.pool, &info, 0, 0, 0o755).expect("root");
    info.root = (root.number, root.generation);
    temp.pool.update_container(&info).expect("root recorded");
    let dfs = Dfs::mount(temp.pool, &info).expect("mount");
    // The thread takes what it keeps between inputs.
    let made = dfs
        .mkdir(&ROOT, dfs.root(), b"first", 0o755)
        .expect("mkdir");
    fill(&dfs, made);
    let kept = Kept::of(temp.pool);
    (temp, dfs, kept)
});

fn fill(dfs: &Dfs, top: Ino) -> Vec<Ino> {
    let mut made = vec![top];
    made.extend(dfs.mkdir(&ROOT, top, b"sub", 0o755));
    made.extend(dfs.symlink(&ROOT, &[b'l'; 300], top, b"link"));
    for i in 0..30 {
        made.extend(
            dfs.create(&ROOT, top, format!("name{i}").as_bytes(), 0o600, true)
                .map(|(ino, _)| ino),
        );
    }
    drop(
        dfs.setxattr(&ROOT, made[3 % made.len()], b"user.b", &[7; 2000], 0)
            .is_ok(),
    );
    made
}

fn use_it(dfs: &Dfs, made: &[Ino]) -> usize {
    let mut buffer = [0; 8192];
    let mut fine = 0;
    for &ino in made {
        let mut left = 10_000;
        fine += usize::from(
            dfs.getdents(ino, &mut DirCursor::default(), &mut |_| {
                left -= 1;
                left > 0
            })
            .is_ok(),
        );
        for name in [b"name1".as_slice(), b"name7", b"sub", b"link"] {
            fine += usize::from(dfs.lookup(&ROOT, ino, name).is_ok());
        }
        fine += usize::from(dfs.path_of(ino, &mut buffer).is_ok());
        fine += usize::from(dfs.stat(ino).is_ok());
        fine += usize::from(dfs.readlink(ino, &mut buffer).is_ok());
        fine += usize::from(dfs.getxattr(&ROOT, ino, b"user.b", &mut buffer).is_ok());
        fine += usize::from(dfs.listxattr(&ROOT, ino, &mut buffer).is_ok());
        fine += usize::from(dfs.truncate(&ROOT, ino, 5000).is_ok());
    }
    for name in [b"name1".as_slice(), b"name7", b"sub"] {
        fine += usize::from(
            dfs.rename(&ROOT, made[0], name, made[0], b"moved", 0)
                .is_ok(),
        );
        fine += usize::from(dfs.unlink(&ROOT, made[0], b"moved").is_ok());
        fine += usize::from(dfs.create(&ROOT, made[0], name, 0o600, false).is_ok());
    }
    fine
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (temp, dfs, kept) = &*PLACE;
    kept.restore(temp.pool);
    let top = dfs.mkdir(&ROOT, dfs.root(), b"top", 0o755).expect("mkdir");
    let made = fill(dfs, top);
    for change in input.as_chunks::<12>().0 {
        let ino = made[usize::from(change[0]) % made.len()];
        let record = engine::Rec(ino.number as u32).offset();
        // The record itself, or what lies near it.
        let near = u64::from(change[2]) * 256 + u64::from(change[3]);
        let offset = match change[1] & 0x80 {
            0 => record + u64::from(change[2]) % 32 * 8,
            _ => (record & !0xfff) + near % (512 * 6) * 8,
        };
        let Ok(place) = dfs.pool().word(offset) else {
            continue;
        };
        let old = place.load(Ordering::Relaxed);
        let value = u64::from_le_bytes(change[4..12].try_into().expect("eight bytes"));
        let changed = match change[1] & 3 {
            0 => value,
            1 => old ^ 1 << (value % 64),
            2 => old.wrapping_add(1),
            _ => top.number << 32 | u64::from(top.generation),
        };
        place.store(changed, Ordering::Relaxed);
    }
    std::hint::black_box(use_it(dfs, &made));
});
