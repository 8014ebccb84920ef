//! The analyser and the emitter as pure functions of bytes: small golden cases, and the C library
//! and dynamic linker of this machine.

use super::analyse::{Analysis, NR_UNKNOWN, Site, analyse, class_of};
use super::emit::emit;
use crate::classes::{Class, FILE_CALLS};
use crate::nr;
use iced_x86::{Code, Decoder, DecoderOptions};

const VA: u64 = 0x10_0000;
const STUBS: u64 = 0x40_0000;
const CELLS: u64 = 0x40_1000;

fn found(text: &[u8]) -> Analysis {
    analyse(text, VA, &[], &FILE_CALLS, false)
}

fn one(text: &[u8]) -> Site {
    let found = found(text);
    assert_eq!(
        (found.sites.len(), found.refused.len()),
        (1, 0),
        "{found:?}"
    );
    found.sites[0]
}

fn site(start: u32, len: u8, syscall_at: u8, nr: usize) -> Site {
    Site {
        start,
        len,
        syscall_at,
        nr: nr as u32,
    }
}

/// `mov eax, n`
fn mov_eax(n: usize) -> Vec<u8> {
    [&[0xb8][..], &(n as u32).to_le_bytes()].concat()
}

const SYSCALL: &[u8] = &[0x0f, 0x05];
const CMP: &[u8] = &[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff];
const RET: &[u8] = &[0xc3];

#[test]
fn followers_are_preferred() {
    let text = [&mov_eax(nr::PREAD64), SYSCALL, CMP, RET].concat();
    assert_eq!(one(&text), site(5, 8, 0, nr::PREAD64));
}

#[test]
fn zeroed_register_is_read() {
    let text = [&[0x31, 0xc0], SYSCALL, CMP, RET].concat();
    assert_eq!(one(&text), site(2, 8, 0, nr::READ));
}

#[test]
fn predecessor_serves_where_followers_do_not() {
    // syscall; ret, then the next function without padding.
    let text = [&mov_eax(nr::FSYNC), SYSCALL, RET, &[0x55, 0x55, 0xc3]].concat();
    assert_eq!(one(&text), site(0, 7, 5, nr::FSYNC));
}

#[test]
fn padding_after_return_is_free() {
    let jump = [0xeb, 0x05]; // jmp to the syscall: no predecessor, number unknown
    let text = [&jump[..], &mov_eax(nr::FSYNC), SYSCALL, RET, &[0x90; 4]].concat();
    assert_eq!(one(&text), site(7, 5, 0, NR_UNKNOWN as usize));
}

#[test]
fn branch_into_the_range_is_respected() {
    // syscall; (target) cmp; jb target  -> the predecessor must do.
    let text = [&mov_eax(nr::FSYNC), SYSCALL, CMP, &[0x72, 0xf8], RET].concat();
    assert_eq!(one(&text), site(0, 7, 5, nr::FSYNC));
    // And none where the syscall itself is a target too.
    let text = [
        &mov_eax(nr::FSYNC),
        SYSCALL,
        CMP,
        &[0x72, 0xf8, 0x72, 0xf4],
        RET,
    ]
    .concat();
    let found = found(&text);
    assert_eq!((found.sites.len(), found.refused.len()), (0, 1));
}

#[test]
fn jump_table_targets_count() {
    // lea rdx, [rip + table]; mov eax, n; syscall; cmp; ret -- with an entry that leads to the cmp.
    let table_va = VA + 0x1000;
    let lea = [&[0x48, 0x8d, 0x15][..], &0xff9u32.to_le_bytes()].concat();
    let text = [&lea, &mov_eax(nr::FSYNC), SYSCALL, CMP, RET].concat();
    let table = (VA as i64 + 14 - table_va as i64) as i32;
    let data = table.to_le_bytes();
    let with = analyse(&text, VA, &[(table_va, &data)], &FILE_CALLS, false);
    assert_eq!(with.sites, [site(7, 7, 5, nr::FSYNC)]);
    let without = analyse(&text, VA, &[(table_va, &[0xff; 4])], &FILE_CALLS, false);
    assert_eq!(without.sites, [site(12, 8, 0, nr::FSYNC)]);
}

