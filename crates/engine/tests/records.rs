//! Records, pages and blocks through transactions, in one process and after a restart.

use engine::testing::TempPool;
use engine::{LockId, PAGE, Pool, Rec, Run, kind, tag_kind};

fn chain(pool: &Pool, count: usize) -> Vec<Rec> {
    let mut made = Vec::new();
    for i in 0..count {
        let mut tx = pool.tx(&[LockId::Target(1)]).expect("tx");
        let rec = tx.alloc(kind::INODE, 256, 1, 3).expect("alloc");
        tx.set(rec.offset() + 8, i as u64).expect("set");
        tx.commit().expect("commit");
        made.push(rec);
    }
    made
}

#[test]
fn records_are_distinct_and_keep_their_words() {
    let temp = TempPool::new(4, 64);
    let made = chain(temp.pool, 1000);
    for (i, rec) in made.iter().enumerate() {
        assert_eq!(temp.pool.load(rec.offset() + 8), Ok(i as u64));
        assert_eq!(temp.pool.target_of(*rec), Ok(1));
    }
    let mut sorted = made.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), made.len());
}

#[test]
fn an_aborted_transaction_changes_nothing() {
    let temp = TempPool::new(1, 64);
    let rec = chain(temp.pool, 1)[0];
    {
        let mut tx = temp.pool.tx(&[LockId::Target(1)]).expect("tx");
        tx.set(rec.offset() + 8, 99).expect("set");
        assert_eq!(tx.load(rec.offset() + 8), Ok(99));
    }
    assert_eq!(temp.pool.load(rec.offset() + 8), Ok(0));
}

#[test]
fn freed_records_are_used_again_with_a_new_generation() {
    let temp = TempPool::new(1, 64);
    let rec = chain(temp.pool, 1)[0];
    let before = engine::tag_generation(temp.pool.load(rec.offset()).expect("tag"));
    let mut tx = temp.pool.tx(&[LockId::Target(1)]).expect("tx");
    tx.free(rec).expect("free");
    tx.commit().expect("commit");
    assert_eq!(temp.pool.load(rec.offset()).map(tag_kind), Ok(kind::FREE));
    let again = chain(temp.pool, 1)[0];
    assert_eq!(again, rec);
    let after = engine::tag_generation(temp.pool.load(rec.offset()).expect("tag"));
    assert_eq!(after, before + 1);
}

#[test]
fn pages_come_back() {
    let temp = TempPool::new(1, 64);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10_000 {
        let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
        let link = tx.alloc_page(kind::MAP_LEAF, 0, 1, true).expect("page");
        tx.commit().expect("commit");
        assert_eq!(temp.pool.load(link.offset()), Ok(0));
        seen.insert(link.page());
        let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
        tx.set(link.offset(), 7).expect("set");
        tx.free_page(link).expect("free");
        tx.commit().expect("commit");
    }
    assert!(seen.len() < 64, "{} pages for one at a time", seen.len());
    seen.clear();
    for round in 0..200u32 {
        let count = 2 + round % 3 * 7;
        let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
        let run = tx.alloc_pages(kind::TABLE, 0, count).expect("run");
        tx.commit().expect("commit");
        for page in 0..u64::from(count) {
            assert_eq!(temp.pool.load(run.offset() + page * PAGE), Ok(0));
        }
        seen.extend(run.page()..run.page() + count);
        let mut tx = temp.pool.tx(&[LockId::Target(0)]).expect("tx");
        tx.free_pages(run, count).expect("free");
        tx.commit().expect("commit");
    }
    assert!(seen.len() < 128, "{} pages for 16 at a time", seen.len());
}

#[test]
fn blocks_are_grabbed_written_and_freed() {
    let temp = TempPool::new(2, 64);
    let pool = temp.pool;
    let (_, free) = pool.space().expect("space");
    let mut runs: Vec<Run> = Vec::new();
    for i in 0..200u64 {
        let mut stage = pool.stage().expect("stage");
        let run = stage.grab((i % 2) as u16, 3).expect("grab");
        let data = vec![i as u8; run.len as usize * 4096];
        // SAFETY: the source is a live buffer, the run is ours.
        unsafe { pool.write_blocks(run.rank, run.start, 0, data.as_ptr(), data.len()) }
            .expect("write");
        let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
        tx.consume(&stage).expect("consume");
        tx.commit().expect("commit");
        runs.push(run);
    }
    for (i, run) in runs.iter().enumerate() {
        let mut data = vec![0u8; 4096];
        // SAFETY: the destination is a live buffer.
        unsafe { pool.read_blocks(run.rank, run.start, 0, data.as_mut_ptr(), 4096) }.expect("read");
        assert!(
            data.iter().all(|b| *b == i as u8),
            "run {i} was overwritten"
        );
    }
    for run in &runs {
        let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
        tx.free_run(*run).expect("free");
        tx.commit().expect("commit");
    }
    pool.leave().expect("leave");
    assert_eq!(pool.space().expect("space").1, free);
}

#[test]
fn the_pool_fills_up_and_says_so() {
    let temp = TempPool::new(2, 8);
    let pool = temp.pool;
    let mut got = 0u64;
    let error = loop {
        let mut stage = pool.stage().expect("stage");
        match stage.grab((got % 2) as u16, 16) {
            Ok(run) => got += u64::from(run.len),
            Err(errno) => break errno,
        }
        let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
        tx.consume(&stage).expect("consume");
        tx.commit().expect("commit");
    };
    assert_eq!(error, sys::Errno::ENOSPC);
    assert!(got > 8 * 256 * 3 / 4, "only {got} blocks of an 8 MiB pool");
}

#[test]
fn containers_are_listed_changed_and_removed() {
    let temp = TempPool::new(3, 64);
    let pool = temp.pool;
    let spec = engine::ContainerInfo {
        uuid: uuid::Uuid::new_v4(),
        label: "c1".into(),
        index: 0,
        root: (0, 0),
        file_class: 5,
        dir_class: 6,
        chunk_size: 1 << 20,
        blob: b"some properties".to_vec(),
    };
    let made = pool.create_container(&spec).expect("create");
    assert_eq!(pool.find_container("c1").expect("by label"), made);
    assert_eq!(
        pool.find_container(&spec.uuid.to_string())
            .expect("by uuid"),
        made
    );
    let twin = engine::ContainerInfo {
        uuid: uuid::Uuid::new_v4(),
        ..spec.clone()
    };
    assert!(matches!(
        pool.create_container(&twin),
        Err(engine::EngineError::Exists(_))
    ));
    let moved = engine::ContainerInfo {
        label: "c2".into(),
        root: (64, 1),
        ..made
    };
    pool.update_container(&moved).expect("update");
    assert_eq!(pool.containers().expect("list"), vec![moved.clone()]);
    pool.remove_container(moved.uuid).expect("remove");
    assert!(pool.containers().expect("list").is_empty());
}

#[test]
fn blocks_of_an_abandoned_write_do_not_pass_for_zeros() {
    let temp = TempPool::new(1, 64);
    let pool = temp.pool;
    let first = pool.stage().expect("stage").grab(0, 2).expect("grab");
    assert!(first.fresh);
    let mut stage = pool.stage().expect("stage");
    let again = stage.grab(0, 2).expect("grab");
    assert_eq!((again.start, again.fresh), (first.start, false));
    let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
    let page = tx.alloc_page(kind::BLOB, 0, 1, true).expect("page");
    tx.set(page.offset(), again.start).expect("set");
    tx.consume(&stage).expect("consume");
    tx.commit().expect("commit");
}
