//! What is read from disk, given any bytes: an error or a pool, never a panic and never an endless
//! loop. One function for each structure, for the targets in `fuzz/` and for a short run in the
//! tests. Checksums are put right, or nothing behind them would ever be reached.

use super::TempPool;
use crate::attach::{LOG_FILE, build_image};
use crate::error::EngineError;
use crate::frames::{FRAME_END, FRAME_FULL, FRAME_HEAD, FRAME_MAGIC, META_FILE};
use crate::layout::{PageState, header, kind, rank, rank_at};
use crate::limits::{PAGE, at};
use crate::log::{LOG_FILE_HEADER, as_bytes, checksum, kind_and_bytes, record_sum};
use crate::pool::{LockId, Pool, PoolSpec};
use crate::system::{Authority, Home, PoolMap};
use crate::tx::{ENTRY_DURABLE, RECORD_HEADER};
use std::path::{Path, PathBuf};

/// Bytes of the ring of a pool that is fuzzed.
const RING: u64 = 1 << 16;
/// Pages that a fuzzed checkpoint may take, and those that are more than it accounts for.
const PAGES: u64 = 1 << 12;
const PAGES_BEYOND: u64 = 1 << 18;
/// The word of the log's header that says when the machine was started.
const BOOT_AT: usize = 40;

/// A pool map file; whether it is one, with or without the line that proves it.
pub fn pool_map(bytes: &[u8]) -> bool {
    let path = Path::new("pool.map");
    let mut whole = false;
    for bytes in [bytes.to_vec(), with_sum(bytes, "")] {
        if let Ok(map) = PoolMap::decode(&bytes, path) {
            assert_eq!(PoolMap::decode(&map.encode(), path).ok(), Some(map));
            whole = true;
        }
    }
    whole
}

/// An attach file, or the home file of a rank; whether it is one, likewise.
pub fn attach_file(bytes: &[u8]) -> bool {
    let mut whole = false;
    for bytes in [bytes.to_vec(), with_sum(bytes, "\0")] {
        if let Some(authority) = Authority::decode(&bytes) {
            assert_eq!(Authority::decode(&authority.encode()), Some(authority));
            whole = true;
        }
        if let Some(home) = Home::decode(&bytes) {
            assert_eq!(Home::decode(&home.encode()), Some(home));
            whole = true;
        }
    }
    whole
}

/// Inputs for [`pool_map`]: the formats there are, without the line that proves them.
pub fn pool_map_seeds() -> Vec<Vec<u8>> {
    let uuid = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
    let text = format!(
        "DAOS-EMBEDDED-POOL 1\nuuid {uuid}\nlabel l\nversion 1\nsize 1048576\ncreated 5\nreserved 0\n\
         targets_per_rank 4\nrank 0 up /a\nrank 1 up /pools/{uuid}/rank01\nattr x y\n"
    );
    let newer = text
        .replace("POOL 1", "POOL 2")
        .replace("0 up /a", "0 up rank00");
    vec![text.into_bytes(), newer.into_bytes()]
}

/// Inputs for [`attach_file`], likewise.
pub fn attach_file_seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 2] = [
        b"DAOS-EMBEDDED-ATTACH 2\nboot b\nmachine m\ninstance 00000000000000ff\n\
          mark 000000000000000a 000000000000000b\narena /dev/shm/a",
        b"DAOS-EMBEDDED-HOME 1\nmark 000000000000000a 000000000000000b\ndir /d",
    ];
    texts.map(<[u8]>::to_vec).to_vec()
}

/// Leaves inputs to start from in the directory that `FUZZ_SEEDS` names, if it is set.
pub fn leave(seeds: &[Vec<u8>]) {
    if let Ok(dir) = std::env::var("FUZZ_SEEDS") {
        for (i, seed) in seeds.iter().enumerate() {
            let path = Path::new(&dir).join(format!("seed-{i}"));
            std::fs::write(path, seed).expect("seed");
        }
    }
}

/// The text with the line that proves it.
fn with_sum(text: &[u8], before: &str) -> Vec<u8> {
    let mut bytes = text.to_vec();
    let crc = crate::system::checksum(text);
    bytes.extend_from_slice(format!("{before}crc32 {crc:08x}\n").as_bytes());
    bytes
}

/// Takes numbers and words off the input; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let len = N.min(self.0.len());
        out[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        out
    }

    fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    fn words(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.word()).collect()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A small pool as it lies on disk, to be opened with changes.