#[test]
fn uninteresting_and_sigreturn_stay() {
    let text = [&mov_eax(nr::GETPID), SYSCALL, CMP, RET].concat();
    assert!(found(&text).sites.is_empty());
    // mov rax, 15 in the 7-byte form
    let text = [&[0x48, 0xc7, 0xc0, 15, 0, 0, 0][..], SYSCALL, &[0x90; 8]].concat();
    let found = found(&text);
    assert!(found.sites.is_empty() && found.refused.is_empty());
}

#[test]
fn stub_of_a_descriptor_call() {
    let mut text = [&mov_eax(nr::FSYNC), SYSCALL, CMP, RET].concat();
    let sites = [one(&text)];
    let out = emit(&mut text, VA, &sites, &FILE_CALLS, STUBS, CELLS, false).unwrap();
    let jump = (STUBS as i64 - (VA as i64 + 10)) as i32;
    let mut expect = mov_eax(nr::FSYNC);
    expect.push(0xe9);
    expect.extend(jump.to_le_bytes());
    expect.extend([0xcc; 3]);
    expect.extend(RET);
    assert_eq!(text, expect);
    let rel = |at: i64, to: i64| ((to - (at + 4)) as i32).to_le_bytes();
    let mut stub = vec![0x0f, 0xb7, 0xcf, 0x4c, 0x8b, 0x1d];
    stub.extend(rel(STUBS as i64 + 6, CELLS as i64));
    stub.extend([0x41, 0x0f, 0xb6, 0x0c, 0x0b, 0xe3, 21]);
    stub.extend([0x48, 0x8d, 0x64, 0x24, 0x80, 0xff, 0x15]);
    stub.extend(rel(STUBS as i64 + 24, CELLS as i64 + 8));
    stub.extend([0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0, 0xeb, 2]);
    assert_eq!(out.placed[0].native as usize, stub.len());
    stub.extend(SYSCALL);
    stub.extend(CMP);
    stub.push(0xe9);
    stub.extend(rel(STUBS as i64 + stub.len() as i64, VA as i64 + 13));
    assert_eq!(out.code, stub);
}

#[test]
fn moved_neighbours_keep_their_targets() {
    // syscall; jne +0x10 (short); and syscall; mov rdx, [rip + 0x100]
    for (tail, expect) in [
        (vec![0x75, 0x10, 0x90, 0x90], VA + 5 + 2 + 2 + 0x10),
        (
            vec![0x48, 0x8b, 0x15, 0, 1, 0, 0, 0x90, 0x90],
            VA + 5 + 2 + 7 + 0x100,
        ),
    ] {
        let mut text = [&mov_eax(nr::FSYNC)[..], SYSCALL, &tail, &[0x90; 0x20]].concat();
        let sites = [one(&text)];
        let out = emit(&mut text, VA, &sites, &FILE_CALLS, STUBS, CELLS, false).unwrap();
        let after = out.placed[0].native as usize + 2;
        let mut decoder = Decoder::with_ip(
            64,
            &out.code[after..],
            STUBS + after as u64,
            DecoderOptions::NONE,
        );
        let insn = decoder.decode();
        let target = match insn.is_ip_rel_memory_operand() {
            true => insn.ip_rel_memory_address(),
            false => insn.near_branch_target(),
        };
        assert_eq!(target, expect);
    }
}

#[test]
fn number_known_at_run_time_only() {
    // mov rax, rdi; ...; syscall as in syscall(2)
    let mut text = [&[0x48, 0x89, 0xf8][..], SYSCALL, CMP, RET].concat();
    let sites = [one(&text)];
    assert_eq!(sites[0].nr, NR_UNKNOWN);
    let out = emit(&mut text, VA, &sites, &FILE_CALLS, STUBS, CELLS, false).unwrap();
    let syscalls = out.code.windows(2).filter(|pair| *pair == SYSCALL).count();
    assert_eq!(syscalls, 2, "plain and clone");
}

type Part<'a> = (u64, &'a [u8]);

/// The executable segment of a file and the read-only ones, each with its address.
fn load(file: &[u8]) -> (Part<'_>, Vec<Part<'_>>) {
    let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let half = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let count = u16::from_le_bytes(file[56..58].try_into().unwrap()) as usize;
    let (mut text, mut data) = (None, Vec::new());
    for at in (0..count).map(|i| word(32) as usize + i * 56) {
        if half(at) != 1 {
            continue;
        }
        let (offset, va, len) = (word(at + 8) as usize, word(at + 16), word(at + 32) as usize);
        let bytes = &file[offset..offset + len];
        match half(at + 4) & 3 {
            1 => text = Some((va, bytes)),
            0 => data.push((va, bytes)),
            _ => {}
        }
    }
    (text.unwrap(), data)
}

