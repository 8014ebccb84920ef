//! The pool map: which ranks a pool has, where they are and in what state. Text, so that a person
//! can read it; checksummed; one copy on every rank and one in the registry.

use crate::system::{SystemError, checksum};
use daos_types::{Label, PoolId, escape, unescape};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Newest format read and written here.
pub const MAP_FORMAT: u32 = 2;
/// The format in which all ranks were named by their full paths.
const FULL_PATHS: u32 = 1;
/// Name of the file in a rank directory and in the registry.
pub const MAP_NAME: &str = "pool.map";
/// Largest file accepted, in bytes.
pub(crate) const MAP_BYTES_MAX: usize = 512 << 10;

const MAGIC: &str = "DAOS-EMBEDDED-POOL";

/// State of a rank in the pool map; the words are those of `query-targets`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RankState {
    /// In service.
    UpIn,
    /// Coming back, being rebuilt.
    Up,
    /// Failed or excluded; its data is being rebuilt elsewhere.
    Down,
    /// Excluded and rebuilt.
    DownOut,
    /// Still serving while its data is moved off.
    Drain,
    /// Added, not yet in service.
    New,
}

const STATES: [(RankState, &str); 6] = [
    (RankState::UpIn, "up_in"),
    (RankState::Up, "up"),
    (RankState::Down, "down"),
    (RankState::DownOut, "down_out"),
    (RankState::Drain, "drain"),
    (RankState::New, "new"),
];

impl RankState {
    /// The word users see.
    pub fn name(self) -> &'static str {
        STATES
            .iter()
            .find(|(state, _)| *state == self)
            .map_or("unknown", |(_, name)| name)
    }

    fn parse(name: &str) -> Option<RankState> {
        STATES
            .iter()
            .find(|(_, text)| *text == name)
            .map(|(state, _)| *state)
    }

    /// Whether data of the rank may be used.
    pub fn serves(self) -> bool {
        matches!(self, RankState::UpIn | RankState::Drain)
    }
}

/// One rank of the map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapRank {
    /// Number of the rank.
    pub rank: u16,
    /// State.
    pub state: RankState,
    /// Absolute path of its directory; on file, of a rank below the pool's directory the name alone,
    /// so that a copy of the directory has ranks of its own.
    pub path: PathBuf,
}

/// The pool map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolMap {
    /// The pool.
    pub uuid: PoolId,
    /// Its label.
    pub label: Label,
    /// Version of the map; grows by one with every change.
    pub version: u64,
    /// Size of the pool in bytes over all ranks.
    pub size_bytes: u64,
    /// Time of creation, nanoseconds since the Unix epoch.
    pub created_ns: i64,
    /// Whether space was preallocated.
    pub reserved: bool,
    /// Targets on each rank.
    pub targets_per_rank: u16,
    /// The ranks, in order of their numbers.
    pub ranks: Vec<MapRank>,
    /// User-defined attributes of the pool.
    pub attrs: Vec<(String, Vec<u8>)>,
}

/// A word without blanks.
fn word(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    escape(bytes, b" ", &mut out);
    out
}

