//! Reading sysfs trees: sound ones, and every kind of broken one.

mod common;

use std::fs;
use std::path::Path;

use common::{RECORDINGS, link, put, recorded, tree_dir, write_sysfs};
use proptest::prelude::*;
use topology::plan::{Policy, Process, choose};
use topology::{CpuSet, LinkState, NicKind, Topology};

fn choice_for(topology: &Topology, cpu: usize) -> Option<String> {
    let me = Process {
        cpus: CpuSet::from_iter([cpu]),
        local: None,
        current_cpu: None,
    };
    choose(topology, &me, &[], Policy::default())
        .nic
        .map(|nic| topology.nics[nic].name.clone())
}

#[test]
fn every_recording_is_found_again_in_its_tree() {
    for name in RECORDINGS {
        let original = recorded(name);
        let root = tree_dir();
        write_sysfs(root.path(), &original);
        let mut found = Topology::discover(root.path()).unwrap();
        found.notes.clear();
        assert_eq!(found, original, "{name}");
    }
}

#[test]
fn recordings_survive_writing() {
    for name in RECORDINGS {
        let original = recorded(name);
        let file = tempfile::NamedTempFile::new().unwrap();
        original.save(file.path()).unwrap();
        assert_eq!(Topology::load(file.path()).unwrap(), original);
    }
}

#[test]
fn this_machine() {
    let here = Topology::discover(Path::new("/")).unwrap();
    let allowed = topology::process::allowed_cpus();
    assert!(!allowed.is_empty());
    assert_eq!(allowed.and(&here.online()), allowed, "{:?}", here.notes);
    assert!(here.nics.iter().all(|nic| nic.name != "lo"));
}

#[test]
fn a_missing_root_is_one_line() {
    let error = Topology::discover(Path::new("/does/not/exist"))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("/does/not/exist: "), "{error}");
    assert!(!error.contains('\n'));
}

#[test]
fn an_empty_tree_is_an_empty_topology() {
    let root = tree_dir();
    let empty = Topology::discover(root.path()).unwrap();
    assert!(empty.sockets.is_empty() && empty.nics.is_empty());
    let me = Process {
        cpus: CpuSet::from_iter([3]),
        local: None,
        current_cpu: Some(3),
    };
    let choice = choose(&empty, &me, &[], Policy::default());
    assert_eq!(choice.nic, None);
    assert_eq!(
        choice.reason,
        "this machine has no network interface DAOS could use"
    );
}

/// Offline CPUs lose their topology directory; the table must not shift for those that remain.
#[test]
fn offline_cpus_do_not_shift_the_table() {
    let offline_sets = [
        "5",
        "5,109",
        "4-7",
        "52",
        "51",
        "0,104",
        "103,207",
        "104-207",
        "1,3,60",
        "10-30,70-90",
    ];
    for offline in offline_sets {
        let mut original = recorded("aurora.json");
        original.offline = CpuSet::parse(offline).unwrap();
        let root = tree_dir();
        write_sysfs(root.path(), &original);
        let found = Topology::discover(root.path()).unwrap();
        for cpu in original.online().iter() {
            let core = cpu % 104;
            let nic = 4 * (core / 52) + core % 4;
            assert_eq!(
                choice_for(&found, cpu),
                Some(format!("hsn{nic}")),
                "CPU {cpu} of {offline}"
            );
        }
    }
}