pub struct Image {
    dir: PathBuf,
    spec: PoolSpec,
    log: Vec<u8>,
    meta: Vec<u8>,
    /// Where the log ends, and the checksum of its last record.
    tail: (u64, u32),
    /// Number of the last checkpoint, and where the log goes on from it.
    sequence: u64,
    start: u64,
    /// Records and frames that are there, as inputs.
    records: Vec<Vec<u8>>,
    frames: Vec<Vec<u8>>,
}

impl Drop for Image {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap_or_default();
    }
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

impl Image {
    /// Makes the pool: a few changes, a checkpoint, and a few more.
    pub fn new() -> Image {
        let parent = Path::new("/dev/shm");
        let temp = TempPool::with_log(parent, 1, 64, RING);
        let pool = temp.pool;
        let change = |round: u64| {
            let mut tx = pool.tx(&[LockId::Target(0)]).expect("tx");
            let rec = tx.alloc(kind::MISC, 256, 0, 1).expect("record");
            tx.put(rec.offset() + 8, &[round; 31]).expect("words");
            let page = tx.alloc_page(kind::BLOB, 0, 1, false).expect("page");
            tx.put(page.offset(), &[round; 16]).expect("words");
            tx.commit().expect("commit");
        };
        (0..10).for_each(change);
        pool.checkpoint().expect("checkpoint");
        (10..20).for_each(change);
        let base = pool.find_checkpoint().expect("checkpoint").base;
        let mut records = Vec::new();
        let tail = pool.each_record(base.start, base.sum, 0, |found| {
            let mut input = vec![found.kind, (found.words.len() - RECORD_HEADER) as u8];
            input.extend_from_slice(&found.words[3].to_le_bytes());
            input.extend_from_slice(as_bytes(&found.words[RECORD_HEADER..]));
            records.push(input);
            Ok(())
        });
        let rank_dir = &temp.spec.ranks[0];
        let end = pool.load(rank_at(0) + rank::META_END).expect("meta") as usize;
        let mut meta = std::fs::read(rank_dir.join(META_FILE)).expect("meta");
        meta.truncate(end);
        let log = std::fs::read(rank_dir.join(LOG_FILE)).expect("log");
        let dir = parent.join(format!("pil4dfs-fuzz-{}", uuid::Uuid::new_v4().simple()));
        let own = dir.join(rank_dir.file_name().expect("name"));
        std::fs::create_dir_all(&own).expect("directory");
        for file in std::fs::read_dir(rank_dir).expect("rank") {
            let file = file.expect("entry");
            std::fs::copy(file.path(), own.join(file.file_name())).expect("copy");
        }
        let frames = frames_of(&meta);
        let sequence = pool.load(header::CHECKPOINT_SEQUENCE).expect("sequence");
        pool.leave().expect("leave");
        Image {
            spec: PoolSpec {
                ranks: vec![own],
                runtime_dir: dir.clone(),
                ..temp.spec.clone()
            },
            dir,
            log,
            meta,
            tail: tail.expect("log"),
            sequence,
            start: base.start,
            records,
            frames,
        }
    }

    /// Inputs for [`Image::log`].
    pub fn log_seeds(&self) -> Vec<Vec<u8>> {
        let all = [vec![0], self.records.concat()].concat();
        let each = self.records.iter().map(|r| [vec![1], r.clone()].concat());
        each.chain([all]).collect()
    }

    /// Inputs for [`Image::checkpoint`].
    pub fn checkpoint_seeds(&self) -> Vec<Vec<u8>> {
        let all = [vec![0], self.frames.concat()].concat();
        let each = self.frames.iter().map(|f| [vec![1], f.clone()].concat());
        each.chain([all]).collect()
    }

