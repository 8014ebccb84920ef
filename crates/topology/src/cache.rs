//! The node's topology, kept between processes.
//!
//! One file per user, root and network namespace. It is used only in the boot it was written in,
//! and only while the machine still has the same interfaces and online CPUs. Link states change
//! while a node runs: they are read anew when they are a second old, so that the ranks of a job,
//! which start together, read them once. Whoever has chosen an interface looks at its state again
//! ([`is_up_now`]).

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use crate::error::TopologyError;
use crate::launcher::Lookup;
use crate::model::{LinkState, Nic, Topology};
use crate::nics;
use crate::store;
use crate::tree::Tree;

/// The content is this program's own encoding of a topology, so its version is part of the name.
const MAGIC: &str = concat!("daos-topology-cache ", env!("CARGO_PKG_VERSION"));

const STATE_AGE_MAX: Duration = Duration::from_secs(1);

/// Where a topology came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Read from sysfs.
    Discovered,
    /// Taken from the cache.
    Cached,
}

/// The cache in a directory.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    state_age_max: Duration,
}

impl Cache {
    /// A cache in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Cache {
        Cache {
            dir: dir.to_owned(),
            state_age_max: STATE_AGE_MAX,
        }
    }

    /// The same with another age at which link states are read anew.
    #[must_use]
    pub fn with_state_age(self, state_age_max: Duration) -> Cache {
        Cache {
            state_age_max,
            ..self
        }
    }

    /// The cache in the usual place: `/dev/shm`, else `XDG_RUNTIME_DIR`; `None` without both.
    #[must_use]
    pub fn standard(variable: &Lookup<'_>) -> Option<Cache> {
        store::default_dir(variable).map(|dir| Cache::new(&dir))
    }

    /// The topology under `root`, from the cache if that is fresh, else discovered and kept. A cache
    /// that cannot be used or written is no error.
    ///
    /// # Errors
    /// `root` cannot be opened.
    pub fn topology(&self, root: &Path) -> Result<(Topology, Source), TopologyError> {
        let tree = Tree::open(root)?;
        let stamp = Stamp::of(&tree);
        let path = self.path(root);
        if let Some((mut cached, written)) = read(&path, &stamp) {
            // A clock set back makes the age unknown: too old.
            let age = SystemTime::now().duration_since(written);
            if age.is_err() || age.is_ok_and(|age| age >= self.state_age_max) {
                refresh(&tree, &mut cached);
                let _kept = write(&path, &stamp, &cached).is_ok();
            }
            return Ok((cached, Source::Cached));
        }
        let topology = Topology::discover(root)?;
        // Kept for the next process if possible; this one has its answer.
        let _kept = write(&path, &stamp, &topology).is_ok();
        Ok((topology, Source::Discovered))
    }

    /// The cache's file for `root`.
    #[must_use]
    pub fn path(&self, root: &Path) -> PathBuf {
        let root = root.as_os_str().as_encoded_bytes();
        let key = store::fnv64(&[root, store::namespace("net").as_bytes()]);
        self.dir
            .join(format!("daos-topology-{}-{key:016x}", store::uid()))
    }
}

/// Whether `nic` is up under `root` at this moment.
#[must_use]
pub fn is_up_now(root: &Path, nic: &Nic) -> bool {
    Tree::open(root).is_ok_and(|tree| nics::state_now(&tree, nic) == LinkState::Up)
}

/// Reads the link states of `topology` under `root` anew.
///
/// # Errors
/// `root` cannot be opened.
pub fn refresh_states(root: &Path, topology: &mut Topology) -> Result<(), TopologyError> {
    refresh(&Tree::open(root)?, topology);
    Ok(())
}

fn refresh(tree: &Tree, topology: &mut Topology) {
    for nic in &mut topology.nics {
        nic.state = nics::state_now(tree, nic);
    }
}

/// What a cached topology must agree with.
struct Stamp {
    boot: String,
    machine: u64,
}

impl Stamp {
    fn of(tree: &Tree) -> Stamp {
        let (names, _) = tree.names("sys/class/net");
        let online = tree
            .text("sys/devices/system/cpu/online")
            .unwrap_or_default();
        let machine = store::fnv64(&[names.join("/").as_bytes(), online.as_bytes()]);
        Stamp {
            boot: store::boot_id(),
            machine,
        }
    }

    fn header(&self, body: &[u8]) -> String {
        let sum = store::fnv64(&[body]);
        format!(
            "{MAGIC} {} {:016x} {sum:016x} {}",
            self.boot,
            self.machine,
            body.len()
        )
    }
}

/// The topology in `path` and when it was written.
fn read(path: &Path, stamp: &Stamp) -> Option<(Topology, SystemTime)> {
    let file = store::open(path, OFlags::RDONLY).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let seconds = Duration::from_secs(u64::try_from(stat.st_mtime).ok()?);
    let written = SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(stat.st_mtime_nsec);
    let bytes = store::read_all(&file).ok()?;
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let (header, body) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    if header != stamp.header(body).as_bytes() {
        return None;
    }
    let mut topology: Topology = postcard::from_bytes(body).ok()?;
    topology.index_cpus();
    Some((topology, written))
}

/// Written beside and renamed, so that no reader sees half a file.
fn write(path: &Path, stamp: &Stamp, topology: &Topology) -> Result<(), TopologyError> {
    let malformed = |e: postcard::Error| TopologyError::malformed(path.display(), e.to_string());
    let body = postcard::to_allocvec(topology).map_err(malformed)?;
    let content = [stamp.header(&body).as_bytes(), b"\n", &body].concat();
    let own = rustix::process::getpid().as_raw_nonzero();
    let beside = path.with_extension(format!("{own}.new"));
    let error = |e: rustix::io::Errno| TopologyError::io(beside.display(), e);
    // Left over from a dead process with our number; anything of another user fails to open.
    let _stale = std::fs::remove_file(&beside).is_ok();
    let file = store::open(&beside, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    store::write_all(&file, &content).map_err(error)?;
    rustix::fs::rename(&beside, path).map_err(|e| {
        let _removed = std::fs::remove_file(&beside).is_ok();
        error(e)
    })
}
