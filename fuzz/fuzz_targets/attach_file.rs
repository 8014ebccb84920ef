#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| engine::testing::fuzz::attach_file(input));
