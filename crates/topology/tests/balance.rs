//! The rule under random machines, bindings, arrival orders and failures.

use proptest::prelude::*;
use proptest::sample::Index;

use topology::launcher::LocalRank;
use topology::plan::{Peer, Policy, Process, Spread, choose, plan};
use topology::{Core, CpuSet, LinkState, Nic, NicKind, NumaNode, Socket, Topology};

/// A machine by its numbers.
#[derive(Clone, Debug)]
struct Machine {
    sockets: usize,
    cores: usize,
    threads: usize,
    /// Per socket: one entry per interface, true for up.
    nics: Vec<Vec<bool>>,
    /// NUMA distances as the firmware has them: often nonsense.
    distances: Vec<u32>,
}

impl Machine {
    fn cpu_count(&self) -> usize {
        self.sockets * self.cores * self.threads
    }

    fn topology(&self) -> Topology {
        let cores_total = self.sockets * self.cores;
        let socket = |s: usize| Socket {
            cores: (s * self.cores..(s + 1) * self.cores)
                .map(|core| Core {
                    cpus: (0..self.threads)
                        .map(|thread| core + thread * cores_total)
                        .collect(),
                })
                .collect(),
        };
        let sockets: Vec<Socket> = (0..self.sockets).map(socket).collect();
        let nodes = sockets
            .iter()
            .enumerate()
            .map(|(s, socket)| NumaNode {
                id: u32::try_from(s).unwrap(),
                cpus: socket
                    .cores
                    .iter()
                    .flat_map(|core| core.cpus.iter().copied())
                    .collect(),
                distances: self
                    .distances
                    .iter()
                    .cycle()
                    .skip(s * 3)
                    .take(self.sockets)
                    .copied()
                    .collect(),
            })
            .collect();
        let mut nics = Vec::new();
        for (s, states) in self.nics.iter().enumerate() {
            for &up in states {
                nics.push(Nic {
                    name: format!("hsn{}", nics.len()),
                    domain: format!("cxi{}", nics.len()),
                    kind: NicKind::Cxi,
                    numa: Some(u32::try_from(s).unwrap()),
                    socket: None,
                    pci: None,
                    state: if up { LinkState::Up } else { LinkState::Down },
                    speed_mbps: Some(200_000),
                });
            }
        }
        Topology::build(
            "made".into(),
            sockets,
            nodes,
            CpuSet::new(),
            nics,
            Vec::new(),
        )
    }
}

/// How a rank is bound.
#[derive(Clone, Debug)]
enum Bound {
    Cpu(Index),
    Block(Index, usize),
    Socket(Index),
    Scattered(Vec<Index>),
    Everywhere,
}

impl Bound {
    fn cpus(&self, machine: &Machine) -> CpuSet {
        let count = machine.cpu_count();
        match self {
            Bound::Cpu(cpu) => CpuSet::from_iter([cpu.index(count)]),
            Bound::Block(first, width) => {
                let first = first.index(count);
                (first..(first + width).min(count)).collect()
            }
            Bound::Socket(socket) => {
                let socket = socket.index(machine.sockets);
                (socket * machine.cores..(socket + 1) * machine.cores).collect()
            }
            Bound::Scattered(cpus) => cpus.iter().map(|cpu| cpu.index(count)).collect(),
            Bound::Everywhere => (0..count).collect(),
        }
    }
}

fn machines() -> impl Strategy<Value = Machine> {
    (1usize..=4, 1usize..=26, 1usize..=2).prop_flat_map(|(sockets, cores, threads)| {
        let nics = prop::collection::vec(
            prop::collection::vec(prop::bool::weighted(0.8), 0..=5),
            sockets,
        );
        let distances = prop::collection::vec(0u32..40, 0..9);
        (nics, distances).prop_map(move |(nics, distances)| Machine {
            sockets,
            cores,
            threads,
            nics,
            distances,
        })
    })
}

fn any_bound() -> impl Strategy<Value = Bound> {
    prop_oneof![
        any::<Index>().prop_map(Bound::Cpu),
        (any::<Index>(), 1usize..16).prop_map(|(first, width)| Bound::Block(first, width)),
        any::<Index>().prop_map(Bound::Socket),
        prop::collection::vec(any::<Index>(), 1..4).prop_map(Bound::Scattered),
        Just(Bound::Everywhere),
    ]
}

/// Either all ranks bound alike (as launchers do) or every rank otherwise.
fn bindings() -> impl Strategy<Value = Vec<Bound>> {
    let count = prop_oneof![1usize..=16, 1usize..=208];
    count.prop_flat_map(|count| {
        prop_oneof![
            prop::collection::vec(any::<Index>().prop_map(Bound::Cpu), count),
            Just(vec![Bound::Everywhere; count]),
            prop::collection::vec(any::<Index>().prop_map(Bound::Socket), count),
            prop::collection::vec(any_bound(), count),
        ]
    })
}

