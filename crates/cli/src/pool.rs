//! `daos pool`: what a pool is made of and how full it is, and its attributes.

use crate::attributes;
use crate::names::PoolArg;
use crate::output::{Failure, Reply, Tool};
use crate::session::{all_pools, find_pool, find_pool_dmg, is_gone};
use crate::table::{ranges, table};
use crate::usage_figures::{EngineJson, Usage, rank_usage, usage};
use clap::{Args, Subcommand};
use daos_types::{Der, format_base10};
use engine::system::{PoolDescriptor, RankDescriptor};
use serde::Serialize;

/// Commands on pools.
#[derive(Subcommand, Debug)]
pub(crate) enum PoolCommand {
    /// list pools to which this user has access
    List(ListArgs),
    /// query pool info
    Query(QueryArgs),
    /// query pool target info
    QueryTargets(TargetArgs),
    /// list all containers in pool
    #[command(visible_alias = "list-cont")]
    ListContainers(PoolArg),
    /// list pool user-defined attributes
    #[command(visible_aliases = ["list-attrs", "lsattr"])]
    ListAttr(ListAttrArgs),
    /// get pool user-defined attribute
    #[command(visible_alias = "getattr")]
    GetAttr(AttrArgs),
    /// set pool user-defined attribute
    #[command(visible_alias = "setattr")]
    SetAttr(AttrArgs),
    /// delete pool user-defined attribute
    #[command(visible_alias = "delattr")]
    DelAttr(AttrArgs),
}

/// Arguments of `pool list`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Add pool UUIDs and more
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Do not query the pools
    #[arg(short = 'n', long)]
    no_query: bool,
}

/// Arguments of `pool query`.
#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    pool: PoolArg,
    /// Show engine ranks which are enabled
    #[arg(short = 'e', long)]
    show_enabled: bool,
    /// Show engine ranks which are disabled
    #[arg(short = 'b', long)]
    show_disabled: bool,
    /// Only perform pool health related queries
    #[arg(short = 't', long)]
    health_only: bool,
}

/// Arguments of `pool query-targets`.
#[derive(Args, Debug)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    pool: PoolArg,
    /// Engine rank of the target(s) to be queried
    #[arg(long)]
    rank: u16,
    /// Comma-separated list of target indices to be queried (default: all)
    #[arg(long)]
    target_idx: Option<String>,
}

/// Arguments of `list-attr`.
#[derive(Args, Debug)]
pub(crate) struct ListAttrArgs {
    #[command(flatten)]
    pool: PoolArg,
    /// Include values
    #[arg(short = 'V', long, alias = "verbose-values")]
    verbose: bool,
}

/// Arguments of the other attribute commands.
#[derive(Args, Debug)]
pub(crate) struct AttrArgs {
    #[command(flatten)]
    pool: PoolArg,
    /// Names, or name:value pairs, comma separated
    #[arg(value_name = "attributes")]
    attrs: Option<String>,
}

#[derive(Serialize)]
struct Rebuild {
    status: i32,
    state: &'static str,
    objects: u64,
    records: u64,
    total_objects: u64,
}

#[derive(Serialize)]
struct Tier {
    total: u64,
    free: u64,
    min: u64,
    max: u64,
    mean: u64,
    media_type: &'static str,
}

#[derive(Serialize)]
struct TierUsage {
    tier_name: &'static str,
    size: u64,
    free: u64,
    imbalance: u32,
}

/// A rank as ours shows it beside what DAOS shows.
#[derive(Serialize)]
struct RankJson {
    rank: u16,
    state: &'static str,
    path: String,
}

/// The answer of `pool query`, keys in the order of DAOS.
#[derive(Serialize)]
struct PoolJson {
    query_mask: &'static str,
    state: &'static str,
    uuid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    total_targets: u32,
    active_targets: u32,
    total_engines: u32,
    disabled_targets: u32,
    version: u64,
    svc_ldr: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    svc_reps: Option<Vec<u16>>,
    rebuild: Rebuild,
    tier_stats: Option<Vec<Tier>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled_ranks: Option<Vec<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_ranks: Option<Vec<u16>>,
    pool_layout_ver: u32,
    upgrade_layout_ver: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Vec<TierUsage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ranks: Option<Vec<RankJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedded: Option<EngineJson>,
}

/// State of a rank as shown: one whose directory is missing is down, whatever the map says.
fn shown_state(rank: &RankDescriptor) -> &'static str {
    if rank.state.serves() && !rank.present {
        "down"
    } else {
        rank.state.name()
    }
}

