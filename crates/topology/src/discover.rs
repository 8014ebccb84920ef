//! Reading this machine, or a copy of its sysfs, into a [`Topology`].
//!
//! The CPU part reads one file per core and two per socket, because a sysfs read costs 2-4 us and a
//! node may have several hundred CPUs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cpuset::{CPU_MAX, CpuSet};
use crate::error::TopologyError;
use crate::model::{Core, NumaNode, Socket, Topology};
use crate::nics;
use crate::tree::Tree;

/// Environment variable that names another root than `/`.
pub const ROOT_VARIABLE: &str = "DAOS_TOPOLOGY_ROOT";
const CPU_DIR: &str = "sys/devices/system/cpu";
const NODE_DIR: &str = "sys/devices/system/node";
const NODES_MAX: usize = 1024;

/// The root to read: `DAOS_TOPOLOGY_ROOT` if `variable` finds it, else `/`.
#[must_use]
pub fn root_from(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    variable(ROOT_VARIABLE)
        .filter(|root| !root.is_empty())
        .map_or("/".into(), PathBuf::from)
}

impl Topology {
    /// Reads the CPUs and network interfaces under `root` (`/` for this machine; else a directory
    /// that holds `sys/...`). What is missing or damaged is left out and noted; a tree without
    /// anything gives an empty topology.
    ///
    /// # Errors
    /// `root` cannot be opened.
    pub fn discover(root: &Path) -> Result<Topology, TopologyError> {
        let tree = Tree::open(root)?;
        let mut notes = Vec::new();
        let nodes = numa_nodes(&tree, &mut notes);
        let cpus = Cpus::read(&tree, &nodes, &mut notes);
        let nics = nics::read(
            &tree,
            &|local| socket_holding(&cpus.sockets, local),
            &mut notes,
        );
        let name = tree.text("proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Topology::build(
            name,
            cpus.sockets,
            nodes,
            cpus.offline,
            nics,
            notes,
        ))
    }
}

/// The socket that holds all of `cpus` (a device's local CPUs), if one does.
fn socket_holding(sockets: &[Socket], cpus: &CpuSet) -> Option<usize> {
    let holds = |socket: &Socket| {
        let own: CpuSet = socket
            .cores
            .iter()
            .flat_map(|core| core.cpus.iter().copied())
            .collect();
        cpus.iter().all(|cpu| own.contains(cpu))
    };
    sockets.iter().position(holds).filter(|_| !cpus.is_empty())
}

fn numa_nodes(tree: &Tree, notes: &mut Vec<String>) -> Vec<NumaNode> {
    let (names, cut) = tree.names(NODE_DIR);
    let mut ids: Vec<u32> = names
        .iter()
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    if cut || ids.len() > NODES_MAX {
        notes.push(format!(
            "more than {NODES_MAX} NUMA nodes: the rest is ignored"
        ));
        ids.truncate(NODES_MAX);
    }
    let mut nodes = Vec::new();
    for id in ids {
        let list = tree
            .text(&format!("{NODE_DIR}/node{id}/cpulist"))
            .unwrap_or_default();
        let cpus = CpuSet::parse(&list).unwrap_or_else(|error| {
            notes.push(format!("NUMA node {id}: {error}"));
            CpuSet::new()
        });
        let distances = tree
            .text(&format!("{NODE_DIR}/node{id}/distance"))
            .unwrap_or_default();
        let distances = distances
            .split_whitespace()
            .map_while(|d| d.parse().ok())
            .collect();
        nodes.push(NumaNode {
            id,
            cpus,
            distances,
        });
    }
    nodes
}

/// The CPU side of a topology while it is being read.
struct Cpus {
    sockets: Vec<Socket>,
    offline: CpuSet,
}

impl Cpus {
    fn read(tree: &Tree, nodes: &[NumaNode], notes: &mut Vec<String>) -> Cpus {
        let online = online(tree, nodes, notes);
        let list = |name: &str| {
            let text = tree.text(&format!("{CPU_DIR}/{name}")).unwrap_or_default();
            CpuSet::parse(&text).unwrap_or_default()
        };
        // "possible" also counts slots for CPUs that are not plugged in; "present" does not.
        let offline: CpuSet = list("present")
            .iter()
            .filter(|&c| !online.contains(c))
            .collect();
        let mut packages = packages(tree, nodes, &online, notes);
        let mut sockets: Vec<BTreeMap<usize, Vec<usize>>> = packages
            .values_mut()
            .map(|cpus| cores(tree, cpus))
            .collect();
        // Without a thread beside another, only this says that there are more.
        let threads_off = tree
            .text(&format!("{CPU_DIR}/smt/control"))
            .is_some_and(|control| control == "off" || control == "forceoff");
        place_offline(&mut sockets, &offline, threads_off);
        let known: CpuSet = sockets
            .iter()
            .flat_map(|s| s.values().flatten().copied())
            .collect();
        let sockets = sockets
            .into_iter()
            .map(|cores| Socket {
                cores: cores.into_values().map(|cpus| Core { cpus }).collect(),
            })
            .collect();
        Cpus {
            sockets,
            offline: offline.and(&known),
        }
    }
}

