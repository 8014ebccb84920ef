//! Writes the stubs and the jumps to them.
//!
//! A stub runs the moved predecessors, makes the cheap test of the call's class, calls the gate or
//! the kernel, runs the moved followers and jumps back. It reaches the process through pointer
//! cells that lie behind the stubs, so the stubs themselves are the same in every process.

use super::analyse::{NR_UNKNOWN, Site, class_of};
use crate::classes::{Class, ClassTable};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction};

/// Pointers the stubs go through; one page per module, filled at start.
#[repr(C)]
pub(crate) struct Cells {
    /// Byte per descriptor number modulo 65536, see `fdtab`.
    pub(crate) filter: usize,
    /// `pil4dfs_gate`.
    pub(crate) gate: usize,
    /// `pil4dfs_gate_clone_pre`.
    pub(crate) clone_pre: usize,
    /// `pil4dfs_gate_clone_post`.
    pub(crate) clone_post: usize,
    /// Offset of the thread's clone mode from the thread pointer.
    pub(crate) clone_mode: usize,
    /// The class of each call number, a byte each.
    pub(crate) classes: usize,
    /// A u32 that is not 0 while mappings are to be watched.
    pub(crate) maps: usize,
    /// Offset of the thread's selector byte from the thread pointer.
    pub(crate) selector: usize,
    /// `pil4dfs_native`.
    pub(crate) native: usize,
    /// `pil4dfs_gate_path`.
    pub(crate) gate_path: usize,
    /// `pil4dfs_gate_path_at`.
    pub(crate) gate_path_at: usize,
}

const CELL_FILTER: usize = core::mem::offset_of!(Cells, filter);
const CELL_GATE: usize = core::mem::offset_of!(Cells, gate);
const CELL_CLONE_PRE: usize = core::mem::offset_of!(Cells, clone_pre);
const CELL_CLONE_POST: usize = core::mem::offset_of!(Cells, clone_post);
const CELL_CLONE_MODE: usize = core::mem::offset_of!(Cells, clone_mode);
const CELL_CLASSES: usize = core::mem::offset_of!(Cells, classes);
const CELL_SELECTOR: usize = core::mem::offset_of!(Cells, selector);
const CELL_NATIVE: usize = core::mem::offset_of!(Cells, native);
const CELL_MAPS: usize = core::mem::offset_of!(Cells, maps);
const CELL_GATE_PATH: usize = core::mem::offset_of!(Cells, gate_path);
const CELL_GATE_PATH_AT: usize = core::mem::offset_of!(Cells, gate_path_at);

const SYSCALL: [u8; 2] = [0x0f, 0x05];
const RED_ZONE_DOWN: [u8; 5] = [0x48, 0x8d, 0x64, 0x24, 0x80];
const RED_ZONE_UP: [u8; 8] = [0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0];
const MOVZX_ECX_DI: [u8; 3] = [0x0f, 0xb7, 0xcf];
const MOVZX_ECX_SI: [u8; 3] = [0x0f, 0xb7, 0xce];
const MOVZX_ECX_DX: [u8; 3] = [0x0f, 0xb7, 0xca];
const MOVZX_ECX_R8W: [u8; 4] = [0x41, 0x0f, 0xb7, 0xc8];
const MOV_RCX_R8: [u8; 3] = [0x4c, 0x89, 0xc1];
/// `movzx ecx, byte ptr [r11 + rcx]`
const LOAD_FILTER: [u8; 5] = [0x41, 0x0f, 0xb6, 0x0c, 0x0b];
/// `mov ecx, dword ptr [r11]`
const LOAD_ECX_R11: [u8; 3] = [0x41, 0x8b, 0x0b];
const MOV_R11_CELL: [u8; 3] = [0x4c, 0x8b, 0x1d];
const MOV_RCX_CELL: [u8; 3] = [0x48, 0x8b, 0x0d];
const CALL_CELL: [u8; 2] = [0xff, 0x15];
const JRCXZ: u8 = 0xe3;
const JMP_SHORT: u8 = 0xeb;

/// Where a site's stub came to lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    /// Offset of the stub from the start of the stubs.
    pub(crate) stub: u32,
    /// Offset of the native `syscall` instruction.
    pub(crate) native: u32,
}

/// The stubs' code, and where each is.
pub(crate) struct Emitted {
    pub(crate) code: Vec<u8>,
    pub(crate) placed: Vec<Placed>,
}

