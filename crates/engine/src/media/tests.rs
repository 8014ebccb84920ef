use super::*;
use crate::testing::TempPool;
use crate::testing::image::Image;
use std::sync::atomic::AtomicBool;

const BLOCKS: u64 = 64;

fn content(block: u64, turn: u64) -> Vec<u8> {
    let word = (block << 32 | turn).to_le_bytes();
    word.repeat(BLOCK as usize / word.len())
}

fn stored(pool: &Pool, rank: u16, block: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    // SAFETY: the destination is a live buffer.
    unsafe { pool.read_blocks(rank, block, 0, bytes.as_mut_ptr(), bytes.len()) }.expect("read");
    bytes
}

#[test]
fn stores_survive_that_their_surroundings_are_unmapped() {
    let temp = TempPool::new(1, 64);
    let pool = temp.pool;
    let mut stage = pool.stage().expect("stage");
    let run = stage.grab(0, BLOCKS as u32).expect("grab");
    assert_eq!(u64::from(run.len), BLOCKS);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (address, _) = pool.map_block(0, run.start, Access::Store).expect("map");
            while !ended.load(Ordering::Relaxed) {
                pool.media.refresh(address as usize);
                pool.flush_data(0).expect("flush");
            }
        });
        for turn in 0..200 {
            for block in 0..BLOCKS {
                let bytes = content(block, turn);
                // SAFETY: the source is a live buffer, the run is this test's.
                unsafe { pool.write_blocks(0, run.start + block, 0, bytes.as_ptr(), bytes.len()) }
                    .expect("write");
                assert_eq!(stored(pool, 0, run.start + block), bytes);
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    for block in 0..BLOCKS {
        assert_eq!(stored(pool, 0, run.start + block), content(block, 199));
    }
}

#[test]
fn windows_lie_where_whole_folios_can_be_mapped() {
    let temp = TempPool::new(2, 64);
    for (rank, access) in [(0, Access::Read), (0, Access::Store), (1, Access::Store)] {
        let (address, room) = temp.pool.map_block(rank, 0, access).expect("map");
        assert_eq!(address as usize % AROUND, 0);
        assert_eq!(room, WINDOW);
    }
}

#[test]
fn what_is_stored_while_it_is_compared_with_the_device_is_no_difference() {
    let temp = Image::new(1);
    let pool = temp.pool;
    let mut stage = pool.stage().expect("stage");
    let run = stage.grab(0, BLOCKS as u32).expect("grab");
    let (begun, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0.. {
                let bytes = content(run.start, turn);
                // SAFETY: the source is a live buffer, the run is this test's.
                unsafe { pool.write_blocks(0, run.start, 0, bytes.as_ptr(), bytes.len()) }
                    .expect("write");
                begun.store(true, Ordering::Relaxed);
                if ended.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        while !begun.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let file = pool.open_data(0).expect("data");
        let compared: Vec<_> = (0..20)
            .map(|_| pool.compare_with_device(0, &file))
            .collect();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(compared, [Ok(()); 20]);
    });
}

/// Others are killed in their flushes all the time: what is stored again and compared is there.
#[test]
fn a_flush_succeeds_beside_others_that_come_into_doubt() {
    let temp = Image::new(1);
    let pool = temp.pool;
    let mut stage = pool.stage().expect("stage");
    let run = stage.grab(0, BLOCKS as u32).expect("grab");
    let bytes = content(run.start, 1);
    // SAFETY: the source is a live buffer, the run is this test's.
    unsafe { pool.write_blocks(0, run.start, 0, bytes.as_ptr(), bytes.len()) }.expect("write");
    let ended = AtomicBool::new(false);
    let (flushed, sure) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                pool.doubt_data(0).expect("doubt");
            }
        });
        while pool.is_data_sure(0) == Ok(true) {
            std::thread::yield_now();
        }
        let flushed: Vec<_> = (0..5).map(|_| pool.flush_surely(0)).collect();
        let sure = pool.is_data_sure(0);
        ended.store(true, Ordering::Relaxed);
        (flushed, sure)
    });
    assert_eq!(flushed, [Ok(()); 5]);
    assert_eq!(sure, Ok(false), "the next has to know");
}
