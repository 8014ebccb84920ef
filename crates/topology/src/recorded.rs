//! Recorded topologies: a JSON file that describes a node, so that a plan can be made elsewhere.
//!
//! ```json
//! { "format": "daos-topology", "version": 1, "name": "a laptop",
//!   "sockets": [["0,4", "1,5", "2,6", "3,7"]],
//!   "numa": [{"node": 0, "cpus": "0-7", "distances": [10]}],
//!   "offline": "",
//!   "nics": [{"name": "enp2s0", "domain": "enp2s0", "kind": "ethernet", "numa": null,
//!             "pci": "0000:02:00.0", "state": "up", "speed_mbps": 1000}] }
//! ```
//! `sockets` holds one array per socket, one CPU list per core.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::cpuset::CpuSet;
use crate::error::TopologyError;
use crate::model::{Core, NICS_MAX, Nic, NumaNode, Socket, Topology};

/// The version this program writes, and the only one it reads.
pub const VERSION: u64 = 1;
const FORMAT: &str = "daos-topology";
/// A larger file is refused: the largest node allowed here needs far less.
const FILE_BYTES_MAX: u64 = 4 << 20;
const NODES_MAX: usize = 1024;

#[derive(Serialize, Deserialize)]
struct Recording {
    format: String,
    version: u64,
    #[serde(default)]
    name: String,
    sockets: Vec<Vec<String>>,
    #[serde(default)]
    numa: Vec<RecordedNode>,
    #[serde(default)]
    offline: String,
    nics: Vec<Nic>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// Read first, so that a file of a later version is named as such and not as malformed.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct RecordedNode {
    node: u32,
    cpus: String,
    #[serde(default)]
    distances: Vec<u32>,
}

impl Topology {
    /// Reads a recorded topology.
    ///
    /// # Errors
    /// The file cannot be read, is larger than 4 MiB, is not such a recording, contradicts itself
    /// (a CPU in two cores, an interface named twice) or has another version.
    pub fn load(file: &Path) -> Result<Topology, TopologyError> {
        let shown = &file.display();
        // O_NONBLOCK: a FIFO in place of the file must not hang us.
        let mut opened = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(file)
            .map_err(|e| TopologyError::io(shown, e))?;
        let is_file = opened
            .metadata()
            .map_err(|e| TopologyError::io(shown, e))?
            .is_file();
        if !is_file {
            return Err(TopologyError::malformed(shown, "not a regular file"));
        }
        let mut bytes = Vec::new();
        Read::by_ref(&mut opened)
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| TopologyError::io(shown, e))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(TopologyError::malformed(shown, "larger than 4 MiB"));
        }
        Topology::from_json(&bytes, &shown.to_string())
    }

    /// Reads a recorded topology from memory; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`Topology::load`].
    pub fn from_json(bytes: &[u8], origin: &str) -> Result<Topology, TopologyError> {
        let bad = |why: String| TopologyError::malformed(origin, why);
        let read = serde_json::from_slice::<Recording>(bytes);
        if !matches!(&read, Ok(r) if r.format == FORMAT && r.version == VERSION) {
            let header: Header = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
            if header.format != FORMAT {
                return Err(bad(format!(
                    "format is \"{}\", not \"{FORMAT}\"",
                    header.format
                )));
            }
            if header.version != VERSION {
                return Err(TopologyError::Version {
                    path: origin.to_owned(),
                    found: header.version,
                    known: VERSION,
                });
            }
        }
        read.map_err(|e| bad(e.to_string()))?.check().map_err(bad)
    }

    /// The recording as JSON, indented by two blanks.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Serialising plain strings and numbers cannot fail.
        serde_json::to_string_pretty(&Recording::of(self)).unwrap_or_default() + "\n"
    }

    /// Writes the recording to `file`, replacing what is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, file: &Path) -> Result<(), TopologyError> {
        let error = |e| TopologyError::io(file.display(), e);
        let mut out = File::create(file).map_err(error)?;
        out.write_all(self.to_json().as_bytes()).map_err(error)
    }
}

impl Recording {
    fn of(topology: &Topology) -> Recording {
        let core = |core: &Core| core.cpus.iter().copied().collect::<CpuSet>().to_string();
        let numa = |n: &NumaNode| RecordedNode {
            node: n.id,
            cpus: n.cpus.to_string(),
            distances: n.distances.clone(),
        };
        Recording {
            format: FORMAT.to_owned(),
            version: VERSION,
            name: topology.name.clone(),
            sockets: topology
                .sockets
                .iter()
                .map(|s| s.cores.iter().map(core).collect())
                .collect(),
            numa: topology.nodes.iter().map(numa).collect(),
            offline: topology.offline.to_string(),
            nics: topology.nics.clone(),
            notes: topology.notes.clone(),
        }
    }

    fn check(self) -> Result<Topology, String> {
        let mut seen = CpuSet::new();
        let mut sockets = Vec::new();
        for cores in &self.sockets {
            // It would be left out, and interfaces would be on another socket than they say.
            if cores.is_empty() {
                return Err("a socket without cores".to_owned());
            }
            let mut socket = Socket::default();
            for list in cores {
                let cpus = CpuSet::parse(list).map_err(|e| e.to_string())?;
                if cpus.is_empty() {
                    return Err("a core without CPUs".to_owned());
                }
                if let Some(cpu) = cpus.and(&seen).first() {
                    return Err(format!("CPU {cpu} is in two cores"));
                }
                seen.extend(cpus.iter());
                socket.cores.push(Core {
                    cpus: cpus.iter().collect(),
                });
            }
            sockets.push(socket);
        }
        if self.numa.len() > NODES_MAX {
            return Err(format!("more than {NODES_MAX} NUMA nodes"));
        }
        let mut nodes: Vec<NumaNode> = Vec::new();
        for recorded in self.numa {
            if nodes.iter().any(|node| node.id == recorded.node) {
                return Err(format!("NUMA node {} is there twice", recorded.node));
            }
            let cpus = CpuSet::parse(&recorded.cpus).map_err(|e| e.to_string())?;
            nodes.push(NumaNode {
                id: recorded.node,
                cpus,
                distances: recorded.distances,
            });
        }
        check_nics(&self.nics, sockets.len())?;
        let offline = CpuSet::parse(&self.offline).map_err(|e| e.to_string())?;
        Ok(Topology::build(
            self.name, sockets, nodes, offline, self.nics, self.notes,
        ))
    }
}

fn check_nics(nics: &[Nic], socket_count: usize) -> Result<(), String> {
    if nics.len() > NICS_MAX {
        return Err(format!("more than {NICS_MAX} interfaces"));
    }
    for (index, nic) in nics.iter().enumerate() {
        if !is_interface_name(&nic.name) || !is_interface_name(&nic.domain) {
            return Err(format!("interface {index} has no usable name or domain"));
        }
        if nics.iter().take(index).any(|other| other.name == nic.name) {
            return Err(format!("interface {} is there twice", nic.name));
        }
        if nic
            .socket
            .is_some_and(|socket| socket >= socket_count.max(1))
        {
            return Err(format!(
                "interface {} is on a socket that does not exist",
                nic.name
            ));
        }
    }
    Ok(())
}

/// Whether `name` may go into `D_INTERFACE` or `D_DOMAIN`: printable, without blanks or slashes.
pub(crate) fn is_interface_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
        && name != "."
        && name != ".."
}
