//! Which interface a process takes. Pure functions; `docs/NIC.md` explains the rule.
//!
//! 1. Kind: the best kind of interface that has one up.
//! 2. Socket: the one that holds the process's CPUs; for CPUs in several sockets the ranks are dealt
//!    over those sockets in blocks, by number of interfaces.
//! 3. Wanted: core index mod number of interfaces, where all CPUs of the process agree on it (the
//!    guide's table); else the position among the ranks of the socket, mod number of interfaces.
//! 4. Balance: each of the socket's interfaces gets floor(P/K) or ceil(P/K) of its P ranks. Ranks
//!    get what they want up to that share; the others fill up from the lowest interface.
//!
//! Step 4 needs to know all ranks. [`choose`] sees those that have joined ([`crate::peers`]): with
//! all of them known every rank computes the same [`plan`] whatever the order of arrival. As long
//! as some are unknown it takes the wanted interface only if no other of the socket carries less,
//! so loads differ by at most one at any moment, whoever is still to come.

use crate::cpuset::CpuSet;
use crate::launcher::LocalRank;
use crate::model::{NicKind, Topology};

mod seat;
mod share;

use seat::{Fabric, Seat};

/// Environment variable that says how ranks are spread: `near` or `all`.
pub const POLICY_VARIABLE: &str = "D_IL_NIC_POLICY";

/// How ranks are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// Only interfaces of the own socket, as long as one is up there.
    #[default]
    Near,
    /// All interfaces of the node share the load, those of the own socket first.
    All,
}

/// What the user can steer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How ranks are spread.
    pub spread: Spread,
    /// Use only this kind of interface.
    pub kind: Option<NicKind>,
}

impl Policy {
    /// Reads `D_IL_NIC_POLICY` (`near` or `all`) and `D_IL_NIC_KIND` (`cxi`, `infiniband`, `roce`,
    /// `ethernet` or `virtual`). The second value says which settings were not understood.
    #[must_use]
    pub fn from_env(variable: &crate::launcher::Lookup<'_>) -> (Policy, Vec<String>) {
        let mut policy = Policy::default();
        let mut notes = Vec::new();
        match variable(POLICY_VARIABLE).as_deref() {
            None | Some("" | "near") => {}
            Some("all") => policy.spread = Spread::All,
            Some(_) => notes.push("D_IL_NIC_POLICY ignored: it is \"near\" or \"all\"".to_owned()),
        }
        use NicKind::{Cxi, Ethernet, InfiniBand, Roce, Virtual};
        if let Some(text) = variable("D_IL_NIC_KIND").filter(|text| !text.is_empty()) {
            let kinds = [Cxi, InfiniBand, Roce, Ethernet, Virtual];
            policy.kind = kinds.into_iter().find(|kind| kind.as_str() == text);
            if policy.kind.is_none() {
                notes.push("D_IL_NIC_KIND ignored: no such kind of interface".to_owned());
            }
        }
        (policy, notes)
    }
}

/// A process, as far as the choice depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// CPUs it may run on; empty if unknown.
    pub cpus: CpuSet,
    /// Its place among the ranks of the node.
    pub local: Option<LocalRank>,
    /// The CPU it runs on at the moment; decides only where neither binding nor rank does.
    pub current_cpu: Option<usize>,
}

/// Another process of the same job on the same node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its CPUs and rank.
    pub process: Process,
    /// Name of the interface it uses; `None` as long as it has not chosen.
    pub nic: Option<String>,
}

/// Which step decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The socket has one interface of the kind.
    Only,
    /// Core index mod number of interfaces: the guide's table.
    Table,
    /// Position among the ranks of the socket.
    RankIndex,
    /// Core of the CPU it happens to run on: neither bound to a class nor ranked.
    CurrentCpu,
    /// The share of the wanted interface was taken (or nothing was wanted): least loaded.
    Balance,
    /// There is no interface to choose.
    NoNic,
}

impl Rule {
    /// A word for reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Only => "only",
            Rule::Table => "table",
            Rule::RankIndex => "rank-index",
            Rule::CurrentCpu => "current-cpu",
            Rule::Balance => "balance",
            Rule::NoNic => "none",
        }
    }
}

