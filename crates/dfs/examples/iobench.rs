//! Times of the data path beside the same work on tmpfs, in one run: medians of five.

mod setup;

use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Dfs, IoVec, Ofd};
use engine::testing::TempPool;
use setup::{ROOT, container};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Instant;

fn median(mut run: impl FnMut() -> f64) -> f64 {
    run();
    let mut times: Vec<f64> = (0..5).map(|_| run()).collect();
    times.sort_by(f64::total_cmp);
    times[2]
}

/// Nanoseconds per call.
fn per_call(calls: usize, mut call: impl FnMut(usize)) -> f64 {
    median(|| {
        let start = Instant::now();
        (0..calls).for_each(&mut call);
        start.elapsed().as_nanos() as f64 / calls as f64
    })
}

struct Bench {
    dfs: Dfs,
    name: &'static str,
}

impl Bench {
    fn new(pool: &Rc<TempPool>, name: &'static str, class: ObjectClass) -> Bench {
        let dfs = container(pool, name, class, class);
        Bench { dfs, name }
    }

    fn open(&self, name: &str) -> Ofd {
        let root = self.dfs.root();
        let (ino, _) = self
            .dfs
            .create(&ROOT, root, name.as_bytes(), 0o644, false)
            .expect("create");
        self.dfs.open(&ROOT, ino, 2).expect("open")
    }

    fn write(&self, ofd: Ofd, bytes: &[u8], pos: u64) {
        let iov = [IoVec {
            base: bytes.as_ptr().cast_mut(),
            len: bytes.len(),
        }];
        // SAFETY: the buffer is only read.
        let written = unsafe { self.dfs.pwrite(ofd, &iov, pos as i64, false) };
        assert_eq!(written, Ok(bytes.len()));
    }

    fn read(&self, ofd: Ofd, bytes: &mut [u8], pos: u64) {
        let iov = [IoVec {
            base: bytes.as_mut_ptr(),
            len: bytes.len(),
        }];
        // SAFETY: the buffer is ours.
        let read = unsafe { self.dfs.pread(ofd, &iov, pos as i64) };
        assert_eq!(read, Ok(bytes.len()));
    }
}

fn row(name: &str, what: &str, ours: f64, theirs: f64) {
    println!(
        "{name:8} {what:32} {ours:10.0} ns   tmpfs {theirs:10.0} ns   ratio {:5.2}",
        ours / theirs
    );
}

fn main() {
    let replicas = |n| ObjectClass::new(Redundancy::Replicas(n), GROUPS_MAX).expect("class");
    let pool = Rc::new(TempPool::new(4, 4096));
    let path = format!("/dev/shm/iobench-{}", std::process::id());
    let tmp = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path);
    let tmp = tmp.expect("tmpfs file");
    let mut small = vec![5u8; 4096];
    let mut big = vec![6u8; 1 << 20];
    const FILE: usize = 64 << 20;
    for at in (0..FILE).step_by(1 << 20) {
        tmp.write_all_at(&big, at as u64).expect("write");
    }
    let spread = |i: usize| ((i * 7919) % 256 * 4096) as u64;
    let wide = |i: usize| ((i % 64) << 20) as u64;
    let t_write = per_call(50_000, |i| {
        tmp.write_all_at(&small, spread(i)).expect("write")
    });
    let t_read = per_call(50_000, |i| {
        tmp.read_exact_at(&mut small, spread(i)).expect("read")
    });
    let t_write_big = per_call(128, |i| tmp.write_all_at(&big, wide(i)).expect("write"));
    let t_read_big = per_call(128, |i| tmp.read_exact_at(&mut big, wide(i)).expect("read"));
    let t_open = per_call(50_000, |_| drop(OpenOptions::new().read(true).open(&path)));
    let t_fresh = per_call(8, |i| {
        if i == 0 {
            tmp.set_len(0).expect("truncate");
        }
        tmp.write_all_at(&big, wide(i)).expect("write");
    });
    for (name, class) in [
        ("S1", ObjectClass::S1),
        ("SX", ObjectClass::SX),
        ("RP_2", replicas(2)),
        ("RP_3", replicas(3)),
    ] {
        if std::env::args().nth(1).is_some_and(|only| only != name) {
            continue;
        }
        let b = Bench::new(&pool, name, class);
        let ofd = b.open("f");
        for at in (0..FILE).step_by(1 << 20) {
            b.write(ofd, &big, at as u64);
        }
        row(
            b.name,
            "4 KiB overwrite, hot",
            per_call(50_000, |i| b.write(ofd, &small, spread(i))),
            t_write,
        );
        row(
            b.name,
            "4 KiB read, hot",
            per_call(50_000, |i| b.read(ofd, &mut small, spread(i))),
            t_read,
        );
        row(
            b.name,
            "100 B overwrite, hot",
            per_call(50_000, |i| b.write(ofd, &small[..100], spread(i))),
            t_write,
        );
        row(
            b.name,
            "1 MiB overwrite",
            per_call(128, |i| b.write(ofd, &big, wide(i))),
            t_write_big,
        );
        row(
            b.name,
            "1 MiB read",
            per_call(128, |i| b.read(ofd, &mut big, wide(i))),
            t_read_big,
        );
        let recycled = per_call(8, |i| {
            if i == 0 {
                b.dfs.ftruncate(ofd, 0).expect("truncate");
            }
            b.write(ofd, &big, wide(i));
        });
        row(b.name, "1 MiB write after truncate", recycled, t_fresh);
        let ino = b.dfs.ofd_info(ofd).expect("info").ino;
        let open = per_call(50_000, |_| {
            let ofd = b.dfs.open(&ROOT, ino, 0).expect("open");
            b.dfs.ofd_release(ofd).expect("release");
        });
        row(b.name, "open + close", open, t_open);
        b.dfs.ftruncate(ofd, 0).expect("truncate");
        b.dfs.ofd_release(ofd).expect("release");
    }
    std::fs::remove_file(&path).expect("remove");
}
