//! Shared by the tests: recorded topologies, and a sysfs tree written from one.
#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use topology::{NicKind, Topology};

/// All recordings that come with the crate.
pub(crate) const RECORDINGS: [&str; 5] = [
    "aurora.json",
    "infiniband.json",
    "laptop.json",
    "vm.json",
    "no-nic.json",
];

pub(crate) fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("topologies")
        .join(name)
}

pub(crate) fn recorded(name: &str) -> Topology {
    Topology::load(&recording(name)).unwrap()
}

pub(crate) fn put(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{text}\n")).unwrap();
}

pub(crate) fn link(root: &Path, from: &str, to: &str) {
    let path = root.join(from);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(to, path).unwrap();
}

/// A directory for a tree of many small files: in memory where possible.
pub(crate) fn tree_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Writes the tree the kernel would show for `topology`: devices under `/sys/devices`, classes as
/// links to them (absolute, as in a careless copy, so that staying under the root is tested too).
pub(crate) fn write_sysfs(root: &Path, topology: &Topology) {
    put(root, "proc/sys/kernel/hostname", &topology.name);
    let cpu_dir = "sys/devices/system/cpu";
    put(
        root,
        &format!("{cpu_dir}/online"),
        &topology.online().to_string(),
    );
    put(
        root,
        &format!("{cpu_dir}/present"),
        &topology.cpus().to_string(),
    );
    put(
        root,
        &format!("{cpu_dir}/possible"),
        &topology.cpus().to_string(),
    );
    let online = topology.online();
    for (number, socket) in topology.sockets.iter().enumerate() {
        let package: topology::CpuSet = socket
            .cores
            .iter()
            .flat_map(|core| core.cpus.iter().copied())
            .collect();
        for core in &socket.cores {
            let siblings: topology::CpuSet = core.cpus.iter().copied().collect();
            for &cpu in core.cpus.iter().filter(|&&cpu| online.contains(cpu)) {
                let dir = format!("{cpu_dir}/cpu{cpu}/topology");
                put(
                    root,
                    &format!("{dir}/physical_package_id"),
                    &number.to_string(),
                );
                put(
                    root,
                    &format!("{dir}/core_siblings_list"),
                    &package.and(&online).to_string(),
                );
                put(
                    root,
                    &format!("{dir}/thread_siblings_list"),
                    &siblings.and(&online).to_string(),
                );
            }
        }
    }
    for node in &topology.nodes {
        let dir = format!("sys/devices/system/node/node{}", node.id);
        put(
            root,
            &format!("{dir}/cpulist"),
            &node.cpus.and(&online).to_string(),
        );
        let distances: Vec<_> = node.distances.iter().map(u32::to_string).collect();
        put(root, &format!("{dir}/distance"), &distances.join(" "));
    }
    for (number, nic) in topology.nics.iter().enumerate() {
        let pci = nic.pci.clone().unwrap_or(format!("0000:00:{number:02x}.7"));
        let device = format!("sys/devices/pci0000:00/{pci}");
        let numa = nic.numa.map_or("-1".to_owned(), |numa| numa.to_string());
        put(root, &format!("{device}/numa_node"), &numa);
        let net = format!("{device}/net/{}", nic.name);
        let link_type = if nic.kind == NicKind::InfiniBand {
            "32"
        } else {
            "1"
        };
        put(root, &format!("{net}/type"), link_type);
        put(root, &format!("{net}/operstate"), nic.state.as_str());
        put(root, &format!("{net}/flags"), "0x1003");
        if let Some(speed) = nic.speed_mbps {
            put(root, &format!("{net}/speed"), &speed.to_string());
        }
        link(root, &format!("{net}/device"), "../..");
        link(
            root,
            &format!("sys/class/net/{}", nic.name),
            &format!("/{net}"),
        );
        let class = match nic.kind {
            NicKind::Cxi => "cxi",
            NicKind::InfiniBand | NicKind::Roce => "infiniband",
            NicKind::Ethernet | NicKind::Virtual => continue,
        };
        let fabric = format!("{device}/{class}/{}", nic.domain);
        put(root, &format!("{fabric}/uevent"), "");
        link(root, &format!("{fabric}/device"), "../..");
        link(
            root,
            &format!("sys/class/{class}/{}", nic.domain),
            &format!("/{fabric}"),
        );
    }
}
