//! Finds the `syscall` instructions of a text and the ranges that a 5-byte jump may replace.
//!
//! A pure function of bytes. A range holds the instruction and whole neighbours, none of which a
//! known branch may enter; neighbours are such that `emit` can place them elsewhere. Branch
//! targets are those of direct branches and of the offset tables that a `lea` points to.

use crate::classes::{CLASS_COUNT, Class, ClassTable};
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

/// Call number of a site that is not known before run time.
pub(crate) const NR_UNKNOWN: u32 = u32::MAX;
const JUMP_LEN: usize = 5;
const LOOK_BACK: usize = 12;

/// A `syscall` instruction and the bytes to be replaced around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Start of the range, from the start of the text.
    pub(crate) start: u32,
    /// Length of the range, 5..=24.
    pub(crate) len: u8,
    /// Where in the range the `syscall` instruction begins.
    pub(crate) syscall_at: u8,
    /// Call number or [`NR_UNKNOWN`].
    pub(crate) nr: u32,
}

/// What was found in a text.
#[derive(Default, Debug)]
pub(crate) struct Analysis {
    /// Sites to be rewritten, in ascending order.
    pub(crate) sites: Vec<Site>,
    /// Offset and number of sites of interest that cannot be rewritten.
    pub(crate) refused: Vec<(u32, u32)>,
}

struct BitSet(Vec<u64>);

impl BitSet {
    fn new(bits: usize) -> BitSet {
        BitSet(vec![0; bits / 64 + 1])
    }
    fn set(&mut self, bit: usize) {
        if let Some(word) = self.0.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }
    fn get(&self, bit: usize) -> bool {
        self.0
            .get(bit / 64)
            .is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }
    fn any(&self, from: usize, to: usize) -> bool {
        (from..to).any(|bit| self.get(bit))
    }
}

struct Sweep<'a> {
    text: &'a [u8],
    va: u64,
    starts: BitSet,
    targets: BitSet,
    syscalls: Vec<u32>,
    tables: Vec<u64>,
}

/// Analyses `text`, loaded or to be loaded at `va`; `data` are the other readable segments, in
/// which jump tables lie. With `every`, uninteresting calls are sites too.
pub(crate) fn analyse(
    text: &[u8],
    va: u64,
    data: &[(u64, &[u8])],
    classes: &ClassTable,
    every: bool,
) -> Analysis {
    let mut sweep = Sweep {
        text,
        va,
        starts: BitSet::new(text.len()),
        targets: BitSet::new(text.len()),
        syscalls: Vec::new(),
        tables: Vec::new(),
    };
    sweep.decode();
    sweep.read_tables(data);
    let mut result = Analysis::default();
    let mut free_from = 0;
    for i in 0..sweep.syscalls.len() {
        let at = sweep.syscalls[i] as usize;
        let before = sweep.before(at, free_from);
        let nr = sweep.number(at, &before);
        let left = class_of(nr, classes) == Class::Native && !every;
        if left || nr as usize == crate::nr::RT_SIGRETURN {
            continue;
        }
        let limit = sweep
            .syscalls
            .get(i + 1)
            .map_or(text.len(), |&next| next as usize);
        match sweep.window(at, &before, limit) {
            Some((start, end)) => {
                free_from = end;
                result.sites.push(Site {
                    start: start as u32,
                    len: (end - start) as u8,
                    syscall_at: (at - start) as u8,
                    nr,
                });
            }
            None => result.refused.push((at as u32, nr)),
        }
    }
    result
}

/// The class under which a site is handled; unknown numbers are tested at run time.
pub(crate) fn class_of(nr: u32, classes: &ClassTable) -> Class {
    match nr as usize {
        _ if nr == NR_UNKNOWN => Class::Always,
        nr if nr < CLASS_COUNT => classes[nr],
        _ => Class::Native,
    }
}

