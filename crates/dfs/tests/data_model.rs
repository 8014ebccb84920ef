//! Random sequences of operations on one file, compared step by step with a model in memory and
//! with a file of a kernel file system.

mod support;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use support::{Container, File, O_RDWR, ROOT, containers};

const BLOCK: u64 = 4096;

#[derive(Clone, Debug)]
enum Op {
    Write { pos: u64, len: usize, seed: u8 },
    Append { len: usize, seed: u8 },
    Read { pos: u64, len: usize },
    Truncate { len: u64 },
    Allocate { pos: u64, len: u64, keep: bool },
    Punch { pos: u64, len: u64 },
    Zero { pos: u64, len: u64, keep: bool },
    Seek { pos: u64, hole: bool },
    Copy { from: u64, to: u64, len: usize },
}

impl Op {
    /// The highest position named.
    fn reach(&self) -> u64 {
        match *self {
            Op::Write { pos, .. }
            | Op::Read { pos, .. }
            | Op::Allocate { pos, .. }
            | Op::Punch { pos, .. }
            | Op::Zero { pos, .. }
            | Op::Seek { pos, .. } => pos,
            Op::Append { .. } => 0,
            Op::Truncate { len } => len,
            Op::Copy { from, to, .. } => from.max(to),
        }
    }
}

/// Positions near the borders of blocks, of small maps, of leaves, and far out.
fn position() -> impl Strategy<Value = u64> {
    let near = |edge: u64| (edge.saturating_sub(9)..edge + 9).boxed();
    prop_oneof![
        6 => 0..20_000u64,
        3 => (0..40u64).prop_flat_map(move |b| near(b * BLOCK)),
        1 => near(7 * BLOCK),
        1 => near(31 * BLOCK),
        1 => near(128 * BLOCK),
        1 => near(512 * BLOCK),
        1 => near(1 << 20),
        1 => near(1 << 33),
        1 => near(1 << 45),
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 1..300usize,
        4 => 4000..9000usize,
        2 => Just(4096usize),
        2 => 20_000..150_000usize,
        1 => 900_000..2_500_000usize,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let len = || length().prop_map(|len| len as u64);
    prop_oneof![
        6 => (position(), length(), any::<u8>()).prop_map(|(pos, len, seed)| Op::Write { pos, len, seed }),
        2 => (length(), any::<u8>()).prop_map(|(len, seed)| Op::Append { len, seed }),
        4 => (position(), length()).prop_map(|(pos, len)| Op::Read { pos, len }),
        3 => position().prop_map(|len| Op::Truncate { len }),
        2 => (position(), len(), any::<bool>()).prop_map(|(pos, len, keep)| Op::Allocate { pos, len, keep }),
        2 => (position(), len()).prop_map(|(pos, len)| Op::Punch { pos, len }),
        1 => (position(), len(), any::<bool>()).prop_map(|(pos, len, keep)| Op::Zero { pos, len, keep }),
        2 => (position(), any::<bool>()).prop_map(|(pos, hole)| Op::Seek { pos, hole }),
        1 => (position(), position(), length()).prop_map(|(from, to, len)| Op::Copy { from, to, len }),
    ]
}

/// A file as blocks in memory; bytes beyond the size are not kept.
#[derive(Default)]
struct Model {
    size: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Model {
    fn write(&mut self, pos: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let at = pos + i as u64;
            let block = self
                .blocks
                .entry(at / BLOCK)
                .or_insert_with(|| vec![0; BLOCK as usize]);
            block[(at % BLOCK) as usize] = *byte;
        }
        self.size = self.size.max(pos + bytes.len() as u64);
    }

    fn read(&self, pos: u64, len: usize) -> Vec<u8> {
        let len = self.size.saturating_sub(pos).min(len as u64);
        let byte = |at: u64| {
            self.blocks
                .get(&(at / BLOCK))
                .map_or(0, |block| block[(at % BLOCK) as usize])
        };
        (pos..pos + len).map(byte).collect()
    }

    fn zero(&mut self, from: u64, to: u64) {
        for (number, block) in self.blocks.range_mut(from / BLOCK..to.div_ceil(BLOCK)) {
            let base = number * BLOCK;
            let start = from.saturating_sub(base).min(BLOCK) as usize;
            let end = to.saturating_sub(base).min(BLOCK) as usize;
            block[start..end].fill(0);
        }
    }

    fn truncate(&mut self, len: u64) {
        if len < self.size {
            self.zero(len, len.next_multiple_of(BLOCK));
            self.blocks.split_off(&len.div_ceil(BLOCK));
        }
        self.size = len;
    }
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) | 1)
        .collect()
}

