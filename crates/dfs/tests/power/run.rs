//! One caller, whose run follows from its seed alone.

use crate::calls::{Calls, Place};
use crate::common::Container;
use crate::cut::{Caller, Story, gather};
use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Dfs, Ino};
use engine::PoolSpec;
use engine::testing::{self, Dice, Disk, Fate, TempPool, tape};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Calls of one run.
const CALLS: usize = 160;
/// Calls between losses of the memory, about: the machine stays on, and what was written is in its cache.
const CALLS_PER_LOSS: usize = 100;
/// Runs for one in whose first half the power fails.
const RUNS_PER_FAILURE: usize = 3;
/// Variable that says, for one seed and point, that ranks come and go.
pub(crate) const PARTED: &str = "PIL4DFS_POWER_PARTED";
/// Where pools and images lie.
pub(crate) const BASE: &str = "/dev/shm";
/// Ranks of the pool.
pub(crate) const RANKS: usize = 3;

/// Size of the log, redundancy and groups of the files.
pub(crate) fn kind_of_pool(dice: &mut Dice) -> (u64, Redundancy, u16) {
    let ring = [512 << 10, 1 << 20, 2 << 20][dice.below(3)];
    let classes = [
        (Redundancy::Replicas(2), GROUPS_MAX),
        (Redundancy::Replicas(3), 1),
        (Redundancy::Replicas(1), 1),
        (Redundancy::Replicas(1), GROUPS_MAX),
    ];
    let (redundancy, groups) = classes[dice.below(classes.len())];
    (ring, redundancy, groups)
}

/// Makes the container that the calls are about.
pub(crate) fn container(temp: &TempPool, redundancy: Redundancy, groups: u16) -> Dfs {
    let class = ObjectClass::new(redundancy, groups).expect("class");
    let info = Container::of_class(temp.pool, "c", class.id());
    Dfs::mount(temp.pool, &info).expect("mount")
}

/// Builds an arena from rank directories that nobody uses any more.
fn rebuilt(home: &[PathBuf], spec: &PoolSpec, dir: Ino) -> Place {
    let home = home.first().and_then(|rank| rank.parent());
    let pool = testing::open_image(home.expect("directory"), spec).expect("recovered");
    let info = pool.find_container("c").expect("container");
    let dfs = Dfs::mount(pool, &info).expect("mount");
    Place { dfs, pool, dir }
}

/// Ranks of which one goes, or comes back, whenever the memory is lost.
pub(crate) struct Ranks {
    dice: Dice,
    away: Option<usize>,
}

impl Ranks {
    pub(crate) fn new(seed: u64) -> Ranks {
        Ranks {
            dice: Dice(seed ^ 0x7061_7274),
            away: None,
        }
    }

    fn change(&mut self, home: &[PathBuf]) {
        if let Some(away) = self.away.take() {
            let rank = &home[away];
            std::fs::rename(rank.with_extension("away"), rank).expect("back");
        } else {
            let away = self.dice.below(home.len());
            let rank = &home[away];
            std::fs::rename(rank, rank.with_extension("away")).expect("away");
            self.away = Some(away);
        }
    }
}

/// Plays a seed and looks at `count` points of it, or at one.
pub(crate) fn play(seed: u64, count: usize, only: Option<usize>, mut parted: Option<Ranks>) {
    testing::stop_clock(1_700_000_000_000_000_000);
    let base = Path::new(BASE);
    let mut dice = Dice(seed);
    let (ring, mut redundancy, groups) = kind_of_pool(&mut dice);
    let mut size = 24;
    if parted.is_some() {
        // What is written while a rank is away has the others, with room for what that rank may have.
        redundancy = Redundancy::Replicas(2);
        size = 96;
    }
    let temp = TempPool::with_log(base, RANKS, size, ring);
    let dfs = container(&temp, redundancy, groups);
    let (dir, pool) = (dfs.root(), temp.pool);
    let in_place = redundancy == Redundancy::Replicas(1);
    let mut losses = Dice(seed ^ 0x6c6f_7373);
    let mut calls = Calls::new(Some(Place { dfs, pool, dir }), dice, 0);
    calls.model.in_place = in_place;
    pool.sync().expect("sync");
    let mut home = temp.pool.spec().ranks.clone();
    let mut disk = Disk::new(&home);
    let mut count_of_calls = CALLS;
    tape::start(&home);
    let failed = base.join(format!("pil4dfs-failed-{}", std::process::id()));
    // A process of the same number may have been killed.
    std::fs::remove_dir_all(&failed).unwrap_or_default();
    if losses.below(RUNS_PER_FAILURE) == 0 {
        let before = losses.below(CALLS / 2);
        // Of what was written back a while after everybody had ended, only checksums tell.
        let proven = losses.below(2) == 0;
        make_calls(
            &mut calls,
            before,
            &mut losses,
            &home,
            pool.spec(),
            &mut parted,
        );
        if proven {
            calls.end();
        }
        calls.leave();
        count_of_calls -= before;
        tape::stop().iter().for_each(|event| disk.step(event));
        let fate = match proven {
            true => Fate::Kept,
            false => crate::FATES[losses.below(crate::FATES.len())],
        };
        disk.fail(&failed, fate, losses.roll());
        let names = home.iter().filter_map(|rank| rank.file_name());
        home = names.map(|rank| failed.join(rank)).collect();
        testing::power_failed();
        parted.iter_mut().for_each(|ranks| ranks.away = None);
        disk = Disk::new(&home);
        tape::start(&home);
        let place = rebuilt(&home, pool.spec(), dir);
        let mut found = BTreeMap::new();
        gather(&place.dfs, dir, "", &mut found);
        let dice = Dice(calls.dice.roll());
        calls = Calls::after_power_failure(place, dice, &found, &calls.model);
        tape::stop().iter().for_each(|event| disk.step(event));
        tape::start(&home);
    }
    make_calls(
        &mut calls,
        count_of_calls,
        &mut losses,
        &home,
        pool.spec(),
        &mut parted,
    );
    calls.leave();
    let mut dice = Dice(calls.dice.roll());
    let mut story = Story {
        callers: vec![Caller::new(String::new(), calls)],
        spec: pool.spec(),
        events: tape::stop(),
        first: 0,
        images: base.join(format!("pil4dfs-image-{}", std::process::id())),
        seed,
        repeat: parted.map_or_else(String::new, |_| format!("{PARTED}=1 ")),
    };
    story.cut(disk, count, &mut dice, only);
    std::fs::remove_dir_all(&failed).unwrap_or_default();
}

/// Makes some calls, between which the memory is lost now and then.
fn make_calls(
    calls: &mut Calls,
    count: usize,
    losses: &mut Dice,
    home: &[PathBuf],
    spec: &PoolSpec,
    parted: &mut Option<Ranks>,
) {
    let each = match parted {
        Some(_) => CALLS_PER_LOSS / 4,
        None => CALLS_PER_LOSS,
    };
    for call in 0..count {
        calls.step();
        if losses.below(each) == 0 {
            if parted.is_some() {
                calls.spread_log();
            }
            let dir = calls.leave();
            parted.iter_mut().for_each(|ranks| ranks.change(home));
            calls.go_on(
                rebuilt(home, spec, dir),
                &format!("the memory was lost after call {}", call + 1),
            );
        }
    }
}