/// Virtual machines mostly, and other processors, number the threads of a core one after another.
#[test]
fn offline_cpus_with_siblings_side_by_side() {
    // Two sockets of 16 cores, two interfaces each; some CPUs off, or all second threads.
    let halves = (0..32).map(|core| (core * 2 + 1).to_string());
    let halves = halves.collect::<Vec<_>>().join(",");
    let sets = [
        ("on", "3"),
        ("on", "2"),
        ("on", "2-3"),
        ("on", "0-5,33"),
        ("on", "1,4,6-7,40"),
        ("off", halves.as_str()),
        ("forceoff", halves.as_str()),
    ];
    for (control, offline) in sets {
        let mut node = recorded("aurora.json");
        let core = |core: usize| topology::Core {
            cpus: vec![2 * core, 2 * core + 1],
        };
        let socket = |first: usize| topology::Socket {
            cores: (first..first + 16).map(core).collect(),
        };
        node.nodes[0].cpus = (0..32).collect();
        node.nodes[1].cpus = (32..64).collect();
        node.nics
            .retain(|nic| ["hsn0", "hsn1", "hsn4", "hsn5"].contains(&nic.name.as_str()));
        let node = Topology::build(
            node.name,
            vec![socket(0), socket(16)],
            node.nodes,
            CpuSet::parse(offline).unwrap(),
            node.nics,
            Vec::new(),
        );
        let root = tree_dir();
        write_sysfs(root.path(), &node);
        put(root.path(), "sys/devices/system/cpu/smt/control", control);
        let found = Topology::discover(root.path()).unwrap();
        for cpu in node.online().iter() {
            let core = cpu / 2;
            let nic = 4 * (core / 16) + core % 2;
            assert_eq!(
                choice_for(&found, cpu),
                Some(format!("hsn{nic}")),
                "CPU {cpu} of {offline}, {control}"
            );
        }
    }
}

/// A few BIOSes number CPUs alternately over the sockets.
#[test]
fn offline_cpus_with_alternating_sockets() {
    let root = tree_dir();
    let cpu_dir = "sys/devices/system/cpu";
    put(root.path(), &format!("{cpu_dir}/online"), "0-5,7-15");
    put(root.path(), &format!("{cpu_dir}/present"), "0-15");
    for cpu in (0..16).filter(|&cpu| cpu != 6) {
        let dir = format!("{cpu_dir}/cpu{cpu}/topology");
        put(
            root.path(),
            &format!("{dir}/physical_package_id"),
            &(cpu % 2).to_string(),
        );
        let mine = if cpu % 2 == 0 {
            "0,2,4,8,10,12,14"
        } else {
            "1,3,5,7,9,11,13,15"
        };
        put(root.path(), &format!("{dir}/core_siblings_list"), mine);
        put(
            root.path(),
            &format!("{dir}/thread_siblings_list"),
            &cpu.to_string(),
        );
    }
    let found = Topology::discover(root.path()).unwrap();
    assert_eq!(found.sockets.len(), 2);
    assert_eq!(found.place(8).unwrap().core, 4);
    assert_eq!(found.place(9).unwrap().core, 4);
    assert_eq!(found.offline.to_string(), "6");
}

#[test]
fn numa_node_minus_one() {
    // A virtio interface hides its NUMA node one level up.
    let root = tree_dir();
    let aurora = recorded("aurora.json");
    write_sysfs(root.path(), &aurora);
    let parent = "sys/devices/pci0001:00/0001:00:03.0";
    put(root.path(), &format!("{parent}/numa_node"), "1");
    let net = format!("{parent}/virtio2/net/hsn9");
    put(root.path(), &format!("{net}/type"), "1");
    put(root.path(), &format!("{net}/operstate"), "up");
    link(root.path(), &format!("{net}/device"), "../..");
    link(
        root.path(),
        "sys/class/net/hsn9",
        &format!("../../../{net}"),
    );
    // Another says -1, but lists its CPUs; a third says nothing at all.
    let device = "sys/devices/pci0001:00/0001:00:04.0";
    put(root.path(), &format!("{device}/numa_node"), "-1");
    put(
        root.path(),
        &format!("{device}/local_cpulist"),
        "52-103,156-207",
    );
    put(root.path(), &format!("{device}/net/hsn10/type"), "1");
    link(root.path(), &format!("{device}/net/hsn10/device"), "../..");
    link(
        root.path(),
        "sys/class/net/hsn10",
        &format!("../../../{device}/net/hsn10"),
    );
    put(root.path(), "sys/devices/odd/net/hsn11/type", "1");
    link(root.path(), "sys/devices/odd/net/hsn11/device", "../..");
    link(
        root.path(),
        "sys/class/net/hsn11",
        "../../../sys/devices/odd/net/hsn11",
    );
    let found = Topology::discover(root.path()).unwrap();
    let nic = |name: &str| &found.nics[found.nic_named(name).unwrap()];
    assert_eq!((nic("hsn9").numa, nic("hsn9").socket), (Some(1), Some(1)));
    assert_eq!(nic("hsn9").pci.as_deref(), Some("0001:00:03.0"));
    assert_eq!((nic("hsn10").numa, nic("hsn10").socket), (None, Some(1)));
    assert_eq!((nic("hsn11").numa, nic("hsn11").socket), (None, Some(0)));
    assert_eq!(nic("hsn11").state, LinkState::Down);
    let note = "no NUMA node known for hsn11: counted to node 0, as the DAOS agent does";
    assert!(found.notes.contains(&note.to_owned()), "{:?}", found.notes);
}