/// The answer for one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Position of the interface in [`Topology::nics`]; `None` if none is up.
    pub nic: Option<usize>,
    /// Socket the process counts to.
    pub socket: usize,
    /// What decided.
    pub rule: Rule,
    /// Why, in one line for a user.
    pub reason: String,
    /// Processes on each interface, this one included, as far as known: of a job whose ranks are all
    /// there, also those that have not chosen yet.
    pub loads: Vec<usize>,
}

/// The answer for all ranks of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One per rank.
    pub choices: Vec<Choice>,
    /// Ranks on each interface of [`Topology::nics`].
    pub loads: Vec<usize>,
}

/// The interface of one process. `peers` are the other processes of the job on this node as far as
/// they are known (none: the wanted interface).
#[must_use]
pub fn choose(topology: &Topology, me: &Process, peers: &[Peer], policy: Policy) -> Choice {
    let fabric = Fabric::new(topology, policy);
    if let Some(choice) = in_complete_job(topology, &fabric, me, peers) {
        return choice;
    }
    let mut loads = loads_of(topology, peers);
    if let Some(planned) = planned_loads(topology, &fabric, me, peers) {
        loads = planned;
    }
    let seat = Seat::estimate(topology, &fabric, me);
    let group = fabric.group(&seat);
    let load = |nic: usize| loads.get(nic).copied().unwrap_or(0);
    let least = group.iter().map(|&nic| load(nic)).min();
    let wanted = seat.wanted.filter(|&nic| Some(load(nic)) == least);
    let near = fabric.of_socket(seat.home);
    let nic = wanted.or_else(|| {
        group
            .iter()
            .copied()
            .min_by_key(|&n| (load(n), !near.contains(&n), n))
    });
    answer(topology, &fabric, &seat, nic, loads)
}

/// The interfaces of all ranks of a node; `bindings` holds the CPUs of each local rank.
#[must_use]
pub fn plan(topology: &Topology, bindings: &[CpuSet], policy: Policy) -> Plan {
    let fabric = Fabric::new(topology, policy);
    let processes: Vec<Process> = bindings
        .iter()
        .enumerate()
        .map(|(rank, cpus)| Process {
            cpus: cpus.clone(),
            local: LocalRank::new(rank, bindings.len()),
            current_cpu: None,
        })
        .collect();
    let seats = Seat::of_all(topology, &fabric, &processes.iter().collect::<Vec<_>>());
    let nics = share::assign(&fabric, &seats);
    let mut loads = vec![0; topology.nics.len()];
    nics.iter().flatten().for_each(|&nic| add(&mut loads, nic));
    let choices = seats
        .iter()
        .zip(nics)
        .map(|(seat, nic)| Choice {
            loads: loads.clone(),
            ..answer(topology, &fabric, seat, nic, Vec::new())
        })
        .collect();
    Plan { choices, loads }
}

/// The guide's table for a node: every interface in play, up or down, with the first CPU of each core
/// whose ranks want it.
#[must_use]
pub fn table(topology: &Topology, policy: Policy) -> Vec<(usize, Vec<usize>)> {
    let fabric = Fabric::new(topology, policy);
    let mut columns: Vec<(usize, Vec<usize>)> = fabric
        .in_play()
        .into_iter()
        .map(|nic| (nic, Vec::new()))
        .collect();
    for (socket, cores) in topology.sockets.iter().enumerate() {
        for (index, core) in cores.cores.iter().enumerate() {
            let online = core
                .cpus
                .iter()
                .find(|&&cpu| !topology.offline.contains(cpu));
            let nic = fabric.of_core(topology, socket, index);
            let column = columns.iter_mut().find(|(column, _)| Some(*column) == nic);
            if let (Some(&cpu), Some((_, cpus))) = (online, column) {
                cpus.push(cpu);
            }
        }
    }
    columns
}

/// The socket a process counts to, and how many interfaces its socket's cores are dealt to.
pub(crate) fn near_socket_of(
    topology: &Topology,
    policy: Policy,
    process: &Process,
) -> (usize, usize) {
    let fabric = Fabric::new(topology, policy);
    let seat = Seat::estimate(topology, &fabric, process);
    (seat.near, fabric.width(seat.home))
}

