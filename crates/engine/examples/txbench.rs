//! Nanoseconds per transaction, allocation and load on a temporary pool.
//!
//! `cargo run --release -p pil4dfs-engine --features testing --example txbench`

use engine::testing::TempPool;
use engine::{LockId, Rec, kind};
use std::time::Instant;

const ROUNDS: u32 = 50_000;

fn main() {
    let temp = TempPool::new(20, 4096);
    let pool = temp.pool;
    let report = |name: &str, start: Instant| {
        let ns = start.elapsed().as_nanos() / u128::from(ROUNDS);
        let line = format!("{name:<44} {ns:>6} ns\n");
        std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).expect("stdout");
    };

    let mut tx = pool.tx(&[LockId::Target(1)]).expect("tx");
    let rec = tx.alloc(kind::INODE, 256, 1, 3).expect("alloc");
    tx.commit().expect("commit");
    for round in 0..2 {
        let start = Instant::now();
        for i in 0..ROUNDS {
            let mut tx = pool.tx(&[LockId::Target(1)]).expect("tx");
            tx.set_volatile(rec.offset() + 8, u64::from(i))
                .expect("set");
            tx.commit().expect("commit");
        }
        if round == 1 {
            report("one volatile word", start);
        }
        let start = Instant::now();
        for i in 0..ROUNDS {
            let mut tx = pool.tx(&[LockId::Target(1)]).expect("tx");
            tx.set(rec.offset() + 8, u64::from(i)).expect("set");
            tx.commit().expect("commit");
        }
        if round == 1 {
            report("one durable word", start);
        }
        let mut made: Vec<Rec> = Vec::with_capacity(ROUNDS as usize);
        let start = Instant::now();
        for i in 0..ROUNDS {
            let mut tx = pool.tx(&[LockId::Target(1)]).expect("tx");
            let rec = tx.alloc(kind::INODE, 256, 1, 3).expect("alloc");
            tx.put(rec.offset() + 8, &[u64::from(i); 31]).expect("put");
            tx.put(rec.offset() + 8, &[u64::from(i); 8]).expect("put");
            tx.set_volatile(rec.offset() + 24, 1).expect("set");
            tx.set_volatile(rec.offset() + 32, 1).expect("set");
            tx.commit().expect("commit");
            made.push(rec);
        }
        if round == 1 {
            report("a create: inode, entry, two links", start);
        }
        let start = Instant::now();
        for rec in made.drain(..) {
            let mut tx = pool.tx(&[LockId::Target(1)]).expect("tx");
            tx.set(rec.offset() + 16, 0).expect("set");
            tx.set_volatile(rec.offset() + 24, 1).expect("set");
            tx.free(rec).expect("free");
            tx.commit().expect("commit");
        }
        if round == 1 {
            report("an unlink: inode freed, two words", start);
        }
    }
}
