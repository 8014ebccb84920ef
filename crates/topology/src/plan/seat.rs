//! Steps 1 to 3: interfaces in play, the socket of a process, the interface it wants.

use crate::cpuset::CpuSet;
use crate::launcher::LocalRank;
use crate::model::{NicKind, Place, Topology};

use super::{Policy, Process, Rule, Spread};

/// The interfaces in play.
pub(super) struct Fabric {
    kind: Option<NicKind>,
    spread: Spread,
    /// By socket: all interfaces of the kind, in order.
    nominal: Vec<Vec<usize>>,
    /// By socket: those that are up.
    up: Vec<Vec<usize>>,
    /// All that are up, in order.
    all_up: Vec<usize>,
}

impl Fabric {
    pub(super) fn new(topology: &Topology, policy: Policy) -> Fabric {
        let best = topology
            .nics
            .iter()
            .filter(|nic| nic.is_up())
            .map(|nic| nic.kind)
            .min();
        let kind = policy.kind.or(best);
        let mut nominal = vec![Vec::new(); topology.socket_count()];
        let mut up = nominal.clone();
        for (index, nic) in topology.nics.iter().enumerate() {
            if Some(nic.kind) != kind {
                continue;
            }
            let socket = nic.socket.unwrap_or(0);
            nominal
                .get_mut(socket)
                .into_iter()
                .for_each(|list| list.push(index));
            if nic.is_up() {
                up.get_mut(socket)
                    .into_iter()
                    .for_each(|list| list.push(index));
            }
        }
        let mut all_up: Vec<usize> = up.iter().flatten().copied().collect();
        all_up.sort_unstable();
        Fabric {
            kind,
            spread: policy.spread,
            nominal,
            up,
            all_up,
        }
    }

    /// Interfaces of a socket that are up.
    pub(super) fn of_socket(&self, socket: usize) -> &[usize] {
        self.up.get(socket).map_or(&[], Vec::as_slice)
    }

    /// Interfaces of a socket, those that are down included: what core indexes are counted modulo.
    pub(super) fn width(&self, socket: usize) -> usize {
        self.nominal.get(socket).map_or(0, Vec::len)
    }

    /// All interfaces of the kind, in order.
    pub(super) fn in_play(&self) -> Vec<usize> {
        let mut nics = self.nominal.concat();
        nics.sort_unstable();
        nics
    }

    /// The interface, up or down, that core number `index` of `socket` belongs to.
    pub(super) fn of_core(
        &self,
        topology: &Topology,
        socket: usize,
        index: usize,
    ) -> Option<usize> {
        let nominal = self.nominal.get(self.home(topology, socket))?;
        nominal.get(index.checked_rem(nominal.len())?).copied()
    }

    /// Number of the group of interfaces a process draws from: one per socket, or one for all.
    pub(super) fn group_number(&self, seat: &Seat) -> usize {
        match self.spread {
            Spread::Near => seat.home,
            Spread::All => 0,
        }
    }

    /// The interfaces a process draws from.
    pub(super) fn group(&self, seat: &Seat) -> &[usize] {
        match self.spread {
            Spread::Near => self.of_socket(seat.home),
            Spread::All => &self.all_up,
        }
    }

    /// The socket whose interfaces a process on `near` uses: its own, or the nearest with one up
    /// (equally near: the next one, counting round).
    fn home(&self, topology: &Topology, near: usize) -> usize {
        let count = self.up.len();
        (0..count)
            .map(|step| (near + step) % count)
            .filter(|&socket| !self.of_socket(socket).is_empty())
            .min_by_key(|&socket| (socket != near, topology.distance(near, socket)))
            .unwrap_or(near)
    }

    /// "the 8 cxi interfaces", for the message that all are down.
    pub(super) fn describe_all(&self, topology: &Topology) -> String {
        match self.kind {
            Some(kind) => format!("the {kind} interfaces"),
            None => format!("the {} interfaces", topology.nics.len()),
        }
    }
}

/// Where a process counts to, and what it wants.
pub(super) struct Seat {
    /// Socket of the process.
    pub(super) near: usize,
    /// Socket whose interfaces it uses.
    pub(super) home: usize,
    /// Interface it wants, if that is up.
    pub(super) wanted: Option<usize>,
    /// What `wanted` comes from.
    pub(super) rule: Rule,
    /// The same in words.
    pub(super) reason: String,
}

impl Seat {
    /// Seats of all ranks of a job: positions among the ranks of a socket are counted.
    pub(super) fn of_all(topology: &Topology, fabric: &Fabric, ranks: &[&Process]) -> Vec<Seat> {
        let mut seats: Vec<Seat> = Vec::with_capacity(ranks.len());
        let mut positions = vec![0; topology.socket_count()];
        for process in ranks {
            let (near, sockets) = near_socket(topology, fabric, process);
            let home = fabric.home(topology, near);
            let position = positions.get(home).copied().unwrap_or(0);
            seats.push(Seat::new(
                topology,
                fabric,
                process,
                (near, home, &sockets),
                Some(position),
            ));
            positions
                .get_mut(home)
                .into_iter()
                .for_each(|count| *count += 1);
        }
        seats
    }