impl PoolMap {
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!(
            "{MAGIC} {MAP_FORMAT}\nuuid {}\nlabel {}\nversion {}\nsize {}\ncreated {}\n\
             reserved {}\ntargets_per_rank {}\n",
            self.uuid,
            self.label,
            self.version,
            self.size_bytes,
            self.created_ns,
            u8::from(self.reserved),
            self.targets_per_rank
        );
        for rank in &self.ranks {
            let path = word(rank.path.as_os_str().as_bytes());
            out.push_str(&format!(
                "rank {} {} {path}\n",
                rank.rank,
                rank.state.name()
            ));
        }
        for (name, value) in &self.attrs {
            out.push_str(&format!("attr {} {}\n", word(name.as_bytes()), word(value)));
        }
        let crc = checksum(out.as_bytes());
        out.push_str(&format!("crc32 {crc:08x}\n"));
        out.into_bytes()
    }

    /// Reads a file's bytes; `path` only names the file in errors.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<PoolMap, SystemError> {
        let damaged = |why| SystemError::Damaged {
            path: path.to_owned(),
            why,
        };
        let first = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
        let format = core::str::from_utf8(first)
            .ok()
            .and_then(|line| {
                line.strip_prefix(MAGIC)?
                    .strip_prefix(' ')?
                    .parse::<u32>()
                    .ok()
            })
            .ok_or_else(|| damaged("not a pool map"))?;
        if format > MAP_FORMAT {
            let path = path.to_owned();
            return Err(SystemError::NewerFormat {
                path,
                found: format,
                known: MAP_FORMAT,
            });
        }
        let text = core::str::from_utf8(bytes).map_err(|_| damaged("not text"))?;
        let at = text.rfind("crc32 ").ok_or_else(|| damaged("no checksum"))?;
        let (body, trailer) = text.split_at(at);
        let sum = trailer
            .trim_end()
            .strip_prefix("crc32 ")
            .unwrap_or_default();
        if u32::from_str_radix(sum, 16) != Ok(checksum(body.as_bytes())) {
            return Err(damaged("checksum mismatch"));
        }
        parse_body(body, format).ok_or_else(|| damaged("malformed line"))
    }

    /// The map as it is on file, for the pool of the directory `dir`.
    pub(crate) fn named_in(mut self, dir: &Path) -> PoolMap {
        for rank in &mut self.ranks {
            if let Ok(name) = rank.path.strip_prefix(dir) {
                rank.path = name.to_owned();
            }
        }
        self
    }

    /// The reverse: names of ranks become paths.
    pub(crate) fn found_in(mut self, dir: &Path) -> PoolMap {
        for rank in &mut self.ranks {
            rank.path = dir.join(&rank.path);
        }
        self
    }

    /// Targets of the pool.
    pub fn targets(&self) -> u32 {
        self.ranks.len() as u32 * u32::from(self.targets_per_rank)
    }

    /// Copies that must be readable and agree: a majority of the ranks; the registry's copy
    /// votes as well where the number of ranks is even, so that one of two ranks may be lost.
    pub(crate) fn majority(&self) -> usize {
        self.ranks.len() / 2 + 1
    }
}

/// Whether a path names a rank below the pool's directory.
fn is_rank_name(path: &Path) -> bool {
    let mut parts = path.components();
    let name = match parts.next() {
        Some(Component::Normal(name)) => name.as_bytes(),
        _ => return false,
    };
    parts.next().is_none() && name.starts_with(b"rank")
}

/// The name of a rank that has its full path and lies below a pool's directory.
fn own_name(path: &Path, uuid: PoolId) -> Option<&Path> {
    let parent = path.parent()?;
    let own = parent.ends_with(Path::new("pools").join(uuid.to_string()));
    own.then(|| path.file_name().map(Path::new)).flatten()
}

fn parse_body(body: &str, format: u32) -> Option<PoolMap> {
    let mut lines = body.lines().skip(1);
    let mut field = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
    let mut map = PoolMap {
        uuid: field("uuid")?.parse().ok()?,
        label: field("label")?.parse().ok()?,
        version: field("version")?.parse().ok()?,
        size_bytes: field("size")?.parse().ok()?,
        created_ns: field("created")?.parse().ok()?,
        reserved: field("reserved")? == "1",
        targets_per_rank: field("targets_per_rank")?.parse().ok()?,
        ranks: Vec::new(),
        attrs: Vec::new(),
    };
    for line in lines {
        let mut words = line.split(' ');
        match words.next()? {
            "rank" => {
                let rank: u16 = words.next()?.parse().ok()?;
                let state = RankState::parse(words.next()?)?;
                let mut path = PathBuf::from(OsString::from_vec(unescape(words.next()?)?));
                if format <= FULL_PATHS
                    && let Some(name) = own_name(&path, map.uuid)
                {
                    path = name.to_owned();
                }
                let named = path.is_absolute() || is_rank_name(&path);
                if usize::from(rank) != map.ranks.len() || !named {
                    return None;
                }
                map.ranks.push(MapRank { rank, state, path });
            }
            "attr" => {
                let name = String::from_utf8(unescape(words.next()?)?).ok()?;
                map.attrs.push((name, unescape(words.next()?)?));
            }
            _ => return None,
        }
    }
    let sound = !map.ranks.is_empty() && map.targets_per_rank > 0;
    sound.then_some(map)
}