fn processes(machine: &Machine, bindings: &[Bound]) -> Vec<Process> {
    bindings
        .iter()
        .enumerate()
        .map(|(rank, bound)| Process {
            cpus: bound.cpus(machine),
            local: LocalRank::new(rank, bindings.len()),
            current_cpu: None,
        })
        .collect()
}

fn order_of(keys: &[u32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&rank| (keys.get(rank).copied().unwrap_or(0), rank));
    order
}

fn name_of(topology: &Topology, nic: Option<usize>) -> Option<String> {
    nic.map(|nic| topology.nics[nic].name.clone())
}

fn loads(topology: &Topology, nics: &[Option<usize>]) -> Vec<usize> {
    (0..topology.nics.len())
        .map(|nic| nics.iter().filter(|&&n| n == Some(nic)).count())
        .collect()
}

/// Loads of the interfaces of each socket that are up.
fn by_socket(topology: &Topology, loads: &[usize]) -> Vec<Vec<usize>> {
    (0..topology.socket_count())
        .map(|socket| {
            let up = |&(nic, _): &(usize, &usize)| {
                topology.nics[nic].is_up() && topology.nics[nic].socket == Some(socket)
            };
            loads
                .iter()
                .enumerate()
                .filter(up)
                .map(|(_, &load)| load)
                .collect()
        })
        .collect()
}

fn assert_even(topology: &Topology, loads: &[usize]) -> Result<(), TestCaseError> {
    for (socket, loads) in by_socket(topology, loads).iter().enumerate() {
        let (low, high) = (loads.iter().min(), loads.iter().max());
        let even = low.zip(high).is_none_or(|(low, high)| high - low <= 1);
        prop_assert!(even, "socket {socket}: {loads:?}");
    }
    Ok(())
}

/// The interface is up, exists whenever one is up, and is on a socket of the process's CPUs whenever
/// such a socket has one up.
fn assert_near(
    topology: &Topology,
    process: &Process,
    nic: Option<usize>,
) -> Result<(), TestCaseError> {
    let any_up = topology.nics.iter().any(Nic::is_up);
    prop_assert_eq!(nic.is_some(), any_up);
    let Some(nic) = nic.map(|nic| &topology.nics[nic]) else {
        return Ok(());
    };
    prop_assert!(nic.is_up());
    let near = |socket: usize| {
        process
            .cpus
            .iter()
            .any(|cpu| topology.place(cpu).is_some_and(|p| p.socket == socket))
    };
    let near_up = topology
        .nics
        .iter()
        .any(|n| n.is_up() && near(n.socket.unwrap()));
    prop_assert!(
        !near_up || near(nic.socket.unwrap()),
        "{:?} got far {}",
        process,
        nic.name
    );
    Ok(())
}