impl Sweep<'_> {
    fn decode(&mut self) {
        let mut decoder =
            Decoder::with_ip(64, self.text, self.va, DecoderOptions::NO_INVALID_CHECK);
        let mut insn = Instruction::default();
        while decoder.can_decode() {
            let at = decoder.position();
            decoder.decode_out(&mut insn);
            if insn.is_invalid() {
                if decoder.set_position(at + 1).is_err() {
                    break;
                }
                decoder.set_ip(self.va + at as u64 + 1);
                continue;
            }
            self.starts.set(at);
            if insn.code() == Code::Syscall {
                self.syscalls.push(at as u32);
                continue;
            }
            match insn.op0_kind() {
                OpKind::NearBranch64 => {
                    let target = insn.near_branch_target().wrapping_sub(self.va);
                    if (target as usize) < self.text.len() {
                        self.targets.set(target as usize);
                    }
                }
                OpKind::Register
                    if insn.code() == Code::Lea_r64_m && insn.is_ip_rel_memory_operand() =>
                {
                    self.tables.push(insn.ip_rel_memory_address());
                }
                _ => {}
            }
        }
    }

    /// Marks what offset tables point to. Whatever looks like a table counts as one.
    fn read_tables(&mut self, data: &[(u64, &[u8])]) {
        let mut tables = core::mem::take(&mut self.tables);
        tables.sort_unstable();
        tables.dedup();
        for (i, &table) in tables.iter().enumerate() {
            let own_text = table.wrapping_sub(self.va);
            if (own_text as usize) < self.text.len() {
                // A code address taken by `lea`: a label, such as the end of a cancellation window.
                self.targets.set(own_text as usize);
                continue;
            }
            let next = tables.get(i + 1).copied().unwrap_or(u64::MAX);
            let Some((va, bytes)) = data
                .iter()
                .find(|(va, bytes)| table >= *va && table - va < bytes.len() as u64)
            else {
                continue;
            };
            let mut at = table;
            while at < next && at - va + 4 <= bytes.len() as u64 {
                let raw = &bytes[(at - va) as usize..(at - va) as usize + 4];
                let offset = i32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
                let target = table
                    .wrapping_add_signed(i64::from(offset))
                    .wrapping_sub(self.va);
                if target as usize >= self.text.len() || !self.starts.get(target as usize) {
                    break;
                }
                self.targets.set(target as usize);
                at += 4;
            }
        }
    }

    fn one(&self, at: usize) -> Instruction {
        let bytes = self.text.get(at..).unwrap_or_default();
        Decoder::with_ip(64, bytes, self.va + at as u64, DecoderOptions::NONE).decode()
    }

    /// Up to `LOOK_BACK` instructions that lie directly before `at`, nearest first, none of them
    /// before `limit`.
    fn before(&self, at: usize, limit: usize) -> Vec<Instruction> {
        let mut found = Vec::new();
        let mut end = at;
        while found.len() < LOOK_BACK && end > limit {
            let lowest = end.saturating_sub(15).max(limit);
            let Some(start) = (lowest..end).rev().find(|&s| self.starts.get(s)) else {
                break;
            };
            let insn = self.one(start);
            if insn.is_invalid() || start + insn.len() != end {
                break;
            }
            found.push(insn);
            end = start;
        }
        found
    }

    fn number(&self, at: usize, before: &[Instruction]) -> u32 {
        number_set_by(before, at, |offset| self.targets.get(offset), self.va)
    }

    /// The range to replace: the instruction with followers if possible, else with predecessors,
    /// else with both.
    fn window(&self, at: usize, before: &[Instruction], limit: usize) -> Option<(usize, usize)> {
        for count in 0..=3 {
            let mut start = at;
            let mut usable = true;
            for insn in before.iter().take(count) {
                usable &= movable(insn, false) && !self.targets.get(start);
                start = (insn.ip() - self.va) as usize;
            }
            if !usable || before.len() < count {
                return None;
            }
            let end = self.extend(start, at + 2, limit);
            if end - start >= JUMP_LEN && !self.targets.any(start + 1, end) {
                return Some((start, end));
            }
        }
        None
    }

    /// The end of a range that begins at `start`, with followers from `end` on as far as needed.
    fn extend(&self, start: usize, mut end: usize, limit: usize) -> usize {
        let mut open = true;
        while end - start < JUMP_LEN {
            let insn = self.one(end);
            let next = end + insn.len();
            if insn.is_invalid() || next > limit || self.targets.get(end) {
                break;
            }
            let padding = !open && matches!(insn.mnemonic(), Mnemonic::Int3 | Mnemonic::Nop);
            if !padding && (!open || !movable(&insn, true)) {
                break;
            }
            open &= !matches!(
                insn.flow_control(),
                FlowControl::Return | FlowControl::UnconditionalBranch
            );
            end = next;
        }
        end
    }
}

/// Can `emit` place this instruction elsewhere? Branches only after the system call.
fn movable(insn: &Instruction, after: bool) -> bool {
    match insn.flow_control() {
        FlowControl::Next => insn.code() != Code::Syscall,
        FlowControl::Return => after && insn.code() == Code::Retnq,
        FlowControl::UnconditionalBranch => after && insn.is_jmp_short_or_near(),
        FlowControl::ConditionalBranch => after && insn.is_jcc_short_or_near(),
        _ => false,
    }
}