struct Writer {
    code: Vec<u8>,
    va: u64,
    cells_va: u64,
    /// No system call from the stubs themselves: for Syscall User Dispatch.
    every: bool,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }
    fn here(&self) -> u64 {
        self.va + self.code.len() as u64
    }
    fn rel32(&mut self, target: u64) -> Option<()> {
        let distance = target.wrapping_sub(self.here() + 4) as i64;
        self.put(&i32::try_from(distance).ok()?.to_le_bytes());
        Some(())
    }
    fn with_cell(&mut self, op: &[u8], cell: usize) -> Option<()> {
        self.put(op);
        self.rel32(self.cells_va + cell as u64)
    }
    fn short(&mut self, op: u8) -> usize {
        self.put(&[op, 0]);
        self.code.len()
    }
    fn land(&mut self, after_op: usize) -> Option<()> {
        let distance = i8::try_from(self.code.len() - after_op).ok()?;
        *self.code.get_mut(after_op - 1)? = distance as u8;
        Some(())
    }
    fn call_gate(&mut self, cell: usize) -> Option<()> {
        self.put(&RED_ZONE_DOWN);
        self.with_cell(&CALL_CELL, cell)?;
        self.put(&RED_ZONE_UP);
        Some(())
    }

    /// Places `insn` here; true if nothing can follow it.
    fn relocate(&mut self, insn: &Instruction, bytes: &[u8]) -> Option<bool> {
        match insn.flow_control() {
            FlowControl::Return => {
                self.put(bytes);
                Some(true)
            }
            FlowControl::UnconditionalBranch => {
                self.put(&[0xe9]);
                self.rel32(insn.near_branch_target())?;
                Some(true)
            }
            FlowControl::ConditionalBranch => {
                // The low four bits of the opcode are the condition, short and near alike.
                let condition = match bytes {
                    [0x0f, op @ 0x80..=0x8f, ..] | [op @ 0x70..=0x7f, ..] => op & 0x0f,
                    _ => return None,
                };
                self.put(&[0x0f, 0x80 | condition]);
                self.rel32(insn.near_branch_target())?;
                Some(false)
            }
            _ if insn.is_ip_rel_memory_operand() => {
                let mut decoder = Decoder::with_ip(64, bytes, insn.ip(), DecoderOptions::NONE);
                let again = decoder.decode();
                let at = decoder.get_constant_offsets(&again).displacement_offset();
                let next = self.here() + bytes.len() as u64;
                let distance = insn.ip_rel_memory_address().wrapping_sub(next) as i64;
                let start = self.code.len();
                self.put(bytes);
                let disp = i32::try_from(distance).ok()?.to_le_bytes();
                self.code
                    .get_mut(start + at..start + at + 4)?
                    .copy_from_slice(&disp);
                Some(false)
            }
            _ => {
                self.put(bytes);
                Some(false)
            }
        }
    }

    fn fd_test(&mut self, which: &[u8]) -> Option<usize> {
        self.put(which);
        self.with_cell(&MOV_R11_CELL, CELL_FILTER)?;
        self.put(&LOAD_FILTER);
        Some(self.short(JRCXZ))
    }

    /// After a test that left `native` and fell through to the gate: gate, then the kernel.
    fn gate_or_native(&mut self, native: usize) -> Option<u32> {
        self.call_gate(CELL_GATE)?;
        let done = self.short(JMP_SHORT);
        self.land(native)?;
        let at = self.native()?;
        self.land(done)?;
        Some(at)
    }

    /// A plain system call; returns its offset.
    fn native(&mut self) -> Option<u32> {
        let at = self.code.len() as u32;
        if self.every {
            self.call_gate(CELL_NATIVE)?;
        } else {
            self.put(&SYSCALL);
        }
        Some(at)
    }

    /// The call itself; returns the offset of the native `syscall` instruction, or of the call
    /// of the gate where there is none.
    fn body(&mut self, class: Class, known: bool) -> Option<u32> {
        if !known {
            return self.unknown();
        }
        match class {
            Class::Fd0 => {
                let native = self.fd_test(&MOVZX_ECX_DI)?;
                self.gate_or_native(native)
            }
            Class::Fd01 | Class::Fd02 => {
                let second = self.fd_test(&MOVZX_ECX_DI)?;
                let ours = self.short(JMP_SHORT);
                self.land(second)?;
                let which = if class == Class::Fd01 {
                    &MOVZX_ECX_SI
                } else {
                    &MOVZX_ECX_DX
                };
                let native = self.fd_test(which)?;
                self.land(ours)?;
                self.gate_or_native(native)
            }
            Class::Map | Class::Unmap => {
                let mut ours = None;
                if class == Class::Map {
                    let next = self.fd_test(&MOVZX_ECX_R8W)?;
                    ours = Some(self.short(JMP_SHORT));
                    self.land(next)?;
                }
                self.with_cell(&MOV_R11_CELL, CELL_MAPS)?;
                self.put(&LOAD_ECX_R11);
                let native = self.short(JRCXZ);
                if let Some(ours) = ours {
                    self.land(ours)?;
                }
                self.gate_or_native(native)
            }
            Class::Arg4 => {
                self.put(&MOV_RCX_R8);
                let native = self.short(JRCXZ);
                self.gate_or_native(native)
            }
            Class::Clone => self.clone(),
            Class::Path0 => self.only_gate(CELL_GATE_PATH),
            Class::PathAt => self.only_gate(CELL_GATE_PATH_AT),
            Class::Native => self.native(),
            Class::Always | Class::Sigreturn => self.only_gate(CELL_GATE),
        }
    }

    fn only_gate(&mut self, cell: usize) -> Option<u32> {
        let at = self.code.len() as u32;
        self.call_gate(cell)?;
        Some(at)
    }

    fn clone(&mut self) -> Option<u32> {
        self.call_gate(CELL_CLONE_PRE)?;
        self.select(0)?;
        let at = self.code.len() as u32;
        self.put(&SYSCALL);
        self.select(1)?;
        let mut child = None;
        if self.every {
            // Every child has to be armed: mov rcx, rax; jrcxz post
            self.put(&[0x48, 0x89, 0xc1]);
            child = Some(self.short(JRCXZ));
        }
        self.with_cell(&MOV_RCX_CELL, CELL_CLONE_MODE)?;
        // mov rcx, fs:[rcx]
        self.put(&[0x64, 0x48, 0x8b, 0x09]);
        let skip = self.short(JRCXZ);
        if let Some(child) = child {
            self.land(child)?;
        }
        self.call_gate(CELL_CLONE_POST)?;
        self.land(skip)?;
        Some(at)
    }

    /// Sets the selector: 0 lets this stub's own system call through.
    fn select(&mut self, value: u8) -> Option<()> {
        if self.every {
            self.with_cell(&MOV_RCX_CELL, CELL_SELECTOR)?;
            // mov byte ptr fs:[rcx], value
            self.put(&[0x64, 0xc6, 0x01, value]);
        }
        Some(())
    }

    /// The number is known at run time only. Flags are dead: such sites sit in functions that
    /// got the number as an argument, and a comparison of the result follows.
    fn unknown(&mut self) -> Option<u32> {
        // cmp rax, 512; jae native
        self.put(&[0x48, 0x3d, 0x00, 0x02, 0x00, 0x00]);
        let high = self.short(0x73);
        self.with_cell(&MOV_R11_CELL, CELL_CLASSES)?;
        // movzx ecx, byte ptr [r11 + rax]; jrcxz native
        self.put(&[0x41, 0x0f, 0xb6, 0x0c, 0x03]);
        let plain = self.short(JRCXZ);
        // cmp ecx, Sigreturn; je native
        self.put(&[0x83, 0xf9, Class::Sigreturn as u8]);
        let sigreturn = self.short(0x74);
        // cmp ecx, Clone; je clone
        self.put(&[0x83, 0xf9, Class::Clone as u8]);
        let clone = self.short(0x74);
        self.call_gate(CELL_GATE)?;
        let done = self.short(JMP_SHORT);
        self.land(high)?;
        self.land(plain)?;
        self.land(sigreturn)?;
        let at = self.native()?;
        let done_native = self.short(JMP_SHORT);
        self.land(clone)?;
        self.clone()?;
        self.land(done)?;
        self.land(done_native)?;
        Some(at)
    }
}