/// Lets ranks choose one after the other; `knowing` tells whether all have joined before.
fn arrive(
    topology: &Topology,
    ranks: &[Process],
    order: &[usize],
    knowing: bool,
) -> Vec<Option<usize>> {
    let mut nics = vec![None; ranks.len()];
    let mut peers: Vec<Peer> = Vec::new();
    if knowing {
        peers = ranks
            .iter()
            .map(|p| Peer {
                process: p.clone(),
                nic: None,
            })
            .collect();
    }
    for &rank in order {
        let me = &ranks[rank];
        peers.retain(|peer| peer.process.local != me.local);
        let choice = choose(topology, me, &peers, Policy::default());
        nics[rank] = choice.nic;
        peers.push(Peer {
            process: me.clone(),
            nic: name_of(topology, choice.nic),
        });
    }
    nics
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_are_even_and_near(machine in machines(), bound in bindings()) {
        let topology = machine.topology();
        let ranks = processes(&machine, &bound);
        let sets: Vec<CpuSet> = ranks.iter().map(|rank| rank.cpus.clone()).collect();
        let plan = plan(&topology, &sets, Policy::default());
        assert_even(&topology, &plan.loads)?;
        for (rank, choice) in ranks.iter().zip(&plan.choices) {
            assert_near(&topology, rank, choice.nic)?;
            prop_assert!(!choice.reason.is_empty() && !choice.reason.contains('\n'));
        }
        let all = Policy { spread: Spread::All, kind: None };
        let shared = topology::plan::plan(&topology, &sets, all).loads;
        let up: Vec<usize> = by_socket(&topology, &shared).concat();
        let even = up.iter().max().zip(up.iter().min()).is_none_or(|(high, low)| high - low <= 1);
        prop_assert!(even, "all interfaces: {up:?}");
    }

    #[test]
    fn ranks_that_know_each_other_follow_the_plan_in_any_order(
        machine in machines(),
        bound in bindings().prop_filter("quadratic", |bound| bound.len() <= 48),
        keys in prop::collection::vec(any::<u32>(), 208),
    ) {
        let topology = machine.topology();
        let ranks = processes(&machine, &bound);
        let sets: Vec<CpuSet> = ranks.iter().map(|rank| rank.cpus.clone()).collect();
        let planned: Vec<_> =
            plan(&topology, &sets, Policy::default()).choices.iter().map(|c| c.nic).collect();
        let got = arrive(&topology, &ranks, &order_of(&keys, ranks.len()), true);
        prop_assert_eq!(got, planned);
    }

    #[test]
    fn ranks_that_know_only_who_came_before_stay_even_at_every_moment(
        machine in machines(),
        bound in bindings(),
        keys in prop::collection::vec(any::<u32>(), 208),
        other_keys in prop::collection::vec(any::<u32>(), 208),
    ) {
        let topology = machine.topology();
        let ranks = processes(&machine, &bound);
        let mut sorted = Vec::new();
        for keys in [&keys, &other_keys] {
            let order = order_of(keys, ranks.len());
            let nics = arrive(&topology, &ranks, &order, false);
            for (rank, &nic) in ranks.iter().zip(&nics) {
                assert_near(&topology, rank, nic)?;
            }
            for arrived in 1..=order.len() {
                let so_far: Vec<_> = order[..arrived].iter().map(|&rank| nics[rank]).collect();
                assert_even(&topology, &loads(&topology, &so_far))?;
            }
            let mut final_loads = by_socket(&topology, &loads(&topology, &nics));
            final_loads.iter_mut().for_each(|loads| loads.sort_unstable());
            sorted.push(final_loads);
        }
        prop_assert_eq!(&sorted[0], &sorted[1]);
    }

    /// An interface fails while ranks arrive: those that come later use the others, evenly.
    #[test]
    fn failures_on_the_way(
        machine in machines(),
        bound in bindings(),
        keys in prop::collection::vec(any::<u32>(), 208),
        failing in any::<Index>(),
        when in any::<Index>(),
    ) {
        let topology = machine.topology();
        prop_assume!(!topology.nics.is_empty());
        let mut after = topology.clone();
        let failed = failing.index(topology.nics.len());
        after.nics[failed].state = LinkState::Down;
        let ranks = processes(&machine, &bound);
        let order = order_of(&keys, ranks.len());
        let when = when.index(order.len());
        let mut peers: Vec<Peer> = Vec::new();
        let mut nics = vec![None; ranks.len()];
        for (step, &rank) in order.iter().enumerate() {
            let now = if step < when { &topology } else { &after };
            let choice = choose(now, &ranks[rank], &peers, Policy::default());
            assert_near(now, &ranks[rank], choice.nic)?;
            nics[rank] = choice.nic;
            peers.push(Peer { process: ranks[rank].clone(), nic: name_of(now, choice.nic) });
        }
        assert_even(&after, &loads(&after, &nics))?;
    }

    /// A process without rank beside a job adds itself where the job will leave room.
    #[test]
    fn processes_without_rank_fit_in(
        machine in machines(),
        bound in prop::collection::vec(any_bound(), 1..40),
        cpu in any::<Index>(),
    ) {
        let topology = machine.topology();
        let ranks = processes(&machine, &bound);
        let peers: Vec<Peer> =
            ranks.iter().map(|p| Peer { process: p.clone(), nic: None }).collect();
        let sets: Vec<CpuSet> = ranks.iter().map(|rank| rank.cpus.clone()).collect();
        let mut final_loads = plan(&topology, &sets, Policy::default()).loads;
        let me = Process {
            cpus: CpuSet::from_iter([cpu.index(machine.cpu_count())]),
            local: None,
            current_cpu: None,
        };
        let choice = choose(&topology, &me, &peers, Policy::default());
        assert_near(&topology, &me, choice.nic)?;
        if let Some(nic) = choice.nic {
            final_loads[nic] += 1;
            assert_even(&topology, &final_loads)?;
        }
    }

    /// Anything as CPU set, rank or peer gets an answer.
    #[test]
    fn nonsense_is_answered(
        machine in machines(),
        cpus in prop::collection::vec(0usize..9000, 0..6),
        (rank, size) in (0usize..300, 0usize..300),
        current_cpu in prop::option::of(0usize..9000),
        names in prop::collection::vec(prop::option::of("[a-z]{1,4}[0-9]?"), 0..5),
    ) {
        let topology = machine.topology();
        let me = Process {
            cpus: cpus.iter().copied().collect(),
            local: LocalRank::new(rank, size),
            current_cpu,
        };
        let peers: Vec<Peer> =
            names.into_iter().map(|nic| Peer { process: me.clone(), nic }).collect();
        let choice = choose(&topology, &me, &peers, Policy::default());
        prop_assert_eq!(choice.nic.is_some(), topology.nics.iter().any(Nic::is_up));
    }
}
