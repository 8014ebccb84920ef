//! Random calls, and what they ask for.

use crate::common::ROOT;
use crate::model::{Found, History, Model, Node, Tree, Version};
use dfs::{Dfs, Ino, IoVec, Ofd};
use engine::Pool;
use engine::testing::{Dice, tape};
use std::collections::BTreeMap;
use std::rc::Rc;

const O_RDWR: u32 = 2;
/// Where the number of the caller begins in a mark.
pub(crate) const CALLER_AT: u32 = 32;

/// Where the calls are made.
pub(crate) struct Place {
    pub(crate) dfs: Dfs,
    pub(crate) pool: &'static Pool,
    /// The directory that is the calls' own.
    pub(crate) dir: Ino,
}

/// Random calls of one caller.
pub(crate) struct Calls {
    pub(crate) dice: Dice,
    /// `None`: only what they ask for is wanted.
    place: Option<Place>,
    pub(crate) model: Model,
    tree: Tree,
    call: usize,
    /// Bits above the number of the call in marks and in what is written.
    caller: u64,
    /// What each call was, for a failure's message.
    pub(crate) told: Vec<String>,
}

impl Calls {
    pub(crate) fn new(place: Option<Place>, dice: Dice, caller: u64) -> Calls {
        let model = Model {
            trees: vec![Rc::new(Tree::new())],
            ..Model::default()
        };
        Calls {
            dice,
            place,
            model,
            tree: Tree::new(),
            call: 0,
            caller: caller << CALLER_AT,
            told: vec![String::new()],
        }
    }

    /// Calls about what was found after a power failure: all of it is brought to the devices first, file by
    /// file, as programs do that go on.
    pub(crate) fn after_power_failure(
        place: Place,
        dice: Dice,
        found: &BTreeMap<String, Found>,
        before: &Model,
    ) -> Calls {
        let mut calls = Calls::new(Some(place), dice, 0);
        calls.model.in_place = before.in_place;
        for (path, found) in found {
            let node = match found {
                Found::Dir => Node::Dir,
                Found::File(content) => {
                    calls.act(|to| to.with_open(path, |ofd| to.dfs.fsync(ofd).expect("fsync")));
                    calls.model.files.push(History::default());
                    let file = calls.model.files.len() - 1;
                    calls.changed(file, content.to_vec());
                    if before.in_place {
                        for earlier in before.files_at(path) {
                            calls.model.files[file].note_behind_end(earlier);
                        }
                    }
                    Node::File(file)
                }
            };
            calls.tree.insert(path.clone(), node);
        }
        calls.model.trees = vec![Rc::new(calls.tree.clone())];
        calls.told = vec!["after a power failure".into()];
        calls
    }

    /// What a process does at its end.
    pub(crate) fn end(&self) {
        self.act(|to| to.pool.prove().expect("prove"));
    }

    /// Makes no more calls there; the directory.
    pub(crate) fn leave(&mut self) -> Ino {
        let place = self.place.take().expect("a place");
        place.pool.leave().expect("leave");
        place.dir
    }

    /// Brings the log to all its places: the rank that has it is about to go.
    pub(crate) fn spread_log(&self) {
        let place = self.place.as_ref().expect("a place");
        place.pool.sync_names().expect("names");
    }

    /// Makes the next calls elsewhere, where the same files are.
    pub(crate) fn go_on(&mut self, place: Place, why: &str) {
        self.tell(format!(", {why}"));
        self.place = Some(place);
    }

    /// One call.
    pub(crate) fn step(&mut self) {
        self.call += 1;
        self.told.push(String::new());
        match self.dice.below(42) {
            0..=5 => self.create(),
            6..=7 => self.mkdir(),
            8..=15 => self.write(1 << 14),
            16..=19 => self.append(),
            20..=21 => self.write(200 << 10),
            22 => self.write(1 << 20),
            23..=24 => self.truncate(),
            25..=26 => self.unlink(),
            27..=29 => self.rename(),
            30..=31 => self.space(),
            32..=35 => self.fsync(),
            36 => self.fsync_names(),
            37 => self.sync(),
            38 => self.checkpoint(),
            39..=40 => self.prove(),
            _ => self.overwrite_again(),
        }
        let tree = match self.model.trees.last() {
            Some(last) if **last == self.tree => last.clone(),
            _ => Rc::new(self.tree.clone()),
        };
        self.model.trees.push(tree);
        if self.place.is_some() {
            tape::mark(self.caller | self.call as u64);
        }
    }

