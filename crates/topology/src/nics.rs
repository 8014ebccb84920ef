//! Network interfaces in a sysfs tree: Ethernet, InfiniBand and RoCE, Slingshot.

use std::collections::{BTreeMap, BTreeSet};

use crate::cpuset::CpuSet;
use crate::error::one_line;
use crate::model::{LinkState, NICS_MAX, Nic, NicKind};
use crate::recorded::is_interface_name;
use crate::tree::Tree;

const NET: &str = "sys/class/net";
const IB: &str = "sys/class/infiniband";
const CXI: &str = "sys/class/cxi";
/// Levels of parent devices searched for a NUMA node (virtio: one; PCI bridges add some).
const PARENTS_MAX: usize = 8;
/// Bit of `/sys/class/net/X/flags` (netdevice(7)): switched on by the administrator.
const IFF_UP: u64 = 1;

/// The device behind an interface, as the class `cxi` or `infiniband` knows it.
struct Fabric {
    kind: NicKind,
    device: String,
}

/// Answers which socket holds all of the given CPUs, if one does.
pub(crate) type SocketOf<'a> = dyn Fn(&CpuSet) -> Option<usize> + 'a;

/// All interfaces under the tree but loopback, tunnels and other link types DAOS cannot use.
pub(crate) fn read(tree: &Tree, socket_of: &SocketOf<'_>, notes: &mut Vec<String>) -> Vec<Nic> {
    let mut fabrics = BTreeMap::new();
    let mut nics = Vec::new();
    for (class, kind) in [(CXI, NicKind::Cxi), (IB, NicKind::InfiniBand)] {
        for device in usable_names(tree, class, notes) {
            let (netdevs, _) = tree.names(&format!("{class}/{device}/device/net"));
            let with_netdev: Vec<_> = netdevs
                .into_iter()
                .filter(|name| tree.is_dir(&format!("{NET}/{name}")))
                .collect();
            if with_netdev.is_empty() {
                nics.push(without_netdev(tree, socket_of, class, kind, &device));
            }
            for name in with_netdev {
                fabrics.insert(
                    name,
                    Fabric {
                        kind,
                        device: device.clone(),
                    },
                );
            }
        }
    }
    for name in usable_names(tree, NET, notes) {
        nics.extend(netdev(tree, socket_of, &name, &fabrics));
    }
    nics
}

fn usable_names(tree: &Tree, class: &str, notes: &mut Vec<String>) -> Vec<String> {
    let (mut names, cut) = tree.names(class);
    if let Some(odd) = names.iter().find(|name| !is_interface_name(name)) {
        notes.push(format!(
            "{class}: \"{}\" is not an interface name: left out",
            one_line(odd)
        ));
        names.retain(|name| is_interface_name(name));
    }
    if cut {
        let note = "has too many entries: the rest is not looked at";
        notes.push(format!("{class} {note}"));
    }
    names
}

/// State of the network interface `name`: what the driver says, or where it says nothing (dummy,
/// tap) whether the administrator switched it on.
pub(crate) fn netdev_state(tree: &Tree, name: &str) -> LinkState {
    let up = match tree.text(&format!("{NET}/{name}/operstate")).as_deref() {
        Some("up") => true,
        Some("unknown") => tree
            .text(&format!("{NET}/{name}/flags"))
            .and_then(|flags| u64::from_str_radix(flags.strip_prefix("0x")?, 16).ok())
            .is_some_and(|flags| flags & IFF_UP != 0),
        _ => false,
    };
    if up { LinkState::Up } else { LinkState::Down }
}

fn netdev(
    tree: &Tree,
    socket_of: &SocketOf<'_>,
    name: &str,
    fabrics: &BTreeMap<String, Fabric>,
) -> Option<Nic> {
    let base = format!("{NET}/{name}");
    let link_type: u32 = tree.number(&format!("{base}/type"))?;
    let mut fabric = fabrics.get(name);
    let hardware = tree.is_dir(&format!("{base}/device"));
    // A member of a bond or bridge has no address of its own: the bond or bridge stands for it.
    let member = tree.is_dir(&format!("{base}/master"));
    let (kind, location) = match (link_type, fabric) {
        (
            _,
            Some(Fabric {
                kind: NicKind::Cxi, ..
            }),
        ) => (NicKind::Cxi, locate(tree, &base)),
        (32, None) if !hardware => {
            // A bond over IPoIB uses one member at a time, and verbs need that one's device.
            let members = hardware_below(tree, name);
            fabric = members.iter().find_map(|member| fabrics.get(member));
            let used = members.get(..1).unwrap_or_default();
            let location = common_place(tree, used).unwrap_or_default();
            (NicKind::InfiniBand, location)
        }
        (32, _) => (NicKind::InfiniBand, locate(tree, &base)),
        (1, Some(_)) => (NicKind::Roce, locate(tree, &base)),
        (1, None) if hardware => (NicKind::Ethernet, locate(tree, &base)),
        (1, None) => match common_place(tree, &hardware_below(tree, name)) {
            Some(location) => (NicKind::Ethernet, location),
            None => (NicKind::Virtual, Location::default()),
        },
        _ => return None,
    };
    let mut state = netdev_state(tree, name);
    if member {
        state = LinkState::Down;
    }
    let speed_mbps = tree
        .number::<i64>(&format!("{base}/speed"))
        .and_then(|speed| u32::try_from(speed).ok())
        .filter(|&speed| speed > 0)
        .or_else(|| ib_rate(tree, &fabric?.device));
    let domain = fabric.map_or(name, |fabric| &fabric.device).to_owned();
    Some(Nic {
        name: name.to_owned(),
        domain,
        kind,
        numa: location.numa,
        socket: location.local_cpus.as_ref().and_then(socket_of),
        pci: location.pci,
        state,
        speed_mbps,
    })
}

