//! Copies of a system root: each has its own files or is refused, and none touches another's.

mod common;

use common::{Holder, Ran, System, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies a directory as `cp` does with these flags.
fn cp(flags: &str, from: &Path, to: &Path) {
    let done = Command::new("cp").arg(flags).args([from, to]).status();
    assert!(done.expect("cp").success());
}

fn daos(root: &Path, args: &[&str]) -> Ran {
    on(root, "daos", args)
}

fn dmg(root: &Path, args: &[&str]) -> Ran {
    on(root, "dmg", args)
}

fn on(root: &Path, program: &str, args: &[&str]) -> Ran {
    let mut command = System::new().command(program, args);
    run(command.env("DAOS_EMBEDDED_ROOT", root))
}

fn mkdir(root: &Path, name: &str) -> Ran {
    daos(root, &["fs", "mkdir", "tank", "c1", name])
}

fn names(root: &Path) -> String {
    daos(root, &["fs", "ls", "tank", "c1"]).ok()
}

/// A system with the pool `tank` and the container `c1`, in which `kept` is.
fn filled() -> System {
    let system = System::with_tank(3);
    system.container("c1", "RP_3GX");
    mkdir(&system.root(), "/kept").ok();
    system
}

fn pool_dir(root: &Path) -> PathBuf {
    let mut pools = std::fs::read_dir(root.join("pools")).expect("pools");
    pools.next().expect("a pool").expect("entry").path()
}

/// Runs the cure at the end of an error line: everything after `then: `.
fn cure(line: &str) {
    let (_, command) = line.rsplit_once("then: ").expect("a cure");
    let command = command.trim_end().trim_end_matches(')');
    let dmg = PathBuf::from(env!("CARGO_BIN_EXE_dmg"));
    let path = format!("{}:/usr/bin:/bin", dmg.parent().expect("bin").display());
    let mut shell = Command::new("/bin/sh");
    run(shell.args(["-c", command]).env("PATH", path)).ok();
}

#[test]
fn holder() {
    common::hold();
}

#[test]
fn a_copy_has_ranks_of_its_own() {
    let system = filled();
    let (root, copy) = (system.root(), system.scratch("copy"));
    system.dmg(&["system", "stop"]).ok();
    cp("-a", &root, &copy);
    mkdir(&copy, "/of_the_copy").ok();
    // The original cannot run beside it; the line says what to do.
    let line = mkdir(&root, "/refused").fails(&["copies run one at a time", "dmg system stop"]);
    assert!(line.contains(copy.to_str().expect("path")), "{line}");
    cure(&line);
    assert_eq!(names(&root), "kept\n");
    mkdir(&root, "/of_the_original").ok();
    let line = mkdir(&copy, "/refused").fails(&["copies run one at a time"]);
    cure(&line);
    assert_eq!(names(&copy), "kept\nof_the_copy\n");
    dmg(&copy, &["system", "stop"]).ok();
    assert_eq!(names(&root), "kept\nof_the_original\n");
    // Nothing of the original goes with the copy.
    dmg(&copy, &["pool", "destroy", "-r", "tank"]).ok();
    assert_eq!(names(&root), "kept\nof_the_original\n");
    let check = system.daos(&["container", "check", "tank", "c1"]).ok();
    assert!(check.contains("inconsistent: 0"), "{check}");
}

#[test]
fn a_copy_of_a_pool_in_use_is_refused_and_harms_nothing() {
    let system = filled();
    let (root, copy) = (system.root(), system.scratch("copy"));
    let holder = Holder::of(&root);
    cp("-a", &root, &copy);
    // What the copied attach file says is true, but not of the copy.
    mkdir(&copy, "/refused").fails(&["runs from", "end the programs that use it"]);
    assert_eq!(
        dmg(&copy, &["system", "stop"]).ok(),
        "tank: 0 B of shared memory freed\n"
    );
    mkdir(&root, "/later").ok();
    holder.end();
    system.dmg(&["system", "stop"]).ok();
    assert_eq!(names(&copy), "kept\n");
    dmg(&copy, &["pool", "destroy", "-r", "tank"]).ok();
    assert_eq!(names(&root), "kept\nlater\n");
}

#[test]
fn one_process_does_not_take_one_copy_for_the_other() {
    let system = filled();
    let (root, copy) = (system.root(), system.scratch("copy"));
    system.dmg(&["system", "stop"]).ok();
    cp("-a", &root, &copy);
    let open = |root: &Path| {
        let root = root.as_os_str().as_encoded_bytes();
        let root = engine::system::SystemRoot::locate(Some(root)).expect("root");
        root.open_pool(&"tank".parse().expect("label")).map(drop)
    };
    open(&root).expect("the original");
    let refused = open(&copy).expect_err("the copy").to_string();
    assert!(refused.contains("use one of them at a time"), "{refused}");
    open(&root).expect("the original again");
}

#[test]
fn shared_memory_does_not_go_with_files_that_were_put_back() {
    let system = filled();
    let (root, backup) = (system.root(), system.scratch("backup"));
    cp("-a", &root, &backup);
    mkdir(&root, "/after_the_backup").ok();
    // As rsync does: a file that has changed is made beside and renamed. The attach file has not.
    let ranks = pool_dir(&root);
    for rank in 0..3 {
        for name in ["log", "data", "meta"] {
            let file = Path::new(&format!("rank{rank:02}")).join(name);
            let (old, now) = (pool_dir(&backup).join(&file), ranks.join(&file));
            if old.exists() {
                cp("-a", &old, &now.with_extension("beside"));
                std::fs::rename(now.with_extension("beside"), now).expect("renamed");
            }
        }
    }
    let line = mkdir(&root, "/refused").fails(&["was replaced", "end the programs"]);
    cure(&line);
    assert_eq!(names(&root), "kept\n");
    let check = system.daos(&["container", "check", "tank", "c1"]).ok();
    assert!(check.contains("inconsistent: 0"), "{check}");
}

/// A command where `/dev/shm` is too small for an arena, which then lies in the pool's directory.
fn with_little_shared_memory(root: &Path, args: &str) -> Ran {
    let daos = env!("CARGO_BIN_EXE_daos");
    let script = format!("mount -t tmpfs -o size=16m none /dev/shm && exec {daos} {args}");
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--", "sh", "-c", &script]);
    run(shell.env("DAOS_EMBEDDED_ROOT", root))
}

#[test]
fn shared_memory_in_the_pool_s_directory_is_not_taken_from_a_copy() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let system = filled();
    let (root, copy) = (system.root(), system.scratch("copy"));
    system.dmg(&["system", "stop"]).ok();
    with_little_shared_memory(&root, "fs mkdir tank c1 /inside").ok();
    let arena = arena_of(&root);
    assert!(arena.starts_with(pool_dir(&root)), "{}", arena.display());
    cp("-a", &root, &copy);
    // Both run, each with its own; what was copied of the arena is not used.
    mkdir(&root, "/of_the_original").ok();
    with_little_shared_memory(&copy, "fs mkdir tank c1 /of_the_copy").ok();
    assert_eq!(names(&root), "inside\nkept\nof_the_original\n");
    assert_eq!(names(&copy), "inside\nkept\nof_the_copy\n");
    dmg(&copy, &["pool", "destroy", "-r", "tank"]).ok();
    assert_eq!(names(&root), "inside\nkept\nof_the_original\n");
}