fn in_service(rank: &RankDescriptor) -> bool {
    rank.state.serves() && rank.present
}

/// Numbers of the ranks in or out of service.
fn rank_numbers(pool: &PoolDescriptor, enabled: bool) -> Vec<u16> {
    let chosen = pool.ranks.iter().filter(|rank| in_service(rank) == enabled);
    chosen.map(|rank| rank.rank).collect()
}

fn disabled_targets(pool: &PoolDescriptor) -> u32 {
    rank_numbers(pool, false).len() as u32 * u32::from(pool.targets_per_rank)
}

fn pool_state(pool: &PoolDescriptor) -> &'static str {
    if disabled_targets(pool) == 0 {
        "Ready"
    } else {
        "Degraded"
    }
}

fn leader(pool: &PoolDescriptor) -> u16 {
    rank_numbers(pool, true).first().copied().unwrap_or(0)
}

fn tiers(usage: &Usage) -> Vec<Tier> {
    let Usage {
        total,
        free,
        min,
        max,
        mean,
        targets: _,
        engine: _,
    } = *usage;
    vec![
        Tier {
            total,
            free,
            min,
            max,
            mean,
            media_type: "scm",
        },
        Tier {
            total: 0,
            free: 0,
            min: 0,
            max: 0,
            mean: 0,
            media_type: "nvme",
        },
    ]
}

impl PoolJson {
    fn new(pool: &PoolDescriptor, usage: Option<&Usage>) -> PoolJson {
        let disabled = disabled_targets(pool);
        let tier_usage = |tier_name, size, free, imbalance| TierUsage {
            tier_name,
            size,
            free,
            imbalance,
        };
        let rebuild = Rebuild {
            status: 0,
            state: "idle",
            objects: 0,
            records: 0,
            total_objects: 0,
        };
        PoolJson {
            query_mask: if usage.is_some() {
                "rebuild,space"
            } else {
                "dead_engines,disabled_engines,rebuild"
            },
            state: pool_state(pool),
            uuid: pool.uuid.to_string(),
            label: None,
            total_targets: pool.targets(),
            active_targets: usage.map_or(0, |_| pool.targets() - disabled),
            total_engines: pool.ranks.len() as u32,
            disabled_targets: disabled,
            version: pool.map_version,
            svc_ldr: leader(pool),
            svc_reps: None,
            rebuild,
            tier_stats: usage.map(tiers),
            enabled_ranks: None,
            disabled_ranks: usage.is_none().then(|| rank_numbers(pool, false)),
            pool_layout_ver: 0,
            upgrade_layout_ver: 0,
            usage: usage.map(|usage| {
                vec![
                    tier_usage("SCM", usage.total, usage.free, usage.imbalance()),
                    tier_usage("NVME", 0, 0, 0),
                ]
            }),
            ranks: None,
            embedded: None,
        }
    }
}

fn tier_text(usage: &Usage) -> String {
    let size = format_base10;
    format!(
        "- Storage tier 0 (SCM):\n  Total size: {}\n  Free: {}, min:{}, max:{}, mean:{}\n\
         - Storage tier 1 (NVMe):\n  Total size: 0 B\n  Free: 0 B, min:0 B, max:0 B, mean:0 B\n",
        size(usage.total),
        size(usage.free),
        size(usage.min),
        size(usage.max),
        size(usage.mean)
    )
}

