#![no_main]

use engine::testing::fuzz;

libfuzzer_sys::fuzz_target!(
    init: fuzz::leave(&fuzz::attach_file_seeds()),
    |input: &[u8]| {
        fuzz::attach_file(input);
    }
);
