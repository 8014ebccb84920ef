//! Damage to one file below a system root, by seed: the registry's, the pool maps, the attach file,
//! the ranks'. The commands give the right bytes, or one line that tells; none crashes or hangs, and
//! none gives bytes of another file.
//!
//! `PIL4DFS_DAMAGE_SEED` is the first seed (1), `PIL4DFS_DAMAGE_COUNT` their number (40).

mod common;

use common::{Holder, Ran, System};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const FILES: usize = 5;
/// A command that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % end.max(1)
    }
}

/// Words that are nobody else's.
fn content(file: usize) -> Vec<u8> {
    let words = 100 + file as u64 * 5000;
    (0..words)
        .flat_map(|word| ((file as u64 + 1) << 32 | word).to_le_bytes())
        .collect()
}

/// A system with files in it, that nobody uses; `disk` keeps the ranks elsewhere.
fn filled(disk: bool) -> System {
    let system = System::new();
    let mut create = vec!["pool", "create", "tank", "--size=48MiB", "--nranks=3"];
    let path = system.scratch("disk");
    let at = format!("--rank-path={}", path.display());
    if disk {
        std::fs::create_dir(&path).expect("directory");
        create.push(&at);
    }
    system.dmg(&create).ok();
    system.container("c1", "RP_2GX");
    for file in 0..FILES {
        if file == FILES / 2 {
            Holder::of(&system.root()).end();
        }
        let local = system.scratch("local");
        std::fs::write(&local, content(file)).expect("local");
        let (local, to) = (local.to_str().expect("path"), format!("/f{file}"));
        system.daos(&["fs", "put", "tank", "c1", local, &to]).ok();
    }
    system.dmg(&["system", "stop"]).ok();
    system
}

/// Everything below the places where a system keeps files, links included.
fn files(system: &System) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![system.root(), system.scratch("disk")];
    while let Some(dir) = queue.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type().expect("type").is_dir() {
                true => queue.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

/// Does something to a file; says what.
fn damage(path: &Path, others: &[PathBuf], dice: &mut Dice) -> String {
    let told = |what: &str| format!("{what}: {}", path.display());
    let name = path.file_name().expect("name");
    let link = path.symlink_metadata().expect("file").is_symlink();
    let kind = dice.below(7);
    if link || kind == 0 {
        std::fs::remove_file(path).expect("remove");
        return told("removed");
    }
    let file = std::fs::File::options().read(true).write(true).open(path);
    let file = file.expect("writable");
    let size = file.metadata().expect("size").len();
    let at = dice.below(if name == "log" {
        size.min(300_000)
    } else {
        size
    });
    // Data has no checksums of its own: what is changed in it is read.
    match kind {
        1 => {
            file.set_len(at).expect("cut");
            told("cut")
        }
        2 => {
            file.set_len(0).expect("cut");
            told("emptied")
        }
        _ if name == "data" => told("left alone"),
        3 => {
            let mut byte = [0];
            let read = file.read_at(&mut byte, at).expect("read");
            byte[0] ^= 1 << dice.below(8);
            file.write_all_at(&byte[..read], at).expect("write");
            told("a bit")
        }
        4 => {
            let len = dice.below(5000).min(size - at) as usize;
            file.write_all_at(&vec![0; len], at).expect("write");
            told("zeros")
        }
        5 => {
            let more: Vec<u8> = (0..dice.below(300))
                .map(|_| dice.below(256) as u8)
                .collect();
            file.write_all_at(&more, size).expect("write");
            told("more behind the end")
        }
        _ => {
            let same =
                |other: &&PathBuf| other.file_name() == Some(name) && other.as_path() != path;
            let same: Vec<&PathBuf> = others.iter().filter(same).collect();
            if !same.is_empty() {
                let other = same[dice.below(same.len() as u64) as usize];
                std::fs::copy(other, path).expect("copy");
            }
            told("another's")
        }
    }
}

/// Runs a command that may fail, but not in silence, by a signal, or for ever.
fn survives(system: &System, program: &str, args: &[&str]) -> Result<Vec<u8>, String> {
    let mut command = system.command(program, args);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdout = child.stdout.take().expect("stdout");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).expect("read");
        bytes
    });
    let begun = Instant::now();
    while child.try_wait().expect("wait").is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().expect("kill");
            panic!("{program} {args:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let ended = child.wait_with_output().expect("wait");
    let out = reader.join().expect("read");
    let ran = Ran {
        code: ended.status.code().unwrap_or(-1),
        out: String::new(),
        err: String::from_utf8_lossy(&ended.stderr).into_owned(),
    };
    match ran.code {
        0 => Ok(out),
        _ => Err(ran.fails(&[])),
    }
}

