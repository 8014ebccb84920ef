//! Pools whose arena is lost, looked at by a process that has not seen them before.
#![allow(dead_code, reason = "not every test file uses all of it")]

use engine::testing::TempPool;
use engine::{BlockPtr, ContainerInfo, LockId, Pool, Rec, kind};

pub(crate) fn container(label: &str) -> ContainerInfo {
    ContainerInfo {
        uuid: uuid::Uuid::new_v4(),
        label: label.into(),
        index: 0,
        root: (0, 0),
        file_class: 1,
        dir_class: 2,
        chunk_size: 4096,
        blob: Vec::new(),
    }
}

/// A record of the pool with one block of data, found again by its number.
pub(crate) fn record(pool: &Pool, target: u16, value: u64) -> Rec {
    let mut stage = pool.stage().expect("stage");
    let run = stage.grab(target / 4, 1).expect("grab");
    let data = [value as u8; 4096];
    // SAFETY: the source is a live buffer, the run is ours.
    unsafe { pool.write_blocks(run.rank, run.start, 0, data.as_ptr(), 4096) }.expect("write");
    let mut tx = pool.tx(&[LockId::Target(target)]).expect("tx");
    let rec = tx.alloc(kind::MAP_SMALL, 256, target, 2).expect("alloc");
    tx.consume(&stage).expect("consume");
    let pointer = BlockPtr::new(run.rank, run.start, 1).0;
    let mut words = [0; 31];
    (words[0], words[30]) = (pointer, 0);
    tx.put_blocks(rec.offset() + 8, &words, 1).expect("put");
    tx.commit().expect("commit");
    rec
}

pub(crate) fn check(pool: &Pool, rec: Rec, value: u64) {
    let pointer = BlockPtr(pool.load(rec.offset() + 8).expect("load"));
    assert!(!pointer.is_hole(), "record {rec:?} lost its block");
    let mut data = [0u8; 4096];
    // SAFETY: the destination is a live buffer.
    unsafe { pool.read_blocks(pointer.rank(), pointer.block(), 0, data.as_mut_ptr(), 4096) }
        .expect("read");
    assert!(data.iter().all(|b| *b == value as u8));
}

/// Runs `verify` in a process that has not attached the pool yet, after the arena was removed.
pub(crate) fn after_restart(temp: &TempPool, test: &str, args: &str) {
    std::fs::remove_file(temp.pool.arena_path()).expect("arena");
    let status = std::process::Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", test, "--nocapture"])
        .env("REBUILD_HANDOVER", temp.handover())
        .env("REBUILD_ARGS", args)
        .status()
        .expect("child");
    assert!(status.success());
}

pub(crate) fn in_child() -> Option<(&'static Pool, Vec<u64>)> {
    let handover = std::env::var("REBUILD_HANDOVER").ok()?;
    let args = std::env::var("REBUILD_ARGS").expect("args");
    let numbers = args
        .split(',')
        .map(|n| n.parse().expect("number"))
        .collect();
    Some((engine::testing::attach_from(&handover), numbers))
}

pub(crate) fn verify(pool: &Pool, numbers: &[u64]) {
    assert_eq!(pool.after_rebuild(|| Ok(())), Ok(true));
    assert_eq!(pool.after_rebuild(|| Err(sys::Errno::EIO)), Ok(false));
    let count = numbers.len() - 1;
    for (i, number) in numbers[..count].iter().enumerate() {
        check(pool, Rec(*number as u32), i as u64);
    }
    let (total, free) = pool.space().expect("space");
    pool.leave().expect("leave");
    assert_eq!(total - free, numbers[count], "used blocks");
    assert_eq!(pool.containers().expect("containers").len(), 2);
    // New records and blocks do not collide with old ones.
    for i in 0..200 {
        let rec = record(pool, (i % 8) as u16, 77);
        assert!(
            !numbers.contains(&u64::from(rec.0)),
            "record {rec:?} given out twice"
        );
    }
    for (i, number) in numbers[..count].iter().enumerate() {
        check(pool, Rec(*number as u32), i as u64);
    }
}

pub(crate) fn scenario(name: &str, checkpoints: impl Fn(&TempPool, usize)) {
    if let Some((pool, numbers)) = in_child() {
        return verify(pool, &numbers);
    }
    let temp = TempPool::new(2, 64);
    let pool = temp.pool;
    pool.create_container(&container("a")).expect("create");
    let gone = pool.create_container(&container("b")).expect("create");
    pool.create_container(&container("c")).expect("create");
    pool.remove_container(gone.uuid).expect("remove");
    let mut numbers = Vec::new();
    for i in 0..100 {
        numbers.push(u64::from(record(pool, (i % 8) as u16, i as u64).0));
        checkpoints(&temp, i);
    }
    pool.leave().expect("leave");
    let used = 100;
    numbers.push(used);
    let args: Vec<String> = numbers.iter().map(u64::to_string).collect();
    after_restart(&temp, name, &args.join(","));
}
