//! What the commands do and refuse, on systems of their own.

mod common;

use common::{System, run, write};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn the_life_of_a_pool_and_a_container() {
    let system = System::new();
    let made = system
        .dmg(&["pool", "create", "tank", "--size=64MiB", "--nranks=20"])
        .ok();
    assert!(made.contains("Storage Ranks        : 0-19"), "{made}");
    assert!(made.contains("Total Size           : 67 MB"), "{made}");
    let json = system.daos(&["pool", "query", "tank", "--json"]).json();
    let ranks = json["response"]["ranks"].as_array().expect("ranks");
    assert_eq!(
        (ranks.len(), json["response"]["total_targets"].as_u64()),
        (20, Some(640))
    );
    for (number, rank) in ranks.iter().enumerate() {
        assert_eq!(rank["rank"].as_u64(), Some(number as u64));
        assert_eq!(rank["state"], "up_in");
        assert!(std::path::Path::new(rank["path"].as_str().expect("path")).is_dir());
    }
    let create = [
        "container",
        "create",
        "--type=POSIX",
        "tank",
        "c1",
        "--properties=rd_fac:2",
    ];
    system.daos(&create).ok();
    let shown = system.daos(&["cont", "query", "tank", "c1"]).ok();
    for row in [
        "Dir Object Class            : RP_3G1",
        "File Object Class           : RP_3GX",
    ] {
        assert!(shown.contains(row), "{shown}");
    }
    let listed = system.daos(&["pool", "list-cont", "tank"]).ok();
    assert!(listed.contains(" c1 "), "{listed}");
    system.daos(&["container", "destroy", "tank", "c1"]).ok();
    assert_eq!(
        system.daos(&["container", "list", "tank"]).ok(),
        "No containers.\n"
    );
    assert_eq!(
        system.dmg(&["pool", "destroy", "tank"]).ok(),
        "Pool-destroy command succeeded\n"
    );
    assert_eq!(system.daos(&["pool", "list"]).ok(), "no pools in system\n");
}

#[test]
fn names_come_by_position_flag_or_environment() {
    let system = System::with_tank(1);
    system
        .daos(&[
            "container",
            "create",
            "--type",
            "POSIX",
            "--pool=tank",
            "--cont=c1",
        ])
        .ok();
    for args in [
        &["container", "query", "tank", "c1"][..],
        &["container", "query", "--pool=tank", "--cont=c1"],
        &["container", "query", "--pool", "tank", "c1"],
        &["cont", "query", "tank", "--cont", "c1"],
        &["--json", "container", "query", "tank", "c1"],
    ] {
        let said = system.daos(args).ok();
        assert!(said.contains("c1"), "{args:?}: {said}");
    }
    let by_env = |args: &[&str]| {
        let mut command = system.command("daos", args);
        run(command.env("DAOS_POOL", "tank").env("DAOS_CONT", "c1"))
    };
    for args in [
        &["container", "query"][..],
        &["pool", "query"],
        &["fs", "ls"],
        &["fs", "ls", "/"],
    ] {
        by_env(args).ok();
    }
    by_env(&["fs", "mkdir", "/d"]).ok();
    assert_eq!(by_env(&["fs", "ls"]).ok(), "d\n");
    system
        .daos(&["fs", "ls", "/"])
        .fails(&["no container label or UUID supplied"]);
}

