//! What nobody has synced, and the kernel has written back since, is there after a power failure:
//! of a process that has ended, of one that was killed and found, of one that goes on, of one that idles.

mod common;

use common::{Container, ROOT};
use daos_types::{ObjectClass, Redundancy};
use dfs::{Dfs, IoVec, Ofd};
use engine::Pool;
use engine::testing::{self, TempPool};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const JOB: &str = "PIL4DFS_UNSYNCED_JOB";
const START: u64 = 1_700_000_000_000_000_000;
/// Long enough after that.
const LATER: u64 = START + 11_000_000_000;
const LEN: usize = 40_000;

fn mount(pool: &'static Pool) -> Dfs {
    let info = pool.find_container("c").expect("container");
    Dfs::mount(pool, &info).expect("mount")
}

fn store(dfs: &Dfs, name: &str, pos: usize, bytes: &[u8]) {
    let made = dfs.create(&ROOT, dfs.root(), name.as_bytes(), 0o644, false);
    let ofd = dfs.open(&ROOT, made.expect("create").0, 2).expect("open");
    write(dfs, ofd, pos, bytes);
    dfs.ofd_release(ofd).expect("release");
}

fn write(dfs: &Dfs, ofd: Ofd, pos: usize, bytes: &[u8]) {
    let iov = [IoVec {
        base: bytes.as_ptr().cast_mut(),
        len: bytes.len(),
    }];
    // SAFETY: the buffer is only read.
    let wrote = unsafe { dfs.pwrite(ofd, &iov, pos as i64, false) };
    assert_eq!(wrote, Ok(bytes.len()));
}

/// Opens a file and locks it (`flock(2)`), if nobody else has.
fn flock(dfs: &Dfs) -> sys::Result<()> {
    const EXCLUSIVE_AT_ONCE: u32 = 2 | 4;
    let ino = dfs.lookup(&ROOT, dfs.root(), b"f").expect("name");
    let ofd = dfs.open(&ROOT, ino, 0).expect("open");
    dfs.flock(ofd, EXCLUSIVE_AT_ONCE, &|| false)
}

/// Stores so much in no time that what is stored next is not proven at once.
fn hurry(dfs: &Dfs) {
    for i in 0..64 {
        store(dfs, &format!("hurried{i}"), 0, &[1]);
        testing::stop_clock(START);
    }
}

/// The first bytes of a file after a power failure that everything written back has survived.
fn after_power_failure(temp: &TempPool, name: &str) -> Vec<u8> {
    let image = PathBuf::from(format!("/dev/shm/pil4dfs-unsynced-{}", std::process::id()));
    for rank in &temp.pool.spec().ranks {
        let dir = image.join(rank.file_name().expect("name"));
        std::fs::create_dir_all(&dir).expect("rank");
        for file in ["data", "meta", "log"] {
            if rank.join(file).exists() {
                std::fs::copy(rank.join(file), dir.join(file)).expect("copy");
            }
        }
    }
    testing::power_failed();
    let pool = testing::open_image(&image, temp.pool.spec()).expect("recovered");
    let dfs = mount(pool);
    let ino = dfs.lookup(&ROOT, dfs.root(), name.as_bytes());
    let ofd = dfs.open(&ROOT, ino.expect("name"), 0).expect("open");
    let mut bytes = vec![0; LEN];
    let iov = [IoVec {
        base: bytes.as_mut_ptr(),
        len: LEN,
    }];
    // SAFETY: the buffer is exclusively ours.
    let read = unsafe { dfs.pread(ofd, &iov, 0) };
    assert_eq!(read, Ok(LEN));
    dfs.ofd_release(ofd).expect("release");
    pool.leave().expect("leave");
    std::fs::remove_dir_all(&image).expect("image");
    bytes
}

fn pool(copies: u8) -> TempPool {
    let temp = TempPool::with_log(Path::new("/dev/shm"), 3, 48, 1 << 20);
    let class = ObjectClass::new(Redundancy::Replicas(copies), 1).expect("class");
    Container::of_class(temp.pool, "c", class.id());
    temp.pool.sync().expect("sync");
    temp
}

