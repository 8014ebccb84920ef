//! What was asked for: the tree after each call, every version of every file, and what was synced.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub(crate) const SECTOR: usize = 512;
/// Unit of space.
const BLOCK: usize = 4096;

/// What a name leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    Dir,
    /// Number of the file in [`Model::files`].
    File(usize),
}

pub(crate) type Tree = BTreeMap<String, Node>;

/// A file's content from a call on.
pub(crate) struct Version {
    pub(crate) call: usize,
    pub(crate) content: Rc<Vec<u8>>,
}

#[derive(Default)]
pub(crate) struct History {
    pub(crate) versions: Vec<Version>,
    /// Calls that made the file's data durable.
    pub(crate) synced: Vec<usize>,
    /// The first version, and behind its end what writes had stored there that a power failure took
    /// back: in a class of one copy it is still in the block, and is seen again when a write that went
    /// over it is lost but its size is not. A sync changes nothing of that while the file has that end.
    pub(crate) behind_end: Vec<Rc<Vec<u8>>>,
}

impl History {
    pub(crate) fn now(&self) -> Rc<Vec<u8>> {
        let last = self.versions.last();
        last.map_or_else(|| Rc::new(Vec::new()), |version| version.content.clone())
    }

    /// The content as call `call` left it; empty before the file was made.
    pub(crate) fn at(&self, call: usize) -> Rc<Vec<u8>> {
        let before = self.versions.iter().rev().find(|v| v.call <= call);
        before.map_or_else(|| Rc::new(Vec::new()), |version| version.content.clone())
    }

    /// Notes what had been in a file, by any of its versions, behind the end that it has now.
    pub(crate) fn note_behind_end(&mut self, earlier: &History) {
        let found = self.now();
        let end = found.len().next_multiple_of(BLOCK);
        for version in &earlier.versions {
            let Some(behind) = version.content.get(found.len()..) else {
                continue;
            };
            let mut content = (*found).clone();
            content.extend(behind.iter().take(end - found.len()));
            self.behind_end.push(Rc::new(content));
        }
    }

    /// Whether the file has never had another end than the first, up to call `call`.
    fn has_first_end(&self, call: usize) -> bool {
        let end = self.at(0).len();
        let versions = self.versions.iter();
        let mut until = versions.take_while(|version| version.call <= call);
        until.all(|version| version.content.len() == end)
    }

    fn synced_before(&self, done: usize) -> usize {
        let calls = self.synced.iter().rev();
        calls.copied().find(|call| *call <= done).unwrap_or(0)
    }
}

/// Everything that was asked for.
#[derive(Default)]
pub(crate) struct Model {
    /// The tree after each call; the first one is that before the first call.
    pub(crate) trees: Vec<Rc<Tree>>,
    pub(crate) files: Vec<History>,
    /// Calls that made all names and sizes durable.
    pub(crate) synced: Vec<usize>,
    /// Calls that put checksums of all data into the log.
    pub(crate) proved: Vec<usize>,
    /// Data is overwritten where it lies: it can be there before the names of its time are.
    pub(crate) in_place: bool,
}

/// What was found after a power failure.
#[derive(Clone)]
pub(crate) enum Found {
    Dir,
    File(Rc<[u8]>),
}

impl Model {
    /// Files that a path led to at some time.
    pub(crate) fn files_at(&self, path: &str) -> impl Iterator<Item = &History> {
        let led_to = self.trees.iter().filter_map(|tree| match tree.get(path) {
            Some(Node::File(file)) => Some(*file),
            _ => None,
        });
        let files: BTreeSet<usize> = led_to.collect();
        files.into_iter().map(|file| &self.files[file])
    }

    /// Compares what was found when call `done` was the last to return; the next one may have begun.
    /// An error says what is wrong.
    ///
    /// With `kept`, all that had been written reached the devices.
    pub(crate) fn compare(
        &self,
        done: usize,
        kept: bool,
        found: &BTreeMap<String, Found>,
    ) -> Result<(), String> {
        let last = (done + 1).min(self.trees.len() - 1);
        let safe = self.synced.iter().rev().copied().find(|call| *call <= done);
        let safe = safe.unwrap_or(0);
        let mut problems = String::new();
        for call in (safe..=last).rev() {
            let newest = if self.in_place { last } else { call };
            let compared = self
                .compare_tree(call, found)
                .and_then(|()| self.compare_contents(done, kept, (call, newest), found));
            match compared {
                Ok(()) => return Ok(()),
                // A name may have been another file's before, of a size that this one could have.
                Err(problem) => problems += &format!("\n  not as after call {call}: {problem}"),
            }
        }
        Err(format!("no state of calls {safe}..={last}{problems}"))
    }

