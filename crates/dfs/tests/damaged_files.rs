//! Damage to one file of a pool, by seed: bits flipped, ends cut off, ranges zeroed or exchanged, files
//! emptied, exchanged with those of other ranks, or removed. The pool opens with everything in it,
//! or an error tells; no call crashes, hangs, or gives bytes of another file.
//!
//! `PIL4DFS_DAMAGE_SEED` is the first seed (1), `PIL4DFS_DAMAGE_COUNT` their number (160).

mod common;

use common::{Container, ROOT, list};
use daos_types::{ObjectClass, Redundancy};
use dfs::{Dfs, IoVec};
use engine::testing::{self, Dice, TempPool};
use engine::{Pool, PoolSpec};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const RANKS: usize = 3;
const FILES: usize = 24;
/// Seeds of one process.
const PER_PROCESS: u64 = 20;
const JOB: &str = "PIL4DFS_DAMAGE_JOB";
const VICTIM: &str = "PIL4DFS_DAMAGE_VICTIM";

/// Words that are nobody else's.
fn content(file: usize) -> Vec<u8> {
    let words = 100 + file as u64 * 900;
    (0..words)
        .flat_map(|word| ((file as u64 + 1) << 32 | word).to_le_bytes())
        .collect()
}

fn store(dfs: &Dfs, file: usize) {
    let name = format!("f{file}");
    let made = dfs.create(&ROOT, dfs.root(), name.as_bytes(), 0o644, true);
    let ofd = dfs.open(&ROOT, made.expect("create").0, 2).expect("open");
    let bytes = content(file);
    let iov = [IoVec {
        base: bytes.as_ptr().cast_mut(),
        len: bytes.len(),
    }];
    // SAFETY: the buffer is only read.
    let wrote = unsafe { dfs.pwrite(ofd, &iov, 0, false) };
    assert_eq!(wrote, Ok(bytes.len()));
    dfs.fsync(ofd).expect("fsync");
    dfs.ofd_release(ofd).expect("release");
}

/// A pool with a checkpoint and a log behind it, on the devices.
fn fill(pool: &'static Pool) {
    let class = ObjectClass::new(Redundancy::Replicas(2), 1).expect("class");
    let info = Container::of_class(pool, "c", class.id());
    let dfs = Dfs::mount(pool, &info).expect("mount");
    for file in 0..FILES {
        if file == FILES / 2 {
            pool.checkpoint().expect("checkpoint");
        }
        store(&dfs, file);
    }
    pool.sync().expect("sync");
}

/// Does something to one file; says what, and where. `running`: under a process, which cannot see that the
/// last page of a file it has mapped ends early.
fn damage(image: &Path, dice: &mut Dice, running: bool) -> String {
    let names = ["data", "meta", "log"];
    let pick = |dice: &mut Dice, name: &str| {
        let rank = image.join(format!("rank{:02}", dice.number_below(RANKS as u64)));
        rank.join(name)
    };
    let name = names[dice.number_below(3) as usize];
    let path = pick(dice, name);
    let Ok(file) = std::fs::File::options().read(true).write(true).open(&path) else {
        return format!("{} does not exist", path.display());
    };
    let size = file.metadata().expect("size").len();
    // The log is not full.
    let used = if name == "log" { 400_000 } else { size };
    let mut at = dice.number_below(size.min(used));
    if running && name == "data" {
        at = at / 4096 * 4096;
    }
    let told = |what: &str| format!("{what} at {at} of {size} of {}", path.display());
    // Data has no checksums of its own here: what is changed in it is read.
    match dice.number_below(if name == "data" { 3 } else { 7 }) {
        0 => {
            file.set_len(at).expect("cut");
            told("cut")
        }
        1 => {
            std::fs::remove_file(&path).expect("remove");
            told("removed")
        }
        2 => {
            file.set_len(0).expect("cut");
            told("emptied")
        }
        3 => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("read");
            byte[0] ^= 1 << dice.number_below(8);
            file.write_all_at(&byte, at).expect("write");
            told("a bit")
        }
        4 => {
            let len = dice.number_below(9000).min(size - at) as usize;
            file.write_all_at(&vec![0; len], at).expect("write");
            told("zeros")
        }
        5 => {
            let len = dice.number_below(9000).min(size - at) as usize;
            let mut bytes = vec![0; len];
            let from = dice.number_below(size - len as u64);
            file.read_exact_at(&mut bytes, from).expect("read");
            file.write_all_at(&bytes, at).expect("write");
            told("other bytes of the file")
        }
        _ => {
            let other = pick(dice, name);
            if other != path && other.exists() {
                std::fs::copy(&other, &path).expect("copy");
            }
            told("another rank's file")
        }
    }
}

