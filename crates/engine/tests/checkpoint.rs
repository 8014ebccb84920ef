//! Checkpoints cut short, ranks that are gone: what counted before still counts.

mod common;

use common::{after_restart, check, container, in_child, record, scenario};
use engine::testing::{TempPool, audit};
use engine::{BlockPtr, LockId, Rec, kind};
use shm::fault::{self, Action};
use std::os::unix::process::ExitStatusExt;

/// A process that dies checkpointing.
#[test]
fn checkpointer() {
    let Ok(point) = std::env::var("REBUILD_POINT") else {
        return;
    };
    let pool = engine::testing::attach_from(&std::env::var("REBUILD_HANDOVER").expect("handover"));
    fault::arm(point.leak(), Action::Kill, 1);
    pool.checkpoint().expect("checkpoint");
}

fn killed_checkpoint(temp: &TempPool, point: &str) {
    let status = std::process::Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "checkpointer", "--nocapture"])
        .env("REBUILD_HANDOVER", temp.handover())
        .env("REBUILD_POINT", point)
        .status()
        .expect("child");
    assert_eq!(status.signal(), Some(9), "{point}");
}

#[test]
fn from_checkpoints_that_were_killed() {
    scenario("from_checkpoints_that_were_killed", |temp, i| match i {
        20 | 50 => killed_checkpoint(temp, "checkpoint.written"),
        30 | 60 => killed_checkpoint(temp, "checkpoint.ended"),
        40 | 70 => killed_checkpoint(temp, "checkpoint.finished"),
        45 | 90 => temp.pool.checkpoint().expect("checkpoint"),
        _ => {}
    });
}

#[test]
fn from_a_checkpoint_killed_at_its_first_end() {
    scenario(
        "from_a_checkpoint_killed_at_its_first_end",
        |temp, i| match i {
            50 => temp.pool.checkpoint().expect("checkpoint"),
            60 | 90 => killed_checkpoint(temp, "checkpoint.ended"),
            _ => {}
        },
    );
}

fn rank_file(temp: &TempPool, rank: usize, name: &str) -> std::path::PathBuf {
    temp.pool.spec().ranks[rank].join(name)
}

#[test]
fn from_frames_behind_a_torn_one() {
    scenario("from_frames_behind_a_torn_one", |temp, i| {
        if i % 30 == 29 {
            for rank in 0..2 {
                let path = rank_file(temp, rank, "meta");
                let mut file = std::fs::File::options()
                    .append(true)
                    .create(true)
                    .open(path)
                    .expect("meta");
                std::io::Write::write_all(&mut file, &[7; 1000]).expect("write");
            }
            temp.pool.checkpoint().expect("checkpoint");
        }
    });
}

#[test]
fn pages_that_became_volatile_do_not_come_back() {
    let name = "pages_that_became_volatile_do_not_come_back";
    if let Some((pool, numbers)) = in_child() {
        assert_eq!(pool.containers().expect("containers"), []);
        assert_eq!(pool.used_blocks(), Ok(0));
        assert_eq!(audit(pool).pages, numbers[0]);
        return;
    }
    let temp = TempPool::new(2, 64);
    let pool = temp.pool;
    let made = pool.create_container(&container("a")).expect("create");
    pool.checkpoint().expect("checkpoint");
    pool.remove_container(made.uuid).expect("remove");
    let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
    for _ in 0..20 {
        tx.alloc_page(kind::TABLE, 0, 0, false).expect("page");
    }
    tx.commit().expect("commit");
    pool.checkpoint().expect("checkpoint");
    pool.leave().expect("leave");
    after_restart(&temp, name, "0");
}

#[test]
fn without_a_rank() {
    let name = "without_a_rank";
    if let Some((pool, numbers)) = in_child() {
        for (i, number) in numbers.iter().enumerate() {
            let rec = Rec(*number as u32);
            let pointer = BlockPtr(pool.load(rec.offset() + 8).expect("load"));
            if pointer.rank() == 1 {
                let mut data = [0u8; 4096];
                // SAFETY: the destination is a live buffer.
                let read = unsafe {
                    pool.read_blocks(1, pointer.block(), 0, data.as_mut_ptr(), data.len())
                };
                assert_eq!(read, Err(sys::Errno::EIO));
            } else {
                check(pool, rec, i as u64);
            }
        }
        assert!(pool.stage().expect("stage").grab(1, 1).is_err());
        pool.checkpoint().expect("checkpoint");
        pool.sync().expect("sync");
        for i in 0..100 {
            let rec = record(pool, (i % 4) as u16, 77);
            assert!(!numbers.contains(&u64::from(rec.0)));
        }
        return;
    }
    let temp = TempPool::new(2, 64);
    let mut numbers = Vec::new();
    for i in 0..60 {
        numbers.push(record(temp.pool, (i % 8) as u16, i as u64).0.to_string());
        if i == 30 {
            temp.pool.checkpoint().expect("checkpoint");
        }
    }
    temp.pool.checkpoint().expect("checkpoint");
    std::fs::remove_dir_all(&temp.pool.spec().ranks[1]).expect("rank");
    temp.pool
        .checkpoint()
        .expect("a checkpoint without the rank");
    temp.pool.leave().expect("leave");
    after_restart(&temp, name, &numbers.join(","));
    // The frames written without the rank are whole.
    after_restart(&temp, name, &numbers.join(","));
}

#[test]
fn with_a_data_file_cut_short() {
    let name = "with_a_data_file_cut_short";
    if let Some((pool, numbers)) = in_child() {
        let lost = BlockPtr(
            pool.load(Rec(numbers[0] as u32).offset() + 8)
                .expect("load"),
        );
        for _ in 0..100 {
            let run = pool.stage().expect("stage").grab(0, 64).expect("grab");
            assert!(!(run.start..run.start + u64::from(run.len)).contains(&lost.block()));
            let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
            let mut stage = pool.stage().expect("stage");
            stage.grab(0, 64).expect("grab");
            tx.consume(&stage).expect("consume");
            let rec = tx.alloc(kind::MISC, 64, 0, 0).expect("alloc");
            assert!(!rec.is_none());
            tx.commit().expect("commit");
        }
        return;
    }
    let temp = TempPool::new(1, 64);
    let rec = record(temp.pool, 0, 1);
    let file = std::fs::File::options()
        .write(true)
        .open(rank_file(&temp, 0, "data"))
        .expect("data");
    file.set_len(0).expect("cut");
    temp.pool.leave().expect("leave");
    after_restart(&temp, name, &rec.0.to_string());
}
