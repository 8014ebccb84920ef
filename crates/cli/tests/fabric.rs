//! `daos fabric` as a user runs it, on recorded topologies.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const GUIDE_LIST: &str = "CPU_BINDING1=list:4:9:14:19:20:25:56:61:66:71:74:79";

fn recording(name: &str) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../topology/topologies")
        .join(name);
    file.to_str().unwrap().to_owned()
}

fn daos(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_daos"))
        .arg("fabric")
        .args(args)
        .output()
        .unwrap()
}

fn text(args: &[&str]) -> String {
    let output = daos(args);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && err.is_empty(), "{args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

fn response(args: &[&str]) -> Value {
    let answer: Value = serde_json::from_str(&text(&[args, &["--json"]].concat())).unwrap();
    assert_eq!(
        (&answer["error"], &answer["status"]),
        (&Value::Null, &Value::from(0))
    );
    answer["response"].clone()
}

fn failure(args: &[&str]) -> String {
    let output = daos(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.starts_with("ERROR: daos: ") && err.lines().count() == 1,
        "{err}"
    );
    err
}

#[test]
fn show_prints_the_guides_table() {
    let shown = text(&["show", "--topology", &recording("aurora.json")]);
    assert!(!shown.contains('\x1b'), "colours are for terminals");
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = shown
        .lines()
        .map(words)
        .filter(|row| row.len() == 8 && row.iter().all(|cell| cell.parse::<usize>().is_ok()))
        .collect();
    let expected: Vec<Vec<String>> = (0..13)
        .map(|row| {
            (0..8)
                .map(|nic| (row * 4 + nic % 4 + nic / 4 * 52).to_string())
                .collect()
        })
        .collect();
    assert_eq!(rows, expected);
    assert!(shown.contains("2 sockets, 104 cores, 208 CPUs, 8 interfaces (8 up)"));
}

#[test]
fn show_on_every_recording_and_here() {
    for name in ["infiniband.json", "laptop.json", "vm.json", "no-nic.json"] {
        let file = recording(name);
        let shown = text(&["show", "--topology", &file]);
        assert!(shown.contains("interface"), "{shown}");
        let response = response(&["show", "--topology", &file]);
        assert_eq!(response["topology"]["format"], "daos-topology");
        assert_eq!(response["process"], Value::Null);
    }
    let here = response(&["show"]);
    assert!(here["process"]["cpus"].is_string());
}

#[test]
fn plan_of_the_guides_list() {
    let args = [
        "plan",
        "--ppn",
        "12",
        "--cpu-bind",
        GUIDE_LIST,
        "--topology",
        &recording("aurora.json"),
    ];
    let plan = response(&args);
    let ranks = plan["ranks"].as_array().unwrap();
    let nics: Vec<&str> = ranks
        .iter()
        .map(|rank| rank["nic"].as_str().unwrap())
        .collect();
    let expected = [0, 1, 2, 3, 0, 1, 4, 5, 6, 7, 6, 7].map(|nic| format!("hsn{nic}"));
    assert_eq!(nics, expected);
    let loads: Vec<u64> = plan["nics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|nic| nic["ranks"].as_u64().unwrap())
        .collect();
    assert_eq!(loads, [2, 2, 1, 1, 1, 1, 2, 2]);
    assert_eq!(plan["total_gb_per_s"], 200.0);
    assert_eq!(ranks[0]["gb_per_s"], 12.5);
    assert_eq!(ranks[2]["gb_per_s"], 25.0);
    let shown = text(&args);
    assert!(
        shown.contains("No binding of 12 ranks loads 8 interfaces more evenly"),
        "{shown}"
    );
    assert!(
        shown.contains("Better still: 8 or 16 ranks per node"),
        "{shown}"
    );
}

#[test]
fn plan_says_what_is_better() {
    let aurora = recording("aurora.json");
    let plan = |ppn: &str, binding: &str| {
        text(&[
            "plan",
            "--ppn",
            ppn,
            "--cpu-bind",
            binding,
            "--topology",
            &aurora,
        ])
    };
    let default = plan("12", "list:1:2:3:4:5:6:7:8:9:10:11:12");
    assert!(
        default.contains("4 of 8 interfaces idle here, 0 with the recommended"),
        "{default}"
    );
    assert!(
        default.contains("200.0 GB/s instead of 100.0 GB/s"),
        "{default}"
    );
    let one_class = plan("8", "list:0:4:8:12:52:56:60:64");
    assert!(one_class.contains("6 ranks would be moved"), "{one_class}");
    let lopsided = plan("16", "list:0-3:0:1:2:3:4:5:6:7:8:9:10:52:53:54:55");
    assert!(
        lopsided.contains("up to 3 ranks share an interface here, 2 with"),
        "{lopsided}"
    );
}

/// The recommended list, given back, is found to be as good as can be, in each syntax we read.
#[test]
fn recommended_bindings_are_their_own_best() {
    let aurora = recording("aurora.json");
    for ppn in ["1", "8", "12", "16", "96", "104", "208"] {
        let first = response(&["plan", "--ppn", ppn, "--topology", &aurora]);
        for syntax in ["pals", "slurm"] {
            let options = first["recommended"][syntax].as_str().unwrap();
            let (_, binding) = options.split_once([' ', '=']).unwrap();
            let given = [
                "plan",
                "--ppn",
                ppn,
                "--topology",
                &aurora,
                "--cpu-bind",
                binding,
            ];
            let again = response(&given);
            assert_eq!(again["ranks"], first["ranks"], "{binding}");
            let advice = again["advice"].to_string();
            assert!(advice.contains("No binding of "), "{advice}");
        }
    }
}

#[test]
fn plans_without_choice() {
    let vm = text(&["plan", "--ppn", "4", "--topology", &recording("vm.json")]);
    assert!(
        vm.contains("There is one interface") && vm.contains("list:0:1:2:3"),
        "{vm}"
    );
    let none = text(&[
        "plan",
        "--ppn",
        "2",
        "--topology",
        &recording("no-nic.json"),
    ]);
    assert!(
        none.contains("this machine has no network interface DAOS could use"),
        "{none}"
    );
    assert!(!none.contains("Recommended"), "{none}");
}

#[test]
fn record_and_read_back() {
    let file = std::env::temp_dir().join(format!("daos-fabric-{}.json", std::process::id()));
    let path = file.to_str().unwrap();
    let said = text(&["record", path, "--name", "my node"]);
    assert!(
        said.starts_with("Recorded ") && said.contains(path),
        "{said}"
    );
    let recorded = response(&["show", "--topology", path]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(recorded["topology"]["name"], "my node");
    assert_eq!(
        recorded["topology"]["sockets"],
        response(&["show"])["topology"]["sockets"]
    );
}

#[test]
fn errors_are_one_line() {
    let aurora = recording("aurora.json");
    let plan = |args: &[&str]| failure(&[&["plan", "--topology", &aurora], args].concat());
    let missing = failure(&["show", "--topology", "/does/not/exist"]);
    let said = "fabric: /does/not/exist: No such file or directory (os error 2)\n";
    assert_eq!(missing, format!("ERROR: daos: {said}"));
    assert!(plan(&["--ppn", "13", "--cpu-bind", GUIDE_LIST]).contains("12 entries for 13 ranks"));
    assert!(plan(&["--ppn", "2", "--cpu-bind", "list:4:9x"]).contains("\"9x\""));
    assert!(plan(&["--ppn", "2", "--cpu-bind", "list:4:208"]).contains("no CPU 208"));
    assert!(plan(&["--ppn", "2", "--cpu-bind", "depth"]).contains("cores per rank"));
    plan(&["--ppn", "0"]);
    plan(&["--ppn", "9999"]);
    plan(&[]);
    failure(&["record", "/does/not/exist/file"]);
    let file = std::env::temp_dir().join(format!("daos-fabric-bad-{}.json", std::process::id()));
    let text = std::fs::read_to_string(&aurora).unwrap();
    std::fs::write(&file, text.replace("\"version\": 1", "\"version\": 9")).unwrap();
    let output = daos(&["show", "--topology", file.to_str().unwrap(), "--json"]);
    std::fs::remove_file(&file).unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("topology version 9 is not known here")
    );
    assert_eq!(
        (output.status.code(), &answer["response"]),
        (Some(1), &Value::Null)
    );
}
