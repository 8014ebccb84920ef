//! `fsync` of small appends and overwrites, beside the file system below in the same run:
//! `ROW OURS DISK RATIO`, microseconds, medians of rounds taken in turn.

mod setup;

use daos_types::{ObjectClass, Redundancy};
use dfs::IoVec;
use engine::testing::TempPool;
use setup::{ROOT, container};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

const ROUNDS: usize = 9;
const CALLS: usize = 40;
const RDWR: u32 = 2;

/// Microseconds per call.
fn time(mut call: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    (0..CALLS).for_each(&mut call);
    start.elapsed().as_nanos() as f64 / 1e3 / CALLS as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare(row: &str, mut ours: impl FnMut(usize), mut disk: impl FnMut(usize)) {
    let rounds = (0..ROUNDS).map(|_| (time(&mut ours), time(&mut disk)));
    let (ours, disk): (Vec<f64>, Vec<f64>) = rounds.unzip();
    let (ours, disk) = (median(ours), median(disk));
    println!("{row} {ours:.0} {disk:.0} {:.2}", ours / disk);
}

fn main() {
    let base = std::path::PathBuf::from(std::env::args().nth(1).unwrap_or("/var/tmp".into()));
    for (name, copies, ranks) in [("S1", 1, 4), ("RP_3G1", 3, 4), ("RP_3G1/20", 3, 20)] {
        let temp = TempPool::new_in(&base, ranks, 1024);
        let class = ObjectClass::new(Redundancy::Replicas(copies), 1).expect("class");
        let dfs = container(&temp, "c", class, class);
        let (ino, _) = dfs
            .create(&ROOT, dfs.root(), b"f", 0o644, true)
            .expect("create");
        let ofd = dfs.open(&ROOT, ino, RDWR).expect("open");
        let path = base.join(format!("syncbench-{}", std::process::id()));
        let mut file = std::fs::File::create(&path).expect("file");
        let data = [7u8; 4096];
        let write = |append: bool, pos: usize| {
            let iov = [IoVec {
                base: data.as_ptr().cast_mut(),
                len: data.len(),
            }];
            // SAFETY: the buffer is only read.
            let wrote = unsafe { dfs.pwrite(ofd, &iov, pos as i64, append) };
            assert_eq!(wrote, Ok(data.len()));
            dfs.fsync(ofd).expect("fsync");
        };
        compare(
            &format!("append_{name}"),
            |_| write(true, 0),
            |_| {
                file.write_all(&data).expect("write");
                file.sync_data().expect("fsync");
            },
        );
        compare(
            &format!("overwrite_{name}"),
            |i| write(false, i * 4096),
            |i| {
                file.write_all_at(&data, i as u64 * 4096).expect("write");
                file.sync_data().expect("fsync");
            },
        );
        dfs.ofd_release(ofd).expect("release");
        temp.pool.leave().expect("leave");
        std::fs::remove_file(&path).expect("file");
    }
}
