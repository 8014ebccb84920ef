//! Files and trees on their way into containers and out again.

mod common;

use common::{System, write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

#[test]
fn trees_go_in_and_come_out_unchanged() {
    let system = System::with_tank(3);
    system.container("c1", "RP_3GX");
    let tree = system.scratch("tree");
    write(&tree.join("a/file"), b"hello\n");
    write(&tree.join("a/odd \n name"), &[0, 255, 10]);
    write(&tree.join("empty"), b"");
    let big: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(7919) >> 5) as u8)
        .collect();
    write(&tree.join("b/c/big"), &big);
    std::fs::hard_link(tree.join("a/file"), tree.join("b/linked")).expect("link");
    symlink("../a/file", tree.join("b/sym")).expect("symlink");
    symlink("/nowhere", tree.join("dangling")).expect("symlink");
    let sparse = std::fs::File::create(tree.join("sparse")).expect("file");
    sparse.set_len(3 << 30).expect("length");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"x", 2 << 30).expect("written");
    std::fs::set_permissions(tree.join("a"), PermissionsExt::from_mode(0o2711)).expect("chmod");
    std::fs::set_permissions(tree.join("empty"), PermissionsExt::from_mode(0o4500)).expect("chmod");
    let then = std::time::UNIX_EPOCH + std::time::Duration::new(981_173_106, 123_456_789);
    let file = std::fs::File::options()
        .write(true)
        .open(tree.join("a/file"))
        .expect("file");
    file.set_modified(then).expect("time");
    let from = tree.to_str().expect("path");
    let said = system
        .daos(&["fs", "put", "tank", "c1", from, "/copy"])
        .ok();
    let counts = "    Directories: 4\n    Files:       6\n    Links:       2\n";
    assert_eq!(
        said,
        format!("Successfully copied to DAOS: /copy\n{counts}")
    );
    assert_eq!(
        system
            .daos(&["fs", "cat", "tank", "c1", "/copy/b/sym"])
            .ok(),
        "hello\n"
    );
    let listed = system
        .daos(&["fs", "ls", "-l", "tank", "c1", "/copy/a"])
        .ok();
    assert!(listed.contains(" 2001-02-03 04:05:06 file\n"), "{listed}");
    assert!(listed.contains(" odd \\n name\n"), "{listed}");
    let back = system.scratch("back");
    let to = back.to_str().expect("path");
    let said = system.daos(&["fs", "get", "tank", "c1", "/copy", to]).ok();
    assert_eq!(
        said,
        format!("Successfully copied to POSIX: {to}\n{counts}")
    );
    assert_eq!(describe(&back), describe(&tree));
    assert_eq!(std::fs::read(back.join("b/c/big")).expect("big"), big);
    let kept = std::fs::metadata(back.join("sparse")).expect("sparse");
    assert!(
        kept.blocks() * 512 < 1 << 20,
        "holes stay holes: {}",
        kept.blocks()
    );
    assert_eq!(linked(&back), linked(&tree));

    // Into an existing directory: below it, under its own name; again: replaced.
    system
        .daos(&["fs", "put", "tank", "c1", &format!("{from}/a"), "/copy/b"])
        .ok();
    system
        .daos(&["fs", "put", "tank", "c1", from, "/copy/"])
        .ok();
    assert_eq!(
        system
            .daos(&["fs", "ls", "tank", "c1", "/copy/b/a"])
            .ok()
            .lines()
            .count(),
        2
    );
    system
        .daos(&["fs", "rm", "tank", "c1", "/copy"])
        .fails(&["rm -r"]);
    system.daos(&["fs", "rm", "-r", "tank", "c1", "/copy"]).ok();
    assert_eq!(system.daos(&["fs", "ls", "tank", "c1"]).ok(), "");
    system.daos(&["container", "destroy", "tank", "c1"]).ok();
}

fn linked(tree: &std::path::Path) -> bool {
    let ino = |name: &str| std::fs::metadata(tree.join(name)).expect("metadata").ino();
    ino("a/file") == ino("b/linked")
}

