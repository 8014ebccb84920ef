//! The `dmg` command: creating, listing and destroying pools.

use crate::names::PoolArg;
use crate::output::{Failure, Reply, Tool};
use crate::pool::{ListArgs, QueryArgs};
use crate::progress::Bar;
use crate::session::{all_pools, find_pool_dmg, is_gone, not_found, system_root};
use crate::table::{block, numbers, ranges, table};
use crate::usage::bad_flag;
use clap::{Args, Parser, Subcommand};
use daos_types::{Ident, Label, format_base10, parse_size};
use engine::system::{PoolDescriptor, PoolSpec, SystemError};
use serde::Serialize;
use std::path::PathBuf;

/// Ranks of a pool when none are asked for: the smallest number of nodes that gives `rd_fac:2`
/// the class EC_16P2 by default.
const RANKS_DEFAULT: u16 = 20;
/// Targets of a rank when none are asked for, as many as an Aurora server has.
const TARGETS_DEFAULT: u16 = 32;

/// Administrative tool of the embedded DAOS system
#[derive(Parser, Debug)]
#[command(name = "dmg", disable_help_subcommand = true, infer_long_args = true)]
pub(crate) struct Dmg {
    /// Enable debug output
    #[arg(long, global = true)]
    debug: bool,
    /// Enable JSON output
    #[arg(short = 'j', long, global = true)]
    pub(crate) json: bool,
    /// Accepted for compatibility; there is no server to reach
    #[arg(short = 'o', long = "config-path", global = true, value_name = "FILE")]
    config: Option<String>,
    /// Accepted for compatibility; there is no server to reach
    #[arg(short = 'l', long, global = true, value_name = "HOSTS")]
    host_list: Option<String>,
    /// Accepted for compatibility; there is no server to reach
    #[arg(short = 'i', long, global = true)]
    insecure: bool,
    #[command(subcommand)]
    command: DmgCommand,
}

#[derive(Subcommand, Debug)]
enum DmgCommand {
    /// Perform tasks related to DAOS pools
    Pool {
        #[command(subcommand)]
        command: PoolCommand,
    },
    /// Perform tasks related to the whole system
    #[command(visible_alias = "sys")]
    System {
        #[command(subcommand)]
        command: SystemCommand,
    },
    /// Print dmg version
    Version,
}

#[derive(Subcommand, Debug)]
enum SystemCommand {
    /// Free the shared memory of all pools that nobody uses; the next use brings them up again
    Stop,
}

#[derive(Subcommand, Debug)]
enum PoolCommand {
    /// Create a DAOS pool
    Create(CreateArgs),
    /// List DAOS pools
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Query a DAOS pool
    Query(QueryArgs),
    /// Destroy a DAOS pool
    Destroy(DestroyArgs),
    /// Give up ranks that are gone, and what only they have
    Exclude(ExcludeArgs),
    /// List the containers of a pool, as `daos container list`
    #[command(hide = true)]
    ListContainers(PoolArg),
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// Unique label for pool
    #[arg(value_name = "pool label")]
    label: Option<String>,
    /// Total size of the pool (for example 100GB)
    #[arg(short = 'z', long)]
    size: Option<String>,
    /// Number of ranks, each a fault domain of its own
    #[arg(short = 'k', long, value_name = "N")]
    nranks: Option<u16>,
    /// Number of targets on each rank
    #[arg(long, value_name = "T")]
    targets_per_rank: Option<u16>,
    /// Existing directory for ranks, normally a device of its own; may be repeated
    #[arg(long, value_name = "DIR")]
    rank_path: Vec<PathBuf>,
    /// Allocate all space now
    #[arg(long)]
    reserve: bool,
}

#[derive(Args, Debug)]
struct DestroyArgs {
    #[command(flatten)]
    pool: PoolArg,
    /// Destroy also while processes use the pool, and with its containers
    #[arg(short = 'f', long)]
    force: bool,
    /// Destroy also if the pool has containers
    #[arg(short = 'r', long)]
    recursive: bool,
}

#[derive(Args, Debug)]
struct ExcludeArgs {
    #[command(flatten)]
    pool: PoolArg,
    /// Ranks, as a list of numbers and ranges
    #[arg(long, value_name = "RANKS")]
    ranks: Option<String>,
}

#[derive(Serialize)]
struct CreatedJson {
    uuid: String,
    svc_ldr: u16,
    svc_reps: Vec<u16>,
    tgt_ranks: Vec<u16>,
    tier_bytes: Vec<u64>,
}

