//! What a command must leave alone: files in the way of a copy that fails, devices, what another
//! command changes at the same time, what was not named.

mod common;

use common::{Ran, System, run, write};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// A system with `tank` of one rank, and the container `c1`.
fn small() -> System {
    let system = System::with_tank(1);
    system.container("c1", "");
    system
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn put(system: &System, from: &Path, to: &str) -> Ran {
    system.daos(&["fs", "put", "tank", "c1", text(from), to])
}

fn get(system: &System, from: &str, to: &Path) -> Ran {
    system.daos(&["fs", "get", "tank", "c1", from, text(to)])
}

fn cat(system: &System, path: &str) -> String {
    system.daos(&["fs", "cat", "tank", "c1", path]).ok()
}

fn names(dir: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(dir).expect("directory");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    names.sort();
    names
}

#[test]
fn a_copy_that_does_not_fit_leaves_what_has_its_name() {
    let system = small();
    let (old, big) = (system.scratch("old"), system.scratch("big"));
    write(&old, b"old\n");
    write(&big, &vec![1; 80 << 20]);
    put(&system, &old, "/f").ok();
    put(&system, &big, "/f").fails(&["errno 28"]);
    assert_eq!(cat(&system, "/f"), "old\n");
    assert_eq!(system.daos(&["fs", "ls", "tank", "c1"]).ok(), "f\n");
    put(&system, &system.scratch("none"), "/f").fails(&["errno 2"]);
    assert_eq!(cat(&system, "/f"), "old\n");
}

#[test]
fn a_copy_out_that_does_not_fit_leaves_what_has_its_name() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let system = small();
    let (big, disk) = (system.scratch("big"), system.scratch("disk"));
    write(&big, &vec![1; 8 << 20]);
    put(&system, &big, "/big").ok();
    std::fs::create_dir(&disk).expect("directory");
    let script = format!(
        "mount -t tmpfs -o size=1m none {disk} && echo old >{disk}/big && \
         ! {daos} fs get tank c1 /big {disk}/big && ls -A {disk} && cat {disk}/big",
        disk = disk.display(),
        daos = env!("CARGO_BIN_EXE_daos")
    );
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--", "sh", "-c", &script]);
    let ran = run(shell.env("DAOS_EMBEDDED_ROOT", system.root()));
    assert!(ran.err.contains("errno 28"), "{}", ran.err);
    assert_eq!((ran.code, ran.out.as_str()), (0, "big\nold\n"));
}

#[test]
fn a_killed_copy_leaves_no_half_file() {
    let system = System::new();
    system
        .dmg(&["pool", "create", "tank", "--size=512MiB", "--nranks=1"])
        .ok();
    system.container("c1", "");
    let (old, big) = (system.scratch("old"), system.scratch("big"));
    write(&old, b"old\n");
    write(&big, &vec![1; 192 << 20]);
    put(&system, &old, "/f").ok();
    let args = ["fs", "put", "tank", "c1", text(&big), "/f"];
    let mut copy = system.command("daos", &args);
    let mut copy = copy.stdout(Stdio::null()).spawn().expect("put");
    let used = |system: &System| {
        let pool = system.daos(&["pool", "query", "tank", "--json"]).json();
        let tier = &pool["response"]["tier_stats"][0];
        tier["total"].as_u64().expect("total") - tier["free"].as_u64().expect("free")
    };
    while used(&system) < 8 << 20 {
        assert!(copy.try_wait().expect("state").is_none(), "too fast");
    }
    copy.kill().expect("killed");
    copy.wait().expect("ended");
    assert_eq!(cat(&system, "/f"), "old\n");
    assert_eq!(system.daos(&["fs", "ls", "tank", "c1"]).ok(), "f\n");
    let check = system.daos(&["container", "check", "tank", "c1"]).ok();
    assert!(check.contains("inconsistent: 0"), "{check}");
}

#[test]
fn links_and_special_files_are_replaced_whole() {
    let system = small();
    let tree = system.scratch("tree");
    write(&tree.join("a"), b"one\n");
    std::fs::hard_link(tree.join("a"), tree.join("b")).expect("link");
    symlink("a", tree.join("l")).expect("symlink");
    for _ in 0..2 {
        put(&system, &tree, "/").ok();
    }
    let listed = system.daos(&["fs", "ls", "tank", "c1", "/tree"]).ok();
    assert_eq!(listed, "a\nb\nl\n");
    let back = system.scratch("back");
    std::fs::create_dir(&back).expect("directory");
    for _ in 0..2 {
        get(&system, "/tree", &back).ok();
    }
    assert_eq!(names(&back.join("tree")), ["a", "b", "l"]);
    let ino = |name: &str| std::fs::metadata(back.join("tree").join(name)).expect("file");
    assert_eq!(ino("a").ino(), ino("b").ino());
}

