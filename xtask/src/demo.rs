//! `cargo xtask demo`: the main job, end to end. Builds, creates a pool and a container with three copies of everything,
//! runs unmodified programs on real data of this machine inside it, then an MPI job; compares results and times with
//! the same work on tmpfs and on the disk's file system; cleans up.

use crate::Failure;
use crate::mount::{Mount, THREE_COPIES};
use crate::packages;
use crate::place::Place;
use crate::run::{Done, Step};
use crate::workspace::{self, Profile};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Use the programs and libraries as they are
    #[arg(long)]
    no_build: bool,
}

/// A piece of work: a shell script that starts in the place's directory; `$SOURCE` is the tree, `$MPI` the MPI programs.
struct Work {
    name: &'static str,
    what: &'static str,
    script: &'static str,
}

const WORK: &[Work] = &[
    Work {
        name: "tar",
        what: "unpack a source tree, pack it again, compare",
        script: "set -e -o pipefail; mkdir tree
            tar -C \"$SOURCE\" -cf - . | tar -C tree -xf -
            tar -C tree --sort=name --owner=0 --group=0 --mtime=@0 -cf - . | sha256sum
            find tree -type f | wc -l",
    },
    Work {
        name: "git",
        what: "git init, add, commit, log, status, fsck",
        script: "set -e; cd tree; export HOME=$PWD/.. GIT_AUTHOR_DATE=2020-01-01T00:00:00Z GIT_COMMITTER_DATE=2020-01-01T00:00:00Z
            git init -q . && git add -A -f . 2> /dev/null
            git -c user.name=demo -c user.email=demo@example.org commit -q -m 'everything'
            git log --format='%T %s'; git status --short | wc -l; git fsck --full 2> /dev/null && echo fsck ok; rm -rf .git",
    },
    Work {
        name: "sqlite+python",
        what: "Python walks the tree into an SQLite database (WAL) and queries it; mmap, threads, multiprocessing",
        script: "set -e; cat > work.py <<'END'
import hashlib, mmap, multiprocessing, os, pathlib, sqlite3, sys

def digest(path):
    size = os.path.getsize(path)
    if size == 0: return (str(path), 0, '')
    with open(path, 'rb') as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
        return (str(path), size, hashlib.sha256(m).hexdigest())

if __name__ == '__main__':
    files = sorted(p for p in pathlib.Path('tree').rglob('*') if p.is_file() and not p.is_symlink())
    with multiprocessing.Pool(2) as pool: rows = pool.map(digest, files, chunksize=50)
    db = sqlite3.connect('files.db'); db.execute('pragma journal_mode=wal')
    with db:
        db.execute('create table files(path text primary key, size int, sha text)')
        db.executemany('insert into files values(?,?,?)', rows)
    print(db.execute('select count(*), sum(size), count(distinct sha) from files').fetchone())
    db.close()
END
            python3 work.py
            sqlite3 files.db 'select path from files order by size desc, path limit 3; pragma integrity_check'",
    },
    Work {
        name: "find+grep",
        what: "find over every entry, grep -r through every file",
        script: "find tree -type d | wc -l; find tree -name '*.h' -size +10k | sort | tail -n 2
            grep -rl 'include' tree | wc -l; grep -rc 'define' tree | awk -F: '{ s += $NF } END { print s }'",
    },
    Work {
        name: "copy+remove",
        what: "cp -a the tree, compare, remove both",
        script: "set -e; cp -a tree copy; diff -r --no-dereference tree copy && echo equal; du -s --apparent-size copy/. | wc -l
            rm -r tree copy; ls | grep -c -e '^tree$' -e '^copy$' || true",
    },
    Work {
        name: "mpiexec -n 4",
        what: "4 MPI processes: one shared strided file, a file per process, MPI-IO collective; re-read and verified",
        script: "set -e; for program in shared_strided file_per_process collective; do
            mkdir mpi; mpiexec.mpich -n 4 $MPI/$program $PWD/mpi 2> mpi.err || { cat mpi.err >&2; exit 1; }; rm -r mpi; done",
    },
];