/// A device may hang on a node of memory only: the nearest CPUs count.
#[test]
fn numa_node_without_cpus() {
    let mut node = recorded("aurora.json");
    let place = |id: u32, near: u32| {
        let far = |other: u32| if other == near { 13 } else { 23 };
        topology::NumaNode {
            id,
            cpus: CpuSet::new(),
            distances: vec![far(0), far(1), 10, 10],
        }
    };
    node.nodes.truncate(2);
    node.nodes.extend([place(2, 1), place(3, 0)]);
    for nic in &mut node.nics {
        nic.numa = nic.numa.map(|numa| 3 - numa);
    }
    let root = tree_dir();
    write_sysfs(root.path(), &node);
    let found = Topology::discover(root.path()).unwrap();
    for cpu in [0, 51, 52, 103, 207] {
        let core = cpu % 104;
        let nic = 4 * (core / 52) + core % 4;
        assert_eq!(choice_for(&found, cpu), Some(format!("hsn{nic}")));
    }
    assert!(found.notes.is_empty(), "{:?}", found.notes);
}

/// The bond stands for its members; a VLAN or container link is no hardware of its own.
#[test]
fn bonds_and_virtual_interfaces() {
    let root = tree_dir();
    let mut node = recorded("infiniband.json");
    node.nics.retain(|nic| nic.kind == NicKind::Ethernet);
    write_sysfs(root.path(), &node);
    let net = |name: &str, file: &str| format!("sys/devices/virtual/net/{name}/{file}");
    for (name, lower) in [("bond0", "eno1"), ("eno1.7", "eno1"), ("veth3", "")] {
        put(root.path(), &net(name, "type"), "1");
        put(root.path(), &net(name, "operstate"), "up");
        link(
            root.path(),
            &format!("sys/class/net/{name}"),
            &format!("/{}", net(name, "")),
        );
        if !lower.is_empty() {
            link(
                root.path(),
                &net(name, &format!("lower_{lower}")),
                "/sys/class/net/eno1",
            );
        }
    }
    let found = Topology::discover(root.path()).unwrap();
    let kind = |name: &str| found.nics[found.nic_named(name).unwrap()].kind;
    assert_eq!((kind("eno1"), kind("eno1.7"), kind("veth3")), {
        (NicKind::Ethernet, NicKind::Virtual, NicKind::Virtual)
    });
    assert_eq!(kind("bond0"), NicKind::Virtual, "eno1 is no member yet");
    let eno1 = "sys/devices/pci0000:00/0000:61:00.0/net/eno1";
    link(
        root.path(),
        &format!("{eno1}/master"),
        "/sys/class/net/bond0",
    );
    let found = Topology::discover(root.path()).unwrap();
    let nic = |name: &str| &found.nics[found.nic_named(name).unwrap()];
    assert_eq!(
        (nic("bond0").kind, nic("bond0").numa),
        (NicKind::Ethernet, Some(0))
    );
    assert_eq!(nic("eno1").state, LinkState::Down);
    assert_eq!(choice_for(&found, 40), Some("bond0".to_owned()));
}

