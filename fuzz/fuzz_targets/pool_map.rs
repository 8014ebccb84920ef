#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| engine::testing::fuzz::pool_map(input));
