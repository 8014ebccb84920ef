//! Finding pools and reading their maps. Runs inside host programs: no std::fs, nothing printed.

use crate::system::fd::{Fd, errno, open_dir, read_at, replace_at};
use crate::system::map::{MAP_BYTES_MAX, MAP_NAME};
use crate::system::root::open_own_dir;
use crate::system::{AttachFile, PoolMap, RankState, SystemError, SystemRoot};
use daos_types::{Ident, Label, PoolId};
use rustix::fs::Mode;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use sys::Errno;

/// One rank of a pool as found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RankDescriptor {
    /// Number of the rank.
    pub rank: u16,
    /// Its directory.
    pub path: PathBuf,
    /// State in the pool map.
    pub state: RankState,
    /// Whether its directory holds a readable copy of the map.
    pub present: bool,
}

/// A pool as found: the newest map a majority stands behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolDescriptor {
    /// UUID.
    pub uuid: PoolId,
    /// Label.
    pub label: Label,
    /// Directory of the pool in the registry; holds the `attach` file.
    pub dir: PathBuf,
    /// Version of the pool map.
    pub map_version: u64,
    /// Ranks in order of their numbers.
    pub ranks: Vec<RankDescriptor>,
    /// Targets on each rank.
    pub targets_per_rank: u16,
    /// Size in bytes over all ranks.
    pub size_bytes: u64,
    /// Time of creation, nanoseconds since the Unix epoch.
    pub created_ns: i64,
    /// Whether space was preallocated.
    pub reserved: bool,
    /// User-defined attributes of the pool.
    pub attrs: Vec<(String, Vec<u8>)>,
}

impl PoolDescriptor {
    /// Targets of the pool.
    pub fn targets(&self) -> u32 {
        self.ranks.len() as u32 * u32::from(self.targets_per_rank)
    }

    /// Ranks that are in service.
    pub fn serving_ranks(&self) -> u32 {
        let serving = self.ranks.iter().filter(|rank| rank.state.serves());
        serving.count() as u32
    }

    /// Targets on ranks that are out of service.
    pub fn disabled_targets(&self) -> u32 {
        self.targets() - self.serving_ranks() * u32::from(self.targets_per_rank)
    }

    /// Bytes of one rank.
    pub fn rank_bytes(&self) -> u64 {
        self.size_bytes / (self.ranks.len().max(1) as u64)
    }

    /// Reads the map, lets `change` edit it, and stores it on every rank that can be reached and
    /// in the registry, as one version more. Serialised among processes.
    pub fn update_map(
        &self,
        change: &mut dyn FnMut(&mut PoolMap),
    ) -> Result<PoolDescriptor, SystemError> {
        let file = AttachFile::open(&self.dir)?;
        let _lock = file.lock_map()?;
        self.check_ranks(&file.home())?;
        let mut found = read_maps(&self.dir, self.uuid)?;
        change(&mut found.map);
        found.map.version += 1;
        let stored = store_map(&self.dir, &found.map)?;
        found.require_majority(stored)?;
        read_maps(&self.dir, self.uuid).map(|found| found.describe(&self.dir))
    }
}

/// Writes the map to the registry and every reachable rank; returns how many copies count.
pub(crate) fn store_map(dir: &Path, map: &PoolMap) -> Result<usize, SystemError> {
    let bytes = map.clone().named_in(dir).encode();
    let name = Path::new(MAP_NAME);
    let even = map.ranks.len().is_multiple_of(2);
    let mut stored = 0;
    for rank in &map.ranks {
        let written = open_dir(&rank.path).and_then(|rank| replace_at(&rank, name, &bytes));
        stored += usize::from(written.is_ok());
    }
    let registry = open_dir(dir).map_err(|e| SystemError::io("open directory", dir, e))?;
    replace_at(&registry, name, &bytes)
        .map_err(|e| SystemError::io("write pool map in", dir, e))?;
    Ok(stored + usize::from(even))
}

/// What was read of a pool.
struct Found {
    map: PoolMap,
    /// For each rank, whether its copy is readable.
    present: Vec<bool>,
    /// Copies that count.
    votes: usize,
}

impl Found {
    fn require_majority(&self, votes: usize) -> Result<(), SystemError> {
        let needed = self.map.majority();
        if votes >= needed {
            return Ok(());
        }
        let missing = self
            .map
            .ranks
            .iter()
            .zip(&self.present)
            .find(|(_, present)| !**present);
        Err(SystemError::NoMajority {
            pool: self.map.label.to_string(),
            found: votes,
            needed,
            missing: missing.map_or_else(PathBuf::new, |(rank, _)| rank.path.clone()),
        })
    }

