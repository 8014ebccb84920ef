//! A run of random calls, and what is left of it after power failures.

use crate::common::{Container, ROOT, list};
use crate::model::{Found, History, Model, Node, Tree, Version};
use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Dfs, Ino, IoVec, Ofd};
use engine::testing::{self, Disk, Event, Fate, TempPool, tape};
use engine::{ContainerInfo, Pool};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Calls of one run.
const CALLS: usize = 160;
const O_RDWR: u32 = 2;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// The run of one seed.
struct Run {
    dice: Dice,
    dfs: Dfs,
    pool: &'static Pool,
    model: Model,
    tree: Tree,
    call: usize,
    /// What each call was, for a failure's message.
    told: Vec<String>,
}

/// Plays a seed and looks at `count` points of it, or at one.
pub(crate) fn play(seed: u64, count: usize, only: Option<usize>) {
    testing::stop_clock(1_700_000_000_000_000_000);
    let base = PathBuf::from("/dev/shm");
    let mut dice = Dice(seed);
    let ring = [512 << 10, 1 << 20, 2 << 20][dice.below(3)];
    let temp = TempPool::with_log(&base, 3, 24, ring);
    let classes = [
        (Redundancy::Replicas(2), GROUPS_MAX),
        (Redundancy::Replicas(3), 1),
        (Redundancy::Replicas(1), 1),
        (Redundancy::Replicas(1), GROUPS_MAX),
    ];
    let (redundancy, groups) = classes[dice.below(classes.len())];
    let class = ObjectClass::new(redundancy, groups).expect("class");
    let mut run = Run::new(&temp, class.id(), dice);
    run.model.in_place = redundancy == Redundancy::Replicas(1);
    temp.pool.sync().expect("sync");
    let mut disk = Disk::new(&temp.pool.spec().ranks);
    tape::start(&temp.pool.spec().ranks);
    for _ in 0..CALLS {
        run.step();
    }
    let events = tape::stop();
    let images = base.join(format!("pil4dfs-image-{}", std::process::id()));
    let mut points: Vec<usize> = match only {
        Some(point) => vec![point],
        None => (0..count)
            .map(|_| run.dice.below(events.len() + 1))
            .collect(),
    };
    points.sort_unstable();
    let (mut at, mut done) = (0, 0);
    for point in points {
        while at < point {
            if let Event::Note(call) = events[at] {
                done = call as usize;
            }
            disk.step(&events[at]);
            at += 1;
        }
        let mut dice = Dice(seed << 32 ^ point as u64);
        let cut = Cut {
            model: &run.model,
            spec: temp.pool.spec(),
            info: run.dfs_info(),
            images: &images,
            done,
        };
        let checked = catch_unwind(AssertUnwindSafe(|| cut.look(&disk, &mut dice, true)));
        std::fs::remove_dir_all(&images).expect("images");
        if checked.is_err() {
            let calls = run.told.iter().enumerate().take(done + 2);
            calls.for_each(|(call, told)| println!("call {call}: {told}"));
            panic!(
                "PIL4DFS_POWER_ONLY={seed}:{point} repeats this; {} events, call {done} done",
                events.len()
            );
        }
    }
}

impl Run {
    fn new(temp: &TempPool, class: u32, dice: Dice) -> Run {
        let info = Container::of_class(temp.pool, "c", class);
        let model = Model {
            trees: vec![Rc::new(Tree::new())],
            ..Model::default()
        };
        Run {
            dice,
            dfs: Dfs::mount(temp.pool, &info).expect("mount"),
            pool: temp.pool,
            model,
            tree: Tree::new(),
            call: 0,
            told: vec![String::new()],
        }
    }

    fn dfs_info(&self) -> ContainerInfo {
        self.pool.find_container("c").expect("container")
    }

    /// One call.
    fn step(&mut self) {
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
        tape::mark(self.call as u64);
    }

