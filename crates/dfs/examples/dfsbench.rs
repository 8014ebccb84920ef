//! Times of namespace operations beside those of tmpfs by raw system calls in the same run:
//! `cargo run --release -p pil4dfs-dfs --example dfsbench`. Nanoseconds per operation, the best of
//! several rounds.

mod setup;

use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Dfs, DirCursor, How, Ino, Walk};
use engine::testing::TempPool;
use setup::{ROOT, container};
use std::ffi::CString;
use std::time::Instant;
use sys::syscall;

const FILES: usize = 20_000;
const ROUNDS: usize = 5;

fn time(ops: usize, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / ops as f64
}

fn names() -> Vec<String> {
    (0..FILES).map(|i| format!("file{i:07}")).collect()
}

fn walk(dfs: &Dfs, path: &[u8], buf: &mut [u8]) -> Ino {
    let how = How {
        follow: true,
        ..How::default()
    };
    match dfs.walk(&ROOT, dfs.root(), path, how, buf).expect("walk") {
        Walk::Here(place) => place.target.expect("exists"),
        Walk::Leave { .. } => unreachable!("inside"),
    }
}

fn ours(dfs: &Dfs) -> [f64; 6] {
    let mut buf = [0; 4096];
    let root = dfs.root();
    let a = dfs.mkdir(&ROOT, root, b"a", 0o755).expect("mkdir");
    let b = dfs.mkdir(&ROOT, a, b"b", 0o755).expect("mkdir");
    let dir = dfs.mkdir(&ROOT, b, b"c", 0o755).expect("mkdir");
    dfs.create(&ROOT, root, b"top", 0o644, true)
        .expect("create");
    let names = names();
    let create = time(FILES, || {
        for name in &names {
            dfs.create(&ROOT, dir, name.as_bytes(), 0o644, true)
                .expect("create");
        }
    });
    let stat = |path: &[u8], buf: &mut [u8]| {
        time(FILES, || {
            for _ in 0..FILES {
                let ino = walk(dfs, path, buf);
                std::hint::black_box(dfs.stat(ino).expect("stat"));
            }
        })
    };
    let stat1 = stat(b"top", &mut buf);
    let stat4 = stat(b"a/b/c/file0000007", &mut buf);
    let cold = time(FILES, || {
        for i in 0..FILES {
            let name = &names[i * 7919 % FILES];
            let ino = dfs.lookup(&ROOT, dir, name.as_bytes()).expect("lookup");
            std::hint::black_box(dfs.stat(ino).expect("stat"));
        }
    });
    let list = time(FILES, || {
        let mut count = 0;
        let mut cursor = DirCursor::default();
        dfs.getdents(dir, &mut cursor, &mut |entry| {
            count += entry.name.len();
            true
        })
        .expect("getdents");
        std::hint::black_box(count);
    });
    let unlink = time(FILES, || {
        for name in &names {
            dfs.unlink(&ROOT, dir, name.as_bytes()).expect("unlink");
        }
    });
    dfs.empty(root, &mut |_| ()).expect("empty");
    [stat1, stat4, cold, create, unlink, list]
}

const AT_FDCWD: isize = -100;

fn kernel(base: &str) -> [f64; 6] {
    let c = |path: String| CString::new(path).expect("path");
    std::fs::create_dir_all(format!("{base}/a/b/c")).expect("mkdir");
    std::fs::write(format!("{base}/top"), b"").expect("create");
    let paths: Vec<CString> = names()
        .iter()
        .map(|n| c(format!("{base}/a/b/c/{n}")))
        .collect();
    let create = time(FILES, || {
        for path in &paths {
            // SAFETY: a live C string.
            let fd = unsafe { syscall!(257, AT_FDCWD, path.as_ptr(), 0o301, 0o644) };
            // SAFETY: the descriptor was just opened.
            unsafe { syscall!(3, fd.expect("open")).expect("close") };
        }
    });
    let mut stat = [0u8; 256];
    let mut stat_of = |path: &CString| {
        // SAFETY: a live C string and a buffer longer than struct stat.
        unsafe { syscall!(262, AT_FDCWD, path.as_ptr(), stat.as_mut_ptr(), 0).expect("stat") };
    };
    let mut same = |path: CString| {
        time(FILES, || {
            for _ in 0..FILES {
                stat_of(&path);
            }
        })
    };
    let stat1 = same(c(format!("{base}/top")));
    let stat4 = same(c(format!("{base}/a/b/c/file0000007")));
    let cold = time(FILES, || {
        for i in 0..FILES {
            stat_of(&paths[i * 7919 % FILES]);
        }
    });
    let mut buf = vec![0u8; 32_768];
    let list = time(FILES, || {
        let dir = c(format!("{base}/a/b/c"));
        // SAFETY: live C string and buffer; the descriptor is this block's own.
        unsafe {
            let fd = syscall!(257, AT_FDCWD, dir.as_ptr(), 0o200000, 0).expect("open");
            while syscall!(217, fd, buf.as_mut_ptr(), buf.len()).expect("getdents64") > 0 {}
            syscall!(3, fd).expect("close");
        }
    });
    let unlink = time(FILES, || {
        for path in &paths {
            // SAFETY: a live C string.
            unsafe { syscall!(263, AT_FDCWD, path.as_ptr(), 0).expect("unlink") };
        }
    });
    std::fs::remove_dir_all(base).expect("clean");
    [stat1, stat4, cold, create, unlink, list]
}

fn main() {
    let pool = TempPool::new(20, 4096);
    let class = ObjectClass::new(Redundancy::Replicas(3), GROUPS_MAX).expect("class");
    let dfs = container(&pool, "bench", class, class);
    let base = format!("/dev/shm/dfsbench-{}", std::process::id());
    let (mut us, mut them) = ([f64::MAX; 6], [f64::MAX; 6]);
    for _ in 0..ROUNDS {
        for (best, new) in us.iter_mut().zip(ours(&dfs)) {
            *best = best.min(new);
        }
        for (best, new) in them.iter_mut().zip(kernel(&base)) {
            *best = best.min(new);
        }
    }
    let rows = [
        "stat, depth 1",
        "stat, depth 4",
        "stat, random",
        "create",
        "unlink",
        "list, per entry",
    ];
    println!(
        "{:16} {:>8} {:>8} {:>6}",
        "ns per operation", "ours", "tmpfs", "ratio"
    );
    for ((row, us), them) in rows.iter().zip(us).zip(them) {
        println!("{row:16} {us:8.0} {them:8.0} {:6.2}", us / them);
    }
}
