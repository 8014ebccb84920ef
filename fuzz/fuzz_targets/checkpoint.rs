#![no_main]

use engine::testing::fuzz::Image;
use std::sync::LazyLock;

static IMAGE: LazyLock<Image> = LazyLock::new(|| {
    let image = Image::new();
    // What a pool really has, to start from.
    if let Some(dir) = std::env::var_os("FUZZ_SEEDS") {
        for (i, seed) in image.checkpoint_seeds().iter().enumerate() {
            let path = std::path::Path::new(&dir).join(format!("seed-{i}"));
            std::fs::write(path, seed).expect("seed");
        }
    }
    image
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| IMAGE.checkpoint(input));