/// Reads everything; what can be read is right. Returns the errors.
fn look(system: &System) -> Vec<String> {
    let mut errors = Vec::new();
    let mut run = |program: &str, args: &[&str]| match survives(system, program, args) {
        Ok(out) => Some(out),
        Err(error) => {
            errors.push(error);
            None
        }
    };
    if let Some(names) = run("daos", &["fs", "ls", "tank", "c1"]) {
        let names = String::from_utf8(names).expect("names");
        assert_eq!(names.lines().count(), FILES, "{names}");
    }
    for file in 0..FILES {
        let name = format!("/f{file}");
        if let Some(bytes) = run("daos", &["fs", "cat", "tank", "c1", &name]) {
            assert!(bytes == content(file), "{name} is not what was stored");
        }
    }
    run("daos", &["container", "check", "tank", "c1"]);
    run("dmg", &["pool", "query", "tank"]);
    run("daos", &["pool", "list"]);
    run("dmg", &["system", "stop"]);
    errors
}

#[test]
fn holder() {
    common::hold();
}

#[test]
fn damage_is_told_or_made_good() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect(name))
    };
    let first = number("PIL4DFS_DAMAGE_SEED", 1);
    for seed in first..first + number("PIL4DFS_DAMAGE_COUNT", 40) {
        let mut dice = Dice(seed << 8);
        let system = filled(dice.below(3) == 0);
        let all = files(&system);
        // As often one of the few files beside the ranks' as one of theirs.
        let small: Vec<&PathBuf> = all
            .iter()
            .filter(|path| {
                !["data", "log", "meta"]
                    .iter()
                    .any(|name| path.ends_with(name))
            })
            .collect();
        let path = match dice.below(2) {
            0 => small[dice.below(small.len() as u64) as usize],
            _ => &all[dice.below(all.len() as u64) as usize],
        };
        println!("seed {seed}: {}", damage(path, &all, &mut dice));
        for error in look(&system) {
            println!("  {error}");
        }
    }
}

/// What a process that runs keeps others from, though the files that say so are damaged.
#[test]
fn small_files_damaged_while_the_pool_runs() {
    for seed in 1..=16 {
        let mut dice = Dice(seed << 8);
        let system = filled(seed % 4 == 0);
        let holder = Holder::of(&system.root());
        let all = files(&system);
        let small = ["attach", "pool.map", "home"];
        let small: Vec<&PathBuf> = all
            .iter()
            .filter(|path| small.iter().any(|name| path.ends_with(name)))
            .collect();
        let path = match seed {
            1..=6 => *small
                .iter()
                .find(|path| path.ends_with("attach"))
                .expect("attach"),
            _ => small[dice.below(small.len() as u64) as usize],
        };
        println!("seed {seed}: {}", damage(path, &all, &mut dice));
        for error in look(&system) {
            println!("  {error}");
        }
        holder.end();
        let mut errors = look(&system);
        if let Some(cure) = errors
            .first()
            .and_then(|error| error.split("then: rm ").nth(1))
        {
            // The attach file is gone, and with it what told that nobody has the shared memory.
            let arena = cure.trim_end().trim_end_matches(')');
            std::fs::remove_file(arena).expect("the cure");
            errors = look(&system);
        }
        if errors
            .iter()
            .any(|error| error.contains("copy pool.map from one"))
        {
            let whole = all.iter().find(|file| file.ends_with("rank01/pool.map"));
            std::fs::copy(whole.expect("map"), path).expect("the cure");
            errors = look(&system);
        }
        assert!(errors.is_empty(), "seed {seed}: {errors:?}");
    }
}

/// Nobody brings a pool up beside a process that has it, whatever became of the attach file.
#[test]
fn an_attach_file_that_is_lost_does_not_make_two_of_one_pool() {
    let system = filled(false);
    let holder = Holder::of(&system.root());
    let all = files(&system);
    let attach = all
        .iter()
        .find(|path| path.ends_with("attach"))
        .expect("attach");
    let before = std::fs::read(attach).expect("read");
    std::fs::write(attach, &before[..before.len() / 2]).expect("cut");
    let process = holder.id().to_string();
    system.daos(&["fs", "mkdir", "tank", "c1", "/d"]).fails(&[
        "attach is damaged",
        &process,
        "end that process",
    ]);
    // Removed, it takes the locks with it: the shared memory still says whose it is.
    std::fs::remove_file(attach).expect("removed");
    system
        .daos(&["fs", "mkdir", "tank", "c1", "/d"])
        .fails(&["runs from", "end the programs that use it"]);
    let uuid = attach
        .parent()
        .and_then(Path::file_name)
        .expect("directory");
    let uuid = uuid.to_string_lossy().replace('-', "");
    let arena = Path::new("/dev/shm").join(format!("daos-{uuid}"));
    assert!(arena.exists());
    holder.end();
    // Whoever destroys the pool means it.
    system.dmg(&["pool", "destroy", "-r", "tank"]).ok();
    assert!(!arena.exists());
}

#[test]
fn everything_is_covered() {
    let system = filled(true);
    let names: Vec<String> = files(&system)
        .iter()
        .map(|path| {
            path.file_name()
                .expect("name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    for name in [
        "attach", "data", "home", "lock", "log", "meta", "pool.map", "tank",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
}