/// The answer where all ranks of the job are known and those that have chosen kept to the plan.
fn in_complete_job(
    topology: &Topology,
    fabric: &Fabric,
    me: &Process,
    peers: &[Peer],
) -> Option<Choice> {
    let own = me.local?.rank;
    let ranks = complete_job(me, peers)?;
    let seats = Seat::of_all(topology, fabric, &ranks);
    let nics = share::assign(fabric, &seats);
    let kept = peers
        .iter()
        .all(|peer| match (&peer.nic, peer.process.local) {
            (Some(name), Some(local)) => {
                nics.get(local.rank).copied().flatten() == topology.nic_named(name)
            }
            _ => true,
        });
    let (&nic, seat) = (nics.get(own)?, seats.get(own)?);
    kept.then(|| {
        let mut loads = loads_of(topology, &unranked(peers));
        nics.iter().flatten().for_each(|&nic| add(&mut loads, nic));
        Choice {
            loads,
            ..answer(topology, fabric, seat, nic, Vec::new())
        }
    })
}

/// What the interfaces will carry in the end: for a process beside a job whose ranks are all known.
fn planned_loads(
    topology: &Topology,
    fabric: &Fabric,
    me: &Process,
    peers: &[Peer],
) -> Option<Vec<usize>> {
    if me.local.is_some() {
        return None;
    }
    let ranks = complete_job(me, peers)?;
    let seats = Seat::of_all(topology, fabric, &ranks);
    let mut loads = loads_of(topology, &unranked(peers));
    share::assign(fabric, &seats)
        .iter()
        .flatten()
        .for_each(|&nic| add(&mut loads, nic));
    Some(loads)
}

fn unranked(peers: &[Peer]) -> Vec<Peer> {
    let unranked = peers.iter().filter(|peer| peer.process.local.is_none());
    unranked.cloned().collect()
}

/// The ranks of the job in order, if each is there exactly once.
fn complete_job<'a>(me: &'a Process, peers: &'a [Peer]) -> Option<Vec<&'a Process>> {
    let everyone = peers.iter().map(|peer| &peer.process).chain([me]);
    let mut ranks: Vec<(LocalRank, &Process)> = everyone
        .filter_map(|process| Some((process.local?, process)))
        .collect();
    ranks.sort_by_key(|(local, _)| local.rank);
    let complete = !ranks.is_empty()
        && ranks
            .iter()
            .enumerate()
            .all(|(position, (local, _))| local.rank == position && local.size == ranks.len());
    complete.then(|| ranks.into_iter().map(|(_, process)| process).collect())
}

fn loads_of(topology: &Topology, peers: &[Peer]) -> Vec<usize> {
    let mut loads = vec![0; topology.nics.len()];
    for peer in peers {
        if let Some(nic) = peer
            .nic
            .as_deref()
            .and_then(|name| topology.nic_named(name))
        {
            add(&mut loads, nic);
        }
    }
    loads
}

fn add(loads: &mut [usize], nic: usize) {
    if let Some(load) = loads.get_mut(nic) {
        *load += 1;
    }
}

fn answer(
    topology: &Topology,
    fabric: &Fabric,
    seat: &Seat,
    nic: Option<usize>,
    mut loads: Vec<usize>,
) -> Choice {
    let Some((index, chosen)) = nic.and_then(|nic| Some((nic, topology.nics.get(nic)?))) else {
        let reason = match topology.nics.is_empty() {
            true => "this machine has no network interface DAOS could use".to_owned(),
            false => format!("none of {} is up", fabric.describe_all(topology)),
        };
        return Choice {
            nic: None,
            socket: seat.near,
            rule: Rule::NoNic,
            reason,
            loads,
        };
    };
    add(&mut loads, index);
    let mut reason = seat.reason.clone();
    let mut rule = seat.rule;
    if seat.wanted != nic {
        rule = Rule::Balance;
        if let Some(wanted) = seat.wanted.and_then(|wanted| topology.nics.get(wanted)) {
            reason.push_str(&format!(", but the share of {} is taken", wanted.name));
        }
        reason.push_str(&format!(": {} carries least", chosen.name));
    }
    if seat.home != seat.near {
        reason.push_str(&format!(" (no interface of socket {} is up)", seat.near));
    } else if chosen.socket != Some(seat.near) {
        reason.push_str(" (policy: all interfaces share the load)");
    }
    Choice {
        nic: Some(index),
        socket: seat.near,
        rule,
        reason,
        loads,
    }
}
