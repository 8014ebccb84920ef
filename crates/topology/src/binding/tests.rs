//! Bindings as users paste them, in every syntax, and malformed.

use super::*;

fn list(text: &str) -> Vec<String> {
    match Binding::parse(text, None) {
        Ok(Binding::List(list)) => list.iter().map(CpuSet::to_string).collect(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn the_guides_line_pasted_literally() {
    let cpus = [
        "4", "9", "14", "19", "20", "25", "56", "61", "66", "71", "74", "79",
    ];
    for text in [
        "CPU_BINDING1=list:4:9:14:19:20:25:56:61:66:71:74:79",
        "export CPU_BINDING1=list:4:9:14:19:20:25:56:61:66:71:74:79",
        "list:4:9:14:19:20:25:56:61:66:71:74:79",
        "--cpu-bind list:4:9:14:19:20:25:56:61:66:71:74:79\n",
        "--cpu-bind=verbose,list:4:9:14:19:20:25:56:61:66:71:74:79",
        "'list:4:9:14:19:20:25:56:61:66:71:74:79'",
        "4:9:14:19:20:25:56:61:66:71:74:79",
        "--cpu-bind=map_cpu:4,9,14,19,20,25,56,61,66,71,74,79",
    ] {
        assert_eq!(list(text), cpus, "{text}");
    }
}

#[test]
fn ranges_masks_depth_none() {
    assert_eq!(list("list:0-12,104-116:13-25"), ["0-12,104-116", "13-25"]);
    assert_eq!(
        list("mask_cpu:0x10,0x3,10000000000000000"),
        ["4", "0-1", "64"]
    );
    assert_eq!(list("7"), ["7"]);
    assert_eq!(
        Binding::parse("depth", Some(13)).unwrap(),
        Binding::Depth(13)
    );
    assert_eq!(
        Binding::parse("depth:13", None).unwrap(),
        Binding::Depth(13)
    );
    assert_eq!(Binding::parse("none", None).unwrap(), Binding::Unbound);
}

#[test]
fn malformed_bindings_are_named() {
    for (text, why) in [
        ("", "entry 0 is empty"),
        ("list:", "entry 0 is empty"),
        ("list:4::9", "entry 1 is empty"),
        ("list:4:x:9", "entry 1: CPU list: \"x\" is not"),
        ("list:4:9-5", "entry 1: CPU list: \"9-5\" runs backwards"),
        ("list:99999", "entry 0: CPU list: \"99999\" is beyond"),
        ("map_cpu:4,,9", "entry 1 is empty"),
        ("mask_cpu:0xg", "entry 0: \"0xg\" is not a CPU mask"),
        ("depth", "\"depth\" needs"),
        ("depth:0", "\"depth\" needs"),
        ("rank_ldom", "\"rank_ldom\" is not known"),
        ("list\n4", "\"list 4\" is not known"),
    ] {
        let error = Binding::parse(text, None).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let long = format!("list:{}", vec!["1"; PPN_MAX + 1].join(":"));
    assert!(Binding::parse(&long, None).is_err());
}

#[test]
fn every_syntax_reads_back() {
    let topology = Topology::load("topologies/aurora.json".as_ref()).unwrap();
    for text in [
        "list:4:9:14",
        "list:0-12,104-116:13-25:1",
        "list:9:4",
        "list:4:108",
    ] {
        let bindings = Binding::parse(text, None)
            .unwrap()
            .cpus_of_ranks(&topology, 2)
            .unwrap();
        let syntaxes = Syntaxes::of(&topology, &bindings);
        for written in [&syntaxes.pals, &syntaxes.slurm] {
            let read = Binding::parse(written, None).unwrap();
            assert_eq!(
                read.cpus_of_ranks(&topology, 2).unwrap(),
                bindings,
                "{written}"
            );
        }
    }
}

#[test]
fn syntaxes_word_by_word() {
    let topology = Topology::load("topologies/aurora.json".as_ref()).unwrap();
    let of = |text: &str, ppn| {
        let bindings = Binding::parse(text, None)
            .unwrap()
            .cpus_of_ranks(&topology, ppn)
            .unwrap();
        Syntaxes::of(&topology, &bindings)
    };
    let plain = of("list:4:9:56", 3);
    assert_eq!(plain.pals, "--cpu-bind list:4:9:56");
    assert_eq!(plain.hydra, "-bind-to user:4,9,56");
    assert_eq!(plain.openmpi, "--cpu-set 4,9,56 --bind-to cpu-list:ordered");
    assert_eq!(plain.slurm, "--cpu-bind=map_cpu:4,9,56");
    assert_eq!(plain.openmpi_rankfile, None);
    let wide = of("list:0-1,104:2", 2);
    assert_eq!(wide.hydra, "-bind-to user:0+1+104,2");
    assert_eq!(
        wide.slurm,
        "--cpu-bind=mask_cpu:0x100000000000000000000000003,0x4"
    );
    assert_eq!(
        wide.openmpi_rankfile.as_deref(),
        Some("rank 0=localhost slot=0-1,104\nrank 1=localhost slot=2\n")
    );
}

#[test]
fn bindings_that_do_not_fit_the_node() {
    let mut topology = Topology::load("topologies/aurora.json".as_ref()).unwrap();
    topology.offline.insert(9);
    for (text, ppn, why) in [
        ("list:4:8", 3, "2 entries for 3 ranks"),
        ("list:4:208", 2, "rank 1: this node has no CPU 208"),
        ("list:4:9", 2, "rank 1: CPU 9 is offline"),
        (
            "depth:13",
            9,
            "9 ranks of 13 cores need more than 104 cores",
        ),
    ] {
        let binding = Binding::parse(text, None).unwrap();
        let error = binding
            .cpus_of_ranks(&topology, ppn)
            .unwrap_err()
            .to_string();
        assert!(error.ends_with(why), "{text}: {error}");
    }
}