/// A member of the bond or bridge `upper` (an interface without device of its own), which is made
/// if it is not there.
fn enslave(root: &Path, upper: &str, link_type: &str, member: &str) {
    let dir = format!("sys/devices/virtual/net/{upper}");
    put(root, &format!("{dir}/type"), link_type);
    put(root, &format!("{dir}/operstate"), "up");
    if !root.join(format!("sys/class/net/{upper}")).is_symlink() {
        link(root, &format!("sys/class/net/{upper}"), &format!("/{dir}"));
    }
    let real = fs::read_link(root.join(format!("sys/class/net/{member}"))).unwrap();
    let real = real.to_str().unwrap().trim_start_matches('/').to_owned();
    link(
        root,
        &format!("{real}/master"),
        &format!("/sys/class/net/{upper}"),
    );
    link(
        root,
        &format!("{dir}/lower_{member}"),
        &format!("/sys/class/net/{member}"),
    );
}

/// Hosts of virtual machines bridge over a bond: the bridge stands for the hardware below it.
#[test]
fn a_bridge_over_a_bond_is_hardware() {
    let root = tree_dir();
    let mut node = recorded("infiniband.json");
    node.nics.retain(|nic| nic.kind == NicKind::Ethernet);
    write_sysfs(root.path(), &node);
    enslave(root.path(), "bond0", "1", "eno1");
    enslave(root.path(), "br0", "1", "bond0");
    // A container link sorts before it, and is up.
    let veth = "sys/devices/virtual/net/ahead0";
    put(root.path(), &format!("{veth}/type"), "1");
    put(root.path(), &format!("{veth}/operstate"), "up");
    link(root.path(), "sys/class/net/ahead0", &format!("/{veth}"));
    let found = Topology::discover(root.path()).unwrap();
    let nic = |name: &str| &found.nics[found.nic_named(name).unwrap()];
    assert_eq!(
        (nic("br0").kind, nic("br0").numa),
        (NicKind::Ethernet, Some(0))
    );
    assert_eq!(nic("bond0").state, LinkState::Down);
    for cpu in [0, 1, 40] {
        assert_eq!(choice_for(&found, cpu), Some("br0".to_owned()));
    }
    // Links that go round are no hardware, and an end.
    enslave(root.path(), "ring0", "1", "ahead0");
    enslave(root.path(), "ring1", "1", "ring0");
    enslave(root.path(), "ring0", "1", "ring1");
    let found = Topology::discover(root.path()).unwrap();
    let ring = &found.nics[found.nic_named("ring0").unwrap()];
    assert_eq!(ring.kind, NicKind::Virtual);
}

/// A bond over IPoIB has no device: place and domain are those of the member in use, its state is
/// its own.
#[test]
fn a_bond_over_infiniband() {
    let root = tree_dir();
    write_sysfs(root.path(), &recorded("infiniband.json"));
    enslave(root.path(), "bond1", "32", "ib0");
    enslave(root.path(), "bond1", "32", "ib1");
    put(
        root.path(),
        "sys/devices/virtual/net/bond1/bonding/active_slave",
        "ib1",
    );
    let mut found = Topology::discover(root.path()).unwrap();
    let bond = found.nics[found.nic_named("bond1").unwrap()].clone();
    assert_eq!(
        (bond.kind, bond.numa, bond.socket),
        (NicKind::InfiniBand, Some(1), Some(1))
    );
    assert_eq!(
        (bond.domain.as_str(), bond.state),
        ("mlx5_1", LinkState::Up)
    );
    assert!(topology::cache::is_up_now(root.path(), &bond));
    assert_eq!(choice_for(&found, 0), Some("bond1".to_owned()));
    // Where no device is to be found, the state is still that of the interface.
    let lone = "sys/devices/virtual/net/ib9";
    put(root.path(), &format!("{lone}/type"), "32");
    put(root.path(), &format!("{lone}/operstate"), "up");
    link(root.path(), "sys/class/net/ib9", &format!("/{lone}"));
    let before = Topology::discover(root.path()).unwrap();
    found = before.clone();
    topology::cache::refresh_states(root.path(), &mut found).unwrap();
    assert_eq!(found, before);
}