/// CPUs that run: the kernel's list, else the directories, else what the NUMA nodes name.
fn online(tree: &Tree, nodes: &[NumaNode], notes: &mut Vec<String>) -> CpuSet {
    match tree
        .text(&format!("{CPU_DIR}/online"))
        .map(|text| CpuSet::parse(&text))
    {
        Some(Ok(set)) if !set.is_empty() => return set,
        Some(Err(error)) => notes.push(format!("list of online CPUs: {error}")),
        _ => notes.push("no list of online CPUs".to_owned()),
    }
    let (names, _) = tree.names(CPU_DIR);
    let found: CpuSet = names
        .iter()
        .filter_map(|name| name.strip_prefix("cpu")?.parse().ok())
        .filter(|&cpu| cpu < CPU_MAX)
        .collect();
    if found.is_empty() {
        return nodes.iter().flat_map(|node| node.cpus.iter()).collect();
    }
    found
}

/// CPUs of each socket, in the order of the kernel's package numbers.
fn packages(
    tree: &Tree,
    nodes: &[NumaNode],
    online: &CpuSet,
    notes: &mut Vec<String>,
) -> BTreeMap<usize, CpuSet> {
    let mut packages: BTreeMap<usize, CpuSet> = BTreeMap::new();
    let mut done = CpuSet::new();
    let mut guessed = 0;
    for cpu in online.iter() {
        if done.contains(cpu) {
            continue;
        }
        let file = |name: &str| format!("{CPU_DIR}/cpu{cpu}/topology/{name}");
        let package = tree
            .number(&file("physical_package_id"))
            .filter(|&p: &usize| p < CPU_MAX);
        let by_node = || {
            nodes
                .iter()
                .position(|node| node.cpus.contains(cpu))
                .unwrap_or(0)
        };
        if package.is_none() {
            guessed += 1;
        }
        let package = package.unwrap_or_else(by_node);
        let members = ["package_cpus_list", "core_siblings_list"]
            .iter()
            .find_map(|name| CpuSet::parse(&tree.text(&file(name))?).ok())
            .filter(|set| set.contains(cpu))
            .unwrap_or_else(|| CpuSet::from_iter([cpu]));
        // A CPU claimed by two packages stays in the first.
        let members: Vec<_> = members
            .iter()
            .filter(|&c| online.contains(c) && !done.contains(c))
            .collect();
        done.extend(members.iter().copied());
        packages.entry(package).or_default().extend(members);
    }
    if guessed > 0 {
        notes.push(format!(
            "socket of {guessed} CPUs not given: taken from their NUMA node"
        ));
    }
    packages
}

/// Cores of a socket by their first CPU.
fn cores(tree: &Tree, cpus: &CpuSet) -> BTreeMap<usize, Vec<usize>> {
    let mut cores = BTreeMap::new();
    let mut done = CpuSet::new();
    for cpu in cpus.iter() {
        if done.contains(cpu) {
            continue;
        }
        let siblings = ["thread_siblings_list", "core_cpus_list"]
            .iter()
            .find_map(|name| {
                CpuSet::parse(&tree.text(&format!("{CPU_DIR}/cpu{cpu}/topology/{name}"))?).ok()
            })
            .filter(|set| set.contains(cpu))
            .unwrap_or_else(|| CpuSet::from_iter([cpu]));
        let threads: Vec<_> = siblings
            .iter()
            .filter(|&c| cpus.contains(c) && !done.contains(c))
            .collect();
        done.extend(threads.iter().copied());
        cores.insert(cpu, threads);
    }
    cores
}