#[test]
fn what_is_not_served_is_refused_by_name_with_the_cure() {
    let system = System::with_tank(20);
    let before = system.snapshot();
    let guide = "--properties=rd_fac:2,ec_cell_sz:131072,cksum:crc32,srv_cksum:on";
    let create = |extra: &[&str]| {
        system.daos(&[&["container", "create", "--type=POSIX"][..], extra].concat())
    };
    create(&["--chunk-size=2097152", guide, "tank", "g1"]).fails(&[
        "not served by the embedded engine yet: cksum:crc32, srv_cksum:on",
        "write instead: cksum:off, srv_cksum:off",
    ]);
    let class = "--file-oclass=EC_16P2G32";
    create(&["--chunk-size=2097152", class, guide, "tank", "g2"]).fails(&[
        "--file-oclass=EC_16P2G32, cksum:crc32",
        "--file-oclass=RP_3GX, cksum:off",
    ]);
    create(&["--dir-oclass=EC_2P1G1", "tank", "g3"]).fails(&["--dir-oclass=RP_2G1"]);
    create(&["--properties=dedup:hash,compression:lz4", "tank", "g4"])
        .fails(&["dedup:hash", "compression:lz4"]);
    create(&["--acl-file=/x", "tank", "g5"]).fails(&["--acl-file is not served"]);
    create(&["--path=/tmp/x", "tank", "g5"]).fails(&["--path is not served"]);
    assert_eq!(system.snapshot(), before);
    create(&[
        "--chunk-size=2097152",
        "--properties=rd_fac:2,ec_cell_sz:131072",
        "tank",
        "g6",
    ])
    .ok();
    let json = system
        .daos(&[
            "container",
            "get-prop",
            "tank",
            "g6",
            "ec_cell_sz",
            "--json",
        ])
        .json();
    assert_eq!(json["response"][0]["value"].as_u64(), Some(131_072));
    let json = system
        .daos(&["container", "query", "tank", "g6", "--json"])
        .json();
    assert_eq!(json["response"]["chunk_size"].as_u64(), Some(2_097_152));
    assert_eq!(json["response"]["file_object_class"], "RP_3GX");
}

#[test]
fn bad_input_is_one_line_and_changes_nothing() {
    let system = System::with_tank(2);
    system
        .daos(&["container", "create", "--type=POSIX", "tank", "c1"])
        .ok();
    system
        .daos(&["container", "create", "tank", "untyped"])
        .ok();
    let before = system.snapshot();
    let long = "x".repeat(128);
    let create = ["container", "create", "--type=POSIX"];
    for (args, texts) in [
        (
            &["pool", "query", "nosuch"][..],
            &["nosuch", "daos pool list"][..],
        ),
        (
            &["container", "query", "tank", "nosuch"],
            &["nosuch", "daos container list tank"],
        ),
        (
            &["container", "list", "nosuch"],
            &["nosuch", "DER_NONEXIST(-1005)"],
        ),
        (
            &[&create[..], &["tank", &long]].concat(),
            &["invalid label", "1 to 127"],
        ),
        (
            &[&create[..], &["tank", "a b"]].concat(),
            &["invalid label \"a b\"", "A-Z a-z 0-9 . _ : -"],
        ),
        (
            &[&create[..], &["--properties=label:a b", "tank"]].concat(),
            &["invalid label \"a b\"", "A-Z a-z 0-9 . _ : -"],
        ),
        (
            &[&create[..], &["--oclass=RP_7G1", "tank", "x"]].concat(),
            &["RP_7G1"],
        ),
        (
            &[&create[..], &["--oclass=RP_3GX", "tank", "x"]].concat(),
            &["3 ranks", "has 2"],
        ),
        (
            &[&create[..], &["--oclass=S9", "tank", "x"]].concat(),
            &["9 targets", "has 8", "GX"],
        ),
        (
            &[
                &create[..],
                &["--oclass=S1", "--properties=rd_fac:1", "tank", "x"],
            ]
            .concat(),
            &["S1 survives 0 failures", "RP_2GX"],
        ),
        (
            &[&create[..], &["--properties=rd_fac:2", "tank", "x"]].concat(),
            &["rd_fac:2", "3 ranks", "--nranks 3"],
        ),
        (
            &[&create[..], &["--chunk-size=8EiB", "tank", "x"]].concat(),
            &["chunk size"],
        ),
        (
            &[&create[..], &["--mode=odd", "tank", "x"]].concat(),
            &["consistency mode"],
        ),
        (
            &["fs", "ls", "tank", "untyped"],
            &["type unknown", "--type=POSIX"],
        ),
        (&["fs", "ls", "tank", "c1", "/none"], &["/none", "errno 2"]),
        (&["fs", "cat", "tank", "c1", "/"], &["errno 21"]),
        (&["fs", "cat", "tank", "c1"], &["too few arguments"]),
        (&["fs", "rm", "tank", "c1", "/"], &["container destroy"]),
        (&["fs", "mkdir", "tank", "c1", "/a/b"], &["/a/b", "errno 2"]),
        (
            &["fs", "mkdir", "-m", "999", "tank", "c1", "/a"],
            &["invalid mode"],
        ),
        (
            &["fs", "put", "tank", "c1", "/no/such", "/x"],
            &["/no/such", "errno 2", "a file that exists"],
        ),
        (
            &["fs", "get", "tank", "c1", "/none", "/tmp"],
            &["/none", "errno 2", "a file that exists"],
        ),
        (
            &["container", "set-attr", "tank", "c1", "novalue"],
            &["must be key:val"],
        ),
        (
            &["container", "query", "tank", "c1", "extra"],
            &["unexpected argument"],
        ),
    ] {
        system.daos(args).fails(texts);
    }
    let pool = ["pool", "create", "other"];
    for (args, texts) in [
        (&["--size=0"][..], &["size is 0", "--size=4GiB"][..]),
        (&["--size=1KiB"], &["1024 bytes", "too small", "20 ranks"]),
        (
            &["--size=900TB"],
            &["900000000000000 bytes", "free", "lower --size"],
        ),
        (
            &["--size=1GiB", "--nranks=0"],
            &["0 ranks: must be 1 to 256"],
        ),
        (
            &["--size=1GiB", "--nranks=257"],
            &["257 ranks: must be 1 to 256"],
        ),
        (
            &["--size=1GiB", "--targets-per-rank=4097"],
            &["4097 targets per rank"],
        ),
        (
            &["--size=1GiB", "--nranks=200", "--targets-per-rank=32"],
            &["6400 targets"],
        ),
        (&["--size=1GiB", "--rank-path=/no/such"], &["/no/such"]),
        (&["--size=1GiB", "--nranks=many"], &["-k, --nranks"]),
        (&["--size"], &["expected argument"]),
    ] {
        system.dmg(&[&pool[..], args].concat()).fails(texts);
    }
    system
        .dmg(&["pool", "create", "a/b", "--size=1GiB"])
        .fails(&["invalid label", "1 to 127"]);
    system
        .dmg(&["pool", "destroy", "nosuch"])
        .fails(&["nosuch"]);
    assert_eq!(system.snapshot(), before);
}

