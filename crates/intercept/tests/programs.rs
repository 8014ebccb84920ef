//! Real programs and hard cases under the demo preload library, with `/pfs-demo` absent from the
//! kernel, so that a call that escapes fails.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The directory of the built examples, which `cargo test` builds along.
fn examples() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples")
}

/// A cache for all tests, in the build directory.
fn shared_cache() -> PathBuf {
    examples().parent().unwrap().join("demo-cache")
}

struct Demo {
    backing: tempfile::TempDir,
    /// Let the gate judge paths.
    filter: bool,
    mode: &'static str,
}

impl Demo {
    fn new() -> Demo {
        let backing = tempfile::tempdir().unwrap();
        std::fs::write(backing.path().join("x"), "hello\n").unwrap();
        Demo {
            backing,
            filter: false,
            mode: "auto",
        }
    }

    fn dispatched() -> Demo {
        Demo {
            mode: "rewrite+sud",
            ..Demo::new()
        }
    }

    fn filtered() -> Demo {
        Demo {
            filter: true,
            ..Demo::new()
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        // The limit of 60 s turns a hang into a failure.
        Command::new("timeout")
            .args(["60", program])
            .args(arguments)
            .env("LD_PRELOAD", examples().join("libdemo_preload.so"))
            .env("PFS_DEMO_DIR", self.backing.path())
            .env("PFS_DEMO_CACHE", shared_cache())
            .env("D_IL_MODE", self.mode)
            .envs(self.filter.then_some(("PFS_DEMO_FILTER", "1")))
            .output()
            .unwrap()
    }

    fn expect(&self, program: &str, arguments: &[&str], stdout: &str) {
        let out = self.run(program, arguments);
        let stderr = String::from_utf8_lossy(&out.stderr);
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(
            out.status.success(),
            "{program} {arguments:?}: {:?}\n{stderr}",
            out.status
        );
        assert_eq!(text, stdout, "{stderr}");
    }

    fn victim(&self, what: &str) {
        let victim = examples().join("victim");
        let out = self.run(victim.to_str().unwrap(), &[what]);
        let stderr = String::from_utf8_lossy(&out.stderr);
        let signal = out.status.signal();
        assert!(
            out.status.success(),
            "{what}: {:?} {signal:?}\n{stderr}",
            out.status
        );
        assert!(out.stdout.starts_with(b"ok"));
    }
}

macro_rules! victims {
    ($($name:ident = $what:literal;)*) => {$(
        #[test]
        fn $name() {
            Demo::new().victim($what);
            Demo::filtered().victim($what);
            Demo::dispatched().victim($what);
        }
    )*};
}

victims! {
    signal_storm_during_hooks = "storm";
    signal_storm_on_an_alternate_stack = "altstack";
    threads_with_tiny_stacks = "tiny-stacks";
    vfork_child_changes_its_own_descriptors_only = "vfork";
    fork_clone_spawn = "processes";
    eight_threads_spawn_and_fork = "threads";
    wild_pointers_are_efault = "wild";
    own_view_of_signals = "signals";
    cancelled_in_a_blocking_read = "cancel";
    memory_deny_write_execute = "mdwe";
    bug_in_the_dispatcher_is_eio = "bug";
}

#[test]
fn a_process_ends_whatever_goes_wrong() {
    let python = Command::new("python3").arg("-c").arg("0").status();
    if !python.is_ok_and(|status| status.success()) {
        return;
    }
    for demo in [Demo::new(), Demo::filtered(), Demo::dispatched()] {
        // A panic, and a fault.
        for code in [77, 78] {
            // libc would end the thread alone.
            let program = format!(
                "import os, threading, time\n\
                 threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\n\
                 os._exit({code})"
            );
            let out = demo.run("python3", &["-c", &program]);
            assert_eq!(out.status.code(), Some(code), "{:?}", out.status);
        }
    }
}

#[test]
fn cat_and_ls() {
    let demo = Demo::new();
    demo.expect("cat", &["/pfs-demo/x"], "hello\n");
    demo.expect("ls", &["/pfs-demo"], "x\n");
    assert!(!demo.run("ls", &["/pfs-demox"]).status.success());
}

#[test]
fn bash_redirections() {
    let script = "set -e; echo one > /pfs-demo/a; (echo two; echo three) >> /pfs-demo/a; \
        wc -l < /pfs-demo/a; x=$(cat /pfs-demo/a); echo $x; cat <<<here; \
        diff <(sort /pfs-demo/a) <(sort < /pfs-demo/a) && echo same; \
        trap 'echo trapped' USR1; kill -USR1 $$; exec 7</pfs-demo/x; read -u 7 line; echo $line";
    Demo::new().expect(
        "bash",
        &["-c", script],
        "3\none two three\nhere\nsame\ntrapped\nhello\n",
    );
}

#[test]
fn python_subprocess_threads_signals() {
    let script = r#"
import os, signal, subprocess, threading
print(subprocess.check_output(["cat", "/pfs-demo/x"]).decode(), end="")
print(subprocess.run("cat < /pfs-demo/x", shell=True, capture_output=True).stdout)
def work(i):
    for k in range(50):
        with open(f"/pfs-demo/t{i}", "w") as f: f.write(str(k))
        assert open(f"/pfs-demo/t{i}").read() == str(k)
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(os.listdir("/pfs-demo")))
pid = os.fork()
if pid == 0:
    os._exit(3 if open("/pfs-demo/x").read() == "hello\n" else 4)
print(os.waitpid(pid, 0)[1] >> 8)
"#;
    let python = Command::new("python3").arg("-c").arg("0").status();
    if !python.is_ok_and(|status| status.success()) {
        return;
    }
    let names: Vec<String> = (0..8).map(|i| format!("'t{i}'")).collect();
    let listing = format!("[{}, 'x']", names.join(", "));
    Demo::new().expect(
        "python3",
        &["-c", script],
        &format!("hello\nb'hello\\n'\n{listing}\n3\n"),
    );
}