#[test]
fn devices_and_pipes_are_written_to_and_links_followed() {
    let system = small();
    let file = system.scratch("file");
    write(&file, b"hello\n");
    put(&system, &file, "/f").ok();
    let pipe = system.scratch("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let open = std::fs::File::options().read(true).write(true).open(&pipe);
    let mut reader = open.expect("pipe");
    get(&system, "/f", &pipe).ok();
    let kind = pipe.symlink_metadata().expect("pipe").file_type();
    assert!(kind.is_fifo());
    let mut read = [0; 6];
    std::io::Read::read_exact(&mut reader, &mut read).expect("read");
    assert_eq!(&read, b"hello\n");
    let (link, target) = (system.scratch("link"), system.scratch("target"));
    write(&target, b"old\n");
    symlink(&target, &link).expect("symlink");
    get(&system, "/f", &link).ok();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&target).expect("target"), b"hello\n");
}

#[test]
fn nobody_reads_a_private_file_while_it_is_copied_out() {
    let system = small();
    let tree = system.scratch("tree");
    write(&tree.join("d/secret"), b"secret\n");
    for (path, mode) in [("d/secret", 0o600), ("d", 0o700)] {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(tree.join(path), mode).expect("mode");
    }
    put(&system, &tree, "/tree").ok();
    let back = system.scratch("back");
    let log = system.scratch("log");
    let traced = Command::new("strace")
        .args(["-f", "-o", text(&log), "-e", "trace=openat,mkdir,mkdirat"])
        .arg(env!("CARGO_BIN_EXE_daos"))
        .args(["fs", "get", "tank", "c1", "/tree", text(&back)])
        .env("DAOS_EMBEDDED_ROOT", system.root())
        .stdout(Stdio::null())
        .status();
    // Where there is no strace nothing is seen.
    if !traced.is_ok_and(|status| status.success()) {
        return;
    }
    let log = std::fs::read_to_string(log).expect("log");
    let made: Vec<&str> = log.lines().filter(|line| line.contains("/back")).collect();
    let made = made
        .iter()
        .filter(|line| line.contains("mkdir") || line.contains("O_CREAT"));
    for line in made.clone() {
        assert!(line.contains("0700") || line.contains("0600"), "{line}");
    }
    assert!(made.count() >= 3, "{log}");
}

#[test]
fn files_whose_size_says_nothing_are_read_to_their_end() {
    let system = small();
    for file in ["/proc/version", "/proc/sys/kernel/ostype"] {
        put(&system, Path::new(file), "/f").ok();
        let there = std::fs::read_to_string(file).expect("readable");
        assert_eq!(cat(&system, "/f"), there, "{file}");
    }
}

#[test]
fn names_may_be_any_bytes() {
    let system = small();
    let name = OsStr::from_bytes(b"\xff\xfe");
    let local = system.scratch("tree").join(name);
    write(&local, b"odd\n");
    let with = |args: &[&str], paths: &[&OsStr]| {
        let mut command = system.command("daos", args);
        run(command.args(paths))
    };
    let inside = OsStr::from_bytes(b"/d\xfd");
    with(&["fs", "mkdir", "-p", "tank", "c1"], &[inside]).ok();
    with(&["fs", "put", "tank", "c1"], &[local.as_os_str(), inside]).ok();
    let file = OsStr::from_bytes(b"/d\xfd/\xff\xfe");
    assert_eq!(with(&["fs", "cat", "tank", "c1"], &[file]).ok(), "odd\n");
    assert_eq!(
        with(&["fs", "ls", "tank", "c1"], &[inside]).ok(),
        "\\xff\\xfe\n"
    );
    let back = system.scratch("back").join(name);
    std::fs::create_dir(system.scratch("back")).expect("directory");
    with(&["fs", "get", "tank", "c1"], &[file, back.as_os_str()]).ok();
    assert_eq!(std::fs::read(&back).expect("back"), b"odd\n");
    let from = [&b"daos://tank/c1"[..], file.as_bytes()].concat();
    let args = [OsStr::new("-s"), OsStr::from_bytes(&from), OsStr::new("-d")];
    let copied = with(&["fs", "copy"], &[&args[..], &[back.as_os_str()]].concat());
    assert!(copied.ok().contains("\\xff\\xfe\n"));
    with(&["fs", "rm", "tank", "c1"], &[file]).ok();
    with(&["fs", "cat", "tank", "c1"], &[file]).fails(&["cat /d\\xfd/\\xff\\xfe failed: errno 2"]);
    with(&["container", "set-attr", "tank", "c1"], &[name]).fails(&["is not UTF-8"]);
    with(&["fs", "ls"], &[name, OsStr::new("c1")]).fails(&["invalid label"]);
}