    /// Whether names and sizes are those after a call, or while it was at work on a file.
    fn compare_tree(&self, call: usize, found: &BTreeMap<String, Found>) -> Result<(), String> {
        let tree = &self.trees[call];
        if let Some(name) = tree.keys().find(|name| !found.contains_key(*name)) {
            return Err(format!("{name} is missing"));
        }
        for (name, found) in found {
            let node = tree
                .get(name)
                .ok_or_else(|| format!("{name} should not be"))?;
            match (node, found) {
                (Node::Dir, Found::Dir) => {}
                (Node::File(file), Found::File(content)) => {
                    let history = &self.files[*file];
                    let before = history.at(call.saturating_sub(1)).len();
                    let after = history.at(call).len();
                    let (least, most) = (before.min(after), before.max(after));
                    let size = content.len();
                    if size < least || size > most {
                        return Err(format!("{name}: {size} bytes, not {least}..={most}"));
                    }
                }
                _ => return Err(format!("{name} is of another type")),
            }
        }
        Ok(())
    }

    /// Whether every sector is of a version since the file was last synced.
    fn compare_contents(
        &self,
        done: usize,
        kept: bool,
        (call, newest): (usize, usize),
        found: &BTreeMap<String, Found>,
    ) -> Result<(), String> {
        for (name, found) in found {
            let (Some(Node::File(file)), Found::File(content)) =
                (self.trees[call].get(name), found)
            else {
                continue;
            };
            let history = &self.files[*file];
            let mut safe = history.synced_before(done);
            // What comes after may make it fall back behind the proof.
            let changes = history.versions.iter().any(|v| v.call == done + 1);
            if kept && !changes && !self.in_place && self.proved.contains(&done) {
                safe = done;
            }
            let mut allowed = vec![history.at(safe)];
            let later = history.versions.iter();
            let later = later.filter(|version| version.call > safe && version.call <= newest);
            allowed.extend(later.map(|version| version.content.clone()));
            if history.has_first_end(safe) {
                allowed.extend(history.behind_end.iter().cloned());
            }
            for (index, sector) in content.chunks(SECTOR).enumerate() {
                let at = index * SECTOR;
                let whole = allowed.iter().any(|version| same(version, at, sector));
                let half = self.in_place && is_half_done(&allowed, at, sector);
                if !(whole || half) {
                    return Err(format!(
                        "{name} (file {file}), byte {at}: {:?} is of none of the {} versions of calls \
                         {safe}..={call}; {}",
                        &sector[..8.min(sector.len())],
                        allowed.len(),
                        self.whose(sector, at),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whose bytes these are, for a failure's message.
    fn whose(&self, sector: &[u8], at: usize) -> String {
        for (file, history) in self.files.iter().enumerate() {
            for version in &history.versions {
                if same(&version.content, at, sector) {
                    return format!("they are file {file}'s after call {}", version.call);
                }
                let chunks = version.content.chunks(SECTOR);
                if let Some(n) = chunks
                    .enumerate()
                    .find(|(_, c)| *c == sector)
                    .map(|(n, _)| n)
                {
                    return format!(
                        "they are file {file}'s after call {}, byte {}",
                        version.call,
                        n * SECTOR
                    );
                }
            }
        }
        "they are nobody's".into()
    }
}

/// Whether these bytes are one version's up to some byte, and another's from there on: a block that
/// was given space is zeroed around what is stored into it, by a store of its own.
fn is_half_done(versions: &[Rc<Vec<u8>>], at: usize, bytes: &[u8]) -> bool {
    let agree = |version: &Rc<Vec<u8>>, from: usize| {
        let byte = |i: usize| version.get(at + i).copied().unwrap_or(0);
        let mut places = (0..bytes.len()).map(|n| from.abs_diff(n));
        let differs = places.position(|i| byte(i) != bytes[i]);
        differs.unwrap_or(bytes.len())
    };
    let first = versions.iter().map(|version| agree(version, 0)).max();
    let rest = versions
        .iter()
        .map(|version| agree(version, bytes.len() - 1))
        .max();
    first.unwrap_or(0) + rest.unwrap_or(0) >= bytes.len()
}

/// Whether a version, zeros behind its end, holds these bytes there.
fn same(version: &[u8], at: usize, bytes: &[u8]) -> bool {
    (0..bytes.len()).all(|i| version.get(at + i).copied().unwrap_or(0) == bytes[i])
}
