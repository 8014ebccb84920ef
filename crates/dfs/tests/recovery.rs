//! Recovery after a power failure: what it does itself proves nothing, and what the log says of a
//! block holds for its use at that time.

mod common;

use common::{Container, ROOT};
use daos_types::{ObjectClass, Redundancy};
use dfs::{Dfs, Ino, IoVec};
use engine::Pool;
use engine::testing::{self, Disk, Event, Failure, Fate, RankFile, Step, TempPool, tape};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use sys::Errno;

/// The door has one tape, and images are opened one at a time.
static ONE: Mutex<()> = Mutex::new(());

fn one() -> MutexGuard<'static, ()> {
    ONE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn mount(pool: &'static Pool) -> Dfs {
    let info = pool.find_container("c").expect("container");
    Dfs::mount(pool, &info).expect("mount")
}

fn pool(ring: u64, copies: u8) -> (TempPool, Dfs) {
    let temp = TempPool::with_log(Path::new("/dev/shm"), 3, 48, ring);
    let class = ObjectClass::new(Redundancy::Replicas(copies), 1).expect("class");
    Container::of_class(temp.pool, "c", class.id());
    temp.pool.sync().expect("sync");
    let dfs = mount(temp.pool);
    (temp, dfs)
}

fn store(dfs: &Dfs, name: &str, bytes: &[u8]) -> Ino {
    let made = dfs.create(&ROOT, dfs.root(), name.as_bytes(), 0o644, false);
    let (ino, _) = made.expect("create");
    let ofd = dfs.open(&ROOT, ino, 2).expect("open");
    let iov = [IoVec {
        base: bytes.as_ptr().cast_mut(),
        len: bytes.len(),
    }];
    // SAFETY: the buffer is only read.
    let wrote = unsafe { dfs.pwrite(ofd, &iov, 0, false) };
    assert_eq!(wrote, Ok(bytes.len()));
    dfs.ofd_release(ofd).expect("release");
    ino
}