/// Puts offline CPUs back where they belong, since the kernel hides their place and the rule counts
/// cores: without it, one switched-off core would move every core after it to another interface.
///
/// The numbering tells: with siblings `n` and `n + stride` on every core that has both, or siblings
/// that follow each other, an offline CPU joins the core of its online sibling; otherwise it is a
/// core of its own between its neighbours. Offline CPUs after the last core change no index and stay
/// out.
fn place_offline(sockets: &mut [BTreeMap<usize, Vec<usize>>], offline: &CpuSet, threads_off: bool) {
    let stride = sibling_stride(sockets);
    let block = sibling_block(sockets, threads_off);
    if let Some(stride) = stride {
        // An online second thread of an offline first thread is filed under its own number so far.
        for cores in sockets.iter_mut() {
            let lone: Vec<usize> = cores
                .keys()
                .copied()
                .filter(|&cpu| cpu >= stride && offline.contains(cpu - stride))
                .collect();
            for cpu in lone {
                if let Some(threads) = cores.remove(&cpu) {
                    cores
                        .entry(cpu - stride)
                        .or_insert(vec![cpu - stride])
                        .extend(threads);
                }
            }
        }
    }
    for cpu in offline.iter() {
        if sockets.iter().any(|cores| cores.contains_key(&cpu)) {
            continue;
        }
        let first = stride
            .filter(|&stride| cpu >= stride)
            .map(|stride| cpu - stride);
        let siblings = match (first, block) {
            (Some(first), _) => first..first + 1,
            (None, Some(block)) => cpu / block * block..(cpu / block + 1) * block,
            (None, None) => 0..0,
        };
        let home = sockets.iter_mut().find_map(|cores| {
            let mut found = cores.range_mut(siblings.clone());
            found.next().map(|(_, threads)| threads)
        });
        if let Some(threads) = home {
            threads.push(cpu);
        } else if let Some(socket) = neighbour_socket(sockets, cpu)
            && let Some(cores) = sockets.get_mut(socket)
        {
            cores.insert(cpu, vec![cpu]);
        }
    }
}

/// The one distance between first and second hardware threads, if it is larger than 1 and the same
/// everywhere.
fn sibling_stride(sockets: &[BTreeMap<usize, Vec<usize>>]) -> Option<usize> {
    let mut strides = sockets
        .iter()
        .flat_map(|cores| cores.values())
        .filter_map(|threads| match threads.as_slice() {
            [first, second, ..] => second.checked_sub(*first),
            _ => None,
        });
    let stride = strides.next().filter(|&stride| stride > 1)?;
    strides.all(|other| other == stride).then_some(stride)
}

/// How many hardware threads that follow each other make a core, if no core has threads outside its
/// block of so many and no two cores share one.
fn sibling_block(sockets: &[BTreeMap<usize, Vec<usize>>], threads_off: bool) -> Option<usize> {
    let cores = || sockets.iter().flat_map(BTreeMap::values);
    let most = cores().map(Vec::len).max()?;
    let least = if threads_off { most.max(2) } else { most };
    [2, 4, 8]
        .into_iter()
        .filter(|&b| b >= least && least > 1)
        .find(|block| {
            let mut blocks: Vec<usize> = Vec::new();
            for threads in cores() {
                let mut of_core: Vec<usize> = threads.iter().map(|cpu| cpu / block).collect();
                of_core.dedup();
                blocks.extend(of_core);
            }
            let count = blocks.len();
            blocks.sort_unstable();
            blocks.dedup();
            count == blocks.len() && count == cores().count()
        })
}

/// The socket of an offline core: that of its neighbours in CPU number; between two sockets, or where
/// CPU numbers alternate over the sockets, the one with fewer cores. `None` after the last core.
fn neighbour_socket(sockets: &[BTreeMap<usize, Vec<usize>>], cpu: usize) -> Option<usize> {
    let mut firsts: Vec<(usize, usize)> = sockets
        .iter()
        .enumerate()
        .flat_map(|(socket, cores)| cores.keys().map(move |&first| (first, socket)))
        .collect();
    firsts.sort_unstable();
    let changes = firsts
        .windows(2)
        .filter(|pair| matches!(pair, [(_, a), (_, b)] if a != b))
        .count();
    let (below, above) = firsts.split_at(firsts.partition_point(|&(first, _)| first < cpu));
    let &(_, higher) = above.first()?;
    let candidates: Vec<usize> = match below.last() {
        _ if changes >= sockets.len() => (0..sockets.len()).collect(),
        Some(&(_, lower)) => vec![lower, higher],
        None => vec![higher],
    };
    let size = |socket: &usize| sockets.get(*socket).map_or(0, BTreeMap::len);
    candidates.into_iter().min_by_key(size)
}
