//! Writers killed at any moment, readers beside writers, a full pool, wild pointers.

mod support;

use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Dfs, IoVec};
use engine::testing::audit;
use rustix::process::{Pid, WaitOptions, waitpid};
use shm::fault::{self, Action};
use std::process::Child;
use std::time::{Duration, Instant};
use support::{Container, File, O_APPEND, O_RDONLY, O_RDWR, O_WRONLY, ROOT, containers, role, say};
use sys::{Errno, uaccess};

fn rp3() -> ObjectClass {
    ObjectClass::new(Redundancy::Replicas(3), GROUPS_MAX).expect("class")
}

/// A small generator: the tests need spread, not quality.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn seconds() -> u64 {
    std::env::var("PIL4DFS_TEST_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(3)
}

const BLOCKS: u64 = 64;

#[test]
fn replicated_blocks_are_never_read_torn() {
    if let Some((role, dfs)) = role() {
        let seed: u64 = role.parse().expect("seed");
        let f = File::open(&dfs, "f", O_RDWR);
        let mut random = Random(seed * 7919 + 1);
        say("ready");
        loop {
            let block = [random.below(256) as u8; 4096];
            f.pwrite(&block, random.below(BLOCKS) * 4096)
                .expect("write");
        }
    }
    let c = Container::new(rp3(), 128);
    let f = c.file("f", O_RDWR);
    f.write(&vec![1; BLOCKS as usize * 4096]).expect("write");
    let test = "replicated_blocks_are_never_read_torn";
    let mut writers: Vec<Child> = (0..3).map(|i| c.spawn(test, &i.to_string())).collect();
    for writer in &mut writers {
        assert_eq!(support::heard(writer), "ready");
    }
    let end = Instant::now() + Duration::from_secs(seconds().min(3));
    let mut random = Random(99);
    let mut reads = 0u64;
    while Instant::now() < end {
        let mut bytes = [0u8; 16384];
        let at = random.below(BLOCKS - 3) * 4096;
        assert_eq!(f.pread(&mut bytes, at), Ok(16384));
        for block in bytes.chunks(4096) {
            assert!(block.iter().all(|b| *b == block[0]), "torn");
        }
        reads += 1;
    }
    for writer in &mut writers {
        writer.kill().expect("kill");
        writer.wait().expect("wait");
    }
    assert!(reads > 100, "only {reads} reads beside the writers");
    f.pwrite(&[3; 8192], 0).expect("nothing is left locked");
}

/// Appends the same numbered records to two files, one after the other, and changes a third at
/// random, until it is killed.
fn storm(dfs: &Dfs, who: u64) -> ! {
    let mut random = Random(u64::from(std::process::id()) << 20 | who << 1 | 1);
    let first = File::open(dfs, &format!("first{who}"), O_WRONLY | O_APPEND);
    let second = File::open(dfs, &format!("second{who}"), O_WRONLY | O_APPEND);
    let shared = File::open(dfs, "shared", O_RDWR);
    let start = first.size() / RECORD as u64;
    say("ready");
    for number in start.. {
        if number < RECORDS_MAX {
            let record = record(number);
            assert_eq!(first.write(&record), Ok(RECORD));
            assert_eq!(second.write(&record), Ok(RECORD));
        }
        let (pos, len) = (random.below(600_000), random.below(100_000) + 1);
        match random.below(6) {
            0 => dfs.ftruncate(shared.ofd, pos).expect("truncate"),
            1 => dfs
                .fallocate(shared.ofd, 3, pos as i64, len as i64)
                .expect("punch"),
            2 => dfs
                .fallocate(shared.ofd, 0, pos as i64, len as i64)
                .expect("allocate"),
            _ => drop(
                shared
                    .pwrite(&vec![who as u8 + 1; len as usize], pos)
                    .expect("write"),
            ),
        }
    }
    unreachable!("killed before")
}

const RECORD: usize = 777;
/// Records of a file: the pool must not fill up.
const RECORDS_MAX: u64 = 20_000;

fn record(number: u64) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = (number.wrapping_mul(31) + i as u64) as u8;
    }
    bytes
}

fn check_storm(c: &Container, writers: u64) {
    for who in 0..writers {
        let first = c.file(&format!("first{who}"), O_RDONLY).content();
        let second = c.file(&format!("second{who}"), O_RDONLY).content();
        assert_eq!(
            first.len() % RECORD,
            0,
            "{}: a record is there or not",
            c.label
        );
        assert_eq!(second.len() % RECORD, 0);
        let counts = (first.len() / RECORD, second.len() / RECORD);
        // Each death may have cut between the two.
        assert!(
            counts.0 >= counts.1,
            "{}: completed appends are there: {counts:?}",
            c.label
        );
        for (number, found) in first.chunks(RECORD).enumerate() {
            assert!(
                found == record(number as u64),
                "{}: record {number} of {who}",
                c.label
            );
        }
    }
    let shared = c.file("shared", O_RDONLY).content();
    assert!(
        shared.iter().all(|b| u64::from(*b) <= writers),
        "bytes of another file"
    );
}