    fn tell(&mut self, text: String) {
        if let Some(last) = self.told.last_mut() {
            last.push_str(&text);
        }
    }

    /// Does something where the calls are made.
    fn act(&self, call: impl FnOnce(&Place)) {
        if let Some(place) = &self.place {
            call(place);
        }
    }

    fn any(&mut self, file: bool) -> Option<(String, Node)> {
        let fits = |node: &Node| matches!(node, Node::File(_)) == file;
        let all: Vec<_> = self.tree.iter().filter(|(_, node)| fits(node)).collect();
        let index = self.dice.below(all.len());
        all.get(index).map(|(name, node)| ((*name).clone(), **node))
    }

    fn any_file(&mut self) -> Option<(String, usize)> {
        match self.any(true) {
            Some((name, Node::File(file))) => Some((name, file)),
            _ => None,
        }
    }

    /// A name in some directory, taken or not.
    fn name(&mut self) -> String {
        let name = format!("n{}", self.dice.below(24));
        match self.any(false) {
            Some((dir, _)) if self.dice.below(2) == 0 => format!("{dir}/{name}"),
            _ => name,
        }
    }

    fn create(&mut self) {
        let path = self.name();
        if self.tree.contains_key(&path) {
            return;
        }
        self.act(|to| {
            let (dir, name) = to.parent(&path);
            let made = to.dfs.create(&ROOT, dir, name, 0o644, true);
            made.expect("create");
        });
        self.tell(format!("create {path}: file {}", self.model.files.len()));
        self.tree.insert(path, Node::File(self.model.files.len()));
        self.model.files.push(History::default());
        self.changed(self.model.files.len() - 1, Vec::new());
    }

    fn mkdir(&mut self) {
        let path = self.name();
        if self.tree.contains_key(&path) || path.matches('/').count() > 2 {
            return;
        }
        self.act(|to| {
            let (dir, name) = to.parent(&path);
            to.dfs.mkdir(&ROOT, dir, name, 0o755).expect("mkdir");
        });
        self.tell(format!("mkdir {path}"));
        self.tree.insert(path, Node::Dir);
    }

    fn changed(&mut self, file: usize, content: Vec<u8>) {
        self.model.files[file].versions.push(Version {
            call: self.call,
            content: Rc::new(content),
        });
    }

