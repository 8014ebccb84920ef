//! MPI jobs on the mount: MPICH and Open MPI, four processes, the preload given in the environment of mpiexec and by
//! its own option; POSIX and MPI-IO with the guide's hints.

use super::Context;
use super::c_programs::compile;
use crate::Failure;
use crate::mount::{Mount, PLAIN_FILES, THREE_COPIES};
use crate::place::Place;
use crate::report::Suite;
use crate::run::{Done, Step};
use crate::workspace::{self, TempDir};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Aurora's recommended ROMIO hints.
const HINTS: &str = "romio_cb_write enable\nromio_cb_read enable\ncb_buffer_size 16777216\ncb_config_list *:8\nstriping_unit 2097152\n";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Library {
    Mpich,
    OpenMpi,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Environment,
    Option,
}

impl Library {
    fn name(self) -> &'static str {
        match self {
            Library::Mpich => "mpich",
            Library::OpenMpi => "openmpi",
        }
    }
}

/// Every program with both libraries, both ways, in three copies and without redundancy.
pub(crate) fn mpi(context: &Context) -> Result<Suite, Failure> {
    let mut suite = Suite::new("mpi");
    let stage = TempDir::new(workspace::disk(), "mpi")?;
    let hints = stage.path().join("hints");
    std::fs::write(&hints, HINTS)?;
    let native = Place::native("native", workspace::tmpfs(), None)?;
    let mounts = if context.native_only {
        Vec::new()
    } else {
        vec![
            (
                "rp3",
                Mount::new(context.profile, None, "8GiB", THREE_COPIES)?,
            ),
            (
                "sx",
                Mount::new(context.profile, None, "8GiB", PLAIN_FILES)?,
            ),
        ]
    };
    for library in [Library::Mpich, Library::OpenMpi] {
        let compiler = format!("mpicc.{}", library.name());
        let sources = workspace::root().join("c-tests/mpi");
        for program in compile(&sources, &compiler, &[])? {
            let topic = program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let case = format!("{}/{topic}", library.name());
            let job = Job {
                library,
                program: &program,
                hints: &hints,
            };
            let expected = job.run(&native, Way::Environment)?;
            if let Err(why) = expected {
                suite.check(&case, Err(format!("natively: {why}")));
                continue;
            }
            if context.native_only {
                suite.check(&case, Ok(()));
            }
            for (class, mount) in &mounts {
                for (way, way_name) in [(Way::Environment, "environment"), (Way::Option, "option")]
                {
                    let case = format!("{case}/{class}/{way_name}");
                    match (
                        context.gaps.reason("mpi", &case),
                        job.run(&mount.place, way)?,
                    ) {
                        (None, result) => suite.check(&case, result),
                        (Some(_), Err(_)) => suite.known += 1,
                        (Some(_), Ok(())) => {
                            suite.check(
                                &case,
                                Err("passes now: remove it from c-tests/gaps.txt".to_owned()),
                            );
                        }
                    }
                }
            }
        }
    }
    Ok(suite)
}

struct Job<'a> {
    library: Library,
    program: &'a Path,
    hints: &'a Path,
}

impl Job<'_> {
    fn run(&self, place: &Place, way: Way) -> Result<Result<(), String>, Failure> {
        let dir: PathBuf = place.make_dir("mpi", "mpi")?;
        let done = launch(
            self.library == Library::OpenMpi,
            place,
            way == Way::Option,
            self.hints,
            |step| step.arg(self.program).arg(&dir),
        )?;
        place.step("rm").arg("-rf").arg(&dir).log("mpi").run()?;
        if done.ok() && done.stdout.contains("verified") {
            Ok(Ok(()))
        } else {
            Ok(Err(format!("{}: {}", done.ending(), done.tail(6))))
        }
    }
}

/// Runs four processes; `by_option` passes the place's variables with mpiexec's own option instead of the environment.
fn launch(
    openmpi: bool,
    place: &Place,
    by_option: bool,
    hints: &Path,
    finish: impl FnOnce(Step) -> Step,
) -> Result<Done, Failure> {
    let bare = Place::mounted(&place.label, place.dir.clone(), Vec::new(), place.user);
    let from = if by_option { &bare } else { place };
    let mut step = from
        .step("env")
        .arg(format!("ROMIO_HINTS={}", hints.display()));
    step = step.args([
        "OMPI_ALLOW_RUN_AS_ROOT=1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
    ]);
    step = step.args([
        "OMPI_MCA_btl_vader_single_copy_mechanism=none",
        "OMPI_MCA_btl=self,vader",
    ]);
    step = step.args([
        "OMPI_MCA_rmaps_base_oversubscribe=1",
        "OMPI_MCA_mpi_yield_when_idle=1",
    ]);
    if openmpi {
        step = step.args([
            "mpiexec.openmpi",
            "-n",
            "4",
            "--oversubscribe",
            "-x",
            "ROMIO_HINTS",
        ]);
    } else {
        step = step.args(["mpiexec.mpich", "-n", "4"]);
    }
    if by_option {
        for (name, value) in &place.env {
            let value = value.to_string_lossy();
            if openmpi {
                step = step.arg("-x").arg(format!("{name}={value}"));
            } else {
                step = step.arg("-genv").arg(name).arg(value.into_owned());
            }
        }
    }
    finish(step)
        .timeout(Duration::from_secs(120))
        .log("mpi")
        .run()
}
