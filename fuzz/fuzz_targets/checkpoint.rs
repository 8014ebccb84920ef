#![no_main]

use engine::testing::fuzz;
use std::sync::LazyLock;

static IMAGE: LazyLock<fuzz::Image> = LazyLock::new(fuzz::Image::new);

libfuzzer_sys::fuzz_target!(
    init: fuzz::leave(&IMAGE.checkpoint_seeds()),
    |input: &[u8]| IMAGE.checkpoint(input)
);