#[test]
fn dots_are_not_taken_for_a_name() {
    let system = small();
    system
        .daos(&["fs", "mkdir", "-p", "tank", "c1", "/a/b/c"])
        .ok();
    let listed = || {
        let ls = |path: &str| system.daos(&["fs", "ls", "tank", "c1", path]).ok();
        format!("{}{}", ls("/a"), ls("/a/b"))
    };
    for path in ["/a/b/.", "/a/b/..", "/a/b/./", "/a/b/..//", "..", "."] {
        system
            .daos(&["fs", "rm", "-r", "tank", "c1", path])
            .fails(&["without . and .."]);
    }
    assert_eq!(listed(), "b\nc\n");
    // The contents of a directory that has no name here go into the one named, not beside it.
    let to = system.scratch("to");
    std::fs::create_dir(&to).expect("directory");
    let mode = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(&to, mode).expect("mode");
    get(&system, "/a/b/..", &to).ok();
    assert_eq!(names(&to), ["b"]);
    get(&system, "/", &to).ok();
    assert_eq!(names(&to), ["a", "b"]);
    let data = std::fs::metadata(&to).expect("directory");
    assert_eq!(data.mode() & 0o7777, 0o711);
}

#[test]
fn parents_get_the_usual_mode() {
    let system = small();
    system
        .daos(&["fs", "mkdir", "-p", "-m", "0500", "tank", "c1", "a//b/"])
        .ok();
    let mode = |path: &str| {
        let listed = system.daos(&["fs", "ls", "-l", "tank", "c1", path]).ok();
        listed.chars().take(10).collect::<String>()
    };
    assert_eq!(
        (mode("/").get(..4), mode("/a").as_str()),
        (Some("drwx"), "dr-x------")
    );
    write(&system.scratch("f"), b"");
    put(&system, &system.scratch("f"), "/f").ok();
    let below = ["fs", "mkdir", "-p", "tank", "c1", "/f/x"];
    system.daos(&below).fails(&["errno 20"]);
}

#[test]
fn of_attributes_set_at_once_none_is_lost() {
    let system = small();
    let mut running = Vec::new();
    for number in 0..40 {
        let pair = format!("k{number}:v");
        let args = ["container", "set-attr", "tank", "c1", &pair];
        running.push(system.command("daos", &args).spawn().expect("daos"));
    }
    for mut one in running {
        assert!(one.wait().expect("ended").success());
    }
    let listed = system.daos(&["container", "list-attr", "tank", "c1", "--json"]);
    let listed = listed.json()["response"].as_array().map(Vec::len);
    assert_eq!(listed, Some(40));
}

#[test]
fn a_container_that_is_copied_into_is_in_use() {
    let system = small();
    let pipe = system.scratch("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let file = system.scratch("file");
    write(&file, &vec![7; 1 << 20]);
    put(&system, &file, "/f").ok();
    // It fills the pipe and waits for somebody to read it.
    let args = ["fs", "cat", "tank", "c1", "/f"];
    let mut cat = system.command("daos", &args);
    let mut cat = cat.stdout(Stdio::piped()).spawn().expect("cat");
    let mut out = cat.stdout.take().expect("stdout");
    let mut first = [0];
    std::io::Read::read_exact(&mut out, &mut first).expect("a byte");
    let destroy = ["container", "destroy", "tank", "c1"];
    system.daos(&destroy).fails(&["DER_BUSY", "--force"]);
    system
        .daos(&["fs", "check", "tank", "c1"])
        .code_is(1, "programs use the container");
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut out, &mut rest).expect("the rest");
    assert!(cat.wait().expect("ended").success());
    assert_eq!(rest.len(), (1 << 20) - 1);
    system.daos(&destroy).ok();
}

impl Ran {
    fn code_is(self, code: i32, said: &str) {
        assert!(self.code == code && self.err.contains(said), "{}", self.err);
    }
}

#[test]
fn a_copy_that_fails_leaves_no_new_container() {
    let system = small();
    let file = system.scratch("file");
    write(&file, b"hello\n");
    let copy = |to: &str| system.daos(&["fs", "copy", "--src", text(&file), "--dst", to]);
    let containers = || {
        let listed = system.daos(&["container", "list", "tank", "--json"]).json();
        listed["response"].as_array().map(Vec::len)
    };
    copy("daos://tank/new/no/such").code_is(1, "DER_NONEXIST");
    assert_eq!(containers(), Some(1));
    copy("daos://tank//f").fails(&["no container is named"]);
    assert_eq!(containers(), Some(1));
    // What was copied stays, and the line says where.
    let tree = system.scratch("tree");
    write(&tree.join("a"), b"one\n");
    write(&tree.join("big"), &vec![1; 80 << 20]);
    let args = [
        "fs",
        "copy",
        "--src",
        text(&tree),
        "--dst",
        "daos://tank/new",
    ];
    system.daos(&args).code_is(1, "was created");
    assert_eq!(containers(), Some(2));
}