fn created(tool: Tool, spoken: String, pool: &PoolDescriptor) -> Result<Reply, Failure> {
    let ranks: Vec<u16> = pool.ranks.iter().map(|rank| rank.rank).collect();
    let title = "Pool created with 100.00%,0.00% storage tier ratio";
    let per_rank = format_base10(pool.rank_bytes());
    let total = format_base10(pool.size_bytes);
    let rows = [
        ("UUID                 ", pool.uuid.to_string()),
        ("Service Leader       ", "0".to_owned()),
        ("Service Ranks        ", "0".to_owned()),
        ("Storage Ranks        ", ranges(&ranks)),
        ("Total Size           ", total.clone()),
        (
            "Storage tier 0 (SCM) ",
            format!("{total} ({per_rank} / rank)"),
        ),
        ("Storage tier 1 (NVMe)", "0 B (0 B / rank)".to_owned()),
    ];
    let text = format!(
        "{spoken}{title}\n{}\n{}",
        "-".repeat(title.len()),
        block(&rows)
    );
    let json = CreatedJson {
        uuid: pool.uuid.to_string(),
        svc_ldr: 0,
        svc_reps: vec![0],
        tgt_ranks: ranks,
        tier_bytes: vec![pool.rank_bytes(), 0],
    };
    tool.reply(text, &json)
}

fn create(tool: Tool, args: CreateArgs) -> Result<Reply, Failure> {
    let size = args
        .size
        .ok_or_else(|| Failure::usage("either --size or --scm-size must be set"))?;
    let size_bytes =
        parse_size(&size).map_err(|bad| bad_flag("-z, --size", "poolSizeFlag", bad))?;
    let label = args
        .label
        .ok_or_else(|| Failure::usage("the required argument `<pool label>` was not provided"))?;
    let label = Label::new(&label).map_err(|bad| Failure::plain(bad.to_string()))?;
    let spoken = format!(
        "Creating DAOS pool with automatic storage allocation: {} total, 100.00% ratio\n",
        format_base10(size_bytes)
    );
    let failed = |mut failure: Failure| {
        failure.spoken = spoken.clone();
        failure
    };
    let rank_paths = args
        .rank_path
        .iter()
        .map(std::path::absolute)
        .collect::<Result<_, _>>();
    let spec = PoolSpec {
        label,
        size_bytes,
        ranks: args.nranks.unwrap_or(RANKS_DEFAULT),
        targets_per_rank: args.targets_per_rank.unwrap_or(TARGETS_DEFAULT),
        rank_paths: rank_paths.map_err(|e| Failure::plain(format!("--rank-path: {e}")))?,
        reserve: args.reserve,
    };
    let mut bar = Bar::bytes("Reserving space");
    let made = system_root()
        .map_err(failed)?
        .create_pool(&spec, &mut |done, total| {
            bar.set(done, total);
        });
    bar.finish();
    match made {
        Ok(pool) => created(tool, spoken, &pool),
        Err(SystemError::LabelTaken(label)) => Err(failed(Failure {
            lead: Vec::new(),
            ..Failure::plain(format!(
                "pool create failed: server: code = 609 description = \"pool label \\\"{label}\\\" \
                 already exists in the system\""
            ))
            .because(format!(
                "use another label, or destroy the old pool: dmg pool destroy {label}"
            ))
        })),
        Err(error) => Err(failed(
            Failure::der("pool create failed", error.der()).because(error),
        )),
    }
}

/// Refuses to destroy a pool with containers, or one of which nobody can tell.
///
/// Another process looks: one that is attached counts as a user of the pool, also this one.
fn check_empty(pool: &str, outer: &str) -> Result<(), Failure> {
    let asked = std::env::current_exe().and_then(|program| {
        let mut command = std::process::Command::new(program);
        command.args(["pool", "list-containers", "--json"]);
        command.arg(format!("--pool={pool}")).output()
    });
    let asked =
        asked.map_err(|e| Failure::plain(format!("{outer}: looking for containers: {e}")))?;
    let answer: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
    match answer.get("response").and_then(|found| found.as_array()) {
        Some(found) if found.is_empty() => Ok(()),
        Some(found) => {
            let refused = format!(
                "{outer}: server: code = 618 description = \"cannot destroy a pool with existing \
                 containers\""
            );
            let hint = format!(
                "{} in it; --recursive destroys them with the pool",
                found.len()
            );
            Err(Failure::plain(refused).because(hint))
        }
        None => {
            let why = answer.get("error").and_then(|error| error.as_str());
            Err(Failure::plain(format!(
                "{outer}: cannot tell whether the pool has containers: {}",
                why.unwrap_or("no answer")
            ))
            .because("--recursive destroys it all the same"))
        }
    }
}

