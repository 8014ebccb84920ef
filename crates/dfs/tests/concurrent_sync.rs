//! What a sync has brought to the devices is there after a power failure, whatever others did to the
//! file while it was under way, stopped or killed in the middle.

mod support;

use daos_types::{ObjectClass, Redundancy};
use dfs::Dfs;
use engine::testing::{self, TempPool};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use shm::fault::{self, Action};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::{Duration, Instant};
use support::map::Map;
use support::{Container, File, O_RDWR, role};
use sys::uaccess;

const BLOCK: usize = 4096;
/// Blocks of a file whose map is small, but hardly so.
const SMALL: usize = 25;
/// Of these, the first whose pointer lies where an inode has zeros.
const ZERO_FROM: u64 = 17;

/// Runs a test in a process of its own: pools are few, and a power failure is for all of them.
fn alone(test: &str, run: fn()) {
    const ALONE: &str = "PIL4DFS_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return run();
    }
    let status = Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "")
        .status();
    assert!(status.expect("test").success(), "{test}");
}

/// What the devices of a pool hold.
struct Devices(PathBuf);

impl Devices {
    /// Data as it is now.
    fn now(c: &Container) -> Devices {
        let name = format!("/dev/shm/pil4dfs-devices-{}", std::process::id());
        let devices = Devices(PathBuf::from(name));
        devices.take(c, &["data"]);
        devices
    }

    fn take(&self, c: &Container, files: &[&str]) {
        for rank in &c.pool.pool.spec().ranks {
            let dir = self.0.join(rank.file_name().expect("name"));
            std::fs::create_dir_all(&dir).expect("rank");
            for file in files.iter().filter(|file| rank.join(file).exists()) {
                std::fs::copy(rank.join(file), dir.join(file)).expect("copy");
            }
        }
    }

    /// The file `f` after a power failure: all of the log is there, but of the data nothing that was
    /// stored since.
    fn after_power_failure(self, c: &Container) -> Vec<u8> {
        self.take(c, &["meta", "log"]);
        testing::power_failed();
        let pool = testing::open_image(&self.0, c.pool.pool.spec()).expect("recovered");
        let info = pool.find_container(&c.label).expect("container");
        let dfs = Dfs::mount(pool, &info).expect("mount");
        let content = File::open(&dfs, "f", O_RDWR).content();
        pool.leave().expect("leave");
        std::fs::remove_dir_all(&self.0).expect("devices");
        content
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32).expect("pid")
}

/// Waits until a child has stopped itself.
fn stopped(child: &Child) {
    let status = waitpid(Some(pid(child)), WaitOptions::UNTRACED);
    let (_, status) = status.expect("wait").expect("a state");
    assert!(status.stopped(), "{status:?}");
}

/// Lets `stopped` go on once `other` has ended, or waits for it.
fn ends_beside(mut other: Child, mut stopped: Child) {
    let begun = Instant::now();
    while other.try_wait().expect("wait").is_none() && begun.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(pid(&stopped), Signal::CONT).expect("continue");
    assert!(stopped.wait().expect("wait").success());
    assert!(other.wait().expect("wait").success());
}

#[test]
fn a_sync_undoes_nothing_that_another_has_synced() {
    const TEST: &str = "a_sync_undoes_nothing_that_another_has_synced";
    if let Some((role, dfs)) = role() {
        let f = File::open(&dfs, "f", O_RDWR);
        if role == "stops" {
            f.pwrite(b"one", 0).expect("write");
            fault::arm("sync.contents", Action::Stop, 1);
        } else {
            f.pwrite(b"two", 100).expect("write");
        }
        return dfs.fsync(f.ofd).expect("fsync");
    }
    alone(TEST, || {
        let c = Container::new(ObjectClass::S1, 64);
        let f = c.file("f", O_RDWR);
        f.write(&[7; 200]).expect("write");
        c.dfs.sync().expect("sync");
        let devices = Devices::now(&c);
        let first = c.spawn(TEST, "stops");
        stopped(&first);
        ends_beside(c.spawn(TEST, "goes on"), first);
        let content = devices.after_power_failure(&c);
        assert_eq!(content.get(..3), Some(&b"one"[..]));
        assert_eq!(content.get(100..103), Some(&b"two"[..]));
    });
}

/// Makes the map of `f` a larger one, and an inode of what it was.
fn replace_map(dfs: &Dfs) {
    let f = File::open(dfs, "f", O_RDWR);
    let more = vec![8; 10 * BLOCK];
    f.pwrite(&more, (SMALL * BLOCK) as u64).expect("write");
    File::open(dfs, "g", O_RDWR);
}