/// `pool query` for both tools; `outer` opens the error line of a pool that is not found.
pub(crate) fn query(tool: Tool, args: QueryArgs) -> Result<Reply, Failure> {
    if args.show_enabled && args.show_disabled {
        return Err(Failure::plain(
            "show-enabled and show-disabled can't be used at the same time.",
        ));
    }
    let name = args.pool.name()?;
    let pool = match tool.name {
        "dmg" => find_pool_dmg(&name, "pool query failed")?,
        _ => find_pool(&name, &format!("failed to connect to pool {name}"))?,
    };
    let usage = if args.health_only {
        None
    } else {
        Some(usage(&pool)?)
    };
    let disabled = disabled_targets(&pool);
    let mut text = format!(
        "Pool {}, ntarget={}, disabled={disabled}, leader={}, version={}, state={}\n\
         Pool health info:\n",
        pool.uuid,
        pool.targets(),
        leader(&pool),
        pool.map_version,
        pool_state(&pool)
    );
    let out = rank_numbers(&pool, false);
    if args.show_enabled {
        text.push_str(&format!(
            "- Enabled ranks: {}\n",
            ranges(&rank_numbers(&pool, true))
        ));
    }
    if !out.is_empty() && !args.show_enabled {
        text.push_str(&format!("- Disabled ranks: {}\n", ranges(&out)));
    }
    text.push_str("- Rebuild idle, 0 objs, 0 recs\n");
    if let Some(usage) = &usage {
        text.push_str(&format!(
            "Pool space info:\n- Target(VOS) count:{}\n{}",
            pool.targets() - disabled,
            tier_text(usage)
        ));
        // The original's words end here; scripts that read them are not disturbed by `daos`.
        if let ("dmg", Some(engine)) = (tool.name, &usage.engine) {
            text.push_str(&engine.text());
        }
    }
    let mut json = PoolJson::new(&pool, usage.as_ref());
    json.enabled_ranks = args.show_enabled.then(|| rank_numbers(&pool, true));
    if args.show_disabled {
        json.disabled_ranks = Some(out);
    }
    json.ranks = Some(pool.ranks.iter().map(rank_json).collect());
    json.embedded = usage.and_then(|usage| usage.engine);
    tool.reply(text, &json)
}

fn rank_json(rank: &RankDescriptor) -> RankJson {
    let path = rank.path.display().to_string();
    RankJson {
        rank: rank.rank,
        state: shown_state(rank),
        path,
    }
}

#[derive(Serialize)]
struct PoolsJson {
    pools: Vec<PoolJson>,
}

/// `pool list` for both tools.
pub(crate) fn list(tool: Tool, args: &ListArgs) -> Result<Reply, Failure> {
    let mut rows = Vec::new();
    let mut pools = Vec::new();
    // One pool that cannot be read does not hide the others.
    let (found, mut failures) = all_pools()?;
    for pool in found {
        let usage = match args.no_query {
            true => Ok(Usage::default()),
            false => usage(&pool),
        };
        let usage = match usage {
            Ok(usage) => usage,
            Err(_) if is_gone(&pool) => continue,
            Err(failure) => {
                failures.push(failure.under(&format!("query on pool {} failed", pool.label)));
                continue;
            }
        };
        let disabled = format!("{}/{}", disabled_targets(&pool), pool.targets());
        let (label, state) = (pool.label.to_string(), pool_state(&pool).to_owned());
        let size = format_base10(usage.total);
        let imbalance = format!("{}%", usage.imbalance());
        rows.push(if args.verbose {
            let used = format_base10(usage.total - usage.free);
            let zero = || "0 B".to_owned();
            vec![
                label,
                pool.uuid.to_string(),
                state,
                leader(&pool).to_string(),
                size,
                used,
                imbalance,
                zero(),
                zero(),
                "0%".to_owned(),
                disabled,
                "None".to_owned(),
                "idle".to_owned(),
            ]
        } else {
            vec![
                label,
                size,
                state,
                format!("{}%", usage.used_percent()),
                imbalance,
                disabled,
            ]
        });
        let mut json = PoolJson::new(&pool, Some(&usage));
        json.label = Some(pool.label.to_string());
        json.svc_reps = Some(vec![leader(&pool)]);
        pools.push(json);
    }
    let titles: &[&str] = if args.verbose {
        &[
            "Label",
            "UUID",
            "State",
            "SvcReps",
            "SCM Size",
            "SCM Used",
            "SCM Imbalance",
            "NVME Size",
            "NVME Used",
            "NVME Imbalance",
            "Disabled",
            "UpgradeNeeded?",
            "Rebuild State",
        ]
    } else {
        &["Pool", "Size", "State", "Used", "Imbalance", "Disabled"]
    };
    let text = if rows.is_empty() && !failures.is_empty() {
        String::new()
    } else if rows.is_empty() {
        "no pools in system\n".to_owned()
    } else {
        table(titles, &rows) + "\n"
    };
    tool.reply_and(failures, text, &PoolsJson { pools })
}

#[derive(Serialize)]
struct TargetSpace {
    total: u64,
    free: u64,
    media_type: &'static str,
}

#[derive(Serialize)]
struct TargetJson {
    target_type: &'static str,
    target_state: &'static str,
    space: Vec<TargetSpace>,
}

