//! `execve` and `execveat`: the environment carried over, programs and scripts in the mount run.
//!
//! The kernel makes the call natively after the hook (`PassThen`), with arguments that point into
//! a [`Launch`]. If it fails the launch is freed in the second half; if it succeeds the image is
//! gone, except in a vfork child, whose parent frees it.

use crate::abi::*;
use crate::config::Value;
use crate::dispatch::{After, Served, Stop};
use crate::files;
use crate::handover;
use crate::kernel::{self, addr, addr_mut, call, text};
use crate::libraries::{self, Source};
use crate::route::{self, Arg, Resolved, Spot};
use crate::running::{self, Running};
use crate::user::NameRoom;
use crate::{calls, user};
use core::sync::atomic::Ordering;
use dfs::{Dfs, Ino};
use intercept::Call;
use std::boxed::Box;
use std::ffi::CString;
use std::vec::Vec;
use sys::set_once::SetOnce;
use sys::{Errno, Result};

/// Bytes of a file the kernel looks at to find out what it is.
const HEAD: usize = 256;
/// Interpreters of interpreters (execve(2): `ELOOP` beyond).
const SCRIPTS_MAX: usize = 5;
/// Entries of `argv` or `envp` that are believed; more is `E2BIG`.
const LIST_MAX: usize = 1 << 20;
/// Where a vfork child leaves its launch for the parent (`intercept::words`).
const WORD: usize = 0;
const EXE: &[u8] = b"D_IL_EXE=";
const LIBRARIES: &[u8] = b"D_IL_LIBRARIES=";
/// The next image lets go of what this exec closes: it may never use the mount otherwise.
const LEFT: &[u8] = b"D_IL_LEFT=";
const SEARCH: &[u8] = b"LD_LIBRARY_PATH=";
const PRELOAD: &[u8] = b"LD_PRELOAD=";

/// Environment entries that every program started from here gets.
struct Carried {
    /// `NAME=value` with NUL: the library's own variables.
    entries: Vec<Vec<u8>>,
    /// Our element of `LD_PRELOAD`.
    preload: Vec<u8>,
    /// Path in the mount of the program that runs.
    exe: Option<Vec<u8>>,
}

static CARRIED: SetOnce<Carried> = SetOnce::new();

/// Everything the kernel needs for one exec, alive until it has failed.
#[repr(align(16))]
struct Launch {
    strings: Vec<Vec<u8>>,
    argv: Vec<usize>,
    envp: Vec<usize>,
    memfd: i32,
    /// The description under which the file in the mount runs.
    program: Option<Running>,
    /// File from which the calling image runs, if it has let go of it.
    left: Option<Ino>,
    /// Directory with copies of the program's libraries.
    libraries: Option<Vec<u8>>,
    /// The kernel was given a path of its own: after `ENOENT` there is more to look at.
    kernel_path: bool,
}

/// At start: keeps copies of what has to be carried over, since programs overwrite their own
/// environment block.
pub(crate) fn remember(variables: impl Iterator<Item = Value>, exe: Option<Value>) {
    let mut entries = Vec::new();
    let mut preload = Vec::new();
    for entry in variables {
        let ours = [
            b"D_IL_".as_slice(),
            b"DAOS_POOL=",
            b"DAOS_CONT=",
            b"DAOS_EMBEDDED_ROOT=",
        ]
        .iter()
        .any(|name| entry.starts_with(name));
        if ours && !entry.starts_with(EXE) && !entry.starts_with(LIBRARIES) {
            entries.push(terminated(entry));
        }
        if let Some(list) = entry.strip_prefix(PRELOAD) {
            let element = list
                .split(|b| matches!(b, b':' | b' '))
                .find(|e| names_us(e));
            preload = element.unwrap_or(&[]).to_vec();
        }
    }
    let exe = exe.map(<[u8]>::to_vec).filter(|_| runs_from_memory());
    if let Some(path) = &exe {
        show_name(path);
    }
    let _kept = CARRIED.init(|| {
        Some(Carried {
            entries,
            preload,
            exe,
        })
    });
}

fn names_us(element: &[u8]) -> bool {
    element.windows(7).any(|w| w == b"pil4dfs")
}

fn terminated(bytes: &[u8]) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    copy.push(0);
    copy
}