    fn tell(&mut self, text: String) {
        if let Some(last) = self.told.last_mut() {
            last.push_str(&text);
        }
    }

    fn ino(&self, path: &str) -> Ino {
        path.split('/').fold(self.dfs.root(), |dir, name| {
            self.dfs.lookup(&ROOT, dir, name.as_bytes()).expect("name")
        })
    }

    fn parent<'n>(&self, path: &'n str) -> (Ino, &'n [u8]) {
        match path.rsplit_once('/') {
            Some((dir, name)) => (self.ino(dir), name.as_bytes()),
            None => (self.dfs.root(), path.as_bytes()),
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
        let (dir, name) = self.parent(&path);
        self.dfs
            .create(&ROOT, dir, name, 0o644, true)
            .expect("create");
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
        let (dir, name) = self.parent(&path);
        self.dfs.mkdir(&ROOT, dir, name, 0o755).expect("mkdir");
        self.tell(format!("mkdir {path}"));
        self.tree.insert(path, Node::Dir);
    }

    fn changed(&mut self, file: usize, content: Vec<u8>) {
        self.model.files[file].versions.push(Version {
            call: self.call,
            content: Rc::new(content),
        });
    }

    fn open(&self, path: &str) -> Ofd {
        self.dfs.open(&ROOT, self.ino(path), O_RDWR).expect("open")
    }

    /// Bytes that no other call writes.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let tag = (self.call as u64) << 32;
        let words = (0..len as u64 / 8 + 1).flat_map(|i| (tag | i | 1 << 63).to_le_bytes());
        words.take(len).collect()
    }

    fn store(&mut self, path: &str, file: usize, pos: usize, len: usize) {
        self.tell(format!("write {path} (file {file}) {pos}+{len} "));
        let bytes = self.bytes(len);
        let ofd = self.open(path);
        let iov = [IoVec {
            base: bytes.as_ptr().cast_mut(),
            len,
        }];
        // SAFETY: the buffer is only read.
        let wrote = unsafe { self.dfs.pwrite(ofd, &iov, pos as i64, false) };
        assert_eq!(wrote, Ok(len), "write to {path}");
        self.dfs.ofd_release(ofd).expect("release");
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
        self.dfs
            .truncate(&ROOT, self.ino(&path), size as u64)
            .expect("truncate");
        content.resize(size, 0);
        self.changed(file, content);
    }

    fn unlink(&mut self) {
        let Some((path, file)) = self.any_file() else {
            return self.create();
        };
        self.tell(format!("unlink {path} (file {file})"));
        let (dir, name) = self.parent(&path);
        self.dfs.unlink(&ROOT, dir, name).expect("unlink");
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
        let (from_dir, from_name) = self.parent(&from);
        let (to_dir, to_name) = self.parent(&to);
        self.dfs
            .rename(&ROOT, from_dir, from_name, to_dir, to_name, 0)
            .expect("rename");
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
        let ofd = self.open(&path);
        self.dfs
            .fallocate(ofd, mode, off as i64, len as i64)
            .expect("fallocate");
        self.dfs.ofd_release(ofd).expect("release");
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
        let ofd = self.open(&path);
        self.dfs.fsync(ofd).expect("fsync");
        self.dfs.ofd_release(ofd).expect("release");
        self.model.files[file].synced.push(self.call);
        self.model.synced.push(self.call);
    }

    fn fsync_names(&mut self) {
        self.tell("fsync of the root".into());
        let ofd = self.dfs.open(&ROOT, self.dfs.root(), 0).expect("open");
        self.dfs.fsync(ofd).expect("fsync");
        self.dfs.ofd_release(ofd).expect("release");
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
        self.dfs.sync().expect("sync");
        self.all_synced();
    }

    /// As a process does that ends.
    fn prove(&mut self) {
        self.tell("prove".into());
        self.pool.prove().expect("prove");
        self.model.proved.push(self.call);
    }

    fn checkpoint(&mut self) {
        self.tell("checkpoint".into());
        self.pool.checkpoint().expect("checkpoint");
        self.all_synced();
    }
}