/// Emits all stubs for `sites`, to lie at `stubs_va` with cells at `cells_va`, and writes the jumps
/// into `text`. With `every`, for Syscall User Dispatch, no stub makes a system call of its own but
/// the cloning ones. `None` if something does not fit, which leaves `text` unusable.
pub(crate) fn emit(
    text: &mut [u8],
    text_va: u64,
    sites: &[Site],
    classes: &ClassTable,
    stubs_va: u64,
    cells_va: u64,
    every: bool,
) -> Option<Emitted> {
    let mut out = Writer {
        code: Vec::new(),
        va: stubs_va,
        cells_va,
        every,
    };
    let mut placed = Vec::with_capacity(sites.len());
    for site in sites {
        while !out.code.len().is_multiple_of(16) {
            out.put(&[0xcc]);
        }
        let stub = out.code.len() as u32;
        let (start, len) = (site.start as usize, site.len as usize);
        let range = text.get(start..start + len)?.to_vec();
        let class = class_of(site.nr, classes);
        let mut native = 0;
        let mut open = true;
        let mut decoder =
            Decoder::with_ip(64, &range, text_va + start as u64, DecoderOptions::NONE);
        while decoder.can_decode() && open {
            let from = decoder.position();
            let insn = decoder.decode();
            let bytes = range.get(from..decoder.position())?;
            if from == site.syscall_at as usize {
                if insn.code() != Code::Syscall {
                    return None;
                }
                native = out.body(class, site.nr != NR_UNKNOWN)?;
            } else {
                open = !out.relocate(&insn, bytes)?;
            }
        }
        if open {
            out.put(&[0xe9]);
            out.rel32(text_va + (start + len) as u64)?;
        }
        placed.push(Placed { stub, native });
        let mut jump = Writer {
            code: Vec::new(),
            va: text_va + start as u64,
            cells_va,
            every,
        };
        jump.put(&[0xe9]);
        jump.rel32(stubs_va + u64::from(stub))?;
        let hole = text.get_mut(start..start + len)?;
        hole.fill(0xcc);
        hole.get_mut(..jump.code.len())?.copy_from_slice(&jump.code);
    }
    Some(Emitted {
        code: out.code,
        placed,
    })
}
