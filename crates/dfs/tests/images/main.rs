//! Pools that earlier software has written open and hold what they held.
//!
//! `cargo xtask image` adds one of the format of now; it is only done when the format has changed.

#[path = "../common/mod.rs"]
mod common;

use common::{Container, ROOT, list};
use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Dfs, Ino, IoVec};
use engine::Pool;
use engine::testing::{self, TempPool};
use std::path::{Path, PathBuf};
use std::process::Command;

const RANKS: usize = 4;
const SIZE_MIB: u64 = 48;
const FILES: [usize; 6] = [0, 1, 100, 4096, 10_000, 300_000];

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images")
}

fn classes() -> [(&'static str, Redundancy, u16); 3] {
    [
        ("plain", Redundancy::Replicas(1), GROUPS_MAX),
        ("two", Redundancy::Replicas(2), 1),
        ("three", Redundancy::Replicas(3), GROUPS_MAX),
    ]
}

fn content(len: usize) -> Vec<u8> {
    let words =
        (0..len as u64 / 8 + 1).flat_map(|word| ((word / 512) << 20 | len as u64).to_le_bytes());
    words.take(len).collect()
}

fn store(dfs: &Dfs, dir: Ino, name: &str, pos: i64, bytes: &[u8]) {
    let made = dfs.create(&ROOT, dir, name.as_bytes(), 0o640, true);
    let ofd = dfs.open(&ROOT, made.expect("create").0, 2).expect("open");
    let iov = [IoVec {
        base: bytes.as_ptr().cast_mut(),
        len: bytes.len(),
    }];
    // SAFETY: the buffer is only read.
    let wrote = unsafe { dfs.pwrite(ofd, &iov, pos, false) };
    assert_eq!(wrote, Ok(bytes.len()));
    dfs.ofd_release(ofd).expect("release");
}

fn load(dfs: &Dfs, dir: Ino, name: &str) -> Vec<u8> {
    let ino = dfs.lookup(&ROOT, dir, name.as_bytes()).expect(name);
    let mut bytes = vec![0; dfs.stat(ino).expect("stat").size as usize];
    let ofd = dfs.open(&ROOT, ino, 0).expect("open");
    let iov = [IoVec {
        base: bytes.as_mut_ptr(),
        len: bytes.len(),
    }];
    // SAFETY: the buffer is exclusively ours.
    let read = unsafe { dfs.pread(ofd, &iov, 0) };
    assert_eq!(read, Ok(bytes.len()));
    dfs.ofd_release(ofd).expect("release");
    bytes
}

/// One half before a checkpoint, one behind it.
fn fill(pool: &'static Pool) {
    for (label, redundancy, groups) in classes() {
        let class = ObjectClass::new(redundancy, groups).expect("class");
        let info = Container::of_class(pool, label, class.id());
        let dfs = Dfs::mount(pool, &info).expect("mount");
        for half in ["first", "second"] {
            let made = dfs.mkdir(&ROOT, dfs.root(), half.as_bytes(), 0o751);
            let dir = made.expect("mkdir");
            for len in FILES {
                store(&dfs, dir, &format!("f{len}"), 0, &content(len));
            }
            store(&dfs, dir, "sparse", 5 << 20, b"end");
            for name in 0..40 {
                store(&dfs, dir, &format!("many{name}"), 0, b"");
            }
            dfs.symlink(&ROOT, b"f100", dir, b"short").expect("symlink");
            dfs.symlink(&ROOT, &[b'l'; 300], dir, b"long")
                .expect("symlink");
            let file = dfs.lookup(&ROOT, dir, b"f100").expect("f100");
            dfs.link(&ROOT, file, dir, b"linked").expect("link");
            dfs.setxattr(&ROOT, file, b"user.x", &[7; 500], 0)
                .expect("setxattr");
            dfs.unlink(&ROOT, dir, b"many7").expect("unlink");
            if half == "first" {
                pool.checkpoint().expect("checkpoint");
            }
        }
    }
    pool.sync().expect("sync");
}

fn compare(pool: &'static Pool) {
    testing::audit(pool);
    testing::audit_blocks(pool);
    for (label, ..) in classes() {
        let info = pool.find_container(label).expect("container");
        let dfs = Dfs::mount(pool, &info).expect("mount");
        let checked = dfs.check_with(true, &mut |_| ()).expect("check");
        assert_eq!(checked.problems, []);
        for half in ["first", "second"] {
            let dir = dfs.lookup(&ROOT, dfs.root(), half.as_bytes());
            let dir = dir.expect("directory");
            assert_eq!(dfs.stat(dir).expect("stat").mode, 0o040751);
            let names = list(&dfs, dir).expect("list");
            assert_eq!(names.len(), FILES.len() + 1 + 39 + 3);
            for len in FILES {
                let found = load(&dfs, dir, &format!("f{len}"));
                assert!(found == content(len), "{label}/{half}/f{len}");
            }
            let mut sparse = vec![0; 5 << 20];
            sparse.extend_from_slice(b"end");
            assert!(load(&dfs, dir, "sparse") == sparse, "{label}/{half}/sparse");
            let mut buf = [0; 4096];
            let long = dfs.lookup(&ROOT, dir, b"long").expect("long");
            let len = dfs.readlink(long, &mut buf).expect("readlink");
            assert_eq!(buf[..len], [b'l'; 300]);
            let file = dfs.lookup(&ROOT, dir, b"linked").expect("linked");
            assert_eq!(dfs.stat(file).expect("stat").nlink, 2);
            let len = dfs.getxattr(&ROOT, file, b"user.x", &mut buf);
            assert_eq!(buf[..len.expect("getxattr")], [7; 500]);
        }
    }
    pool.leave().expect("leave");
}

fn tar(args: &[&std::ffi::OsStr]) {
    let status = Command::new("tar").args(args).status().expect("tar");
    assert!(status.success());
}

/// Writes an image of now to the directory that the variable names.
#[test]
fn make() {
    let Ok(to) = std::env::var("PIL4DFS_IMAGE_TO") else {
        return;
    };
    let temp = TempPool::with_log(Path::new("/dev/shm"), RANKS, SIZE_MIB, 1 << 20);
    fill(temp.pool);
    let dir = temp.pool.spec().ranks[0].parent().expect("directory");
    let name = dir.file_name().expect("name");
    let parent = dir.parent().expect("parent");
    let file = Path::new(&to).join(format!("{}.tar.gz", name.to_string_lossy()));
    tar(&[
        "--owner=0".as_ref(),
        "--group=0".as_ref(),
        "-czSf".as_ref(),
        file.as_ref(),
        "-C".as_ref(),
        parent.as_ref(),
        name,
    ]);
}

#[test]
fn old_pools_open() {
    let mut seen = 0;
    for entry in std::fs::read_dir(images()).expect("images") {
        let path = entry.expect("image").path();
        let name = path
            .file_name()
            .expect("name")
            .to_string_lossy()
            .into_owned();
        let Some(name) = name.strip_suffix(".tar.gz") else {
            continue;
        };
        let base = PathBuf::from(format!("/dev/shm/pil4dfs-old-{}", std::process::id()));
        std::fs::create_dir_all(&base).expect("directory");
        tar(&[
            "--no-same-owner".as_ref(),
            "-xzf".as_ref(),
            path.as_ref(),
            "-C".as_ref(),
            base.as_ref(),
        ]);
        let dir = base.join(name);
        let ranks: Vec<PathBuf> = (0..RANKS)
            .map(|r| dir.join(format!("rank{r:02}")))
            .collect();
        let spec = TempPool::spec_of_ranks(&ranks, SIZE_MIB);
        for _ in 0..2 {
            compare(testing::open_image(&dir, &spec).expect(name));
        }
        std::fs::remove_dir_all(&base).expect("directory");
        seen += 1;
    }
    assert!(seen > 0);
}
