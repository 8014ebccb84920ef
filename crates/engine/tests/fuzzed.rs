//! The targets of `fuzz/`, for a moment each: with what a pool really has, and with that changed here
//! and there from a fixed seed.

use engine::EngineError;
use engine::testing::fuzz;

/// Changed copies of each input.
const COPIES: u64 = 24;

/// Inputs of a kind, at most, that open a pool.
const POOLS: usize = 4;

/// Some of the inputs, from the first to the last.
fn some(seeds: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let step = (seeds.len() / POOLS).max(1);
    seeds.iter().rev().step_by(step).cloned().collect()
}

/// Runs a target with inputs and changed copies of them.
fn run(seeds: &[Vec<u8>], mut target: impl FnMut(&[u8])) {
    let mut state = 0x1234_5678_9abc_def0u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    target(&[]);
    for seed in seeds {
        target(seed);
        for _ in 0..COPIES {
            let mut bytes = seed.clone();
            for _ in 0..1 + next(4) {
                let at = next(bytes.len());
                match next(5) {
                    0 => bytes[at] = next(256) as u8,
                    1 => bytes[at] ^= 1 << next(8),
                    2 => bytes.truncate(at.max(1)),
                    3 => bytes[at] = [0, 1, 0x7f, 0xff][next(4)],
                    _ => {
                        let from = next(bytes.len());
                        let part = bytes[from..(from + 8).min(bytes.len())].to_vec();
                        bytes.splice(at..at, part);
                    }
                }
            }
            target(&bytes);
        }
    }
}

#[test]
fn pool_maps() {
    let seeds = fuzz::pool_map_seeds();
    assert!(seeds.iter().all(|seed| fuzz::pool_map(seed)));
    run(&seeds, |input| {
        fuzz::pool_map(input);
    });
}

#[test]
fn attach_files() {
    let seeds = fuzz::attach_file_seeds();
    assert!(seeds.iter().all(|seed| fuzz::attach_file(seed)));
    run(&seeds, |input| {
        fuzz::attach_file(input);
    });
}

#[test]
fn logs_and_checkpoints() {
    let image = fuzz::Image::new();
    run(&some(&image.log_seeds()), |input| image.log(input));
    run(&some(&image.checkpoint_seeds()), |input| {
        image.checkpoint(input)
    });
}

#[test]
fn a_checkpoint_that_is_beyond_the_log_is_damage() {
    let image = fuzz::Image::new();
    for start in [u64::MAX - 7, u64::MAX - 4096, 1 << 63, 1 << 40] {
        let opened = image.with_start_at(start);
        assert!(matches!(opened, Err(EngineError::Corrupt(_))), "{opened:?}");
    }
}

/// Where the pages of an arena begin, and their descriptors.
const PAGES_AT: u64 = 512 << 20;
const DESCRIPTORS_AT: u64 = 64 << 20;

#[test]
fn a_page_far_beyond_all_takes_no_memory() {
    let image = fuzz::Image::new();
    let refused = |opened: Result<(), EngineError>| {
        assert!(matches!(opened, Err(EngineError::Corrupt(_))), "{opened:?}");
    };
    let page = 1 << 20;
    refused(image.with_frame_of(page));
    refused(image.with_change_at(PAGES_AT + page * 4096 + 8));
    refused(image.with_change_at(DESCRIPTORS_AT + page * 32));
    // What is no page's is not the pool's to change: the header, the locks.
    refused(image.with_change_at(64));
    // Near the others it is one that was made and whose neighbours were not changed.
    assert_eq!(image.with_frame_of(4000).err(), None);
    assert_eq!(image.with_change_at(PAGES_AT + 4000 * 4096 + 8).err(), None);
}
