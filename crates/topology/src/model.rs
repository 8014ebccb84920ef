//! The description of a node: sockets, cores, NUMA nodes and network interfaces.
//!
//! Invariants, kept by [`Topology::build`]: a CPU belongs to one core; sockets are numbered from 0
//! without gaps; interfaces are sorted by NUMA node, PCI address and trailing number, which is the
//! order the rule in [`crate::plan`] counts in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cpuset::{CPU_MAX, CpuSet};

/// More interfaces than this on a node are cut off, with a note.
pub const NICS_MAX: usize = 256;

/// The kind of an interface, most preferred first: a node's ranks use the interfaces of the best
/// kind that has one up, because a DAOS system speaks one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NicKind {
    /// HPE Slingshot (`/sys/class/cxi`); libfabric needs the domain `cxiN`.
    Cxi,
    /// InfiniBand (network type 32).
    InfiniBand,
    /// Ethernet with an RDMA device beside it (RoCE).
    Roce,
    /// Ethernet with a device behind it, or a bond or bridge over such.
    Ethernet,
    /// Ethernet without hardware: veth, dummy, VLAN, tap.
    Virtual,
}

impl NicKind {
    /// The name used in tables and recorded topologies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            NicKind::Cxi => "cxi",
            NicKind::InfiniBand => "infiniband",
            NicKind::Roce => "roce",
            NicKind::Ethernet => "ethernet",
            NicKind::Virtual => "virtual",
        }
    }
}

impl fmt::Display for NicKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether an interface can carry traffic now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// The link works.
    Up,
    /// No carrier, switched off, or part of a bond that is used instead.
    Down,
}

impl LinkState {
    /// The name used in tables and recorded topologies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Up => "up",
            LinkState::Down => "down",
        }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Interface name, the value for `D_INTERFACE` (`hsn3`).
    pub name: String,
    /// libfabric domain, the value for `D_DOMAIN` (`cxi3`, `mlx5_0`; Ethernet: the name again).
    pub domain: String,
    /// Kind of link.
    pub kind: NicKind,
    /// NUMA node, as the kernel says it; `None` where it says -1 or nothing.
    #[serde(default)]
    pub numa: Option<u32>,
    /// Socket it is attached to; worked out from `numa` when a recording leaves it out.
    #[serde(default)]
    pub socket: Option<usize>,
    /// PCI address (`0000:16:00.0`).
    #[serde(default)]
    pub pci: Option<String>,
    /// Link state.
    pub state: LinkState,
    /// Speed in Mbit/s, where the driver says it.
    #[serde(default)]
    pub speed_mbps: Option<u32>,
}

impl Nic {
    /// Whether the interface can be chosen.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }

    /// One direction's bandwidth in GB/s (10^9 bytes), from the link speed.
    #[must_use]
    pub fn gb_per_s(&self) -> Option<f64> {
        self.speed_mbps.map(|mbps| f64::from(mbps) / 8000.0)
    }

    fn sort_key(&self) -> (u32, String, u64, String) {
        let digits = self
            .name
            .bytes()
            .rev()
            .take_while(u8::is_ascii_digit)
            .count();
        let number = self
            .name
            .get(self.name.len() - digits..)
            .and_then(|n| n.parse().ok());
        (
            self.numa.unwrap_or(0),
            self.pci.clone().unwrap_or_default(),
            number.unwrap_or(u64::MAX),
            self.name.clone(),
        )
    }
}

/// A physical core: its logical CPUs (hardware threads), lowest first, offline ones included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Core {
    /// CPU numbers; the first is the one the guide's table shows.
    pub cpus: Vec<usize>,
}

/// A socket: its cores, in the order of their first CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The cores; the position is the index `j` of the rule.
    pub cores: Vec<Core>,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    /// The kernel's number.
    pub id: u32,
    /// Its CPUs; empty for memory-only nodes (HBM).
    pub cpus: CpuSet,
    /// Distance to every node, in node order; empty if unknown.
    pub distances: Vec<u32>,
}

/// Where a CPU sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Socket number.
    pub socket: usize,
    /// Index of the core inside its socket.
    pub core: usize,
    /// Which hardware thread of the core.
    pub thread: usize,
}

/// A node's CPUs and network interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// A name for people (host name, or the recording's name).
    pub name: String,
    /// Sockets; empty if nothing is known about the CPUs.
    pub sockets: Vec<Socket>,
    /// NUMA nodes, ascending.
    pub nodes: Vec<NumaNode>,
    /// CPUs that exist but are switched off.
    pub offline: CpuSet,
    /// Interfaces in the order of the rule.
    pub nics: Vec<Nic>,
    /// Remarks about what was missing or odd, a line each.
    pub notes: Vec<String>,
    /// Place of each CPU, by CPU number.
    #[serde(skip)]
    places: Vec<Option<Place>>,
}