/// Another process: `end` or `die` after it has stored something, or after it has overwritten or locked it;
/// `idle` stays and does nothing more, `look` attaches and ends, unless it stops or dies at it. All but those
/// that idle `at once` have stored a lot before.
#[test]
fn other() {
    let Ok(job) = std::env::var(JOB) else { return };
    let (what, handover) = job.rsplit_once(' ').expect("job");
    testing::stop_clock(match what {
        what if what.starts_with("look") => LATER,
        _ => START,
    });
    let pool = testing::attach_from(handover);
    if what == "look and die" {
        shm::fault::arm("prove.left", shm::fault::Action::Kill, 1);
    }
    if what == "look at another and die" {
        shm::fault::arm("prove.process", shm::fault::Action::Kill, 1);
    }
    if what == "look at another and stop" {
        shm::fault::arm("prove.process", shm::fault::Action::Stop, 1);
    }
    let dfs = mount(pool);
    if what.starts_with("look") {
        pool.leave().expect("leave");
        return;
    }
    if !what.starts_with("idle at once") {
        hurry(&dfs);
    }
    if what == "idle, many" {
        // Several times what is proven in passing, before the file that is looked at; none of it at once, as
        // no time has passed.
        testing::stop_clock(START - 1_000_000);
        for i in 0..20 {
            store(&dfs, &format!("many{i}"), 0, &[6; 40 * 4096]);
        }
    }
    match what {
        "idle at once, open" => {
            let made = dfs.create(&ROOT, dfs.root(), b"f", 0o644, false);
            let ofd = dfs.open(&ROOT, made.expect("create").0, 2).expect("open");
            write(&dfs, ofd, 0, &[7; LEN]);
        }
        // More than is proven in passing.
        "idle at once, large" => store(&dfs, "f", 0, &[7; 6 << 20]),
        _ => store(&dfs, "f", 0, &[7; LEN]),
    }
    if what == "idle at once, overwritten" {
        store(&dfs, "f", 5000, &[8; 100]);
    }
    if what.starts_with("idle") {
        println!("\nstored");
        std::io::stdin().read_line(&mut String::new()).expect("end");
        return;
    }
    if what == "sync and overwrite" {
        let ino = dfs.lookup(&ROOT, dfs.root(), b"f").expect("name");
        let ofd = dfs.open(&ROOT, ino, 0).expect("open");
        dfs.fsync(ofd).expect("fsync");
        dfs.ofd_release(ofd).expect("release");
    }
    if what.ends_with("overwrite") {
        pool.prove().expect("prove");
        store(&dfs, "f", 5000, &[8; 100]);
    }
    if what == "lock and die" {
        flock(&dfs).expect("lock");
    }
    if what.ends_with("die") {
        signal(std::process::id(), 9);
    }
    pool.prove().expect("prove");
    dfs.depart().expect("depart");
    pool.leave().expect("leave");
}

unsafe extern "C" {
    #[link_name = "kill"]
    fn libc_kill(pid: i32, signal: i32) -> i32;
}

const SIGCONT: i32 = 18;

fn signal(pid: u32, signal: i32) {
    // SAFETY: no memory is touched.
    assert_eq!(unsafe { libc_kill(pid as i32, signal) }, 0);
}

fn spawn(what: &str, temp: &TempPool) -> Child {
    Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "other"])
        .env(JOB, format!("{what} {}", temp.handover()))
        .spawn()
        .expect("other")
}

fn wait_until_stopped(child: &Child) {
    for _ in 0..1000 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
        if stat.expect("stat").contains(") T ") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it does not stop");
}

fn run(what: &str, temp: &TempPool) {
    let status = spawn(what, temp).wait();
    let killed = status.expect("other").signal();
    assert_eq!(killed, what.ends_with("die").then_some(9), "{what}");
}