struct Kernel(OwnedFd);

impl Kernel {
    fn new() -> Kernel {
        let name = c"pil4dfs-model";
        Kernel(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).expect("memfd"))
    }

    fn allocate(&self, flags: rustix::fs::FallocateFlags, pos: u64, len: u64) {
        rustix::fs::fallocate(&self.0, flags, pos, len).expect("fallocate");
    }

    fn write(&self, bytes: &[u8], pos: u64) {
        assert_eq!(
            rustix::io::pwrite(self.0.as_fd(), bytes, pos),
            Ok(bytes.len())
        );
    }
}

fn step(f: &File<'_>, model: &mut Model, kernel: &Kernel, op: &Op) {
    use rustix::fs::FallocateFlags as Flags;
    match *op {
        Op::Write { pos, len, seed } => {
            let bytes = pattern(seed, len);
            assert_eq!(f.pwrite(&bytes, pos), Ok(len));
            kernel.write(&bytes, pos);
            model.write(pos, &bytes);
        }
        Op::Append { len, seed } => {
            let bytes = pattern(seed, len);
            let iov = [dfs::IoVec {
                base: bytes.as_ptr().cast_mut(),
                len,
            }];
            // SAFETY: the buffer is only read.
            assert_eq!(unsafe { f.dfs.pwrite(f.ofd, &iov, 0, true) }, Ok(len));
            kernel.write(&bytes, model.size);
            model.write(model.size, &bytes);
        }
        Op::Read { pos, len } => {
            let mut ours = vec![0xee; len];
            let read = f.pread(&mut ours, pos).expect("read");
            let expected = model.read(pos, len);
            assert_eq!(read, expected.len());
            assert!(ours[..read] == expected[..], "bytes differ");
            assert!(
                ours[read..].iter().all(|b| *b == 0xee),
                "touched behind the count"
            );
        }
        Op::Truncate { len } => {
            f.dfs.ftruncate(f.ofd, len).expect("truncate");
            rustix::fs::ftruncate(&kernel.0, len).expect("truncate");
            model.truncate(len);
        }
        Op::Allocate { pos, len, keep } => {
            let mode = if keep { dfs::FALLOC_KEEP_SIZE } else { 0 };
            f.dfs
                .fallocate(f.ofd, mode, pos as i64, len as i64)
                .expect("fallocate");
            let flags = if keep {
                Flags::KEEP_SIZE
            } else {
                Flags::empty()
            };
            kernel.allocate(flags, pos, len);
            if !keep {
                model.size = model.size.max(pos + len);
            }
        }
        Op::Punch { pos, len } => {
            let mode = dfs::FALLOC_PUNCH_HOLE | dfs::FALLOC_KEEP_SIZE;
            f.dfs
                .fallocate(f.ofd, mode, pos as i64, len as i64)
                .expect("punch");
            kernel.allocate(Flags::PUNCH_HOLE | Flags::KEEP_SIZE, pos, len);
            model.zero(pos, pos + len);
        }
        Op::Zero { pos, len, keep } => {
            let keep_flag = if keep { dfs::FALLOC_KEEP_SIZE } else { 0 };
            let mode = dfs::FALLOC_ZERO_RANGE | keep_flag;
            f.dfs
                .fallocate(f.ofd, mode, pos as i64, len as i64)
                .expect("zero");
            model.zero(pos, pos + len);
            if !keep {
                model.size = model.size.max(pos + len);
            }
            // The kernel's memory files cannot do it: the same in two steps.
            kernel.allocate(Flags::PUNCH_HOLE | Flags::KEEP_SIZE, pos, len);
            rustix::fs::ftruncate(&kernel.0, model.size).expect("truncate");
        }
        Op::Seek { pos, hole } => check_seek(f, model, pos, hole),
        Op::Copy { from, to, len } => {
            let expected = model.read(from, len);
            let overlap = from.abs_diff(to) < expected.len() as u64;
            let copied = f.dfs.copy_range(f.ofd, from, f.ofd, to, len);
            if overlap {
                assert_eq!(copied, Err(sys::Errno::EINVAL));
            } else {
                assert_eq!(copied, Ok(expected.len()));
                if !expected.is_empty() {
                    kernel.write(&expected, to);
                    model.write(to, &expected);
                }
            }
        }
    }
    assert_eq!(f.size(), model.size);
    assert_eq!(
        rustix::fs::fstat(&kernel.0).expect("stat").st_size as u64,
        model.size
    );
}

