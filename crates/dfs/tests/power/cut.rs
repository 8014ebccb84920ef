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
        // A process of the same number may have been killed.
        std::fs::remove_dir_all(&self.images).unwrap_or_default();
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
                self.look(&disk, &mut dice, &images.join("first"), None)
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
    fn look(&self, disk: &Disk, dice: &mut Dice, image: &Path, again: Option<Again>) {
        let fate = again.as_ref().and_then(|again| again.fate);
        let killed = fate.is_some();
        let fate = fate.unwrap_or_else(|| crate::FATES[dice.below(crate::FATES.len())]);
        let first = again.is_none();
        std::fs::create_dir_all(image).expect("image");
        disk.fail(image, fate, dice.roll());
        let count = self.spec.ranks.len();
        let ranks: Vec<PathBuf> = (0..count)
            .map(|r| image.join(format!("rank{r:02}")))
            .collect();
        // A rank may be lost with it; nothing is, of a redundant class.
        let whole = || ranks.iter().all(|rank| rank.join("data").exists());
        let in_place = self.callers.iter().any(|caller| caller.model().in_place);
        let mut away = again.and_then(|again| {
            let away = again.away?;
            if again.is_back {
                away.bring_back(&ranks);
            }
            (!again.is_back).then_some(away)
        });
        if whole() && !in_place && dice.below(5) == 0 {
            away = Some(Away::take(&ranks, dice.below(ranks.len())));
        }
        let whole = whole();
        let mut second = (first && dice.below(4) == 0).then(|| Disk::new(&ranks));
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
            let again = Again {
                fate: (dice.below(2) == 0).then_some(Fate::Kept),
                away: away.clone(),
                is_back: point.is_multiple_of(2),
            };
            self.look(disk, dice, &image.with_extension("second"), Some(again));
        }
        let kept = fate == Fate::Kept && first && whole && self.callers.len() == 1;
        self.compare(kept, &found, &format!("{fate:?}, again {}", !first));
        // The machine stays on, the memory is lost: the same again.
        if matches!(fate, Fate::Kept) {
            let found = self.recover(image);
            self.compare(kept, &found, &format!("{fate:?}, recovered twice"));
        }
        if let Some(away) = away {
            away.bring_back(&ranks);
            let found = self.recover(image);
            self.compare(false, &found, &format!("{fate:?}, the rank is back"));
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

/// How a recovery goes on after it was cut short.
struct Again {
    /// What becomes of what was stored if the process was killed.
    fate: Option<Fate>,
    /// The rank that was gone, and whether it is back by now.
    away: Option<Away>,
    is_back: bool,
}

/// A rank that is gone, and where it is.
#[derive(Clone)]
struct Away {
    rank: usize,
    dir: PathBuf,
}

impl Away {
    fn take(ranks: &[PathBuf], rank: usize) -> Away {
        let dir = ranks[rank].with_extension("away");
        std::fs::rename(&ranks[rank], &dir).expect("rank");
        Away { rank, dir }
    }

    /// Puts a copy of it where it belongs.
    fn bring_back(&self, ranks: &[PathBuf]) {
        let rank = &ranks[self.rank];
        std::fs::create_dir_all(rank).expect("rank");
        for file in std::fs::read_dir(&self.dir).expect("rank").flatten() {
            std::fs::copy(file.path(), rank.join(file.file_name())).expect("copy");
        }
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