/// Runs the demonstration; true when every result equals the native one.
pub(crate) fn demo(options: &Options) -> Result<bool, Failure> {
    packages::ensure()?;
    if !options.no_build {
        println!("building (release)");
        let seconds = Profile::Release.build()?;
        println!("  {seconds:.0} s");
    }
    Profile::Release.library()?;
    let source = source_tree()?;
    let programs = mpi_programs()?;
    println!("source tree: {}", source.display());
    println!(
        "creating pool and container: dmg pool create, daos container create {}",
        THREE_COPIES.join(" ")
    );
    let mount = Mount::new(Profile::Release, None, "8GiB", THREE_COPIES)?;
    println!(
        "mount point: {} ({} in the kernel)",
        mount.point().display(),
        if mount.point().exists() {
            "exists"
        } else {
            "does not exist"
        }
    );
    let tmpfs = Place::native("tmpfs", workspace::tmpfs(), None)?;
    let disk = Place::native("disk", workspace::disk(), None)?;
    let mut rows = Vec::new();
    for work in WORK {
        println!("{}: {}", work.name, work.what);
        let runs = [&tmpfs, &disk, &mount.place].map(|place| run(work, place, &source, &programs));
        let [on_tmpfs, on_disk, on_mount] = runs;
        let (on_tmpfs, on_disk, on_mount) = (on_tmpfs?, on_disk?, on_mount?);
        let good =
            on_mount.code == on_tmpfs.code && on_mount.stdout == on_tmpfs.stdout && on_tmpfs.ok();
        for line in on_mount.stdout.lines() {
            println!("    {line}");
        }
        if !good {
            println!(
                "    DIFFERS: {}, natively {}",
                on_mount.ending(),
                on_tmpfs.ending()
            );
            println!("    {}", on_mount.tail(8).replace('\n', "\n    "));
        }
        rows.push((
            work.name,
            on_tmpfs.seconds,
            on_disk.seconds,
            on_mount.seconds,
            good,
        ));
    }
    summary(&mount)?;
    println!(
        "\n{:<16} {:>10} {:>10} {:>10} {:>12}  result",
        "seconds", "tmpfs", "disk", "mount", "mount/tmpfs"
    );
    for (name, on_tmpfs, on_disk, on_mount, good) in &rows {
        println!(
            "{name:<16} {on_tmpfs:>10.2} {on_disk:>10.2} {on_mount:>10.2} {:>11.2}x  {}",
            on_mount / on_tmpfs,
            if *good { "equal" } else { "DIFFERS" }
        );
    }
    let good = rows.iter().all(|(.., good)| *good);
    println!(
        "{}",
        if good {
            "every result equals the kernel's"
        } else {
            "some results differ"
        }
    );
    Ok(good)
}

fn run(work: &Work, place: &Place, source: &Path, programs: &Path) -> Result<Done, Failure> {
    let script = format!(
        "mkdir -p {0} && cd {0} || exit 97\n{1}",
        place.dir.join("demo").display(),
        work.script
    );
    place
        .step("env")
        .arg(format!("SOURCE={}", source.display()))
        .arg(format!("MPI={}", programs.display()))
        .args(["bash", "-c", &script])
        .timeout(Duration::from_secs(120))
        .log("demo")
        .run()
}

/// The report of one program that used the mount.
fn summary(mount: &Mount) -> Result<(), Failure> {
    println!("\ninterception summary of one program (D_IL_REPORT=1 cp, cat):");
    let dir = mount.place.dir.join("demo");
    let script = format!(
        "cd {} && cp files.db copied.db && cat copied.db | wc -c && rm copied.db",
        dir.display()
    );
    let done = mount
        .place
        .step("env")
        .arg("D_IL_REPORT=1")
        .args(["sh", "-c", &script])
        .log("demo")
        .run()?;
    for line in done.stderr.lines().take(60) {
        println!("    {line}");
    }
    Ok(())
}

/// A tree with at least a few hundred files that every machine with the build tools has.
fn source_tree() -> Result<PathBuf, Failure> {
    for dir in [
        "/usr/include",
        "/usr/lib/python3.11",
        "/usr/lib/python3",
        "/usr/share/perl",
    ] {
        let path = PathBuf::from(dir);
        if path.is_dir() {
            let done = Step::new("sh")
                .args(["-c", &format!("find {dir} -type f | head -n 500 | wc -l")])
                .log("demo")
                .run()?;
            if done.stdout.trim() == "500" {
                return Ok(path);
            }
        }
    }
    Err("found no source tree with 500 files".into())
}

fn mpi_programs() -> Result<PathBuf, Failure> {
    let sources = workspace::root().join("c-tests/mpi");
    let programs = crate::suites::compile(&sources, "mpicc.mpich", &[])?;
    programs
        .first()
        .and_then(|p| p.parent())
        .map(Path::to_path_buf)
        .ok_or_else(|| "no MPI programs".into())
}