fn query_targets(tool: Tool, args: TargetArgs) -> Result<Reply, Failure> {
    let name = args.pool.name()?;
    let pool = find_pool(&name, &format!("failed to connect to pool {name}"))?;
    let missing = |target: u16| {
        let outer = format!(
            "failed to query pool {} rank:target {}:{target}",
            pool.uuid, args.rank
        );
        Failure::der(outer, Der::NonExist).because(format!(
            "pool {} has ranks 0 to {} with targets 0 to {}",
            pool.label,
            pool.ranks.len() - 1,
            pool.targets_per_rank - 1
        ))
    };
    let targets: Vec<u16> = match &args.target_idx {
        None => (0..pool.targets_per_rank).collect(),
        Some(list) => {
            let parsed: Result<Vec<u16>, _> = list.split(',').map(str::parse).collect();
            parsed.map_err(|_| Failure::usage(format!("invalid target index list {list:?}")))?
        }
    };
    let first = targets.first().copied().unwrap_or(0);
    let rank = pool
        .ranks
        .get(usize::from(args.rank))
        .ok_or_else(|| missing(first))?;
    let (total, free) = rank_usage(&pool, rank)?;
    let targets_of_rank = u64::from(pool.targets_per_rank.max(1));
    let (per_target, free) = (total / targets_of_rank, free / targets_of_rank);
    let mut text = String::new();
    let mut infos = Vec::new();
    for target in targets {
        if target >= pool.targets_per_rank {
            return Err(missing(target));
        }
        let state = shown_state(rank);
        text.push_str(&format!(
            "Target: type unknown, state {state}\n- Storage tier 0 (SCM):\n  Total size: {}\n  \
             Free: {}\n- Storage tier 1 (NVMe):\n  Total size: 0 B\n  Free: 0 B\n",
            format_base10(per_target),
            format_base10(free)
        ));
        let space = vec![
            TargetSpace {
                total: per_target,
                free,
                media_type: "scm",
            },
            TargetSpace {
                total: 0,
                free: 0,
                media_type: "nvme",
            },
        ];
        infos.push(TargetJson {
            target_type: "unknown",
            target_state: state,
            space,
        });
    }
    tool.reply(text, &infos)
}

fn attrs(
    tool: Tool,
    args: AttrArgs,
    what: fn(Tool, &PoolDescriptor, Option<String>) -> Result<Reply, Failure>,
) -> Result<Reply, Failure> {
    let (name, rest) = args.pool.with_rest()?;
    let pool = find_pool(&name, &format!("failed to connect to pool {name}"))?;
    what(tool, &pool, rest.or(args.attrs))
}

fn get_attr(tool: Tool, pool: &PoolDescriptor, names: Option<String>) -> Result<Reply, Failure> {
    let failing = format!("failed to get attributes for pool {}", pool.label);
    attributes::get(
        tool,
        &format!("pool {}", pool.uuid),
        &failing,
        &pool.attrs,
        names.as_deref(),
    )
}

fn set_attr(tool: Tool, pool: &PoolDescriptor, pairs: Option<String>) -> Result<Reply, Failure> {
    let pairs = attributes::pairs(pairs)?;
    pool.update_map(&mut |map| {
        for (name, value) in &pairs {
            map.attrs.retain(|(known, _)| known != name);
            map.attrs.push((name.clone(), value.clone().into_bytes()));
        }
    })?;
    tool.done("")
}

fn del_attr(tool: Tool, pool: &PoolDescriptor, names: Option<String>) -> Result<Reply, Failure> {
    let names = attributes::names(names)?;
    pool.update_map(&mut |map| map.attrs.retain(|(known, _)| !names.contains(known)))?;
    tool.done("")
}

/// Runs a `daos pool` command.
pub(crate) fn run(tool: Tool, command: PoolCommand) -> Result<Reply, Failure> {
    match command {
        PoolCommand::List(args) => list(tool, &args),
        PoolCommand::Query(args) => query(tool, args),
        PoolCommand::QueryTargets(args) => query_targets(tool, args),
        PoolCommand::ListContainers(pool) => crate::container::list(tool, pool),
        PoolCommand::ListAttr(args) => {
            let name = args.pool.name()?;
            let pool = find_pool(&name, &format!("failed to connect to pool {name}"))?;
            attributes::list(
                tool,
                &format!("pool {}", pool.uuid),
                &pool.attrs,
                args.verbose,
            )
        }
        PoolCommand::GetAttr(args) => attrs(tool, args, get_attr),
        PoolCommand::SetAttr(args) => attrs(tool, args, set_attr),
        PoolCommand::DelAttr(args) => attrs(tool, args, del_attr),
    }
}