fn remove(name: &str, ident: &Ident, force: bool, recursive: bool) -> Result<(), Failure> {
    let outer = "pool destroy failed";
    let root = system_root()?;
    let refused = |error| not_found(name, outer, &error);
    // A pool that is not there is not asked for its containers.
    let missing = matches!(root.find_pool(ident), Err(SystemError::NoPool { .. }));
    if !force && !recursive && !missing {
        check_empty(name, outer)?;
    }
    root.destroy_pool(ident, force).map_err(refused)
}

fn destroy(tool: Tool, args: DestroyArgs) -> Result<Reply, Failure> {
    let name = args.pool.named()?;
    let destroyed = match name.parse::<Ident>() {
        Ok(ident) => remove(&name, &ident, args.force, args.recursive),
        Err(bad) => Err(Failure::plain(format!("pool destroy failed: {bad}"))),
    };
    match destroyed {
        Ok(()) => tool.done("Pool-destroy command succeeded\n"),
        Err(mut failure) => {
            failure.spoken = format!("Pool-destroy command failed: {}\n", failure.message);
            Err(failure)
        }
    }
}

#[derive(Serialize)]
struct ExcludedJson {
    pool: String,
    rank: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `pool exclude`: a row for each rank.
fn exclude(tool: Tool, args: ExcludeArgs) -> Result<Reply, Failure> {
    let list = args
        .ranks
        .ok_or_else(|| Failure::usage("the required flag `--ranks' was not specified"))?;
    let ranks = numbers(&list)
        .ok_or_else(|| Failure::usage(format!("unable to parse rank list {list:?}")))?;
    let name = args.pool.named()?;
    let pool = find_pool_dmg(&name, "pool exclude failed")?;
    let (mut rows, mut excluded, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for rank in ranks {
        let failed = pool.exclude(rank).err();
        let reason = failed
            .as_ref()
            .map(|error| match rank < pool.ranks.len() as u16 {
                true => error.to_string(),
                false => format!("server: code = 606 description = \"{error}\""),
            });
        let result = if failed.is_some() { "FAIL" } else { "OK" };
        rows.push(vec![
            name.clone(),
            rank.to_string(),
            result.to_owned(),
            reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
        failures.extend(failed.map(|error| Failure {
            status: error.der().code(),
            ..Failure::plain(format!("rank {rank} failed on pool {name}"))
        }));
        excluded.push(ExcludedJson {
            pool: name.clone(),
            rank,
            error: reason,
        });
    }
    let text = table(&["Pool", "Ranks", "Result", "Reason"], &rows) + "\n";
    tool.reply_and(failures, text, &excluded)
}

#[derive(Serialize)]
struct StoppedJson {
    pool: String,
    freed_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

/// `system stop`: pools in use are kept, and said to be.
fn stop(tool: Tool) -> Result<Reply, Failure> {
    let mut text = String::new();
    let mut stopped = Vec::new();
    let (pools, failures) = all_pools()?;
    for pool in pools {
        let (freed_bytes, kept) = match pool.release() {
            Ok(bytes) => (bytes, None),
            Err(_) if is_gone(&pool) => continue,
            Err(error) => (0, Some(error.to_string())),
        };
        match &kept {
            Some(why) => text.push_str(&format!("{}: kept: {why}\n", pool.label)),
            None => text.push_str(&format!(
                "{}: {} of shared memory freed\n",
                pool.label,
                format_base10(freed_bytes)
            )),
        }
        stopped.push(StoppedJson {
            pool: pool.label.to_string(),
            freed_bytes,
            kept,
        });
    }
    tool.reply_and(failures, text, &stopped)
}

/// Runs a `dmg` command.
pub(crate) fn run(tool: Tool, command: Dmg) -> Result<Reply, Failure> {
    match command.command {
        DmgCommand::Version => tool.done(format!("dmg version {}\n", env!("CARGO_PKG_VERSION"))),
        DmgCommand::System {
            command: SystemCommand::Stop,
        } => stop(tool),
        DmgCommand::Pool { command } => match command {
            PoolCommand::Create(args) => create(tool, args),
            PoolCommand::List(args) => crate::pool::list(tool, &args),
            PoolCommand::Query(args) => crate::pool::query(tool, args),
            PoolCommand::Destroy(args) => destroy(tool, args),
            PoolCommand::Exclude(args) => exclude(tool, args),
            PoolCommand::ListContainers(pool) => crate::container::list(tool, pool),
        },
    }
}