    /// Seat of a process whose peers are not all known: they are taken to be bound like it.
    pub(super) fn estimate(topology: &Topology, fabric: &Fabric, process: &Process) -> Seat {
        let (near, sockets) = near_socket(topology, fabric, process);
        let home = fabric.home(topology, near);
        let position = process.local.map(|LocalRank { rank, size }| {
            if sockets.len() > 1 {
                let same = |&lower: &usize| deal(fabric, &sockets, lower, size) == near;
                (0..rank).filter(same).count()
            } else {
                // Block placement: socket s of S starts with rank ceil(s * P / S).
                let first = (near * size).div_ceil(topology.socket_count());
                (rank + size).saturating_sub(first) % size.max(1)
            }
        });
        Seat::new(topology, fabric, process, (near, home, &sockets), position)
    }

    fn new(
        topology: &Topology,
        fabric: &Fabric,
        process: &Process,
        (near, home, sockets): (usize, usize, &[usize]),
        position: Option<usize>,
    ) -> Seat {
        let nominal = fabric.nominal.get(home).map_or(&[][..], Vec::as_slice);
        let up = fabric.of_socket(home);
        let seat = |wanted: Option<usize>, rule, reason| Seat {
            near,
            home,
            wanted,
            rule,
            reason,
        };
        let by_class = |core: usize| {
            let slot = core.checked_rem(nominal.len())?;
            nominal.get(slot).copied().filter(|nic| up.contains(nic))
        };
        match (nominal, fabric.kind) {
            ([], _) | (_, None) => return seat(None, Rule::NoNic, String::new()),
            (&[only], Some(kind)) => {
                let reason = format!("the only {kind} interface of socket {home}");
                return seat(up.contains(&only).then_some(only), Rule::Only, reason);
            }
            _ => {}
        }
        if let ([_], Some(core)) = (sockets, one_class(topology, &process.cpus, nominal.len())) {
            let reason = format!(
                "CPU {} is core {core} of socket {near}, {core} mod {} = {}",
                process.cpus,
                nominal.len(),
                core % nominal.len()
            );
            return seat(by_class(core), Rule::Table, reason);
        }
        if let (Some(position), Some(local)) = (position, process.local) {
            let wanted = position
                .checked_rem(up.len())
                .and_then(|slot| up.get(slot).copied());
            let reason = format!(
                "rank {} of {} is number {position} on socket {near}, {position} mod {} = {}",
                local.rank,
                local.size,
                up.len(),
                position.checked_rem(up.len()).unwrap_or(0),
            );
            return seat(wanted, Rule::RankIndex, reason);
        }
        let current = process
            .current_cpu
            .and_then(|cpu| Some((cpu, topology.place(cpu)?)));
        match current.filter(|(_, place)| place.socket == near) {
            Some((cpu, Place { core, .. })) => {
                let reason = format!("not bound, no rank; runs on CPU {cpu} of socket {near}");
                seat(by_class(core), Rule::CurrentCpu, reason)
            }
            None => {
                let reason = format!("neither core nor rank known on socket {near}");
                seat(None, Rule::Balance, reason)
            }
        }
    }
}

/// The socket a process counts to, and all sockets its CPUs touch.
fn near_socket(topology: &Topology, fabric: &Fabric, process: &Process) -> (usize, Vec<usize>) {
    let mut sockets: Vec<usize> = Vec::new();
    for place in process.cpus.iter().filter_map(|cpu| topology.place(cpu)) {
        if !sockets.contains(&place.socket) {
            sockets.push(place.socket);
        }
    }
    if sockets.is_empty() {
        sockets = (0..topology.socket_count()).collect();
    }
    sockets.sort_unstable();
    if let [only] = sockets.as_slice() {
        return (*only, sockets);
    }
    let current = process
        .current_cpu
        .and_then(|cpu| topology.place(cpu))
        .map(|p| p.socket);
    let near = match process.local {
        Some(LocalRank { rank, size }) => deal(fabric, &sockets, rank, size),
        None => current
            .filter(|socket| sockets.contains(socket))
            .unwrap_or_else(|| deal(fabric, &sockets, 0, 1)),
    };
    (near, sockets)
}

/// Deals `size` ranks over `sockets` in blocks, each socket by its number of interfaces that are up
/// (equal numbers: socket `floor(rank * S / P)`).
fn deal(fabric: &Fabric, sockets: &[usize], rank: usize, size: usize) -> usize {
    let weight = |socket: usize| fabric.of_socket(socket).len();
    let total: usize = sockets.iter().map(|&socket| weight(socket)).sum();
    let (first, size) = (sockets.first().copied().unwrap_or(0), size.max(1));
    if total == 0 {
        let slot = rank.saturating_mul(sockets.len()) / size;
        return sockets.get(slot).copied().unwrap_or(first);
    }
    let mut position = rank.saturating_mul(total) / size;
    for &socket in sockets {
        match position.checked_sub(weight(socket)) {
            Some(rest) => position = rest,
            None => return socket,
        }
    }
    first
}

/// The core index of the lowest CPU, if the core indexes of all CPUs agree modulo `count`.
fn one_class(topology: &Topology, cpus: &CpuSet, count: usize) -> Option<usize> {
    let mut cores = cpus
        .iter()
        .filter_map(|cpu| topology.place(cpu))
        .map(|place| place.core);
    let first = cores.next()?;
    cores
        .all(|core| core.checked_rem(count) == first.checked_rem(count))
        .then_some(first)
}