/// Reads everything; what can be read is right.
fn look(pool: &'static Pool) -> Result<(), String> {
    let Ok(info) = pool.find_container("c") else {
        return Ok(());
    };
    let Ok(dfs) = Dfs::mount(pool, &info) else {
        return Ok(());
    };
    let names = list(&dfs, dfs.root());
    if let Ok(names) = &names {
        let count = names.iter().filter(|name| *name != "new").count();
        if count != FILES {
            return Err(format!("{count} names"));
        }
    }
    for file in 0..FILES {
        let name = format!("f{file}");
        let ino = match dfs.lookup(&ROOT, dfs.root(), name.as_bytes()) {
            Ok(ino) => ino,
            Err(sys::Errno::ENOENT) => return Err(format!("{name} is missing")),
            Err(_) => continue,
        };
        let Ok(ofd) = dfs.open(&ROOT, ino, 0) else {
            continue;
        };
        let wanted = content(file);
        let mut bytes = vec![0; wanted.len() + 100];
        let iov = [IoVec {
            base: bytes.as_mut_ptr(),
            len: bytes.len(),
        }];
        // SAFETY: the buffer is exclusively ours.
        let read = unsafe { dfs.pread(ofd, &iov, 0) };
        if let Ok(read) = read
            && bytes[..read] != wanted[..]
        {
            let at = (0..read).find(|i| wanted.get(*i) != Some(&bytes[*i]));
            return Err(format!("{name}: {read} bytes, the first wrong one {at:?}"));
        }
        dfs.ofd_release(ofd).ok();
    }
    dfs.check_with(true, &mut |_| ()).ok();
    // What is stored now goes where nothing is.
    dfs.create(&ROOT, dfs.root(), b"new", 0o644, true).ok();
    pool.sync().ok();
    pool.leave().ok();
    Ok(())
}

fn copy_ranks(from: &PoolSpec, to: &Path) {
    for rank in &from.ranks {
        let dir = to.join(rank.file_name().expect("name"));
        std::fs::create_dir_all(&dir).expect("rank");
        for name in ["data", "meta", "log"] {
            if rank.join(name).exists() {
                std::fs::copy(rank.join(name), dir.join(name)).expect("copy");
            }
        }
    }
}

/// Damages and opens, for some seeds: the job is `FIRST COUNT`.
#[test]
fn player() {
    let Ok(job) = std::env::var(JOB) else { return };
    sys::uaccess::install().expect("install");
    let (first, count) = job.split_once(' ').expect("job");
    let first: u64 = first.parse().expect("seed");
    let temp = TempPool::with_log(Path::new("/dev/shm"), RANKS, 48, 1 << 20);
    fill(temp.pool);
    let base = PathBuf::from(format!("/dev/shm/pil4dfs-damaged-{}", std::process::id()));
    for seed in first..first + count.parse::<u64>().expect("count") {
        let mut dice = Dice(seed << 8);
        copy_ranks(temp.pool.spec(), &base);
        if dice.number_below(2) == 0 {
            testing::power_failed();
        }
        let told = damage(&base, &mut dice, false);
        println!("seed {seed}: {told}");
        let opened = testing::open_image(&base, temp.pool.spec());
        let looked = match opened {
            Ok(pool) => look(pool),
            Err(error) => {
                println!("  {error}");
                Ok(())
            }
        };
        std::fs::remove_dir_all(&base).expect("image");
        if let Err(problem) = looked {
            panic!("PIL4DFS_DAMAGE_SEED={seed} PIL4DFS_DAMAGE_COUNT=1 repeats this: {problem}");
        }
    }
}

fn start(first: u64, count: u64) -> Child {
    Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "player", "--nocapture"])
        .env(JOB, format!("{first} {count}"))
        .spawn()
        .expect("player")
}

#[test]
fn damage_is_an_error_or_nothing() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect(name))
    };
    let first = number("PIL4DFS_DAMAGE_SEED", 1);
    let count = number("PIL4DFS_DAMAGE_COUNT", 160);
    let mut seed = first;
    while seed < first + count {
        let now = PER_PROCESS.min(first + count - seed);
        let mut player = start(seed, now);
        let begun = Instant::now();
        let status = loop {
            match player.try_wait().expect("player") {
                Some(status) => break status,
                None if begun.elapsed() > Duration::from_secs(240) => {
                    player.kill().expect("kill");
                    panic!("seeds from {seed} on: an endless loop");
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        assert!(status.success(), "seeds from {seed} on: {status}");
        seed += now;
    }
}

/// A process whose files are cut or emptied under it: the job is the seed.
#[test]
fn victim() {
    let Ok(seed) = std::env::var(VICTIM) else {
        return;
    };
    sys::uaccess::install().expect("install");
    let mut dice = Dice(seed.parse().expect("seed"));
    let temp = TempPool::with_log(Path::new("/dev/shm"), RANKS, 48, 1 << 20);
    fill(temp.pool);
    let dir = temp.pool.spec().ranks[0].parent().expect("directory");
    let told = loop {
        let told = damage(dir, &mut dice, true);
        if ["cut", "emptied", "removed"]
            .iter()
            .any(|what| told.starts_with(what))
        {
            break told;
        }
    };
    println!("seed {seed}: {told}");
    for _ in 0..3 {
        if let Err(problem) = look(temp.pool) {
            panic!("seed {seed}: {problem}");
        }
    }
    // It cannot be taken down in good order.
    std::fs::remove_dir_all(dir).expect("directory");
    std::fs::remove_file(temp.pool.arena_path()).expect("arena");
    std::mem::forget(temp);
}

#[test]
fn files_cut_under_a_process_give_errors() {
    for seed in 0..24 {
        let status = Command::new(std::env::current_exe().expect("exe"))
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, seed.to_string())
            .status()
            .expect("victim");
        assert!(status.success(), "seed {seed}: {status}");
    }
}