#[test]
fn perl_open_system_backticks() {
    let script = "$|=1; open(F,'/pfs-demo/x'); print <F>; system('cat /pfs-demo/x'); \
        print `cat /pfs-demo/x`";
    Demo::new().expect("perl", &["-e", script], "hello\nhello\nhello\n");
}

#[test]
fn mode_off_leaves_the_program_alone() {
    let demo = Demo::new();
    let out = Command::new("cat")
        .arg("/pfs-demo/x")
        .env("LD_PRELOAD", examples().join("libdemo_preload.so"))
        .env("PFS_DEMO_DIR", demo.backing.path())
        .env("D_IL_MODE", "off")
        .output()
        .unwrap();
    assert!(!out.status.success());
}

#[test]
fn library_needs_libc_and_the_linker_only() {
    let library = examples().join("libdemo_preload.so");
    let out = Command::new("readelf").arg("-d").arg(library).output();
    let Ok(out) = out else {
        return;
    };
    let text = String::from_utf8(out.stdout).unwrap();
    let needed: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .collect();
    assert!(!needed.is_empty());
    for line in needed {
        assert!(
            line.contains("libc.so.6") || line.contains("ld-linux"),
            "{line}"
        );
    }
}

/// System calls that are not libc's are found and served where the kernel has user dispatch.
#[test]
fn raw_calls_are_served() {
    let demo = Demo::new();
    let victim = examples().join("raw_victim");
    for mode in ["rewrite+sud", "auto"] {
        let out = Command::new("timeout")
            .arg("60")
            .arg(&victim)
            .env("LD_PRELOAD", examples().join("libdemo_preload.so"))
            .env("PFS_DEMO_DIR", demo.backing.path())
            .env("PFS_DEMO_CACHE", shared_cache())
            .env("PFS_DEMO_VERBOSE", "1")
            .env("D_IL_MODE", mode)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        if !stderr.contains("dispatch: Some(Ok") {
            assert!(stderr.contains("dispatch: None"), "{stderr}");
            continue;
        }
        assert!(out.status.success(), "{mode}: {stderr}");
        assert_eq!(out.stdout, b"ok\n");
    }
}

/// The dynamic linker started as a program, with the library on its command line.
#[test]
fn dynamic_linker_as_a_program() {
    let demo = Demo::new();
    let library = examples().join("libdemo_preload.so");
    let out = Command::new("/lib64/ld-linux-x86-64.so.2")
        .arg("--preload")
        .arg(library)
        .args(["/bin/cat", "/pfs-demo/x"])
        .env("PFS_DEMO_CACHE", shared_cache())
        .env("PFS_DEMO_DIR", demo.backing.path())
        .output()
        .unwrap();
    assert_eq!(out.stdout, b"hello\n", "{out:?}");
}

/// Where no file of any kind can be written, the text is changed in place.
#[test]
fn rewritten_in_place_as_a_last_resort() {
    let demo = Demo::new();
    let parent = tempfile::tempdir().unwrap();
    // Bash makes a cache before the limit holds; its child must not find it.
    let limited = "ulimit -f 0; rm -r \"$PFS_DEMO_CACHE\"; exec cat /pfs-demo/x";
    let out = Command::new("bash")
        .args(["-c", limited])
        .env("LD_PRELOAD", examples().join("libdemo_preload.so"))
        .env("PFS_DEMO_DIR", demo.backing.path())
        .env("PFS_DEMO_CACHE", parent.path().join("cache"))
        .env("PFS_DEMO_VERBOSE", "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.stdout, b"hello\n", "{stderr}");
    assert!(stderr.contains("result: Ok(InPlace)"), "{stderr}");
}

/// An image that is damaged, foreign or readable by others is not used; the program runs on.
#[test]
fn cache_is_trusted_only_when_private() {
    use std::os::unix::fs::PermissionsExt;
    let demo = Demo::new();
    let parent = tempfile::tempdir().unwrap();
    let cache = parent.path().join("cache");
    let run = || {
        Command::new("cat")
            .arg("/pfs-demo/x")
            .env("LD_PRELOAD", examples().join("libdemo_preload.so"))
            .env("PFS_DEMO_DIR", demo.backing.path())
            .env("PFS_DEMO_CACHE", &cache)
            .env("PFS_DEMO_VERBOSE", "1")
            .output()
            .unwrap()
    };
    let source = |out: &Output, word: &str| {
        assert_eq!(out.stdout, b"hello\n");
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(text.matches(word).count(), 2, "{word}: {text}");
    };
    source(&run(), "result: Ok(NewCacheFile)");
    source(&run(), "result: Ok(CacheFile)");
    let mode = std::fs::metadata(&cache).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let images = || {
        let entries = std::fs::read_dir(&cache)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries.filter(|path| path.to_str().unwrap().contains("/text-"))
    };
    for path in images() {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
    }
    source(&run(), "result: Ok(NewCacheFile)");
    for path in images() {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_len(8192).unwrap();
    }
    source(&run(), "result: Ok(NewCacheFile)");
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o755)).unwrap();
    source(&run(), "result: Ok(MemoryFile)");
}

#[test]
fn filtered_paths_are_told_apart() {
    let demo = Demo::filtered();
    let script = "cat /pfs-demo/x; cat < /pfs-demo/x; test -e /pfs-dem || echo no; \
        test -e /pfs-demox || echo no; cat /etc/../nowhere 2>/dev/null || echo no; \
        test -d / && test -d /etc && echo yes";
    demo.expect("bash", &["-c", script], "hello\nhello\nno\nno\nno\nyes\n");
}
