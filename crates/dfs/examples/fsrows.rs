//! The rows of `benches/fsbench.c` through `dfs`, without interception: once, `ROW VALUE` lines, for
//! `cargo xtask bench`. Names and attributes in three copies, `write` and `read` of large blocks and
//! `write_4k` in class SX, as the judged rows are.

mod setup;

use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Dfs, DirCursor, How, Ino, IoVec, Ofd, Place, Walk};
use engine::testing::TempPool;
use setup::{ROOT, container};
use std::fmt::Write as _;
use std::time::Instant;

const FILES: usize = 10_000;
const HOT: usize = 100_000;
const CALLS: usize = 20_000;
const BIG: u64 = 64 << 20;
const SMALL: u64 = 16 << 20;
const MIB: usize = 1 << 20;
const RDONLY: u32 = 0;
const WRONLY: u32 = 1;
const RDWR: u32 = 2;

fn row(name: &str, value: f64) {
    println!("{name} {value:.1}");
}

/// Nanoseconds per operation.
fn per_op(ops: usize, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / ops as f64
}

/// Megabytes per second.
fn bandwidth(bytes: u64, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    bytes as f64 / (start.elapsed().as_nanos() as f64 / 1e3)
}

/// Numbers like those of the C program.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn block(&mut self) -> u64 {
        self.next() % (SMALL / 4096) * 4096
    }
}

struct Bench {
    dfs: Dfs,
    links: Vec<u8>,
    path: String,
}

impl Bench {
    fn new(pool: &TempPool, label: &str, file_class: ObjectClass) -> Bench {
        let dir_class = ObjectClass::new(Redundancy::Replicas(3), 1).expect("class");
        let dfs = container(pool, label, file_class, dir_class);
        let work = dfs.mkdir(&ROOT, dfs.root(), b"work", 0o755).expect("mkdir");
        dfs.mkdir(&ROOT, work, b"bench", 0o755).expect("mkdir");
        Bench {
            dfs,
            links: vec![0; 4096],
            path: String::new(),
        }
    }

    fn name(&mut self, index: usize) {
        self.path.clear();
        write!(self.path, "work/bench/meta/file-{index:07}").expect("name");
    }

    /// The container, and where the path set last leads.
    fn place(&mut self) -> (&Dfs, Place<'_>) {
        let how = How {
            follow: true,
            ..How::default()
        };
        let (root, path) = (self.dfs.root(), self.path.as_bytes());
        match self.dfs.walk(&ROOT, root, path, how, &mut self.links) {
            Ok(Walk::Here(place)) => (&self.dfs, place),
            _ => panic!("{} is inside", self.path),
        }
    }

    fn target(&mut self) -> Ino {
        self.place().1.target.expect("exists")
    }

    fn create(&mut self, flags: u32) -> Ofd {
        let (dfs, place) = self.place();
        let made = dfs.create(&ROOT, place.parent, place.name, 0o644, true);
        let (ino, _) = made.expect("create");
        dfs.open_created(&ROOT, ino, flags).expect("open")
    }

    fn close(&self, ofd: Ofd) {
        self.dfs.ofd_release(ofd).expect("close");
    }

    fn unlink(&mut self) {
        let (dfs, place) = self.place();
        dfs.unlink(&ROOT, place.parent, place.name).expect("unlink");
    }

    fn metadata(&mut self) {
        self.path = "work/bench".into();
        let bench = self.target();
        let dir = self.dfs.mkdir(&ROOT, bench, b"meta", 0o755).expect("mkdir");
        let create = per_op(FILES, || {
            for index in 0..FILES {
                self.name(index);
                let ofd = self.create(WRONLY);
                self.close(ofd);
            }
        });
        row("create_close", create);
        self.name(77);
        let stat = per_op(HOT, || {
            for _ in 0..HOT {
                let ino = self.target();
                std::hint::black_box(self.dfs.stat(ino).expect("stat"));
            }
        });
        row("stat_hot", stat);
        let open = per_op(HOT, || {
            for _ in 0..HOT {
                let ino = self.target();
                let ofd = self.dfs.open(&ROOT, ino, RDONLY).expect("open");
                self.close(ofd);
            }
        });
        row("open_close", open);
        let list = per_op(10 * (FILES + 2), || {
            for _ in 0..10 {
                let (mut entries, mut cursor) = (0, DirCursor::default());
                let listed = self.dfs.getdents(dir, &mut cursor, &mut |_| {
                    entries += 1;
                    true
                });
                listed.expect("getdents");
                assert!(entries >= FILES);
            }
        });
        row("readdir_entry", list);
        let unlink = per_op(FILES, || {
            for index in 0..FILES {
                self.name(index);
                self.unlink();
            }
        });
        row("unlink", unlink);
    }