/// Holes read as zeros, and what is not zero is data.
fn check_seek(f: &File<'_>, model: &Model, pos: u64, hole: bool) {
    let found = f.dfs.seek(f.ofd, pos as i64, if hole { 4 } else { 3 });
    if pos >= model.size {
        assert_eq!(found, Err(sys::Errno::ENXIO));
        return;
    }
    if hole {
        let at = found.expect("there is a hole at the end");
        assert!(at >= pos && at <= model.size);
        return;
    }
    let end = found.unwrap_or(model.size);
    assert!(end >= pos);
    let skipped = model.blocks.range(pos / BLOCK..end.div_ceil(BLOCK));
    for (number, block) in skipped {
        let from = pos.saturating_sub(number * BLOCK).min(BLOCK) as usize;
        let to = end.saturating_sub(number * BLOCK).min(BLOCK) as usize;
        assert!(
            block[from..to.max(from)].iter().all(|b| *b == 0),
            "data was skipped"
        );
    }
}

fn check_all(f: &File<'_>, model: &Model, kernel: &Kernel) {
    let blocks: Vec<u64> = model.blocks.keys().copied().collect();
    for number in blocks {
        let expected = model.read(number * BLOCK, BLOCK as usize);
        let mut ours = vec![1; expected.len()];
        assert_eq!(f.pread(&mut ours, number * BLOCK), Ok(expected.len()));
        assert!(ours == expected, "block {number}");
        let mut theirs = vec![1; expected.len()];
        let read = rustix::io::pread(&kernel.0, &mut theirs[..], number * BLOCK).expect("read");
        assert!(
            read == expected.len() && theirs == expected,
            "kernel block {number}"
        );
    }
}

/// `mapped`: the file has a shared mapping all the while, so that its data lies in the cache file.
fn run(c: &Container, mapped: bool) {
    // Every case has its own file, so that a failing one can be made smaller.
    let number = std::cell::Cell::new(0);
    let cases = std::env::var("PIL4DFS_TEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(40);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let ops = proptest::collection::vec(op(), 1..40);
    c.pool.pool.leave().expect("leave");
    let before = c.used();
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&ops, |mut ops| {
        if mapped {
            // Bringing a file home takes time by its size.
            ops.retain(|op| op.reach() < 1 << 30);
        }
        number.set(number.get() + 1);
        let name = format!("model{}", number.get());
        let f = c.file(&name, O_RDWR);
        let (mut model, kernel) = (Model::default(), Kernel::new());
        if mapped {
            let source = c
                .dfs
                .map_begin(f.ofd, true, true, 0, 4096)
                .expect("map_begin");
            // SAFETY: the descriptor is ours; it is not needed.
            drop(unsafe { OwnedFd::from_raw_fd(source.fd) });
        }
        for op in &ops {
            step(&f, &mut model, &kernel, op);
        }
        check_all(&f, &model, &kernel);
        if mapped {
            c.dfs.map_end(f.ino).expect("map_end");
            check_all(&f, &model, &kernel);
        }
        c.dfs
            .unlink(&ROOT, c.dfs.root(), name.as_bytes())
            .expect("unlink");
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("class {}: {failure}", c.label);
    }
    c.pool.pool.leave().expect("leave");
    assert_eq!(c.used(), before, "class {}: space leaked", c.label);
}

#[test]
fn random_operations_behave_as_the_model() {
    for c in containers(2048) {
        run(&c, false);
    }
}

#[test]
fn mapped_files_behave_as_the_model() {
    for c in containers(2048) {
        run(&c, true);
    }
}