    fn describe(self, dir: &Path) -> PoolDescriptor {
        let ranks = self.map.ranks.into_iter().zip(self.present);
        PoolDescriptor {
            uuid: self.map.uuid,
            label: self.map.label,
            dir: dir.to_owned(),
            map_version: self.map.version,
            ranks: ranks
                .map(|(rank, present)| RankDescriptor {
                    rank: rank.rank,
                    path: rank.path,
                    state: rank.state,
                    present,
                })
                .collect(),
            targets_per_rank: self.map.targets_per_rank,
            size_bytes: self.map.size_bytes,
            created_ns: self.map.created_ns,
            reserved: self.map.reserved,
            attrs: self.map.attrs,
        }
    }
}

/// One readable copy of the map.
struct Copy {
    bytes: Vec<u8>,
    map: PoolMap,
}

/// Reads the copy in `dir` of the map of the pool in `pool`. `Ok(None)`: missing, unreadable or
/// damaged; errors: newer format, foreign.
fn read_copy(
    dir: &Path,
    pool: &Path,
    uuid: PoolId,
    known: &[Copy],
) -> Result<Option<Copy>, SystemError> {
    match open_own_dir(dir, Mode::WGRP | Mode::WOTH) {
        Ok(opened) => read_copy_in(&opened, dir, pool, uuid, known),
        Err(SystemError::Io { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// As [`read_copy`], with the directory open already.
fn read_copy_in(
    opened: &Fd,
    dir: &Path,
    pool: &Path,
    uuid: PoolId,
    known: &[Copy],
) -> Result<Option<Copy>, SystemError> {
    let Ok(bytes) = read_at(opened, Path::new(MAP_NAME), MAP_BYTES_MAX) else {
        return Ok(None);
    };
    // Copies are equal byte for byte as a rule, so that one is parsed and 20 are compared.
    if let Some(same) = known.iter().find(|copy| copy.bytes == bytes) {
        return Ok(Some(Copy {
            bytes,
            map: same.map.clone(),
        }));
    }
    match PoolMap::decode(&bytes, &dir.join(MAP_NAME)) {
        Ok(map) if map.uuid == uuid => Ok(Some(Copy {
            bytes,
            map: map.found_in(pool),
        })),
        Ok(_) | Err(SystemError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The pool as its registry copy alone describes it; `None` if there is no readable copy.
pub(crate) fn registry_only(
    opened: &Fd,
    dir: &Path,
    uuid: PoolId,
) -> Result<Option<PoolDescriptor>, SystemError> {
    let copy = read_copy_in(opened, dir, dir, uuid, &[])?;
    Ok(copy.map(|Copy { map, .. }| {
        let present = vec![true; map.ranks.len()];
        Found {
            map,
            present,
            votes: 0,
        }
        .describe(dir)
    }))
}

/// Names of the default rank directories, for a registry copy that is lost.
fn default_ranks(dir: &Path) -> Result<Vec<PathBuf>, SystemError> {
    let names = list_dir(dir)?;
    let ranks = names
        .iter()
        .filter(|name| name.as_bytes().starts_with(b"rank"));
    Ok(ranks.map(|name| dir.join(name)).collect())
}

/// Entries of a directory, sorted.
pub(crate) fn list_dir(dir: &Path) -> Result<Vec<std::ffi::OsString>, SystemError> {
    let io = |e| SystemError::io("read directory", dir, e);
    let opened = open_dir(dir).map_err(io)?;
    let mut buffer = Vec::with_capacity(16 << 10);
    let mut entries = rustix::fs::RawDir::new(&opened, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|e| io(errno(e)))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Reads every copy of a pool's map without demanding a majority.
fn read_all(dir: &Path, uuid: PoolId) -> Result<Found, SystemError> {
    let registry = read_copy(dir, dir, uuid, &[])?;
    let mut copies: Vec<Copy> = Vec::new();
    let registry_counts = registry.is_some();
    copies.extend(registry);
    let candidates = match copies.first() {
        Some(copy) => copy
            .map
            .ranks
            .iter()
            .map(|rank| rank.path.clone())
            .collect(),
        None => default_ranks(dir)?,
    };
    let mut read: Vec<PathBuf> = Vec::new();
    let mut present: Vec<PathBuf> = Vec::new();
    let mut queue: Vec<PathBuf> = candidates;
    // The second turn follows a newer map that names directories the registry did not know.
    for _ in 0..2 {
        for path in queue.drain(..) {
            if let Some(copy) = read_copy(&path, dir, uuid, &copies)? {
                copies.push(copy);
                present.push(path.clone());
            }
            read.push(path);
        }
        if let Some(newest) = newest(&copies) {
            let paths = newest.ranks.iter().map(|rank| &rank.path);
            queue = paths.filter(|path| !read.contains(path)).cloned().collect();
        }
    }
    let map = newest(&copies)
        .cloned()
        .ok_or_else(|| SystemError::Damaged {
            path: dir.join(MAP_NAME),
            why: "no readable copy of the pool map, neither here nor on any rank; copy pool.map from one \
                  of the pool's rank directories (UUID/rankNN below --rank-path) to this place",
        })?;
    let present: Vec<bool> = map
        .ranks
        .iter()
        .map(|rank| present.contains(&rank.path))
        .collect();
    let on_ranks = present.iter().filter(|present| **present).count();
    let even = map.ranks.len().is_multiple_of(2);
    let votes = on_ranks + usize::from(even && registry_counts);
    Ok(Found {
        map,
        present,
        votes,
    })
}

/// The map with the highest version; among several of one version the most frequent.
fn newest(copies: &[Copy]) -> Option<&PoolMap> {
    let weight = |copy: &Copy| {
        copies
            .iter()
            .filter(|other| other.bytes == copy.bytes)
            .count()
    };
    copies
        .iter()
        .max_by_key(|copy| (copy.map.version, weight(copy)))
        .map(|copy| &copy.map)
}

fn read_maps(dir: &Path, uuid: PoolId) -> Result<Found, SystemError> {
    let found = read_all(dir, uuid)?;
    found.require_majority(found.votes)?;
    Ok(found)
}

/// Directories of a pool's ranks as far as any copy of the map names them, for removal.
pub(crate) fn known_rank_paths(dir: &Path, uuid: PoolId) -> Vec<PathBuf> {
    match read_all(dir, uuid) {
        Ok(found) => found.map.ranks.into_iter().map(|rank| rank.path).collect(),
        Err(_) => Vec::new(),
    }
}

impl SystemRoot {
    fn no_pool(&self, name: &Ident) -> SystemError {
        SystemError::NoPool {
            name: name.to_string(),
            root: self.path().to_owned(),
        }
    }

    /// UUID of a label; `Ok(None)` if the label is not taken.
    pub(crate) fn label_uuid(&self, label: &str) -> Result<Option<PoolId>, SystemError> {
        let link = self.label_link(label);
        match rustix::fs::readlink(&link, Vec::new()).map_err(errno) {
            Ok(target) => {
                let name = target
                    .to_bytes()
                    .rsplit(|b| *b == b'/')
                    .next()
                    .unwrap_or_default();
                let uuid = core::str::from_utf8(name)
                    .ok()
                    .and_then(|text| text.parse().ok());
                let why =
                    "not a link to a pool directory; remove it, and name the pool by its UUID";
                uuid.map(Some)
                    .ok_or(SystemError::Damaged { path: link, why })
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(SystemError::io("read link", &link, error)),
        }
    }

    /// The directory of a pool of this system.
    pub(crate) fn pool_dir(&self, uuid: PoolId) -> PathBuf {
        self.pools().join(uuid.to_string())
    }

    /// UUID and directory, by name and opened, of a pool that exists, whatever the state of its map.
    pub(crate) fn resolve(&self, name: &Ident) -> Result<(PoolId, PathBuf, Fd), SystemError> {
        if self.open()?.is_none() {
            return Err(self.no_pool(name));
        }
        let uuid = match name {
            Ident::Uuid(uuid) => PoolId(*uuid),
            Ident::Label(label) => self
                .label_uuid(label.as_str())?
                .ok_or_else(|| self.no_pool(name))?,
        };
        let dir = self.pool_dir(uuid);
        match open_own_dir(&dir, Mode::RWXG | Mode::RWXO) {
            Ok(opened) => Ok((uuid, dir, opened)),
            Err(SystemError::Io {
                errno: Errno::ENOENT,
                ..
            }) => Err(self.no_pool(name)),
            Err(error) => Err(error),
        }
    }

    /// Finds a pool by label or UUID and reads its map.
    ///
    /// Errors: `NoPool`; `NoMajority` or `Damaged` when too few ranks have a readable map;
    /// `NewerFormat`; `ForeignOwner`, `OpenToOthers`, `NetworkFileSystem`.
    pub fn find_pool(&self, name: &Ident) -> Result<PoolDescriptor, SystemError> {
        let (uuid, dir, _) = self.resolve(name)?;
        read_maps(&dir, uuid).map(|found| found.describe(&dir))
    }

    /// Every pool of the system in order of labels; a pool that cannot be read is an error entry.
    pub fn list_pools(&self) -> Result<Vec<Result<PoolDescriptor, SystemError>>, SystemError> {
        if self.open()?.is_none() {
            return Ok(Vec::new());
        }
        let pools = self.pools();
        let names = match list_dir(&pools) {
            Ok(names) => names,
            Err(SystemError::Io {
                errno: Errno::ENOENT,
                ..
            }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let uuids = names
            .iter()
            .filter_map(|name| name.to_str()?.parse::<PoolId>().ok());
        let mut list: Vec<_> = uuids
            .map(|uuid| {
                let dir = self.pool_dir(uuid);
                let found = open_own_dir(&dir, Mode::RWXG | Mode::RWXO)
                    .and_then(|_: Fd| read_maps(&dir, uuid));
                found.map(|found| found.describe(&dir))
            })
            .collect();
        list.sort_by(|a, b| {
            let label = |entry: &Result<PoolDescriptor, SystemError>| {
                entry.as_ref().ok().map(|pool| pool.label.clone())
            };
            label(a).cmp(&label(b))
        });
        Ok(list)
    }
}