#[test]
fn kinds_and_speeds() {
    let root = tree_dir();
    write_sysfs(root.path(), &recorded("infiniband.json"));
    // RoCE: an Ethernet interface that belongs to an infiniband device; its speed only there.
    let device = "sys/devices/pci0000:00/0000:c1:00.0";
    put(root.path(), &format!("{device}/numa_node"), "1");
    put(root.path(), &format!("{device}/net/ens9/type"), "1");
    put(
        root.path(),
        &format!("{device}/net/ens9/operstate"),
        "unknown",
    );
    put(root.path(), &format!("{device}/net/ens9/flags"), "0x1003");
    link(root.path(), &format!("{device}/net/ens9/device"), "../..");
    link(
        root.path(),
        "sys/class/net/ens9",
        &format!("/{device}/net/ens9"),
    );
    put(
        root.path(),
        &format!("{device}/infiniband/mlx5_7/ports/1/rate"),
        "100 Gb/sec (4X EDR)",
    );
    link(
        root.path(),
        &format!("{device}/infiniband/mlx5_7/device"),
        "../..",
    );
    link(
        root.path(),
        "sys/class/infiniband/mlx5_7",
        &format!("/{device}/infiniband/mlx5_7"),
    );
    // A port without network interface, as on a node without IPoIB.
    let bare = "sys/devices/pci0000:00/0000:d1:00.0";
    put(root.path(), &format!("{bare}/numa_node"), "0");
    put(
        root.path(),
        &format!("{bare}/infiniband/mlx5_8/ports/1/state"),
        "4: ACTIVE",
    );
    put(
        root.path(),
        &format!("{bare}/infiniband/mlx5_8/ports/1/rate"),
        "2.5 Gb/sec (1X SDR)",
    );
    link(
        root.path(),
        &format!("{bare}/infiniband/mlx5_8/device"),
        "../..",
    );
    link(
        root.path(),
        "sys/class/infiniband/mlx5_8",
        &format!("/{bare}/infiniband/mlx5_8"),
    );
    let found = Topology::discover(root.path()).unwrap();
    let nic = |name: &str| &found.nics[found.nic_named(name).unwrap()];
    assert_eq!(
        (nic("ens9").kind, nic("ens9").domain.as_str()),
        (NicKind::Roce, "mlx5_7")
    );
    assert_eq!(
        (nic("ens9").speed_mbps, nic("ens9").state),
        (Some(100_000), LinkState::Up)
    );
    assert_eq!(
        (nic("mlx5_8").kind, nic("mlx5_8").state),
        (NicKind::InfiniBand, LinkState::Up)
    );
    assert_eq!(nic("mlx5_8").speed_mbps, Some(2500));
    assert_eq!(
        choice_for(&found, 40),
        Some("ib1".to_owned()),
        "InfiniBand before RoCE and Ethernet"
    );
    // Only tunnels and the like: nothing to choose.
    put(root.path(), "sys/class/net/tun0/type", "65534");
    assert_eq!(
        Topology::discover(root.path()).unwrap().nic_named("tun0"),
        None
    );
}

