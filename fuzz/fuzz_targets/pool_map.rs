#![no_main]

use engine::testing::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::leave(&fuzz::pool_map_seeds()),
    |input: &[u8]| {
        fuzz::pool_map(input);
    }
);
