//! Devices that are full or broken: the call gets the error, nothing else changes, and everything
//! goes on once they work again. One test at a time: the door has one tape.

mod support;

use engine::testing::{Failure, RankFile, Step, TempPool, audit, audit_blocks, tape};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};
use support::{Container, File};
use sys::Errno;

static DOOR: Mutex<()> = Mutex::new(());
const RDWR: u32 = 2;

/// A container whose pool's steps can be made to fail.
struct Bench {
    c: Container,
    _door: MutexGuard<'static, ()>,
}

impl Bench {
    fn new(class: &str) -> Bench {
        let door = DOOR
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let pool = TempPool::with_log(&std::env::temp_dir(), 2, 64, 1 << 20);
        let classes = support::classes();
        let (_, class) = *classes
            .iter()
            .find(|(name, _)| *name == class)
            .expect("class");
        let c = Container::in_pool(&Rc::new(pool), "c", class);
        tape::start(&c.pool.pool.spec().ranks);
        Bench { c, _door: door }
    }

    fn fail(&self, step: Step, file: RankFile, errno: Errno, after: u32) {
        tape::fail(Some(Failure {
            step,
            file,
            rank: None,
            after,
            times: u32::MAX,
            errno,
        }));
    }

    fn mend(&self) {
        tape::fail(None);
    }

    /// Nothing contradicts anything else.
    fn check(&self) {
        self.mend();
        tape::stop();
        let checked = self.c.dfs.check_with(true, &mut |_| ()).expect("check");
        assert_eq!(checked.problems, []);
    }

    /// Nothing is lost, held or given out twice.
    fn audit(self) {
        self.check();
        let pool = self.c.pool.pool;
        pool.leave().expect("leave");
        audit(pool);
        audit_blocks(pool);
    }
}

#[test]
fn no_space_for_a_rank_to_grow() {
    let bench = Bench::new("RP_2GX");
    let file = File::open(&bench.c.dfs, "f", RDWR);
    let data = vec![3u8; 1 << 20];
    assert_eq!(file.pwrite(&data, 0), Ok(data.len()));
    bench.fail(Step::Allocate, RankFile::Data, Errno::ENOSPC, 0);
    // Until what the ranks have is used up.
    let mut pos = data.len() as u64;
    let refused = loop {
        match file.pwrite(&data, pos) {
            Ok(0) => panic!("nothing written"),
            Ok(written) => pos += written as u64,
            Err(errno) => break errno,
        }
        assert!(pos < 64 << 20);
    };
    assert_eq!(refused, Errno::ENOSPC);
    assert_eq!(file.size(), pos);
    assert!(file.content().iter().all(|byte| *byte == 3));
    bench.mend();
    assert_eq!(file.pwrite(&data, pos), Ok(data.len()));
    drop(file);
    bench.audit();
}

#[test]
fn a_user_over_quota_is_told_so() {
    let bench = Bench::new("RP_2GX");
    let file = File::open(&bench.c.dfs, "f", RDWR);
    let data = vec![3u8; 1 << 20];
    assert_eq!(file.pwrite(&data, 0), Ok(data.len()));
    bench.fail(Step::Allocate, RankFile::Data, Errno::EDQUOT, 0);
    let mut pos = data.len() as u64;
    let refused = loop {
        match file.pwrite(&data, pos) {
            Ok(written) => pos += written as u64,
            Err(errno) => break errno,
        }
        assert!(pos < 64 << 20);
    };
    assert_eq!(refused, Errno::EDQUOT);
    assert!(file.content().iter().all(|byte| *byte == 3));
    bench.mend();
    assert_eq!(file.pwrite(&data, pos), Ok(data.len()));
    drop(file);
    bench.audit();
}

#[test]
fn what_waits_for_a_sync_is_used_before_a_full_device_is_told() {
    let bench = Bench::new("RP_2GX");
    let file = File::open(&bench.c.dfs, "f", RDWR);
    let data = vec![3u8; 1 << 20];
    assert_eq!(file.pwrite(&data, 0), Ok(data.len()));
    bench.c.dfs.sync().expect("sync");
    bench.fail(Step::Allocate, RankFile::Data, Errno::ENOSPC, 0);
    // Each time other blocks: those of the time before wait for a sync.
    for round in 0..40 {
        let data = vec![round; 1 << 20];
        assert_eq!(file.pwrite(&data, 0), Ok(data.len()), "round {round}");
        file.dfs.fsync(file.ofd).expect("fsync");
    }
    assert!(file.content().iter().all(|byte| *byte == 39));
    drop(file);
    bench.audit();
}