#[test]
fn a_sync_misses_nothing_when_the_map_is_replaced() {
    const TEST: &str = "a_sync_misses_nothing_when_the_map_is_replaced";
    if let Some((role, dfs)) = role() {
        if role == "replaces" {
            return replace_map(&dfs);
        }
        let f = File::open(&dfs, "f", O_RDWR);
        fault::arm("durable.block", Action::Stop, ZERO_FROM);
        return dfs.fsync(f.ofd).expect("fsync");
    }
    alone(TEST, || {
        let c = Container::new(ObjectClass::S1, 64);
        let f = c.file("f", O_RDWR);
        c.dfs.sync().expect("sync");
        let devices = Devices::now(&c);
        f.write(&[7; SMALL * BLOCK]).expect("write");
        let first = c.spawn(TEST, "stops");
        stopped(&first);
        ends_beside(c.spawn(TEST, "replaces"), first);
        let content = devices.after_power_failure(&c);
        let there = content.iter().take_while(|byte| **byte == 7).count();
        assert_eq!(there, SMALL * BLOCK);
    });
}

#[test]
fn a_hole_is_none_that_a_replaced_map_shows() {
    const TEST: &str = "a_hole_is_none_that_a_replaced_map_shows";
    const SEEK_HOLE: u32 = 4;
    if let Some((role, dfs)) = role() {
        if role == "replaces" {
            return replace_map(&dfs);
        }
        let f = File::open(&dfs, "f", O_RDWR);
        fault::arm("seek.found", Action::Stop, ZERO_FROM);
        assert_eq!(dfs.seek(f.ofd, 0, SEEK_HOLE), Ok((SMALL * BLOCK) as u64));
        return;
    }
    alone(TEST, || {
        let c = Container::new(ObjectClass::S1, 64);
        let f = c.file("f", O_RDWR);
        f.write(&[7; SMALL * BLOCK]).expect("write");
        let first = c.spawn(TEST, "stops");
        stopped(&first);
        ends_beside(c.spawn(TEST, "replaces"), first);
    });
}

/// A container of one copy and one of three in a pool.
fn both() -> [Container; 2] {
    let pool = Rc::new(TempPool::new(4, 64));
    let three = ObjectClass::new(Redundancy::Replicas(3), 1).expect("class");
    [("S1", ObjectClass::S1), ("RP_3G1", three)]
        .map(|(label, class)| Container::in_pool(&pool, label, class))
}

#[test]
fn what_a_killed_writer_shows_is_synced_by_others() {
    const TEST: &str = "what_a_killed_writer_shows_is_synced_by_others";
    const POINTS: [(&str, u64); 10] = [
        ("tx.built", 1),
        ("tx.published", 1),
        ("tx.applying", 1),
        ("tx.applying", 2),
        ("tx.applying", 3),
        ("tx.applying", 4),
        ("tx.applying", 5),
        ("tx.applied", 1),
        ("tx.closed", 1),
        ("write.stored", 1),
    ];
    if let Some((role, dfs)) = role() {
        let f = File::open(&dfs, "f", O_RDWR);
        let (round, pos) = role.split_once(' ').expect("role");
        let round: usize = round.parse().expect("round");
        // Space for what comes.
        File::open(&dfs, "g", O_RDWR).write(&[1]).expect("write");
        let (point, nth) = POINTS[round];
        fault::arm(point, Action::Kill, nth);
        let new = [10 + round as u8; BLOCK];
        f.pwrite(&new, pos.parse().expect("position"))
            .expect("write");
        // The point is not on its way.
        return;
    }
    alone(TEST, || {
        let mut shown = 0;
        for c in both() {
            let f = c.file("f", O_RDWR);
            f.write(&[7; BLOCK]).expect("write");
            // As long as there is something left, a sync does not look at the file.
            c.dfs.sync().expect("sync");
            for (round, point) in POINTS.iter().enumerate() {
                // Over what is there, and behind it.
                for block in [0, round + 1] {
                    f.pwrite(&[7; BLOCK], 0).expect("write");
                    c.dfs.fsync(f.ofd).expect("fsync");
                    c.dfs.sync().expect("sync");
                    let devices = Devices::now(&c);
                    let pos = block * BLOCK;
                    let mut child = c.spawn(TEST, &format!("{round} {pos}"));
                    child.wait().expect("wait");
                    let new = [10 + round as u8; BLOCK];
                    let mut seen = [0; BLOCK];
                    f.pread(&mut seen, pos as u64).expect("read");
                    c.dfs.fsync(f.ofd).expect("fsync");
                    let content = devices.after_power_failure(&c);
                    if seen == new {
                        shown += 1;
                        let there = content.get(pos..pos + BLOCK) == Some(&new[..]);
                        assert!(there, "{} {point:?} {block}", c.label);
                    }
                }
            }
        }
        assert!(shown > 20, "{shown}");
    });
}