#[test]
fn writers_may_be_killed_at_any_moment() {
    const WRITERS: u64 = 4;
    if let Some((role, dfs)) = role() {
        storm(&dfs, role.parse().expect("who"));
    }
    for c in containers(1024) {
        c.pool.pool.leave().expect("leave");
        let before = c.used();
        drop(c.file("shared", O_RDWR));
        let spawn = |who: u64| {
            let mut child = c.spawn("writers_may_be_killed_at_any_moment", &who.to_string());
            assert_eq!(support::heard(&mut child), "ready");
            child
        };
        let mut writers: Vec<Child> = (0..WRITERS).map(&spawn).collect();
        let mut random = Random(u64::from(std::process::id()) | 1);
        let end = Instant::now() + Duration::from_secs(seconds());
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(random.below(40)));
            let who = random.below(WRITERS);
            let victim = &mut writers[who as usize];
            assert!(
                victim.try_wait().expect("wait").is_none(),
                "ended by itself"
            );
            victim.kill().expect("kill");
            victim.wait().expect("wait");
            *victim = spawn(who);
        }
        for victim in &mut writers {
            assert!(
                victim.try_wait().expect("wait").is_none(),
                "ended by itself"
            );
            victim.kill().expect("kill");
            victim.wait().expect("wait");
        }
        c.dfs.reap(usize::MAX).expect("reap");
        check_storm(&c, WRITERS);
        for who in 0..WRITERS {
            for name in [format!("first{who}"), format!("second{who}")] {
                c.dfs
                    .unlink(&ROOT, c.dfs.root(), name.as_bytes())
                    .expect("unlink");
            }
        }
        c.dfs
            .unlink(&ROOT, c.dfs.root(), b"shared")
            .expect("unlink");
        c.pool.pool.reap().expect("reap");
        c.pool.pool.leave().expect("leave");
        assert_eq!(c.used(), before, "{}: space leaked", c.label);
    }
}

#[test]
fn a_full_pool_is_readable_and_deletable() {
    for class in [ObjectClass::S1, ObjectClass::SX, rp3()] {
        let c = Container::new(class, 48);
        c.pool.pool.leave().expect("leave");
        let before = c.used();
        let f = c.file("f", O_RDWR);
        let chunk: Vec<u8> = (0..300_000u32).map(|i| (i / 3) as u8).collect();
        let mut total = 0;
        let errno = loop {
            match f.write(&chunk) {
                Ok(written) => total += written,
                Err(errno) => break errno,
            }
            assert!(total < 64 << 20, "the pool never fills");
        };
        assert_eq!(errno, Errno::ENOSPC);
        assert!(total > 8 << 20, "full after {total} bytes");
        assert_eq!(f.size(), total as u64);
        let content = f.content();
        let expected = chunk.iter().cycle().take(total);
        assert!(content.iter().eq(expected));
        // Overwriting in place needs no space; shrinking gives it back.
        c.dfs.ftruncate(f.ofd, total as u64 / 2).expect("truncate");
        f.write(b"at the old offset").expect("write");
        c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
        drop(f);
        c.pool.pool.leave().expect("leave");
        assert_eq!(c.used(), before);
        assert_eq!(c.file("g", O_WRONLY).write(&chunk), Ok(chunk.len()));
    }
}

