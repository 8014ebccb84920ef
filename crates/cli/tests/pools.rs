//! Several pools at once: what one of them is like does not change what is said of the others.

mod common;

use common::{System, write};
use std::path::PathBuf;
use std::process::Stdio;

fn create(system: &System, label: &str, ranks: &str) {
    let args = [
        "pool",
        "create",
        label,
        "--size=32MiB",
        "--targets-per-rank=2",
    ];
    system.dmg(&[&args[..], &["--nranks", ranks]].concat()).ok();
}

/// Directories of a pool's ranks.
fn ranks(system: &System, pool: &str) -> Vec<PathBuf> {
    let shown = system.daos(&["pool", "query", pool, "--json"]).json();
    let ranks = shown["response"]["ranks"]
        .as_array()
        .expect("ranks")
        .clone();
    let path = |rank: &serde_json::Value| PathBuf::from(rank["path"].as_str().expect("path"));
    ranks.iter().map(path).collect()
}

#[test]
fn a_pool_that_cannot_be_read_does_not_hide_the_others() {
    let system = System::new();
    for label in ["a", "b", "c"] {
        create(&system, label, "1");
    }
    system.dmg(&["system", "stop"]).ok();
    let broken = ranks(&system, "b");
    system.dmg(&["system", "stop"]).ok();
    std::fs::remove_dir_all(&broken[0]).expect("removed");
    for args in [&["pool", "list"][..], &["pool", "list", "-n"]] {
        let ran = system.daos(args);
        assert!(
            ran.out.contains("\na ") && ran.out.contains("\nc "),
            "{}",
            ran.out
        );
        ran.fails(&["1 needed", "pool b"]);
    }
    let ran = system.daos(&["pool", "list", "--json"]);
    assert_eq!(ran.code, 1);
    let json = ran.json();
    let pools = json["response"]["pools"].as_array().map(Vec::len);
    assert_eq!(pools, Some(2));
    assert!(json["error"].is_string() && json["status"] != 0, "{json}");
    let ran = system.dmg(&["system", "stop"]);
    assert_eq!(ran.out.matches("of shared memory freed").count(), 2);
    ran.fails(&["pool b"]);
    let destroy = ["pool", "destroy", "b"];
    system
        .dmg(&destroy)
        .fails(&["cannot tell", "1 needed", "--recursive"]);
    // Two that cannot be read: a line each.
    let broken = ranks(&system, "c");
    system.dmg(&["system", "stop"]);
    std::fs::remove_dir_all(&broken[0]).expect("removed");
    let ran = system.daos(&["pool", "list"]);
    assert_eq!((ran.code, ran.err.lines().count()), (1, 2), "{}", ran.err);
    assert!(ran.out.contains("\na "), "{}", ran.out);
    system.dmg(&[&destroy[..], &["-r"]].concat()).ok();
}

#[test]
fn pools_that_come_and_go_disturb_no_list() {
    let system = System::new();
    create(&system, "stays", "1");
    let labels = ["x", "y", "z"];
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            for _ in 0..10 {
                for label in labels {
                    create(&system, label, "2");
                }
                let destroy = |label| {
                    let args = ["pool", "destroy", label, "--force"];
                    let mut destroy = system.command("dmg", &args);
                    destroy.stdout(Stdio::null()).spawn().expect("dmg")
                };
                for mut destroying in labels.map(destroy) {
                    assert!(destroying.wait().expect("ended").success());
                }
            }
        });
        while !busy.is_finished() {
            let listed = system.daos(&["pool", "list"]).ok();
            assert!(listed.contains("\nstays "), "{listed}");
            system.dmg(&["system", "stop"]).ok();
        }
    });
}

#[test]
fn a_pool_with_containers_is_not_destroyed_by_mistake() {
    let system = System::with_tank(1);
    for label in ["c1", "c2"] {
        system.container(label, "");
    }
    let destroy = ["pool", "destroy", "tank"];
    let ran = system.dmg(&destroy);
    assert!(
        ran.out.starts_with("Pool-destroy command failed: "),
        "{}",
        ran.out
    );
    ran.fails(&["code = 618", "existing containers", "2 in it; --recursive"]);
    system.container("c3", "");
    system.dmg(&[&destroy[..], &["-r"]].concat()).ok();
    // Without containers it goes, whether or not it runs.
    for stop in [false, true] {
        create(&system, "tank", "1");
        if stop {
            system.dmg(&["system", "stop"]).ok();
        }
        system.dmg(&destroy).ok();
    }
    let arenas = std::fs::read_dir(system.root().join("pools")).expect("pools");
    assert_eq!(arenas.count(), 0);
}

#[test]
fn targets_are_those_of_their_rank() {
    let system = System::new();
    create(&system, "tank", "2");
    system.container("c1", "S1");
    let file = system.scratch("file");
    write(&file, &vec![1; 8 << 20]);
    let from = file.to_str().expect("path");
    system.daos(&["fs", "put", "tank", "c1", from, "/f"]).ok();
    let free = |rank: &str| {
        let args = ["pool", "query-targets", "tank", "--rank", rank, "--json"];
        let space = system.daos(&args).json()["response"][0]["space"][0].clone();
        assert_eq!(space["total"], 8 << 20);
        space["free"].as_u64().expect("free")
    };
    let (a, b) = (free("0"), free("1"));
    assert!(a.abs_diff(b) >= 3 << 20, "{a} {b}");
    // Of a rank that is gone nothing is there to be used.
    let gone = ranks(&system, "tank");
    std::fs::remove_file(gone[1].join("pool.map")).expect("removed");
    let args = ["pool", "query-targets", "tank", "--rank=1", "--json"];
    let shown = system.daos(&args).json();
    assert_eq!(shown["response"][0]["target_state"], "down");
    assert_eq!(shown["response"][0]["space"][0]["free"], 0);
}

#[test]
fn an_attribute_has_a_name() {
    let system = System::with_tank(1);
    system
        .daos(&["pool", "set-attr", "tank", " :x"])
        .fails(&["must be key:val"]);
    system.daos(&["pool", "set-attr", "tank", "k: "]).ok();
}