#[test]
fn a_full_attribute_record_is_refused_and_the_old_one_stays() {
    let system = System::with_tank(1);
    system
        .daos(&["container", "create", "--type=POSIX", "tank", "c1"])
        .ok();
    system
        .daos(&["container", "set-attr", "tank", "c1", "kept:yes"])
        .ok();
    let big = format!("big:{}", "x".repeat(4000));
    system
        .daos(&["container", "set-attr", "tank", "c1", &big])
        .fails(&["3072 fit"]);
    let shown = system.daos(&["container", "get-attr", "tank", "c1"]).ok();
    assert!(shown.contains("kept") && !shown.contains("big"), "{shown}");
}

#[test]
fn roots_that_cannot_be_trusted_are_refused() {
    let system = System::with_tank(1);
    let mut relative = system.command("daos", &["pool", "list"]);
    run(relative.env("DAOS_EMBEDDED_ROOT", "some/where")).fails(&[
        "some/where",
        "not an absolute path",
        "DAOS_EMBEDDED_ROOT",
    ]);
    let link = system.scratch("link");
    symlink(system.root(), &link).expect("link");
    let mut linked = system.command("daos", &["pool", "list"]);
    run(linked.env("DAOS_EMBEDDED_ROOT", &link)).fails(&["link"]);
    std::fs::set_permissions(system.root(), PermissionsExt::from_mode(0o777)).expect("chmod");
    system
        .daos(&["pool", "list"])
        .fails(&["can be written by others", "chmod"]);
    std::fs::set_permissions(system.root(), PermissionsExt::from_mode(0o700)).expect("chmod");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(system.root(), Some(4321), None).expect("chown");
        system
            .daos(&["pool", "query", "tank"])
            .fails(&["uid 4321", "dfuse"]);
        std::os::unix::fs::chown(system.root(), Some(0), None).expect("chown");
    }
    system.daos(&["pool", "query", "tank"]).ok();
}