/// Files that are links to themselves, FIFOs, devices, directories, endless, binary or absurd.
#[test]
fn malformed_trees_are_answered() {
    let root = tree_dir();
    let at = root.path();
    let cpu_dir = "sys/devices/system/cpu";
    write_sysfs(at, &recorded("aurora.json"));
    let replace = |file: &str, with: &dyn Fn(&Path)| {
        let path = at.join(file);
        fs::remove_file(&path).unwrap();
        with(&path);
    };
    let mkfifo = |path: &Path| {
        let status = std::process::Command::new("mkfifo")
            .arg(path)
            .status()
            .unwrap();
        assert!(status.success());
    };
    replace(
        &format!("{cpu_dir}/cpu0/topology/physical_package_id"),
        &mkfifo,
    );
    replace(
        &format!("{cpu_dir}/cpu1/topology/thread_siblings_list"),
        &|path| {
            std::os::unix::fs::symlink("thread_siblings_list", path).unwrap();
        },
    );
    replace("sys/devices/system/node/node1/cpulist", &|path| {
        fs::write(path, [0xff, 0xfe, 0, 1]).unwrap();
    });
    replace("sys/devices/system/node/node0/cpulist", &|path| {
        fs::write(path, "0-51,104-99999999999").unwrap();
    });
    replace(&format!("{cpu_dir}/present"), &|path| {
        fs::write(path, "7-3").unwrap()
    });
    let net = |nic: usize, file: &str| {
        format!(
            "sys/devices/pci0000:00/{}/{file}",
            recorded("aurora.json").nics[nic].pci.clone().unwrap()
        )
    };
    replace(&net(0, "net/hsn0/speed"), &|path| {
        fs::write(path, "-1").unwrap()
    });
    replace(&net(1, "net/hsn1/operstate"), &|path| {
        fs::create_dir(path).unwrap()
    });
    replace(&net(2, "net/hsn2/type"), &mkfifo);
    replace(&net(3, "numa_node"), &|path| {
        fs::write(path, vec![b'9'; 1 << 20]).unwrap()
    });
    link(at, "sys/class/net/loop0", "loop0");
    link(
        at,
        "sys/class/net/up-and-out",
        "../../../../../../../../../etc",
    );
    link(at, "sys/class/net/nowhere", "missing");
    link(at, "sys/class/cxi/self", ".");
    put(at, "sys/class/net/plain-file", "1");
    put(at, "sys/class/net/two words/type", "1");
    let found = Topology::discover(at).unwrap();
    assert!(found.nic_named("hsn0").is_some() && found.nic_named("hsn2").is_none());
    let nic = |name: &str| &found.nics[found.nic_named(name).unwrap()];
    assert_eq!(nic("hsn0").speed_mbps, None);
    assert_eq!(nic("hsn1").state, LinkState::Down);
    assert_eq!(nic("hsn3").numa, None);
    assert!(
        found.notes.iter().all(|note| !note.contains('\n')),
        "{:?}",
        found.notes
    );
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.contains("\"two words\"")),
        "{:?}",
        found.notes
    );
    for cpu in 0..208 {
        assert!(choice_for(&found, cpu).is_some());
    }
}

#[test]
fn huge_trees_are_cut_off() {
    let root = tree_dir();
    for number in 0..6000 {
        fs::create_dir_all(root.path().join(format!("sys/class/net/eth{number}"))).unwrap();
    }
    for number in 0..300 {
        put(root.path(), &format!("sys/class/net/eth{number}/type"), "1");
    }
    for node in 0..2000 {
        fs::create_dir_all(
            root.path()
                .join(format!("sys/devices/system/node/node{node}")),
        )
        .unwrap();
    }
    put(root.path(), "sys/devices/system/cpu/online", "0-8191");
    let found = Topology::discover(root.path()).unwrap();
    assert!(found.nics.len() <= topology::NICS_MAX);
    assert_eq!(found.nodes.len(), 1024);
    assert_eq!(found.cpus().len(), 8192);
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.contains("too many entries")),
        "{:?}",
        found.notes
    );
}

/// Hundreds of container links, whose names sort first, do not push the hardware out.
#[test]
fn hardware_is_not_cut_off() {
    let root = tree_dir();
    write_sysfs(root.path(), &recorded("aurora.json"));
    for number in 0..400 {
        let dir = format!("sys/class/net/cali{number}");
        put(root.path(), &format!("{dir}/type"), "1");
        put(root.path(), &format!("{dir}/operstate"), "up");
    }
    let found = Topology::discover(root.path()).unwrap();
    assert_eq!(found.nics.len(), topology::NICS_MAX);
    assert_eq!(choice_for(&found, 9), Some("hsn1".to_owned()));
    let note = "408 interfaces found, only 256 are used";
    assert!(found.notes.contains(&note.to_owned()), "{:?}", found.notes);
}

