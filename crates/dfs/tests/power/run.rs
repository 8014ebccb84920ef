//! One caller, whose run follows from its seed alone.

use crate::calls::{Calls, Place};
use crate::common::Container;
use crate::cut::{Caller, Story};
use daos_types::{GROUPS_MAX, ObjectClass, Redundancy};
use dfs::{Dfs, Ino};
use engine::PoolSpec;
use engine::testing::{self, Dice, Disk, TempPool, tape};
use std::path::Path;

/// Calls of one run.
const CALLS: usize = 160;
/// Calls between losses of the memory, about: the machine stays on, and what was written is in its cache.
const CALLS_PER_LOSS: usize = 100;
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

/// Builds the arena of a pool that nobody uses any more once more.
fn after_loss_of_memory(dir: Ino, spec: &PoolSpec) -> Place {
    let home = spec.ranks.first().and_then(|rank| rank.parent());
    let pool = testing::open_image(home.expect("directory"), spec).expect("recovered");
    let info = pool.find_container("c").expect("container");
    let dfs = Dfs::mount(pool, &info).expect("mount");
    Place { dfs, pool, dir }
}

/// Plays a seed and looks at `count` points of it, or at one.
pub(crate) fn play(seed: u64, count: usize, only: Option<usize>) {
    testing::stop_clock(1_700_000_000_000_000_000);
    let base = Path::new(BASE);
    let mut dice = Dice(seed);
    let (ring, redundancy, groups) = kind_of_pool(&mut dice);
    let temp = TempPool::with_log(base, RANKS, 24, ring);
    let dfs = container(&temp, redundancy, groups);
    let dir = dfs.root();
    let pool = temp.pool;
    let mut calls = Calls::new(Some(Place { dfs, pool, dir }), dice, 0);
    calls.model.in_place = redundancy == Redundancy::Replicas(1);
    pool.sync().expect("sync");
    let disk = Disk::new(&pool.spec().ranks);
    tape::start(&pool.spec().ranks);
    let mut losses = Dice(seed ^ 0x6c6f_7373);
    for call in 0..CALLS {
        calls.step();
        if losses.below(CALLS_PER_LOSS) == 0 {
            let place = after_loss_of_memory(calls.leave(), pool.spec());
            calls.go_on(
                place,
                &format!("the memory was lost after call {}", call + 1),
            );
        }
    }
    calls.leave();
    let mut dice = Dice(calls.dice.roll());
    let mut story = Story {
        callers: vec![Caller::new(String::new(), calls)],
        spec: pool.spec(),
        events: tape::stop(),
        first: 0,
        images: base.join(format!("pil4dfs-image-{}", std::process::id())),
        seed,
        repeat: String::new(),
    };
    story.cut(disk, count, &mut dice, only);
}