/// A mounted image of a file system.
struct Mounted(PathBuf);

impl Mounted {
    fn of(image: &Path, at: PathBuf) -> Mounted {
        std::fs::create_dir(&at).expect("directory");
        let done = Command::new("mount")
            .args(["-o", "loop"])
            .args([image, &at])
            .status();
        assert!(done.expect("mount").success());
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_snapshot_of_the_whole_file_system_is_a_copy() {
    snapshot(false);
}

#[test]
fn a_snapshot_of_an_idle_file_system_is_a_copy() {
    snapshot(true);
}

fn snapshot(stopped: bool) {
    let has = |path: &str| Path::new(path).exists();
    if !rustix::process::geteuid().is_root() || !has("/sbin/mkfs.ext4") || !has("/dev/loop-control")
    {
        return;
    }
    let system = System::new();
    let (image, snapshot) = (system.scratch("image"), system.scratch("snapshot.image"));
    let file = std::fs::File::create(&image).expect("image");
    file.set_len(128 << 20).expect("size");
    let made = Command::new("/sbin/mkfs.ext4")
        .arg("-q")
        .arg(&image)
        .status();
    assert!(made.expect("mkfs.ext4").success());
    let disk = Mounted::of(&image, system.scratch("disk"));
    let root = disk.0.join("root");
    let size = ["pool", "create", "tank", "--size=32MiB", "--nranks=2"];
    dmg(&root, &size).ok();
    daos(
        &root,
        &["container", "create", "--type=POSIX", "tank", "c1"],
    )
    .ok();
    mkdir(&root, "/kept").ok();
    if stopped {
        dmg(&root, &["system", "stop"]).ok();
    }
    let synced = Command::new("sync").arg("-f").arg(&disk.0).status();
    assert!(synced.expect("sync").success());
    cp("-a", &image, &snapshot);
    let other = Mounted::of(&snapshot, system.scratch("other"));
    let copy = other.0.join("root");
    assert_eq!(names(&root), "kept\n");
    let holder = Holder::of(&root);
    mkdir(&copy, "/refused").fails(&["copies run one at a time"]);
    holder.end();
    let line = mkdir(&copy, "/refused").fails(&["copies run one at a time"]);
    cure(&line);
    mkdir(&copy, "/of_the_snapshot").ok();
    dmg(&copy, &["system", "stop"]).ok();
    let holder = Holder::of(&root);
    let arena = arena_of(&root);
    dmg(&copy, &["pool", "destroy", "-r", "tank"]).ok();
    assert!(arena.exists(), "the original's shared memory");
    holder.end();
    assert_eq!(names(&root), "kept\n");
    dmg(&root, &["pool", "destroy", "-r", "tank"]).ok();
}

/// A pool whose ranks lie on another disk than its registry.
fn with_ranks_elsewhere() -> System {
    let system = System::new();
    let disk = system.scratch("disk");
    std::fs::create_dir(&disk).expect("directory");
    let at = format!("--rank-path={}", disk.display());
    let create = ["pool", "create", "tank", "--size=64MiB", "--nranks=3"];
    system.dmg(&[&create[..], &[&at]].concat()).ok();
    system
}

#[test]
fn ranks_elsewhere_belong_to_one_registry() {
    let system = with_ranks_elsewhere();
    system.container("c1", "RP_3GX");
    let (root, copy, moved) = (
        system.root(),
        system.scratch("copy"),
        system.scratch("moved"),
    );
    mkdir(&root, "/kept").ok();
    system.dmg(&["system", "stop"]).ok();
    cp("-a", &root, &copy);
    let use_that = format!("(DAOS_EMBEDDED_ROOT={})", root.display());
    mkdir(&copy, "/refused").fails(&["belongs to the pool directory", "is a copy", &use_that]);
    daos(&copy, &["pool", "set-attr", "tank", "a:b"]).fails(&["belongs to the pool directory"]);
    let third = system.scratch("third");
    cp("-a", &root, &third);
    dmg(&third, &["pool", "destroy", "-r", "tank"]).ok();
    assert_eq!(names(&root), "kept\n");
    // Moved, it is the same still.
    system.dmg(&["system", "stop"]).ok();
    std::fs::rename(&root, &moved).expect("moved");
    assert_eq!(names(&moved), "kept\n");
    mkdir(&copy, "/refused").fails(&[moved.to_str().expect("path")]);
    // Once it is gone, the ranks go with who is left.
    dmg(&moved, &["system", "stop"]).ok();
    std::fs::remove_dir_all(pool_dir(&moved)).expect("removed");
    assert_eq!(names(&copy), "kept\n");
    std::fs::rename(&copy, &root).expect("for the end of the test");
}

#[test]
fn ranks_in_use_are_not_taken_over() {
    let system = with_ranks_elsewhere();
    system.container("c1", "");
    let (root, copy) = (system.root(), system.scratch("copy"));
    cp("-a", &root, &copy);
    let holder = Holder::of(&root);
    // As where the registry in use cannot be seen, nor its shared memory.
    let away = system.scratch("away");
    std::fs::rename(&root, &away).expect("away");
    let arena = arena_of(&away);
    let hidden = arena.with_extension("hidden");
    std::fs::rename(&arena, &hidden).expect("hidden");
    let process = holder.id().to_string();
    mkdir(&copy, "/refused").fails(&["is in use by process", &process]);
    std::fs::rename(&hidden, &arena).expect("back");
    std::fs::rename(&away, &root).expect("back");
    holder.end();
    mkdir(&root, "/served").ok();
}

/// The shared memory that runs the pool of a root.
fn arena_of(root: &Path) -> PathBuf {
    let file = engine::system::AttachFile::open(&pool_dir(root)).expect("attach file");
    file.read().expect("authority").arena
}

#[test]
fn a_copy_of_hard_links_is_refused() {
    let system = filled();
    let (root, copy) = (system.root(), system.scratch("copy"));
    system.dmg(&["system", "stop"]).ok();
    cp("-al", &root, &copy);
    mkdir(&copy, "/refused").fails(&["hard links", "cp -a"]);
    std::fs::remove_dir_all(&copy).expect("removed");
    assert_eq!(names(&root), "kept\n");
}

#[test]
fn shared_memory_of_a_pool_that_was_restored_is_not_used() {
    let system = filled();
    let (root, backup) = (system.root(), system.scratch("backup"));
    cp("-a", &root, &backup);
    mkdir(&root, "/after_the_backup").ok();
    let arena = arena_of(&root);
    std::fs::remove_dir_all(&root).expect("removed");
    cp("-a", &backup, &root);
    let line = mkdir(&root, "/refused").fails(&["runs from", "end the programs"]);
    assert!(
        line.contains("gone or whose attach file was replaced"),
        "{line}"
    );
    cure(&line);
    assert!(!arena.exists());
    assert_eq!(names(&root), "kept\n");
}