/// Parts of a tree removed at random, file by file and directory by directory.
#[test]
fn incomplete_trees_are_answered() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let victims = prop::collection::vec((any::<prop::sample::Index>(), 0u8..4), 1..40);
    runner
        .run(&victims, |victims| {
            let root = tree_dir();
            write_sysfs(root.path(), &recorded("infiniband.json"));
            let mut paths = Vec::new();
            collect(root.path(), &mut paths);
            for (victim, how) in victims {
                let path = &paths[victim.index(paths.len())];
                damage(path, how);
            }
            if let Ok(found) = Topology::discover(root.path()) {
                for cpu in [0, 31, 32, 127, 500] {
                    let _answered = choice_for(&found, cpu);
                }
                let again = Topology::from_json(found.to_json().as_bytes(), "again").unwrap();
                prop_assert_eq!(again, found);
            }
            Ok(())
        })
        .unwrap();
}

fn collect(dir: &Path, paths: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        paths.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), paths);
        }
    }
}

/// Failures are fine: an earlier victim may have taken this one along.
fn damage(path: &Path, how: u8) {
    let is_file = path.is_file();
    let done = match how {
        0 if is_file => fs::write(path, "").is_ok(),
        1 if is_file => fs::write(path, "\u{0}garbage,,-\n4-2").is_ok(),
        2 if is_file => fs::write(path, "99999999999999999999").is_ok(),
        _ if path.is_dir() && !path.is_symlink() => fs::remove_dir_all(path).is_ok(),
        _ => fs::remove_file(path).is_ok(),
    };
    let _ignored = done;
}

#[test]
fn bad_recordings_are_one_line() {
    let good = recorded("laptop.json").to_json();
    let cases = [
        (String::new(), "not a usable topology"),
        ("[]".to_owned(), "not a usable topology"),
        (
            "{\"format\": \"daos-topology\"}".to_owned(),
            "missing field `version`",
        ),
        (
            good.replace("daos-topology", "hwloc"),
            "format is \"hwloc\"",
        ),
        (
            good.replace("\"version\": 1", "\"version\": 2"),
            "topology version 2 is not known here",
        ),
        (
            "{\"format\": \"daos-topology\", \"version\": 7, \"other\": 1}".to_owned(),
            "topology version 7 is not known here (this program reads version 1)",
        ),
        (good.replace("\"1,5\"", "\"1,4\""), "CPU 4 is in two cores"),
        (good.replace("\"1,5\"", "\"\""), "a core without CPUs"),
        (
            good.replace("\"sockets\": [", "\"sockets\": [[], "),
            "a socket without cores",
        ),
        (
            good.replace("\"1,5\"", "\"1-x\""),
            "\"1-x\" is not a CPU number",
        ),
        (good.replace("enp0s31f6", "a b"), "no usable name"),
        (good.replace("enp0s31f6", "../x"), "no usable name"),
        (
            good.replace("\"socket\": 0", "\"socket\": 9"),
            "on a socket that does not exist",
        ),
        (
            good.replace("\"ethernet\"", "\"carrier pigeon\""),
            "unknown variant",
        ),
        (
            good.replace("\"speed_mbps\": 1000", "\"speed_mbps\": -5"),
            "invalid value",
        ),
        ("[".repeat(100_000), "not a usable topology"),
    ];
    for (text, why) in cases {
        let error = Topology::from_json(text.as_bytes(), "file")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("file: ") && error.contains(why),
            "{error}"
        );
        assert!(!error.contains('\n') && error.len() < 300, "{error}");
    }
    for (path, why) in [
        ("/does/not/exist", "No such file"),
        ("/dev/zero", "not a regular file"),
    ] {
        let error = Topology::load(Path::new(path)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// Writes the Aurora-like tree to the directory in `NIC_TREE`, for `examples/timing.rs`.
#[test]
#[ignore = "a tool, not a test"]
fn write_tree() {
    let dir = std::env::var("NIC_TREE").unwrap();
    write_sysfs(dir.as_ref(), &recorded("aurora.json"));
}