fn runs_from_memory() -> bool {
    let mut buffer = [0u8; 64];
    kernel::readlink(c"/proc/self/exe", &mut buffer)
        .is_ok_and(|l| l.starts_with(b"/memfd:daos-exe"))
}

/// `comm` of a program started from memory would be the descriptor's number.
fn show_name(path: &[u8]) {
    const PR_SET_NAME: usize = 15;
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    let mut comm = [0u8; 16];
    for (to, from) in comm.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    let _named = kernel::raw(nr::PRCTL, [PR_SET_NAME, addr(&comm), 0, 0, 0, 0]);
}

/// Path of the running program if it was started from the mount.
pub(crate) fn program_path() -> Option<&'static [u8]> {
    CARRIED.get()?.exe.as_deref()
}

pub(crate) fn execve(c: &mut Call) -> Served {
    launch(c, Arg::path(0), c.args[1], c.args[2], 0)
}

pub(crate) fn execveat(c: &mut Call) -> Served {
    launch(c, Arg::at(0, 1), c.args[2], c.args[3], c.args[4] as u32)
}

fn launch(c: &mut Call, arg: Arg, argv: usize, envp: usize, flags: u32) -> Served {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Stop::Pass);
    }
    let Ok(environment) = list(envp) else {
        return Err(Stop::Pass);
    };
    let mut launch = Box::new(Launch {
        strings: Vec::new(),
        argv: Vec::new(),
        envp: Vec::new(),
        memfd: -1,
        program: None,
        left: None,
        libraries: None,
        kernel_path: false,
    });
    launch.set_environment(&environment, None);
    if let Some(ino) = calls::stat::empty_path(c, arg, flags).unwrap_or(None) {
        let held = crate::files::ours(arg.dirfd(c))?;
        let shown = calls::name::path_of_file(&held).unwrap_or_default();
        launch.argv = list(argv)?;
        let file = Program {
            fs: held.fs,
            ino,
            whole: shown.clone(),
        };
        launch.run(file, shown, &environment, c)?;
        return launch.go();
    }
    let how = route::follow(flags & AT_SYMLINK_NOFOLLOW == 0);
    let mut room = NameRoom::new();
    match route::resolve(c, arg, how, &mut room) {
        Ok(Resolved::Ours(spot)) => {
            launch.argv = list(argv)?;
            let given = path_given(&spot, arg, c);
            launch.run(Program::at(&spot)?, given, &environment, c)?;
        }
        Ok(Resolved::KernelPath(path)) => {
            c.args[arg.path & 7] = launch.keep_terminated(path);
            if let Some(dir) = arg.dir {
                c.args[dir & 7] = kernel::abi_cwd();
            }
            launch.point_environment(c, arg);
        }
        Ok(Resolved::Kernel | Resolved::Ancestor(_) | Resolved::Bad(_)) | Err(Stop::Pass) => {
            launch.kernel_path = c.nr == route::number(c);
            launch.look_for_libraries(&environment, arg, c);
            launch.point_environment(c, arg);
        }
        Err(stop) => return Err(stop),
    }
    launch.go()
}

/// A file to be run.
struct Program {
    fs: &'static Dfs,
    ino: Ino,
    /// Its absolute path, for `/proc/self/exe`.
    whole: Vec<u8>,
}

impl Program {
    fn at(spot: &Spot) -> Result<Program> {
        let ino = spot.found()?;
        Ok(Program {
            fs: spot.fs,
            ino,
            whole: whole_path(spot).unwrap_or_default(),
        })
    }
}

fn whole_path(spot: &Spot) -> Result<Vec<u8>> {
    let mut inside = [0u8; PATH_MAX];
    let mut path = calls::dir::shown(spot.fs, spot.parent, &mut inside)?;
    path.push(b'/');
    path.extend_from_slice(spot.name);
    Ok(path)
}

/// The path that an interpreter is given for a script: as the program named it, if that means the
/// same to another process.
fn path_given(spot: &Spot, arg: Arg, c: &Call) -> Vec<u8> {
    let mut buffer = user::path_buffer();
    let given = user::path(arg.address(c), &mut buffer)
        .unwrap_or(b"")
        .to_vec();
    if spot.anonymous || arg.dirfd(c) == AT_FDCWD {
        return given;
    }
    whole_path(spot).unwrap_or(given)
}