    /// Bytes that no other call writes.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let tag = (self.caller >> 8 | self.call as u64) << 32;
        let words = (0..len as u64 / 8 + 1).flat_map(|i| (tag | i | 1 << 63).to_le_bytes());
        words.take(len).collect()
    }

    fn store(&mut self, path: &str, file: usize, pos: usize, len: usize) {
        self.tell(format!("write {path} (file {file}) {pos}+{len} "));
        let bytes = self.bytes(len);
        self.act(|to| {
            to.with_open(path, |ofd| {
                let iov = [IoVec {
                    base: bytes.as_ptr().cast_mut(),
                    len,
                }];
                // SAFETY: the buffer is only read.
                let wrote = unsafe { to.dfs.pwrite(ofd, &iov, pos as i64, false) };
                assert_eq!(wrote, Ok(len), "write to {path}");
            });
        });
        let mut content = (*self.model.files[file].now()).clone();
        if content.len() < pos + len {
            content.resize(pos + len, 0);
        }
        content[pos..pos + len].copy_from_slice(&bytes);
        self.changed(file, content);
    }

    fn write(&mut self, most: usize) {
        let Some((path, file)) = self.any_file() else {
            return self.create();
        };
        let size = self.model.files[file].now().len();
        let pos = self.dice.below((size + 8192).min(1 << 20));
        let pos = if self.dice.below(2) == 0 {
            pos / 4096 * 4096
        } else {
            pos
        };
        let len = self.dice.below(most) + 1;
        self.store(&path, file, pos, len);
    }

    fn append(&mut self) {
        let Some((path, file)) = self.any_file() else {
            return self.create();
        };
        let size = self.model.files[file].now().len();
        let len = [100, 512, 4096, 5000][self.dice.below(4)];
        self.store(&path, file, size, len);
    }

    /// The same block over and over.
    fn overwrite_again(&mut self) {
        let Some((path, file)) = self.any_file() else {
            return self.create();
        };
        for _ in 0..4 {
            self.store(&path, file, 0, 4096);
        }
    }

    fn truncate(&mut self) {
        let Some((path, file)) = self.any_file() else {
            return self.create();
        };
        let mut content = (*self.model.files[file].now()).clone();
        let size = self.dice.below(content.len() + 4096);
        self.tell(format!("truncate {path} (file {file}) {size}"));
        self.act(|to| {
            let cut = to.dfs.truncate(&ROOT, to.ino(&path), size as u64);
            cut.expect("truncate");
        });
        content.resize(size, 0);
        self.changed(file, content);
    }

    fn unlink(&mut self) {
        let Some((path, file)) = self.any_file() else {
            return self.create();
        };
        self.tell(format!("unlink {path} (file {file})"));
        self.act(|to| {
            let (dir, name) = to.parent(&path);
            to.dfs.unlink(&ROOT, dir, name).expect("unlink");
        });
        self.tree.remove(&path);
    }

    fn rename(&mut self) {
        let Some((from, file)) = self.any_file() else {
            return self.create();
        };
        let to = self.name();
        if self.tree.get(&to) == Some(&Node::Dir) || to == from {
            return;
        }
        self.tell(format!("rename {from} (file {file}) to {to}"));
        self.act(|place| {
            let (from_dir, from_name) = place.parent(&from);
            let (to_dir, to_name) = place.parent(&to);
            let renamed = place
                .dfs
                .rename(&ROOT, from_dir, from_name, to_dir, to_name, 0);
            renamed.expect("rename");
        });
        self.tree.remove(&from);
        self.tree.insert(to, Node::File(file));
    }

    /// Space given in advance, holes, zeros.
    fn space(&mut self) {
        const KEEP_SIZE: u32 = 1;
        const PUNCH: u32 = 3;
        const ZERO: u32 = 0x11;
        let Some((path, file)) = self.any_file() else {
            return self.create();
        };
        let mode = [KEEP_SIZE, PUNCH, ZERO][self.dice.below(3)];
        let mut content = (*self.model.files[file].now()).clone();
        let off = self.dice.below(content.len() + 4096);
        let len = self.dice.below(40_000) + 1;
        self.tell(format!(
            "fallocate {path} (file {file}) mode {mode} {off}+{len}"
        ));
        self.act(|to| {
            to.with_open(&path, |ofd| {
                let done = to.dfs.fallocate(ofd, mode, off as i64, len as i64);
                done.expect("fallocate");
            });
        });
        if mode != KEEP_SIZE {
            let end = (off + len).min(content.len());
            if off < end {
                content[off..end].fill(0);
            }
        }
        self.changed(file, content);
    }

    fn fsync(&mut self) {
        let Some((path, file)) = self.any_file() else {
            return self.create();
        };
        self.tell(format!("fsync {path} (file {file})"));
        self.act(|to| to.with_open(&path, |ofd| to.dfs.fsync(ofd).expect("fsync")));
        self.model.files[file].synced.push(self.call);
        self.model.synced.push(self.call);
    }

    fn fsync_names(&mut self) {
        self.tell("fsync of the root".into());
        self.act(|to| {
            let ofd = to.dfs.open(&ROOT, to.dir, 0).expect("open");
            to.dfs.fsync(ofd).expect("fsync");
            to.dfs.ofd_release(ofd).expect("release");
        });
        self.model.synced.push(self.call);
    }

    fn all_synced(&mut self) {
        for file in &mut self.model.files {
            file.synced.push(self.call);
        }
        self.model.synced.push(self.call);
    }

    fn sync(&mut self) {
        self.tell("sync".into());
        self.act(|to| to.dfs.sync().expect("sync"));
        self.all_synced();
    }

    /// As a process does that ends.
    fn prove(&mut self) {
        self.tell("prove".into());
        self.end();
        self.model.proved.push(self.call);
    }

    fn checkpoint(&mut self) {
        self.tell("checkpoint".into());
        self.act(|to| to.pool.checkpoint().expect("checkpoint"));
        self.all_synced();
    }
}

impl Place {
    fn ino(&self, path: &str) -> Ino {
        path.split('/').fold(self.dir, |dir, name| {
            self.dfs.lookup(&ROOT, dir, name.as_bytes()).expect("name")
        })
    }

    fn parent<'n>(&self, path: &'n str) -> (Ino, &'n [u8]) {
        match path.rsplit_once('/') {
            Some((dir, name)) => (self.ino(dir), name.as_bytes()),
            None => (self.dir, path.as_bytes()),
        }
    }

    fn with_open(&self, path: &str, call: impl FnOnce(Ofd)) {
        let ofd = self.dfs.open(&ROOT, self.ino(path), O_RDWR).expect("open");
        call(ofd);
        self.dfs.ofd_release(ofd).expect("release");
    }
}