/// Path, mode, links, size, time and target of everything in a tree.
fn describe(tree: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut queue = vec![tree.to_owned()];
    while let Some(dir) = queue.pop() {
        for entry in std::fs::read_dir(&dir).expect("directory").flatten() {
            let (path, data) = (entry.path(), entry.path().symlink_metadata().expect("data"));
            let name = path.strip_prefix(tree).expect("below").to_owned();
            let (links, size) = if data.is_dir() {
                (0, 0)
            } else {
                (data.nlink(), data.len())
            };
            let target = std::fs::read_link(&path).unwrap_or_default();
            let (mode, time, part) = (data.mode(), data.mtime(), data.mtime_nsec());
            found.push(format!(
                "{name:?} {mode:o} {links} {size} {time}.{part} {target:?}"
            ));
            if data.is_dir() {
                queue.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn copy_names_containers_as_daos_does() {
    let system = System::with_tank(1);
    let tree = system.scratch("src");
    write(&tree.join("d/b"), b"two\n");
    write(&tree.join("a"), b"one\n");
    symlink("a", tree.join("l")).expect("symlink");
    let from = tree.to_str().expect("path");
    let counts = "    Directories: 2\n    Files:       2\n    Links:       1\n";
    let copy =
        |src: &str, dst: &str| system.daos(&["filesystem", "copy", "--src", src, "--dst", dst]);
    system
        .daos(&["container", "create", "--type=POSIX", "tank", "c1"])
        .ok();
    let said = copy(from, "daos://tank/c1").ok();
    assert_eq!(
        said,
        format!("Successfully copied to DAOS: daos://tank/c1\n{counts}")
    );
    assert_eq!(
        system.daos(&["fs", "cat", "tank", "c1", "/src/d/b"]).ok(),
        "two\n"
    );
    let said = copy(from, "daos://tank/newcont").ok();
    let made = format!("Successfully copied to DAOS: daos://tank/newcont\n{counts}");
    assert!(
        said.starts_with(&format!("{made}Successfully created container ")),
        "{said}"
    );
    let back = system.scratch("back");
    let to = back.to_str().expect("path");
    let said = copy("daos://tank/newcont/src", to).ok();
    assert_eq!(
        said,
        format!("Successfully copied to POSIX: {to}\n{counts}")
    );
    assert_eq!(describe(&back), describe(&tree));
    let ran = copy("/no/such", "daos://tank/c1");
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(
        lines,
        [
            "ERROR: Failed to stat '/no/such': The specified entity does not exist (-1005)",
            "ERROR: fs copy failed: The specified entity does not exist (-1005)",
            "ERROR: daos: failed to copy /no/such -> daos://tank/c1: DER_NONEXIST(-1005): \
             The specified entity does not exist (name a file that exists, and a destination in a \
             directory that exists: daos fs mkdir -p)",
        ]
    );
    let ran = copy("daos://tank/newcont/none", to);
    assert_eq!(ran.code, 1);
    let last = ran.err.lines().last().unwrap_or_default();
    let wanted = ["ERROR: daos: failed to copy ", "name a file that exists"];
    assert!(wanted.iter().all(|text| last.contains(text)), "{last}");
    let ran = copy(from, "daos://tmp/tank/c1");
    assert_eq!(ran.code, 1);
    assert!(
        ran.err
            .contains("ERROR: failed to connect to destination pool: "),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("is written daos://tank/c1"), "{}", ran.err);
    copy(from, to).fails(&["one side must be in a container"]);
}

#[test]
fn a_full_pool_says_so_and_stays_usable() {
    let system = System::new();
    let size = [
        "pool",
        "create",
        "tank",
        "--size=8MiB",
        "--nranks=1",
        "--targets-per-rank=1",
    ];
    system.dmg(&size).ok();
    system
        .daos(&["container", "create", "--type=POSIX", "tank", "c1"])
        .ok();
    write(&system.scratch("small"), b"kept\n");
    write(&system.scratch("big"), &vec![1; 16 << 20]);
    let path = |name: &str| system.scratch(name).to_str().expect("path").to_owned();
    system
        .daos(&["fs", "put", "tank", "c1", &path("small"), "/small"])
        .ok();
    system
        .daos(&["fs", "put", "tank", "c1", &path("big"), "/big"])
        .fails(&["errno 28", "no space"]);
    assert_eq!(system.daos(&["fs", "ls", "tank", "c1"]).ok(), "small\n");
    assert_eq!(
        system.daos(&["fs", "cat", "tank", "c1", "/small"]).ok(),
        "kept\n"
    );
    system.daos(&["fs", "rm", "tank", "c1", "/small"]).ok();
}