fn content(dfs: &Dfs, name: &str) -> Vec<u8> {
    let ino = dfs.lookup(&ROOT, dfs.root(), name.as_bytes());
    let ino = ino.expect("name");
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

fn image(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/pil4dfs-{name}-{}", std::process::id()))
}

fn ranks_of(image: &Path, temp: &TempPool) -> Vec<PathBuf> {
    let ranks = temp.pool.spec().ranks.iter();
    ranks
        .map(|rank| image.join(rank.file_name().expect("name")))
        .collect()
}

/// Recovers an image after a power failure and looks at all of it.
fn recover(image: &Path, temp: &TempPool, look: impl FnOnce(&Dfs)) {
    testing::power_failed();
    let pool = testing::open_image(image, temp.pool.spec()).expect("recovered");
    testing::audit(pool);
    testing::audit_blocks(pool);
    let dfs = mount(pool);
    let checked = dfs.check_with(true, &mut |_| ()).expect("check");
    assert_eq!(checked.problems, []);
    look(&dfs);
    pool.leave().expect("leave");
}

#[test]
fn a_recovery_that_finds_the_log_half_full_says_nothing_of_data() {
    const RING: u64 = 512 << 10;
    let _one = one();
    let (temp, dfs) = pool(RING, 2);
    // What was there before must not show.
    store(&dfs, "old", &[6; 400_000]);
    dfs.sync().expect("sync");
    dfs.unlink(&ROOT, dfs.root(), b"old").expect("unlink");
    temp.pool.checkpoint().expect("checkpoint");
    let ranks = &temp.pool.spec().ranks;
    let mut disk = Disk::new(ranks);
    tape::start(ranks);
    store(&dfs, "lost", &[7; 40_000]);
    let files = ["a", "b"].map(|name| {
        let ino = store(&dfs, name, &[8; 150_000]);
        dfs.open(&ROOT, ino, 2).expect("open")
    });
    // The next call after these would write a checkpoint.
    for ofd in files {
        dfs.fsync(ofd).expect("fsync");
    }
    let (used, ring) = temp.pool.log_fill().expect("log");
    assert!(used > ring / 2 && used < ring / 8 * 7, "{used} of {ring}");
    let events = tape::stop();
    events.iter().for_each(|event| disk.step(event));
    let (first, second) = (image("first"), image("second"));
    disk.fail(&first, Fate::Lost, 1);
    let mut disk = Disk::new(&ranks_of(&first, &temp));
    tape::start(&ranks_of(&first, &temp));
    let look = |dfs: &Dfs| {
        assert_eq!(content(dfs, "lost"), [0; 40_000]);
        assert_eq!(content(dfs, "b"), [8; 150_000]);
    };
    recover(&first, &temp, look);
    let events = tape::stop();
    std::fs::remove_dir_all(&first).expect("image");
    // The power fails again at any step of that.
    for event in &events {
        disk.step(event);
        disk.fail(&second, Fate::Kept, 1);
        recover(&second, &temp, look);
        std::fs::remove_dir_all(&second).expect("image");
    }
}

#[test]
fn a_checksum_of_a_block_that_was_used_again_is_none_of_the_new_use() {
    const LEN: usize = 40_000;
    let _one = one();
    let (temp, dfs) = pool(1 << 20, 2);
    let keep = |name: &str| {
        let kept = image(name);
        for (from, to) in temp.pool.spec().ranks.iter().zip(ranks_of(&kept, &temp)) {
            std::fs::create_dir_all(&to).expect("rank");
            std::fs::copy(from.join("data"), to.join("data")).expect("copy");
        }
        kept
    };
    store(&dfs, "old", &[7; LEN]);
    let before = keep("before");
    dfs.unlink(&ROOT, dfs.root(), b"old").expect("unlink");
    // Blocks of the old file take some of its place.
    store(&dfs, "some", &[9; 4096]);
    store(&dfs, "new", &[8; LEN]);
    let after = keep("after");
    temp.pool.prove().expect("prove");
    // Of each rank either what was written last has reached the device, or not.
    for choice in 0..1 << temp.pool.spec().ranks.len() {
        let cut = image("cut");
        let ranks = temp.pool.spec().ranks.iter();
        let kept = ranks_of(&before, &temp).into_iter();
        let kept = kept.zip(ranks_of(&after, &temp));
        let to = ranks_of(&cut, &temp).into_iter();
        for (rank, ((from, (old, new)), to)) in ranks.zip(kept).zip(to).enumerate() {
            std::fs::create_dir_all(&to).expect("rank");
            for file in ["meta", "log"] {
                if from.join(file).exists() {
                    std::fs::copy(from.join(file), to.join(file)).expect("copy");
                }
            }
            let data = if choice & 1 << rank == 0 { old } else { new };
            std::fs::copy(data.join("data"), to.join("data")).expect("copy");
        }
        recover(&cut, &temp, |dfs| {
            for block in content(dfs, "new").chunks(4096) {
                let first = block[0];
                assert!(first == 8 || first == 0, "{choice}: bytes of another file");
                assert!(block.iter().all(|byte| *byte == first));
            }
        });
        std::fs::remove_dir_all(&cut).expect("image");
    }
    for kept in [before, after] {
        std::fs::remove_dir_all(kept).expect("image");
    }
}

#[test]
fn every_copy_of_what_was_written_over_and_over_is_proven() {
    let _one = one();
    for copies in [2, 3] {
        let (temp, dfs) = pool(1 << 20, copies);
        for round in 1..=3 {
            for name in ["a", "b"] {
                store(&dfs, name, &[round; 40_000]);
            }
            dfs.unlink(&ROOT, dfs.root(), b"a").expect("unlink");
        }
        temp.pool.prove().expect("prove");
        let cut = image("kept");
        for (from, to) in temp.pool.spec().ranks.iter().zip(ranks_of(&cut, &temp)) {
            std::fs::create_dir_all(&to).expect("rank");
            for file in ["meta", "log", "data"] {
                if from.join(file).exists() {
                    std::fs::copy(from.join(file), to.join(file)).expect("copy");
                }
            }
        }
        recover(&cut, &temp, |dfs| {
            assert_eq!(content(dfs, "b"), [3; 40_000], "{copies} copies");
        });
        std::fs::remove_dir_all(&cut).expect("image");
    }
}

/// What may be left after every event of a tape, once nothing more is flushed.
fn lost_after(disk: &mut Disk, temp: &TempPool, look: impl FnOnce(&Dfs)) {
    tape::stop().iter().for_each(|event| disk.step(event));
    let cut = image("cut");
    disk.fail(&cut, Fate::Lost, 1);
    recover(&cut, temp, look);
    std::fs::remove_dir_all(&cut).expect("image");
}

#[test]
fn a_sync_that_succeeds_after_one_that_failed_has_brought_everything_there() {
    const SMALL: usize = 40_000;
    const LARGE: usize = 700_000;
    let _one = one();
    let (temp, dfs) = pool(8 << 20, 2);
    let mut disk = Disk::new(&temp.pool.spec().ranks);
    // The log lies on the first rank.
    for (case, (file, rank)) in [
        (RankFile::Log, Some(0)),
        (RankFile::Data, None),
        (RankFile::Data, None),
    ]
    .into_iter()
    .enumerate()
    {
        tape::start(&temp.pool.spec().ranks);
        let (small, large) = (format!("small{case}"), format!("large{case}"));
        let open = |name: &str, len| {
            let ino = store(&dfs, name, &vec![7; len]);
            dfs.open(&ROOT, ino, 2).expect("open")
        };
        let ofds = [open(&small, SMALL), open(&large, LARGE)];
        tape::fail(Some(Failure {
            step: Step::Flush,
            file,
            rank,
            after: 0,
            times: 1,
            errno: Errno::EIO,
        }));
        assert_eq!(dfs.sync(), Err(Errno::EIO));
        if case == 2 {
            dfs.sync().expect("sync");
        } else {
            for ofd in ofds {
                dfs.fsync(ofd).expect("fsync");
            }
        }
        lost_after(&mut disk, &temp, |dfs| {
            assert_eq!(content(dfs, &small), [7; SMALL], "{case}");
            assert_eq!(content(dfs, &large), vec![7; LARGE], "{case}");
        });
    }
}

#[test]
fn a_sync_after_the_memory_was_lost_brings_there_what_nobody_knows_of() {
    const LEN: usize = 700_000;
    let _one = one();
    let (temp, dfs) = pool(8 << 20, 2);
    let ranks = &temp.pool.spec().ranks;
    let mut disk = Disk::new(ranks);
    tape::start(ranks);
    store(&dfs, "f", &[7; LEN]);
    tape::stop().iter().for_each(|event| disk.step(event));
    // The machine stays on.
    let on = image("on");
    disk.fail(&on, Fate::Kept, 1);
    tape::start(&ranks_of(&on, &temp));
    let pool = testing::open_image(&on, temp.pool.spec()).expect("recovered");
    let again = mount(pool);
    again.sync().expect("sync");
    pool.leave().expect("leave");
    lost_after(&mut disk, &temp, |dfs| {
        assert_eq!(content(dfs, "f"), vec![7; LEN]);
    });
    std::fs::remove_dir_all(&on).expect("image");
}

#[test]
fn a_checkpoint_that_ended_on_one_rank_does_not_go_with_that_rank() {
    let _one = one();
    let (temp, dfs) = pool(1 << 20, 2);
    store(&dfs, "before", &[7; 4096]);
    temp.pool.checkpoint().expect("checkpoint");
    for i in 0..200 {
        store(&dfs, &format!("f{i}"), &[8; 4096]);
    }
    let ranks = &temp.pool.spec().ranks;
    let mut disk = Disk::new(ranks);
    tape::start(ranks);
    temp.pool.checkpoint().expect("checkpoint");
    let events = tape::stop();
    // The power fails when the first rank alone has the last frame.
    let ended = |event: &Event| matches!(event, Event::Flushed(0, RankFile::Meta, _));
    let last = events.iter().rposition(ended).expect("end");
    events[..=last].iter().for_each(|event| disk.step(event));
    let cut = image("cut");
    disk.fail(&cut, Fate::Lost, 1);
    let look = |dfs: &Dfs| {
        assert_eq!(content(dfs, "before"), [7; 4096]);
        for i in 0..200 {
            assert_eq!(content(dfs, &format!("f{i}")), [8; 4096], "f{i}");
        }
    };
    testing::power_failed();
    let pool = testing::open_image(&cut, temp.pool.spec()).expect("recovered");
    let found = mount(pool);
    look(&found);
    store(&found, "more", &[9; 4096]);
    found.sync().expect("sync");
    pool.checkpoint().expect("checkpoint");
    pool.leave().expect("leave");
    std::fs::remove_dir_all(&ranks_of(&cut, &temp)[0]).expect("rank");
    testing::power_failed();
    let pool = testing::open_image(&cut, temp.pool.spec()).expect("recovered");
    look(&mount(pool));
    pool.leave().expect("leave");
    std::fs::remove_dir_all(&cut).expect("image");
}

/// What an `fsync` finds after a rebuild is as safe as what it finds dirty: the log may have no more than a
/// checksum of it, which the next store in place makes wrong. And it needs no other ranks than those
/// that the file lies on.
#[test]
fn an_fsync_after_a_rebuild_is_about_what_was_found() {
    const LEN: usize = 40_000;
    let _one = one();
    let (temp, dfs) = pool(8 << 20, 1);
    store(&dfs, "small", &[7; LEN]);
    let large = ["a", "b", "c", "d", "e", "f"];
    for name in large {
        store(&dfs, name, &[8; 300_000]);
    }
    temp.pool.prove().expect("prove");
    let rebuilt = |name: &str| {
        let kept = image(name);
        for (from, to) in temp.pool.spec().ranks.iter().zip(ranks_of(&kept, &temp)) {
            std::fs::create_dir_all(&to).expect("rank");
            for file in ["meta", "log", "data"] {
                if from.join(file).exists() {
                    std::fs::copy(from.join(file), to.join(file)).expect("copy");
                }
            }
        }
        testing::power_failed();
        let ranks = ranks_of(&kept, &temp);
        let disk = Disk::new(&ranks);
        tape::start(&ranks);
        let pool = testing::open_image(&kept, temp.pool.spec()).expect("recovered");
        (kept, disk, pool)
    };
    let open = |dfs: &Dfs, name: &str| {
        let ino = dfs.lookup(&ROOT, dfs.root(), name.as_bytes());
        dfs.open(&ROOT, ino.expect("name"), 2).expect("open")
    };

    let (kept, mut disk, pool) = rebuilt("promised");
    let again = mount(pool);
    let ofd = open(&again, "small");
    again.fsync(ofd).expect("fsync");
    let nines = [9u8; 100];
    let iov = [IoVec {
        base: nines.as_ptr().cast_mut(),
        len: nines.len(),
    }];
    // SAFETY: the buffer is only read.
    assert_eq!(unsafe { again.pwrite(ofd, &iov, 5000, false) }, Ok(100));
    pool.leave().expect("leave");
    tape::stop().iter().for_each(|event| disk.step(event));
    std::fs::remove_dir_all(&kept).expect("image");
    // All of it reaches the device but nobody has told the log.
    let cut = image("cut");
    disk.fail(&cut, Fate::Kept, 1);
    let mut wanted = vec![7; LEN];
    wanted[5000..5100].fill(9);
    recover(&cut, &temp, |dfs| assert!(content(dfs, "small") == wanted));
    std::fs::remove_dir_all(&cut).expect("image");

    let (kept, _, pool) = rebuilt("elsewhere");
    let again = mount(pool);
    tape::fail(Some(Failure {
        step: Step::Flush,
        file: RankFile::Data,
        rank: Some(0),
        after: 0,
        times: 1000,
        errno: Errno::EIO,
    }));
    assert_eq!(again.sync(), Err(Errno::EIO));
    assert_eq!(again.fsync(open(&again, "small")), Ok(()));
    let synced = large.map(|name| again.fsync(open(&again, name)));
    assert!(synced.contains(&Ok(())), "{synced:?}");
    assert!(synced.contains(&Err(Errno::EIO)), "{synced:?}");
    pool.leave().expect("leave");
    tape::stop();
    std::fs::remove_dir_all(&kept).expect("image");
}