impl Topology {
    /// Puts the parts together: sorts, gives every interface its socket, indexes the CPUs.
    #[must_use]
    pub fn build(
        name: String,
        sockets: Vec<Socket>,
        nodes: Vec<NumaNode>,
        offline: CpuSet,
        nics: Vec<Nic>,
        notes: Vec<String>,
    ) -> Topology {
        let mut made = Topology {
            name,
            sockets,
            nodes,
            offline,
            nics,
            notes,
            ..Topology::default()
        };
        made.sockets.retain(|socket| !socket.cores.is_empty());
        made.nodes.sort_by_key(|node| node.id);
        for socket in &mut made.sockets {
            for core in &mut socket.cores {
                core.cpus.sort_unstable();
            }
            socket.cores.sort_by_key(|core| core.cpus.first().copied());
        }
        made.index_cpus();
        if made.nics.len() > NICS_MAX {
            made.notes.push(format!(
                "{} interfaces found, only {NICS_MAX} are used",
                made.nics.len()
            ));
            // Hundreds of containers have as many links: those ranks would use are not cut off.
            made.nics.sort_by_key(|nic| (nic.kind, !nic.is_up()));
            made.nics.truncate(NICS_MAX);
        }
        made.nics.sort_by_cached_key(Nic::sort_key);
        made.attach_nics();
        made
    }

    /// Fills the index of CPUs by number, which is not stored.
    pub(crate) fn index_cpus(&mut self) {
        let highest = |core: &Core| core.cpus.last().copied().unwrap_or(0);
        let cores = || self.sockets.iter().flat_map(|socket| &socket.cores);
        let count = cores().map(highest).max().map_or(0, |cpu| cpu + 1);
        self.places = vec![None; count.min(CPU_MAX)];
        for (socket, cores) in self.sockets.iter().enumerate() {
            for (core, threads) in cores.cores.iter().enumerate() {
                for (thread, &cpu) in threads.cpus.iter().enumerate() {
                    if let Some(place) = self.places.get_mut(cpu) {
                        place.get_or_insert(Place {
                            socket,
                            core,
                            thread,
                        });
                    }
                }
            }
        }
    }

    /// Gives every interface a socket. The DAOS agent counts an interface without a NUMA node to
    /// node 0; so do we.
    fn attach_nics(&mut self) {
        let count = self.sockets.len().max(1);
        let socket_of = |node: &NumaNode| {
            let mut places = node.cpus.iter().filter_map(|cpu| self.place(cpu));
            places.next().map(|place| place.socket)
        };
        let by_node = |numa: Option<u32>| {
            let node = self.nodes.iter().find(|node| Some(node.id) == numa)?;
            // A node of memory only: the nearest one that has CPUs.
            let others = self.nodes.iter().zip(&node.distances);
            socket_of(node).or_else(|| {
                let near = others.filter_map(|(other, &far)| Some((far, socket_of(other)?)));
                near.min().map(|(_, socket)| socket)
            })
        };
        let sockets: Vec<_> = self
            .nics
            .iter()
            .map(|nic| {
                nic.socket
                    .filter(|&s| s < count)
                    .or_else(|| by_node(nic.numa))
            })
            .collect();
        let fallback = by_node(Some(0)).unwrap_or(0);
        let several_nodes = self
            .nodes
            .iter()
            .filter(|node| !node.cpus.is_empty())
            .count()
            > 1;
        let mut unplaced = Vec::new();
        for (nic, socket) in self.nics.iter_mut().zip(sockets) {
            if socket.is_none() && several_nodes && nic.kind != NicKind::Virtual {
                unplaced.push(nic.name.clone());
            }
            nic.socket = Some(socket.unwrap_or(fallback));
        }
        if !unplaced.is_empty() {
            self.notes.push(format!(
                "no NUMA node known for {}: counted to node 0, as the DAOS agent does",
                unplaced.join(", ")
            ));
        }
    }

    /// Where `cpu` sits, if the node has it.
    #[must_use]
    pub fn place(&self, cpu: usize) -> Option<Place> {
        self.places.get(cpu).copied().flatten()
    }

    /// Number of sockets, at least 1.
    #[must_use]
    pub fn socket_count(&self) -> usize {
        self.sockets.len().max(1)
    }

    /// All CPUs, offline ones included.
    #[must_use]
    pub fn cpus(&self) -> CpuSet {
        (0..self.places.len())
            .filter(|&cpu| self.place(cpu).is_some())
            .collect()
    }

    /// All CPUs that are online.
    #[must_use]
    pub fn online(&self) -> CpuSet {
        self.cpus()
            .iter()
            .filter(|&cpu| !self.offline.contains(cpu))
            .collect()
    }

    /// The same node with every CPU outside `allowed` switched off (a cgroup's cpuset).
    #[must_use]
    pub fn restricted(&self, allowed: &CpuSet) -> Topology {
        let mut made = self.clone();
        made.offline
            .extend(self.cpus().iter().filter(|&cpu| !allowed.contains(cpu)));
        made
    }

    /// Position of the interface called `name`.
    #[must_use]
    pub fn nic_named(&self, name: &str) -> Option<usize> {
        self.nics.iter().position(|nic| nic.name == name)
    }

    /// Distance between two sockets: the least NUMA distance between their nodes, or 10 and 20
    /// (the firmware's usual values for local and remote) where the kernel does not say.
    #[must_use]
    pub fn distance(&self, from: usize, to: usize) -> u32 {
        let nodes_of = |socket: usize| {
            self.nodes.iter().enumerate().filter(move |(_, node)| {
                node.cpus
                    .iter()
                    .any(|cpu| self.place(cpu).is_some_and(|p| p.socket == socket))
            })
        };
        nodes_of(from)
            .flat_map(|(_, a)| nodes_of(to).filter_map(|(b, _)| a.distances.get(b).copied()))
            .min()
            .unwrap_or(if from == to { 10 } else { 20 })
    }
}