/// Reads a NULL-terminated list of pointers; a null list is empty, as Linux has it.
fn list(mut address: usize) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    while address != 0 {
        let entry: usize = user::get(address)?;
        if entry == 0 {
            break;
        }
        if found.len() == LIST_MAX {
            return Err(Errno::E2BIG);
        }
        found.push(entry);
        address += size_of::<usize>();
    }
    Ok(found)
}

/// The value of `LD_LIBRARY_PATH` in an environment, if it has one that is not empty.
fn search_path(environment: &[usize]) -> Option<Vec<u8>> {
    let entry = environment
        .iter()
        .copied()
        .find(|&entry| starts_with(entry, SEARCH))?;
    let value = string_at(entry).get(SEARCH.len()..)?.to_vec();
    Some(value).filter(|value| !value.is_empty())
}

/// Whether the string at `address` starts with `prefix`.
fn starts_with(address: usize, prefix: &[u8]) -> bool {
    let mut head = [0u8; 32];
    let Some(head) = head.get_mut(..prefix.len()) else {
        return false;
    };
    user::get_bytes(address, head).is_ok() && head == prefix
}

impl Launch {
    /// Keeps a string with its NUL; its address stays good as long as the launch.
    fn keep_terminated(&mut self, string: Vec<u8>) -> usize {
        let address = addr(string.as_slice());
        self.strings.push(string);
        address
    }

    fn keep(&mut self, string: &[u8]) -> usize {
        self.keep_terminated(terminated(string))
    }

    /// Fills `envp`: the program's own, and what it must not lose. Whoever keeps us in `LD_PRELOAD`
    /// but drops one of our variables means it.
    fn set_environment(&mut self, given: &[usize], exe: Option<&[u8]>) {
        let preload = given
            .iter()
            .copied()
            .find(|&entry| starts_with(entry, PRELOAD));
        let value = preload.map(string_at).unwrap_or_default();
        let value = value.get(PRELOAD.len()..).unwrap_or(&[]).to_vec();
        self.envp = given
            .iter()
            .copied()
            .filter(|&entry| {
                ![EXE, LIBRARIES, LEFT]
                    .iter()
                    .any(|name| starts_with(entry, name))
            })
            .collect();
        if files::some_end_at_exec() {
            let entry = self.keep(&[LEFT, b"1"].concat());
            self.envp.push(entry);
        }
        if let Some(place) = self.libraries.clone() {
            self.add_libraries(&place);
        }
        if let Some(path) = exe {
            let mut entry = EXE.to_vec();
            entry.extend_from_slice(path);
            let kept = self.keep(&entry);
            self.envp.push(kept);
        }
        if let Some(carried) = CARRIED.get()
            && !carried.preload.is_empty()
            && !names_us(&value)
        {
            self.carry(carried, preload, &value);
        }
        self.envp.push(0);
    }

    fn add_libraries(&mut self, place: &[u8]) {
        let before = self
            .envp
            .iter()
            .copied()
            .find(|&entry| starts_with(entry, SEARCH));
        let value = before.map(string_at).unwrap_or_default();
        let mut entry = SEARCH.to_vec();
        entry.extend_from_slice(place);
        if let Some(value) = value.get(SEARCH.len()..).filter(|value| !value.is_empty()) {
            entry.push(b':');
            entry.extend_from_slice(value);
        }
        let search = self.keep(&entry);
        self.envp.retain(|&e| Some(e) != before);
        self.envp.push(search);
        let kept = self.keep(&[LIBRARIES, place].concat());
        self.envp.push(kept);
    }

    /// Copies of libraries for a program outside the mount whose search path leads into it.
    fn look_for_libraries(&mut self, environment: &[usize], arg: Arg, c: &Call) {
        let search = search_path(environment).filter(|path| libraries::concerns(path));
        let Some(search) = search else { return };
        let path = string_at(arg.address(c));
        if arg.dirfd(c) != AT_FDCWD && path.first() != Some(&b'/') {
            return;
        }
        let Ok(terminated) = CString::new(path.clone()) else {
            return;
        };
        if let Ok(fd) = kernel::open(&terminated, O_CLOEXEC) {
            self.libraries = libraries::prepare(&Source::Kernel(fd), &path, &search);
            if self.libraries.is_some() {
                self.set_environment(environment, None);
            }
        }
    }