#[test]
fn every_site_of_the_real_libraries_is_rewritten_soundly() {
    for (path, least) in [("/lib64/ld-linux-x86-64.so.2", 10), ("libc.so.6", 150)] {
        // libc lies in different directories; the dynamic linker knows where.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = match path.starts_with('/') {
            true => path,
            false => {
                let line = maps.lines().find(|line| line.ends_with(path)).unwrap();
                &line[line.find('/').unwrap()..]
            }
        };
        let file = std::fs::read(path).unwrap();
        let ((va, text), data) = load(&file);
        let found = analyse(text, va, &data, &FILE_CALLS, false);
        assert!(found.sites.len() >= least, "{path}: {}", found.sites.len());
        assert_eq!(found.refused, [], "{path}");
        let mut patched = text.to_vec();
        let stubs = va + 0x1000_0000;
        let out = emit(
            &mut patched,
            va,
            &found.sites,
            &FILE_CALLS,
            stubs,
            stubs + 0x10_0000,
            false,
        )
        .unwrap();
        assert_eq!(out.placed.len(), found.sites.len());
        let mut clean_from = 0;
        for (site, placed) in found.sites.iter().zip(&out.placed) {
            let (start, end) = (
                site.start as usize,
                site.start as usize + usize::from(site.len),
            );
            assert!(start >= clean_from && end - start >= 5);
            assert_eq!(text[clean_from..start], patched[clean_from..start]);
            clean_from = end;
            let at = start + usize::from(site.syscall_at);
            assert_eq!(text[at..at + 2], *SYSCALL);
            let jump = Decoder::with_ip(64, &patched[start..], va + start as u64, 0).decode();
            assert_eq!(jump.code(), Code::Jmp_rel32_64);
            assert_eq!(jump.near_branch_target(), stubs + u64::from(placed.stub));
            if class_of(site.nr, &FILE_CALLS) == Class::Fd0 {
                let native = placed.native as usize;
                assert_eq!(out.code[native..native + 2], *SYSCALL);
            }
        }
        assert_eq!(text[clean_from..], patched[clean_from..]);
        if path.contains("libc") {
            for wanted in [
                nr::READ,
                nr::OPENAT,
                nr::CLOSE,
                nr::CLONE,
                nr::EXECVE,
                nr::MMAP,
            ] {
                assert!(
                    found.sites.iter().any(|site| site.nr as usize == wanted),
                    "{wanted}"
                );
            }
        }
    }
}

#[test]
fn raw_calls_are_found_and_told_from_chance() {
    use super::analyse::has_raw_calls;
    let pad = [0x90u8; 80];
    let raw = [&pad[..], &mov_eax(nr::OPENAT), SYSCALL, RET, &pad].concat();
    assert!(has_raw_calls(&raw, &FILE_CALLS));
    let unknown = [&pad[..], &[0x48, 0x89, 0xf8], SYSCALL, RET, &pad].concat();
    assert!(has_raw_calls(&unknown, &FILE_CALLS));
    // sub; xchg; syscall; or, as a table of constants may decode
    let table = [
        &pad[..],
        &[0x28, 0xaa, 0x3f, 0x07, 0x1f, 0x02, 0x86, 0xfa],
        SYSCALL,
        &[0x09, 0xe6],
        &pad,
    ]
    .concat();
    assert!(!has_raw_calls(&table, &FILE_CALLS));
    let futex = [&pad[..], &mov_eax(nr::FUTEX), SYSCALL, RET, &pad].concat();
    assert!(!has_raw_calls(&futex, &FILE_CALLS));
    // mov rdx, 0x90050f90: the bytes are part of an immediate.
    let chance = [
        &pad[..],
        &[0x48, 0xc7, 0xc2, 0x90, 0x0f, 0x05, 0x00],
        RET,
        &pad,
    ]
    .concat();
    assert!(!has_raw_calls(&chance, &FILE_CALLS));
    assert!(!has_raw_calls(&[], &FILE_CALLS));
}