    /// Opens the pool with records behind the end of its log: after a flag (1: the power failed, 2:
    /// the bytes replace what lies there), each is a kind, a number of words, the fourth word of
    /// the head, and the words.
    pub fn log(&self, input: &[u8]) {
        let mut input = Input(input);
        let flags = input.byte();
        let mut log = self.log.clone();
        let (mut position, mut sum) = self.tail;
        let place = |position: u64| (LOG_FILE_HEADER + position % RING) as usize;
        if flags & 2 != 0 {
            let from = LOG_FILE_HEADER as usize + usize::from(u16::from_le_bytes(input.bytes()));
            for (to, byte) in log[from..].iter_mut().zip(input.0) {
                *to = *byte;
            }
            input.0 = &[];
        }
        while !input.is_empty() {
            let kind = input.byte();
            let count = usize::from(input.byte());
            let extra = input.word();
            let bytes = ((RECORD_HEADER + count) * 8) as u64;
            if RING - position % RING < bytes || position + bytes - self.start > RING {
                break;
            }
            let head = u64::from(kind) << 24 | bytes | u64::from(sum) << 32;
            let mut record = vec![head, position, 0, extra];
            record.extend(input.words(count));
            debug_assert_eq!(kind_and_bytes(head), (kind, bytes));
            sum = record_sum(&record);
            record[2] = u64::from(sum);
            log[place(position)..place(position) + bytes as usize]
                .copy_from_slice(as_bytes(&record));
            position += bytes;
        }
        self.open(&log, &self.meta, flags & 1 != 0).ok();
    }

    /// Opens the pool with a whole checkpoint more, of a page of this number.
    pub fn with_frame_of(&self, page: u64) -> Result<(), EngineError> {
        let state = PageState {
            kind: kind::BLOB,
            replicas: 1,
            ..PageState::unpack(0)
        };
        let mut meta = self.meta.clone();
        let content = [7; PAGE as usize / 8];
        self.push_frame(&mut meta, page, [state.pack(), 0, 0], &content);
        self.push_end(&mut meta);
        self.open(&self.log, &meta, false)
    }

    /// Opens the pool with a whole checkpoint more, which has the log go on from this position.
    pub fn with_start_at(&self, start: u64) -> Result<(), EngineError> {
        let mut meta = self.meta.clone();
        self.push_frame(&mut meta, FRAME_END, [0, start, self.tail.0], &[]);
        self.open(&self.log, &meta, true)
    }

    /// Opens the pool with a record more, of a change of a word of the arena.
    pub fn with_change_at(&self, offset: u64) -> Result<(), EngineError> {
        let (position, sum) = self.tail;
        let entry = (offset / 8) | (1 << 40) | ENTRY_DURABLE;
        let bytes = (RECORD_HEADER as u64 + 2) * 8;
        let mut record = vec![bytes | u64::from(sum) << 32, position, 0, 0, entry, 7];
        record[2] = u64::from(record_sum(&record));
        let mut log = self.log.clone();
        let at = (LOG_FILE_HEADER + position % RING) as usize;
        log[at..at + bytes as usize].copy_from_slice(as_bytes(&record));
        self.open(&log, &self.meta, false)
    }

    /// Appends a frame of the checkpoint after the last.
    fn push_frame(&self, meta: &mut Vec<u8>, page: u64, words: [u64; 3], content: &[u64]) {
        let [state, start, end] = words;
        let (sequence, len) = (self.sequence + 1, content.len() as u64);
        let mut frame = vec![FRAME_MAGIC, sequence, 0, page, state, start, end, len];
        frame.extend_from_slice(content);
        frame[2] = u64::from(checksum(&frame));
        meta.extend_from_slice(as_bytes(&frame));
    }

    /// Ends that checkpoint where the log ends.
    fn push_end(&self, meta: &mut Vec<u8>) {
        let (position, sum) = self.tail;
        self.push_frame(meta, FRAME_END, [u64::from(sum), position, position], &[]);
    }

    /// Opens the pool with another checkpoint: after a flag (1: the power failed, 2: the bytes
    /// replace the file), each frame is a page, a state, and half as many words as the next byte
    /// says, doubled for a whole page; a page number beyond all is the end.
    pub fn checkpoint(&self, input: &[u8]) {
        let mut input = Input(input);
        let flags = input.byte();
        let mut meta = self.meta.clone();
        if flags & 2 != 0 {
            meta = input.0.to_vec();
            input.0 = &[];
        }
        let mut push = |page: u64, words: [u64; 3], content: &[u64]| {
            self.push_frame(&mut meta, page, words, content);
        };
        while !input.is_empty() {
            let page = u64::from(u32::from_le_bytes(input.bytes()));
            let state = input.word();
            match page {
                0xffff_ffff => push(FRAME_END, [state, input.word(), input.word()], &[]),
                0xffff_fffe => push(FRAME_FULL, [0; 3], &[]),
                page => {
                    // A number that is possible takes memory up to there: of that, little.
                    let page = match page < PAGES_BEYOND {
                        true => page % PAGES,
                        false => page,
                    };
                    let count = usize::from(input.byte()) * 2;
                    let mut content = input.words(count.min(PAGE as usize / 8));
                    content.resize(PAGE as usize / 8, 0);
                    push(page, [state, 0, 0], &content);
                }
            }
        }
        self.push_end(&mut meta);
        self.open(&self.log, &meta, flags & 1 != 0).ok();
    }