    fn carry(&mut self, carried: &Carried, preload: Option<usize>, value: &[u8]) {
        let mut entry = PRELOAD.to_vec();
        entry.extend_from_slice(&carried.preload);
        if !value.is_empty() {
            entry.push(b':');
            entry.extend_from_slice(value);
        }
        let ours = self.keep(&entry);
        self.envp.retain(|&e| Some(e) != preload);
        self.envp.push(ours);
        for entry in &carried.entries {
            let name = entry
                .split_inclusive(|&b| b == b'=')
                .next()
                .unwrap_or(entry);
            if !self.envp.iter().any(|&e| starts_with(e, name)) {
                let kept = self.keep_terminated(entry.clone());
                self.envp.push(kept);
            }
        }
    }

    fn point_environment(&self, c: &mut Call, arg: Arg) {
        // envp comes two arguments after the path in both calls.
        c.args[(arg.path + 2) & 7] = addr(self.envp.as_slice());
    }

    /// Prepares the call for a file in the mount; scripts lead to their interpreters.
    fn run(
        &mut self,
        program: Program,
        given: Vec<u8>,
        environment: &[usize],
        c: &mut Call,
    ) -> Result<()> {
        let (mut program, mut path) = (program, given);
        for _ in 0..SCRIPTS_MAX {
            let mut head = [0u8; HEAD];
            let held = Running::open(program.fs, program.ino)?;
            let len = held.read(addr_mut(&mut head), HEAD)?;
            let head = head.get(..len).unwrap_or(&[]);
            if head.starts_with(b"\x7fELF") {
                return self.run_program(&program, held, environment, c);
            }
            // A script may be written while it runs.
            drop(held);
            let (interpreter, argument) = script(head).ok_or(Errno::ENOEXEC)?;
            let interpreter = self.through(interpreter, argument, &path);
            let probe = Call {
                nr: nr::EXECVE,
                args: [interpreter, 0, 0, 0, 0, 0],
            };
            let mut room = NameRoom::new();
            match route::resolve(&probe, Arg::path(0), route::follow(true), &mut room) {
                Ok(Resolved::Ours(spot)) => {
                    program = Program::at(&spot)?;
                    path = string_at(interpreter);
                }
                Ok(Resolved::KernelPath(path)) => {
                    let at = self.keep_terminated(path);
                    return self.call_kernel(c, at);
                }
                Ok(_) | Err(Stop::Pass) => return self.call_kernel(c, interpreter),
                Err(Stop::Fail(errno)) => return Err(errno),
                Err(_) => return Err(Errno::ENOENT),
            }
        }
        Err(Errno::ELOOP)
    }

    /// Rebuilds `argv` for an interpreter; returns the address of its path.
    fn through(&mut self, interpreter: &[u8], argument: Option<&[u8]>, script: &[u8]) -> usize {
        let first = self.keep(interpreter);
        let mut argv = std::vec![first];
        if let Some(argument) = argument {
            argv.push(self.keep(argument));
        }
        argv.push(self.keep(script));
        argv.extend(self.argv.iter().skip(1));
        self.argv = argv;
        first
    }

    fn call_kernel(&mut self, c: &mut Call, path: usize) -> Result<()> {
        self.argv.push(0);
        c.nr = nr::EXECVE;
        c.args = [
            path,
            addr(self.argv.as_slice()),
            addr(self.envp.as_slice()),
            0,
            0,
            0,
        ];
        Ok(())
    }

    /// Copies the program into a memfd, which the kernel runs.
    fn run_program(
        &mut self,
        program: &Program,
        held: Running,
        environment: &[usize],
        c: &mut Call,
    ) -> Result<()> {
        self.memfd = copy_to_memory(&held)?;
        self.program = Some(held);
        let search = search_path(environment).unwrap_or_default();
        if let Ok(source) = Source::of(program.fs, program.ino) {
            self.libraries = libraries::prepare(&source, &program.whole, &search);
        }
        self.set_environment(environment, Some(&program.whole));
        self.argv.push(0);
        let (argv, envp) = (addr(self.argv.as_slice()), addr(self.envp.as_slice()));
        c.nr = nr::EXECVEAT;
        let empty = self.keep(b"");
        c.args = [
            self.memfd as usize,
            empty,
            argv,
            envp,
            AT_EMPTY_PATH as usize,
            0,
        ];
        Ok(())
    }