#[test]
fn newer_formats_are_refused_by_name() {
    let system = System::with_tank(1);
    let json = system.daos(&["pool", "query", "tank", "--json"]).json();
    let path = json["response"]["ranks"][0]["path"]
        .as_str()
        .expect("path")
        .to_owned();
    let map = std::path::Path::new(&path).join("pool.map");
    let text = std::fs::read_to_string(&map).expect("map");
    std::fs::write(&map, text.replacen("POOL 2", "POOL 9", 1)).expect("written");
    system
        .daos(&["pool", "query", "tank"])
        .fails(&["pool.map", "format 9", "newer than 2"]);
    std::fs::write(&map, text).expect("written");
    system.daos(&["pool", "query", "tank"]).ok();
}

#[test]
fn of_two_creations_one_succeeds() {
    let system = System::with_tank(1);
    let race = |program: &str, args: &[&str]| {
        let children: Vec<_> = (0..4)
            .map(|_| system.command(program, args).output_later())
            .collect();
        let codes: Vec<i32> = children.into_iter().map(|child| child.code()).collect();
        codes.iter().filter(|code| **code == 0).count()
    };
    for round in 0..3 {
        let label = format!("p{round}");
        let size = "--size=32MiB";
        assert_eq!(
            race("dmg", &["pool", "create", &label, size, "--nranks=1"]),
            1
        );
        let label = format!("c{round}");
        assert_eq!(
            race(
                "daos",
                &["container", "create", "--type=POSIX", "tank", &label]
            ),
            1
        );
    }
    assert_eq!(
        system
            .daos(&["container", "list", "tank"])
            .ok()
            .lines()
            .count(),
        2 + 3
    );
    assert_eq!(
        system.daos(&["pool", "list"]).ok().lines().count(),
        2 + 4 + 1
    );
}

/// A command that runs beside others.
trait Later {
    fn output_later(&mut self) -> Running;
}

struct Running(std::process::Child);

impl Later for std::process::Command {
    fn output_later(&mut self) -> Running {
        let quiet = std::process::Stdio::null;
        Running(
            self.stdout(quiet())
                .stderr(quiet())
                .spawn()
                .expect("started"),
        )
    }
}

impl Running {
    fn code(mut self) -> i32 {
        self.0.wait().expect("ended").code().unwrap_or(-1)
    }
}

#[test]
fn ranks_may_be_lost_as_far_as_the_majority_goes() {
    let system = System::with_tank(3);
    let paths = || {
        let json = system.daos(&["pool", "query", "tank", "--json"]).json();
        let ranks = json["response"]["ranks"].as_array().expect("ranks").clone();
        let path = |rank: &serde_json::Value| rank["path"].as_str().expect("path").to_owned();
        ranks.iter().map(path).collect::<Vec<_>>()
    };
    let paths = paths();
    std::fs::remove_file(format!("{}/pool.map", paths[2])).expect("removed");
    let text = system.daos(&["pool", "query", "tank"]).ok();
    assert!(
        text.contains("disabled=4") && text.contains("state=Degraded"),
        "{text}"
    );
    assert!(text.contains("- Disabled ranks: 2\n"), "{text}");
    std::fs::remove_file(format!("{}/pool.map", paths[1])).expect("removed");
    let line = system
        .daos(&["pool", "query", "tank"])
        .fails(&["1 agreeing copies", "2 needed"]);
    assert!(line.contains(&paths[1]), "{line}");
    system.dmg(&["pool", "destroy", "tank"]).ok();
}

#[test]
fn help_and_version_succeed() {
    let system = System::new();
    assert!(
        system
            .daos(&["version"])
            .ok()
            .starts_with("DAOS CLI version ")
    );
    for args in [
        &["--help"][..],
        &["pool", "--help"],
        &["container", "create", "--help"],
    ] {
        assert!(system.daos(args).ok().contains("Usage:"), "{args:?}");
    }
    system
        .daos(&[])
        .fails(&["Please specify one command of: container, "]);
    system
        .daos(&["frobnicate"])
        .fails(&["Unknown command `frobnicate'. Please specify one"]);
    assert!(!system.root().exists(), "nothing is made by asking");
}

