//! The commands print what DAOS 2.6 prints.

mod common;

use common::System;

struct Block {
    command: String,
    out: String,
    err: Option<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines().skip_while(|line| !line.starts_with("$ ")) {
        if let Some(command) = line.strip_prefix("$ ") {
            blocks.push(Block {
                command: command.to_owned(),
                out: String::new(),
                err: None,
            });
        } else if let Some(block) = blocks.last_mut() {
            match line.strip_prefix("[stderr] ") {
                Some(err) => block.err = Some(err.to_owned()),
                None => block.out.push_str(&format!("{line}\n")),
            }
        }
    }
    blocks
}

fn is_uuid(word: &str) -> bool {
    uuid::Uuid::try_parse(word).is_ok() && word.len() == 36
}

/// Replaces UUIDs, stamps with their times, and long numbers of JSON, keeping everything else. Where
/// stamps are, which are shorter when they end in zeros, the width of the table does not count.
fn mask(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let line = match line.find(": 0x") {
            Some(at) => format!("{}: STAMP", &line[..at]),
            None => line.to_owned(),
        };
        let mut word = String::new();
        for c in line.chars().chain(['\n']) {
            if c.is_ascii_alphanumeric() || c == '-' {
                word.push(c);
                continue;
            }
            let long = word.len() > 15 && word.bytes().all(|b| b.is_ascii_digit());
            match word.as_str() {
                text if is_uuid(text) => out.push_str("UUID"),
                _ if long => out.push_str("NUMBER"),
                text => out.push_str(text),
            }
            word.clear();
            out.push(c);
        }
    }
    if out.contains(": STAMP\n") {
        out = out
            .lines()
            .flat_map(|line| [line.trim_end(), "\n"])
            .collect();
    }
    out
}

fn name_of(file: &str, id: u32) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let found = text
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2).is_some_and(|field| *field == id.to_string()));
    found.map_or_else(|| id.to_string(), |fields| fields[0].to_owned())
}

#[test]
fn texts_are_those_of_daos() {
    let system = System::new();
    let size = [
        "pool",
        "create",
        "tank",
        "--size=4GiB",
        "--nranks=1",
        "--targets-per-rank=1",
    ];
    system.dmg(&size).ok();
    let user = name_of("/etc/passwd", rustix::process::geteuid().as_raw());
    let group = name_of("/etc/group", rustix::process::getegid().as_raw());
    // The names are part of a padded table.
    let pad = |name: &str| format!("{:<35}", format!("{name}@"));
    let expected = include_str!("data/daos-2.6.txt")
        .replace(&pad("GROUP"), &pad(&group))
        .replace(&pad("USER"), &pad(&user));
    let blocks = blocks(&expected);
    assert!(blocks.len() > 60, "{}", blocks.len());
    for Block { command, out, err } in blocks {
        let mut words = command.split(' ');
        let program = words.next().expect("program");
        let args: Vec<&str> = words.collect();
        let ran = common::run(&mut system.command(program, &args));
        assert_eq!(mask(&ran.out), mask(&out), "$ {command}\n{}", ran.err);
        match err {
            None => assert_eq!((ran.code, ran.err.as_str()), (0, ""), "$ {command}"),
            Some(err) => {
                assert_eq!(ran.code, 1, "$ {command}");
                let said = mask(ran.err.lines().last().unwrap_or_default());
                let wanted = mask(&err);
                let (said, wanted) = (said.trim_end(), wanted.trim_end());
                let rest = said.strip_prefix(wanted).unwrap_or_else(|| {
                    panic!("$ {command}\nsaid:   {said}\nwanted: {wanted}");
                });
                assert!(
                    rest.is_empty() || rest.starts_with(" ("),
                    "$ {command}\n{said}"
                );
            }
        }
    }
}

#[test]
fn json_of_pools_has_the_keys_of_daos_in_their_order() {
    let system = System::with_tank(1);
    let keys = |text: &str| -> Vec<String> {
        let quoted = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix('"'));
        quoted
            .filter_map(|line| Some(line.split_once("\": ")?.0.to_owned()))
            .collect()
    };
    let tier = ["total", "free", "min", "max", "mean", "media_type"];
    let usage = ["tier_name", "size", "free", "imbalance"];
    let query = |listed: bool| -> Vec<&str> {
        let label: &[&str] = if listed { &["label"] } else { &[] };
        let replicas: &[&str] = if listed { &["svc_reps"] } else { &[] };
        [
            &["query_mask", "state", "uuid"][..],
            label,
            &[
                "total_targets",
                "active_targets",
                "total_engines",
                "disabled_targets",
                "version",
            ],
            &["svc_ldr"],
            replicas,
            &[
                "rebuild",
                "status",
                "state",
                "objects",
                "records",
                "total_objects",
                "tier_stats",
            ],
            &tier,
            &tier,
            &["pool_layout_ver", "upgrade_layout_ver", "usage"],
            &usage,
            &usage,
        ]
        .concat()
    };
    let text = system.daos(&["pool", "query", "tank", "--json"]).ok();
    let wanted = [
        &["response"][..],
        &query(false),
        &["ranks", "rank", "state", "path"],
        &[
            "embedded",
            "arena_bytes",
            "log_used_bytes",
            "log_bytes",
            "checkpoint_time_ns",
            "processes",
        ],
    ];
    assert_eq!(
        keys(&text),
        [&wanted.concat()[..], &["error", "status"]].concat()
    );
    let text = system.daos(&["pool", "list", "--json"]).ok();
    let wanted = [
        &["response", "pools"][..],
        &query(true),
        &["error", "status"],
    ];
    assert_eq!(keys(&text), wanted.concat());
    let text = system.daos(&["pool", "query", "-t", "tank", "--json"]).ok();
    for line in [
        "\"query_mask\": \"dead_engines,disabled_engines,rebuild\"",
        "\"active_targets\": 0",
        "\"tier_stats\": null",
        "\"disabled_ranks\": []",
    ] {
        assert!(text.contains(line), "{text} lacks {line}");
    }
}

#[test]
fn a_failure_with_json_says_it_twice() {
    let system = System::new();
    let ran = system.daos(&["pool", "query", "nosuch", "--json"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err
            .starts_with("ERROR: daos: failed to connect to pool nosuch: DER_NONEXIST")
    );
    let json = ran.json();
    assert_eq!(
        (json["response"].is_null(), json["status"].as_i64()),
        (true, Some(-1005))
    );
    let error = json["error"].as_str().expect("text");
    assert!(error.starts_with("failed to connect to pool nosuch: DER_NONEXIST(-1005): "));
    let usage = system.daos(&["pool", "query", "--frob", "--json"]);
    assert_eq!(usage.out, "", "a usage error prints no JSON");
}