    /// After the kernel has refused.
    fn undo(&self) {
        if self.memfd >= 0 {
            kernel::close(self.memfd);
        }
        if let Some(place) = &self.libraries {
            libraries::remove(place);
        }
        if let Some(ino) = self.left {
            running::take_back(ino);
        }
    }

    /// Hands descriptors over and lets the kernel make the call.
    fn go(mut self: Box<Self>) -> core::result::Result<usize, Stop> {
        self.left = running::let_go();
        handover::before_exec();
        let raw = Box::into_raw(self);
        if intercept::in_vfork_child()
            && let Some(word) = intercept::words().get(WORD)
        {
            word.store(raw as u64, Ordering::Relaxed);
        }
        Err(Stop::PassThenWith(After::Exec, raw as usize))
    }
}

fn string_at(address: usize) -> Vec<u8> {
    let mut found = Vec::new();
    let mut part = [0u8; 1];
    while found.len() < PATH_MAX * 32
        && user::get_bytes(address + found.len(), &mut part).is_ok()
        && part[0] != 0
    {
        found.push(part[0]);
    }
    found
}

fn reclaim(address: usize) -> Option<Box<Launch>> {
    // SAFETY: the address comes from Box::into_raw in `go`; whoever gets here is the only one left
    // that knows it.
    (address != 0).then(|| unsafe { Box::from_raw(address as *mut Launch) })
}

/// The parent of a vfork child has nothing to free: the exec failed, and the child does so.
fn forget_launch() {
    if let Some(word) = intercept::words().get(WORD) {
        word.store(0, Ordering::Relaxed);
    }
}

/// Takes the note for this image out of its environment: it is not for its children.
pub(crate) fn forget_left(environment: *const *const core::ffi::c_char) {
    let mut to = environment.cast_mut();
    let mut from = environment;
    loop {
        // SAFETY: the environment is a NULL-terminated list of terminated strings that belongs to the
        // process; no other thread exists yet. `to` is never ahead of `from`.
        unsafe {
            let entry = *from;
            from = from.add(1);
            if !entry.is_null()
                && core::ffi::CStr::from_ptr(entry)
                    .to_bytes()
                    .starts_with(LEFT)
            {
                continue;
            }
            *to = entry;
            to = to.add(1);
            if entry.is_null() {
                return;
            }
        }
    }
}

/// Second half: the exec failed.
pub(crate) fn failed(c: &Call, result: isize, launch: usize) -> isize {
    forget_launch();
    let Some(launch) = reclaim(launch) else {
        return result;
    };
    let kernel_path = launch.kernel_path;
    launch.undo();
    if kernel_path && result == Errno::ENOENT.as_ret() {
        return second_look(c, result);
    }
    result
}

/// In the parent of a vfork child that has ended or gone on to another image: whether it has gone on.
pub(crate) fn vfork_is_over() -> bool {
    let word = intercept::words().get(WORD);
    let launch = word.and_then(|word| reclaim(word.swap(0, Ordering::Relaxed) as usize));
    let gone_on = launch.is_some();
    // The descriptor was the child's, and its process holds the program; only the memory is ours.
    if let Some(program) = launch.and_then(|mut launch| launch.program.take()) {
        program.leave();
    }
    gone_on
}

/// The kernel found nothing: perhaps a symbolic link leads into the mount, or the file is a script
/// whose interpreter lies there. The call is then made from here.
fn second_look(c: &Call, result: isize) -> isize {
    let mut again = *c;
    again.nr = route::look(c);
    let arg = if c.nr == nr::EXECVE {
        Arg::path(0)
    } else {
        Arg::at(0, 1)
    };
    let mut room = NameRoom::new();
    let served = match route::resolve(&again, arg, route::follow(true), &mut room) {
        Ok(Resolved::Ours(_)) => {
            if c.nr == nr::EXECVE {
                execve(&mut again)
            } else {
                execveat(&mut again)
            }
        }
        _ => return script_of_kernel(c, arg).unwrap_or(result),
    };
    finish(&mut again, served, result)
}