/// A power failure.
struct Cut<'a> {
    model: &'a Model,
    spec: &'a engine::PoolSpec,
    info: ContainerInfo,
    images: &'a Path,
    /// The last call that had returned.
    done: usize,
}

impl Cut<'_> {
    /// Recovers what is left, compares, and lets the power fail again during that.
    fn look(&self, disk: &Disk, dice: &mut Dice, again: bool) {
        let fate = crate::FATES[dice.below(crate::FATES.len())];
        let image = self.images.join(format!("{again}"));
        std::fs::create_dir_all(&image).expect("image");
        disk.fail(&image, fate, dice.next());
        let ranks: Vec<PathBuf> = (0..3).map(|r| image.join(format!("rank{r:02}"))).collect();
        // A rank may be lost with it; nothing is, of a redundant class.
        let whole = ranks.iter().all(|rank| rank.join("data").exists());
        if whole && !self.model.in_place && dice.below(5) == 0 {
            std::fs::remove_dir_all(&ranks[dice.below(ranks.len())]).expect("rank");
        }
        let mut second = (again && dice.below(4) == 0).then(|| Disk::new(&ranks));
        testing::power_failed();
        if second.is_some() {
            tape::start(&ranks);
        }
        let found = self.recover(&image);
        if let Some(disk) = &mut second {
            let events = tape::stop();
            let point = dice.below(events.len() + 1);
            events[..point].iter().for_each(|event| disk.step(event));
            self.look(disk, dice, false);
        }
        let kept = fate == Fate::Kept && again && whole;
        if let Err(problem) = self.model.compare(self.done, kept, &found) {
            panic!("{fate:?}, again {}: {problem}", !again);
        }
        // The machine stays on, the memory is lost: the same again.
        if matches!(fate, Fate::Kept) {
            let found = self.recover(&image);
            if let Err(problem) = self.model.compare(self.done, kept, &found) {
                panic!("{fate:?}, recovered twice: {problem}");
            }
        }
    }

    fn recover(&self, image: &Path) -> BTreeMap<String, Found> {
        let pool = testing::open_image(image, self.spec).expect("recovered");
        // What lay on a lost rank is neither free nor used.
        let whole = pool
            .spec()
            .ranks
            .iter()
            .all(|rank| rank.join("data").exists());
        if whole {
            testing::audit(pool);
            testing::audit_blocks(pool);
        }
        let dfs = Dfs::mount(pool, &self.info).expect("mount");
        let checked = dfs.check_with(true, &mut |_| ()).expect("check");
        assert_eq!(checked.problems, []);
        let mut found = BTreeMap::new();
        gather(&dfs, dfs.root(), "", &mut found);
        pool.leave().expect("leave");
        if whole {
            testing::audit_blocks(pool);
        }
        found
    }
}

fn gather(dfs: &Dfs, dir: Ino, prefix: &str, found: &mut BTreeMap<String, Found>) {
    for name in list(dfs, dir).expect("list") {
        let ino = dfs.lookup(&ROOT, dir, name.as_bytes()).expect("name");
        let path = format!("{prefix}{name}");
        let stat = dfs.stat(ino).expect("stat");
        if stat.mode & 0o170000 == 0o040000 {
            gather(dfs, ino, &format!("{path}/"), found);
            found.insert(path, Found::Dir);
            continue;
        }
        let ofd = dfs.open(&ROOT, ino, 0).expect("open");
        let mut content = vec![0; stat.size as usize];
        let iov = [IoVec {
            base: content.as_mut_ptr(),
            len: content.len(),
        }];
        // SAFETY: the buffer is exclusively ours.
        let read = unsafe { dfs.pread(ofd, &iov, 0) };
        assert_eq!(read, Ok(content.len()), "reading {path}");
        dfs.ofd_release(ofd).expect("release");
        found.insert(path, Found::File(content));
    }
}