/// A sync takes nothing for synced that is about to be published.
#[test]
fn what_is_being_published_stays_to_be_synced() {
    const TEST: &str = "what_is_being_published_stays_to_be_synced";
    const LEN: usize = 100 * BLOCK;
    if let Some((role, dfs)) = role() {
        let f = File::open(&dfs, "f", O_RDWR);
        if role == "syncs" {
            return dfs.fsync(f.ofd).expect("fsync");
        }
        File::open(&dfs, "g", O_RDWR).write(&[1]).expect("write");
        fault::arm("tx.published", Action::Stop, 1);
        f.pwrite(&[9; LEN], 0).expect("write");
        return;
    }
    alone(TEST, || {
        for c in both() {
            let f = c.file("f", O_RDWR);
            f.write(&[7; LEN]).expect("write");
            c.dfs.fsync(f.ofd).expect("fsync");
            let first = c.spawn(TEST, "stops");
            stopped(&first);
            ends_beside(c.spawn(TEST, "syncs"), first);
            c.dfs.fsync(f.ofd).expect("fsync");
            let content = Devices::now(&c).after_power_failure(&c);
            assert!(content == [9; LEN], "{}", c.label);
        }
    });
}

/// Dies at a point of a change of the size of `f`.
fn resize_and_die(dfs: &Dfs, role: &str) {
    let f = File::open(dfs, "f", O_RDWR);
    let (point, len) = role.split_once(' ').expect("role");
    let point = ["tx.built", "tx.closed"].into_iter().find(|p| *p == point);
    fault::arm(point.expect("point"), Action::Kill, 1);
    dfs.ftruncate(f.ofd, len.parse().expect("length"))
        .expect("truncate");
    unreachable!("killed before");
}

#[test]
fn a_mapping_keeps_what_a_truncation_that_was_killed_leaves() {
    const TEST: &str = "a_mapping_keeps_what_a_truncation_that_was_killed_leaves";
    const LEN: usize = 1 << 20;
    uaccess::install().expect("install");
    if let Some((role, dfs)) = role() {
        return resize_and_die(&dfs, &role);
    }
    alone(TEST, || {
        let die = |c: &Container, role: &str| {
            let status = c.spawn(TEST, role).wait().expect("wait");
            assert_eq!(status.signal(), Some(9), "{role}");
        };
        for c in both() {
            let f = c.file("f", O_RDWR);
            f.write(&[7; LEN]).expect("write");
            let map = Map::new(&c.dfs, f.ofd, true, 0, 2 * LEN);
            map.put(5000, b"stored");
            die(&c, "tx.built 0");
            assert_eq!(f.size(), LEN as u64);
            assert_eq!(map.get(5000, 6).as_deref(), Some(&b"stored"[..]));
            assert_eq!(f.content().get(5000..5006), Some(&b"stored"[..]));
            // Not longer than it is either.
            die(&c, &format!("tx.built {}", 2 * LEN));
            assert_eq!(f.pread(&mut [0; 10], LEN as u64 + 5000), Ok(0));
            assert_eq!(f.pread(&mut [0; 10], LEN as u64 - 4), Ok(4));
            map.put(6000, b"later");
            c.dfs.map_sync(f.ino, 0, u64::MAX, false).expect("sync");
            // Cut, but nobody has told the mapping.
            die(&c, "tx.closed 3000");
            assert_eq!(f.size(), 3000);
            assert_eq!(f.pread(&mut [0; 10], 5000), Ok(0));
            f.pwrite(b"end", 500_000).expect("write");
            assert_eq!(map.get(6000, 5).as_deref(), Some(&[0; 5][..]));
            assert_eq!(map.get(600_000, 1), None);
            let mut wanted = vec![7; 500_003];
            wanted[3000..500_000].fill(0);
            wanted[500_000..].copy_from_slice(b"end");
            assert!(f.content() == wanted, "{}", c.label);
            die(&c, "tx.closed 3000");
            c.dfs.ftruncate(f.ofd, LEN as u64).expect("truncate");
            assert_eq!(map.get(500_000, 3).as_deref(), Some(&[0; 3][..]));
            map.end(&c.dfs, f.ino);
            wanted.resize(LEN, 0);
            wanted[500_000..].fill(0);
            assert!(f.content() == wanted, "{}", c.label);
        }
    });
}
