//! What is left after a power failure, compared with what had been asked for.

use crate::calls::{CALLER_AT, Calls};
use crate::common::{ROOT, list};
use crate::model::{Found, Model};
use dfs::{Dfs, Ino, IoVec};
use engine::PoolSpec;
use engine::testing::{self, Dice, Disk, Event, Fate, tape};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Somebody who made calls.
pub(crate) struct Caller {
    /// The directory of the calls and a slash, or nothing.
    pub(crate) prefix: String,
    pub(crate) calls: Calls,
    /// The last call that had returned.
    done: usize,
}

impl Caller {
    pub(crate) fn new(prefix: String, calls: Calls) -> Caller {
        Caller {
            prefix,
            calls,
            done: 0,
        }
    }

    fn model(&self) -> &Model {
        &self.calls.model
    }
}

/// A run that is over.
pub(crate) struct Story<'a> {
    /// By number.
    pub(crate) callers: Vec<Caller>,
    pub(crate) spec: &'a PoolSpec,
    pub(crate) events: Vec<Event>,
    /// Events before the first call.
    pub(crate) first: usize,
    /// Where what is left is written.
    pub(crate) images: PathBuf,
    pub(crate) seed: u64,
    /// How to repeat a failure, but for the seed and the point.
    pub(crate) repeat: String,
}

impl Story<'_> {
    /// Looks at `count` points chosen by `dice`, or at one.
    pub(crate) fn cut(
        &mut self,
        mut disk: Disk,
        count: usize,
        dice: &mut Dice,
        only: Option<usize>,
    ) {
        let choices = self.events.len() + 1 - self.first;
        let mut points: Vec<usize> = match only {
            Some(point) => vec![point],
            None => (0..count)
                .map(|_| self.first + dice.below(choices))
                .collect(),
        };
        points.sort_unstable();
        let mut at = 0;
        for point in points {
            while at < point {
                if let Event::Note(mark) = self.events[at] {
                    let caller = &mut self.callers[(mark >> CALLER_AT) as usize];
                    caller.done = (mark & ((1 << CALLER_AT) - 1)) as usize;
                }
                disk.step(&self.events[at]);
                at += 1;
            }
            let mut dice = Dice(self.seed << 32 ^ point as u64);
            let images = &self.images;
            let looked = catch_unwind(AssertUnwindSafe(|| {
                self.look(&disk, &mut dice, &images.join("first"), true, None)
            }));
            std::fs::remove_dir_all(images).expect("images");
            if looked.is_err() {
                self.tell(point);
            }
        }
    }

    /// Ends the test with what is known of a failure.
    fn tell(&self, point: usize) {
        let mut done = Vec::new();
        for caller in &self.callers {
            let told = caller.calls.told.iter().enumerate();
            for (call, told) in told.take(caller.done + 2) {
                println!("{}call {call}: {told}", caller.prefix);
            }
            done.push(caller.done);
        }
        panic!(
            "{}PIL4DFS_POWER_ONLY={}:{point} repeats this; {} events, calls {done:?} done",
            self.repeat,
            self.seed,
            self.events.len()
        );
    }

    /// Recovers what is left, compares, and lets the power fail again during that, or has it killed.
    fn look(&self, disk: &Disk, dice: &mut Dice, image: &Path, again: bool, fate: Option<Fate>) {
        let killed = fate.is_some();
        let fate = fate.unwrap_or_else(|| crate::FATES[dice.below(crate::FATES.len())]);
        std::fs::create_dir_all(image).expect("image");
        disk.fail(image, fate, dice.roll());
        let count = self.spec.ranks.len();
        let ranks: Vec<PathBuf> = (0..count)
            .map(|r| image.join(format!("rank{r:02}")))
            .collect();
        // A rank may be lost with it; nothing is, of a redundant class.
        let whole = || ranks.iter().all(|rank| rank.join("data").exists());
        let in_place = self.callers.iter().any(|caller| caller.model().in_place);
        if whole() && !in_place && dice.below(5) == 0 {
            std::fs::remove_dir_all(&ranks[dice.below(ranks.len())]).expect("rank");
        }
        let whole = whole();
        let mut second = (again && dice.below(4) == 0).then(|| Disk::new(&ranks));
        if !killed {
            testing::power_failed();
        }
        if second.is_some() {
            tape::start(&ranks);
        }
        let found = self.recover(image);
        if let Some(disk) = &mut second {
            let events = tape::stop();
            let point = dice.below(events.len() + 1);
            events[..point].iter().for_each(|event| disk.step(event));
            // The recovering process is killed, or the power fails.
            let fate = (dice.below(2) == 0).then_some(Fate::Kept);
            self.look(disk, dice, &image.with_extension("second"), false, fate);
        }
        let kept = fate == Fate::Kept && again && whole && self.callers.len() == 1;
        self.compare(kept, &found, &format!("{fate:?}, again {}", !again));
        // The machine stays on, the memory is lost: the same again.
        if matches!(fate, Fate::Kept) {
            let found = self.recover(image);
            self.compare(kept, &found, &format!("{fate:?}, recovered twice"));
        }
    }

    fn compare(&self, kept: bool, found: &BTreeMap<String, Found>, how: &str) {
        for caller in &self.callers {
            let own = found.iter().filter_map(|(path, found)| {
                let path = path.strip_prefix(&caller.prefix)?;
                Some((path.to_owned(), found.clone()))
            });
            if let Err(problem) = caller.model().compare(caller.done, kept, &own.collect()) {
                panic!("{how}: {}{problem}", caller.prefix);
            }
        }
    }

    fn recover(&self, image: &Path) -> BTreeMap<String, Found> {
        let pool = testing::open_image(image, self.spec).expect("recovered");
        // What lay on a lost rank is neither free nor used.
        let mut ranks = pool.spec().ranks.iter();
        let whole = ranks.all(|rank| rank.join("data").exists());
        if whole {
            testing::audit(pool);
            testing::audit_blocks(pool);
        }
        let info = pool.find_container("c").expect("container");
        let dfs = Dfs::mount(pool, &info).expect("mount");
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

pub(crate) fn gather(dfs: &Dfs, dir: Ino, prefix: &str, found: &mut BTreeMap<String, Found>) {
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
        found.insert(path, Found::File(content.into()));
    }
}
