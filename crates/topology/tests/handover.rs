//! What is set for genuine DAOS, where its threads go, and what the cpuset allows.

mod common;

use std::fs;

use common::{put, recorded};
use topology::handover::{Handover, Names, handover};
use topology::launcher::{Identity, LocalRank};
use topology::pin::{pin_current, place_progress_threads};
use topology::plan::{Policy, Process, choose};
use topology::process::{allowed_cpus, cgroup_cpus};
use topology::{CpuSet, LinkState, Topology};

fn hand_over(
    node: &Topology,
    cpu: usize,
    rank: usize,
    names: Names,
    user: &[(&str, &str)],
) -> Handover {
    let local = LocalRank::new(rank, 12);
    let me = Process {
        cpus: CpuSet::from_iter([cpu]),
        local,
        current_cpu: None,
    };
    let choice = choose(node, &me, &[], Policy::default());
    let identity = Identity {
        local,
        ..Identity::default()
    };
    let variable = |name: &str| {
        user.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    handover(node, &choice, &identity, names, &variable)
}

fn set(handover: &Handover) -> Vec<String> {
    handover
        .set
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

#[test]
fn cxi_gets_both() {
    let node = recorded("aurora.json");
    let given = |names| set(&hand_over(&node, 55, 0, names, &[]));
    assert_eq!(given(Names::New), ["D_INTERFACE=hsn7", "D_DOMAIN=cxi7"]);
    assert_eq!(given(Names::Old), ["OFI_INTERFACE=hsn7", "OFI_DOMAIN=cxi7"]);
    assert_eq!(
        given(Names::Both),
        [
            "D_INTERFACE=hsn7",
            "D_DOMAIN=cxi7",
            "OFI_INTERFACE=hsn7",
            "OFI_DOMAIN=cxi7"
        ]
    );
    let ib = recorded("infiniband.json");
    let given = set(&hand_over(&ib, 40, 0, Names::New, &[]));
    assert_eq!(given, ["D_INTERFACE=ib1", "D_DOMAIN=mlx5_1"]);
    let laptop = recorded("laptop.json");
    assert_eq!(
        set(&hand_over(&laptop, 1, 0, Names::New, &[])),
        ["D_INTERFACE=enp0s31f6"]
    );
    let nothing = hand_over(&recorded("no-nic.json"), 1, 0, Names::Both, &[]);
    assert_eq!(nothing, Handover::default());
}

#[test]
fn the_user_wins() {
    let node = recorded("aurora.json");
    for name in ["D_INTERFACE", "OFI_INTERFACE"] {
        // The domain is added: DAOS would take the interface's name for it, which cxi refuses.
        let given = hand_over(&node, 4, 0, Names::New, &[(name, "hsn6")]);
        assert_eq!(set(&given), ["D_DOMAIN=cxi6"]);
        assert_eq!(
            (given.interface.as_deref(), given.by_user),
            (Some("hsn6"), true)
        );
        assert!(given.warnings.is_empty());
    }
    let both = [("D_INTERFACE", "hsn6"), ("D_DOMAIN", "cxi6")];
    assert!(hand_over(&node, 4, 0, Names::Both, &both).set.is_empty());
    let domain = hand_over(&node, 4, 0, Names::New, &[("D_DOMAIN", "cxi2")]);
    assert_eq!(set(&domain), ["D_INTERFACE=hsn2"]);
    let empty = [("D_INTERFACE", ""), ("OFI_INTERFACE", "")];
    assert_eq!(
        set(&hand_over(&node, 4, 0, Names::New, &empty)).len(),
        2,
        "empty is not set"
    );
}

#[test]
fn odd_wishes_are_honoured_and_warned_about_once() {
    let mut node = recorded("aurora.json");
    node.nics[6].state = LinkState::Down;
    for (user, warning) in [
        (
            vec![("D_INTERFACE", "eth9")],
            "interface eth9 named by the user is not on this machine",
        ),
        (
            vec![("D_INTERFACE", "hsn6")],
            "interface hsn6 named by the user is down",
        ),
        (
            vec![("D_DOMAIN", "cxi9")],
            "domain cxi9 named by the user is not on this machine",
        ),
        (
            vec![("D_DOMAIN", "cxi6")],
            "domain cxi6 named by the user is down",
        ),
        (
            vec![("D_INTERFACE", "hsn1"), ("OFI_INTERFACE", "hsn2")],
            "D_INTERFACE=hsn1 and OFI_INTERFACE=hsn2 differ: D_INTERFACE counts",
        ),
        (
            vec![("D_INTERFACE", "hsn1"), ("D_DOMAIN", "cxi2")],
            "domain cxi2 named by the user is not that of hsn1 (cxi1)",
        ),
        (
            vec![("D_INTERFACE", "two\nlines")],
            "interface two lines named by the user",
        ),
    ] {
        let warnings = |rank| hand_over(&node, 4, rank, Names::New, &user).warnings;
        assert_eq!(warnings(0).len(), 1, "{user:?}: {:?}", warnings(0));
        assert!(warnings(0)[0].starts_with(warning), "{:?}", warnings(0));
        assert!(warnings(3).is_empty(), "other ranks are silent");
        let given = hand_over(&node, 4, 0, Names::New, &user);
        assert!(
            given
                .set
                .iter()
                .all(|(name, _)| user.iter().all(|(key, _)| key != name))
        );
    }
}

#[test]
fn progress_threads_keep_away_from_ranks() {
    let node = recorded("aurora.json");
    let ranks = CpuSet::parse("4,9,14,19,20,25,56,61,66,71,74,79").unwrap();
    let nic = |name: &str| node.nic_named(name).unwrap();
    assert_eq!(
        place_progress_threads(&node, nic("hsn5"), &ranks, 3),
        [103, 102, 101]
    );
    assert_eq!(
        place_progress_threads(&node, nic("hsn0"), &ranks, 2),
        [51, 50]
    );
    let all = place_progress_threads(&node, nic("hsn0"), &ranks, 104);
    let socket: CpuSet = all.iter().copied().collect();
    assert_eq!(
        socket.to_string(),
        "0-51,104-155",
        "each CPU of the socket once"
    );
    let busy = |cpu: &usize| ranks.contains(*cpu) || ranks.contains(*cpu - 104);
    assert!(
        !all[..46]
            .iter()
            .any(|&cpu| cpu >= 104 || ranks.contains(cpu)),
        "free cores first"
    );
    assert!(!all[46..92].iter().any(busy), "then their second threads");
    assert!(
        all[92..98].iter().all(|cpu| *cpu >= 104),
        "then idle threads of the ranks' cores"
    );
    assert!(
        all[98..].iter().all(|&cpu| ranks.contains(cpu)),
        "then the ranks' own"
    );
    assert_eq!(
        place_progress_threads(&node, 0, &ranks, 106)[104..],
        all[..2]
    );
    assert!(place_progress_threads(&node, 0, &ranks, 0).is_empty());
    assert!(place_progress_threads(&Topology::default(), 0, &ranks, 4).is_empty());
    // Inside a cpuset, and on a socket that has nothing left in it.
    let jailed = node.restricted(&CpuSet::parse("10-12,114").unwrap());
    assert_eq!(
        place_progress_threads(&jailed, 0, &ranks, 4),
        [12, 11, 10, 114]
    );
    assert_eq!(
        place_progress_threads(&jailed, nic("hsn7"), &ranks, 1),
        [12]
    );
}

#[test]
fn real_threads_are_pinned() {
    let here = Topology::discover("/".as_ref()).unwrap();
    let usable = here.restricted(&cgroup_cpus("/".as_ref()).unwrap_or(allowed_cpus()));
    let usable = usable.restricted(&allowed_cpus());
    let cpus = place_progress_threads(&usable, 0, &CpuSet::new(), 4);
    assert_eq!(cpus.len(), 4);
    let threads: Vec<_> = cpus
        .iter()
        .map(|&cpu| std::thread::spawn(move || (pin_current(cpu), allowed_cpus())))
        .collect();
    for (thread, &cpu) in threads.into_iter().zip(&cpus) {
        assert_eq!(thread.join().unwrap(), (true, CpuSet::from_iter([cpu])));
    }
    let refused = std::thread::spawn(|| (pin_current(1023), pin_current(5000), allowed_cpus()));
    assert_eq!(refused.join().unwrap(), (false, false, allowed_cpus()));
}

#[test]
fn cpusets_of_both_cgroup_versions() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(cgroup_cpus(root.path()), None);
    put(
        root.path(),
        "proc/self/cgroup",
        "4:memory:/m\n3:cpuset,cpu:/job/step\n0::/",
    );
    put(
        root.path(),
        "sys/fs/cgroup/cpuset/job/step/cpuset.cpus",
        "0-51",
    );
    assert_eq!(cgroup_cpus(root.path()).unwrap().to_string(), "0-51");
    put(
        root.path(),
        "sys/fs/cgroup/cpuset/job/step/cpuset.effective_cpus",
        "3,5",
    );
    assert_eq!(cgroup_cpus(root.path()).unwrap().to_string(), "3,5");
    put(root.path(), "proc/self/cgroup", "0::/slurm/job7");
    put(
        root.path(),
        "sys/fs/cgroup/slurm/job7/cpuset.cpus.effective",
        "8-11",
    );
    assert_eq!(cgroup_cpus(root.path()).unwrap().to_string(), "8-11");
    // A step's and a task's group without the controller are inside that of their job.
    put(
        root.path(),
        "proc/self/cgroup",
        "0::/slurm/job7/step0/task_2",
    );
    put(root.path(), "sys/fs/cgroup/cpuset.cpus.effective", "0-207");
    assert_eq!(cgroup_cpus(root.path()).unwrap().to_string(), "8-11");
    put(root.path(), "proc/self/cgroup", "0::/user.slice");
    assert_eq!(cgroup_cpus(root.path()).unwrap().to_string(), "0-207");
    // Version 1 in a container, which sees its own group as the root.
    put(root.path(), "proc/self/cgroup", "3:cpuset:/docker/17");
    put(
        root.path(),
        "sys/fs/cgroup/cpuset/cpuset.effective_cpus",
        "2-3",
    );
    assert_eq!(cgroup_cpus(root.path()).unwrap().to_string(), "2-3");
    fs::remove_file(root.path().join("sys/fs/cgroup/cpuset.cpus.effective")).unwrap();
    put(root.path(), "proc/self/cgroup", "0::/slurm/job7");
    put(
        root.path(),
        "sys/fs/cgroup/slurm/job7/cpuset.cpus.effective",
        "nonsense",
    );
    assert_eq!(cgroup_cpus(root.path()), None);
}
