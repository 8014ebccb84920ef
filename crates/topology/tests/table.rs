//! The guide's section "NIC and Core Binding": its table and its 12-rank list.

use std::path::Path;

use topology::binding::{Binding, recommend};
use topology::plan::{Peer, Policy, Process, Rule, Spread, choose, plan};
use topology::{CpuSet, Topology};

/// NIC columns of the guide's table, socket 0 then socket 1: first row, then every row 4 further.
const FIRST_ROW: [usize; 8] = [0, 1, 2, 3, 52, 53, 54, 55];
const GUIDE_LIST: &str = "CPU_BINDING1=list:4:9:14:19:20:25:56:61:66:71:74:79";

fn recorded(name: &str) -> Topology {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("topologies")
        .join(name);
    Topology::load(&file).unwrap()
}

fn bound_to(cpu: usize) -> Process {
    Process {
        cpus: CpuSet::from_iter([cpu]),
        local: None,
        current_cpu: Some(cpu),
    }
}

fn guide_bindings(topology: &Topology) -> Vec<CpuSet> {
    Binding::parse(GUIDE_LIST, None)
        .unwrap()
        .cpus_of_ranks(topology, 12)
        .unwrap()
}

#[test]
fn all_104_cells_and_their_hyperthreads() {
    let aurora = recorded("aurora.json");
    let mut cells = 0;
    for (nic, first) in FIRST_ROW.into_iter().enumerate() {
        for cell in (first..first + 52).step_by(4) {
            for cpu in [cell, cell + 104] {
                let choice = choose(&aurora, &bound_to(cpu), &[], Policy::default());
                assert_eq!(choice.nic, Some(nic), "CPU {cpu}: {}", choice.reason);
                assert_eq!(choice.rule, Rule::Table);
                assert_eq!(aurora.nics[nic].name, format!("hsn{nic}"));
                assert_eq!(aurora.nics[nic].domain, format!("cxi{nic}"));
            }
            // Both threads of the core at once.
            let both = Process {
                cpus: CpuSet::from_iter([cell, cell + 104]),
                local: None,
                current_cpu: None,
            };
            assert_eq!(
                choose(&aurora, &both, &[], Policy::default()).nic,
                Some(nic)
            );
            cells += 1;
        }
    }
    assert_eq!(cells, 104);
}

#[test]
fn twelve_ranks_of_the_guide() {
    let aurora = recorded("aurora.json");
    let plan = plan(&aurora, &guide_bindings(&aurora), Policy::default());
    let nics: Vec<_> = plan
        .choices
        .iter()
        .map(|choice| choice.nic.unwrap())
        .collect();
    assert_eq!(nics, [0, 1, 2, 3, 0, 1, 4, 5, 6, 7, 6, 7]);
    assert_eq!(plan.loads, [2, 2, 1, 1, 1, 1, 2, 2]);
    assert!(plan.choices.iter().all(|choice| choice.rule == Rule::Table));
}

/// Ranks that know all their peers give the table's assignment in whatever order they choose.
#[test]
fn twelve_ranks_in_any_order() {
    let aurora = recorded("aurora.json");
    let bindings = guide_bindings(&aurora);
    let expected = plan(&aurora, &bindings, Policy::default());
    let processes: Vec<Process> = bindings
        .iter()
        .enumerate()
        .map(|(rank, cpus)| Process {
            cpus: cpus.clone(),
            local: topology::launcher::LocalRank::new(rank, 12),
            current_cpu: None,
        })
        .collect();
    for start in 0..12 {
        for stride in [1, 5, 7, 11] {
            let mut peers: Vec<Peer> = processes
                .iter()
                .map(|process| Peer {
                    process: process.clone(),
                    nic: None,
                })
                .collect();
            for step in 0..12 {
                let rank = (start + step * stride) % 12;
                let others: Vec<Peer> = peers
                    .iter()
                    .enumerate()
                    .filter(|(peer, _)| *peer != rank)
                    .map(|(_, peer)| peer.clone())
                    .collect();
                let choice = choose(&aurora, &processes[rank], &others, Policy::default());
                assert_eq!(choice.nic, expected.choices[rank].nic);
                peers[rank].nic = choice.nic.map(|nic| aurora.nics[nic].name.clone());
            }
        }
    }
}

/// Lists given elsewhere for Aurora: loads as counted by hand from the table.
#[test]
fn other_lists_for_aurora() {
    let aurora = recorded("aurora.json");
    let loads = |text: &str, ppn: usize, spread: Spread| {
        let bindings = Binding::parse(text, None)
            .unwrap()
            .cpus_of_ranks(&aurora, ppn)
            .unwrap();
        plan(&aurora, &bindings, Policy { spread, kind: None }).loads
    };
    let near = Spread::Near;
    assert_eq!(loads("list:0:1:2:3:52:53:54:55", 8, near), [1; 8]);
    assert_eq!(loads("list:4:56:9:61:14:66:19:71", 8, near), [1; 8]);
    assert_eq!(
        loads("list:4:56:5:57:6:58:7:59:8:60:9:61:10:62:11:63", 16, near),
        [2; 8]
    );
    assert_eq!(loads("depth:13", 8, near), [1; 8]);
    // Every rank in one class of cores: the table would put all on one interface.
    assert_eq!(loads("list:0:4:8:12:52:56:60:64", 8, near), [1; 8]);
    // The default binding leaves the second socket alone, unless the policy says otherwise.
    let default = "list:1:2:3:4:5:6:7:8:9:10:11:12";
    assert_eq!(loads(default, 12, near), [3, 3, 3, 3, 0, 0, 0, 0]);
    assert_eq!(loads(default, 12, Spread::All), [2, 2, 2, 2, 1, 1, 1, 1]);
    assert_eq!(loads("none", 12, near), [2, 2, 1, 1, 2, 2, 1, 1]);
    assert_eq!(loads("none", 1, near), [1, 0, 0, 0, 0, 0, 0, 0]);
}

/// A recommended list puts every rank on the table's interface for its core: nobody is displaced as
/// long as cores last, and the loads are as even as can be.
#[test]
fn recommended_lists_for_every_ppn() {
    let aurora = recorded("aurora.json");
    for ppn in 1..=208 {
        let bindings = recommend(&aurora, ppn, Policy::default());
        assert_eq!(bindings.len(), ppn);
        let all: CpuSet = bindings.iter().flat_map(CpuSet::iter).collect();
        assert_eq!(all.len(), ppn, "{ppn} ranks share CPUs: {bindings:?}");
        let plan = plan(&aurora, &bindings, Policy::default());
        assert!(
            plan.choices.iter().all(|choice| choice.rule == Rule::Table),
            "{ppn}"
        );
        let (low, high) = (plan.loads.iter().min(), plan.loads.iter().max());
        let spread = high.unwrap() - low.unwrap();
        assert!(spread <= 1, "{ppn}: {:?}", plan.loads);
        let unbound = topology::plan::plan(&aurora, &vec![aurora.online(); ppn], Policy::default());
        let spread = unbound.loads.iter().max().unwrap() - unbound.loads.iter().min().unwrap();
        assert!(spread <= 1, "{ppn} unbound: {:?}", unbound.loads);
    }
    // The first cores are left to the operating system while there is room.
    assert!(
        !recommend(&aurora, 96, Policy::default())
            .iter()
            .any(|c| c.contains(0))
    );
    let twelve = recommend(&aurora, 12, Policy::default());
    let twelve: Vec<String> = twelve.iter().map(CpuSet::to_string).collect();
    assert_eq!(twelve.join(":"), "4:5:6:7:28:29:56:57:58:59:80:81");
}