/// Builds another arena from the pool's files, while the machine stays on.
fn after_loss_of_memory(temp: &TempPool, look: impl FnOnce(&'static Pool)) {
    let spec = temp.pool.spec();
    let dir = spec.ranks.first().and_then(|rank| rank.parent());
    let pool = testing::open_image(dir.expect("directory"), spec).expect("recovered");
    look(pool);
    pool.leave().expect("leave");
}

/// Who looks in on a pool looks through a piece of the log for others, however long it is.
#[test]
fn others_are_proven_a_piece_at_a_time() {
    testing::stop_clock(START);
    let temp = TempPool::with_log(Path::new("/dev/shm"), 3, 96, 16 << 20);
    let class = ObjectClass::new(Redundancy::Replicas(3), 1).expect("class");
    Container::of_class(temp.pool, "c", class.id());
    temp.pool.sync().expect("sync");
    let mut other = idle("idle", &temp);
    let dfs = mount(temp.pool);
    for i in 0..5000 {
        let name = format!("d{i}");
        let made = dfs.mkdir(&ROOT, dfs.root(), name.as_bytes(), 0o755);
        made.expect("mkdir");
    }
    let unproven = || {
        let slots = 0..engine::process::used(temp.pool).expect("slots");
        let mut slots = slots.filter(|slot| engine::process::pid(temp.pool, *slot) != Ok(0));
        slots.any(|slot| engine::process::is_unproven(temp.pool, slot) == Ok(true))
    };
    let mut looks = 0;
    while unproven() {
        run("look", &temp);
        looks += 1;
        assert!(looks < 1000, "it never ends");
    }
    assert!(looks > 1, "all of it at once");
    temp.pool.leave().expect("leave");
    other.kill().expect("kill");
    other.wait().expect("other");
}

/// What a dead process has locked is free before its data is proven.
#[test]
fn locks_of_the_dead_do_not_wait_for_its_data() {
    testing::stop_clock(START);
    let temp = pool(3);
    run("lock and die", &temp);
    let mut stopped = spawn("look at another and stop", &temp);
    wait_until_stopped(&stopped);
    let locked = flock(&mount(temp.pool));
    signal(stopped.id(), SIGCONT);
    assert!(stopped.wait().expect("other").success());
    assert_eq!(locked, Ok(()));
    temp.pool.leave().expect("leave");
}

/// Starts a process that stores something and then lives on.
fn idle(what: &str, temp: &TempPool) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "other", "--nocapture"])
        .env(JOB, format!("{what} {}", temp.handover()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("other");
    let mut lines = BufReader::new(child.stdout.take().expect("output")).lines();
    assert!(lines.any(|line| line.expect("line") == "stored"));
    child
}

/// Runs each case in a process of its own: pools are few, and the clock is stopped.
#[test]
fn unsynced_data_is_there_once_it_is_proven() {
    const CASE: &str = "PIL4DFS_UNSYNCED_CASE";
    let Ok(case) = std::env::var(CASE) else {
        for case in [
            "nothing",
            "end",
            "die",
            "overwrite",
            "sync and overwrite",
            "die and nobody after the memory was lost",
            "die and looked at after the memory was lost",
            "die and twice looked at after the memory was lost",
            "time",
            "idle",
            "idle and nobody",
            "idle and looked at",
            "idle and twice looked at",
            "idle at once, closed",
            "idle at once, open",
            "idle at once, large",
            "idle at once, overwritten",
            "die and twice found",
            "idle, killed and found beside another",
        ] {
            for copies in ["1", "3"] {
                let status = Command::new(std::env::current_exe().expect("exe"))
                    .args(["--exact", "unsynced_data_is_there_once_it_is_proven"])
                    .env(CASE, format!("{case} {copies}"))
                    .status();
                assert!(status.expect("case").success(), "{case} {copies}");
            }
        }
        return;
    };
    let (case, copies) = case.rsplit_once(' ').expect("case");
    testing::stop_clock(START);
    let temp = pool(copies.parse().expect("copies"));
    let dfs = mount(temp.pool);
    let mut wanted = vec![7; LEN];
    let mut other = None;
    match case {
        // Who does not prove loses what is not synced: the rest of this test can fail.
        "nothing" => {
            hurry(&dfs);
            store(&dfs, "f", 0, &wanted);
            wanted.fill(0);
        }
        "end" => run("end", &temp),
        "overwrite" | "sync and overwrite" => {
            run(case, &temp);
            wanted[5000..5100].fill(8);
        }
        "die" => {
            run("die", &temp);
            assert_eq!(dfs.reap(1000), Ok(1));
        }
        // Nobody knows any more who had stored it.
        "die and nobody after the memory was lost" => {
            run("die", &temp);
            after_loss_of_memory(&temp, |_| ());
            wanted.fill(0);
        }
        "die and looked at after the memory was lost" => {
            run("die", &temp);
            after_loss_of_memory(&temp, |pool| {
                mount(pool);
            });
        }
        // The first who looks is killed before it has noted what it did.
        "die and twice looked at after the memory was lost" => {
            run("die", &temp);
            std::fs::remove_file(temp.pool.arena_path()).expect("arena");
            run("look and die", &temp);
            run("look", &temp);
        }
        "idle and nobody" => {
            other = Some(idle("idle", &temp));
            wanted.fill(0);
        }
        // Nobody does anything any more.
        "idle at once, closed" | "idle at once, open" | "idle at once, large" => {
            other = Some(idle(case, &temp));
        }
        "idle at once, overwritten" => {
            other = Some(idle(case, &temp));
            wanted[5000..5100].fill(8);
        }
        "idle and looked at" => {
            other = Some(idle("idle", &temp));
            run("look", &temp);
        }
        // The first who looks is killed at it.
        "idle and twice looked at" => {
            other = Some(idle("idle", &temp));
            run("look at another and die", &temp);
            run("look", &temp);
        }
        "die and twice found" => {
            run("die", &temp);
            run("look at another and die", &temp);
            dfs.reap(1000).expect("reap");
        }
        // Somebody is at a piece of it: who buries the dead process does not wait, and whoever comes
        // next does the rest.
        "idle, killed and found beside another" => {
            let mut killed = idle("idle, many", &temp);
            let mut stopped = spawn("look at another and stop", &temp);
            wait_until_stopped(&stopped);
            killed.kill().expect("kill");
            killed.wait().expect("other");
            assert_eq!(dfs.reap(1000), Ok(1));
            run("look", &temp);
            signal(stopped.id(), SIGCONT);
            assert!(stopped.wait().expect("other").success());
            for _ in 0..20 {
                run("look", &temp);
            }
        }
        _ => {
            if case == "idle" {
                other = Some(idle("idle", &temp));
            } else {
                hurry(&dfs);
                store(&dfs, "f", 0, &wanted);
            }
            testing::stop_clock(LATER);
            for name in ["a", "b", "c"] {
                dfs.mkdir(&ROOT, dfs.root(), name.as_bytes(), 0o755)
                    .expect("mkdir");
            }
        }
    }
    assert_eq!(after_power_failure(&temp, "f"), wanted, "{case} {copies}");
    if let Some(mut other) = other {
        other.kill().expect("kill");
        other.wait().expect("other");
    }
}