#[test]
fn a_pool_tells_how_its_engine_is() {
    let system = System::with_tank(3);
    let said = system.dmg(&["pool", "query", "tank"]).ok();
    assert!(said.contains("Embedded engine info:\n- Arena: "), "{said}");
    assert!(
        said.contains(" processes have containers open\n- Log: "),
        "{said}"
    );
    assert!(said.contains("- Last checkpoint: "), "{said}");
    let json = system.dmg(&["pool", "query", "tank", "--json"]).json();
    let engine = &json["response"]["embedded"];
    assert!(engine["arena_bytes"].as_u64() > Some(0));
    let (used, all) = (&engine["log_used_bytes"], &engine["log_bytes"]);
    assert!(used.as_u64() < all.as_u64(), "{engine}");
    assert_eq!(engine["processes"].as_u64(), Some(0));
    let original = system.daos(&["pool", "query", "tank"]).ok();
    assert!(!original.contains("Embedded"), "{original}");
}

#[test]
fn a_sound_container_checks_clean() {
    let system = System::with_tank(3);
    system.container("c1", "RP_3GX");
    system
        .daos(&["fs", "mkdir", "-p", "tank", "c1", "/a/b", "/c"])
        .ok();
    let said = system
        .daos(&["container", "check", "--pool=tank", "--cont=c1"])
        .ok();
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].starts_with("check container c1 started at: "),
        "{said}"
    );
    assert!(
        lines[2].starts_with("check container c1 completed at: "),
        "{said}"
    );
    assert_eq!(lines[4..7], ["checked: 4", "skipped: 0", "inconsistent: 0"]);
    let ran = system
        .daos(&["container", "check", "tank", "c1", "--json"])
        .json();
    assert_eq!(ran["status"].as_i64(), Some(0));
}

#[test]
fn the_files_of_a_container_check_clean() {
    let system = System::with_tank(3);
    system.container("c1", "");
    system
        .daos(&["fs", "mkdir", "-p", "tank", "c1", "/a/b"])
        .ok();
    let said = system
        .daos(&["filesystem", "check", "tank", "c1", "--flags=relink,verify"])
        .ok();
    // How long it took is no matter of this test.
    let lines: Vec<&str> = said
        .lines()
        .map(|line| line.split(" (runtime: ").next().unwrap_or(line))
        .collect();
    assert!(lines[0].starts_with("DFS checker: Start (20"), "{said}");
    assert_eq!(
        lines[1..4],
        [
            "DFS checker: Create OIT table",
            "DFS checker: Iterating namespace and marking objects",
            "DFS checker: marked 3 files/directories",
        ]
    );
    assert!(lines[4].starts_with("DFS checker: Leaked OIDs will be inserted in /lost+found/20"));
    assert_eq!(
        lines[5..],
        [
            "DFS checker: Checking unmarked OIDs (Pass 1)",
            "DFS checker: Checking unmarked OIDs (Pass 2)",
            "DFS checker: Done!",
            "DFS checker: Number of leaked OIDs in namespace = 0",
        ]
    );
    system
        .daos(&["fs", "check", "tank", "c1", "--flags=bogus"])
        .fails(&["unknown filesystem check flags: \"bogus\""]);
}