#[test]
fn wild_pointers_are_efault() {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
    uaccess::install().expect("install");
    // SAFETY: a fresh mapping; its second half becomes inaccessible.
    let base = unsafe {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let base =
            rustix::mm::mmap_anonymous(core::ptr::null_mut(), 16384, prot, MapFlags::PRIVATE)
                .expect("mmap");
        rustix::mm::mprotect(base.byte_add(8192), 8192, MprotectFlags::empty()).expect("mprotect");
        base.cast::<u8>()
    };
    for c in containers(128) {
        let f = c.file("f", O_RDWR);
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 253) as u8).collect();
        f.write(&content).expect("write");
        let half = |skip: usize, len: usize| {
            [IoVec {
                base: base.wrapping_add(skip),
                len,
            }]
        };
        // SAFETY: the mapping is ours; the rest of each buffer is the wild part under test.
        unsafe {
            assert_eq!(c.dfs.pread(f.ofd, &half(8192, 10), 0), Err(Errno::EFAULT));
            assert_eq!(
                c.dfs.pwrite(f.ofd, &half(8192, 10), 0, false),
                Err(Errno::EFAULT)
            );
            let null = [IoVec {
                base: core::ptr::null_mut(),
                len: 10,
            }];
            assert_eq!(c.dfs.pread(f.ofd, &null, 0), Err(Errno::EFAULT));
            assert_eq!(
                c.dfs.pread(f.ofd, &half(8000, 5000), 50),
                Ok(192),
                "{}",
                c.label
            );
            assert!(core::slice::from_raw_parts(base.add(8000), 192) == &content[50..242]);
            base.write_bytes(9, 8192);
            assert_eq!(
                c.dfs.pwrite(f.ofd, &half(0, 16384), 60_000, false),
                Ok(8192)
            );
        }
        let now = f.content();
        assert!(now[60_000..68_192].iter().all(|b| *b == 9));
        assert!(now[..60_000] == content[..60_000] && now[68_192..] == content[68_192..]);
    }
}

/// Where a writer dies or stops.
const POINTS: [&str; 15] = [
    "lock.noted",
    "lock.held",
    "log.noted",
    "log.published",
    "log.written",
    "pages.extending",
    "pages.reserved",
    "space.cleared",
    "space.noted",
    "space.returned",
    "space.taken",
    "tx.built",
    "tx.published",
    "tx.applying",
    "tx.closed",
];

/// Changes a file in every way until the armed point is reached, or gives up.
fn change(dfs: &Dfs, seed: u64) {
    let f = File::open(dfs, "f", O_RDWR);
    let mut random = Random(seed << 8 | 1);
    for _ in 0..400 {
        let (pos, len) = (random.below(400_000), random.below(60_000) + 1);
        match random.below(6) {
            0 => dfs.ftruncate(f.ofd, pos).expect("truncate"),
            1 => dfs
                .fallocate(f.ofd, 3, pos as i64, len as i64)
                .expect("punch"),
            2 => dfs
                .fallocate(f.ofd, 16, pos as i64, len as i64)
                .expect("zero"),
            _ => drop(f.pwrite(&vec![7; len as usize], pos).expect("write")),
        }
    }
}

#[test]
#[allow(clippy::zombie_processes, reason = "waited for by waitpid")]
fn readers_go_on_beside_a_writer_stopped_anywhere() {
    if let Some((role, dfs)) = role() {
        let mut words = role.split(' ');
        let mut number = || words.next().expect("role").parse::<u64>().expect("number");
        let (point, stop, nth) = (number() as usize, number() == 1, number());
        let action = if stop { Action::Stop } else { Action::Kill };
        fault::arm(POINTS[point], action, nth);
        return change(&dfs, nth * 31 + point as u64);
    }
    for class in [ObjectClass::S1, rp3()] {
        let c = Container::new(class, 256);
        let f = c.file("f", O_RDWR);
        let mut random = Random(u64::from(std::process::id()) | 1);
        let mut reached = 0;
        for (point, name) in POINTS.iter().enumerate() {
            for stop in [1, 0] {
                f.pwrite(&[7; 300_000], 0).expect("write");
                let role = format!("{point} {stop} {}", random.below(40) + 1);
                let mut child = c.spawn("readers_go_on_beside_a_writer_stopped_anywhere", &role);
                let pid = Pid::from_raw(child.id() as i32).expect("pid");
                let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED)
                    .expect("wait")
                    .expect("status");
                reached += usize::from(status.stopped() || status.signaled());
                let start = Instant::now();
                let content = f.content();
                assert!(content.iter().all(|b| *b == 7 || *b == 0), "{name}");
                assert!(
                    start.elapsed() < Duration::from_millis(500),
                    "{name}: readers waited"
                );
                if status.stopped() {
                    child.kill().expect("kill");
                    child.wait().expect("wait");
                }
                let start = Instant::now();
                f.pwrite(b"nothing is locked for ever", 1_000_000)
                    .expect("write");
                c.dfs.ftruncate(f.ofd, 0).expect("truncate");
                assert!(
                    start.elapsed() < Duration::from_secs(1),
                    "{name}: a survivor waited"
                );
            }
        }
        assert!(
            reached >= POINTS.len(),
            "{}: only {reached} points were reached",
            c.label
        );
        c.dfs.reap(usize::MAX).expect("reap");
        c.pool.pool.reap().expect("reap");
        c.dfs.unlink(&ROOT, c.dfs.root(), b"f").expect("unlink");
        drop(f);
        c.pool.pool.leave().expect("leave");
        audit(c.pool.pool);
    }
}