    fn file(&mut self) -> Ofd {
        self.path = "work/bench/data".into();
        self.create(RDWR)
    }

    fn write(&self, ofd: Ofd, bytes: &mut [u8], pos: u64) {
        let (base, len) = (bytes.as_mut_ptr(), bytes.len());
        // SAFETY: the buffer is only read.
        let written = unsafe {
            self.dfs
                .pwrite(ofd, &[IoVec { base, len }], pos as i64, false)
        };
        assert_eq!(written, Ok(len));
    }

    fn read(&self, ofd: Ofd, bytes: &mut [u8], pos: u64) {
        let (base, len) = (bytes.as_mut_ptr(), bytes.len());
        // SAFETY: the buffer is this function's to fill.
        let read = unsafe { self.dfs.pread(ofd, &[IoVec { base, len }], pos as i64) };
        assert_eq!(read, Ok(len));
    }

    fn fill(&self, ofd: Ofd, bytes: &mut [u8], len: u64) {
        for pos in (0..len).step_by(MIB) {
            self.write(ofd, bytes, pos);
        }
    }

    fn small_blocks(&mut self, reads: bool, writes: bool) {
        let mut random = Random(88_172_645_463_325_252);
        let mut bytes = vec![b'b'; MIB];
        let ofd = self.file();
        self.fill(ofd, &mut bytes, SMALL);
        let block = &mut bytes[..4096];
        let read = per_op(CALLS, || {
            for _ in 0..CALLS {
                self.read(ofd, block, random.block());
            }
        });
        if reads {
            row("read_4k", read);
        }
        if writes {
            let write = per_op(CALLS, || {
                for _ in 0..CALLS {
                    self.write(ofd, block, random.block());
                }
            });
            row("write_4k", write);
        }
        self.close(ofd);
        self.unlink();
    }

    fn large_blocks(&mut self) {
        let mut bytes = vec![b'b'; MIB];
        // The space of the first file is used again by the second.
        for name in ["write_1m_fresh_mbs", "write_1m_mbs"] {
            let ofd = self.file();
            row(name, bandwidth(BIG, || self.fill(ofd, &mut bytes, BIG)));
            if name == "write_1m_mbs" {
                let read = bandwidth(2 * BIG, || {
                    for pos in (0..2 * BIG).step_by(MIB) {
                        self.read(ofd, &mut bytes, pos % BIG);
                    }
                });
                row("read_1m_mbs", read);
            }
            self.close(ofd);
            self.unlink();
        }
    }
}

/// Bytes by which the arena of a new pool grows for each empty file.
fn arena_per_file(dir: &std::path::Path) {
    const MANY: usize = 100_000;
    let pool = TempPool::new_in(dir, 4, 4 << 10);
    let copies = ObjectClass::new(Redundancy::Replicas(3), GROUPS_MAX).expect("class");
    let mut bench = Bench::new(&pool, "files", copies);
    bench.path = "work/bench".into();
    let dir = bench.target();
    bench.dfs.mkdir(&ROOT, dir, b"meta", 0o755).expect("mkdir");
    let bytes = || pool.pool.usage().expect("usage").arena_bytes;
    let before = bytes();
    for index in 0..MANY {
        bench.name(index);
        let ofd = bench.create(WRONLY);
        bench.close(ofd);
    }
    row("arena_per_file", (bytes() - before) as f64 / MANY as f64);
}

fn main() {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, Into::into);
    let pool = TempPool::new_in(&dir, 20, 16 << 10);
    let copies = ObjectClass::new(Redundancy::Replicas(3), GROUPS_MAX).expect("class");
    let mut three = Bench::new(&pool, "rp3", copies);
    three.metadata();
    three.small_blocks(true, false);
    let mut one = Bench::new(&pool, "sx", ObjectClass::SX);
    one.small_blocks(false, true);
    one.large_blocks();
    arena_per_file(&dir);
}