    /// Recovers the pool and, if that succeeds, uses it a little.
    fn open(&self, log: &[u8], meta: &[u8], power_failed: bool) -> Result<(), EngineError> {
        let own = &self.spec.ranks[0];
        let mut log = log.to_vec();
        if power_failed {
            log[BOOT_AT..BOOT_AT + 8].fill(0x55);
        }
        std::fs::write(own.join(LOG_FILE), &log).expect("log");
        std::fs::write(own.join(META_FILE), meta).expect("meta");
        let pool = build_image(&self.spec)?;
        use_it(&pool);
        pool.leave().unwrap_or_default();
        let Pool { arena, log, .. } = pool;
        // SAFETY: the pool is given up, and nobody else has known it.
        let unmapped = unsafe { [arena.unmap(), log.unmap()] };
        assert_eq!(unmapped, [Ok(()); 2]);
        Ok(())
    }
}

/// What an arena holds, to be put back: the pool must be this process's alone, and at rest.
pub struct Kept(Vec<(u64, Vec<u64>)>);

/// Parts of the arena that exist.
fn parts(pool: &Pool) -> [(u64, u64); 3] {
    let pages = pool.load(header::PAGES_BACKED).expect("pages");
    [
        (0, at::FIXED_END),
        (at::DESCRIPTORS, pages * at::DESCRIPTOR_BYTES),
        (at::PAGES, pages * PAGE),
    ]
}

impl Kept {
    /// What it holds now.
    pub fn of(pool: &Pool) -> Kept {
        let keep = |(from, bytes): (u64, u64)| {
            let mut words = vec![0; (bytes / 8) as usize];
            pool.words(from, &mut words).expect("words");
            (from, words)
        };
        Kept(parts(pool).map(keep).to_vec())
    }

    /// Puts it back; what the arena has grown by since is zeros again.
    pub fn restore(&self, pool: &Pool) {
        const PIECE: usize = PAGE as usize / 8;
        let (mut now, zeros) = ([0; PIECE], [0; PIECE]);
        for ((from, bytes), (_, kept)) in parts(pool).into_iter().zip(&self.0) {
            for (i, at) in (from..from + bytes).step_by(PAGE as usize).enumerate() {
                pool.words(at, &mut now).expect("words");
                let kept = kept.get(i * PIECE..(i + 1) * PIECE).unwrap_or(&zeros);
                if now == kept {
                    continue;
                }
                for (at, word) in (at..).step_by(8).zip(kept) {
                    pool.store(at, *word).expect("word");
                }
            }
        }
    }
}

/// Uses a pool a little; whether all went well does not matter.
fn use_it(pool: &Pool) -> bool {
    let change = || {
        let mut tx = pool.tx(&[LockId::Target(0)])?;
        tx.alloc(kind::MISC, 256, 0, 1)?;
        tx.alloc_page(kind::BLOB, 0, 1, false)?;
        tx.commit()
    };
    let changed = (0..3).all(|_| change().is_ok());
    changed & pool.checkpoint().is_ok() & pool.sync().is_ok()
}

/// The frames of a file as inputs.
fn frames_of(meta: &[u8]) -> Vec<Vec<u8>> {
    let (words, _) = meta.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|w| u64::from_le_bytes(*w)).collect();
    let mut rest = words.as_slice();
    let mut found = Vec::new();
    while let Some(head) = rest.get(..FRAME_HEAD) {
        let len = FRAME_HEAD + head[7] as usize;
        let Some(content) = rest.get(FRAME_HEAD..len) else {
            break;
        };
        let mut input = (head[3] as u32).to_le_bytes().to_vec();
        input.extend_from_slice(&head[4].to_le_bytes());
        if head[3] == FRAME_END {
            input.extend_from_slice(as_bytes(&head[5..7]));
        } else if head[3] < FRAME_FULL {
            input.push(u8::MAX);
            input.extend_from_slice(as_bytes(&content[..510.min(content.len())]));
        }
        found.push(input);
        rest = &rest[len..];
    }
    found
}