fn finish(c: &mut Call, served: Served, otherwise: isize) -> isize {
    match served {
        Err(Stop::PassThenWith(After::Exec, launch)) => {
            let result = kernel::raw(route::number(c), c.args);
            forget_launch();
            if let Some(launch) = reclaim(launch) {
                launch.undo();
            }
            result
        }
        Err(Stop::Fail(errno)) => errno.as_ret(),
        _ => otherwise,
    }
}

/// A script outside the mount with its interpreter inside.
fn script_of_kernel(c: &Call, arg: Arg) -> Option<isize> {
    if c.nr != nr::EXECVE {
        return None;
    }
    let path = string_at(arg.address(c));
    let fd = call!(nr::OPENAT, kernel::abi_cwd(), arg.address(c), O_CLOEXEC, 0).ok()? as i32;
    let mut head = [0u8; HEAD];
    let len = call!(nr::READ, fd, addr_mut(&mut head), HEAD);
    kernel::close(fd);
    let (interpreter, argument) = script(head.get(..len.ok()?)?)?;
    let environment = list(c.args[2]).ok()?;
    let mut launch = Box::new(Launch {
        strings: Vec::new(),
        argv: list(c.args[1]).ok()?,
        envp: Vec::new(),
        memfd: -1,
        program: None,
        left: None,
        libraries: None,
        kernel_path: false,
    });
    launch.set_environment(&environment, None);
    let at = launch.through(interpreter, argument, &path);
    let probe = Call {
        nr: nr::EXECVE,
        args: [at, 0, 0, 0, 0, 0],
    };
    let mut room = NameRoom::new();
    let how = route::follow(true);
    let Ok(Resolved::Ours(spot)) = route::resolve(&probe, Arg::path(0), how, &mut room) else {
        return None;
    };
    let mut made = *c;
    let prepared = launch.run(
        Program::at(&spot).ok()?,
        string_at(at),
        &environment,
        &mut made,
    );
    let served = match prepared {
        Ok(()) => launch.go(),
        Err(errno) => Err(errno.into()),
    };
    Some(finish(&mut made, served, Errno::ENOENT.as_ret()))
}

/// Interpreter and optional argument of a `#!` line; `None` if it is no script.
fn script(head: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let line = head.strip_prefix(b"#!")?;
    let end = line.iter().position(|&b| b == b'\n' || b == 0);
    // Without an end the interpreter's path might be cut; the kernel says ENOEXEC then too.
    let line = line.get(..end.unwrap_or(line.len()))?.trim_ascii();
    let at = line.iter().position(|&b| b == b' ' || b == b'\t');
    if at.is_none() && end.is_none() && head.len() == HEAD {
        return None;
    }
    let (interpreter, rest) = line.split_at(at.unwrap_or(line.len()));
    let argument = rest.trim_ascii();
    (!interpreter.is_empty()).then_some((interpreter, Some(argument).filter(|a| !a.is_empty())))
}

fn copy_to_memory(program: &Running) -> Result<i32> {
    const MFD_CLOEXEC: usize = 1;
    const MFD_EXEC: usize = 0x10;
    const READ_WRITE: usize = 3;
    const SHARED: usize = 1;
    let size = usize::try_from(program.size()?).map_err(|_| Errno::EFBIG)?;
    let name = text!(32, "daos-exe");
    let name = addr(name.c_str().to_bytes_with_nul());
    let fd = call!(nr::MEMFD_CREATE, name, MFD_CLOEXEC | MFD_EXEC)
        .or_else(|_| call!(nr::MEMFD_CREATE, name, MFD_CLOEXEC))? as i32;
    let filled = call!(nr::FTRUNCATE, fd, size)
        .and_then(|_| call!(nr::MMAP, 0, size, READ_WRITE, SHARED, fd, 0))
        .and_then(|at| {
            let read = program.read(at, size);
            kernel::unmap(at, size);
            read
        });
    match filled {
        Ok(_) => Ok(fd),
        Err(errno) => {
            kernel::close(fd);
            Err(errno)
        }
    }
}