#[test]
fn a_copy_that_was_changed_on_its_rank_is_found() {
    let system = System::with_tank(3);
    system.container("c1", "RP_3GX");
    let local = system.scratch("local");
    let pattern = b"0123456789abcdef".repeat(256);
    std::fs::write(&local, &pattern).expect("a file");
    let local = local.to_str().expect("text");
    system.daos(&["fs", "put", "tank", "c1", local, "/f"]).ok();
    let check = |names: &[&str]| system.daos(&[&["container", "check"], names].concat());
    let sound = check(&["tank", "c1"]);
    assert!(sound.out.contains("inconsistent: 0"), "{}", sound.out);
    let damaged = system
        .snapshot()
        .into_iter()
        .find(|(path, ..)| {
            path.ends_with("data") && {
                let bytes = std::fs::read(path).expect("readable");
                let at = bytes.windows(4096).position(|block| block == pattern);
                at.is_some_and(|at| {
                    let file = std::fs::File::options().write(true).open(path);
                    let changed = [bytes[at + 100] ^ 1];
                    let at = at as u64 + 100;
                    file.expect("writable").write_all_at(&changed, at).is_ok()
                })
            }
        })
        .expect("a rank that holds the file");
    let ran = check(&["tank", "c1"]);
    assert_eq!(ran.code, 0, "{damaged:?}");
    assert!(ran.out.contains("inconsistent: 1"), "{}", ran.out);
    assert!(
        ran.err.contains("found data inconsistency: file ") && ran.err.contains(" differ"),
        "{}",
        ran.err
    );
}

#[test]
fn a_destroyed_container_gives_its_space_back() {
    let system = System::with_tank(3);
    let free = || {
        let json = system.daos(&["pool", "query", "tank", "--json"]).json();
        json["response"]["tier_stats"][0]["free"]
            .as_u64()
            .expect("number")
    };
    let before = free();
    let big = system.scratch("big");
    write(&big, &vec![7; 4 << 20]);
    let from = big.to_str().expect("path");
    for round in 0..4 {
        let label = format!("c{round}");
        system.container(&label, "RP_3GX");
        system
            .daos(&["fs", "put", "tank", &label, from, "/big"])
            .ok();
        assert!(free() + (12 << 20) <= before);
        system.daos(&["container", "destroy", "tank", &label]).ok();
        assert_eq!(free(), before);
    }
}

#[test]
fn a_stopped_system_comes_up_with_everything() {
    let system = System::with_tank(3);
    system.container("c1", "RP_3GX");
    let file = system.scratch("file");
    let bytes: Vec<u8> = (0..200_000_u32)
        .map(|n| (n.wrapping_mul(31) >> 3) as u8)
        .collect();
    write(&file, &bytes);
    let from = file.to_str().expect("path");
    system
        .daos(&["fs", "put", "tank", "c1", from, "/file"])
        .ok();
    system
        .daos(&["container", "set-attr", "tank", "c1", "k:v"])
        .ok();
    let said = system.dmg(&["system", "stop"]).ok();
    assert!(
        said.starts_with("tank: ") && said.ends_with(" of shared memory freed\n"),
        "{said}"
    );
    assert_eq!(
        system.dmg(&["system", "stop"]).ok(),
        "tank: 0 B of shared memory freed\n"
    );
    let to = system.scratch("back");
    system
        .daos(&[
            "fs",
            "get",
            "tank",
            "c1",
            "/file",
            to.to_str().expect("path"),
        ])
        .ok();
    assert_eq!(std::fs::read(&to).expect("back"), bytes);
    assert!(
        system
            .daos(&["container", "get-attr", "tank", "c1"])
            .ok()
            .contains("k")
    );
}

#[test]
fn a_container_in_use_is_not_destroyed_without_force() {
    let system = System::with_tank(1);
    for label in ["c1", "c2"] {
        system
            .daos(&["container", "create", "--type=POSIX", "tank", label])
            .ok();
    }
    let root =
        engine::system::SystemRoot::locate(Some(system.root().as_os_str().as_encoded_bytes()));
    let pool = "tank".parse().expect("label");
    root.expect("root")
        .open_container(&pool, "c1")
        .expect("open, for the life of this test");
    let refused = ["container", "destroy", "tank", "c1"];
    system
        .daos(&refused)
        .fails(&["DER_BUSY(-1012): Device or resource busy", "--force"]);
    system
        .dmg(&["pool", "destroy", "-r", "tank"])
        .fails(&["in use by process"]);
    system.daos(&["container", "destroy", "tank", "c2"]).ok();
    system
        .daos(&["container", "destroy", "-f", "tank", "c1"])
        .ok();
    assert_eq!(
        system.daos(&["container", "list", "tank"]).ok(),
        "No containers.\n"
    );
}
