//! Bringing a pool up in every state that it may be found in: it opens by itself where that is safe,
//! and refuses with one line that names the cure where it is not. Real processes, real files.

mod common;

use common::{Holder, Ran, System, run};
use engine::system::{AttachFile, Authority};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const BYTES: usize = 300_000;

fn content() -> Vec<u8> {
    (0..BYTES as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn put(system: &System, to: &str) {
    let local = system.scratch("local");
    std::fs::write(&local, content()).expect("local");
    let local = local.to_str().expect("path");
    system.daos(&["fs", "put", "tank", "c1", local, to]).ok();
}

/// Takes the directory of a rank away, and brings it back.
fn take_away(system: &System, rank: u16) {
    let dir = pool_dir(system).join(format!("rank{rank:02}"));
    std::fs::rename(&dir, system.scratch(&format!("away{rank}"))).expect("away");
}

fn bring_back(system: &System, rank: u16) {
    let dir = pool_dir(system).join(format!("rank{rank:02}"));
    std::fs::rename(system.scratch(&format!("away{rank}")), dir).expect("back");
}

/// A pool of so many ranks with a container of this class and the file `/f`.
fn filled(ranks: u16, class: &str) -> System {
    let system = System::with_tank(ranks);
    system.container("c1", class);
    put(&system, "/f");
    system
}

fn get(system: &System) -> Ran {
    let back = system.scratch("back");
    std::fs::remove_file(&back).unwrap_or_default();
    let back = back.to_str().expect("path");
    system.daos(&["fs", "get", "tank", "c1", "/f", back])
}

fn whole(system: &System) {
    get(system).ok();
    let back = std::fs::read(system.scratch("back")).expect("back");
    assert!(back == content(), "other bytes");
    let check = system.daos(&["container", "check", "tank", "c1"]).ok();
    assert!(check.contains("inconsistent: 0"), "{check}");
}

fn mkdir(system: &System, name: &str) -> Ran {
    system.daos(&["fs", "mkdir", "tank", "c1", name])
}

fn pool_dir(system: &System) -> PathBuf {
    let mut pools = std::fs::read_dir(system.root().join("pools")).expect("pools");
    pools.next().expect("a pool").expect("entry").path()
}

fn attach_file(system: &System) -> AttachFile {
    AttachFile::open(&pool_dir(system)).expect("attach file")
}

fn authority(system: &System) -> Authority {
    attach_file(system).read().expect("authority")
}

/// As if the pool had run elsewhere last: on another start of the machine, or another machine.
fn ran_elsewhere(system: &System, change: impl Fn(&mut Authority)) {
    let file = attach_file(system);
    let mut authority = file.read().expect("authority");
    change(&mut authority);
    let lock = file.lock().expect("lock");
    file.write(&lock, &authority).expect("written");
}

#[test]
fn holder() {
    common::hold();
}

#[test]
fn after_a_restart_of_the_machine() {
    let system = filled(3, "RP_2GX");
    mkdir(&system, "/d").ok();
    // What a restart leaves: no shared memory, another boot id, and a log of before.
    std::fs::remove_file(&authority(&system).arena).expect("shared memory");
    ran_elsewhere(&system, |authority| authority.boot = "another".into());
    for rank in 0..3 {
        let log = pool_dir(&system).join(format!("rank{rank:02}/log"));
        if let Ok(log) = std::fs::File::options().write(true).open(log) {
            log.write_all_at(&0x5555_u64.to_ne_bytes(), 40)
                .expect("boot id");
        }
    }
    whole(&system);
    assert_eq!(system.daos(&["fs", "ls", "tank", "c1"]).ok(), "d\nf\n");
    let here = Authority::here(0, Path::new(""));
    assert_eq!(authority(&system).boot, here.boot);
}

#[test]
fn shared_memory_that_vanished_is_built_again_once_nobody_has_it() {
    let system = filled(2, "RP_2GX");
    std::fs::remove_file(&authority(&system).arena).expect("shared memory");
    whole(&system);
    let holder = Holder::of(&system.root());
    let before = authority(&system);
    std::fs::remove_file(&before.arena).expect("shared memory");
    let process = holder.id().to_string();
    let cure = [
        "attached by process",
        &process,
        "not visible",
        "end that process",
    ];
    mkdir(&system, "/d").fails(&cure);
    system.dmg(&["pool", "query", "tank"]).fails(&cure);
    assert_eq!(authority(&system), before);
    holder.end();
    mkdir(&system, "/d").ok();
    whole(&system);
}

/// Runs a shell command where `/dev/shm` is another.
fn in_container(system: &System, command: &str) -> Ran {
    let script = format!("mount -t tmpfs none /dev/shm && exec {command}");
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--", "sh", "-c", &script]);
    run(shell.env("DAOS_EMBEDDED_ROOT", system.root()))
}

#[test]
fn a_container_with_shared_memory_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let system = filled(2, "RP_2GX");
    let daos = env!("CARGO_BIN_EXE_daos");
    let mkdir_there =
        |name: &str| in_container(&system, &format!("{daos} fs mkdir tank c1 {name}"));
    let holder = Holder::of(&system.root());
    let process = holder.id().to_string();
    mkdir_there("/refused").fails(&["attached by process", &process, "the same /dev/shm"]);
    mkdir(&system, "/outside").ok();
    holder.end();
    // Nobody has it: it comes up there, and here again, each time with everything.
    mkdir_there("/inside").ok();
    mkdir(&system, "/outside_again").ok();
    assert_eq!(
        system.daos(&["fs", "ls", "tank", "c1"]).ok(),
        "f\ninside\noutside\noutside_again\n"
    );
    whole(&system);
}

/// Where the bytes of a log end that are not zeros.
fn log_end(log: &Path) -> usize {
    let bytes = std::fs::read(log).expect("log");
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

#[test]
fn a_torn_end_of_the_log_is_cut() {
    let system = filled(1, "S1");
    let rank = pool_dir(&system).join("rank00");
    let log = rank.join("log");
    let safe = log_end(&log);
    for name in ["/a", "/b", "/c"] {
        mkdir(&system, name).ok();
    }
    let end = log_end(&log);
    let kept = system.scratch("kept");
    std::fs::remove_file(&authority(&system).arena).expect("shared memory");
    let copied = Command::new("cp").arg("-a").args([&rank, &kept]).status();
    assert!(copied.expect("cp").success());
    let mut most = 0;
    for step in 0..12 {
        let at = safe + (end - safe) * step / 12;
        let torn = std::fs::File::options()
            .write(true)
            .open(&log)
            .expect("log");
        torn.write_all_at(&vec![0x5a; end - at], at as u64)
            .expect("torn");
        whole(&system);
        let names = system.daos(&["fs", "ls", "tank", "c1"]).ok();
        // Names of one moment, none of which comes after one that is lost.
        let told = names.strip_suffix("f\n").expect("the file");
        assert!("a\nb\nc\n".starts_with(told), "{names}");
        most = most.max(names.lines().count());
        std::fs::remove_file(&authority(&system).arena).expect("shared memory");
        for file in ["log", "data", "meta"] {
            let file = Path::new(file);
            if std::fs::copy(kept.join(file), rank.join(file)).is_err() {
                // The checkpoint of a recovery that dropped something.
                std::fs::remove_file(rank.join(file)).unwrap_or_default();
            }
        }
    }
    assert!(most > 1, "only the file was ever there");
}

#[test]
fn a_lost_rank_of_a_redundant_class() {
    for lost in 0..3 {
        let system = filled(3, "RP_2GX");
        system.dmg(&["system", "stop"]).ok();
        take_away(&system, lost);
        get(&system).ok();
        assert!(std::fs::read(system.scratch("back")).expect("back") == content());
        mkdir(&system, "/d").ok();
        // Others take its place.
        for n in 0..6 {
            put(&system, &format!("/d/f{n}"));
        }
        system.dmg(&["system", "stop"]).ok();
        bring_back(&system, lost);
        whole(&system);
        for n in 0..6 {
            let back = system.daos(&["fs", "cat", "tank", "c1", &format!("/d/f{n}")]);
            assert!(back.ok() == String::from_utf8_lossy(&content()));
        }
    }
}

#[test]
fn a_container_that_was_made_survives_the_rank_of_the_log() {
    let system = System::with_tank(3);
    system.container("c1", "RP_2GX");
    std::fs::remove_file(&authority(&system).arena).expect("shared memory");
    std::fs::remove_dir_all(pool_dir(&system).join("rank00")).expect("lost");
    mkdir(&system, "/d").ok();
}

#[test]
fn a_lost_rank_with_the_only_copy() {
    for lost in 0..3 {
        let system = filled(3, "S1");
        system.dmg(&["system", "stop"]).ok();
        take_away(&system, lost);
        let before = system.snapshot();
        // The log has one place too, on the first rank.
        let cure = match lost {
            0 => "bring back the directory of the rank",
            _ => "mount its device",
        };
        get(&system).fails(&[cure]);
        assert!(system.snapshot() == before, "files were changed");
        bring_back(&system, lost);
        whole(&system);
    }
}

/// A pool with directories, some of which lie on each rank alone, and what is in them.
fn spread(system: &System) -> String {
    let mut names = String::from("f\n");
    for n in 1..=9 {
        mkdir(system, &format!("/z{n}")).ok();
        put(system, &format!("/z{n}/f"));
        names.push_str(&format!("z{n}\n"));
    }
    names
}

/// How many of the files of [`spread`] can be read; those that can are right.
fn readable(system: &System) -> usize {
    let lossy = String::from_utf8_lossy(&content()).into_owned();
    let found = (1..=9).filter(|n| {
        let ran = system.daos(&["fs", "cat", "tank", "c1", &format!("/z{n}/f")]);
        if ran.code == 0 {
            assert!(ran.out == lossy, "other bytes in /z{n}/f");
            return true;
        }
        ran.fails(&[]);
        false
    });
    found.count()
}

fn inconsistent(system: &System) -> String {
    let told = system.daos(&["container", "check", "tank", "c1"]).out;
    let line = told.lines().find(|line| line.starts_with("inconsistent:"));
    line.expect("a line").to_owned()
}

#[test]
fn a_lost_rank_can_be_given_up() {
    let mut mounted = 0;
    for lost in 1..=2 {
        let system = filled(3, "S1");
        spread(&system);
        // What is only in the log needs no rank but that of the log.
        Holder::of(&system.root()).end();
        let exclude = |ranks: &str| system.dmg(&["pool", "exclude", "tank", ranks]);
        let all = format!("--ranks=0-{lost}");
        let lost_alone = format!("--ranks={lost}");
        exclude(&lost_alone).fails(&["failed on pool tank"]);
        system.dmg(&["system", "stop"]).ok();
        take_away(&system, 0);
        // Without the log there is nothing to go on with.
        let ran = exclude("--ranks=0");
        assert!(ran.out.contains("bring back the directory"), "{}", ran.out);
        ran.fails(&["rank 0 failed on pool tank"]);
        bring_back(&system, 0);
        take_away(&system, lost);
        let lacks = format!("lacks rank {lost},");
        mkdir(&system, "/d").fails(&["DER_RF(-2031)", &lacks, "dmg pool exclude"]);
        let ran = exclude(&all);
        assert!(ran.out.contains("rank 0 is there"), "{}", ran.out);
        assert!(
            ran.out.contains(&format!("\ntank {lost}     OK     -")),
            "{}",
            ran.out
        );
        assert_eq!(ran.code, 1);
        exclude(&lost_alone).ok();
        let shown = format!("- Disabled ranks: {lost}\n");
        let degraded = || {
            let told = system.daos(&["pool", "query", "tank"]).ok();
            let wanted = ["disabled=4,", "state=Degraded", &shown];
            assert!(wanted.iter().all(|wanted| told.contains(wanted)), "{told}");
        };
        degraded();
        let before = readable(&system);
        assert!(before < 9, "rank {lost} had nothing");
        system.dmg(&["system", "stop"]).ok();
        bring_back(&system, lost);
        degraded();
        assert_eq!(readable(&system), before);
        let made = ["container", "create", "--type=POSIX", "tank", "c2"];
        system.daos(&made).ok();
        system.daos(&["fs", "mkdir", "tank", "c2", "/d"]).ok();
        let three = [
            "container",
            "create",
            "--type=POSIX",
            "--oclass=RP_3GX",
            "tank",
            "c3",
        ];
        system.daos(&three).fails(&["needs 3 ranks", "has 2"]);
        let listed = system.daos(&["fs", "ls", "tank", "c1"]);
        if listed.code != 0 {
            // The container's own directory is among what is gone.
            listed.fails(&["mount failed"]);
            continue;
        }
        mounted += 1;
        assert_ne!(inconsistent(&system), "inconsistent: 0");
        let repair = ["fs", "check", "tank", "c1", "--flags=repair"];
        system.daos(&repair);
        assert_eq!(inconsistent(&system), "inconsistent: 0");
        assert_eq!(readable(&system), before);
    }
    assert!(mounted > 0, "the container's own directory is on one rank");
}

#[test]
fn what_shared_memory_has_of_a_lost_rank_is_kept() {
    let system = filled(3, "S1");
    let names = spread(&system);
    take_away(&system, 1);
    let kept = system.dmg(&["system", "stop"]).ok();
    assert!(
        kept.starts_with("tank: kept: pool") && kept.contains("lacks rank 1,"),
        "{kept}"
    );
    let holder = Holder::of(&system.root());
    let exclude = || system.dmg(&["pool", "exclude", "tank", "--ranks=1"]);
    let ran = exclude();
    assert!(ran.out.contains("is in use by process"), "{}", ran.out);
    ran.fails(&[]);
    holder.end();
    exclude().ok();
    // Names and attributes are all there, and of the data what other ranks have.
    assert_eq!(system.daos(&["fs", "ls", "tank", "c1"]).ok(), names);
    for n in 1..=9 {
        let inside = ["fs", "ls", "tank", "c1", &format!("/z{n}")];
        assert_eq!(system.daos(&inside).ok(), "f\n");
    }
    assert!((1..9).contains(&readable(&system)));
}

#[test]
fn a_pool_that_ran_on_another_machine() {
    let system = filled(2, "RP_2GX");
    std::fs::remove_file(&authority(&system).arena).expect("shared memory");
    let there = |authority: &mut Authority| {
        authority.machine = "another".into();
        authority.boot = "of the other".into();
        authority.arena = "/dev/shm/of-the-other".into();
    };
    ran_elsewhere(&system, there);
    let locked = attach_file(&system);
    locked.hold().expect("held");
    let process = std::process::id().to_string();
    mkdir(&system, "/refused").fails(&["attached by process", &process, "/dev/shm/of-the-other"]);
    drop(locked);
    mkdir(&system, "/d").ok();
    whole(&system);
}

#[test]
fn many_at_once_bring_up_one() {
    let system = filled(2, "RP_2GX");
    for round in 0..4 {
        std::fs::remove_file(&authority(&system).arena).expect("shared memory");
        let children: Vec<_> = (0..6)
            .map(|number| {
                let name = format!("/d{round}{number}");
                let mut command = system.command("daos", &["fs", "mkdir", "tank", "c1", &name]);
                command.spawn().expect("started")
            })
            .collect();
        for mut child in children {
            assert!(child.wait().expect("ended").success());
        }
        let names = system.daos(&["fs", "ls", "tank", "c1"]).ok();
        assert_eq!(names.lines().count(), 1 + 6 * (round + 1), "{names}");
    }
    whole(&system);
}

/// The place where [`fuse`] mounts.
const FUSE: &str = "DAOS_CLI_TESTS_FUSE";

/// A FUSE file system that is an empty directory; for a mount namespace of its own.
#[test]
fn fuse() {
    let Some(place) = std::env::var_os(FUSE) else {
        return;
    };
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    let device = device.expect("/dev/fuse");
    let options = "fd=0,rootmode=40000,user_id=0,group_id=0";
    let mounted = Command::new("mount")
        .args(["-i", "-t", "fuse", "-o", options, "none"])
        .arg(&place)
        .stdin(Stdio::from(device.try_clone().expect("descriptor")))
        .status();
    assert!(mounted.expect("mount").success());
    std::thread::spawn(move || serve(device));
    let root = |program: &str, args: &[&str]| {
        run(Command::new(program)
            .args(args)
            .env("DAOS_EMBEDDED_ROOT", &place))
    };
    let said = ["lies on FUSE", "local file system", "DAOS_EMBEDDED_ROOT"];
    root(env!("CARGO_BIN_EXE_daos"), &["pool", "list"]).fails(&said);
    let create = ["pool", "create", "tank", "--size=64MiB", "--nranks=1"];
    root(env!("CARGO_BIN_EXE_dmg"), &create).fails(&said);
    let system = System::new();
    let at = format!("--rank-path={}", place.display());
    system
        .dmg(&[&create[..], &[&at]].concat())
        .fails(&["lies on FUSE", "--rank-path"]);
}

/// Answers what opening and asking after a directory needs.
fn serve(mut device: std::fs::File) {
    let mut request = vec![0; 1 << 17];
    while let Ok(len) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("word"));
        assert!(len >= 40, "a short request");
        let mut body = Vec::new();
        let mut error = 0;
        match word(4) {
            // Forget: no answer.
            2 | 42 => continue,
            // Attributes: of a directory of ours.
            3 => {
                body.resize(104, 0);
                body[0] = 60;
                body[16] = 1;
                body[16 + 60..16 + 64].copy_from_slice(&0o040_700_u32.to_ne_bytes());
                body[16 + 64] = 2;
            }
            // What file system it is: the kernel says that.
            17 => body.resize(80, 0),
            // Version 7.31.
            26 => {
                body.resize(64, 0);
                (body[0], body[4], body[21]) = (7, 31, 16);
            }
            // Open and close a directory.
            27 => body.resize(16, 0),
            29 => {}
            1 => error = -2,
            _ => error = -38,
        }
        let mut answer = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        answer.extend_from_slice(&i32::to_ne_bytes(error));
        answer.extend_from_slice(&request[8..16]);
        answer.extend_from_slice(&body);
        device.write_all(&answer).unwrap_or_default();
    }
}

#[test]
fn a_network_file_system() {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        return;
    }
    let place = tempfile::tempdir().expect("directory");
    let exe = std::env::current_exe().expect("exe");
    let mut there = Command::new("unshare");
    there
        .arg("--mount")
        .arg("--")
        .arg(exe)
        .args(["--exact", "fuse", "--nocapture"]);
    let ran = run(there.env(FUSE, place.path()));
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}