#[test]
fn writes_that_fail() {
    for class in ["S1", "RP_2GX"] {
        let bench = Bench::new(class);
        let file = File::open(&bench.c.dfs, "f", RDWR);
        assert_eq!(file.pwrite(&[1; 10_000], 0), Ok(10_000));
        for (len, pos) in [(100, 50), (8192, 0), (200_000, 4096), (5000, 9000)] {
            bench.fail(Step::Write, RankFile::Data, Errno::EIO, 0);
            assert_eq!(file.pwrite(&vec![2; len], pos), Err(Errno::EIO));
            assert_eq!(file.size(), 10_000);
        }
        bench.mend();
        assert_eq!(file.content(), [1; 10_000]);
        assert_eq!(file.pwrite(&[2; 200_000], 0), Ok(200_000));
        assert_eq!(file.content(), [2; 200_000]);
        drop(file);
        bench.audit();
    }
}

#[test]
fn flushes_that_fail() {
    let bench = Bench::new("RP_2GX");
    let file = File::open(&bench.c.dfs, "f", RDWR);
    assert_eq!(file.pwrite(&[1; 4096], 0), Ok(4096));
    bench.fail(Step::Flush, RankFile::Log, Errno::EIO, 0);
    assert_eq!(file.dfs.fsync(file.ofd), Err(Errno::EIO));
    bench.mend();
    file.dfs.fsync(file.ofd).expect("fsync");
    assert_eq!(file.pwrite(&vec![1; 1 << 20], 0), Ok(1 << 20));
    bench.fail(Step::Flush, RankFile::Data, Errno::EIO, 1);
    assert_eq!(file.dfs.fsync(file.ofd), Err(Errno::EIO));
    assert_eq!(file.dfs.sync(), Err(Errno::EIO));
    // Other files go their own way.
    let other = File::open(&bench.c.dfs, "g", RDWR);
    assert_eq!(other.pwrite(&[1; 4096], 0), Ok(4096));
    other.dfs.fsync(other.ofd).expect("fsync by way of the log");
    bench.mend();
    file.dfs.fsync(file.ofd).expect("fsync");
    drop((file, other));
    bench.audit();
}

#[test]
fn no_space_for_a_checkpoint() {
    let bench = Bench::new("RP_2GX");
    let dfs = &bench.c.dfs;
    bench.fail(Step::Write, RankFile::Meta, Errno::ENOSPC, 0);
    let root = dfs.root();
    let turn = |name: &str| {
        dfs.create(&support::ROOT, root, name.as_bytes(), 0o644, true)?;
        dfs.unlink(&support::ROOT, root, name.as_bytes())
    };
    let mut made = 0;
    // The log takes what it can.
    let refused = loop {
        match turn(&format!("f{made}")) {
            Ok(()) => made += 1,
            Err(errno) => break errno,
        }
        assert!(made < 100_000);
    };
    assert_eq!(refused, Errno::ENOSPC);
    assert!(made > 500);
    assert!(dfs.stat(root).is_ok());
    bench.mend();
    for i in 0..1000 {
        turn(&format!("g{i}")).expect("space again");
    }
    bench.audit();
}

/// Checksums go into a log that cannot be emptied while there is room, but leave some for removing.
#[test]
fn checksums_beside_a_full_log() {
    engine::testing::stop_clock(1_700_000_000_000_000_000);
    let bench = Bench::new("RP_2GX");
    let (dfs, pool) = (&bench.c.dfs, bench.c.pool.pool);
    let make = |name: &str| dfs.create(&support::ROOT, dfs.root(), name.as_bytes(), 0o644, true);
    let file = File::open(dfs, "f", RDWR);
    for (round, len) in [(0, 1 << 16), (1, 24 << 20)] {
        // So many in a row, and no time goes by, that the next data is not proven in passing.
        for _ in 0..64 {
            assert_eq!(file.pwrite(&[1], 0), Ok(1));
        }
        assert_eq!(file.pwrite(&vec![1; len], 0), Ok(len));
        bench.fail(Step::Write, RankFile::Meta, Errno::ENOSPC, 0);
        let mut names = (0..100_000).map(|i| make(&format!("{round}-{i}")));
        assert_eq!(names.find_map(|made| made.err()), Some(Errno::ENOSPC));
        let proven = if round == 0 {
            Ok(())
        } else {
            Err(Errno::ENOSPC)
        };
        assert_eq!(pool.prove(), proven);
        for i in 0..600 {
            let name = format!("{round}-{i}");
            let gone = dfs.unlink(&support::ROOT, dfs.root(), name.as_bytes());
            gone.unwrap_or_else(|errno| panic!("{name} stays: {errno:?}"));
        }
        bench.mend();
        pool.prove().expect("prove");
        dfs.sync().expect("sync");
    }
    drop(file);
    bench.check();
}
