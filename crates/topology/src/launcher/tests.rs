//! Every launcher, impossible values, contradictions, left-over variables.

use super::*;

fn identity(variables: &[(&str, &str)]) -> Identity {
    local_identity(&|name| {
        variables
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

fn of(rank: usize, size: usize) -> Option<LocalRank> {
    Some(LocalRank { rank, size })
}

#[test]
fn every_launcher_is_understood() {
    let cases: &[(Launcher, &[(&str, &str)])] = &[
        (
            Launcher::Pals,
            &[("PALS_LOCAL_RANKID", "5"), ("PALS_LOCAL_SIZE", "12")],
        ),
        (
            Launcher::CrayPmi,
            &[("PMI_LOCAL_RANK", "5"), ("PMI_LOCAL_SIZE", "12")],
        ),
        (
            Launcher::Hydra,
            &[("MPI_LOCALRANKID", "5"), ("MPI_LOCALNRANKS", "12")],
        ),
        (
            Launcher::OpenMpi,
            &[
                ("OMPI_COMM_WORLD_LOCAL_RANK", "5"),
                ("OMPI_COMM_WORLD_LOCAL_SIZE", "12"),
            ],
        ),
        (
            Launcher::Mvapich2,
            &[
                ("MV2_COMM_WORLD_LOCAL_RANK", "5"),
                ("MV2_COMM_WORLD_LOCAL_SIZE", "12"),
            ],
        ),
        (
            Launcher::Slurm,
            &[
                ("SLURM_LOCALID", "5"),
                ("SLURM_STEP_TASKS_PER_NODE", "12(x2)"),
            ],
        ),
        (
            Launcher::Slurm,
            &[("SLURM_LOCALID", "5"), ("SLURM_NTASKS_PER_NODE", "12")],
        ),
        (
            Launcher::Flux,
            &[
                ("FLUX_TASK_LOCAL_ID", "5"),
                ("FLUX_JOB_SIZE", "24"),
                ("FLUX_JOB_NNODES", "2"),
            ],
        ),
        (
            Launcher::Jsrun,
            &[
                ("JSM_NAMESPACE_LOCAL_RANK", "5"),
                ("JSM_NAMESPACE_LOCAL_SIZE", "12"),
            ],
        ),
        (
            Launcher::Torchrun,
            &[("LOCAL_RANK", "5"), ("LOCAL_WORLD_SIZE", "12")],
        ),
    ];
    for (launcher, variables) in cases {
        let found = identity(variables);
        assert_eq!(found.launcher, Some(*launcher), "{variables:?}");
        assert_eq!(found.local, of(5, 12), "{variables:?}");
        assert!(found.notes.is_empty(), "{:?}", found.notes);
    }
    assert_eq!(identity(&[]), Identity::default());
}

/// Ten ranks on four nodes: 3, 3, 2, 2.
#[test]
fn flux_sizes_by_node() {
    let cases = [
        ("0", "0", of(0, 3)),
        ("5", "2", of(2, 3)),
        ("6", "0", of(0, 2)),
        ("9", "1", of(1, 2)),
        // Dealt round: rank 9 is the third of the second node.
        ("9", "2", of(2, 3)),
    ];
    for (rank, local, expected) in cases {
        let found = identity(&[
            ("FLUX_TASK_RANK", rank),
            ("FLUX_TASK_LOCAL_ID", local),
            ("FLUX_JOB_SIZE", "10"),
            ("FLUX_JOB_NNODES", "4"),
        ]);
        assert_eq!(found.local, expected, "rank {rank}: {:?}", found.notes);
    }
}

#[test]
fn slurm_sizes_by_node() {
    for (text, node, size) in [
        ("12", 3, Some(12)),
        ("12(x2)", 1, Some(12)),
        ("12(x2),4", 1, Some(12)),
        ("12(x2),4", 2, Some(4)),
        ("12(x2),4(x3),1", 5, Some(1)),
        ("12(x2),4", 3, None),
        ("12(x", 0, None),
        ("12(x2", 0, None),
        ("", 0, None),
        ("0", 0, None),
        ("a,b", 0, None),
        ("1(x18446744073709551615),1(x2)", 0, None),
    ] {
        assert_eq!(tasks_on_node(text, node), size, "{text} node {node}");
    }
    let third = identity(&[
        ("SLURM_LOCALID", "3"),
        ("SLURM_TASKS_PER_NODE", "12(x2),4"),
        ("SLURM_NODEID", "2"),
        ("SLURM_NNODES", "3"),
        ("SLURM_JOB_ID", "77"),
        ("SLURM_STEP_ID", "0"),
    ]);
    assert_eq!(third.local, of(3, 4));
    assert_eq!(third.nodes, Some(3));
    assert_eq!(third.job.as_deref(), Some("Slurm:77.0"));
}

#[test]
fn node_count_follows_from_the_totals() {
    let found = identity(&[
        ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "12"),
        ("OMPI_COMM_WORLD_RANK", "13"),
        ("OMPI_COMM_WORLD_SIZE", "30"),
    ]);
    assert_eq!(found.nodes, Some(3));
}

#[test]
fn impossible_values_are_ignored_with_a_reason() {
    for (variables, reason) in [
        (
            vec![("PALS_LOCAL_RANKID", "12"), ("PALS_LOCAL_SIZE", "12")],
            "PALS ignored: rank 12 of 12 on this node is impossible",
        ),
        (
            vec![("PALS_LOCAL_RANKID", "-1"), ("PALS_LOCAL_SIZE", "12")],
            "PALS ignored: PALS_LOCAL_RANKID=\"-1\" is not a rank",
        ),
        (
            vec![("MPI_LOCALRANKID", "0"), ("MPI_LOCALNRANKS", "two\nlines")],
            "MPICH Hydra ignored: MPI_LOCALNRANKS=\"two lines\" is not a number of ranks",
        ),
        (
            vec![("SLURM_LOCALID", "0")],
            "Slurm ignored: the number of ranks on this node is not given",
        ),
        (
            vec![("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "99999999")],
            "torchrun ignored: rank 0 of 99999999 on this node is impossible",
        ),
        (
            vec![
                ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
                ("OMPI_COMM_WORLD_LOCAL_SIZE", "4"),
                ("OMPI_COMM_WORLD_RANK", "9"),
                ("OMPI_COMM_WORLD_SIZE", "4"),
            ],
            "Open MPI ignored: OMPI_COMM_WORLD_RANK=9, OMPI_COMM_WORLD_SIZE=4 and 4 ranks here \
             contradict",
        ),
    ] {
        let found = identity(&variables);
        assert_eq!(found.local, None, "{variables:?}");
        assert_eq!(found.notes, [reason]);
    }
}

#[test]
fn a_damaged_launcher_does_not_hide_a_sound_one() {
    let found = identity(&[
        ("PALS_LOCAL_RANKID", "7"),
        ("PALS_LOCAL_SIZE", "4"),
        ("MPI_LOCALRANKID", "2"),
        ("MPI_LOCALNRANKS", "4"),
    ]);
    assert_eq!(found.local, of(2, 4));
    assert_eq!(found.notes.len(), 1);
}

#[test]
fn contradictions_are_ignored() {
    let found = identity(&[
        ("PALS_LOCAL_RANKID", "3"),
        ("PALS_LOCAL_SIZE", "12"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "5"),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "12"),
    ]);
    assert_eq!(found.local, None);
    assert_eq!(
        found.notes,
        ["contradictory rank variables ignored: PALS says 3 of 12, Open MPI says 5 of 12"]
    );
}

#[test]
fn left_over_variables_do_not_disturb() {
    // mpirun inside a Slurm batch script: the script's SLURM_LOCALID is inherited by every rank.
    let batch = [("SLURM_LOCALID", "0"), ("SLURM_TASKS_PER_NODE", "12(x2)")];
    let mpi = [
        ("OMPI_COMM_WORLD_LOCAL_RANK", "5"),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "12"),
    ];
    assert_eq!(identity(&[batch, mpi].concat()).local, of(5, 12));
    // mpiexec starts one shell per node, which starts another mpirun.
    let shell = [("PALS_LOCAL_RANKID", "0"), ("PALS_LOCAL_SIZE", "1")];
    let found = identity(&[shell, mpi].concat());
    assert_eq!(
        (found.local, found.launcher),
        (of(5, 12), Some(Launcher::OpenMpi))
    );
    // srun starts one torchrun per node.
    let step = [
        ("SLURM_LOCALID", "0"),
        ("SLURM_STEP_TASKS_PER_NODE", "1(x2)"),
    ];
    let torch = [("LOCAL_RANK", "2"), ("LOCAL_WORLD_SIZE", "4")];
    assert_eq!(identity(&[step, torch].concat()).local, of(2, 4));
}