/// A fabric device whose network interface is missing: named like its domain.
fn without_netdev(
    tree: &Tree,
    socket_of: &SocketOf<'_>,
    class: &str,
    kind: NicKind,
    device: &str,
) -> Nic {
    let base = format!("{class}/{device}");
    let location = locate(tree, &base);
    Nic {
        name: device.to_owned(),
        domain: device.to_owned(),
        kind,
        numa: location.numa,
        socket: location.local_cpus.as_ref().and_then(socket_of),
        pci: location.pci,
        state: device_state(tree, kind, device),
        speed_mbps: ib_rate(tree, device),
    }
}

/// State of a fabric device without network interface: an InfiniBand port says `4: ACTIVE`; a cxi
/// device without its interface cannot be used.
fn device_state(tree: &Tree, kind: NicKind, device: &str) -> LinkState {
    let active = kind == NicKind::InfiniBand
        && tree
            .text(&format!("{IB}/{device}/ports/1/state"))
            .is_some_and(|state| state.ends_with("ACTIVE"));
    if active {
        LinkState::Up
    } else {
        LinkState::Down
    }
}

/// The present state of `nic`, read anew.
pub(crate) fn state_now(tree: &Tree, nic: &Nic) -> LinkState {
    // Those of a kind with devices that are named like their domain have no network interface, but
    // for some of InfiniBand that hang on no device.
    if nic.name == nic.domain
        && matches!(nic.kind, NicKind::Cxi | NicKind::InfiniBand)
        && !tree.is_dir(&format!("{NET}/{}", nic.name))
    {
        return device_state(tree, nic.kind, &nic.domain);
    }
    let state = netdev_state(tree, &nic.name);
    // Membership of a bond is looked at only where it can matter: hardware that was not chosen.
    match nic.state {
        LinkState::Down if tree.is_dir(&format!("{NET}/{}/master", nic.name)) => LinkState::Down,
        _ => state,
    }
}

/// `200 Gb/sec (4X HDR)` in Mbit/s.
fn ib_rate(tree: &Tree, device: &str) -> Option<u32> {
    let text = tree.text(&format!("{IB}/{device}/ports/1/rate"))?;
    let gbit: f64 = text.split_whitespace().next()?.parse().ok()?;
    // Truncation cannot happen inside the range that is checked.
    (0.001..=4e6)
        .contains(&gbit)
        .then_some((gbit * 1000.0) as u32)
}

/// Where a device hangs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Location {
    numa: Option<u32>,
    pci: Option<String>,
    /// CPUs near it, read only where the NUMA node is not given.
    local_cpus: Option<CpuSet>,
}

/// NUMA node and PCI address of the device behind a class entry.
fn locate(tree: &Tree, base: &str) -> Location {
    let mut path = format!("{base}/device");
    let mut numa = None;
    for _ in 0..PARENTS_MAX {
        numa = tree
            .number::<i64>(&format!("{path}/numa_node"))
            .and_then(|n| u32::try_from(n).ok());
        if numa.is_some() {
            break;
        }
        path.push_str("/..");
    }
    let link = tree
        .link(base)
        .or_else(|| tree.link(&format!("{base}/device")));
    let local_cpus = match numa {
        Some(_) => None,
        None => tree
            .text(&format!("{base}/device/local_cpulist"))
            .and_then(|list| CpuSet::parse(&list).ok()),
    };
    let pci = link.and_then(|link| {
        link.rsplit('/')
            .find(|part| is_pci(part))
            .map(str::to_owned)
    });
    Location {
        numa,
        pci,
        local_cpus,
    }
}

/// The hardware under a bond or bridge, that of bonds inside a bridge included; the member a bond
/// sends through first, the others by name.
fn hardware_below(tree: &Tree, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([name.to_owned()]);
    let mut above = vec![name.to_owned()];
    while let Some(upper) = above.pop() {
        let (entries, _) = tree.names(&format!("{NET}/{upper}"));
        let active = tree.text(&format!("{NET}/{upper}/bonding/active_slave"));
        for member in entries
            .iter()
            .filter_map(|entry| entry.strip_prefix("lower_"))
        {
            let master = tree.link(&format!("{NET}/{member}/master"));
            let is_member =
                master.is_some_and(|master| master.rsplit('/').next() == Some(upper.as_str()));
            // Names seen before would go round in circles.
            if !is_member || seen.len() > NICS_MAX || !seen.insert(member.to_owned()) {
                continue;
            }
            if !tree.is_dir(&format!("{NET}/{member}/device")) {
                above.push(member.to_owned());
            } else if active.as_deref() == Some(member) {
                found.insert(0, member.to_owned());
            } else {
                found.push(member.to_owned());
            }
        }
    }
    found
}

/// The place of `members`, as far as they agree; `None` if there are none.
fn common_place(tree: &Tree, members: &[String]) -> Option<Location> {
    let mut places = members
        .iter()
        .map(|member| locate(tree, &format!("{NET}/{member}")));
    let mut place = places.next()?;
    for other in places {
        if other.numa != place.numa {
            place.numa = None;
            place.local_cpus = None;
        }
        place.pci = place.pci.min(other.pci);
    }
    Some(place)
}

/// `dddd:bb:dd.f`, with domains of four or more digits.
fn is_pci(part: &str) -> bool {
    let fields: Vec<&str> = part.split([':', '.']).collect();
    let hex = |field: &str, min: usize, max: usize| {
        (min..=max).contains(&field.len()) && field.bytes().all(|b| b.is_ascii_hexdigit())
    };
    matches!(fields.as_slice(), [domain, bus, device, function]
        if hex(domain, 4, 8) && hex(bus, 2, 2) && hex(device, 2, 2) && hex(function, 1, 1))
}