/// The number that the instructions directly before `at`, nearest first, leave in rax.
fn number_set_by(
    before: &[Instruction],
    at: usize,
    is_target: impl Fn(usize) -> bool,
    va: u64,
) -> u32 {
    let mut info = InstructionInfoFactory::new();
    let mut later = at;
    for insn in before {
        if is_target(later) {
            return NR_UNKNOWN;
        }
        later = (insn.ip() - va) as usize;
        match insn.flow_control() {
            FlowControl::Next | FlowControl::ConditionalBranch => {}
            _ => return NR_UNKNOWN,
        }
        let writes_rax = info.info(insn).used_registers().iter().any(|used| {
            used.register().full_register() == Register::RAX
                && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
        });
        if !writes_rax {
            continue;
        }
        return match insn.code() {
            Code::Mov_r32_imm32 | Code::Mov_rm32_imm32 => insn.immediate32(),
            Code::Mov_rm64_imm32 => insn.immediate32to64() as u32,
            Code::Xor_r32_rm32 | Code::Xor_rm32_r32
                if insn.op0_register() == insn.op1_register() =>
            {
                0
            }
            _ => NR_UNKNOWN,
        };
    }
    NR_UNKNOWN
}

/// How far before a candidate decoding begins, and from how many offsets.
const SYNC_DISTANCE: usize = 64;
const SYNC_STARTS: usize = 32;

/// Does `text` hold a `syscall` instruction that may make a call of interest? Looks at each place
/// where the two bytes are, and takes it for an instruction if decoding from most offsets
/// before it arrives there. Meant for objects too big for a sweep.
pub(crate) fn has_raw_calls(text: &[u8], classes: &ClassTable) -> bool {
    let mut from = 0;
    while let Some(found) = text.get(from..).and_then(find_pair) {
        let at = from + found;
        from = at + 1;
        let first = at.saturating_sub(SYNC_DISTANCE);
        let mut chain: Vec<Instruction> = Vec::new();
        let (mut hits, mut tried) = (0, 0);
        for start in first..at.min(first + SYNC_STARTS) {
            tried += 1;
            let mut decoder =
                Decoder::with_ip(64, &text[start..at + 2], start as u64, DecoderOptions::NONE);
            let mut seen = Vec::new();
            while start + decoder.position() < at {
                seen.push(decoder.decode());
            }
            if start + decoder.position() == at {
                hits += 1;
                chain = seen;
            }
        }
        if hits * 4 < tried * 3 {
            continue;
        }
        chain.reverse();
        let valid = chain.iter().take_while(|insn| !insn.is_invalid()).count();
        chain.truncate(valid.min(LOOK_BACK));
        let nr = number_set_by(&chain, at, |_| false, 0);
        let next = decode_at(text, at + 2);
        if class_of(nr, classes) != Class::Native
            && (nr != NR_UNKNOWN || looks_deliberate(&chain, &next))
        {
            return true;
        }
    }
    false
}

fn decode_at(text: &[u8], at: usize) -> Instruction {
    let bytes = text.get(at..).unwrap_or_default();
    Decoder::with_ip(64, bytes, at as u64, DecoderOptions::NONE).decode()
}

/// Tables in a text decode to something too. Around a real call, arguments are moved before and
/// the result is looked at behind.
fn looks_deliberate(before: &[Instruction], next: &Instruction) -> bool {
    use Mnemonic::{
        Add, And, Call, Cmp, Endbr64, Jmp, Lea, Mov, Movsxd, Movzx, Neg, Nop, Or, Pop, Push, Ret,
        Sub, Test, Xor,
    };
    let high_byte = |insn: &Instruction| {
        (0..insn.op_count()).any(|i| {
            insn.op_kind(i) == OpKind::Register
                && matches!(
                    insn.op_register(i),
                    Register::AH | Register::BH | Register::CH | Register::DH
                )
        })
    };
    let ordinary = |insn: &Instruction| {
        let known = matches!(
            insn.mnemonic(),
            Mov | Movsxd
                | Movzx
                | Lea
                | Xor
                | And
                | Or
                | Add
                | Sub
                | Cmp
                | Test
                | Push
                | Pop
                | Nop
                | Endbr64
                | Call
                | Ret
                | Jmp
        ) || insn.is_jcc_short_or_near();
        known && !high_byte(insn)
    };
    let nearest = before
        .first()
        .is_some_and(|insn| matches!(insn.mnemonic(), Mov | Movsxd | Lea | Xor | Pop | Nop));
    let looked_at = matches!(
        next.mnemonic(),
        Cmp | Test | Mov | Movsxd | Neg | Ret | Pop | Push | Nop | Xor | Lea | Jmp | Add
    ) || next.is_jcc_short_or_near();
    nearest && looked_at && !high_byte(next) && before.iter().take(4).all(ordinary)
}

fn find_pair(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == [0x0f, 0x05])
}