#[test]
fn what_is_destroyed_is_named() {
    let system = small();
    let by_env = |program: &str, args: &[&str]| {
        let mut command = system.command(program, args);
        run(command.env("DAOS_POOL", "tank").env("DAOS_CONT", "c1"))
    };
    for args in [&["container", "destroy"][..], &["cont", "destroy", "tank"]] {
        by_env("daos", args).fails(&["has to be named"]);
    }
    for args in [&["pool", "destroy"][..], &["pool", "destroy", "--force"]] {
        by_env("dmg", args).fails(&["has to be named"]);
    }
    by_env("daos", &["container", "query"]).ok();
    by_env("daos", &["container", "destroy", "--cont=c1"]).ok();
    by_env("dmg", &["pool", "destroy", "tank"]).ok();
}

#[test]
fn a_slash_behind_a_file_is_an_error() {
    let system = small();
    write(&system.scratch("f"), b"hello\n");
    put(&system, &system.scratch("f"), "/f").ok();
    for command in ["cat", "ls", "rm"] {
        let args = ["fs", command, "tank", "c1", "/f/"];
        system.daos(&args).fails(&["errno 20"]);
    }
    get(&system, "/f/", &system.scratch("back")).fails(&["errno 20"]);
    put(&system, &system.scratch("f"), "/f/").fails(&["errno 20"]);
    assert_eq!(cat(&system, "/f"), "hello\n");
}

#[test]
fn directories_get_their_modes_also_where_a_copy_stops() {
    let system = small();
    let tree = system.scratch("tree");
    write(&tree.join("big"), &vec![1; 80 << 20]);
    let mode = std::fs::Permissions::from_mode(0o751);
    std::fs::set_permissions(&tree, mode).expect("mode");
    put(&system, &tree, "/tree").fails(&["errno 28"]);
    let listed = system.daos(&["fs", "ls", "-l", "tank", "c1"]).ok();
    assert!(listed.starts_with("drwxr-x--x"), "{listed}");
}

#[test]
fn a_directory_for_lost_files_has_a_plain_name() {
    let system = small();
    for name in ["..", ".", "", "a/b"] {
        let args = ["fs", "check", "tank", "c1", "-f", "relink", "-n", name];
        system.daos(&args).fails(&["no name of a directory"]);
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let system = small();
    let full = || std::fs::File::options().write(true).open("/dev/full");
    for json in ["--json", "--verbose"] {
        let mut command = system.command("daos", &["pool", "list", json]);
        let child = command
            .stdout(full().expect("/dev/full"))
            .stderr(Stdio::piped());
        let ended = child.spawn().expect("daos").wait_with_output();
        let ended = ended.expect("ended");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1));
        assert!(said.contains("writing output: No space left"), "{said}");
    }
}

#[test]
fn the_long_flag_is_not_taken_for_the_tool_s() {
    let system = small();
    system.daos(&["pool", "set-attr", "tank", "k:value"]).ok();
    system
        .daos(&["container", "set-attr", "tank", "c1", "k:value"])
        .ok();
    for args in [
        &["pool", "list-attr", "tank"][..],
        &["container", "list-attr", "tank", "c1"],
    ] {
        assert!(!system.daos(args).ok().contains("value"));
        for flag in ["-V", "--verbose", "--verbose-values"] {
            let listed = system.daos(&[args, &[flag]].concat()).ok();
            assert!(listed.contains("value"), "{flag}: {listed}");
        }
    }
    for program in ["daos", "dmg"] {
        for flag in ["-v", "--verbose"] {
            let listed = run(&mut system.command(program, &["pool", "list", flag])).ok();
            assert!(listed.contains("SvcReps"), "{listed}");
        }
    }
}

#[test]
fn a_directory_that_is_not_there_is_made_of_a_directory() {
    let system = small();
    let tree = system.scratch("tree");
    write(&tree.join("a"), b"one\n");
    put(&system, &tree, "/new/").ok();
    assert_eq!(cat(&system, "/new/a"), "one\n");
    let back = system.scratch("back/");
    get(&system, "/new", &back).ok();
    assert_eq!(names(&back), ["a"]);
    // Of a file it is not, and the line does not speak of something in the way.
    put(&system, &tree.join("a"), "/none/").fails(&["errno 2", "mkdir -p"]);
    get(&system, "/new/a", &system.scratch("none/")).fails(&["errno 2"]);
    get(&system, "/new/a", &tree.join("a/")).fails(&["errno 20"]);
}
